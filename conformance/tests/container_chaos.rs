//! Several clients do what they like with containers while the daemon is killed again and again: what was
//! acknowledged is true afterwards, and what is gone has left nothing.
//!
//! `SKEP_CHAOS_SEED` repeats the choices of a run, `SKEP_CHAOS_ROUNDS` makes it longer.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skep_conformance::{Host, eventually, http};

const CLIENTS: u64 = 4;
/// Containers that each client juggles.
const SLOTS: u64 = 4;
/// How often the daemon is killed.
const ROUNDS: u64 = 48;
const LIMIT: Duration = Duration::from_secs(20);

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % sides
    }
}

/// What a client knows of a container by the answers that it got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Absent,
    Created,
    Running {
        pid: u64,
    },
    /// It was signalled, or its shim was killed: it has ended or is about to.
    Ending,
    Exited,
    /// A request had no answer; these states may be true.
    Unsure(&'static [&'static str]),
}

/// One client and its containers, by name.
struct Client<'a> {
    host: &'a Host,
    dice: Dice,
    containers: &'a mut BTreeMap<String, Known>,
    killed: &'a AtomicBool,
}

/// The daemon was killed before it answered.
struct Cut;

impl Client<'_> {
    /// Does one thing after the other until the daemon is killed.
    fn work(mut self) {
        let names: Vec<String> = self.containers.keys().cloned().collect();
        loop {
            let name = &names[self.dice.roll(names.len() as u64) as usize];
            if self.step(name).is_err() {
                return;
            }
        }
    }

    fn step(&mut self, name: &str) -> Result<(), Cut> {
        match self.containers[name].clone() {
            Known::Absent => self.create(name),
            Known::Created => match self.dice.roll(5) {
                0 => self.remove(name, &["created"]),
                _ => self.start(name, &["created", "running", "exited"]),
            },
            Known::Exited => match self.dice.roll(3) {
                0 => self.remove(name, &["exited"]),
                _ => self.start(name, &["exited", "running"]),
            },
            Known::Ending => self.wait(name),
            Known::Running { pid } => match self.dice.roll(8) {
                0 => self.remove(name, &["running", "exited"]),
                1 => self.change(name, "kill?signal=KILL", 204, Known::Ending, &["running", "exited"]),
                2 => self.change(name, "stop?t=0", 204, Known::Exited, &["running", "exited"]),
                3 => self.restart(name),
                4 if self.dice.roll(3) == 0 => {
                    kill_shim(pid);
                    self.containers.insert(name.to_owned(), Known::Ending);
                    Ok(())
                }
                5 => self.logs(name),
                _ => self.exec(name),
            },
            Known::Unsure(states) => unreachable!("{name} was settled between rounds: {states:?}"),
        }
    }

    /// A request, whose answer must have this status. Without an answer the states in `unsure` may be true.
    fn ask(
        &mut self,
        name: &str,
        (method, path, body): (&str, &str, &str),
        status: u16,
        unsure: &'static [&'static str],
    ) -> Result<http::Answer, Cut> {
        match self.host.api(method, path, body) {
            Ok(answer) if answer.status == status => Ok(answer),
            Ok(answer) => panic!(
                "{method} {path} of {name}, known as {:?}: {} {}",
                self.containers[name], answer.status, answer.body
            ),
            Err(error) => {
                assert!(self.killed.load(Ordering::SeqCst), "{method} {path}: {error}");
                if !unsure.is_empty() {
                    self.containers.insert(name.to_owned(), Known::Unsure(unsure));
                }
                Err(Cut)
            }
        }
    }

    fn create(&mut self, name: &str) -> Result<(), Cut> {
        let mut host_config = serde_json::json!({ "Memory": 64 << 20, "Binds": [format!("{name}:/data")] });
        if self.dice.roll(2) == 0 {
            host_config["PortBindings"] = serde_json::json!({ "80/tcp": [{ "HostPort": "" }] });
        }
        host_config["Init"] = (self.dice.roll(2) == 0).into();
        let body = serde_json::json!({
            "Image": "busybox", "Cmd": ["sh", "-c", "echo hello; exec sleep 1000"], "HostConfig": host_config,
        });
        let path = format!("/containers/create?name={name}");
        let answer = self.ask(name, ("POST", &path, &body.to_string()), 201, &["absent", "created"])?;
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        self.host.remember(answer["Id"].as_str().unwrap());
        self.containers.insert(name.to_owned(), Known::Created);
        Ok(())
    }

    fn change(
        &mut self,
        name: &str,
        action: &str,
        status: u16,
        after: Known,
        unsure: &'static [&'static str],
    ) -> Result<(), Cut> {
        self.ask(name, ("POST", &format!("/containers/{name}/{action}"), ""), status, unsure)?;
        self.containers.insert(name.to_owned(), after);
        Ok(())
    }

    fn start(&mut self, name: &str, unsure: &'static [&'static str]) -> Result<(), Cut> {
        self.change(name, "start", 204, Known::Running { pid: 0 }, unsure)?;
        self.learn_pid(name)
    }

    fn restart(&mut self, name: &str) -> Result<(), Cut> {
        self.change(name, "restart?t=0", 204, Known::Running { pid: 0 }, &["running", "exited"])?;
        self.learn_pid(name)
    }

    fn learn_pid(&mut self, name: &str) -> Result<(), Cut> {
        let answer = self.ask(name, ("GET", &format!("/containers/{name}/json"), ""), 200, &["running"])?;
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let pid = answer["State"]["Pid"].as_u64().unwrap();
        assert!(pid > 0, "{name} was started: {}", answer["State"]);
        self.containers.insert(name.to_owned(), Known::Running { pid });
        Ok(())
    }

    fn wait(&mut self, name: &str) -> Result<(), Cut> {
        self.ask(name, ("POST", &format!("/containers/{name}/wait"), ""), 200, &[])?;
        self.containers.insert(name.to_owned(), Known::Exited);
        Ok(())
    }

    fn remove(&mut self, name: &str, before: &'static [&'static str]) -> Result<(), Cut> {
        let unsure: &'static [&'static str] = match before {
            ["created"] => &["absent", "created"],
            ["exited"] => &["absent", "exited"],
            _ => &["absent", "running", "exited"],
        };
        self.ask(name, ("DELETE", &format!("/containers/{name}?force=1&v=1"), ""), 204, unsure)?;
        self.containers.insert(name.to_owned(), Known::Absent);
        Ok(())
    }

    fn exec(&mut self, name: &str) -> Result<(), Cut> {
        let body = r#"{"Cmd": ["sh", "-c", "echo exec; exit 3"], "AttachStdout": true}"#;
        let made = self.ask(name, ("POST", &format!("/containers/{name}/exec"), body), 201, &[])?;
        let made: serde_json::Value = serde_json::from_str(&made.body).unwrap();
        let path = format!("/exec/{}/start", made["Id"].as_str().unwrap());
        self.ask(name, ("POST", &path, r#"{"Detach": true}"#), 200, &[])?;
        Ok(())
    }

    fn logs(&mut self, name: &str) -> Result<(), Cut> {
        self.ask(name, ("GET", &format!("/containers/{name}/logs?stdout=1"), ""), 200, &[])?;
        Ok(())
    }
}

/// Kills the parent of a container's first process: its shim.
fn kill_shim(pid: u64) {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return };
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    assert_ne!(shim, "1", "a container is its shim's child");
    skep_conformance::signal(shim.parse().unwrap(), libc::SIGKILL);
}

