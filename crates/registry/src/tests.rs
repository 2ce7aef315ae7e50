//! Against a server that does what each test says: good answers, and bad ones.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{
    Access, Client, Credentials, Descriptor, Digest, Document, Mounted, RegistryError, Repository, Session,
    Settings, WebFile, docker_manifest, media,
};

/// One request as it came.
#[derive(Clone, Debug)]
struct Asked {
    /// Method and address, `GET /v2/`.
    line: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send only so many bytes of the body, then hang up.
    cut: Option<usize>,
    /// Send nothing more then, and do not hang up.
    stall: bool,
}

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers: Vec::new(), body: body.into(), cut: None, stall: false }
}

impl Reply {
    fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Answers = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// A server on loopback, and what it was asked.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    async fn new(answers: impl FnMut(&Asked) -> Reply + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answers) = (Arc::clone(&asked), Arc::new(Mutex::new(Box::new(answers) as Answers)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&log), Arc::clone(&answers)));
            }
        });
        Server { address, asked }
    }

    /// A server that plays these answers in turn to all but the ping.
    async fn playing(replies: Vec<Reply>) -> Server {
        let mut replies = VecDeque::from(replies);
        Server::new(move |asked| {
            if asked.line == "GET /v2/" {
                return reply(200, "{}");
            }
            replies.pop_front().unwrap_or_else(|| reply(500, "nothing more was expected"))
        })
        .await
    }

    fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|asked| asked.line.clone()).filter(|line| line != "GET /v2/").collect()
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.line != "GET /v2/").cloned().collect()
    }

    fn repository(&self) -> Repository {
        Repository { registry: self.address.clone(), path: "a/b".to_owned() }
    }

    async fn session(&self) -> Session {
        client().open(&self.repository(), Access::Push, None).await.unwrap()
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Asked>>>, answers: Arc<Mutex<Answers>>) {
    while let Some(asked) = read_request(&mut stream).await {
        let Reply { status, headers, body, cut, stall } = {
            log.lock().unwrap().push(asked.clone());
            answers.lock().unwrap()(&asked)
        };
        let mut text = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let body = if asked.line.starts_with("HEAD") { &[] } else { &body[..cut.unwrap_or(body.len())] };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.write_all(body).await.is_err() {
            return;
        }
        if stall {
            std::future::pending::<()>().await;
        }
        if cut.is_some() {
            return;
        }
    }
}

/// Reads one request; `None` at the end, and for what is none (such as TLS).
async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        if head.len() == 1 && !head[0].is_ascii_uppercase() {
            return None;
        }
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut asked = Asked { line, headers, body: Vec::new() };
    if let Some(length) = asked.header("content-length").and_then(|text| text.parse().ok()) {
        asked.body = vec![0; length];
        stream.read_exact(&mut asked.body).await.ok()?;
    } else if asked.header("transfer-encoding").is_some() {
        loop {
            let mut size = Vec::new();
            while !size.ends_with(b"\r\n") {
                size.push(stream.read_u8().await.ok()?);
            }
            let size = usize::from_str_radix(String::from_utf8(size).ok()?.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            if size == 0 {
                break;
            }
            asked.body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(asked)
}

fn client() -> Client {
    Client::new(Settings {
        pause: Duration::from_millis(1),
        patience: Duration::from_millis(300),
        ..Settings::default()
    })
}

fn described(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media::DOCKER_LAYER.to_owned(),
        size: bytes.len() as u64,
        digest: Digest::of(bytes),
    }
}

/// Reads a blob as the engine does: on a thread of its own.
async fn read_blob(session: &Session, blob: Descriptor) -> Result<Vec<u8>, String> {
    let (_going_on, cancelled) = watch::channel(false);
    let mut reader = session.blob(blob, cancelled, |_| {});
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    read.await.unwrap().map_err(|error| error.to_string())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let blob = bytes(1000);
    let cut = |from: usize, length: usize| {
        Reply { cut: Some(length), ..reply(206, &blob[from..]) }
            .with("Content-Range", format!("bytes {from}-999/1000"))
    };
    let server = Server::playing(vec![
        Reply { cut: Some(300), ..reply(200, blob.clone()) },
        reply(429, "slow down").with("Retry-After", "0"),
        cut(300, 100),
        Reply { stall: true, ..cut(400, 50) },
        cut(450, 550),
    ])
    .await;
    assert_eq!(read_blob(&server.session().await, described(&blob)).await.unwrap(), blob);
    let ranges: Vec<Option<String>> =
        server.asked().iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
    let range = |from| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range(300), range(300), range(400), range(450)]);
}

