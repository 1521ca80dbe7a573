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

/// What a worker consists of, below `python/`.
pub const PYTHON_FILES: [(&str, &str); 6] = [
    ("worker.py", include_str!("../../worker/python/worker.py")),
    (
        "korelogger/__init__.py",
        include_str!("../../worker/python/korelogger/__init__.py"),
    ),
    (
        "korelogger/_handler.py",
        include_str!("../../worker/python/korelogger/_handler.py"),
    ),
    (
        "korelogger/_log.py",
        include_str!("../../worker/python/korelogger/_log.py"),
    ),
    (
        "korelogger/_span.py",
        include_str!("../../worker/python/korelogger/_span.py"),
    ),
    (
        "korelogger/py.typed",
        include_str!("../../worker/python/korelogger/py.typed"),
    ),
];

/// Copies this binary and the workers; a file appears only when it is whole.
pub fn install(args: &InstallArgs) -> Result<(), InstallError> {
    let binary = args.to.join("scriptscope");
    let named = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { path, source }
    };
    fs::create_dir_all(&args.to).map_err(named(&args.to))?;
    place(&binary, 0o755, |new| {
        fs::copy(std::env::current_exe()?, new).map(drop)
    })
    .map_err(named(&binary))?;
    for (name, text) in PYTHON_FILES {
        let path = args.to.join("python").join(name);
        write_text(&path, text).map_err(named(&path))?;
    }
    Ok(())
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

    #[test]
    fn every_file_of_the_worker_is_installed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker/python");
        let mut found = vec!["worker.py".to_owned()];
        for entry in fs::read_dir(root.join("korelogger")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name != "__pycache__" {
                found.push(format!("korelogger/{name}"));
            }
        }
        found.sort();
        let mut embedded = PYTHON_FILES.map(|(name, _)| name.to_owned());
        embedded.sort();
        assert_eq!(found, embedded);
    }
}
