//! The node agent: finds the log files of script pods, reads them and ships byte ranges to the operator.

/// Options of `scriptscope agent`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Why the agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {}

/// Runs the agent until it is told to stop.
pub fn run(_args: Args) -> Result<(), AgentError> {
    Ok(())
}
