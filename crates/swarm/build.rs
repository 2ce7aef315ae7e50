//! Turns `proto/skep.proto` into Rust, with a compiler that is itself Rust: no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/skep.proto");
    let files = protox::compile(["proto/skep.proto"], ["proto"])?;
    // Consensus messages and assignments may be large: they are not copied out of the buffer that they came in.
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(files)?;
    Ok(())
}
