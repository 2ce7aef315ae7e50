//! W3, step 6: three services on an overlay network, of which only the first is published.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use skep_conformance::{Lab, eventually, http};

use crate::SOON;

/// Keeps words in the database that `DB_HOST` names, and tells them all with its own name.
const APPLICATION: &str = r#"
import os, signal, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def ask(line):
    with socket.create_connection((os.environ["DB_HOST"], 6379), 5) as database:
        stream = database.makefile("rwb")
        stream.write(line.encode() + b"\r\n")
        stream.flush()
        head = stream.readline()
        count = int(head[1:]) if head[:1] == b"*" else 0
        return [(stream.readline(), stream.readline())[1].strip().decode() for _ in range(count)]

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        ask("RPUSH words " + self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.tell()

    def do_GET(self):
        self.tell()

    def tell(self):
        body = " ".join([socket.gethostname(), *ask("LRANGE words 0 -1")]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"#;

/// Asks for a password, and sends who has it to the application, whose name it looks up where its container does.
const WEB_SERVER: &str = r#"
printf 'reader:{PLAIN}secret\n' > /etc/nginx/passwords
cat > /etc/nginx/nginx.conf <<END
user root; worker_processes 1; pid /run/nginx.pid; error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    resolver $(sed -n 's/^nameserver //p' /etc/resolv.conf) valid=1s ipv6=off;
    server {
        listen 8080;
        auth_basic words;
        auth_basic_user_file /etc/nginx/passwords;
        location / { set \$upstream application-server; proxy_pass http://\$upstream:8000; }
    }
}
END
exec nginx -g 'daemon off;'
"#;

/// `reader:secret`, as a browser sends it.
const PASSWORD: &str = "Authorization: Basic cmVhZGVyOnNlY3JldA==\r\n";

/// One request to a node's port from outside.
fn ask(lab: &Lab, node: u16, head: &str, word: &str) -> Result<http::Answer, String> {
    let address = SocketAddr::new(IpAddr::V4(lab.address(node)), 8080);
    let method = if word.is_empty() { "GET" } else { "POST" };
    let length = word.len();
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: words\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{word}"
    );
    lab.inside(0, || {
        let limit = Duration::from_secs(5);
        let stream = TcpStream::connect_timeout(&address, limit).map_err(|error| error.to_string());
        let mut stream = stream?;
        stream.set_read_timeout(Some(limit)).map_err(|error| error.to_string())?;
        http::exchange(&mut stream, request.as_bytes())
    })
}

/// What the application tells: its name, and the words.
fn words(lab: &Lab, node: u16, word: &str) -> Result<(String, Vec<String>), String> {
    let answer = ask(lab, node, PASSWORD, word)?;
    if answer.status != 200 {
        return Err(format!("{answer:?}"));
    }
    let mut told = answer.body.split(' ').map(str::to_owned);
    Ok((told.next().unwrap_or_default(), told.collect()))
}

#[test]
fn w3_words_go_through_the_page_to_the_database_and_come_back_from_every_replica() {
    let lab = Lab::up(1, 2, &["redis", "simple_server", "nginx"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "words"]).ok();
    let create = |name: &str, rest: &[&str]| {
        let create = ["service", "create", "--detach", "--network", "words", "--name", name];
        lab.docker(1, &[&create[..], rest].concat()).ok();
    };
    let volume = "type=volume,source=database_volume,destination=/data/db";
    let database = "exec redis-server --bind 0.0.0.0 --protected-mode no --dir /data/db --appendonly yes";
    let place = ["--constraint", "node.role==manager", "--mount", volume];
    create("local-database", &[&place[..], &["redis", "sh", "-c", database]].concat());
    let three = ["--replicas", "3"];
    let program = ["-e", "DB_HOST=local-database", "simple_server", "python3.11", "-u", "-c", APPLICATION];
    create("application-server", &[&three[..], &program].concat());
    create("web-server", &[&three[..], &["-p", "8080:8080", "nginx", "sh", "-c", WEB_SERVER]].concat());
    for (service, replicas) in
        [("local-database", "1/1"), ("application-server", "3/3"), ("web-server", "3/3")]
    {
        lab.until_replicas(1, service, replicas, SOON);
    }

    // Nothing says when a program without a health check listens.
    eventually("every replica answers", SOON, || every_replica_tells(&lab, &[]));
    assert_eq!(ask(&lab, 1, "", "").unwrap().status, 401, "without the password");
    for (node, word) in [(1, "one"), (2, "two"), (3, "three")] {
        words(&lab, node, word).unwrap();
    }
    every_replica_tells(&lab, &["one", "two", "three"]).unwrap();

    // They are in the volume.
    lab.docker(1, &["service", "update", "--detach", "--force", "local-database"]).ok();
    lab.until(
        1,
        "another database",
        SOON,
        &["service", "ps", "--format", "{{.CurrentState}}", "local-database"],
        |shown| shown.lines().count() == 2 && shown.contains("Running") && shown.contains("Shutdown"),
    );
    eventually("the words are there again", SOON, || every_replica_tells(&lab, &["one", "two", "three"]));
    let volumes = lab.docker(1, &["volume", "ls", "--quiet"]).ok();
    assert!(volumes.lines().any(|volume| volume == "database_volume"), "{volumes}");
}

/// Asks every node's port often enough to hear each replica of the application.
fn every_replica_tells(lab: &Lab, wanted: &[&str]) -> Result<(), String> {
    let mut replicas = BTreeSet::new();
    for number in 0..30 {
        let (name, told) = words(lab, 1 + number % 3, "")?;
        if told != wanted {
            return Err(format!("{name} tells {told:?}"));
        }
        replicas.insert(name);
    }
    if replicas.len() == 3 { Ok(()) } else { Err(format!("{replicas:?} answered")) }
}
