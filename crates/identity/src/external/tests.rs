//! Asking a small authority outside, on this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A server for one connection, whose own certificate stands on `root`; `answer` makes the answer's bytes of
/// the request's. Gives its URL, and what it was asked.
fn serve(
    root: &RootCa,
    answer: impl FnOnce(&serde_json::Value) -> String + Send + 'static,
) -> (String, JoinHandle<String>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let root_key = KeyPair::from_pem(&root.key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(root.certificate_pem(), root_key).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let trust = Trust::parse(root.certificate_pem()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(trust.roots, provider()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/api/v1/cfssl/sign", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let mut request = String::new();
        let mut byte = [0];
        let is_whole = |request: &str| {
            let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            body.len() >= length.parse().unwrap()
        };
        while !is_whole(&request) {
            // A client that does not like this server goes away.
            match stream.read(&mut byte) {
                Ok(1) => request.push(char::from(byte[0])),
                _ => return request,
            }
        }
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let answer = answer(&serde_json::from_str(body).unwrap());
        stream.write_all(answer.as_bytes()).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        request
    });
    (url, served)
}

fn ok(body: &serde_json::Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn root() -> RootCa {
    RootCa::generate(SystemTime::now()).unwrap()
}

fn asker(root: &RootCa, urls: Vec<String>) -> ExternalCa {
    let node = root.issue("m", Role::Manager, "c", SystemTime::now(), HOUR).unwrap();
    ExternalCa::new(urls, &Trust::parse(root.certificate_pem()).unwrap(), &node).unwrap()
}

#[test]
fn an_authority_outside_signs_with_the_names_that_the_cluster_decides() {
    let root = root();
    let again = RootCa::from_pem(root.certificate_pem().to_owned(), &root.key_pem()).unwrap();
    let (url, served) = serve(&root, move |request| {
        assert_eq!(request["subject"]["CN"], "n");
        assert_eq!(request["subject"]["names"][0], serde_json::json!({"O": "c", "OU": "swarm-worker"}));
        assert_eq!(request["hosts"], serde_json::json!(["swarm-worker", "n"]));
        let csr = request["certificate_request"].as_str().unwrap();
        let certificate = again.sign(csr, "n", Role::Worker, "c", SystemTime::now(), HOUR).unwrap();
        ok(&serde_json::json!({"success": true, "result": {"certificate": certificate}, "errors": []}))
    });
    let key = crate::NodeKey::generate().unwrap();
    let request = SignRequest::node(&key.csr().unwrap(), "n", Role::Worker, "c");
    // The first address is nobody's: the next one is asked.
    let nobody = "https://127.0.0.1:1/".to_owned();
    let chain = asker(&root, vec![nobody, url]).sign(&request).unwrap();
    let trust = Trust::parse(root.certificate_pem()).unwrap();
    assert_eq!(trust.verify_own(&chain, SystemTime::now()).unwrap().node, "n");
    let request = served.join().unwrap();
    assert!(request.starts_with("POST /api/v1/cfssl/sign HTTP/1.0\r\nHost: 127.0.0.1:"), "{request}");
}

#[test]
fn what_is_no_certificate_is_refused_in_swarmkits_words() {
    let cases = [
        (
            "HTTP/1.1 200 OK\r\n\r\n{\"success\":false,\"errors\":[{\"code\":7,\"message\":\"no\"}]}",
            "response errors: [{7 no}]",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n{\"success\":true}", "certificate signing request failed"),
        ("HTTP/1.1 503 Busy\r\nA: b\r\n\r\nlater\n", "unexpected status code in CSR response: 503 - later"),
        ("HTTP/1.1 200 OK\r\n\r\n{\"succ", "unexpected status code in CSR response: 200 - {\"succ"),
        ("SSH-2.0 200", "unexpected status code in CSR response: 0 - "),
        ("", "unexpected status code in CSR response: 0 - "),
    ];
    for (answer, told) in cases {
        assert_eq!(understand(answer.as_bytes()).unwrap_err().to_string(), told);
    }
}

#[test]
fn an_authority_on_another_root_is_not_asked() {
    let (root, other) = (root(), self::root());
    let key = crate::NodeKey::generate().unwrap();
    let request = SignRequest::node(&key.csr().unwrap(), "n", Role::Worker, "c");
    let (url, served) = serve(&other, |_| "HTTP/1.0 200 OK\r\n\r\n{}".to_owned());
    let error = asker(&root, vec![url]).sign(&request).unwrap_err();
    assert!(matches!(error, ExternalError::Unreachable(_)), "{error:?}");
    assert_eq!(served.join().unwrap(), "", "nothing was told to it");
    assert!(matches!(asker(&root, Vec::new()).sign(&request), Err(ExternalError::NoUrls)));
    let (url, served) = serve(&root, |_| String::new());
    assert!(asker(&root, vec![url]).is_reachable());
    served.join().unwrap();
    assert!(!asker(&root, vec!["https://127.0.0.1:1".to_owned()]).is_reachable());
}

#[test]
fn a_new_root_is_cross_signed_with_its_names() {
    let new = root();
    let request = serde_json::to_value(SignRequest::cross_sign(&new).unwrap()).unwrap();
    assert_eq!(request["profile"], "CA");
    assert_eq!(request["subject"]["CN"], "swarm-ca");
    let extension = serde_json::json!({"id": "2.5.29.19", "critical": true, "value": "30030101ff"});
    assert_eq!(request["extensions"], serde_json::json!([extension]));
}

#[test]
fn a_root_outside_hands_over_to_one_of_the_cluster_s_own() {
    let now = SystemTime::now();
    let (old, new) = (root(), root());
    let again = RootCa::from_pem(old.certificate_pem().to_owned(), &old.key_pem()).unwrap();
    let root_pem = new.certificate_pem().to_owned();
    // What cfssl makes of the request is what cross-signing makes of the root.
    let (url, served) = serve(&old, move |request| {
        assert!(request["certificate_request"].as_str().unwrap().contains("CERTIFICATE REQUEST"));
        let certificate = again.cross_sign_certificate(&root_pem).unwrap();
        ok(&serde_json::json!({"success": true, "result": {"certificate": certificate}}))
    });
    let cross_signed = asker(&old, vec![url]).sign(&SignRequest::cross_sign(&new).unwrap()).unwrap();
    served.join().unwrap();
    new.check_succession(old.certificate_pem(), &cross_signed, now).unwrap();
    let stranger = root();
    let other = stranger.cross_sign_certificate(new.certificate_pem()).unwrap();
    assert!(new.check_succession(old.certificate_pem(), &other, now).is_err());
}

#[test]
fn addresses_are_read() {
    let parsed = |text| Url::parse(text).map(|url| (url.host, url.port, url.path)).ok();
    assert_eq!(parsed("https://ca.example"), Some(("ca.example", 443, "/")));
    assert_eq!(parsed("https://ca.example:8888/sign?x"), Some(("ca.example", 8888, "/sign?x")));
    assert_eq!(parsed("https://[::1]:8/"), Some(("::1", 8, "/")));
    assert_eq!(parsed("https://[::1]"), Some(("::1", 443, "/")));
    for bad in
        ["", "http://a", "https://", "https://a:x", "https://a b/", "https://a/\r\nX: y", "https://u@h"]
    {
        assert_eq!(parsed(bad), None, "{bad:?}");
    }
}
