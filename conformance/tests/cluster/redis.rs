//! W4: a Redis cluster of six out of one service, created and used from guests of an attachable network.

use std::time::Duration;

use skep_conformance::{Lab, eventually};

use crate::SOON;

/// Values with lines, quotes and dollars arrive as they are.
const CONFIGURATION: &str = "cluster-enabled yes\ncluster-node-timeout 5000\nappendonly yes\n\
    # 'quoted' \"twice\" $HOME\nprotected-mode no\n";

#[test]
fn w4_a_redis_cluster_of_six_tasks() {
    let lab = Lab::up(1, 2, &["redis"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "mynet"]).ok();
    let environment = format!("REDIS_CONFIG={CONFIGURATION}");
    let create = ["service", "create", "--detach", "--name", "redis", "--network", "mynet", "--replicas=6"];
    let program = "printf '%s' \"$REDIS_CONFIG\" > /tmp/redis.conf; exec redis-server /tmp/redis.conf";
    let what = ["-e", &environment, "redis", "sh", "-c", program];
    lab.docker(1, &[&create[..], &what].concat()).ok();
    lab.until_replicas(1, "redis", "6/6", SOON);
    let shown = lab.docker(1, &["service", "ps", "--no-trunc", "--format", "{{.Node}}", "redis"]).ok();
    let nodes: std::collections::BTreeSet<&str> = shown.lines().collect();
    assert_eq!(nodes.len(), 3, "they are spread: {shown}");

    let guest = |node: u16, script: &str| {
        let output = lab.docker(node, &["run", "--rm", "--net", "mynet", "redis", "sh", "-c", script]);
        if output.code == 0 { Ok(output.stdout) } else { Err(output.to_string()) }
    };
    let look = "nslookup -type=a tasks.redis | sed -n 's/^Address: //p'";
    let addresses = eventually("all six have addresses", SOON, || {
        let text = guest(2, look)?;
        let addresses: Vec<String> = text.lines().map(|line| format!("{line}:6379")).collect();
        if addresses.len() == 6 { Ok(addresses) } else { Err(text) }
    });
    let cluster = format!(
        "timeout 90 redis-cli --cluster create {} --cluster-replicas 1 --cluster-yes",
        addresses.join(" ")
    );
    let created = guest(2, &cluster).unwrap();
    assert!(created.contains("All 16384 slots covered"), "{created}");

    // Through the service's name, and wherever that leads; the six take a few seconds to agree that all is well.
    let limit = Duration::from_secs(60);
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        eventually(&format!("{key} is written"), limit, || {
            let said = guest(3, &format!("timeout 20 redis-cli -c -h redis set {key} {value}"))?;
            if said.trim() == "OK" { Ok(()) } else { Err(said) }
        });
        let read = guest(1, &format!("redis-cli -c -h redis get {key}")).unwrap();
        assert_eq!(read.trim(), value);
    }
    let configuration = guest(1, "redis-cli -h redis config get appendonly").unwrap();
    assert!(configuration.contains("yes"), "{configuration}");
}
