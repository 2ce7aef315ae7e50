//! The Dockerfiles and the script that stand in the source documents, as they stand there (`documents/`), typed at the stock client.
//!
//! What cannot be here is stood in for, and nothing else:
//! - The bases are made of Debian's packages and tagged as the files name them: `iron/base` is busybox, `python:3` and
//!   `nginx:latest` come from `scripts/images` (and, as in everybody's nginx, have a user `nginx` and a `default.conf`).
//! - `apt-get`, in the base of the web server, says what it was asked for and does nothing: a build reaches no mirror here. What it
//!   would have installed, openssl, is in the base. Today's openssl has no `passwd -crypt`, so that the user in the password
//!   file has no password; the file's own line goes on all the same.
//! - `go`, on the machine of who types, puts a prepared program where `go build -o` would: a script for busybox that says and
//!   serves what the document shows.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use skep_conformance::{ADDRESS, Host, Output, Session, eventually, finish, http};

const SOON: Duration = Duration::from_secs(20);

/// As the document shows it, in the words of its version of the program.
const PROGRAM: &str = r#"#!/bin/sh
echo "Starting accountservice"
mkdir -p /www/accounts
echo '{"id":"10000","name":"Person_0","version":VERSION}' >/www/accounts/10000
echo "Seeded 100 fake accounts..."
trap 'exit 2' INT TERM
httpd -f -p 6767 -h /www &
echo "2017/02/05 11:52:01 Starting HTTP service at 6767"
wait
"#;

const GO: &str = r#"#!/bin/sh
[ "$1" = get ] || cp "$GO_PROGRAM" "$3"
"#;

const APT_GET: &str = "#!/bin/sh\necho \"apt-get $*\"\n";

/// A host and a copy of the documents' files.
struct Desk {
    host: Host,
    folder: PathBuf,
}

impl Desk {
    fn new() -> Desk {
        let host = Host::new();
        let folder = host.folder().join("goblog");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("documents");
        finish(
            host.command_with("cp", &["-r", source.to_str().unwrap(), folder.to_str().unwrap()]),
            "cp",
            b"",
        )
        .ok();
        let desk = Desk { host, folder };
        desk.program("go", GO);
        desk
    }

    /// Puts a program onto the desk.
    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    /// What `go build` will make.
    fn write_accountservice(&self, version: u32) {
        self.program("written", &PROGRAM.replace("VERSION", &version.to_string()));
    }

    /// A line as it is typed in a folder of the desk.
    fn line(&self, folder: &str, line: &str) -> Command {
        let path = format!("{}:{}", self.folder.display(), std::env::var("PATH").unwrap());
        let mut command = self.host.command_with("bash", &["-c", &format!("cd {folder} && {line}")]);
        command
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("GO_PROGRAM", self.folder.join("written"))
            .env("DOCKER_HOST", format!("unix://{}", self.host.socket().display()))
            .env("DOCKER_CONFIG", self.host.folder().join("client"))
            .env("DOCKER_BUILDKIT", "0");
        command
    }

    fn type_in(&self, folder: &str, line: &str) -> Output {
        finish(self.line(folder, line), line, b"")
    }

    /// Builds one of the bases.
    fn base(&self, name: &str, dockerfile: &str) {
        let folder = self.folder.join("base");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        std::fs::copy(self.program("apt-get", APT_GET), folder.join("apt-get")).unwrap();
        self.type_in("base", &format!("docker build -t {name} .")).ok();
    }

    /// What a path of a port of the machine answers.
    fn fetch(&self, port: u16, path: &str) -> Result<http::Answer, String> {
        self.host.inside(|| {
            let address = SocketAddr::new(IpAddr::V4(ADDRESS), port);
            let mut stream = TcpStream::connect_timeout(&address, SOON).map_err(|error| error.to_string())?;
            stream.set_read_timeout(Some(SOON)).map_err(|error| error.to_string())?;
            http::get(&mut stream, path)
        })
    }

