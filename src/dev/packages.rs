//! The packages that a script asks for: installed as in its pod, and kept for the next time.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
};

use super::{
    project::{Project, hex},
    shared::Shared,
};
use crate::{
    dependencies::{self, DependenciesError, Manager},
    runner::Runtime,
};

/// What was not used for so long is removed.
const KEPT: Duration = Duration::from_hours(24 * 30);
/// Folder of what was installed, in the user's folder for such things.
const FOLDER: &str = "scriptscope/dev";
/// Longest line of the installation that is shown, in bytes.
const MAX_LINE: u64 = 8 << 10;

/// Why the packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// What installs them is missing.
    #[error("{manifest} can not be installed without {missing}: {remedy}")]
    NoManager {
        /// What asks for packages.
        manifest: &'static str,
        /// What is not there.
        missing: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The installation failed; it says why.
    #[error("{0}")]
    Failed(String),
    /// What asks for them can not be read.
    #[error(transparent)]
    Manifest(#[from] DependenciesError),
    /// The system.
    #[error("packages can not be installed: {0}")]
    Io(#[from] io::Error),
}

/// The folder with the project's packages, installed if they are not there; none where it asks for none.
pub async fn prepare(shared: &Shared) -> Result<Option<PathBuf>, PackagesError> {
    let (project, interpreter) = (&shared.project, &*shared.settings.interpreter);
    let manager = match project.runtime {
        Runtime::Python => Manager::Pip,
        Runtime::Node => Manager::Npm,
    };
    if !dependencies::has_work(manager, &project.folder)? {
        return Ok(None);
    }
    let cache = cache_folder(&shared.scratch);
    fs::create_dir_all(&cache)?;
    let place = cache.join(key(project, manager, interpreter)?);
    if place.is_dir() {
        // For those who look how long ago it was used.
        let _ = fs::File::open(&place).and_then(|folder| folder.set_modified(SystemTime::now()));
        return Ok(Some(place));
    }
    remove_old(&cache, SystemTime::now());
    require(manager, interpreter).await?;
    let manifest = manager.manifest();
    shared.printer.aside(&format!("Installing {manifest}.")).await;
    let scratch = tempfile::Builder::new().prefix("install-").tempdir_in(&cache)?;
    install(shared, manager, scratch.path()).await?;
    // Somebody else may have been faster.
    if let Err(error) = fs::rename(scratch.path().join(INSTALLED), &place)
        && !place.is_dir()
    {
        return Err(error.into());
    }
    shared
        .printer
        .aside(&format!("Installed {manifest}; kept in {}.", place.display()))
        .await;
    Ok(Some(place))
}

/// Where packages are installed, in the folder of one installation.
const INSTALLED: &str = "installed";

fn cache_folder(scratch: &Path) -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    base.unwrap_or_else(|| scratch.join("cache")).join(FOLDER)
}

/// Names what would be installed: by the files that say so, the project that they may refer to, and the interpreter.
fn key(project: &Project, manager: Manager, interpreter: &OsStr) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(manager.name());
    hash.update(project.folder.as_os_str().as_encoded_bytes());
    hash.update(interpreter.as_encoded_bytes());
    let mut names: Vec<OsString> = fs::read_dir(&project.folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| counts(manager, &name.to_string_lossy()))
        .collect();
    names.sort();
    for name in names {
        let content = fs::read(project.folder.join(&name))?;
        hash.update([0]);
        hash.update(name.as_encoded_bytes());
        hash.update(content.len().to_be_bytes());
        hash.update(content);
    }
    Ok(hex(hash.finalize().get(..16).unwrap_or_default()))
}

/// Whether a file at the project's root has a say in what is installed.
fn counts(manager: Manager, name: &str) -> bool {
    match manager {
        Manager::Pip => {
            let stem = name.strip_suffix(".txt").unwrap_or_default();
            stem.starts_with("requirements") || stem.starts_with("constraints")
        }
        Manager::Npm => {
            matches!(
                name,
                "package.json" | "package-lock.json" | "npm-shrinkwrap.json" | ".npmrc"
            )
        }
    }
}

async fn require(manager: Manager, interpreter: &OsStr) -> Result<(), PackagesError> {
    let (mut command, missing, remedy) = match manager {
        Manager::Pip => {
            let missing = format!("the pip of {}", interpreter.to_string_lossy());
            let mut command = Command::new(interpreter);
            command.args(["-c", "import pip"]);
            (
                command,
                missing,
                "install it (python3 -m ensurepip, or the package python3-pip)",
            )
        }
        Manager::Npm => {
            let mut command = Command::new("npm");
            command.arg("--version");
            (command, "npm".to_owned(), "install it, it comes with Node")
        }
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    match command.output().await {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(PackagesError::NoManager {
            manifest: manager.manifest(),
            missing,
            remedy,
        }),
    }
}

/// Installs by the step that does so in a pod; what it prints is shown as it comes.
async fn install(shared: &Shared, manager: Manager, scratch: &Path) -> Result<(), PackagesError> {
    let reason = scratch.join("reason");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--log=error",
            "dependencies",
            "--manager",
            manager.name(),
            "--app",
        ])
        .arg(&shared.project.folder)
        .arg("--to")
        .arg(scratch.join(INSTALLED))
        .arg("--scratch")
        .arg(scratch)
        .arg("--termination-log")
        .arg(&reason)
        .envs(
            shared
                .settings
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    if manager == Manager::Pip {
        command.arg("--python").arg(&shared.settings.interpreter);
    }
    let mut child = command.spawn()?;
    if let Some(stdout) = child.stdout.take() {
        show(shared, stdout).await?;
    }
    let status = child.wait().await?;
    if status.success() {
        return Ok(());
    }
    let reason =
        fs::read_to_string(reason).unwrap_or_else(|_| format!("the installation ended with {status}"));
    Err(PackagesError::Failed(reason))
}

async fn show(shared: &Shared, output: impl AsyncRead + Unpin) -> io::Result<()> {
    use tokio::io::AsyncReadExt;

    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        shared.printer.aside(&format!("  {}", text.trim_end())).await;
    }
}

/// Removes what was not used for long, and what installations that were cut have left.
fn remove_old(cache: &Path, now: SystemTime) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let used = entry.metadata().and_then(|metadata| metadata.modified());
        let age = used.ok().and_then(|used| now.duration_since(used).ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_installed_once() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("main.py", "");
        write("requirements.txt", "-r requirements-base.txt\n");
        write("requirements-base.txt", "a==1\n");
        let project = Project::find(folder.path(), None, None).unwrap();
        let first = key(&project, Manager::Pip, "python3".as_ref()).unwrap();
        write("main.py", "x = 1");
        assert_eq!(key(&project, Manager::Pip, "python3".as_ref()).unwrap(), first);
        write("requirements-base.txt", "a==2\n");
        assert_ne!(key(&project, Manager::Pip, "python3".as_ref()).unwrap(), first);
    }

    #[test]
    fn what_was_not_used_for_long_goes() {
        let cache = tempfile::tempdir().unwrap();
        let entry = cache.path().join("x");
        fs::create_dir(&entry).unwrap();
        remove_old(cache.path(), SystemTime::now());
        assert!(entry.exists());
        remove_old(cache.path(), SystemTime::now() + 2 * KEPT);
        assert!(!entry.exists());
    }
}
