//! The `scriptscope` command: one binary, a subcommand a role.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use scriptscope::{agent, api, cli, dependencies, dev, fetch, operator, runner, telemetry};

/// Batches are large and short-lived; the C library's allocator gives their memory back to the system and takes it
/// again each time, at the price of a page fault every 4 KiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "scriptscope",
    version,
    about = "Run-level and log-level analytics for custom scripts"
)]
struct Cli {
    /// What to log: a level (error, warn, info, debug, trace) or target=level pairs. Default: info; error where a user's
    /// question is answered.
    #[arg(long, env = "SCRIPTSCOPE_LOG", global = true)]
    log: Option<String>,
    /// How to log.
    #[arg(
        long,
        env = "SCRIPTSCOPE_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    log_format: telemetry::LogFormat,
    /// File that says what to log instead, and is followed: a change counts within seconds, without a restart. The chart
    /// mounts a ConfigMap there.
    #[arg(
        long,
        env = "SCRIPTSCOPE_LOG_FROM",
        value_name = "FILE",
        global = true,
        hide = true
    )]
    log_from: Option<PathBuf>,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    #[command(flatten)]
    User(Box<cli::Verb>),
    /// Run a script on this machine without a cluster: calls, dashboard, and a new version with every save.
    Dev(Box<dev::Args>),
    /// Run the operator: controllers, ingest, store, dashboard.
    Operator(Box<operator::Args>),
    /// Run the node agent: tail the logs of script pods and ship them to the operator.
    Agent(agent::Args),
    /// Serve a script's functions over HTTP; the first process of a script's pod.
    Runner(Box<runner::Args>),
    /// Copy this binary and the language workers into a folder; the init step of a script's pod.
    Install(runner::InstallArgs),
    /// Write the hashes of a Secret's API keys for the runner; runs beside the container of a script that needs keys.
    ApiKeys(runner::HashKeysArgs),
    /// Fetch and unpack a script's archive; an init step of a script's pod.
    Fetch(fetch::Args),
    /// Install the packages that a script asks for; an init step of a script's pod.
    Dependencies(dependencies::Args),
    /// Print the custom resource definitions, or write them into a folder.
    Crd {
        /// Write one file a definition into this folder instead; may be given more than once.
        #[arg(long)]
        dir: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = parse();
    let default = match cli.role {
        Role::User(_) => "error",
        Role::Dev(_) => "warn",
        _ => "info",
    };
    telemetry::init(
        cli.log.as_deref().unwrap_or(default),
        cli.log_format,
        cli.log_from.clone(),
    );
    let result: Result<(), Box<dyn std::error::Error>> = match cli.role {
        Role::User(verb) => return cli::run(*verb, command()),
        Role::Dev(args) => return dev::run(&args),
        Role::Operator(args) => operator::run(*args).map_err(Into::into),
        Role::Agent(args) => agent::run(args).map_err(Into::into),
        Role::Runner(args) => runner::run(*args).map_err(Into::into),
        Role::Install(args) => runner::install(&args).map_err(Into::into),
        Role::ApiKeys(args) => runner::hash_keys(&args).map_err(Into::into),
        Role::Fetch(args) => {
            fetch::run(args);
            Ok(())
        }
        Role::Dependencies(args) => {
            dependencies::run(args);
            Ok(())
        }
        Role::Crd { dir } if dir.is_empty() => print_crds().map_err(Into::into),
        Role::Crd { dir } => dir.iter().try_for_each(|dir| write_crds(dir)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "Stopped.");
            ExitCode::FAILURE
        }
    }
}

/// The command line, under the name that it was called by: kubectl finds plugins by theirs.
fn command() -> clap::Command {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_stem);
    match name.and_then(|name| name.to_str()) {
        Some(name) if name.starts_with("kubectl-") => Cli::command()
            .name("kubectl scriptscope")
            .bin_name("kubectl scriptscope"),
        _ => Cli::command(),
    }
}

fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn print_crds() -> Result<(), serde_norway::Error> {
    for (_, text) in api::crds()? {
        print!("---\n{text}");
    }
    Ok(())
}

fn write_crds(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    for (name, text) in api::crds()? {
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}
