//! The HTTP API itself: unknown paths, what is not built yet, shapes of errors and of streams.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::io::{Read, Write};

use serde_json::Value;
use skep_conformance::Host;

fn message(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {body}"));
    body["message"].as_str().unwrap_or_else(|| panic!("no message: {body}")).to_owned()
}

#[test]
fn unknown_paths_and_methods_are_not_found() {
    let host = Host::new();
    for path in ["/honey", "/v1.50/honey", "/containers", "/v1.50", "/vx/info"] {
        let answer = host.api_get(path).unwrap();
        assert_eq!((answer.status, message(&answer.body).as_str()), (404, "page not found"), "{path}");
    }
    let answer = host.api("PATCH", "/containers/json", "").unwrap();
    assert!(matches!(answer.status, 404 | 405), "{answer:?}");
}

#[test]
fn every_path_of_the_api_is_known() {
    let host = Host::new();
    let paths = [
        ("GET", "/system/df"),
        ("POST", "/auth"),
        ("GET", "/distribution/x/json"),
        ("GET", "/plugins"),
        ("POST", "/containers/x/pause"),
        ("POST", "/containers/x/unpause"),
        ("POST", "/containers/x/rename?name=y"),
        ("POST", "/containers/x/update"),
        ("POST", "/containers/prune"),
        ("GET", "/containers/x/stats?stream=0"),
        ("GET", "/containers/x/top"),
        ("GET", "/containers/x/changes"),
        ("GET", "/containers/x/export"),
        ("GET", "/containers/x/archive?path=/"),
        ("HEAD", "/containers/x/archive?path=/"),
        ("PUT", "/containers/x/archive?path=/"),
        ("POST", "/images/create?fromImage=x&tag=y"),
        ("POST", "/images/x/push"),
        ("POST", "/images/prune"),
        ("GET", "/images/search?term=x"),
        ("GET", "/images/get?names=x"),
        ("GET", "/images/x/get"),
        ("POST", "/commit?container=x"),
        ("POST", "/build"),
        ("POST", "/build/prune"),
        ("POST", "/networks/create"),
        ("POST", "/networks/x/connect"),
        ("POST", "/networks/x/disconnect"),
        ("DELETE", "/networks/x"),
        ("POST", "/networks/prune"),
        ("POST", "/volumes/prune"),
        ("PUT", "/volumes/x?version=1"),
        ("GET", "/secrets"),
        ("POST", "/secrets/create"),
        ("GET", "/configs"),
        ("POST", "/configs/create"),
        ("GET", "/swarm"),
        ("POST", "/swarm/join"),
        ("POST", "/swarm/unlock"),
        ("GET", "/swarm/unlockkey"),
        ("GET", "/nodes"),
        ("GET", "/services"),
        ("GET", "/tasks"),
        ("GET", "/services/x/logs"),
        ("GET", "/tasks/x/logs"),
    ];
    for (method, path) in paths {
        let answer = host.api(method, path, "{}").unwrap();
        assert!(
            answer.status != 405 && !answer.body.contains("page not found"),
            "{method} {path}: {answer:?}"
        );
        // No registry can be reached from here, which is no fault of the request.
        let is_unreachable = answer.body.contains("dial tcp");
        assert!(answer.status != 500 || is_unreachable, "{method} {path}: {answer:?}");
        if answer.status == 501 && method != "HEAD" {
            let message = message(&answer.body).to_lowercase();
            let words = path.split(['/', '?', '=', '&']).filter(|word| word.len() > 2);
            let named = words.map(|word| word.trim_end_matches('s')).any(|word| message.contains(word));
            assert!(named, "{method} {path} names itself: {message}");
        }
    }
}

#[test]
fn errors_are_json_with_the_right_status() {
    let host = Host::with_busybox();
    host.docker(&["create", "--name", "bee", "busybox"]).ok();
    for (method, path, body, status, said) in [
        ("GET", "/containers/none/json", "", 404, "No such container: none"),
        ("POST", "/containers/none/start", "", 404, "No such container: none"),
        ("DELETE", "/containers/none", "", 404, "No such container: none"),
        ("GET", "/images/none/json", "", 404, "No such image: none:latest"),
        ("DELETE", "/images/none", "", 404, "No such image: none:latest"),
        ("GET", "/volumes/none", "", 404, "get none: no such volume"),
        ("GET", "/networks/absent", "", 404, "network absent not found"),
        ("GET", "/exec/none/json", "", 404, "No such exec instance: none"),
        ("POST", "/containers/create", "{\"Image\":\"none\"}", 404, "No such image: none:latest"),
        (
            "POST",
            "/containers/create?name=bee",
            "{\"Image\":\"busybox\"}",
            409,
            "Conflict. The container name \"/bee\" is already in use",
        ),
        ("POST", "/containers/create?name=-x", "{\"Image\":\"busybox\"}", 400, "Invalid container name (-x)"),
        ("POST", "/containers/bee/kill", "", 409, "is not running"),
        ("POST", "/containers/bee/kill?signal=BUZZ", "", 400, "nvalid signal: BUZZ"),
        ("POST", "/containers/bee/exec", "{\"Cmd\":[\"true\"]}", 409, "is not running"),
        ("POST", "/containers/bee/exec", "{\"Cmd\":[]}", 400, "No exec command specified"),
        (
            "GET",
            "/services",
            "",
            503,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\"",
        ),
    ] {
        let answer = host.api(method, path, body).unwrap();
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(message(&answer.body).contains(said), "{method} {path}: {answer:?}");
        let head = answer.head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/json"), "{method} {path}: {head}");
        assert!(head.contains("api-version: 1.50"), "{method} {path}: {head}");
    }
}

