//! Callers that mean no good, or that are broken.

use http::{HeaderValue, Method, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use skep_identity::unverified_client_config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;

use super::*;

/// Waits until the other side ends the connection.
async fn is_cut(stream: &mut TcpStream, limit: Duration) -> bool {
    let mut buffer = [0; 1024];
    let read = async { while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    timeout(limit, read).await.is_ok()
}

#[tokio::test]
async fn garbage_is_cut_off_and_harms_nobody() {
    let scene = Scene::new().await;
    let mut held = Vec::new();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 70_000], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]] {
        let mut stream = TcpStream::connect(scene.listener.address()).await.unwrap();
        // It may be cut before it has taken everything.
        let _ = stream.write_all(garbage).await;
        held.push(stream);
    }
    let other = scene.of(OTHER, Role::Manager);
    assert!(other.barrier(&scene.address()).await.is_ok());
    for stream in &mut held {
        assert!(is_cut(stream, Duration::from_secs(7)).await);
    }
}

#[tokio::test]
async fn callers_that_say_nothing_take_only_their_places_and_those_for_a_while() {
    let scene = Scene::new().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(scene.listener.address()).await.unwrap());
    }
    // All but those that found a place are cut at once, and these after the time for a handshake.
    let began = Instant::now();
    for stream in silent.iter_mut().rev() {
        assert!(is_cut(stream, Duration::from_secs(7)).await);
    }
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    let other = scene.of(OTHER, Role::Manager);
    assert!(other.barrier(&scene.address()).await.is_ok());
}

async fn raw(scene: &Scene, config: Arc<ClientConfig>) -> hyper::client::conn::http2::SendRequest<Body> {
    let stream = TcpStream::connect(scene.listener.address()).await.unwrap();
    let name = ServerName::try_from("swarm-manager").unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    requests
}

async fn call(
    requests: &mut hyper::client::conn::http2::SendRequest<Body>,
    path: &str,
    version: Option<&'static str>,
) -> tonic::Status {
    let mut request = http::Request::new(Body::default());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("https://swarm-manager{path}").parse::<Uri>().unwrap();
    if let Some(version) = version {
        request.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(version));
    }
    let answer = requests.send_request(request).await.unwrap();
    tonic::Status::from_header_map(answer.headers()).unwrap()
}

#[tokio::test]
async fn strangers_and_strange_versions_are_refused() {
    let scene = Scene::new().await;
    let mut stranger = raw(&scene, unverified_client_config().unwrap()).await;
    for path in ["/skep.v1.Authority/Renew", "/skep.v1.Dispatcher/Session", "/skep.v1.Consensus/Message"] {
        let refused = status::answered(&call(&mut stranger, path, Some("1")).await).unwrap();
        assert!(matches!(refused, CallError::Unauthenticated(_)), "{path}: {refused:?}");
    }
    assert_eq!(call(&mut stranger, "/elsewhere", Some("1")).await.code(), tonic::Code::Unimplemented);
    for (version, words) in
        [(None, "version too old"), (Some("0"), "version too old"), (Some("2"), "version too new")]
    {
        let refused =
            status::answered(&call(&mut stranger, "/skep.v1.Authority/Root", version).await).unwrap();
        assert!(matches!(refused, CallError::Version(_)), "{refused:?}");
        assert!(refused.to_string().starts_with(words), "{refused}");
    }
    assert!(scene.desk.asked.lock().unwrap().is_empty(), "nobody was asked about a stranger");
}

#[tokio::test]
async fn too_much_is_not_taken() {
    let scene = Scene::new().await;
    let (address, other) = (scene.address(), scene.of(OTHER, Role::Manager));
    let csr = "x".repeat(AUTHORITY_LIMIT);
    let refused = other.renew(&address, RenewCall { csr }).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(SwarmError::InvalidParameter(_))), "{refused:?}");
    let mut call = join_call();
    call.token = "x".repeat(10 * AUTHORITY_LIMIT);
    assert!(other.pass_join_on(&address, call).await.is_err());
    let message = Bytes::from(vec![0; CONSENSUS_LIMIT + 1]);
    assert!(other.consensus(&address, message).await.is_err());
    assert!(other.barrier(&address).await.is_ok(), "the connection is as good as before");
}

#[tokio::test]
async fn a_listener_that_stops_cuts_those_that_stay() {
    let scene = Scene::new().await;
    let address = scene.listener.address();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let _stranger = raw(&scene, unverified_client_config().unwrap()).await;
    let other = scene.of(OTHER, Role::Manager);
    let link = other.session(&scene.address(), hello()).await.unwrap();
    timeout(Duration::from_secs(4), scene.listener.stop()).await.unwrap();
    assert!(is_cut(&mut silent, LIMIT).await);
    assert!(TcpStream::connect(address).await.is_err());
    timeout(LIMIT, link.to_manager.closed()).await.unwrap();
}
