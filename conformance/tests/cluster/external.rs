//! An authority outside the cluster, which speaks cfssl's protocol.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use skep_conformance::Lab;

use crate::authority::until_all_trust;
use crate::papers::{Papers, openssl};

/// Where the authority is, on the machine outside.
const PORT: &str = "192.0.2.254:8888";

/// The authority at work.
#[derive(Default)]
struct Desk {
    done: bool,
    /// OpenSSL, which speaks TLS for one client.
    server: Option<Child>,
}

/// Signs by `root` whatever is asked for while `work` is done; returns the requests.
fn signing(lab: &Lab, root: &Papers, folder: &Path, work: impl FnOnce()) -> Vec<Value> {
    let own = root.issue_for(folder, "authority", "/CN=authority", "1", "serverAuth", "IP:192.0.2.254");
    let desk = Mutex::new(Desk::default());
    std::thread::scope(|scope| {
        let desk = &desk;
        let served = scope.spawn(move || {
            let mut requests = Vec::new();
            while let Some(request) = serve_one(lab, desk, &own, root, folder) {
                requests.extend(request);
            }
            requests
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let mut held = desk.lock().unwrap_or_else(PoisonError::into_inner);
        held.done = true;
        if let Some(server) = &mut held.server {
            server.kill().unwrap();
        }
        drop(held);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        served.join().unwrap()
    })
}

/// Serves one client; the inner value is what it asked, if anything. Nothing once the work is done.
fn serve_one(
    lab: &Lab,
    desk: &Mutex<Desk>,
    own: &Papers,
    root: &Papers,
    folder: &Path,
) -> Option<Option<Value>> {
    let mut held = desk.lock().unwrap();
    if held.done {
        return None;
    }
    let server = Command::new("ip")
        .args(["netns", "exec", &lab.namespace(0), "openssl", "s_server", "-accept", PORT, "-Verify", "2"])
        .args(["-verify_return_error", "-CAfile"])
        .arg(&root.certificate)
        .arg("-cert")
        .arg(&own.certificate)
        .arg("-key")
        .arg(&own.key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = held.server.insert(server);
    let (mut answer, mut said) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
    drop(held);
    let request = read_request(&mut said);
    if let Some(request) = &request {
        let body =
            json!({"success": true, "result": {"certificate": sign(root, folder, request)}, "errors": []});
        let body = body.to_string();
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        answer.write_all((head + &body).as_bytes()).unwrap();
    }
    // That is where it ends the connection, and itself.
    drop(answer);
    let _ = said.read_to_end(&mut Vec::new());
    let mut ended = desk.lock().unwrap().server.take().unwrap();
    ended.wait().unwrap();
    Some(request)
}

/// The body of a request among what OpenSSL prints; nothing when it ends before.
fn read_request(said: &mut impl Read) -> Option<Value> {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let count = said.read(&mut part).ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&text);
        let Some((head, body)) = text.split_once("POST ").and_then(|(_, it)| it.split_once("\r\n\r\n"))
        else {
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if let Some(body) = body.get(..length.parse().unwrap()) {
            return Some(serde_json::from_str(body).unwrap());
        }
    }
}

/// A certificate as the request wants it.
fn sign(root: &Papers, folder: &Path, request: &Value) -> String {
    let (asked, extensions) = (folder.join("asked.csr"), folder.join("asked.extensions"));
    std::fs::write(&asked, request["certificate_request"].as_str().unwrap()).unwrap();
    let names = request["hosts"].as_array().unwrap().iter().map(|it| format!("DNS:{}", it.as_str().unwrap()));
    let names = names.collect::<Vec<_>>().join(",");
    let lines = format!("extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName={names}\n");
    std::fs::write(&extensions, lines).unwrap();
    let subject = &request["subject"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (name, group) = (text(&subject["CN"]), &subject["names"][0]);
    let subject = format!("/O={}/OU={}/CN={name}", text(&group["O"]), text(&group["OU"]));
    openssl(&[
        "x509",
        "-req",
        "-in",
        asked.to_str().unwrap(),
        "-subj",
        &subject,
        "-days",
        "30",
        "-extfile",
        extensions.to_str().unwrap(),
        "-CA",
        root.certificate.to_str().unwrap(),
        "-CAkey",
        root.key.to_str().unwrap(),
        "-CAcreateserial",
    ])
}

#[test]
fn an_authority_outside_signs_for_those_who_join() {
    let lab = Lab::machines(3, &[]);
    let folder = tempfile::tempdir().unwrap();
    let root = Papers::root(folder.path(), "root");
    lab.docker(1, &["swarm", "init", "--advertise-addr", &lab.address(1).to_string()]).ok();
    let (certificate, key) = (root.certificate.to_str().unwrap(), root.key.to_str().unwrap());
    lab.docker(1, &["swarm", "ca", "--rotate", "--ca-cert", certificate, "--ca-key", key]).ok();
    let outside = format!("protocol=cfssl,url=https://{PORT}/api/v1/cfssl/sign");
    lab.docker(1, &["swarm", "update", "--external-ca", &outside]).ok();
    let info = lab.docker(1, &["info"]).ok();
    assert!(info.contains(&format!("cfssl: https://{PORT}/api/v1/cfssl/sign")), "{info}");

    let join =
        |node, role| lab.docker(node, &["swarm", "join", "--token", &lab.token(1, role), "192.0.2.1:2377"]);
    assert_ne!(join(2, "worker").code, 0, "nobody signs while the authority is away");
    assert_eq!(lab.docker(1, &["node", "ls", "--quiet"]).ok().lines().count(), 1);
    let requests = signing(&lab, &root, folder.path(), || {
        join(2, "worker").ok();
        join(3, "manager").ok();
        until_all_trust(&lab, 3, 3);
    });
    let roles: Vec<&Value> = requests.iter().map(|it| &it["subject"]["names"][0]["OU"]).collect();
    assert_eq!(roles, ["swarm-worker", "swarm-manager"]);
    let id = lab.docker(2, &["info", "--format", "{{.Swarm.NodeID}}"]).ok();
    assert_eq!(requests[0]["subject"]["CN"], json!(id));
}
