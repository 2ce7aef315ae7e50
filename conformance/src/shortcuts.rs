//! What nearly every test of containers says, said once.

use std::time::Duration;

use crate::{Host, Output, Session, eventually};

impl Host {
    /// A machine whose daemon answers and has the image `busybox`.
    #[track_caller]
    pub fn with_busybox() -> Host {
        let host = Host::new();
        host.load_image("busybox");
        host
    }

    /// `docker run --rm OPTIONS busybox sh -c SCRIPT`.
    pub fn run(&self, options: &[&str], script: &str) -> Output {
        let arguments = [&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat();
        self.docker(&arguments)
    }

    /// `docker run --detach --name NAME OPTIONS busybox sh -c SCRIPT`; the container's id.
    #[track_caller]
    pub fn run_detached(&self, name: &str, options: &[&str], script: &str) -> String {
        let start = &["run", "--detach", "--name", name];
        let id = self.docker(&[start, options, &["busybox", "sh", "-c", script]].concat()).ok();
        self.known_containers.lock().unwrap().insert(id.clone());
        id
    }

    /// `docker inspect --format FORMAT NAME`.
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.docker(&["inspect", "--format", format, name]).ok()
    }

    /// The whole of `docker inspect NAME`.
    #[track_caller]
    pub fn inspect_json(&self, name: &str) -> serde_json::Value {
        let printed = self.docker(&["inspect", name]).ok();
        let mut list: Vec<serde_json::Value> = serde_json::from_str(&printed).unwrap();
        assert_eq!(list.len(), 1, "{printed}");
        list.remove(0)
    }

    /// The stock client with `arguments`, over pipes, while the test goes on.
    pub fn session(&self, arguments: &[&str]) -> Session {
        let mut command = self.docker_command();
        command.args(arguments);
        Session::piped(command)
    }

    /// The stock client with `arguments` at a terminal of 24 rows and 80 columns.
    pub fn at_terminal(&self, arguments: &[&str]) -> Session {
        let mut command = self.docker_command();
        command.args(arguments).env("TERM", "xterm");
        Session::at_terminal(&command, 24, 80)
    }

    /// Waits until `docker inspect --format FORMAT NAME` prints `value`.
    #[track_caller]
    pub fn until(&self, name: &str, format: &str, value: &str) {
        let what = format!("{format} of {name} is {value}");
        eventually(&what, Duration::from_secs(20), || {
            let printed = self.docker(&["inspect", "--format", format, name]);
            if printed.stdout.trim_end() == value { Ok(()) } else { Err(printed.to_string()) }
        });
    }

    /// Waits until the container's log contains `text`; returns the whole log.
    #[track_caller]
    pub fn until_logged(&self, name: &str, text: &str) -> String {
        eventually(&format!("{name} logs {text:?}"), Duration::from_secs(20), || {
            let printed = self.docker(&["logs", name]);
            let all = format!("{}{}", printed.stdout, printed.stderr);
            if all.contains(text) { Ok(all) } else { Err(printed.to_string()) }
        })
    }
}
