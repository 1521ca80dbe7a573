//! Copies the runner into a script's pod.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Options of `scriptscope install`.
#[derive(clap::Args, Debug)]
pub struct InstallArgs {
    /// Folder to copy into; made if it is not there.
    #[arg(long, env = "SCRIPTSCOPE_HOME")]
    pub to: PathBuf,
}

/// A file could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be written: {source}", path.display())]
pub struct InstallError {
    path: PathBuf,
    source: io::Error,
}

/// A file of a worker, by its path in `worker/` and among the runner's files.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../../worker/", $path)))),*]
    };
}

/// What workers consist of.
const FILES: [(&str, &str); 22] = files![
    "node/korelogger/index.d.mts",
    "node/korelogger/index.d.ts",
    "node/korelogger/index.js",
    "node/korelogger/index.mjs",
    "node/korelogger/lib/bridge.js",
    "node/korelogger/lib/log.js",
    "node/korelogger/lib/pipe.js",
    "node/korelogger/lib/span.js",
    "node/korelogger/package.json",
    "node/lib/children.js",
    "node/lib/failure.js",
    "node/lib/load.js",
    "node/lib/result.js",
    "node/lib/signature.js",
    "node/lib/streams.js",
    "node/worker.js",
    "python/korelogger/__init__.py",
    "python/korelogger/_handler.py",
    "python/korelogger/_log.py",
    "python/korelogger/_span.py",
    "python/korelogger/py.typed",
    "python/worker.py",
];

/// Copies this binary and the workers; a file appears only when it is whole.
pub fn install(args: &InstallArgs) -> Result<(), InstallError> {
    let binary = args.to.join("scriptscope");
    fs::create_dir_all(&args.to).map_err(named(&args.to))?;
    place(&binary, 0o755, |new| {
        fs::copy(std::env::current_exe()?, new).map(drop)
    })
    .map_err(named(&binary))?;
    install_workers(&args.to)
}

/// Writes the workers alone into a folder.
pub fn install_workers(to: &Path) -> Result<(), InstallError> {
    for (name, text) in FILES {
        let path = to.join(name);
        write_text(&path, text).map_err(named(&path))?;
    }
    Ok(())
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError { path, source }
}

fn write_text(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    place(path, 0o644, |new| fs::write(new, text))
}

fn place(path: &Path, mode: u32, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    write(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files below a folder of `worker/`, but for what is no part of a worker.
    fn find(folder: &Path, found: &mut Vec<String>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker");
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let name = entry.file_name().into_string().unwrap();
            if matches!(
                name.as_str(),
                "__pycache__" | "tests" | "README.md" | "pyproject.toml"
            ) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                find(&path, found);
            } else {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_the_workers_is_installed() {
        let mut found = Vec::new();
        find(Path::new(""), &mut found);
        found.sort();
        assert_eq!(found, FILES.map(|(name, _)| name.to_owned()));
    }
}
