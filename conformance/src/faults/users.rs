//! Users: what they ask for, and what they may rely on afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Dice, MANAGERS, Tally};
use crate::Lab;
use crate::http::Answer;

/// Services that users play with.
const NAMES: u64 = 8;
/// Most replicas of one.
const MOST: u64 = 4;
/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(30);
/// The lowest published port; every second service publishes one.
const PORT: u64 = 9000;

/// Time within which users are answered, whatever is broken.
const BOUND: Duration = Duration::from_secs(10);

/// What each service may be: its replicas, or `None` for not being there. One possibility is certainty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(pub(crate) BTreeMap<String, Vec<Option<u64>>>);

/// What requests of unknown fate may yet do, since the round began: a daemon that stands still takes up a request
/// when it goes on. Changes of a service are not among them, for they say which version they are for.
type Late = BTreeMap<String, Vec<Option<u64>>>;

impl Model {
    fn of(&self, name: &str) -> Vec<Option<u64>> {
        self.0.get(name).cloned().unwrap_or_else(|| vec![None])
    }

    /// An acknowledged change.
    fn set(&mut self, name: &str, state: Option<u64>) {
        self.0.insert(name.to_owned(), vec![state]);
    }

    /// A change that may have happened.
    fn perhaps(&mut self, name: &str, state: Option<u64>) {
        let states = self.0.entry(name.to_owned()).or_insert_with(|| vec![None]);
        if !states.contains(&state) {
            states.push(state);
        }
    }
}

/// The users of one round.
pub(crate) struct Users {
    dice: Dice,
    pub(crate) model: Model,
    pub(crate) tally: Tally,
    /// Requests that took too long though their daemon was not frozen.
    pub(crate) slow: Vec<String>,
    late: Late,
    frozen: Option<u16>,
}

/// How a request ended for whoever asked.
enum Fate {
    Done,
    Refused,
    Unknown,
}

fn fate(answer: Result<Answer, String>) -> Fate {
    match answer {
        Ok(answer) if answer.status < 300 => Fate::Done,
        // These say for certain that nothing was done.
        Ok(answer) if matches!(answer.status, 400 | 404 | 409) => Fate::Refused,
        // It was never asked.
        Err(error) if error.starts_with("connecting") => Fate::Refused,
        // `update out of sequence`: another change of this user came through after all.
        Ok(_) | Err(_) => Fate::Unknown,
    }
}

impl Users {
    /// Users of a cluster that is as `model` says; the daemon of `frozen` stands still at some time.
    pub(crate) fn new(seed: u64, model: Model, frozen: Option<u16>) -> Users {
        let dice = Dice::new(seed);
        Users { dice, model, tally: Tally::default(), slow: Vec::new(), late: Late::new(), frozen }
    }

    /// Asks for one thing after the other until told to stop.
    pub(crate) fn run(mut self, lab: &Lab, stop: &AtomicBool) -> Users {
        while !stop.load(Ordering::Relaxed) {
            self.ask(lab);
            std::thread::sleep(PAUSE);
        }
        self
    }

    fn ask(&mut self, lab: &Lab) {
        let manager = 1 + self.dice.below(u64::from(MANAGERS)) as u16;
        let number = self.dice.below(NAMES);
        let name = format!("s{number}");
        let replicas = self.dice.below(MOST + 1);
        let there = self.model.of(&name).iter().any(Option::is_some);
        let begun = Instant::now();
        let (state, late, answer) = match (there, self.dice.below(4)) {
            (false, _) => {
                let spec = specification(number, replicas);
                (Some(replicas), true, lab.api(manager, "POST", "/services/create", &spec.to_string()))
            }
            (true, 0) => (None, true, lab.api(manager, "DELETE", &format!("/services/{name}"), "")),
            (true, _) => (Some(replicas), false, scale(lab, manager, number, replicas)),
        };
        self.time(manager, &name, begun.elapsed(), &answer);
        match fate(answer) {
            Fate::Done => {
                self.tally.acknowledged += 1;
                self.model.set(&name, state);
                for state in self.late.get(&name).into_iter().flatten() {
                    self.model.perhaps(&name, *state);
                }
            }
            Fate::Refused => self.tally.refused += 1,
            Fate::Unknown => {
                self.tally.unknown += 1;
                self.model.perhaps(&name, state);
                if late {
                    self.late.entry(name).or_default().push(state);
                }
            }
        }
    }

    fn time(&mut self, manager: u16, name: &str, took: Duration, answer: &Result<Answer, String>) {
        if self.frozen == Some(manager) {
            return;
        }
        self.tally.slowest = self.tally.slowest.max(took);
        if took > BOUND {
            self.slow.push(format!("a request about {name} at node {manager} took {took:?}: {answer:?}"));
        }
    }
}

fn scale(lab: &Lab, manager: u16, number: u64, replicas: u64) -> Result<Answer, String> {
    let name = format!("s{number}");
    let found = lab.api(manager, "GET", &format!("/services/{name}"), "")?;
    let known: Value = serde_json::from_str(&found.body).map_err(|error| error.to_string())?;
    let Some(version) = known["Version"]["Index"].as_u64() else { return Ok(found) };
    let path = format!("/services/{name}/update?version={version}");
    lab.api(manager, "POST", &path, &specification(number, replicas).to_string())
}

fn specification(number: u64, replicas: u64) -> Value {
    let mut spec = json!({
        "Name": format!("s{number}"),
        "TaskTemplate": { "ContainerSpec": {
            "Image": "busybox:latest",
            // Listens, so that a published port has somebody behind it.
            "Command": ["sh", "-c", "while true; do echo here | nc -l -p 80; done"],
            "StopGracePeriod": 1_000_000_000,
        } },
        "Mode": { "Replicated": { "Replicas": replicas } },
    });
    if number.is_multiple_of(2) {
        spec["EndpointSpec"] =
            json!({ "Ports": [{ "Protocol": "tcp", "TargetPort": 80, "PublishedPort": PORT + number }] });
    }
    spec
}
