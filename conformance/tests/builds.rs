//! `docker build`: a corpus of small Dockerfiles, built by Docker's classic builder and by Skep from the same context. Exit codes,
//! what is said of faults, configurations, histories and every layer's files must agree.
//!
//! The corpus is `builds/*.Dockerfile`. Comments at a file's end are for the test: `# flags:` of the build, `# ignore:` lines of
//! `.dockerignore`, `# says:` what both must say.
#![expect(clippy::unwrap_used, reason = "a broken expectation should stop the test where it broke")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use skep_conformance::registry::Registry;
use skep_conformance::{Host, Output, eventually, finish};

/// A Dockerfile of the corpus.
struct Case {
    name: String,
    text: String,
}

impl Case {
    /// What the comments of a kind say.
    fn notes<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.text
            .lines()
            .filter_map(move |line| line.strip_prefix("# ")?.strip_prefix(kind)?.strip_prefix(": "))
    }
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("builds");
    let mut cases: Vec<Case> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: std::fs::read_to_string(&path).unwrap(),
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// The files that every build is given.
fn context(folder: &Path, case: &Case) {
    let write = |path: &str, content: &str, mode: u32| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    write("Dockerfile", &case.text, 0o644);
    write("a.txt", "a\n", 0o644);
    write("b.txt", "b\n", 0o664);
    write("with space.txt", "space\n", 0o644);
    write("run.sh", "#!/bin/sh\n", 0o755);
    write("setuid", "#!/bin/sh\n", 0o4755);
    write("secret", "s\n", 0o600);
    write("dir/x", "x\n", 0o644);
    write("dir/y", "y\n", 0o640);
    write("dir/sub/z", "z\n", 0o644);
    write("hard/one", "hard\n", 0o644);
    std::fs::hard_link(folder.join("hard/one"), folder.join("hard/two")).unwrap();
    std::fs::set_permissions(folder.join("dir/sub"), PermissionsExt::from_mode(0o710)).unwrap();
    symlink("a.txt", folder.join("link")).unwrap();
    symlink("dir", folder.join("dirlink")).unwrap();
    symlink("../a.txt", folder.join("dir/up")).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = std::process::Command::new("tar");
        command.current_dir(folder).args(["--owner=11", "--group=12", "--mtime=2020-01-01"]).args(arguments);
        finish(command, "tar", b"").ok();
    };
    tar(&["-cf", "archive.tar", "dir"]);
    tar(&["-czf", "archive.tar.gz", "dir", "a.txt"]);
    let ignored: String = case.notes("ignore").map(|line| format!("{line}\n")).collect();
    if !ignored.is_empty() {
        write(".dockerignore", &ignored, 0o644);
    }
}

fn build(host: &Host, folder: &Path, case: &Case) -> Output {
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").arg("build");
    command.args(case.notes("flags").flat_map(str::split_whitespace));
    command.arg("--tag").arg(&case.name).arg(folder);
    finish(command, &format!("docker build of {}", case.name), b"")
}

/// What a build made, as text that can be compared.
fn describe(host: &Host, case: &Case) -> String {
    let image = host.inspect_json(&case.name);
    let mut text = String::new();
    let config = &image["Config"];
    for field in [
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Healthcheck",
        "Labels",
        "OnBuild",
        "Shell",
        "StopSignal",
        "User",
        "Volumes",
        "WorkingDir",
    ] {
        let value = match &config[field] {
            Value::Object(map) => {
                let sorted: BTreeMap<_, _> = map.iter().collect();
                serde_json::to_string(&sorted).unwrap()
            }
            value => value.to_string(),
        };
        // Docker writes nothing in three ways.
        let value = if matches!(value.as_str(), "{}" | "[]" | "\"\"") { "null".to_owned() } else { value };
        writeln!(text, "{field}: {value}").unwrap();
    }
    writeln!(text, "Author: {}", image["Author"]).unwrap();
    let history = host.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", &case.name]).ok();
    for line in history.lines() {
        writeln!(text, "step: {}", without_hashes(line)).unwrap();
    }
    let ids = host.docker(&["history", "--format", "{{.ID}}", &case.name]).ok();
    writeln!(text, "steps that are no image here: {}", ids.matches("missing").count()).unwrap();
    for (number, layer) in layers(&image).iter().enumerate() {
        writeln!(text, "layer {number}:").unwrap();
        let mut lines = Vec::new();
        list(layer, Path::new(""), &mut lines);
        lines.sort();
        text.push_str(&lines.concat());
    }
    text
}

