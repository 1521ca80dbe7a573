//! `completion`: what a shell needs to complete this command.

use std::io;

use clap::Command;
use clap_complete::Shell;

use super::{error::CliError, output::Out};

/// Arguments of `completion`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "bash: source <(scriptscope completion bash)\nzsh:  source <(scriptscope completion zsh)\nfish: scriptscope completion fish | source"
)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script for the shell.
pub fn completion(args: &CompletionArgs, mut command: Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "scriptscope", &mut script);
    let mut out = Out::default();
    out.bytes(&script)?;
    out.flush().map_err(io::Error::into)
}
