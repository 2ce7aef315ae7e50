//! No request is lost: visitors from outside and from another service ask at a steady rate, on kept connections and on
//! new ones, while everything changes that a user changes, and while daemons come and go.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use skep_conformance::load::{Load, Visits};
use skep_conformance::{Lab, eventually};

use crate::{SOON, leader};

/// Requests a second of the visitors outside, and of those inside, in either manner of connecting.
const RATE: u32 = 200;
/// Time within which a machine without power is in no table any more; see `features.md` on lost workers.
const DETECTION: Duration = Duration::from_secs(5);

/// The visitors' program, beside the test's own.
fn visitor() -> PathBuf {
    let path = skep_conformance::binary().with_file_name("visitor");
    assert!(path.exists(), "{} is missing: cargo build --package skep-conformance --bins", path.display());
    path
}

/// A cluster with a service `web` on a network, visited from outside by any node and from inside by its name.
struct Shop<'a> {
    lab: &'a Lab,
    outside: &'a Load,
}

impl Shop<'_> {
    /// How the visits from inside went until now. A visitor that is replaced begins to count anew.
    fn inside(&self) -> Option<Visits> {
        let containers = self.lab.docker(1, &["ps", "--quiet", "--filter", "name=visitor."]).stdout;
        let log = self.lab.docker(1, &["logs", "--tail", "1", containers.lines().next()?]);
        serde_json::from_str(log.stdout.trim()).ok()
    }

    /// Lets something happen, and everybody visit on until all visits after it went well for a while.
    fn while_visited(&self, what: &str, happen: impl FnOnce()) {
        let begun = Instant::now();
        happen();
        self.visit_on();
        self.nothing_failed(what);
        println!("{what}: {:.1?}", begun.elapsed());
    }

    /// Until both kinds of visitors have been answered some more times.
    fn visit_on(&self) {
        let outside = self.outside.visits().answered;
        let mut inside = self.inside().map_or(0, |visits| visits.answered);
        eventually("the visits go on", SOON, || {
            let now = (self.outside.visits().answered, self.inside().map_or(0, |visits| visits.answered));
            inside = inside.min(now.1);
            let more = u64::from(RATE);
            let on = now.0 > outside + more && now.1 > inside + more;
            if on { Ok(()) } else { Err(format!("{now:?} were answered, {:?} before", (outside, inside))) }
        });
    }

    fn nothing_failed(&self, what: &str) {
        let (outside, inside) = (self.outside.visits(), self.inside().unwrap());
        assert_eq!(outside.failed, 0, "from outside, {what}: {:#?}", outside.failures);
        assert_eq!(inside.failed, 0, "from inside, {what}: {:#?}", inside.failures);
    }

    fn web_is(&self, replicas: &str) {
        self.lab.until_replicas(1, "web", replicas, SOON);
    }

    fn docker(&self, arguments: &[&str]) {
        self.lab.docker(1, arguments).ok();
    }

    fn node(&self, node: u16) -> String {
        self.lab.docker(node, &["info", "--format", "{{.Name}}"]).ok()
    }
}

#[test]
fn no_request_is_lost_whatever_changes() {
    let lab = Lab::up(3, 1, &["busybox", "nginx"]);
    open(&lab);
    let targets: Vec<String> = (1..=3).map(|node| format!("{}:80", lab.address(node))).collect();
    let outside = Load::new();
    let shop = Shop { lab: &lab, outside: &outside };
    std::thread::scope(|scope| {
        scope.spawn(|| lab.inside(0, || outside.run(&targets, RATE)));
        // The visitors outside must end, too, when something was wrong.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("visitors inside", SOON, || shop.inside().ok_or_else(|| "none".to_owned()));
            users_change_things(&shop);
            daemons_come_and_go(&shop);
            a_machine_loses_its_power(&shop);
        }));
        outside.stop();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

fn open(lab: &Lab) {
    lab.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "shop"]).ok();
    let web = [
        "service",
        "create",
        "--detach",
        "--name",
        "web",
        "--replicas",
        "4",
        "--network",
        "shop",
        "-p",
        "80:80",
    ];
    let how = ["--update-monitor", "100ms", "--stop-grace-period", "5s", "--restart-delay", "0s", "nginx"];
    lab.docker(1, &[&web[..], &how].concat()).ok();
    lab.until_replicas(1, "web", "4/4", SOON);
    for node in lab.nodes() {
        crate::await_answer(lab, node, 80);
    }
    let mount = format!("type=bind,source={},target=/visitor,readonly", visitor().display());
    let here = format!("node.hostname=={}", lab.docker(1, &["info", "--format", "{{.Name}}"]).ok());
    let create =
        ["service", "create", "--detach", "--name", "visitor", "--network", "shop", "--mount", &mount];
    let what = ["--constraint", &here, "busybox", "/visitor", &RATE.to_string(), "web:80"];
    lab.docker(1, &[&create[..], &what].concat()).ok();
    lab.until_replicas(1, "visitor", "1/1", SOON);
}

