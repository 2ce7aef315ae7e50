//! The floors of ARCHITECTURE.md: imports only go down, and siblings on floor 1 never import each other.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Which floor each room stands on. A room that is not named here is a fault, so that a new one is placed
/// on purpose.
const FLOORS: &[(&str, u8)] = &[
    ("skep-types", 0),
    ("skep-cluster", 0),
    ("skep-agent", 0),
    ("skep-compose", 0),
    ("skep-dockerfile", 0),
    ("skep-consensus", 1),
    ("skep-identity", 1),
    ("skep-images", 1),
    ("skep-registry", 1),
    ("skep-runtime", 1),
    ("skep-network", 1),
    ("skep-names", 1),
    ("skep-tunnel", 1),
    ("skep-engine", 2),
    ("skep-swarm", 2),
    ("skep-api", 3),
    ("skep", 4),
];

/// Stand beside the house and may use any room; no room may use them.
const BESIDE: &[&str] = &["skep-sim", "skep-conformance", "skep-testkit", "xtask"];

/// What the tests of a room may import of those.
const FOR_TESTS: &str = "skep-testkit";

/// Arrows between rooms of one floor that the architecture draws.
const SIDEWAYS: &[(&str, &str)] = &[
    ("skep-cluster", "skep-types"),
    ("skep-agent", "skep-types"),
    // The node's actors carry out on this machine what the managers decide.
    ("skep-swarm", "skep-engine"),
];

/// What floor 0 may never depend on: it decides, and touches nothing.
const BANNED_ON_FLOOR_0: &[&str] = &[
    "tokio",
    "rustix",
    "libc",
    "nix",
    "rand",
    "getrandom",
    "hyper",
    "axum",
    "tracing",
    "chrono",
    "tempfile",
];

/// A package of the workspace and what it imports.
#[derive(Deserialize)]
pub struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build` or absent.
    kind: Option<String>,
}

/// Asks cargo for the workspace's packages.
pub fn read_workspace() -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    Ok(metadata.packages)
}

/// Every arrow that should not be there.
pub fn check(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        if BESIDE.contains(&package.name.as_str()) {
            continue;
        }
        let Some(floor) = floor_of(&package.name) else {
            faults.push(format!("{} stands on no floor: place it in xtask/src/floors.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            faults.extend(check_arrow(&package.name, floor, dependency));
        }
    }
    faults
}

fn check_arrow(from: &str, floor: u8, to: &Dependency) -> Option<String> {
    let is_test = to.kind.as_deref() == Some("dev");
    if floor == 0 && !is_test && BANNED_ON_FLOOR_0.contains(&to.name.as_str()) {
        return Some(format!("{from} is on floor 0 and must stay pure, but imports {}", to.name));
    }
    if is_test && to.name == FOR_TESTS {
        return None;
    }
    if BESIDE.contains(&to.name.as_str()) {
        return Some(format!("{from} imports {}, which stands beside the house", to.name));
    }
    let below = floor_of(&to.name)?;
    let sideways = below == floor && !SIDEWAYS.contains(&(from, to.name.as_str()));
    if below > floor {
        Some(format!("{from} (floor {floor}) imports {} (floor {below}): imports only go down", to.name))
    } else if sideways {
        Some(format!("{from} imports its sibling {} on floor {floor}", to.name))
    } else {
        None
    }
}

fn floor_of(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(room, _)| *room == name).map(|(_, floor)| *floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, imports: &[&str]) -> Package {
        let dependencies =
            imports.iter().map(|name| Dependency { name: (*name).to_owned(), kind: None }).collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn arrows_that_go_down_are_fine() {
        let packages = [
            package("skep-engine", &["skep-images", "skep-types", "tokio"]),
            package("skep-swarm", &["skep-engine", "skep-cluster"]),
            package("skep-sim", &["skep-cluster"]),
        ];
        assert_eq!(check(&packages), Vec::<String>::new());
    }

    #[test]
    fn tests_may_import_what_tests_share() {
        let mut engine = package("skep-engine", &["skep-testkit"]);
        assert_eq!(check(std::slice::from_ref(&engine)).len(), 1);
        engine.dependencies[0].kind = Some("dev".to_owned());
        assert_eq!(check(&[engine]), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_go_up_or_sideways_or_out_are_faults() {
        for (from, to) in [
            ("skep-types", "skep-engine"),
            ("skep-images", "skep-network"),
            ("skep-cluster", "skep-agent"),
            ("skep-cluster", "tokio"),
            ("skep-engine", "skep-swarm"),
            ("skep-api", "skep-sim"),
            ("skep-attic", "skep-types"),
        ] {
            assert_eq!(check(&[package(from, &[to])]).len(), 1, "{from} -> {to}");
        }
    }
}