/// Digests of contents are of another kind in Docker, and 20.10 has a field less in its health checks.
fn without_hashes(line: &str) -> String {
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = line.split_inclusive([' ', ':']).map(|word| match is_hash(word.trim_end()) {
        true => "HASH ".to_owned(),
        false => word.to_owned(),
    });
    let line = words.collect::<String>();
    match line.split_once("HEALTHCHECK &{") {
        Some((before, _)) => format!("{before}HEALTHCHECK"),
        None => line,
    }
}

/// The folders of an image's layers, lowest first, without the base's.
fn layers(image: &Value) -> Vec<PathBuf> {
    let data = &image["GraphDriver"]["Data"];
    let mut paths: Vec<PathBuf> = Vec::new();
    paths.extend(
        data["LowerDir"]
            .as_str()
            .unwrap_or_default()
            .split(':')
            .rev()
            .filter(|it| !it.is_empty())
            .map(PathBuf::from),
    );
    paths.extend(data["UpperDir"].as_str().map(PathBuf::from));
    paths.retain(|path| path.file_name().is_some_and(|name| name != "empty"));
    paths
}

/// One line for each file: kind, mode, owner, size, links, age where it is old.
fn list(root: &Path, path: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(path)).unwrap() {
        let entry = entry.unwrap();
        let here = path.join(entry.file_name());
        let data = std::fs::symlink_metadata(root.join(&here)).unwrap();
        let kind = data.file_type();
        let mut line = format!("  {} {:o} {}:{}", here.display(), data.mode(), data.uid(), data.gid());
        if kind.is_char_device() {
            write!(line, " device {:x}", data.rdev()).unwrap();
        }
        if kind.is_file() {
            write!(line, " size {} names {}", data.size(), data.nlink()).unwrap();
            // What was copied keeps its time; what was made has the time of its making.
            if data.mtime() < 1_700_000_000 {
                write!(line, " of {}", data.mtime()).unwrap();
            }
        }
        if kind.is_symlink() {
            write!(line, " to {}", std::fs::read_link(root.join(&here)).unwrap().display()).unwrap();
        }
        let mut value = [0; 8];
        if rustix::fs::lgetxattr(root.join(&here), "trusted.overlay.opaque", &mut value[..]).is_ok() {
            line.push_str(" opaque");
        }
        lines.push(format!("{line}\n"));
        if kind.is_dir() {
            list(root, &here, lines);
        }
    }
}

/// What a build printed to a user, ids left out.
fn said(output: &Output) -> Vec<String> {
    let is_id = |word: &str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let lines = output.stdout.lines().filter(|line| {
        // Docker makes containers for what runs nothing; the context's size depends on the client.
        !line.contains("Running in")
            && !line.contains("intermediate container")
            && !line.starts_with("Sending build context")
    });
    let words = |line: &str| {
        line.split(' ').map(|word| if is_id(word) { "ID" } else { word }).collect::<Vec<_>>().join(" ")
    };
    lines.map(words).filter(|line| !line.trim().is_empty() && !line.starts_with("sha256:")).collect()
}

fn check(docker: &Host, skep: &Host, case: &Case) -> Result<(), String> {
    let folder = skep.folder().join(format!("context-{}", case.name));
    std::fs::create_dir(&folder).unwrap();
    context(&folder, case);
    let (of_docker, of_skep) = (build(docker, &folder, case), build(skep, &folder, case));
    if of_docker.code != of_skep.code {
        return Err(format!("{}\ndockerd: {of_docker:?}\nskep: {of_skep:?}", case.name));
    }
    for words in case.notes("says") {
        for (who, output) in [("dockerd", &of_docker), ("skep", &of_skep)] {
            if !output.stderr.contains(words) {
                return Err(format!("{}: {who} does not say {words:?} but {:?}", case.name, output.stderr));
            }
        }
    }
    if of_docker.code != 0 {
        return Ok(());
    }
    let pairs = [
        (said(&of_docker).join("\n"), said(&of_skep).join("\n")),
        (describe(docker, case), describe(skep, case)),
    ];
    for (docker, skep) in pairs {
        if docker != skep {
            let lost = docker.lines().filter(|line| !skep.contains(*line)).map(|line| format!("- {line}\n"));
            let new = skep.lines().filter(|line| !docker.contains(*line)).map(|line| format!("+ {line}\n"));
            return Err(format!("{}:\n{}", case.name, lost.chain(new).collect::<String>()));
        }
    }
    let again = build(skep, &folder, case);
    let cached = again.stdout.matches("Using cache").count();
    let fresh = again.stdout.matches("Running in").count();
    if again.code != 0 || (fresh, cached > 0) != (0, !case.text.contains("# flags: --quiet")) {
        return Err(format!("{}: nothing comes from the cache: {again:?}", case.name));
    }
    Ok(())
}

