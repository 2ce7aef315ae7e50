//! `skep`: one binary for the daemon, its command line, the shim behind each container, and the server of their names. Wiring only.

mod ask;
mod client;
mod config;
mod daemon;
mod lab;
mod listen;
mod lock;
mod logging;
mod options;
mod plan;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// The version, as `skep version` and the API tell it.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that the build was told of; empty when it was not.
const COMMIT: &str = match option_env!("SKEP_COMMIT") {
    Some(commit) => commit,
    None => "",
};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    // Before all else: a shim is single-threaded and lives as long as its container, in as little memory as
    // can be. Nothing of the daemon may be set up for it.
    if let Some((word, shim)) = rest.split_first()
        && word == "shim"
    {
        skep_runtime::shim_main(shim);
    }
    // Likewise: it outlives the daemon, and every machine with containers has one.
    if let Some((word, names)) = rest.split_first()
        && word == "names"
    {
        skep_names::names_main(names);
    }
    // Likewise.
    if let Some((word, tunnel)) = rest.split_first()
        && word == "tunnel"
    {
        skep_tunnel::tunnel_main(tunnel);
    }
    end_on_panic();
    // Called by dockerd's name the binary is dockerd.
    if Path::new(&name).file_name().is_some_and(|name| name == "dockerd") {
        let command = daemon_command().name("dockerd").version(VERSION);
        return finish(daemon::main(&parse(command, &name, rest)));
    }
    let command = Command::new("skep")
        .about("A container engine and Swarm-compatible orchestrator in one binary")
        .version(VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(daemon_command())
        .subcommand(lab::Arguments::augment_args(
            Command::new("lab").about("A whole cluster on this machine, to try Skep with"),
        ))
        .subcommand(ask::Why::augment_args(
            Command::new("why").about("Tell why a task, service or node is where it is, or is nowhere"),
        ))
        .subcommand(ask::Service::augment_args(
            Command::new("service").about("What docker service cannot: wait, rebalance"),
        ))
        .subcommand(plan::Plan::augment_args(
            Command::new("plan").about("Tell what a docker stack deploy of a file would change"),
        ))
        .subcommand(Command::new("version").about("Tell the version"));
    match parse(command, &name, rest).subcommand() {
        Some(("daemon", matches)) => finish(daemon::main(matches)),
        Some(("lab", matches)) => match lab::Arguments::from_arg_matches(matches) {
            Ok(arguments) => lab::main(arguments),
            Err(error) => error.exit(),
        },
        Some(("why", matches)) => match ask::Why::from_arg_matches(matches) {
            Ok(why) => ask::why(why),
            Err(error) => error.exit(),
        },
        Some(("service", matches)) => match ask::Service::from_arg_matches(matches) {
            Ok(service) => ask::service(service),
            Err(error) => error.exit(),
        },
        Some(("plan", matches)) => match plan::Plan::from_arg_matches(matches) {
            Ok(plan) => plan::plan(plan),
            Err(error) => error.exit(),
        },
        _ => {
            println!("skep {VERSION} {COMMIT}, API {} (minimum {})", skep_api::NEWEST, skep_api::OLDEST);
            ExitCode::SUCCESS
        }
    }
}

/// A panic ends the process: containers and state outlive it, and a daemon that lost a thread may only look alive. But
/// the store panics over a damaged log, which is caught, and told as such.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !skep_consensus::is_guarded() {
            tell(panic);
            std::process::abort();
        }
    }));
}

fn parse(command: Command, name: &OsString, rest: Vec<OsString>) -> ArgMatches {
    let plans = rest.first().is_some_and(|word| word == "plan");
    command.try_get_matches_from(std::iter::once(name.clone()).chain(rest)).unwrap_or_else(|error| {
        if plans && error.use_stderr() {
            // The usual code says there that something would change.
            let _ = error.print();
            std::process::exit(1);
        }
        error.exit()
    })
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to start daemon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `skep daemon`, with every flag of dockerd's that there is.
fn daemon_command() -> Command {
    let flags = options::ALL.iter().map(|option| {
        let flag = Arg::new(option.flag).long(option.flag).help(option.help).value_name("value");
        let flag = match option.short {
            Some(letter) => flag.short(letter),
            None => flag,
        };
        match option.kind {
            options::Kind::Flag => flag
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(["true", "false", "1", "0"])
                .action(ArgAction::Set),
            options::Kind::Text | options::Kind::Number => flag.action(ArgAction::Set),
            options::Kind::List | options::Kind::Map => flag.action(ArgAction::Append),
        }
    });
    Command::new("daemon")
        .about("Run the daemon that Docker's clients talk to, in dockerd's place")
        .args(flags)
        .arg(
            Arg::new("config-file")
                .long("config-file")
                .help("Daemon configuration file")
                .default_value(config::DEFAULT_FILE),
        )
        .arg(
            Arg::new("validate")
                .long("validate")
                .help("Validate daemon configuration and exit")
                .action(ArgAction::SetTrue),
        )
}
