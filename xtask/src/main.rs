//! Checks that the compiler does not make. `cargo xtask tidy` reads `cargo metadata` and the source tree
//! and changes nothing. `cargo xtask mutations [NAME...]` sees whether the simulator notices planted bugs.

mod floors;
mod mutations;
mod sources;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let checked = match arguments.split_first() {
        Some((task, [])) if task == "tidy" => tidy(),
        Some((task, only)) if task == "mutations" => mutations::check(only),
        _ => Err(anyhow::anyhow!("usage: cargo xtask tidy | mutations [NAME...]")),
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
