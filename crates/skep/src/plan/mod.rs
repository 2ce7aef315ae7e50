//! `skep plan`: what a `docker stack deploy` of a file would change, told before it does.
//!
//! The file is read as the stock client reads it (`skep-compose`). What would come of the requests that a deployment sends is
//! asked of the daemon, which plays them (`/skep/rehearse`): the leader's own code says what it would refuse and which
//! tasks would be replaced.

mod deployment;
mod report;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use skep_compose::{Stack, Surroundings};

use self::deployment::Deployment;
use crate::client::Host;

/// Exit code where a deployment would change something.
const CHANGES: u8 = 2;

/// `skep plan`
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit code: 0 when nothing would change, 2 when something would, 1 for an error or a deployment that \
                        would be refused."
)]
pub struct Plan {
    /// The stack file; - reads it from standard input.
    file: String,
    /// The stack's name; otherwise the file's, without its ending.
    stack: Option<String>,
    /// Plan for docker stack deploy --prune, which removes services that the file does not name.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    host: Host,
}

/// Tells what a deployment would change.
pub fn plan(plan: Plan) -> ExitCode {
    match run(&plan) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<ExitCode> {
    let stack = read(plan)?;
    if !stack.ignored.is_empty() {
        eprintln!("a stack passes over: {}", stack.ignored.join(", "));
    }
    let deployment = Deployment::rehearse(&plan.host.daemon()?, &stack, plan.prune)?;
    print!("{}", report::text(&deployment));
    Ok(if deployment.is_refused() {
        ExitCode::FAILURE
    } else if deployment.changes() {
        ExitCode::from(CHANGES)
    } else {
        ExitCode::SUCCESS
    })
}

/// Reads the stack file, with what is around it.
fn read(Plan { file, stack, .. }: &Plan) -> Result<Stack> {
    let is_stdin = file == "-";
    let path = Path::new(file);
    let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| !is_stdin);
    let Some(name) = stack.as_deref().or(stem) else {
        bail!("how is the stack called? skep plan {file} <stack>");
    };
    let text = if is_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?
    };
    let here = std::env::current_dir().context("the working directory is gone")?;
    // As the stock client: relative paths start from the file's folder.
    let folder = if is_stdin { here } else { here.join(path).parent().map(Path::to_owned).unwrap_or(here) };
    // Whoever has a variable that is no text does not mean it for a stack file.
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let surroundings = Surroundings {
        environment: &environment,
        folder: folder.to_str().context("the folder's name is no text")?,
        read: &|path| std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}")),
    };
    Ok(skep_compose::load(file, &text, name, &surroundings)?)
}