#[test]
fn output_streams_are_multiplexed_in_frames() {
    let host = Host::with_busybox();
    host.run_detached("said", &[], "echo out; sleep 0.1; echo err >&2");
    host.docker(&["wait", "said"]).ok();
    let mut stream = host.api_connect().unwrap();
    stream.write_all(b"GET /containers/said/logs?stdout=1&stderr=1 HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    assert!(head.contains("content-type: application/vnd.docker.multiplexed-stream"), "{head}");
    assert_eq!(&answer[end + 4..], b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n");
}

#[test]
fn wait_answers_its_head_at_once() {
    let host = Host::with_busybox();
    host.run_detached("slow", &[], "while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; exit 5");
    let mut stream = host.api_connect().unwrap();
    stream.write_all(b"POST /containers/slow/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
    // The head comes while the container still runs.
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    host.docker(&["exec", "slow", "touch", "/go"]).ok();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"StatusCode\":5"), "{rest}");
}

#[test]
fn an_exec_is_inspected_while_and_after_it_runs() {
    let host = Host::with_busybox();
    let id = host.run_detached("body", &[], "while :; do sleep 0.05; done");
    let body = "{\"Cmd\":[\"sh\",\"-c\",\"while [ ! -e /go ]; do sleep 0.05; done; sleep 0.3; exit 6\"],\"AttachStdout\":true}";
    let answer = host.api("POST", "/containers/body/exec", body).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    let exec = serde_json::from_str::<Value>(&answer.body).unwrap()["Id"].as_str().unwrap().to_owned();
    let look =
        || serde_json::from_str::<Value>(&host.api_get(&format!("/exec/{exec}/json")).unwrap().body).unwrap();
    assert_eq!(
        (&look()["Running"], &look()["ExitCode"], &look()["ContainerID"]),
        (&false.into(), &Value::Null, &id.clone().into())
    );
    let answer = host.api("POST", &format!("/exec/{exec}/start"), "{\"Detach\":true}").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((&look()["Running"], &look()["ProcessConfig"]["entrypoint"]), (&true.into(), &"sh".into()));
    assert!(look()["Pid"].as_u64().unwrap() > 1);
    host.docker(&["exec", "body", "touch", "/go"]).ok();
    skep_conformance::eventually("the exec ends", std::time::Duration::from_secs(10), || {
        let seen = look();
        if seen["Running"] == false && seen["ExitCode"] == 6 { Ok(()) } else { Err(seen.to_string()) }
    });
    let again = host.api("POST", &format!("/exec/{exec}/start"), "{\"Detach\":true}").unwrap();
    assert_eq!(again.status, 409, "{again:?}");
}

/// Python's clients index by these names.
#[test]
fn what_nobody_set_is_null_rather_than_missing() {
    let host = Host::with_busybox();
    host.docker(&["create", "--name", "bare", "busybox", "true"]).ok();
    let answer = host.api_get("/containers/bare/json").unwrap();
    let shown: Value = serde_json::from_str(&answer.body).unwrap();
    for path in [
        "/ExecIDs",
        "/Config/Entrypoint",
        "/Config/OnBuild",
        "/HostConfig/Binds",
        "/HostConfig/Ulimits",
        "/NetworkSettings/SecondaryIPAddresses",
        "/NetworkSettings/Networks/bridge/Aliases",
    ] {
        assert_eq!(shown.pointer(path), Some(&Value::Null), "{path}");
    }
    let answer = host.api_get("/containers/json?all=1").unwrap();
    let listed: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(listed.pointer("/0/NetworkSettings/Networks/bridge/Links"), Some(&Value::Null));
}

#[test]
fn a_swarm_names_its_services_and_knows_its_certificates() {
    let host = Host::with_busybox();
    host.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    let listed = host.docker(&["node", "ls", "--format", "{{.TLSStatus}}"]).ok();
    assert_eq!(listed.trim(), "Ready");
    host.docker(&["service", "create", "--detach", "--quiet", "--replicas", "0", "busybox", "true"]).ok();
    let names = host.docker(&["service", "ls", "--format", "{{.Name}}"]).ok();
    assert!(names.trim().contains('_'), "a drawn name: {names}");

    let second = host.api("POST", "/swarm/join", "{}").unwrap();
    assert_eq!(second.status, 503, "{second:?}");
    assert!(message(&second.body).starts_with("This node is already part of a swarm."), "{second:?}");
    let tasks = host.api_get("/tasks?filters=%7B%22service%22:%5B%22nobody%22%5D%7D").unwrap();
    assert_eq!((tasks.status, message(&tasks.body).as_str()), (404, "service nobody not found"));
}
