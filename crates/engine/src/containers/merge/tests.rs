#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use skep_types::port::{ContainerPort, PortBinding, Protocol};

use super::*;

fn words(text: &str) -> Option<Vec<String>> {
    Some(text.split_whitespace().map(str::to_owned).collect())
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Entrypoint and command after the merge, in one line.
fn merged(entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>) -> Result<String, String> {
    let image = ImageConfig { entrypoint: words("entry a"), cmd: words("cmd b"), ..ImageConfig::default() };
    let config = ContainerConfig { entrypoint, cmd, ..ContainerConfig::default() };
    let config = merge(config, &image).map_err(|error| error.message)?;
    let parts: Vec<String> = [config.entrypoint, config.cmd].into_iter().flatten().flatten().collect();
    Ok(parts.join(" "))
}

#[test]
fn entrypoint_and_command_follow_docker_s_rules() {
    assert_eq!(merged(None, None).unwrap(), "entry a cmd b");
    assert_eq!(merged(None, words("mine")).unwrap(), "entry a mine");
    assert_eq!(merged(words("own"), None).unwrap(), "own");
    assert_eq!(merged(words("own"), words("mine")).unwrap(), "own mine");
    assert_eq!(merged(Some(strings([""])), words("mine")).unwrap(), "mine");
    assert_eq!(merged(Some(strings([""])), None), Err("no command specified".to_owned()));
    let nothing = merge(ContainerConfig::default(), &ImageConfig::default());
    assert_eq!(nothing.unwrap_err(), Error::invalid("no command specified"));
}

#[test]
fn the_client_s_settings_win() {
    let image = ImageConfig {
        cmd: words("sh"),
        env: strings(["A=image", "B=image"]),
        user: "nobody".to_owned(),
        working_dir: "/srv".to_owned(),
        labels: [("l".to_owned(), "image".to_owned()), ("m".to_owned(), "image".to_owned())].into(),
        exposed_ports: ["80/tcp".to_owned(), "53/udp".to_owned(), "7/sctp".to_owned()].into(),
        ..ImageConfig::default()
    };
    let port = |port, protocol| ContainerPort { port, protocol };
    let mut asked = ContainerConfig {
        env: strings(["A=mine"]),
        user: "root".to_owned(),
        labels: [("l".to_owned(), "mine".to_owned())].into(),
        ..ContainerConfig::default()
    };
    asked.host.ports = vec![PortBinding { container: port(9, Protocol::Tcp), host_ip: None, host_port: 0 }];
    let config = merge(asked, &image).unwrap();
    assert_eq!(config.env, ["A=mine", "B=image"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("root", "/srv"));
    assert_eq!((config.labels["l"].as_str(), config.labels["m"].as_str()), ("mine", "image"));
    let ports = [port(9, Protocol::Tcp), port(53, Protocol::Udp), port(80, Protocol::Tcp)];
    assert_eq!(config.exposed_ports, ports.into());
}

#[test]
fn a_variable_s_name_alone_removes_it() {
    let config =
        ContainerConfig { tty: true, env: strings(["A=1", "HOSTNAME", "TERM=dumb"]), ..Default::default() };
    assert_eq!(environment(&config, "host"), [DEFAULT_PATH, "TERM=dumb", "A=1"]);
}

#[test]
fn nonsense_is_refused() {
    let refused = |change: &dyn Fn(&mut ContainerConfig)| {
        let mut config = ContainerConfig::default();
        change(&mut config);
        check(&config, 2).unwrap_err().message
    };
    assert_eq!(
        refused(&|config| config.working_dir = "srv".to_owned()),
        "the working directory 'srv' is invalid, it needs to be an absolute path"
    );
    assert_eq!(refused(&|config| config.env = strings(["=x"])), "invalid environment variable: =x");
    assert_eq!(refused(&|config| config.stop_signal = "NOPE".to_owned()), "invalid signal: NOPE");
    assert_eq!(refused(&|config| config.host.resources.memory = 1), "Minimum memory limit allowed is 6MB");
    assert_eq!(
        refused(&|config| config.host.resources.nano_cpus = 3_000_000_000),
        "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
    );
    assert_eq!(check(&ContainerConfig::default(), 2), Ok(()));
}

fn volume(name: &str, target: &str) -> Mount {
    let source = MountSource::Volume { name: name.to_owned(), no_copy: false, labels: Default::default() };
    Mount { target: target.into(), source, read_only: false }
}

fn bind(path: &str, target: &str, create_missing: bool) -> Mount {
    let source = MountSource::Bind { path: path.into(), create_missing, propagation: None };
    Mount { target: target.into(), source, read_only: false }
}

#[test]
fn mounts_are_ordered_and_the_image_s_volumes_fill_the_gaps() {
    let image = ["/data".to_owned(), "/cache/".to_owned()].into();
    let mounts = mounts(&[volume("vol", "/data/./x/.."), bind("/tmp", "/cache/in", false)], &image, &|| {
        "drawn".to_owned()
    });
    let mounts = mounts.unwrap();
    let targets: Vec<_> = mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/cache", "/cache/in", "/data"]);
    let anonymous = MountedFrom::Volume {
        name: "drawn".to_owned(),
        anonymous: true,
        no_copy: false,
        labels: BTreeMap::new(),
    };
    assert_eq!(mounts[0].source, anonymous);
    assert!(matches!(&mounts[2].source, MountedFrom::Volume { name, .. } if name == "vol"));
}

#[test]
fn impossible_mounts_are_refused_in_docker_s_words() {
    let refused =
        |asked: &[Mount]| mounts(asked, &BTreeSet::new(), &|| "drawn".to_owned()).unwrap_err().message;
    assert_eq!(
        refused(&[bind("/does/not/exist", "/x", false)]),
        "invalid mount config for type \"bind\": bind source path does not exist: /does/not/exist"
    );
    assert_eq!(
        refused(&[volume("vol", "x")]),
        "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute"
    );
    assert_eq!(
        refused(&[volume("vol", "/a/..")]),
        "invalid mount config for type \"volume\": invalid specification: destination can't be '/'"
    );
    assert_eq!(refused(&[volume("vol", "/x"), volume("wol", "/x/")]), "Duplicate mount point: /x");
    assert!(mounts(&[bind("/does/not/exist", "/x", true)], &BTreeSet::new(), &|| String::new()).is_ok());
}

#[test]
fn texts_that_no_kernel_or_file_takes_are_refused() {
    let refused = |config: ContainerConfig| check(&config, 1).unwrap_err().message;
    let hostname = ContainerConfig { hostname: "a\n10.0.0.1 b".to_owned(), ..ContainerConfig::default() };
    assert!(refused(hostname).starts_with("invalid hostname"));
    let user = ContainerConfig { user: "0\0".to_owned(), ..ContainerConfig::default() };
    assert!(refused(user).starts_with("invalid user"));
    let env = ContainerConfig { env: strings(["A=\0"]), ..ContainerConfig::default() };
    assert!(refused(env).starts_with("invalid environment variable"));
    let lines = ContainerConfig { env: strings(["A=one\ntwo"]), ..ContainerConfig::default() };
    assert_eq!(check(&lines, 1), Ok(()));
}
