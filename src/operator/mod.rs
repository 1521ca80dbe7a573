//! The operator: controllers of both kinds, and the wiring of ingest, store and web into one process.

pub mod script_export;

/// Options of `scriptscope operator`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Why the operator stopped.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {}

/// Runs the operator until it is told to stop.
pub fn run(_args: Args) -> Result<(), OperatorError> {
    Ok(())
}
