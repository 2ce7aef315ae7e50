//! `skep why` and `skep service`: what Docker's client has no words for, asked of the daemon.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::Value;

use crate::client::{self, Daemon, Host, encoded};

/// Time between two looks at a service.
const PAUSE: Duration = Duration::from_millis(250);

/// `skep why`
#[derive(clap::Args, Debug)]
pub struct Why {
    /// Name, id or beginning of an id of a task, service or node.
    name: String,
    #[command(flatten)]
    host: Host,
}

/// `skep service`
#[derive(clap::Args, Debug)]
pub struct Service {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    host: Host,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let tasks that would be elsewhere if all were placed now move there, in the order of the service's updates
    Rebalance {
        /// Name or id of the service.
        service: String,
    },
    /// Return when the service is as it was asked for; fail when its update was paused or rolled back
    Wait {
        /// Name or id of the service.
        service: String,
        /// Fail after so many seconds; otherwise never.
        #[arg(long)]
        timeout: Option<u64>,
    },
}

/// Tells why something is where it is.
pub fn why(Why { name, host }: Why) -> ExitCode {
    finish(host.daemon().and_then(|daemon| {
        let answer = client::get(&daemon, &format!("/skep/why/{}", encoded(&name)))?;
        for line in answer["Lines"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            println!("{line}");
        }
        Ok(())
    }))
}

/// Does something to a service, or waits for it.
pub fn service(Service { command, host }: Service) -> ExitCode {
    finish(host.daemon().and_then(|daemon| match command {
        Command::Rebalance { service } => {
            let path = format!("/skep/services/{}/rebalance", encoded(&service));
            client::post(&daemon, &path, &Value::Null).map(|_| ())
        }
        Command::Wait { service, timeout } => wait(&daemon, &service, timeout.map(Duration::from_secs)),
    }))
}

fn wait(daemon: &Daemon, service: &str, limit: Option<Duration>) -> Result<()> {
    let begun = Instant::now();
    let path = format!("/skep/services/{}/progress", encoded(service));
    loop {
        let progress = client::get(daemon, &path)?;
        let message = progress["Message"].as_str().unwrap_or_default();
        match progress["State"].as_str() {
            Some("converged") => return Ok(()),
            Some("failed") => bail!("{message}"),
            _ if limit.is_some_and(|limit| begun.elapsed() >= limit) => {
                bail!("service {service} has not converged: {message}");
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
