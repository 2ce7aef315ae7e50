//! `cargo xtask mutations`: plants known bugs in a copy of the sources and sees whether the simulator notices each,
//! by a symptom that fits it. The copy is built once, with all bugs in it; which one is real is said when it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const FOLDER: &str = "sim/mutations";
const COPY: &str = "target/mutations/source";
const TARGET: &str = "target/mutations/build";
/// Time that the simulator has for each bug.
const LIMIT: Duration = Duration::from_secs(60);
/// Seeds in which nothing may be noticed while no bug is real.
const SOUND_SEEDS: &str = "20";
/// Says whether a bug is real, in the copy.
const SWITCH_FILE: &str = "crates/types/src/lib.rs";
const SWITCH: &str = "
/// Whether a planted bug is real in this process.
#[allow(clippy::disallowed_methods)]
pub fn planted(name: &str) -> bool {
    static NAME: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var(\"PLANTED\").ok());
    NAME.as_deref() == Some(name)
}
";

/// A bug: a piece of text that takes the place of another. `PLANTED` in it says whether it is real.
#[derive(Debug)]
struct Mutation {
    name: String,
    what: String,
    /// One of these is what the simulator has to say.
    symptoms: Vec<String>,
    /// What else the simulator is told: what the bug needs to show, where only some seeds have it.
    options: Vec<String>,
    file: String,
    find: String,
    replace: String,
}

impl Mutation {
    fn parse(name: &str, text: &str) -> Option<Mutation> {
        let (what, rest) = text.split_once("\nsymptom: ")?;
        let (symptoms, rest) = rest.split_once("\nfile: ")?;
        let (symptoms, options) = symptoms.split_once("\noptions: ").unwrap_or((symptoms, ""));
        let (file, rest) = rest.split_once("\nfind:\n")?;
        let (find, replace) = rest.split_once("\nreplace:\n")?;
        let [name, what, file, find] = [name, what, file, find].map(str::to_owned);
        let symptoms = symptoms.split(" | ").map(str::to_owned).collect();
        let options = options.split_whitespace().map(str::to_owned).collect();
        let replace = replace.trim_end().replace("PLANTED", &format!("skep_types::planted({name:?})"));
        Some(Mutation { name, what, symptoms, options, file, find, replace })
    }

    /// The file's text with the bug in it.
    fn plant(&self, text: &str) -> Result<String> {
        if text.matches(&self.find).count() != 1 {
            bail!("{} does not hold once what {} replaces: {:?}", self.file, self.name, self.find);
        }
        Ok(text.replace(&self.find, &self.replace))
    }
}

/// Prints what became of each bug; true when all were noticed. `only` names some, by parts of their names.
pub(crate) fn check(only: &[String]) -> Result<bool> {
    let mutations = read()?;
    copy_sources(&mutations)?;
    let began = Instant::now();
    let binary = build()?;
    println!("built in {:.0} s", began.elapsed().as_secs_f64());
    let sound = Command::new(&binary).args(["--minutes", "1", "--seeds", SOUND_SEEDS]).output()?;
    if !sound.status.success() {
        bail!("without any bug: {}", String::from_utf8_lossy(&sound.stdout));
    }
    let chosen = |mutation: &&Mutation| {
        only.is_empty() || only.iter().any(|part| mutation.name.contains(part.as_str()))
    };
    let mut all_noticed = true;
    for mutation in mutations.iter().filter(chosen) {
        all_noticed &= is_noticed(&binary, mutation)?;
    }
    Ok(all_noticed)
}

fn read() -> Result<Vec<Mutation>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(FOLDER)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let parse = |path: &PathBuf| {
        let name = path.file_stem().and_then(|name| name.to_str()).context("a mutation has a name")?;
        let text = std::fs::read_to_string(path)?;
        Mutation::parse(name, &text).with_context(|| format!("{name} is no mutation"))
    };
    paths.iter().map(parse).collect()
}

/// Copies what git knows of with all bugs in it, touching only what changed, so that little is compiled anew.
fn copy_sources(mutations: &[Mutation]) -> Result<()> {
    let listed =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).output()?;
    let mut planted = 0;
    for name in String::from_utf8(listed.stdout)?.lines().filter(|name| Path::new(name).is_file()) {
        let mut text = std::fs::read(name)?;
        for mutation in mutations.iter().filter(|mutation| mutation.file == name) {
            text = mutation.plant(&String::from_utf8(text)?)?.into_bytes();
            planted += 1;
        }
        if name == SWITCH_FILE {
            text.extend(SWITCH.as_bytes());
        }
        let target = Path::new(COPY).join(name);
        if std::fs::read(&target).ok().as_ref() != Some(&text) {
            if let Some(folder) = target.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(target, text)?;
        }
    }
    if planted != mutations.len() {
        bail!("{} of {} mutations name a file that is not there", mutations.len() - planted, mutations.len());
    }
    Ok(())
}

/// Builds the copy's simulator. What it shares with the workspace, such as the crates of others, is taken from there.
fn build() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package", "skep-sim"])
        .current_dir(COPY)
        .env("CARGO_TARGET_DIR", here.join(TARGET))
        .env("CARGO_BUILD_BUILD_DIR", here.join("target"))
        .status()?;
    if !built.success() {
        bail!("the copy with the bugs does not compile");
    }
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(TARGET)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    folders.push(PathBuf::from(TARGET));
    let found = folders.iter().map(|folder| folder.join("debug/skep-sim")).find(|binary| binary.is_file());
    found.context("the simulator is not where it was built")
}

/// Simulates seed after seed until one shows the bug as what it is: another thing may go wrong first.
fn is_noticed(binary: &Path, mutation: &Mutation) -> Result<bool> {
    let Mutation { name, what, symptoms, options, .. } = mutation;
    let began = Instant::now();
    let mut seed = 1;
    let mut others = 0;
    while let Some(left) = LIMIT.checked_sub(began.elapsed()) {
        let hours = (left.as_secs_f64() / 3600.0).to_string();
        let output = Command::new(binary)
            .args(["--minutes", "1", "--hours", &hours, "--seed", &seed.to_string()])
            .args(options)
            .env("PLANTED", name)
            .output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let Some((number, verdict)) =
            told.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "))
        else {
            break;
        };
        if symptoms.iter().any(|symptom| verdict.contains(symptom.as_str())) {
            let seconds = began.elapsed().as_secs_f64();
            println!("{name}: noticed after {seconds:.1} s by seed {number}: {verdict}");
            return Ok(true);
        }
        others += 1;
        seed = number.parse::<u64>().context("a seed is a number")? + 1;
    }
    println!("{name}: NOT noticed in {LIMIT:?}, but {others} other things: {what}");
    Ok(false)
}
