//! Networks between machines: names, virtual addresses, guests, refusals.

use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::SOON;

/// An HTTP server that tells its container's host name.
const SERVER: &str = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";

/// Fetches from a name. The image's programs are linked statically, so that only its `nslookup` knows how to ask for names.
fn fetch(name: &str) -> String {
    format!(
        "address=$(nslookup -type=a {name} | sed -n 's/^Address: //p' | head -n 1); [ -n \"$address\" ] && \
         timeout 5 wget -q -O - http://$address/"
    )
}

/// A service of busybox servers on networks.
fn serve(lab: &Lab, name: &str, replicas: u16, options: &[&str]) {
    let count = format!("--replicas={replicas}");
    let head = ["service", "create", "--detach", "--quiet", "--name", name, &count, "--hostname", name];
    let tail = ["busybox", "sh", "-c", SERVER];
    lab.docker(1, &[&head[..], options, &tail[..]].concat()).ok();
    lab.until_replicas(1, name, &format!("{replicas}/{replicas}"), SOON);
}

/// What a new container on a network gets from a script.
fn guest(lab: &Lab, node: u16, network: &str, script: &str) -> Result<String, String> {
    let output = lab.docker(node, &["run", "--rm", "--network", network, "busybox", "sh", "-c", script]);
    if output.code == 0 { Ok(output.stdout.trim().to_owned()) } else { Err(format!("{output}")) }
}

/// The addresses that a name has on a node, as a guest sees them.
fn addresses(lab: &Lab, node: u16, network: &str, name: &str) -> Result<Vec<String>, String> {
    let text = guest(lab, node, network, &format!("nslookup -type=a {name}"))?;
    let mut found: Vec<String> = text
        .lines()
        .skip_while(|line| !line.starts_with("Name:"))
        .filter_map(|line| line.strip_prefix("Address: "))
        .map(str::to_owned)
        .collect();
    found.sort();
    Ok(found)
}

