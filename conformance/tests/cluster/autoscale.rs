//! Services that are scaled by their load, with the stock client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_conformance::Lab;

/// Windows pass twice on the way, and a machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);
const WINDOWS: [&str; 4] =
    ["--label", "skep.autoscale.up_window=2s", "--label", "skep.autoscale.down_window=4s"];
/// Is busy while there is a file.
const BUSY: &str = "while :; do [ -e /load/on ] || sleep 1; done";
/// Answers each connection.
const SERVER: &str = "mkdir /www; echo well > /www/index.html; exec httpd -f -p 80 -h /www";

fn create(lab: &Lab, options: &[&str], script: &str) {
    let head = ["service", "create", "--detach", "--quiet"];
    lab.docker(1, &[&head[..], &WINDOWS, options, &["busybox", "sh", "-c", script]].concat()).ok();
}

/// What `docker events` tells of a service until now.
fn events(lab: &Lab, service: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64().to_string();
    let filter = format!("service={service}");
    let attributes = "{{json .Actor.Attributes}}";
    let events = ["events", "--since", "1", "--until", &now, "--filter", &filter, "--format", attributes];
    lab.docker(1, &events).ok()
}

#[test]
fn load_brings_replicas_and_rest_takes_them_away() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let load = tempfile::tempdir().unwrap();
    let mount = format!("type=bind,source={},target=/load", load.path().display());
    let labels = ["--label", "skep.autoscale.max=3", "--label", "skep.autoscale.rps=5"];
    create(&lab, &[&labels[..], &["--name", "web", "-p", "8080:80"]].concat(), SERVER);
    let labels = ["--label", "skep.autoscale.max=2", "--label", "skep.autoscale.cpu=50"];
    let busy = ["--name", "busy", "--limit-cpu", "0.2", "--mount", &mount];
    create(&lab, &[&labels[..], &busy].concat(), BUSY);
    lab.until_replicas(1, "web", "1/1", LIMIT);
    lab.until_replicas(1, "busy", "1/1", LIMIT);

    let ended = AtomicBool::new(false);
    std::fs::write(load.path().join("on"), "").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // A task that is about to go may refuse; the load is what counts here.
                let _ = lab.fetch(1, 8080);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let both = ["service", "ls", "--format", "{{.Name}} {{.Replicas}}"];
        let grown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            lab.until(1, "both have grown", LIMIT, &both, |shown| {
                shown.contains("web 3/3") && shown.contains("busy 2/2")
            })
        }));
        ended.store(true, Ordering::Relaxed);
        grown.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let why = lab.skep(1, &["why", "web"]).ok();
    assert!(why.contains("from 1 to 3, 5 connections a second each; last from "), "{why}");
    let why = lab.skep(1, &["why", "busy"]).ok();
    assert!(why.contains("from 1 to 2, 0.10 CPUs each; last from 1 to 2, "), "{why}");
    let told = events(&lab, "web");
    assert!(told.contains(r#""replicas.new":"3""#), "{told}");
    assert!(
        told.contains("connections a second, and each is to accept 5; at least 3 were needed for 2s"),
        "{told}"
    );

    std::fs::remove_file(load.path().join("on")).unwrap();
    lab.until_replicas(1, "web", "1/1", LIMIT);
    lab.until_replicas(1, "busy", "1/1", LIMIT);
    let told = events(&lab, "busy");
    assert!(told.contains("each is to use 0.10; at most 1 were needed for 4s"), "{told}");
}

#[test]
fn labels_that_make_no_sense_are_refused_and_bounds_hold_at_once() {
    let lab = Lab::up(1, 0, &["busybox"]);
    let create = |labels: &[&str]| {
        let head = ["service", "create", "--detach", "--quiet", "--name", "web"];
        lab.docker(1, &[&head[..], labels, &["busybox", "sleep", "1000"]].concat())
    };
    let max = ["--label", "skep.autoscale.max=3"];
    create(&max).fails(1, "skep.autoscale.max says nothing without skep.autoscale.cpu or skep.autoscale.rps");
    let global = [&max[..], &["--label", "skep.autoscale.cpu=50", "--mode", "global"]].concat();
    create(&global).fails(1, "label skep.autoscale.max: only a service with replicas is scaled");
    let min = ["--label", "skep.autoscale.min=2", "--label", "skep.autoscale.cpu=50"];
    create(&[&max[..], &min].concat()).ok();
    lab.until_replicas(1, "web", "2/2", LIMIT);
    let update = ["service", "update", "--detach", "--label-add", "skep.autoscale.cpu=half", "web"];
    lab.docker(1, &update)
        .fails(1, "label skep.autoscale.cpu: \"half\" is not a whole number from 1 to 1000");
    lab.docker(1, &["service", "scale", "--detach", "web=9"]).ok();
    lab.until_replicas(1, "web", "3/3", LIMIT);
    assert!(events(&lab, "web").contains(r#""autoscale":"skep.autoscale.max is 3""#));
    // One that is scaled to none is switched off.
    lab.docker(1, &["service", "scale", "--detach", "web=0"]).ok();
    lab.until_replicas(1, "web", "0/0", LIMIT);
}
