//! W2, step 5: a service without a published port, whose image says how its health is probed.

use skep_conformance::{Lab, eventually};

use crate::SOON;

#[test]
fn w2_a_service_is_healthy_first_and_reached_by_name_alone() {
    let lab = Lab::up(1, 0, &["simple_server", "quotes_service"]);
    lab.docker(1, &["network", "create", "--driver", "overlay", "my_network"]).ok();
    let create = ["service", "create", "--detach", "--replicas=1", "--network=my_network"];
    let account = ["--name=accountservice", "-p=6767:8000", "simple_server"];
    lab.docker(1, &[&create[..], &account].concat()).ok();
    lab.docker(1, &[&create[..], &["--name=quotes-service", "quotes_service"]].concat()).ok();

    let of = |service: &str| format!("label=com.docker.swarm.service.name={service}");
    let status = ["ps", "--format", "{{.Status}}", "--filter", &of("quotes-service")];
    let begun = lab.until(1, "it is starting", SOON, &status, |shown| shown.ends_with("(health: starting)"));
    assert!(begun.starts_with("Up "), "{begun}");
    // Until it is healthy nobody is sent to it.
    let replicas = ["service", "ls", "--filter", "name=quotes-service", "--format", "{{.Replicas}}"];
    assert_eq!(lab.docker(1, &replicas).ok(), "0/1");
    lab.until(1, "it is healthy", SOON, &status, |shown| shown.ends_with("(healthy)"));
    lab.until_replicas(1, "quotes-service", "1/1", SOON);

    lab.until_replicas(1, "accountservice", "1/1", SOON);
    let id = lab.docker(1, &["ps", "--quiet", "--filter", &of("accountservice")]).ok();
    let ask =
        "from urllib.request import urlopen; print(urlopen('http://quotes-service:8080', timeout=5).read())";
    eventually("its name leads to it", SOON, || {
        let answer = lab.docker(1, &["exec", &id, "python3.11", "-c", ask]);
        if answer.code == 0 && answer.stdout.contains("Less is more") {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    });
    lab.fetch(1, 6767).unwrap();
    let outside = lab.fetch(1, 8080).unwrap_err();
    assert!(outside.contains("connecting"), "{outside}");
}
