//! The runner: the first process of a script's pod. Serves the script's functions over HTTP, runs them in worker
//! processes and prints one record a line.

/// Options of `scriptscope runner`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Options of `scriptscope install`.
#[derive(clap::Args, Debug)]
pub struct InstallArgs {}

/// Why the runner stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {}

/// Runs the runner until it is told to stop.
pub fn run(_args: Args) -> Result<(), RunnerError> {
    Ok(())
}

/// Copies the binary and the workers.
pub fn install(_args: &InstallArgs) -> Result<(), RunnerError> {
    Ok(())
}
