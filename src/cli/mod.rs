//! The user's verbs: what `scriptscope`, or `kubectl scriptscope`, does for people at a terminal.
//!
//! Everything is asked of the operator with the user's own credentials, through the API server ([`tunnel`]), so that
//! nothing needs to be opened and everybody sees what RBAC lets them.

mod api;
mod args;
mod bundle;
mod cluster;
mod completion;
mod credentials;
mod dashboard;
mod doctor;
mod error;
mod export;
mod filter;
mod follow;
mod invoke;
mod logs;
pub(crate) mod output;
mod redact;
mod rollback;
mod rows;
mod runs;
mod stats;
mod store;
mod tunnel;
mod versions;

use std::process::ExitCode;

use clap::{Command, Subcommand};

pub use error::CliError;

use self::{api::Api, args::Place, cluster::Cluster};

/// What a user can ask for.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the runs of a script, the newest first.
    Runs(runs::RunsArgs),
    /// Show one run: facts, input, output, error and logs.
    Run(runs::RunArgs),
    /// Show what a script printed, the oldest first.
    Logs(logs::LogsArgs),
    /// Show the figures of a script, or of all.
    Stats(stats::StatsArgs),
    /// Call a function of a script; prints its result.
    Invoke(invoke::InvokeArgs),
    /// Write all runs or log lines of a range as CSV.
    Export(export::ExportArgs),
    /// Show the versions of a script: how each went, and who asked for it.
    Versions(versions::VersionsArgs),
    /// Go back to what an earlier version ran, as a new version.
    Rollback(rollback::RollbackArgs),
    /// Serve the dashboard at an address of this machine, with no token to paste.
    Dashboard(dashboard::DashboardArgs),
    /// Check the whole installation, and say what to do; fails where something does not work.
    Doctor(doctor::DoctorArgs),
    /// Write what somebody who helps needs to see into one file, without secrets.
    SupportBundle(bundle::BundleArgs),
    /// Copy a whole store into another one, such as a SQLite file into Postgres.
    MigrateStore(store::MigrateArgs),
    /// Copy a SQLite store into a file while the operator runs.
    Backup(store::BackupArgs),
    /// Print what a shell needs to complete this command.
    Completion(completion::CompletionArgs),
}

/// Does it.
pub fn run(verb: Verb, command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return said(&error.into()),
    };
    let done = runtime.block_on(async {
        match verb {
            Verb::Runs(args) => runs::runs(args).await,
            Verb::Run(args) => runs::run(args).await,
            Verb::Logs(args) => logs::logs(args).await,
            Verb::Stats(args) => stats::stats(args).await,
            Verb::Invoke(args) => invoke::invoke(args).await,
            Verb::Export(args) => export::export(args).await,
            Verb::Versions(args) => versions::versions(args).await,
            Verb::Rollback(args) => rollback::rollback(args).await,
            Verb::Dashboard(args) => dashboard::dashboard(args).await,
            Verb::Doctor(args) => Box::pin(doctor::doctor(args)).await,
            Verb::SupportBundle(args) => Box::pin(bundle::bundle(args)).await,
            Verb::MigrateStore(args) => store::migrate(args).await,
            Verb::Backup(args) => store::save(args).await,
            Verb::Completion(args) => completion::completion(&args, command),
        }
    });
    // Connections that are still open end with the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => said(&error),
    }
}

fn said(error: &CliError) -> ExitCode {
    let red = anstyle::Style::new()
        .bold()
        .fg_color(Some(anstyle::AnsiColor::Red.into()));
    anstream::eprintln!("{red}error:{red:#} {}", output::plain_lines(&error.to_string()));
    error.code()
}

/// What every verb that asks the operator needs.
struct Verbs {
    cluster: Cluster,
    api: Api,
    namespace: String,
}

impl Verbs {
    async fn new(place: Place) -> Result<Self, CliError> {
        let cluster = Cluster::new(place);
        let namespace = cluster.namespace().await?;
        Ok(Self {
            api: Api::new(&cluster).await?,
            cluster,
            namespace,
        })
    }
}

/// A whole number from 1 to `MOST`.
fn at_most<const MOST: usize>(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=MOST).contains(number))
        .ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}
