//! The process dies; the store goes on from where it was, or from where it was going.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{child, unused};
use crate::testing::{check_store, docker_archive, load, memory_folder, simple_layer};
use crate::{Prune, Store, testing::gzip};

fn root() -> PathBuf {
    std::env::var_os("SKEP_STORE").unwrap().into()
}

fn before() -> Vec<u8> {
    docker_archive(&["x:1"], &[simple_layer("a"), simple_layer("b")])
}

fn after() -> Vec<u8> {
    gzip(&docker_archive(&["x:1", "y:1"], &[simple_layer("a"), simple_layer("c"), simple_layer("d")]))
}

/// Loads an image that takes the name of one that is there, then removes one of its names, and all that is left.
#[test]
#[ignore = "run as a process of its own by another test"]
fn change_the_store() {
    let store = Store::open(&root()).unwrap();
    load(&store, &after()).unwrap();
    println!("loaded");
    store.remove("x:1", true, &unused).unwrap();
    let images = store.list().unwrap().iter().map(|image| image.id).collect();
    store.prune(&images, Prune::Unused, &unused).unwrap();
    println!("removed");
}

/// The names that the store knows after a crash.
fn names(root: &Path) -> Vec<String> {
    let store = Store::open(root).unwrap();
    assert!(store.repairs().is_empty(), "{:?}", store.repairs());
    check_store(&store, root);
    let mut names: Vec<String> = store.list().unwrap().into_iter().flat_map(|image| image.tags).collect();
    names.sort();
    names
}

#[test]
fn death_between_any_two_steps_leaves_the_store_before_or_after() {
    let mut outcomes = Vec::new();
    for fault in 0.. {
        let folder = memory_folder();
        let root = folder.path().join("images");
        load(&Store::open(&root).unwrap(), &before()).unwrap();
        let number = fault.to_string();
        let variables = [("SKEP_STORE", root.to_str().unwrap()), ("SKEP_FAULT", &number)];
        let output = child(&[], "store::tests::crash::change_the_store", &variables).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = names(&root);
        match (said.contains("loaded"), said.contains("removed")) {
            // What was acknowledged is there.
            (true, true) => assert_eq!(names, [""; 0]),
            (true, false) => assert_ne!(names, ["x:1", "x:1"]),
            (false, _) => assert!(names == ["x:1"] || names == ["x:1", "y:1"], "{fault}: {names:?}"),
        }
        outcomes.push(names);
        if output.status.success() {
            break;
        }
    }
    // The crashes were where they should be: before the commit, after it, in the removals.
    outcomes.dedup();
    let expected: [&[&str]; 4] = [&["x:1"], &["x:1", "y:1"], &["y:1"], &[]];
    assert_eq!(outcomes, expected);
}

/// Loads and removes without end, and says when something is done.
#[test]
#[ignore = "run as a process of its own by another test"]
fn change_the_store_for_ever() {
    let store = Store::open(&root()).unwrap();
    for number in 0.. {
        let name = format!("n:{number}");
        let layers: Vec<Vec<u8>> =
            (0..5).map(|layer| simple_layer(&format!("{}-{layer}", number % 7))).collect();
        load(&store, &docker_archive(&[&name], &layers)).unwrap();
        println!("\nloaded {number}");
        if number % 3 == 2 {
            store.remove(&format!("n:{}", number - 1), false, &unused).unwrap();
            println!("\nremoved {}", number - 1);
        }
    }
}

#[test]
fn death_at_any_moment_loses_nothing_that_was_acknowledged() {
    for round in 0..12u64 {
        let folder = memory_folder();
        let root = folder.path().join("images");
        let variables = [("SKEP_STORE", root.to_str().unwrap())];
        let mut process = child(&[], "store::tests::crash::change_the_store_for_ever", &variables)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Moments spread over several operations, each round another one.
        let deadline = Duration::from_micros(37_000 + round * 7_919);
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut started = None;
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if line.starts_with("loaded") || line.starts_with("removed") {
                said.push(line);
                let started = started.get_or_insert_with(Instant::now);
                if started.elapsed() > deadline {
                    break;
                }
            }
        }
        assert!(started.is_some(), "it ended before it did anything");
        process.kill().unwrap();
        process.wait().unwrap();
        said.extend(lines.map_while(Result::ok));
        let names = names(&root);
        let number =
            |line: &str, verb: &str| line.strip_prefix(verb).map(|number| format!("n:{}", number.trim()));
        let removed: Vec<String> = said.iter().filter_map(|line| number(line, "removed")).collect();
        let loaded: Vec<String> = said.iter().filter_map(|line| number(line, "loaded")).collect();
        assert!(removed.iter().all(|name| !names.contains(name)), "{said:?} {names:?}");
        // The last removal may have happened without being told.
        let lost = loaded.iter().filter(|name| !removed.contains(name) && !names.contains(name)).count();
        assert!(lost <= 1, "{said:?} {names:?}");
    }
}