#[test]
fn the_corpus_is_built_as_by_docker() {
    let (docker, skep) = std::thread::scope(|scope| {
        let docker = scope.spawn(|| {
            let host = Host::of_dockerd();
            host.load_image("busybox");
            host
        });
        (docker.join().unwrap(), Host::with_busybox())
    });
    let only = std::env::var("SKEP_BUILD").unwrap_or_default();
    let cases = corpus().into_iter().filter(|case| case.name.contains(&only));
    let faults: Vec<String> = cases.filter_map(|case| check(&docker, &skep, &case).err()).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A folder with a Dockerfile and nothing else.
fn folder_with(host: &Host, name: &str, text: &str) -> PathBuf {
    let folder = host.folder().join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("Dockerfile"), text).unwrap();
    folder
}

fn build_here(host: &Host, folder: &Path, flags: &[&str]) -> Output {
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").arg("build").args(flags).arg(folder);
    finish(command, "docker build", b"")
}

#[test]
fn here_documents_and_modes_are_more_than_the_classic_builder_has() {
    let host = Host::with_busybox();
    let text = "FROM busybox\nARG WHO=bees\nRUN <<END\necho one >/one\necho $WHO >/two\nEND\nRUN cat <<A >/three\ndone\nA\n\
                COPY --chmod=640 <<x <<\"y\" /docs/\nfor $WHO\nx\nfor $WHO\ny\nCOPY --chmod=700 Dockerfile /file\n";
    let folder = folder_with(&host, "documents", text);
    build_here(&host, &folder, &["--tag", "made"]).ok();
    let script = "cat /one /two /three /docs/x /docs/y; stat -c %a /docs/x /file";
    let seen = host.docker(&["run", "--rm", "made", "sh", "-c", script]).ok();
    assert_eq!(seen, "one\nbees\ndone\nfor bees\nfor $WHO\n640\n700");
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN <<END\n#!/bin/sh\nEND\n").unwrap();
    build_here(&host, &folder, &[]).fails(1, "COPY the script");
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN --mount=type=cache true\n").unwrap();
    build_here(&host, &folder, &[]).fails(1, "the --mount option requires BuildKit");
}

#[test]
fn steps_are_images_that_go_with_what_was_built() {
    let host = Host::with_busybox();
    let folder =
        folder_with(&host, "steps", "FROM busybox\nRUN echo 1 >/1\nENV A=b\nCMD [\"cat\", \"/1\"]\n");
    let printed = build_here(&host, &folder, &["--tag", "made:1", "--tag", "made:2"]).ok();
    assert!(printed.ends_with("Successfully tagged made:1\nSuccessfully tagged made:2"), "{printed}");
    assert_eq!(host.docker(&["run", "--rm", "made:1"]).ok(), "1");
    let count = |flags: &[&str]| host.docker(&[&["images", "--quiet"], flags].concat()).ok().lines().count();
    assert_eq!((count(&[]), count(&["--all"])), (3, 5));
    let cached = build_here(&host, &folder, &["--tag", "again"]).ok();
    assert_eq!(cached.matches("Using cache").count(), 3, "{cached}");
    let fresh = build_here(&host, &folder, &["--no-cache", "--quiet"]).ok();
    assert!(fresh.starts_with("sha256:") && fresh.lines().count() == 1, "{fresh}");
    host.docker(&["rmi", "made:1", "made:2", "again"]).ok();
    assert_eq!(count(&["--all"]), 4, "the base and what has no name");
    let pruned = host.docker(&["builder", "prune", "--force"]).ok();
    assert!(pruned.contains("Total"), "{pruned}");
    assert_eq!(count(&["--all"]), 1);
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok(), "");
    assert_eq!(std::fs::read_dir(host.data_root().join("builds")).map_or(0, Iterator::count), 0);
}

