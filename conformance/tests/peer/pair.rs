//! Two machines, one with Docker's daemon and one with Skep's, that are asked the same.

use std::time::{Duration, Instant};

use serde_json::Value;
use skep_conformance::{ADDRESS, Host, Output};

use crate::differences::Difference;
use crate::normal;
use crate::steps::{Named, Step};

/// The version of the API that both speak: the newest that Debian's dockerd has.
const VERSION: &str = "1.41";
/// How long either may take to come where a step waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a client is asked again.
const TRIES: usize = 5;
/// Fields of what each swarm drew for itself.
const DRAWN: [&str; 4] =
    [".TLSInfo.TrustRoot", ".TLSInfo.CertIssuerPublicKey", ".JoinTokens.Manager", ".JoinTokens.Worker"];

/// The two machines. Both are swarms of one node.
pub struct Pair {
    docker: Host,
    skep: Host,
}

/// What a daemon answered.
enum Answer {
    Printed(Output),
    Api {
        status: u16,
        body: String,
    },
    /// What was waited for.
    Came,
}

impl Pair {
    /// Two machines with the image `busybox`.
    pub fn new() -> Pair {
        let start = |make: fn() -> Host| {
            let host = make();
            host.load_image("busybox");
            host.docker(&["swarm", "init", "--advertise-addr", &ADDRESS.to_string()]).ok();
            host
        };
        std::thread::scope(|scope| {
            let docker = scope.spawn(|| start(Host::of_dockerd));
            let skep = start(Host::new);
            Pair { docker: docker.join().unwrap(), skep }
        })
    }

    /// Takes every step on both; what differed.
    pub fn run(&self, steps: &[Named]) -> Vec<Difference> {
        let mut differences = Vec::new();
        for named in steps {
            let (docker, skep) = std::thread::scope(|scope| {
                let docker = scope.spawn(|| ask(&self.docker, named));
                let skep = ask(&self.skep, named);
                (docker.join().unwrap(), skep)
            });
            compare(&docker, &skep, |place, docker, skep| {
                let (docker, skep) = (docker.to_owned(), skep.to_owned());
                differences.push(Difference {
                    step: named.line.clone(),
                    place: place.to_owned(),
                    docker,
                    skep,
                });
            });
        }
        differences
    }
}

/// The stock client. Docker's updates move a service's version a little later, between a client's reading and writing:
/// then it is asked again, as a user would.
fn client(host: &Host, arguments: &[String]) -> Output {
    for _ in 0..TRIES {
        let mut command = host.docker_command();
        command.env("DOCKER_API_VERSION", VERSION).args(arguments);
        let output = skep_conformance::finish(command, &format!("docker {}", arguments.join(" ")), b"");
        if !output.stderr.contains("update out of sequence") {
            return output;
        }
    }
    panic!("docker {}: {TRIES} times out of sequence", arguments.join(" "));
}

