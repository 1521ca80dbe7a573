//! The init step of a script's pod that installs the packages which the script asks for: `scriptscope dependencies`.
//!
//! It runs in the image that the script runs in, in the same sandbox, and uses that image's pip or npm. What it prints is
//! the container's log; where it fails, the end of that is the reason that people see.

use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead, BufReader, PipeReader, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;

use crate::{
    fetch::empty,
    termination::{self, EXIT_UNUSABLE},
};

/// How long an installation may take.
pub const TIME_LIMIT: Duration = Duration::from_mins(10);
/// How much of what the installation prints is kept for the reason of its failure.
const TAIL_BYTES: usize = 3_000;
const TAIL_LINES: usize = 40;
/// Folder of what npm has downloaded, in the temporary one.
const NPM_CACHE: &str = ".npm";
/// How often a running installation is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long its last lines are waited for once it has ended.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manager {
    /// Python's, which reads requirements.txt.
    Pip,
    /// Node's, which reads package.json and package-lock.json.
    Npm,
}

impl Manager {
    /// The file at the project's root that names the packages.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Pip => "requirements.txt",
            Self::Npm => "package.json",
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
        }
    }
}

/// Options of `scriptscope dependencies`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What installs.
    #[arg(long, value_enum)]
    pub manager: Manager,
    /// Folder of the script.
    #[arg(long, env = "SCRIPTSCOPE_APP", default_value = "/app")]
    pub app: PathBuf,
    /// Folder to install into; what is in it is removed before.
    #[arg(long)]
    pub to: PathBuf,
    /// The Python interpreter.
    #[arg(long, env = "SCRIPTSCOPE_PYTHON", default_value = "python3")]
    pub python: PathBuf,
    /// Home and temporary folder of the installation.
    #[arg(long, default_value = "/tmp")]
    pub scratch: PathBuf,
    /// Seconds that it may take.
    #[arg(long, default_value_t = TIME_LIMIT.as_secs())]
    pub timeout_seconds: u64,
    /// File to write the reason of a failure to.
    #[arg(long, hide = true)]
    pub termination_log: Option<PathBuf>,
}

/// Why the packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum DependenciesError {
    /// The image can not do it.
    #[error(
        "{manifest} can not be installed, the image has no {missing} ({why}); set spec.runtimeImage to an image that has it, or give the script with its packages as spec.source.image"
    )]
    NoManager {
        /// What asks for packages.
        manifest: &'static str,
        /// What is not there.
        missing: String,
        /// What the system says.
        why: String,
    },
    /// It ended with an error.
    #[error("{manifest} could not be installed, {manager} ended with {status}:\n{tail}")]
    Failed {
        /// What asks for packages.
        manifest: &'static str,
        /// What installs.
        manager: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        tail: String,
    },
    /// It took too long.
    #[error("{manifest} was not installed within {seconds} s; the last that {manager} said:\n{tail}")]
    Timeout {
        /// What asks for packages.
        manifest: &'static str,
        /// What installs.
        manager: &'static str,
        /// How long it had.
        seconds: u64,
        /// The end of what it printed.
        tail: String,
    },
    /// The file is none.
    #[error("package.json can not be read: {0}")]
    Manifest(serde_json::Error),
    /// The system.
    #[error("{} could not be prepared: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The script asks for no packages, or brings them.
    Nothing,
    /// What it asks for.
    Packages,
}

/// Installs; ends the process with [`EXIT_UNUSABLE`] when that can not be done.
pub fn run(args: Args) {
    match install(&args) {
        Ok(Installed::Packages) => tracing::info!("The packages were installed."),
        Ok(Installed::Nothing) => tracing::info!("The script asks for no packages."),
        Err(error) => {
            termination::tell(args.termination_log, &error.to_string());
            std::process::exit(EXIT_UNUSABLE)
        }
    }
}