#[test]
fn bases_come_from_registries_and_what_is_built_goes_there() {
    let host = Host::with_busybox();
    let registry = Registry::new(host.namespace(), host.folder(), "127.0.0.1:5000");
    let guard = Registry::guarded(host.namespace(), host.folder(), "127.0.0.1:5001", &registry);
    let (base, made) = (registry.name("base:1"), registry.name("made:1"));
    host.docker(&["tag", "busybox", &base]).ok();
    host.docker(&["push", &base]).ok();
    host.docker(&["rmi", "--force", "busybox", &base]).ok();
    let folder = folder_with(&host, "pulling", &format!("FROM {base}\nRUN echo built >/built\n"));
    let printed = build_here(&host, &folder, &["--tag", &made]).ok();
    assert!(printed.contains("1: Pulling from base"), "{printed}");
    assert!(printed.contains(&format!("Status: Downloaded newer image for {base}")), "{printed}");
    let again = build_here(&host, &folder, &["--pull", "--tag", &made]).ok();
    assert!(again.contains("Image is up to date") && again.contains("Using cache"), "{again}");
    host.docker(&["push", &made]).ok();
    let id = host.inspect(&made, "{{.Id}}");
    host.docker(&["rmi", "--force", &made, &base]).ok();
    host.docker(&["pull", &made]).ok();
    assert_eq!(host.inspect(&made, "{{.Id}}"), id);
    assert_eq!(host.docker(&["run", "--rm", &made, "cat", "/built"]).ok(), "built");

    let folder = folder_with(&host, "guarded", &format!("FROM {}\nCMD [\"x\"]\n", guard.name("base:1")));
    build_here(&host, &folder, &[]).fails(1, "no basic auth credentials");
    host.docker(&["login", "--username", "ann", "--password", "secret", guard.address()]).ok();
    build_here(&host, &folder, &[]).ok();
}

#[test]
fn a_failed_step_leaves_its_container() {
    let host = Host::with_busybox();
    let folder = folder_with(&host, "failing", "FROM busybox\nRUN echo seen; echo wrong >&2; exit 7\n");
    let failed = build_here(&host, &folder, &[]).fails(7, "returned a non-zero code: 7");
    assert!(failed.stdout.contains("seen\n") && failed.stdout.contains("wrong"), "{failed}");
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok().lines().count(), 1);
    build_here(&host, &folder, &["--force-rm"]).fails(7, "returned a non-zero code: 7");
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok().lines().count(), 1);
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN echo kept >/k\n").unwrap();
    build_here(&host, &folder, &["--rm=false"]).ok();
    assert_eq!(host.docker(&["ps", "--all", "--quiet"]).ok().lines().count(), 2);
}

#[test]
fn a_client_that_leaves_ends_its_build() {
    let host = Host::with_busybox();
    let folder = folder_with(&host, "long", "FROM busybox\nRUN echo begun; sleep 1000\n");
    let mut command = host.docker_command();
    command.env("DOCKER_BUILDKIT", "0").arg("build").arg(&folder);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let running = || host.docker(&["ps", "--quiet"]).ok().lines().count();
    until("the step runs", || running() == 1);
    skep_conformance::signal(child.id(), 2);
    child.wait().unwrap();
    until("the step was ended", || running() == 0);
    until("nothing is left of it", || {
        host.docker(&["ps", "--all", "--quiet"]).ok().is_empty()
            && std::fs::read_dir(host.data_root().join("builds")).map_or(0, Iterator::count) == 0
    });
}

#[test]
fn a_container_becomes_an_image() {
    let host = Host::with_busybox();
    let script = "echo mine >/mine; rm /etc/passwd; sleep 1000";
    host.docker(&["run", "--detach", "--name", "one", "--env", "A=b", "busybox", "sh", "-c", script]).ok();
    until("it wrote", || host.docker(&["exec", "one", "test", "!", "-e", "/etc/passwd"]).code == 0);
    let change = "CMD [\"cat\", \"/mine\"]";
    let arguments =
        ["commit", "--author", "Bee", "--message", "made by hand", "--change", change, "one", "made:1"];
    let id = host.docker(&arguments).ok();
    assert_eq!(host.inspect("made:1", "{{.Id}} {{.Author}} {{.Comment}}"), format!("{id} Bee made by hand"));
    assert_eq!(host.docker(&["run", "--rm", "made:1"]).ok(), "mine");
    let look = "[ -e /etc/passwd ] || echo gone; ls -A / | grep -c mine; echo $A";
    assert_eq!(host.docker(&["run", "--rm", "made:1", "sh", "-c", look]).ok(), "gone\n1\nb");
    assert_eq!(host.inspect("one", "{{.State.Running}}"), "true");
    host.docker(&["commit", "--change", "RUN x", "one"]).fails(1, "RUN is not a valid change command");
}

