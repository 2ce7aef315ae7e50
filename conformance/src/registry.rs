//! Debian's `docker-registry`, and nginx with passwords before it, in a network namespace.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{eventually, finish, host};

const SOON: Duration = Duration::from_secs(20);

/// A registry that runs; it ends with the value.
pub struct Registry {
    child: Child,
    address: String,
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
        let text = format!(
            "daemon off; pid {folder}/pid; error_log stderr; user root; events {{}}\n\
             http {{ access_log off; client_max_body_size 0; client_body_temp_path {folder}; proxy_temp_path {folder};\n\
             fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n\
             server {{ listen {address}; location / {{ auth_basic guarded; auth_basic_user_file {folder}/users;\n\
             proxy_set_header Host {address}; proxy_pass http://{behind}; }} }} }}",
            folder = folder.display(),
            behind = behind.address,
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        Registry::start(namespace, &["nginx", "-c", file.to_str().unwrap()], address)
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
        Registry { child, address: address.to_owned() }
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
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