fn users_change_things(shop: &Shop<'_>) {
    shop.while_visited("nothing happens", || {});
    shop.while_visited("a rolling update that stops first", || {
        shop.docker(&["service", "update", "--quiet", "--env-add", "EDITION=2", "web"]);
        shop.web_is("4/4");
    });
    shop.while_visited("a rolling update that starts first", || {
        let update = [
            "service",
            "update",
            "--quiet",
            "--update-order",
            "start-first",
            "--env-add",
            "EDITION=3",
            "web",
        ];
        shop.docker(&update);
        shop.web_is("4/4");
    });
    for replicas in ["1", "10", "1", "4"] {
        shop.while_visited(&format!("scaled to {replicas}"), || {
            shop.docker(&["service", "scale", "--detach", &format!("web={replicas}")]);
            shop.web_is(&format!("{replicas}/{replicas}"));
        });
    }
    for node in [2, 4] {
        let name = shop.node(node);
        shop.while_visited("a node is drained", || {
            shop.docker(&["node", "update", "--availability", "drain", &name]);
            shop.lab.until(node, "the node is empty", SOON, &["ps", "--quiet"], str::is_empty);
            shop.web_is("4/4");
        });
        shop.while_visited("it takes tasks again", || {
            shop.docker(&["node", "update", "--availability", "active", &name]);
            shop.docker(&["service", "update", "--quiet", "--force", "web"]);
            shop.web_is("4/4");
        });
    }
    shop.while_visited("another service joins the network and leaves it", || {
        let other =
            ["service", "create", "--quiet", "--name", "other", "--network", "shop", "--replicas", "4"];
        shop.docker(&[&other[..], &["busybox", "sleep", "1000"]].concat());
        shop.docker(&["run", "--detach", "--name", "guest", "busybox", "sleep", "1000"]);
        shop.docker(&["network", "connect", "shop", "guest"]);
        shop.docker(&["network", "disconnect", "shop", "guest"]);
        shop.docker(&["rm", "--force", "guest"]);
        shop.docker(&["service", "rm", "other"]);
    });
}

fn daemons_come_and_go(shop: &Shop<'_>) {
    let lab = shop.lab;
    shop.while_visited("the leader's daemon is killed", || {
        let old = leader(lab, 1).unwrap();
        let other = (1..=3).find(|node| *node != old).unwrap();
        lab.run(&["kill", &old.to_string()]).ok();
        eventually("another leads", SOON, || {
            let scaled = lab.docker(other, &["service", "scale", "--detach", "web=5"]);
            if scaled.code == 0 { Ok(()) } else { Err(scaled.to_string()) }
        });
        lab.run(&["start", &old.to_string()]).ok();
        shop.web_is("5/5");
    });
    for node in lab.nodes() {
        for how in ["stop", "kill"] {
            shop.while_visited(&format!("the daemon of node {node} is started again after {how}"), || {
                lab.run(&[how, &node.to_string()]).ok();
                lab.run(&["start", &node.to_string()]).ok();
                lab.until(1, "all are ready", SOON, &["node", "ls", "--format", "{{.Status}}"], |all| {
                    all.lines().filter(|status| *status == "Ready").count() == 4
                });
            });
        }
    }
    shop.web_is("5/5");
}

/// What was asked of its tasks is lost, until it is noticed; nothing afterwards.
fn a_machine_loses_its_power(shop: &Shop<'_>) {
    let begun = Instant::now();
    shop.lab.run(&["kill", "--power", "4"]).ok();
    std::thread::sleep((begun + DETECTION).saturating_duration_since(Instant::now()));
    let (outside, inside) = (shop.outside.visits(), shop.inside().unwrap());
    shop.visit_on();
    let failures = (shop.outside.visits().failed, shop.inside().unwrap().failed);
    // A request that was sent while it was not yet noticed may take its patience to fail.
    let patience = Duration::from_secs(5);
    std::thread::sleep(patience);
    println!("power lost: {failures:?} of {:?} requests failed", (outside.answered, inside.answered));
    let before = (shop.outside.visits(), shop.inside().unwrap());
    shop.visit_on();
    let after = (shop.outside.visits(), shop.inside().unwrap());
    assert_eq!(after.0.failed, before.0.failed, "{:#?}", after.0.failures);
    assert_eq!(after.1.failed, before.1.failed, "{:#?}", after.1.failures);
}