#[test]
fn a_service_is_reached_by_name_from_every_node() {
    let lab = Lab::up(1, 2, &["busybox"]);
    let id = lab.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "shop"]).ok();
    assert_eq!(id.len(), 25);
    serve(&lab, "web", 2, &["--network", "name=shop,alias=www"]);
    for node in lab.nodes() {
        let first =
            eventually(&format!("a guest of node {node}"), SOON, || guest(&lab, node, "shop", &fetch("web")));
        assert_eq!(first, "web", "node {node}");
        for name in ["www", "web.shop", "tasks.web"] {
            assert_eq!(guest(&lab, node, "shop", &fetch(name)).as_deref(), Ok("web"), "node {node}: {name}");
        }
        let vip =
            lab.docker(1, &["service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "web"]).ok();
        let web = addresses(&lab, node, "shop", "web").unwrap();
        assert_eq!(web.len(), 1, "node {node}: {web:?}");
        assert!(vip.contains(&web[0]), "node {node}: {web:?} of {vip}");
        assert_eq!(addresses(&lab, node, "shop", "tasks.web").unwrap().len(), 2, "node {node}");
        let ping =
            guest(&lab, node, "shop", "ping -c 1 -W 2 $(nslookup -type=a web | sed -n 's/^Address: //p')");
        assert!(ping.is_ok(), "node {node}: {ping:?}");
    }
    let shown =
        lab.docker(1, &["network", "inspect", "--verbose", "--format", "{{json .Services}}", "shop"]).ok();
    assert!(shown.contains("\"web\"") && shown.contains("\"VIP\":\"10.0."), "{shown}");
    removal_leaves_nothing(&lab);
}

fn removal_leaves_nothing(lab: &Lab) {
    let refused = lab.docker(1, &["network", "rm", "shop"]);
    assert!(refused.code == 1 && refused.stderr.contains("is in use by service"), "{refused}");
    lab.docker(1, &["service", "rm", "web"]).ok();
    eventually("the network goes", SOON, || {
        let removed = lab.docker(1, &["network", "rm", "shop"]);
        if removed.code == 0 { Ok(()) } else { Err(removed.stderr) }
    });
    for node in lab.nodes() {
        eventually(&format!("node {node} has nothing of it"), SOON, || {
            let namespace = lab.namespace(node);
            let output = std::process::Command::new("ip")
                .args(["-n", &namespace, "-o", "link", "show", "type", "bridge"])
                .output()
                .map_err(|error| error.to_string())?;
            let links = String::from_utf8_lossy(&output.stdout).into_owned();
            // The one of the mesh stays.
            if links.matches(": sk-").count() <= 1 { Ok(()) } else { Err(links) }
        });
    }
}

#[test]
fn names_lead_to_tasks_where_that_is_asked() {
    let lab = Lab::up(1, 1, &["busybox"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "shop"]).ok();
    serve(&lab, "web", 3, &["--network", "shop", "--endpoint-mode", "dnsrr"]);
    for node in lab.nodes() {
        let found = eventually("all three are named", SOON, || match addresses(&lab, node, "shop", "web")? {
            found if found.len() == 3 => Ok(found),
            found => Err(format!("{found:?}")),
        });
        assert_eq!(addresses(&lab, node, "shop", "tasks.web").unwrap(), found);
    }
}

#[test]
fn guests_of_two_nodes_meet() {
    let lab = Lab::up(1, 1, &["busybox"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "shop"]).ok();
    let run = ["run", "--detach", "--name", "left", "--hostname", "left", "--network-alias", "db"];
    lab.docker(1, &[&run[..], &["--network", "shop", "busybox", "sh", "-c", SERVER]].concat()).ok();
    for name in ["left", "db"] {
        let met = eventually("the guests meet", SOON, || guest(&lab, 2, "shop", &fetch(name)));
        assert_eq!(met, "left", "{name}");
    }
    // A running one of the default bridge joins, and leaves.
    lab.docker(2, &["run", "--detach", "--name", "right", "busybox", "sleep", "1000"]).ok();
    lab.docker(2, &["network", "connect", "shop", "right"]).ok();
    let fetch = ["exec", "right", "sh", "-c", &fetch("left")];
    let met = eventually("the guest that joined late", SOON, || {
        let output = lab.docker(2, &fetch);
        if output.code == 0 { Ok(output.stdout.trim().to_owned()) } else { Err(output.stderr) }
    });
    assert_eq!(met, "left");
    lab.docker(2, &["network", "disconnect", "shop", "right"]).ok();
    assert_ne!(lab.docker(2, &fetch).code, 0);
    let refused = lab.docker(1, &["network", "rm", "shop"]);
    assert_eq!(refused.code, 1, "{refused}");
    lab.docker(1, &["rm", "--force", "left"]).ok();
    eventually("the network goes", SOON, || {
        let removed = lab.docker(1, &["network", "rm", "shop"]);
        if removed.code == 0 { Ok(()) } else { Err(removed.stderr) }
    });
}

#[test]
fn what_cannot_be_is_refused() {
    let lab = Lab::up(1, 1, &["busybox"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "--subnet", "10.50.0.0/24", "plain"]).ok();
    lab.docker(1, &["network", "create", "--driver", "overlay", "plain"])
        .fails(1, "network with name plain already exists");
    let overlapping =
        lab.docker(1, &["network", "create", "--driver", "overlay", "--subnet", "10.50.0.0/16", "x"]);
    assert!(overlapping.code == 1 && overlapping.stderr.contains("plain"), "{overlapping}");
    lab.docker(1, &["run", "--rm", "--network", "plain", "busybox", "true"])
        .fails(125, "not manually attachable");
    lab.docker(2, &["run", "--rm", "--network", "plain", "busybox", "true"])
        .fails(125, "not manually attachable");
    lab.docker(2, &["run", "--rm", "--network", "absent", "busybox", "true"])
        .fails(125, "network absent not found");
    lab.docker(2, &["network", "create", "--driver", "overlay", "x"])
        .fails(1, "This node is not a swarm manager.");
    lab.docker(1, &["network", "create", "here"]).ok();
    // The client itself asks for one of the cluster.
    lab.docker(1, &["service", "create", "--detach", "--network", "here", "busybox"])
        .fails(1, "network here not found");
}

/// W2 step 6: the rebuild script removes a service and makes it again at once.
#[test]
fn a_service_is_made_again_at_once() {
    let lab = Lab::up(1, 1, &["busybox"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "my_network"]).ok();
    for _ in 0..3 {
        serve(&lab, "web", 2, &["--network", "my_network", "--publish", "8080:80"]);
        for node in lab.nodes() {
            eventually(&format!("node {node} answers"), Duration::from_secs(20), || lab.fetch(node, 8080));
        }
        lab.docker(1, &["service", "rm", "web"]).ok();
    }
}

#[test]
fn a_task_publishes_a_port_of_its_own_node() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let publish = ["--publish", "mode=host,target=80,published=8081"];
    serve(&lab, "web", 1, &[&publish[..], &["--constraint", "node.role==worker"]].concat());
    eventually("the worker answers", SOON, || lab.fetch(2, 8081));
    assert!(lab.fetch(1, 8081).is_err(), "the manager has no task");
}