/// What the daemon says of a container: its status and its first process's id.
fn seen(host: &Host, name: &str) -> (String, u64, String) {
    let answer = host.api_get(&format!("/containers/{name}/json")).unwrap();
    if answer.status == 404 {
        return ("absent".to_owned(), 0, String::new());
    }
    let container: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    host.remember(container["Id"].as_str().unwrap());
    let state = &container["State"];
    let status = state["Status"].as_str().unwrap().to_owned();
    (status, state["Pid"].as_u64().unwrap(), state.to_string())
}

/// Holds what a client knows against what the daemon says, and settles what was unsure.
fn settle(host: &Host, name: &str, known: &mut Known) {
    eventually(&format!("{name}, known as {known:?}, is as it should be"), LIMIT, || {
        let (status, pid, state) = seen(host, name);
        let right = match &*known {
            Known::Absent => status == "absent",
            Known::Created => status == "created",
            Known::Running { pid: 0 } => status == "running",
            Known::Running { pid: before } => status == "running" && pid == *before,
            Known::Ending | Known::Exited => status == "exited",
            Known::Unsure(states) => states.contains(&&*status),
        };
        if !right {
            return Err(state);
        }
        *known = match &*status {
            "absent" => Known::Absent,
            "created" => Known::Created,
            "running" => Known::Running { pid },
            _ => Known::Exited,
        };
        Ok(())
    });
    if let Known::Running { pid } = known {
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "{name} runs as {pid}");
        let path = format!("/containers/{name}/logs?stdout=1");
        eventually(&format!("{name} has said hello"), LIMIT, || {
            let log = host.api_get(&path).unwrap();
            if log.body.contains("hello") { Ok(()) } else { Err(log.body) }
        });
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_clients_do_a_killed_daemon_keeps_its_word_and_leaves_nothing() {
    let seed = number("SKEP_CHAOS_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    println!("SKEP_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    let mut host = Host::with_busybox();
    let names = |client: u64| (0..SLOTS).map(move |slot| format!("chaos{client}-{slot}"));
    let mut clients: Vec<BTreeMap<String, Known>> =
        (0..CLIENTS).map(|client| names(client).map(|name| (name, Known::Absent)).collect()).collect();
    for round in 0..number("SKEP_CHAOS_ROUNDS").unwrap_or(ROUNDS) {
        let killed = AtomicBool::new(false);
        // Long enough for some operations, or so short that the first are cut.
        let life =
            Duration::from_micros(if dice.roll(3) == 0 { dice.roll(60_000) } else { dice.roll(1_500_000) });
        std::thread::scope(|scope| {
            for containers in &mut clients {
                let dice = Dice(dice.roll(u64::MAX));
                let client = Client { host: &host, dice, containers, killed: &killed };
                scope.spawn(move || client.work());
            }
            std::thread::sleep(life);
            killed.store(true, Ordering::SeqCst);
            skep_conformance::signal(host.daemon_pid(), libc::SIGKILL);
        });
        host.kill_daemon();
        for known in clients.iter_mut().flat_map(BTreeMap::values_mut) {
            if let Known::Running { pid: pid @ 1.. } = *known
                && dice.roll(6) == 0
            {
                kill_shim(pid);
                *known = Known::Ending;
            }
        }
        host.start_daemon();
        println!("round {round}: {life:?}");
        for (name, known) in clients.iter_mut().flatten() {
            settle(&host, name, known);
        }
    }
    let printed = host.docker(&["ps", "--all", "--quiet", "--no-trunc"]).ok();
    for id in printed.lines() {
        host.remember(id);
    }
    let there = clients.iter().flatten().filter(|(_, known)| **known != Known::Absent).count();
    assert_eq!(printed.lines().count(), there, "no container that nobody knows");
    for id in printed.lines() {
        host.docker(&["rm", "--force", "--volumes", id]).ok();
    }
    host.assert_nothing_left();
    let left: Vec<_> = std::fs::read_dir(host.data_root().join("containers")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(host.run(&["--publish", "8080:80"], "echo sound").ok(), "sound");
}