#[test]
fn what_only_buildkit_does_is_refused_with_a_hint() {
    let host = Host::with_busybox();
    let answer = host.api("POST", "/build?version=2", "").unwrap();
    assert_eq!(answer.status, 501);
    assert!(answer.body.contains("DOCKER_BUILDKIT=0"), "{}", answer.body);
    let folder = folder_with(&host, "refused", "FROM busybox\nADD git@127.0.0.1:x.git /x\n");
    build_here(&host, &folder, &[]).fails(1, "by git is not built yet");
    build_here(&host, &folder, &["--cache-from", "x"]).fails(1, "--cache-from");
}

/// A server of files in a host's network; it ends with the value.
struct Files(std::process::Child);

impl Files {
    fn serve(host: &Host, folder: &Path, port: u16) -> Files {
        let mut command = host.command("python3");
        command
            .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .arg(folder)
            .arg(port.to_string());
        let child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        until("the server listens", || {
            host.inside(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        Files(child)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_are_added_from_addresses_and_archives_whatever_their_compression() {
    let (docker, skep) = std::thread::scope(|scope| {
        let docker = scope.spawn(|| {
            let host = Host::of_dockerd();
            host.load_image("busybox");
            host
        });
        (docker.join().unwrap(), Host::with_busybox())
    });
    let seen = [&docker, &skep].map(|host| {
        let served = host.folder().join("served");
        let folder = folder_with(
            host,
            "adding",
            "FROM busybox\nARG AT=http://127.0.0.1:8000\nADD $AT/plain.txt /\nADD $AT/plain.txt?x=y /dir/\n\
             ADD $AT/plain.txt /renamed\nADD --chown=1:2 $AT/files.tar.gz /kept/\nADD files.tar.bz2 files.tar.xz /out/\n",
        );
        std::fs::create_dir(&served).unwrap();
        std::fs::write(served.join("plain.txt"), "some text").unwrap();
        let script = "touch -d 2020-02-03T04:05:06Z served/plain.txt; mkdir -p in/bz in/xz; echo b >in/bz/b; echo x >in/xz/x; \
                      tar -C in -cjf adding/files.tar.bz2 bz; tar -C in -cJf adding/files.tar.xz xz; tar -C in --mtime=@0 -cf - bz | gzip -n >served/files.tar.gz; \
                      touch -d 2020-02-03T04:05:06Z served/files.tar.gz";
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", script]).current_dir(host.folder());
        finish(command, "making archives", b"").ok();
        let server = Files::serve(host, &served, 8000);
        build_here(host, &folder, &["--tag", "added"]).ok();
        let script = "cd /; stat -c '%n %a %u %g %s %Y %F' plain.txt dir/plain.txt renamed kept/*; cat renamed out/*/*";
        let shown = host.docker(&["run", "--rm", "added", "sh", "-c", script]).ok();
        // The same content is found in the cache, another one is not.
        let again = build_here(host, &folder, &[]).ok().matches("Using cache").count();
        std::fs::write(served.join("plain.txt"), "other text").unwrap();
        let other = build_here(host, &folder, &[]).ok().matches("Using cache").count();
        std::fs::write(folder.join("Dockerfile"), "FROM busybox\nADD http://127.0.0.1:8000/missing /\n").unwrap();
        let missing = build_here(host, &folder, &[]).fails(1, "failed to GET http://127.0.0.1:8000/missing with status 404");
        std::fs::write(folder.join("Dockerfile"), "FROM busybox\nADD http://127.0.0.1:8000/ /dir/\n").unwrap();
        build_here(host, &folder, &[]).fails(1, "cannot determine filename for source http://127.0.0.1:8000/");
        drop(server);
        std::fs::write(folder.join("Dockerfile"), "FROM busybox\nADD http://127.0.0.1:8000/x /\n").unwrap();
        build_here(host, &folder, &[]).fails(1, "dial tcp 127.0.0.1:8000: connect: connection refused");
        (shown, again, other, missing.code)
    });
    assert_eq!(seen[0], seen[1]);
    assert!(seen[1].0.contains("plain.txt 600 0 0 9 1580702706 regular file"), "{}", seen[1].0);
    assert_eq!(std::fs::read_dir(skep.data_root().join("builds")).unwrap().count(), 0, "no build is left");
}

/// Waits for something, half a minute at most.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wanted = || if holds() { Ok(()) } else { Err("not yet".to_owned()) };
    eventually(what, std::time::Duration::from_secs(30), wanted);
}