/// Installs what the project asks for, if it does.
pub fn install(args: &Args) -> Result<Installed, DependenciesError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| DependenciesError::Io { path, source }
    };
    empty(&args.to).map_err(io(&args.to))?;
    match args.manager {
        manager if !has_work(manager, &args.app)? => Ok(Installed::Nothing),
        Manager::Pip => {
            with_pip(args)?;
            Ok(Installed::Packages)
        }
        Manager::Npm => {
            prepare_npm(&args.app, &args.to).map_err(io(&args.to))?;
            let cache = args.scratch.join(NPM_CACHE);
            with_npm(args, &cache)?;
            // The script's temporary folder is the same one.
            if cache.exists() {
                fs::remove_dir_all(&cache).map_err(io(&cache))?;
            }
            make_importable(&args.to).map_err(io(&args.to))?;
            Ok(Installed::Packages)
        }
    }
}

/// Whether the project asks for packages that it does not bring.
pub fn has_work(manager: Manager, app: &Path) -> Result<bool, DependenciesError> {
    let asks = app.join(manager.manifest()).is_file();
    match manager {
        Manager::Npm if asks => npm_has_work(app),
        _ => Ok(asks),
    }
}

fn with_pip(args: &Args) -> Result<(), DependenciesError> {
    let manifest = args.manager.manifest();
    let missing = |what: String, why: String| DependenciesError::NoManager {
        manifest,
        missing: what,
        why,
    };
    let python = args.python.display().to_string();
    let probe = Command::new(&args.python)
        .args(["-c", "import pip"])
        .current_dir(&args.scratch)
        .output()
        .map_err(|error| missing(python, error.to_string()))?;
    if !probe.status.success() {
        let text = String::from_utf8_lossy(&probe.stderr);
        let why = text.trim().lines().last().unwrap_or_default().to_owned();
        return Err(missing("pip".to_owned(), why));
    }
    let mut command = Command::new(&args.python);
    command
        .args(["-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--no-input"])
        .args(["--progress-bar", "off", "--requirement", manifest, "--target"])
        .arg(&args.to)
        // Relative paths in the file mean the project's.
        .current_dir(&args.app)
        .env("PIP_ROOT_USER_ACTION", "ignore");
    follow(command, args)
}

#[derive(Deserialize)]
struct Package {
    #[serde(default)]
    dependencies: serde_json::Map<String, serde_json::Value>,
    #[serde(default, rename = "optionalDependencies")]
    optional: serde_json::Map<String, serde_json::Value>,
}

/// Whether package.json asks for packages that the project does not bring.
fn npm_has_work(app: &Path) -> Result<bool, DependenciesError> {
    let path = app.join(Manager::Npm.manifest());
    let text = fs::read(&path).map_err(|source| DependenciesError::Io { path, source })?;
    let package: Package = serde_json::from_slice(&text).map_err(DependenciesError::Manifest)?;
    let asks = !package.dependencies.is_empty() || !package.optional.is_empty();
    Ok(asks && !app.join("node_modules").is_dir())
}

