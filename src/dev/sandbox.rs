//! `--sandbox`: the runner in gVisor, by its command `runsc`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// The command.
const RUNSC: &str = "runsc";
/// What a container is described in.
const CONFIG: &str = "config.json";

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

/// A process that is to run in a sandbox.
#[derive(Debug)]
pub struct Process<'a> {
    /// Its program and arguments.
    pub arguments: Vec<&'a OsStr>,
    /// Its environment.
    pub environment: &'a [(OsString, OsString)],
    /// Where it begins.
    pub folder: &'a Path,
    /// What it has to see, wherever that is.
    pub readable: Vec<&'a Path>,
    /// Where what it writes gets out.
    pub writable: &'a Path,
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
            state: folder.join(RUNSC),
        })
    }

    /// Writes down what is to run in a sandbox of its own: its description goes to the folder `bundle`. The command that runs
    /// it, without its program.
    pub fn prepare(&self, id: &str, bundle: &Path, process: &Process<'_>) -> io::Result<Vec<OsString>> {
        fs::create_dir_all(bundle)?;
        fs::write(bundle.join(CONFIG), description(process).to_string())?;
        let mut arguments = self.arguments();
        arguments.extend(["run".into(), "--bundle".into(), bundle.into(), id.into()]);
        Ok(arguments)
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.runsc
    }

    /// The arguments that ask the process in a sandbox to end.
    pub fn terminate(&self, id: &str) -> Vec<OsString> {
        let mut arguments = self.arguments();
        arguments.extend(["kill".into(), id.into(), "TERM".into()]);
        arguments
    }

    /// What holds for every use. Without rights of its own, so that it does the same for everybody; in the machine's network,
    /// where the runner is called. Limits of memory and CPU are the cluster's business.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "--rootless",
            "--network=host",
            "--ignore-cgroups",
            "--overlay2=none",
        ]
        .map(Into::into)
        .into();
        arguments.extend(["--root".into(), self.state.clone().into()]);
        arguments
    }
}

/// A container in which this machine's files can be read and not changed, with temporary folders of its own.
fn description(process: &Process<'_>) -> Value {
    let arguments: Vec<_> = process
        .arguments
        .iter()
        .map(|text| text.to_string_lossy())
        .collect();
    let environment: Vec<_> = process
        .environment
        .iter()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/var/tmp", "type": "tmpfs", "source": "tmpfs"}),
    ];
    let bind = |path: &Path, option: &str| {
        let path = path.to_string_lossy();
        json!({"destination": path, "type": "bind", "source": path, "options": ["rbind", option]})
    };
    // Some of these are below a temporary folder.
    mounts.extend(process.readable.iter().map(|path| bind(path, "ro")));
    mounts.push(bind(process.writable, "rw"));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": environment,
            "cwd": process.folder.to_string_lossy(),
            "capabilities": {},
            "noNewPrivileges": true,
        },
        "root": {"path": "/", "readonly": true},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]},
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
