//! Debian's `docker-registry`, and nginx with passwords before it, in a network namespace.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{eventually, finish, host};

const SOON: Duration = Duration::from_secs(20);

/// What nginx writes requests to.
const NOTES: &str = "access.log";

/// A registry that runs; it ends with the value.
pub struct Registry {
    child: Child,
    address: String,
    notes: Option<PathBuf>,
}

impl Registry {
    /// One with a store of its own below `folder`, which may hold another one's. `address` has a port.
    pub fn new(namespace: &str, folder: &Path, address: &str) -> Registry {
        let folder = folder.join(format!("registry-{address}"));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.yml");
        let mut text = "version: 0.1\nlog: {level: error}\n".to_owned();
        writeln!(text, "storage: {{filesystem: {{rootdirectory: {}}}}}", folder.display()).unwrap();
        writeln!(text, "http: {{addr: '{address}', relativeurls: true}}").unwrap();
        std::fs::write(&file, text).unwrap();
        let arguments = ["docker-registry", "serve", file.to_str().unwrap()];
        Registry::start(namespace, &arguments, address)
    }

    /// nginx before another registry: it wants a name and a password, `ann` and `secret`.
    pub fn guarded(namespace: &str, folder: &Path, address: &str, behind: &Registry) -> Registry {
        let folder = folder.join(format!("guard-{address}"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["passwd", "-apr1", "secret"]);
        let hashed = finish(openssl, "openssl passwd", b"").ok();
        std::fs::write(folder.join("users"), format!("ann:{hashed}\n")).unwrap();
        let rules = format!("auth_basic guarded; auth_basic_user_file {}/users;", folder.display());
        Registry::before(namespace, &folder, address, behind, &rules)
    }

    /// nginx before another registry: it sends so many bytes a second and no more, and takes notes.
    pub fn slow(
        namespace: &str,
        folder: &Path,
        address: &str,
        behind: &Registry,
        bytes_per_second: u32,
    ) -> Registry {
        let folder = folder.join(format!("slow-{address}"));
        std::fs::create_dir_all(&folder).unwrap();
        let rules = format!("limit_rate {bytes_per_second};");
        Registry::before(namespace, &folder, address, behind, &rules)
    }

    /// nginx before another registry, with more rules; its folder is there.
    fn before(namespace: &str, folder: &Path, address: &str, behind: &Registry, rules: &str) -> Registry {
        let text = format!(
            "daemon off; pid {folder}/pid; error_log stderr; user root; events {{}}\n\
             http {{ access_log {folder}/{NOTES}; client_max_body_size 0; client_body_temp_path {folder};\n\
             proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n\
             server {{ listen {address}; location / {{ {rules}\n\
             proxy_set_header Host {address}; proxy_pass http://{behind}; }} }} }}",
            folder = folder.display(),
            behind = behind.address,
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let mut registry = Registry::start(namespace, &["nginx", "-c", file.to_str().unwrap()], address);
        registry.notes = Some(folder.join(NOTES));
        registry
    }

    fn start(namespace: &str, arguments: &[&str], address: &str) -> Registry {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).args(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the registry listens", SOON, || {
            host::in_namespace(namespace, || std::net::TcpStream::connect(address))
                .map(drop)
                .map_err(|error| error.to_string())
        });
        Registry { child, address: address.to_owned(), notes: None }
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests that nginx has answered so far, such as `GET /v2/`.
    pub fn requests(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.notes.as_ref().unwrap()).unwrap();
        let request = |line: &str| Some(line.split('"').nth(1)?.rsplit_once(' ')?.0.to_owned());
        text.lines().filter_map(request).collect()
    }

    /// The name of an image there.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // nginx ends its workers when it is told to.
        crate::signal(self.child.id(), 15);
        let _ = self.child.wait();
    }
}

/// The digest that the output of a push tells.
pub fn pushed_digest(pushed: &str) -> String {
    let line = pushed.lines().find(|line| line.contains(": digest: sha256:")).unwrap();
    line.split_whitespace().nth(2).unwrap().to_owned()
}
