//! `--sandbox`: the runner in gVisor, by its command `runsc`.

use std::{
    env,
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// The command.
const RUNSC: &str = "runsc";

/// There is no gVisor.
#[derive(Debug, thiserror::Error)]
#[error(
    "--sandbox needs gVisor's runsc, which is not on PATH; install it (https://gvisor.dev/docs/user_guide/install/), or leave --sandbox out"
)]
pub struct NoSandbox;

/// gVisor on this machine.
#[derive(Clone, Debug)]
pub struct Sandbox {
    runsc: PathBuf,
    /// Where it keeps what it must remember while it runs.
    state: PathBuf,
}

impl Sandbox {
    /// gVisor as PATH has it. What it remembers lies in `folder`.
    pub fn find(folder: &Path) -> Result<Self, NoSandbox> {
        let path = env::var_os("PATH").unwrap_or_default();
        let runsc = env::split_paths(&path)
            .map(|folder| folder.join(RUNSC))
            .find(|file| is_program(file))
            .ok_or(NoSandbox)?;
        Ok(Self {
            runsc,
            state: folder.join("runsc"),
        })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.runsc
    }

    /// Its arguments, before those of what is to be run. The sandbox sees this machine's files as they are and can change
    /// none; what it writes is its own and goes with it.
    pub fn arguments(&self, working_folder: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if !geteuid().is_root() {
            arguments.push("--rootless".into());
        }
        arguments.extend(["--root".into(), self.state.clone().into()]);
        // The runner is reached through the machine's own loopback. Limits of memory and CPU are the cluster's business.
        arguments.extend(["--network=host", "--ignore-cgroups", "do", "-quiet", "-cwd"].map(Into::into));
        arguments.push(working_folder.into());
        arguments.push("--".into());
        arguments
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
