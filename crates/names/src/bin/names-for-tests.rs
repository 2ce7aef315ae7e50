//! Stands in for `skep names` in this crate's own tests and benchmarks.

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(2).collect();
    skep_names::names_main(&arguments)
}