#[tokio::test]
async fn a_registry_that_cannot_go_on_in_the_middle_begins_again() {
    let blob = bytes(1000);
    let server =
        Server::playing(vec![Reply { cut: Some(400), ..reply(200, blob.clone()) }, reply(200, blob.clone())])
            .await;
    assert_eq!(read_blob(&server.session().await, described(&blob)).await.unwrap(), blob);
}

#[tokio::test]
async fn a_download_that_never_succeeds_ends() {
    let server =
        Server::new(|asked| if asked.line == "GET /v2/" { reply(200, "") } else { reply(500, "") }).await;
    let error = read_blob(&server.session().await, described(b"x")).await.unwrap_err();
    assert!(error.contains("500"), "{error}");
    assert_eq!(server.lines().len(), 5);
    let server =
        Server::playing(vec![reply(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}"#)]).await;
    let error = read_blob(&server.session().await, described(b"x")).await.unwrap_err();
    assert_eq!(error, "blob unknown: gone");
    assert_eq!(server.lines().len(), 1, "asking again would not help");
    // Another part than was asked for must not be put in its place.
    let wrong = reply(206, b"x".to_vec()).with("Content-Range", "bytes 7-7/8");
    let server = Server::playing(vec![wrong]).await;
    assert!(read_blob(&server.session().await, described(b"12345678")).await.is_err());
}

#[tokio::test]
async fn a_download_that_nobody_wants_any_more_ends() {
    let stalled = Reply { stall: true, cut: Some(1), ..reply(200, bytes(10)) };
    let server = Server::playing(vec![stalled]).await;
    let patient = Client::new(Settings { patience: Duration::from_secs(3600), ..Settings::default() });
    let session = patient.open(&server.repository(), Access::Pull, None).await.unwrap();
    let (going_on, cancelled) = watch::channel(false);
    let mut reader = session.blob(described(&bytes(10)), cancelled, |_| {});
    let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    drop(going_on);
    assert_eq!(read.await.unwrap().unwrap_err().to_string(), "context canceled");
}

fn image_manifest() -> Vec<u8> {
    docker_manifest(described(b"config"), vec![described(b"layer")])
}

#[tokio::test]
async fn manifests_are_verified() {
    let manifest = image_manifest();
    let answer = || reply(200, image_manifest()).with("Content-Type", media::DOCKER_MANIFEST);
    let server = Server::playing(vec![answer(), answer(), answer()]).await;
    let session = server.session().await;
    let fetched = session.manifest("1").await.unwrap();
    assert_eq!(fetched.descriptor.digest, Digest::of(&manifest));
    assert!(matches!(fetched.document, Document::Image(_)));
    let digest = Digest::of(&manifest);
    assert!(session.manifest(digest.as_str()).await.is_ok());
    let other = Digest::of(b"other");
    let error = session.manifest(other.as_str()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("manifest verification failed for digest {other}"));
    assert_eq!(server.lines()[0], "GET /v2/a/b/manifests/1");
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let next = "</v2/a/b/tags/list?last=2&n=2>; rel=\"next\"";
    let pages = vec![
        reply(200, r#"{"name":"a/b","tags":["1","2"]}"#).with("Link", next),
        reply(200, r#"{"name":"a/b","tags":["3"]}"#),
        reply(200, r#"{"name":"a/b","tags":null}"#),
    ];
    let server = Server::playing(pages).await;
    let session = server.session().await;
    assert_eq!(session.tags().await.unwrap(), ["1", "2", "3"]);
    assert_eq!(server.lines(), ["GET /v2/a/b/tags/list", "GET /v2/a/b/tags/list?last=2&n=2"]);
    assert_eq!(session.tags().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn documents_are_bounded_and_configurations_verified() {
    let huge = vec![b' '; crate::manifest::MANIFEST_LIMIT + 1];
    let server =
        Server::playing(vec![reply(200, huge), reply(200, "another"), reply(200, "config and more")]).await;
    let session = server.session().await;
    assert!(matches!(session.manifest("1").await, Err(RegistryError::Document(_))));
    assert!(matches!(session.config(&described(b"1234567")).await, Err(RegistryError::Digest { .. })));
    assert!(matches!(session.config(&described(b"config")).await, Err(RegistryError::Document(_))));
}

#[tokio::test]
async fn refusals_are_told_in_the_registry_s_words() {
    let unknown =
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#;
    let server = Server::playing(vec![reply(404, unknown), reply(418, "<html>")]).await;
    let session = server.session().await;
    let error = session.manifest("1").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "manifest unknown: manifest unknown");
    let error = session.manifest("1").await.unwrap_err();
    assert!(error.to_string().starts_with("received unexpected HTTP status: 418"), "{error}");
}

#[tokio::test]
async fn who_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let repository = Repository { registry: address.clone(), path: "x".to_owned() };
    let error = client().resolve(&repository, "1", None).await.err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "Get \"http://{address}/v2/\": dial tcp {}:{}: connect: connection refused",
            "127.0.0.1",
            address.rsplit_once(':').unwrap().1
        )
    );
}

fn ann() -> Credentials {
    Credentials { username: "ann".into(), password: "secret".into(), ..Credentials::default() }
}

#[tokio::test]
async fn a_password_is_given_where_it_is_asked_for() {
    let server = Server::new(|asked| match asked.header("authorization") {
        Some("Basic YW5uOnNlY3JldA==") => reply(200, image_manifest()),
        _ => reply(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    let (client, repository) = (client(), server.repository());
    assert!(client.resolve(&repository, "1", Some(&ann())).await.is_ok());
    let wrong = Credentials { password: "wrong".into(), ..ann() };
    let error = client.resolve(&repository, "1", Some(&wrong)).await.err().unwrap();
    assert!(error.is_denied(), "{error}");
    let error = client.resolve(&repository, "1", None).await.err().unwrap().to_string();
    assert_eq!(
        error,
        format!("Get \"http://{}/v2/a/b/manifests/1\": no basic auth credentials", server.address)
    );
    assert_eq!(client.login(&server.address, &ann()).await.unwrap(), "");
    assert!(client.login(&server.address, &wrong).await.unwrap_err().is_denied());
}

/// A registry that wants tokens, which it gives itself. Each is good for `uses` requests.
async fn token_server(uses: usize) -> Server {
    let mut left = uses;
    Server::new(move |asked| {
        let host = asked.header("host").unwrap_or_default().to_owned();
        if asked.line.starts_with("GET /token") || asked.line.starts_with("POST /token") {
            left = uses;
            return reply(200, r#"{"access_token":"good","expires_in":60,"refresh_token":"again"}"#);
        }
        if asked.header("authorization") == Some("Bearer good") && left > 0 {
            left -= 1;
            return reply(200, image_manifest());
        }
        let realm = format!("Bearer realm=\"http://{host}/token\",service=\"here\"");
        reply(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
            .with("WWW-Authenticate", realm)
    })
    .await
}

#[tokio::test]
async fn tokens_are_fetched_and_fetched_again() {
    let server = token_server(1).await;
    let (client, repository) = (client(), server.repository());
    let (session, _) = client.resolve(&repository, "1", Some(&ann())).await.unwrap();
    session.manifest("1").await.unwrap();
    let token = "GET /token?service=here&scope=repository%3Aa%2Fb%3Apull&account=ann";
    let manifest = "GET /v2/a/b/manifests/1";
    // The second use of a token is refused.
    assert_eq!(server.lines(), [token, manifest, manifest, token, manifest]);
    assert_eq!(server.asked()[0].header("authorization"), Some("Basic YW5uOnNlY3JldA=="));
    assert_eq!(client.login(&server.address, &ann()).await.unwrap(), "again");
}

#[tokio::test]
async fn an_identity_token_is_changed_for_others() {
    let server = token_server(9).await;
    let credentials = Credentials { identity_token: "id&entity".into(), ..Credentials::default() };
    client().resolve(&server.repository(), "1", Some(&credentials)).await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /token");
    assert_eq!(
        String::from_utf8_lossy(&asked[0].body),
        "grant_type=refresh_token&client_id=docker&service=here&scope=repository%3Aa%2Fb%3Apull&refresh_token=id%26entity"
    );
}

#[tokio::test]
async fn a_registry_that_is_never_satisfied_is_not_asked_for_ever() {
    let server = token_server(0).await;
    let error = client().resolve(&server.repository(), "1", Some(&ann())).await.err().unwrap();
    assert!(error.is_denied(), "{error}");
    assert!(server.lines().len() <= 4, "{:?}", server.lines());
}

#[tokio::test]
async fn credentials_stay_with_the_registry_that_they_are_for() {
    let blob = bytes(100);
    let sent = blob.clone();
    let storage = Server::new(move |_| reply(200, sent.clone())).await;
    let target = format!("http://{}/bucket/x", storage.address);
    let server = Server::new(move |asked| match asked.header("authorization") {
        None => reply(401, "").with("WWW-Authenticate", "Basic"),
        Some(_) => reply(307, "").with("Location", target.clone()),
    })
    .await;
    let session = client().open(&server.repository(), Access::Pull, Some(&ann())).await.unwrap();
    assert_eq!(read_blob(&session, described(&blob)).await.unwrap(), blob);
    assert_eq!(storage.lines(), ["GET /bucket/x"]);
    assert_eq!(storage.asked()[0].header("authorization"), None);
    let circle = Server::new(|asked| match asked.line.as_str() {
        "GET /v2/" => reply(200, ""),
        _ => reply(302, "").with("Location", "/v2/round"),
    })
    .await;
    assert!(circle.session().await.manifest("1").await.unwrap_err().to_string().contains("redirects"));
}

#[tokio::test]
async fn a_mirror_that_has_nothing_is_passed_over() {
    // Nothing may go to Docker's own registry here: the second mirror has it.
    let empty = Server::playing(vec![reply(404, "")]).await;
    let full = Server::playing(vec![reply(200, image_manifest())]).await;
    let mirrors = [&empty, &full].map(|server| format!("http://{}", server.address));
    let client = Client::new(Settings { mirrors: mirrors.into(), ..Settings::default() });
    let repository = Repository { registry: "docker.io".to_owned(), path: "library/x".to_owned() };
    assert!(client.resolve(&repository, "1", Some(&ann())).await.is_ok());
    assert_eq!(empty.lines(), ["GET /v2/library/x/manifests/1"]);
    assert_eq!(full.lines(), ["GET /v2/library/x/manifests/1"]);
}

#[tokio::test]
async fn a_blob_is_brought_in_pieces() {
    let server = Server::new(|asked| {
        let place = |status, path: &str| reply(status, "").with("Location", path);
        match asked.line.split(' ').next().unwrap_or_default() {
            "POST" => place(202, "/v2/a/b/blobs/uploads/1?state=x"),
            "PATCH" => place(202, "/v2/a/b/blobs/uploads/1?state=y"),
            "PUT" => reply(201, ""),
            _ => reply(200, ""),
        }
    })
    .await;
    let blob = bytes(700_000);
    let uploaded = server.session().await.upload(std::io::Cursor::new(blob.clone()), |_| {}).await.unwrap();
    assert_eq!((uploaded.digest.clone(), uploaded.size), (Digest::of(&blob), 700_000));
    let asked = server.asked();
    assert_eq!(asked[0].line, "POST /v2/a/b/blobs/uploads/");
    assert_eq!(asked[1].line, "PATCH /v2/a/b/blobs/uploads/1?state=x");
    assert!(asked[1].body == blob);
    assert_eq!(asked[2].line, format!("PUT /v2/a/b/blobs/uploads/1?state=y&digest={}", uploaded.digest));
}

#[tokio::test]
async fn an_upload_that_fails_says_why() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let server = Server::playing(vec![reply(403, denied)]).await;
    let error = server.session().await.upload(std::io::empty(), |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "denied: requested access to the resource is denied");
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is on fire"))
        }
    }
    let begun = reply(202, "").with("Location", "/u");
    let server = Server::playing(vec![begun]).await;
    let error = server.session().await.upload(Broken, |_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk is on fire");
}

#[tokio::test]
async fn a_blob_is_lent_or_not() {
    let begun = reply(202, "").with("Location", "/u/1");
    let server =
        Server::playing(vec![reply(201, ""), begun, reply(204, ""), reply(200, ""), reply(404, "")]).await;
    let session = server.session().await;
    let digest = Digest::of(b"x");
    assert_eq!(session.mount(&digest, "c/d").await.unwrap(), Mounted::Yes);
    assert_eq!(session.mount(&digest, "c/d").await.unwrap(), Mounted::No);
    assert!(session.has_blob(&digest).await.unwrap().is_some());
    assert_eq!(session.has_blob(&digest).await.unwrap(), None);
    let wish = format!("POST /v2/a/b/blobs/uploads/?mount={digest}&from=c%2Fd");
    assert_eq!(server.lines()[..3], [wish.clone(), wish, "DELETE /u/1".to_owned()]);
}

async fn whole(file: &mut WebFile) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(piece) = file.piece().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test]
async fn files_are_fetched_from_anywhere() {
    let answers = vec![
        reply(302, "").with("Location", "/there/other"),
        reply(200, "content").with("Last-Modified", "Tue, 15 Nov 1994 12:45:26 GMT"),
        reply(404, "there is nothing\n"),
        Reply { cut: Some(3), ..reply(200, "content") },
        reply(200, "").with("Content-Disposition", "attachment; filename=said"),
    ];
    let server = Server::playing(answers).await;
    let client = Client::new(Settings::default());
    let address = |path: &str| format!("http://{}/{path}", server.address);
    let mut file = client.file(&address("a/file?x#y")).await.unwrap();
    assert_eq!((file.name.as_str(), file.length), ("file", Some(7)));
    assert_eq!(file.modified.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 784_903_526);
    assert_eq!(whole(&mut file).await.unwrap(), b"content");
    let refused = client.file(&address("a")).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        format!("failed to GET {} with status 404 Not Found: there is nothing", address("a"))
    );
    let cut = whole(&mut client.file(&address("a")).await.unwrap()).await.unwrap_err().to_string();
    assert_eq!(cut, format!("Get \"{}\": unexpected EOF", address("a")));
    assert_eq!(client.file(&address("")).await.unwrap().name, "said");
    assert_eq!(server.lines()[..2], ["GET /a/file?x", "GET /there/other"]);
    let gone = client.file("http://127.0.0.1:1/x").await.unwrap_err().to_string();
    assert_eq!(gone, "Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused");
}
