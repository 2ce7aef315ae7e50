//! Loads an archive from standard input into a store, and tells how long it took and what it needed.
//!
//! `cargo run --release --package skep-images --example load -- <store> < archive.tar`

use std::time::Instant;

use skep_images::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args_os().nth(1).ok_or("usage: load <store> < archive.tar")?;
    let store = Store::open(root.as_ref())?;
    let start = Instant::now();
    for image in store.load(&mut std::io::stdin().lock(), &mut |_| {})? {
        image.lines().iter().for_each(|line| println!("{line}"));
    }
    let elapsed = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{} ms, {peak}", elapsed.as_millis());
    Ok(())
}