/// What two nodes say to each other on an encrypted network goes through the tunnel, and through nothing else.
#[test]
fn an_encrypted_network_works_as_others_do() {
    let lab = Lab::up(1, 1, &["busybox"]);
    let create = ["network", "create", "--driver", "overlay", "--attachable", "--opt", "encrypted", "vault"];
    lab.docker(1, &create).ok();
    serve(&lab, "web", 1, &["--network", "vault", "--constraint", "node.role==manager"]);
    for node in lab.nodes() {
        let answer = eventually(&format!("a guest of node {node}"), SOON, || {
            guest(&lab, node, "vault", &fetch("web"))
        });
        assert_eq!(answer, "web", "node {node}");
    }
    // Whoever gets at the manager's address of the data path finds nobody in clear.
    let links = lab.run(&["exec", "2", "--", "ip", "-d", "link"]).ok();
    let id = lab.docker(1, &["network", "inspect", "--format", "{{.Id}}", "vault"]).ok();
    let own: Vec<&str> = links.lines().filter(|line| line.contains(&id[..8])).collect();
    assert!(!own.is_empty() && !own.iter().any(|line| line.contains("vxlan")), "{links}");
    // Daemons come and go, the tunnel stays.
    let stays = ["run", "--detach", "--network", "vault", "busybox", "sleep", "1000"];
    let container = lab.docker(2, &stays).ok();
    for how in ["kill", "stop"] {
        lab.run(&[how, "2"]).ok();
        lab.run(&["start", "2"]).ok();
        eventually("the guest still reaches the service", SOON, || {
            let output = lab.docker(2, &["exec", &container, "sh", "-c", &fetch("web")]);
            if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
        });
    }
}

/// A guest that ends while its daemon is down holds neither its address nor its network.
#[test]
fn a_guest_that_went_without_a_word_is_forgotten() {
    let lab = Lab::up(1, 1, &["busybox"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "shop"]).ok();
    let run =
        ["run", "--detach", "--rm", "--name", "visitor", "--network", "shop", "busybox", "sleep", "1000"];
    lab.docker(2, &run).ok();
    let pid = lab.docker(2, &["inspect", "--format", "{{.State.Pid}}", "visitor"]).ok();
    let stays = lab.docker(2, &["run", "--detach", "--network", "shop", "busybox", "sleep", "1000"]).ok();
    lab.run(&["kill", "2"]).ok();
    skep_conformance::signal(pid.parse().unwrap(), 9);
    lab.run(&["start", "2"]).ok();
    eventually("only one is left", SOON, || {
        let all = guest(&lab, 1, "shop", "nslookup -type=a visitor");
        if all.is_err() { Ok(()) } else { Err(format!("{all:?}")) }
    });
    lab.docker(1, &["network", "rm", "shop"]).fails(1, "is in use by container");
    lab.docker(2, &["rm", "--force", &stays]).ok();
    lab.until(1, "the network can go", SOON, &["network", "rm", "shop"], |_| true);
}
