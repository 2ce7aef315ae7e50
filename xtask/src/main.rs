//! Checks that the compiler does not make. `cargo xtask tidy` reads `cargo metadata` and the source tree
//! and changes nothing.

mod floors;
mod sources;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    let checked = match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask tidy")),
    };
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Prints every fault; true when there is none.
fn tidy() -> Result<bool> {
    let mut faults = floors::check(&floors::read_workspace()?);
    faults.extend(sources::check(std::path::Path::new("."))?);
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    Ok(faults.is_empty())
}
