//! `skep plan` against what `docker stack deploy` of the same file then does.

#![expect(clippy::unwrap_used, reason = "a broken test should stop where it broke")]

use skep_conformance::{Host, Output, finish};

const STACK: &str = r#"
version: "3.8"
services:
  web:
    image: ${IMAGE:-busybox}
    command: sh -c "trap exit TERM; while :; do sleep 1; done"
    environment: {A: "1", B: x}
    labels: {one: "1"}
    ports: ["8080:80"]
    volumes: ["data:/data"]
    networks: {front: {aliases: [w]}}
    stop_grace_period: 1s
    healthcheck: {test: "true", interval: 5s}
    deploy:
      replicas: 2
      labels: {tier: front}
      update_config: {parallelism: 2, delay: 1s, monitor: 1s}
      resources: {limits: {cpus: "0.5", memory: 64M}}
      restart_policy: {condition: on-failure, max_attempts: 3}
      placement: {constraints: [node.role==manager]}
  plain:
    image: busybox
    command: [sleep, "1000"]
    stop_grace_period: 1s
networks:
  front: {driver_opts: {com.docker.network.driver.mtu: "1400"}}
volumes:
  data: {labels: {keep: "yes"}}
"#;

fn write(host: &Host, text: &str) -> String {
    let path = host.folder().join("shop.yml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn plan(host: &Host, arguments: &[&str]) -> Output {
    let socket = format!("unix://{}", host.socket().display());
    let mut command = host.command(skep_conformance::binary());
    command.args(["plan", "--host", &socket]).args(arguments);
    finish(command, &format!("skep plan {}", arguments.join(" ")), b"")
}

fn deploy(host: &Host, file: &str, more: &[&str]) {
    let deploy =
        ["stack", "deploy", "--detach=true", "--resolve-image", "never", "--compose-file", file, "shop"];
    host.docker(&[&deploy, more].concat()).ok();
}

#[track_caller]
fn says(output: Output, code: i32, expected: &[&str]) {
    assert_eq!(output.code, code, "{output}");
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), expected, "{}", output.stderr);
}

const UNCHANGED: [&str; 5] = [
    "network shop_default: unchanged",
    "network shop_front: unchanged",
    "service shop_plain: unchanged",
    "service shop_web: unchanged",
    "0 to create, 0 to update, 0 to remove, 4 unchanged",
];

#[test]
fn what_is_planned_is_what_a_deployment_does() {
    let host = Host::with_busybox();
    let file = write(&host, STACK);
    plan(&host, &[&file]).fails(1, "this node is not a swarm manager");
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    let made = [
        "network shop_default: create",
        "network shop_front: create",
        "service shop_plain: create",
        "service shop_web: create",
        "4 to create, 0 to update, 0 to remove, 0 unchanged",
    ];
    says(plan(&host, &[&file]), 2, &made);
    // Only told: nothing came of it.
    says(plan(&host, &[&file]), 2, &made);
    deploy(&host, &file, &[]);
    says(plan(&host, &[&file]), 0, &UNCHANGED);
    says(plan(&host, &["--prune", &file, "shop"]), 0, &UNCHANGED);

    // Fields that leave tasks alone, and one that was changed by hand.
    host.docker(&["service", "update", "--detach", "--replicas", "1", "--force", "shop_plain"]).ok();
    let scaled = STACK.replace("replicas: 2", "replicas: 3").replace("tier: front", "tier: back");
    let file = write(&host, &scaled);
    says(
        plan(&host, &[&file]),
        2,
        &[
            "network shop_default: unchanged",
            "network shop_front: unchanged",
            "service shop_plain: unchanged",
            "service shop_web: update, restarts no task",
            r#"  deploy.labels.tier: "front" -> "back""#,
            "  deploy.replicas: 2 -> 3",
            "0 to create, 1 to update, 0 to remove, 3 unchanged",
        ],
    );
    deploy(&host, &file, &[]);
    says(plan(&host, &[&file]), 0, &UNCHANGED);

    // Fields that do not; a service less and a network more.
    let (before, after) = scaled.split_once("  plain:").unwrap();
    let after = after.split_once("networks:").unwrap().1;
    let changed = format!("{before}networks:{after}")
        .replace("B: x", "C: y")
        .replace("memory: 64M", "memory: 96M")
        .replace("networks: {front: {aliases: [w]}}", "networks: [back, front]")
        .replace("  front: {", "  back:\n  front: {");
    let file = write(&host, &changed);
    let tasks = |name: &str| {
        let tasks =
            host.docker(&["service", "ps", "--filter", "desired-state=running", "--quiet", name]).ok();
        tasks.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let running = tasks("shop_web");
    let expected = [
        "service shop_plain: remove, with 1 tasks",
        "network shop_back: create",
        "network shop_front: unchanged",
        "service shop_web: update, restarts 3 of 3 tasks",
        "  deploy.resources.limits.memory: 64MiB -> 96MiB  (restarts tasks)",
        r#"  environment.B: "x" -> (none)  (restarts tasks)"#,
        r#"  environment.C: (none) -> "y"  (restarts tasks)"#,
        r#"  networks.shop_back: (none) -> {"Aliases":["web"]}  (restarts tasks)"#,
        r#"  networks.shop_front: {"Aliases":["w","web"]} -> {"Aliases":["web"]}  (restarts tasks)"#,
        "1 to create, 1 to update, 1 to remove, 1 unchanged",
    ];
    says(plan(&host, &["--prune", &file]), 2, &expected);
    assert_eq!(tasks("shop_web"), running);
    deploy(&host, &file, &["--prune"]);
    says(
        plan(&host, &["--prune", &file]),
        0,
        &[
            "network shop_back: unchanged",
            "network shop_front: unchanged",
            "service shop_web: unchanged",
            "0 to create, 0 to update, 0 to remove, 3 unchanged",
        ],
    );
}

#[test]
fn what_a_deployment_would_be_refused_is_told() {
    let host = Host::with_busybox();
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    host.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "other",
        "-p",
        "8080:80",
        "--no-resolve-image",
        "busybox",
    ])
    .ok();
    let file = write(
        &host,
        "services: {web: {image: busybox, ports: ['8080:80']}, bad: {image: busybox, networks: [out]}}\n\
                             networks: {out: {external: true, name: gone}}\nsecrets: {key: {file: ./key}}\n",
    );
    let output = plan(&host, &[&file]).fails(1, "");
    for expected in [
        "network gone: refused: declared as external, but could not be found.",
        "secret shop_key: refused: ",
        "service shop_web: refused: port '8080' is already in use by service 'other'",
        "service shop_bad: refused: network gone not found",
        "1 to create, 0 to update, 0 to remove, 0 unchanged, 4 refused",
    ] {
        assert!(output.stdout.contains(expected), "{expected}: {}", output.stdout);
    }
    plan(&host, &[&write(&host, "services:\n  web:\n    image: a\n    imagee: b\n")])
        .fails(1, "shop.yml:4:5: services.web Additional property imagee is not allowed");
    plan(&host, &["/nowhere.yml"]).fails(1, "cannot read /nowhere.yml");
    // Not the code that says that something would change.
    plan(&host, &[&file, "shop", "more"]).fails(1, "unexpected argument");
}