fn ask(host: &Host, named: &Named) -> Answer {
    match &named.step {
        Step::Docker(arguments) => Answer::Printed(client(host, arguments)),
        Step::Api { method, path, body } => {
            let path = format!("/v{VERSION}{path}");
            let answer = host.api(method, &path, body).unwrap_or_else(|error| panic!("{path}: {error}"));
            Answer::Api { status: answer.status, body: answer.body }
        }
        Step::Until { text, arguments } => {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let printed = client(host, arguments);
                let seen = printed.stdout.lines().map(normal::line).collect::<Vec<_>>().join(" ");
                if seen == *text {
                    return Answer::Came;
                }
                if Instant::now() > deadline {
                    return Answer::Printed(printed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Tells place, Docker's and Skep's of everything that differs.
fn compare(docker: &Answer, skep: &Answer, mut tell: impl FnMut(&str, &str, &str)) {
    match (docker, skep) {
        (Answer::Printed(docker), Answer::Printed(skep)) => {
            if docker.code != skep.code {
                tell("exit code", &docker.code.to_string(), &skep.code.to_string());
            }
            for (place, docker, skep) in
                [("stdout", &docker.stdout, &skep.stdout), ("stderr", &docker.stderr, &skep.stderr)]
            {
                texts(place, &normal::output(docker), &normal::output(skep), &mut tell);
            }
        }
        (
            Answer::Api { status: docker_status, body: docker },
            Answer::Api { status: skep_status, body: skep },
        ) => {
            if docker_status != skep_status {
                tell("status", &docker_status.to_string(), &skep_status.to_string());
            }
            match (serde_json::from_str(docker), serde_json::from_str(skep)) {
                (Ok(docker), Ok(skep)) => values("", Some(&docker), Some(&skep), &mut tell),
                _ => texts("body", &normal::output(docker), &normal::output(skep), &mut tell),
            }
        }
        (Answer::Came, Answer::Came) => {}
        (docker, skep) => tell("what came", &told(docker), &told(skep)),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Printed(output) => normal::output(&output.to_string()).join(" // "),
        Answer::Api { status, body } => format!("{status} {body}"),
        Answer::Came => "it".to_owned(),
    }
}

/// Line by line where there are as many, else the whole.
fn texts(place: &str, docker: &[String], skep: &[String], tell: &mut impl FnMut(&str, &str, &str)) {
    if docker.len() == skep.len() {
        for (docker, skep) in docker.iter().zip(skep).filter(|(docker, skep)| docker != skep) {
            tell(place, docker, skep);
        }
    } else {
        tell(place, &docker.join(" // "), &skep.join(" // "));
    }
}

fn values(
    place: &str,
    docker: Option<&Value>,
    skep: Option<&Value>,
    tell: &mut impl FnMut(&str, &str, &str),
) {
    match (docker, skep) {
        (Some(Value::Object(docker)), Some(Value::Object(skep))) => {
            let (docker, skep) = (with_normal_keys(docker), with_normal_keys(skep));
            let further = skep.keys().filter(|key| !docker.contains_key(*key));
            for key in docker.keys().chain(further) {
                values(&format!("{place}.{key}"), docker.get(key), skep.get(key), tell);
            }
        }
        (Some(Value::Array(docker)), Some(Value::Array(skep))) if docker.len() == skep.len() => {
            let (docker, skep) = (sorted(docker), sorted(skep));
            for (index, (docker, skep)) in docker.iter().zip(skep).enumerate() {
                values(&format!("{place}[{index}]"), Some(docker), Some(skep), tell);
            }
        }
        _ => {
            let (docker, skep) = (shown(place, docker), shown(place, skep));
            if docker != skep {
                tell(place, &docker, &skep);
            }
        }
    }
}

/// Maps by ids agree where what they hold agrees.
fn with_normal_keys(map: &serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    map.iter().map(|(key, value)| (normal::line(key), value.clone())).collect()
}

/// Lists of objects in an order of their own: by what does not differ from run to run.
fn sorted(list: &[Value]) -> Vec<&Value> {
    let mut list: Vec<&Value> = list.iter().collect();
    let name = |value: &Value| {
        let of = |pointer| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let network = (of("/Network/Spec/Name"), of("/Aliases/0"), of("/Addr"));
        (of("/Spec/Name"), of("/Name"), of("/DesiredState"), value["Slot"].as_u64(), network)
    };
    if list.iter().all(|value| value.is_object()) {
        list.sort_by_key(|value| name(value));
    }
    list
}

/// A value without what differs from run to run.
fn shown(place: &str, value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        // A whole number is the same with a fraction of zero.
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => "0".to_owned(),
        Some(Value::Number(_)) if place.ends_with("Version.Index") || place.ends_with(".PID") => {
            "<number>".to_owned()
        }
        Some(Value::String(_)) if DRAWN.iter().any(|name| place.ends_with(name)) => "<drawn>".to_owned(),
        Some(Value::String(text)) => format!("{:?}", normal::line(text)),
        Some(value) => normal::line(&value.to_string()),
    }
}
