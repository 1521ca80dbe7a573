//! The `scriptscope` command: one binary, a subcommand a role.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use scriptscope::{agent, api, dependencies, fetch, operator, runner, telemetry};

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
    /// What to log: a level (error, warn, info, debug, trace) or target=level pairs.
    #[arg(long, env = "SCRIPTSCOPE_LOG", default_value = "info", global = true)]
    log: String,
    /// How to log.
    #[arg(
        long,
        env = "SCRIPTSCOPE_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    log_format: telemetry::LogFormat,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Run the operator: controllers, ingest, store, dashboard.
    Operator(Box<operator::Args>),
    /// Run the node agent: tail the logs of script pods and ship them to the operator.
    Agent(agent::Args),
    /// Serve a script's functions over HTTP; the first process of a script's pod.
    Runner(runner::Args),
    /// Copy this binary and the language workers into a folder; the init step of a script's pod.
    Install(runner::InstallArgs),
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
    let cli = Cli::parse();
    telemetry::init(&cli.log, cli.log_format);
    let result: Result<(), Box<dyn std::error::Error>> = match cli.role {
        Role::Operator(args) => operator::run(*args).map_err(Into::into),
        Role::Agent(args) => agent::run(args).map_err(Into::into),
        Role::Runner(args) => runner::run(args).map_err(Into::into),
        Role::Install(args) => runner::install(&args).map_err(Into::into),
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