    fn wait_for(&self, port: u16, path: &str, status: u16, text: &str) {
        eventually(&format!("{path} at {port} answers {text:?}"), SOON, || match self.fetch(port, path)? {
            answer if answer.status == status && answer.body.contains(text) => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
    }
}

/// The last lines of a build, without the ids in them.
fn end_of(build: &str) -> Vec<&str> {
    build.lines().filter(|line| line.starts_with("Step") || line.starts_with("Successfully tagged")).collect()
}

#[test]
fn w2_an_image_is_built_run_and_rebuilt_while_it_serves() {
    let desk = Desk::new();
    desk.host.load_image("busybox");
    desk.host.docker(&["tag", "busybox", "iron/base"]).ok();
    desk.write_accountservice(1);
    desk.type_in("accountservice", "go get && go build -o accountservice-linux-amd64").ok();

    // Step 1.
    let built = desk.type_in(".", "docker build -t someprefix/accountservice accountservice/").ok();
    let steps = [
        "Step 1/4 : FROM iron/base",
        "Step 2/4 : EXPOSE 6767",
        "Step 3/4 : ADD accountservice-linux-amd64 /",
        "Step 4/4 : ENTRYPOINT [\"./accountservice-linux-amd64\"]",
        "Successfully tagged someprefix/accountservice:latest",
    ];
    assert_eq!(end_of(&built), steps, "{built}");
    let id =
        built.lines().find_map(|line| line.strip_prefix("Successfully built ")).expect("an id").to_owned();
    assert_eq!(desk.host.docker(&["images", "--quiet", "someprefix/accountservice"]).ok(), id);

    let mut run = Session::at_terminal(&desk.line(".", "docker run --rm someprefix/accountservice"), 24, 80);
    run.expect("Starting accountservice");
    run.expect("Seeded 100 fake accounts...");
    run.expect("Starting HTTP service at 6767");
    // Ctrl+C: the terminal signals the client, and that its container.
    run.send("\u{3}");
    assert_eq!(run.finish().code, 2);
    eventually("the container is gone", SOON, || match desk.host.docker(&["ps", "--all", "--quiet"]).ok() {
        none if none.is_empty() => Ok(()),
        left => Err(left),
    });

    // Steps 2 and 3.
    desk.type_in(".", &format!("docker swarm init --advertise-addr {ADDRESS}")).ok();
    desk.type_in(".", "docker network create --driver overlay my_network").ok();
    let create = "docker service create --name=accountservice --replicas=1 --network=my_network -p=6767:6767 someprefix/accountservice";
    desk.type_in(".", create).ok();
    desk.wait_for(6767, "/accounts/10000", 200, "\"version\":1}");

    // Step 6, twice: at once, and with another program each time.
    for version in [2, 3] {
        desk.write_accountservice(version);
        let rebuilt = desk.type_in(".", "bash copyall.sh").ok();
        assert!(rebuilt.contains("Step 3/4 : ADD accountservice-linux-amd64 /\n ---> "), "{rebuilt}");
        assert_eq!(
            rebuilt.matches("Using cache").count(),
            1,
            "only what comes before the program is kept: {rebuilt}"
        );
        assert!(rebuilt.ends_with(" converged"), "{rebuilt}");
        desk.wait_for(6767, "/accounts/10000", 200, &format!("\"version\":{version}}}"));
        let listed =
            desk.host.docker(&["service", "ls", "--format", "{{.Name}} {{.Replicas}} {{.Ports}}"]).ok();
        assert_eq!(listed, "accountservice 1/1 *:6767->6767/tcp");
    }
}

#[test]
fn w3_a_python_server_is_built_and_becomes_a_service() {
    let desk = Desk::new();
    desk.host.load_image("python3");
    desk.host.docker(&["tag", "python3", "python:3"]).ok();

    // Step 1.
    let built = desk.type_in("simple_server", "docker build -t simple_server .").ok();
    assert_eq!(end_of(&built).len(), 7, "{built}");
    assert!(built.ends_with("Successfully tagged simple_server:latest"), "{built}");
    let init = desk.type_in(".", "docker swarm init").ok();
    let join =
        init.lines().find(|line| line.trim().starts_with("docker swarm join")).expect("the join command");
    let words: Vec<&str> = join.split_whitespace().collect();
    assert_eq!((words[3], words[5]), ("--token", format!("{ADDRESS}:2377").as_str()), "{init}");
    assert!(words[4].starts_with("SWMTKN-1-"), "{init}");
    let nodes = desk.type_in(".", "docker node ls");
    let columns: Vec<&str> = nodes.lines()[1].split_whitespace().collect();
    assert_eq!((columns[1], &columns[3..6]), ("*", ["Ready", "Active", "Leader"].as_slice()), "{nodes}");

    // What was built serves what its steps wrote, as whom they made.
    let create = "docker service create --detach=true --name simple-server -p 8000:8000 simple_server";
    desk.type_in(".", create).ok();
    desk.wait_for(8000, "/test.txt", 200, "Test file content");
    let listed =
        desk.host.docker(&["run", "--rm", "simple_server", "ls", "-ln", "/srv/www/html/test.txt"]).ok();
    assert_eq!(listed.split_whitespace().skip(2).take(2).collect::<Vec<_>>(), ["350", "350"], "{listed}");
}

#[test]
fn w3_the_web_server_of_the_words_is_built() {
    let desk = Desk::new();
    desk.host.load_image("nginx_debian");
    desk.base(
        "nginx:latest",
        "FROM nginx_debian\nCOPY apt-get /usr/bin/\n\
         RUN echo nginx:x:101:101::/:/bin/false >>/etc/passwd && echo nginx:x:101: >>/etc/group && \
         sed -i s/www-data/nginx/ /etc/nginx/nginx.conf && touch /etc/nginx/conf.d/default.conf\n",
    );
    let built = desk.type_in("web_server", "docker build -t web_server .").ok();
    assert_eq!(end_of(&built).len(), 11, "{built}");
    assert!(built.contains("apt-get install openssl"), "{built}");

    desk.host.docker(&["network", "create", "words"]).ok();
    let start = "docker run -d --network words -e APP_NAME=127.0.0.1 -p 8080:8080 web_server";
    desk.type_in(".", start).ok();
    desk.wait_for(8080, "/", 401, "Authorization Required");
    desk.wait_for(8080, "/.htpasswd", 403, "Forbidden");
}