/// npm writes beside package.json, and the script's folder can not be written: its own files are copied, and what these may
/// refer to is linked.
fn prepare_npm(app: &Path, to: &Path) -> io::Result<()> {
    const COPIED: [&str; 4] = [
        "package.json",
        "package-lock.json",
        "npm-shrinkwrap.json",
        ".npmrc",
    ];
    for entry in fs::read_dir(app)? {
        let entry = entry?;
        let name = entry.file_name();
        if COPIED.iter().any(|copied| name == *copied) {
            fs::copy(entry.path(), to.join(&name))?;
        } else {
            symlink(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}

fn with_npm(args: &Args, cache: &Path) -> Result<(), DependenciesError> {
    let locked = ["package-lock.json", "npm-shrinkwrap.json"];
    let locked = locked.iter().any(|name| args.to.join(name).is_file());
    let mut command = Command::new("npm");
    command
        .arg(if locked { "ci" } else { "install" })
        .args(["--omit=dev", "--no-audit", "--no-fund", "--no-progress"])
        .arg("--no-update-notifier")
        .current_dir(&args.to)
        .env("npm_config_cache", cache);
    if !locked {
        command.arg("--no-package-lock");
    }
    follow(command, args)
}

/// The folder is seen by the script as `/node_modules`, where Node looks last of all, and what npm made lies in a folder
/// `node_modules` of that: a link each makes it found, and what it links to finds its neighbours.
fn make_importable(to: &Path) -> io::Result<()> {
    let modules = match fs::read_dir(to.join("node_modules")) {
        Ok(modules) => modules,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in modules {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        // A link to the project's file or folder of this name; the others stay, npm's own links may lead through them.
        let link = to.join(&name);
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(Path::new("node_modules").join(&name), link)?;
    }
    Ok(())
}

/// Runs the installation to its end, passing on what it prints.
fn follow(mut command: Command, args: &Args) -> Result<(), DependenciesError> {
    let (manager, manifest) = (args.manager.name(), args.manager.manifest());
    let failed = |source: io::Error| DependenciesError::NoManager {
        manifest,
        missing: manager.to_owned(),
        why: source.to_string(),
    };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let also = writer.try_clone().map_err(failed)?;
    command
        .env("HOME", &args.scratch)
        .env("TMPDIR", &args.scratch)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(also)
        .process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    // Its ends of the pipe are the child's alone now.
    drop(command);
    let group = Pid::from_raw(child.id().cast_signed());
    let (lines, tail) = mpsc::channel();
    thread::spawn(move || pass_on(reader, &lines));
    let limit = Duration::from_secs(args.timeout_seconds);
    let began = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if began.elapsed() < limit => thread::sleep(LOOK),
            Ok(None) => break None,
            Err(error) => return Err(failed(error)),
        }
    };
    // Also what it has left behind, which would hold the pipe.
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
    let tail = tail.recv_timeout(LAST_LINES).unwrap_or_default();
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(DependenciesError::Failed {
            manifest,
            manager,
            status,
            tail,
        }),
        None => Err(DependenciesError::Timeout {
            manifest,
            manager,
            seconds: args.timeout_seconds,
            tail,
        }),
    }
}

/// Copies to standard output; sends the last lines once there are no more.
fn pass_on(reader: PipeReader, done: &mpsc::Sender<String>) {
    let mut tail = Tail::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end is not kept whole.
        match io::Read::take(&mut reader, TAIL_BYTES as u64).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => {}
            _ => break,
        }
        let _ = io::stdout().write_all(&line);
        tail.push(String::from_utf8_lossy(&line).trim_end());
    }
    let _ = done.send(tail.text());
}

/// The last lines, within bounds.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.bytes += line.len() + 1;
        self.lines.push_back(line.to_owned());
        while self.lines.len() > TAIL_LINES || (self.bytes > TAIL_BYTES && self.lines.len() > 1) {
            let gone = self.lines.pop_front();
            self.bytes -= gone.map_or(0, |line| line.len() + 1);
        }
    }

    fn text(self) -> String {
        Vec::from(self.lines).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines_within_bounds() {
        let mut tail = Tail::default();
        (0..1_000).for_each(|n| tail.push(&format!("line {n}")));
        tail.push("");
        let text = tail.text();
        assert_eq!(text.lines().count(), TAIL_LINES);
        assert!(text.ends_with("line 999"), "{text}");
        let mut tail = Tail::default();
        for letter in ["x", "y"] {
            tail.push(&letter.repeat(TAIL_BYTES - 10));
        }
        assert_eq!(tail.text(), "y".repeat(TAIL_BYTES - 10));
    }

    #[test]
    fn only_packages_that_the_project_does_not_bring_are_work_for_npm() {
        let app = tempfile::tempdir().unwrap();
        let work = |text: &str| {
            fs::write(app.path().join("package.json"), text).unwrap();
            npm_has_work(app.path())
        };
        assert!(!work(r#"{"type": "module", "devDependencies": {"a": "1"}}"#).unwrap());
        assert!(work(r#"{"dependencies": {"a": "1"}}"#).unwrap());
        assert!(
            work("{")
                .unwrap_err()
                .to_string()
                .starts_with("package.json can not be read")
        );
        fs::create_dir(app.path().join("node_modules")).unwrap();
        assert!(!work(r#"{"dependencies": {"a": "1"}}"#).unwrap());
    }
}
