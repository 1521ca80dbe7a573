//! Which Python or Node runs the script.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::runner::Runtime;

/// How long it may take to say where it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The interpreter that the variable `SCRIPTSCOPE_PYTHON` or `SCRIPTSCOPE_NODE` names, or else the one on PATH: the program
/// itself, since what is on PATH may be a script that looks for it, which takes long in a sandbox and depends on the folder.
/// Where it can not be run, its name: whoever runs it says why.
pub async fn find(runtime: Runtime, folder: &Path) -> OsString {
    let (variable, name, question): (_, _, &[&str]) = match runtime {
        Runtime::Python => (
            "SCRIPTSCOPE_PYTHON",
            "python3",
            &["-c", "import sys; sys.stdout.write(sys.executable)"],
        ),
        Runtime::Node => (
            "SCRIPTSCOPE_NODE",
            "node",
            &["-e", "process.stdout.write(process.execPath)"],
        ),
    };
    let named = std::env::var_os(variable).unwrap_or_else(|| name.into());
    // A path is one from where the command was called.
    let named = match Path::new(&named).components().count() {
        1 => named,
        _ => std::path::absolute(&named).map_or(named, Into::into),
    };
    let mut command = Command::new(&named);
    command
        .args(question)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() && !output.stdout.is_empty() => {
            OsString::from_vec(output.stdout)
        }
        _ => named,
    }
}
