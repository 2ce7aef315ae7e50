//! Checks that the compiler does not make. `cargo xtask tidy` reads `cargo metadata` and the source tree
//! and changes nothing.

mod floors;
mod sources;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let command = std::env::args().nth(1).context("usage: cargo xtask tidy")?;
    match command.as_str() {
        "tidy" => tidy(),
        other => bail!("unknown command {other:?}; there is: tidy"),
    }
}

fn tidy() -> Result<()> {
    let mut faults = floors::check(&floors::read_workspace()?);
    faults.extend(sources::check(std::path::Path::new("."))?);
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("{} found", if faults.len() == 1 { "1 fault" } else { "faults" });
    }
    Ok(())
}
