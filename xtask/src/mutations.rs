//! `cargo xtask mutations`: plants known bugs in a copy of the sources, one at a time, and sees whether the
//! simulator notices each.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

const FOLDER: &str = "sim/mutations";
const COPY: &str = "target/mutations/source";
const BUILD: &str = "target/mutations/build";
/// Hours that the simulator has for each bug: a minute.
const HOURS: &str = "0.0167";

/// A bug: a piece of text that takes the place of another.
#[derive(Debug)]
struct Mutation {
    what: String,
    file: String,
    find: String,
    replace: String,
}

impl Mutation {
    fn parse(text: &str) -> Option<Mutation> {
        let (what, rest) = text.split_once("\nfile: ")?;
        let (file, rest) = rest.split_once("\nfind:\n")?;
        let (find, replace) = rest.split_once("\nreplace:\n")?;
        let [what, file, find] = [what, file, find].map(str::to_owned);
        Some(Mutation { what, file, find, replace: replace.trim_end().to_owned() })
    }

    /// The file's text with the bug in it.
    fn plant(&self, text: &str) -> Result<String> {
        if text.matches(&self.find).count() != 1 {
            bail!("{} does not hold once what the mutation replaces: {:?}", self.file, self.find);
        }
        Ok(text.replace(&self.find, &self.replace))
    }
}

/// Prints what became of each bug; true when all were noticed. `only` names some, by parts of their names.
pub(crate) fn check(only: &[String]) -> Result<bool> {
    copy_sources()?;
    let mut paths: Vec<_> =
        std::fs::read_dir(FOLDER)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let mut all_noticed = true;
    for path in paths {
        let name = path.file_stem().and_then(|name| name.to_str()).context("a mutation has a name")?;
        if only.is_empty() || only.iter().any(|part| name.contains(part.as_str())) {
            let text = std::fs::read_to_string(&path)?;
            let mutation = Mutation::parse(&text).with_context(|| format!("{name} is no mutation"))?;
            all_noticed &= is_noticed(name, &mutation)?;
        }
    }
    Ok(all_noticed)
}

/// Copies what git knows of, touching only what changed, so that little is compiled anew.
fn copy_sources() -> Result<()> {
    let listed =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).output()?;
    for name in String::from_utf8(listed.stdout)?.lines().filter(|name| Path::new(name).is_file()) {
        let target = Path::new(COPY).join(name);
        let text = std::fs::read(name)?;
        if std::fs::read(&target).ok().as_ref() != Some(&text) {
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(target, text)?;
        }
    }
    Ok(())
}

fn is_noticed(name: &str, mutation: &Mutation) -> Result<bool> {
    let path = Path::new(COPY).join(&mutation.file);
    let sound = std::fs::read_to_string(&path)?;
    std::fs::write(&path, mutation.plant(&sound)?)?;
    let result = simulate(name, mutation);
    std::fs::write(&path, sound)?;
    result
}

fn simulate(name: &str, mutation: &Mutation) -> Result<bool> {
    let cargo = |verb: &str| {
        let mut cargo = Command::new("cargo");
        cargo.args([verb, "--quiet", "--package", "skep-sim"]).current_dir(COPY);
        cargo.env("CARGO_TARGET_DIR", std::env::current_dir().unwrap_or_default().join(BUILD));
        cargo
    };
    if !cargo("build").status()?.success() {
        bail!("the mutation {name} does not compile");
    }
    let began = Instant::now();
    let output = cargo("run").args(["--", "--minutes", "1", "--hours", HOURS]).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let verdict = told.lines().find(|line| line.starts_with("seed "));
    let seconds = began.elapsed().as_secs_f64();
    match verdict {
        Some(verdict) => println!("{name}: noticed after {seconds:.1} s: {verdict}"),
        None => println!("{name}: NOT noticed in {seconds:.1} s: {}", mutation.what),
    }
    Ok(verdict.is_some())
}
