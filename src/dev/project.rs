//! The folder that the author works in: what is in it that counts, and copies of it.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::runner::Runtime;

/// Name of a script whose folder has none that could be one.
const UNNAMED: &str = "script";
/// Longest name of a script.
const MAX_NAME: usize = 52;
/// What a script's folder may hold, so that a home folder is not taken for one.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 1 << 30;
/// Packages that npm has put there.
const NODE_MODULES: &str = "node_modules";

/// Why a folder can not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// It can not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no entry point.
    #[error("{} has neither main.py nor main.js, the file whose functions are called; name the script's folder: scriptscope dev DIR", .0.display())]
    NoEntryPoint(PathBuf),
    /// It has two.
    #[error("{} has both main.py and main.js; choose one with --runtime python or --runtime node", .0.display())]
    TwoEntryPoints(PathBuf),
    /// It holds too much.
    #[error("{} holds more than {MAX_FILES} files or 1 GiB; name the script's own folder", .0.display())]
    TooLarge(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ProjectError {
    let path = path.to_owned();
    move |source| ProjectError::Io { path, source }
}

/// A script's folder.
#[derive(Clone, Debug)]
pub struct Project {
    /// Where it is, absolute.
    pub folder: PathBuf,
    /// Its language.
    pub runtime: Runtime,
    /// Name of the script.
    pub name: String,
    /// A database, and what lies beside it under its name, is no part of the script.
    database: Option<PathBuf>,
}

/// A file of the project.
#[derive(Debug)]
struct Entry {
    /// Within the folder.
    path: PathBuf,
    bytes: u64,
    is_link: bool,
}

/// What counts of a folder.
#[derive(Debug, Default)]
struct Tree {
    folders: Vec<PathBuf>,
    files: Vec<Entry>,
    bytes: u64,
}

impl Project {
    /// The project in `folder`. `database` is where runs are kept, if they are.
    pub fn find(
        folder: &Path,
        runtime: Option<Runtime>,
        database: Option<&Path>,
    ) -> Result<Self, ProjectError> {
        let folder = folder.canonicalize().map_err(at(folder))?;
        let has = |runtime: Runtime| folder.join(runtime.entry_point()).exists();
        let runtime = match (runtime, has(Runtime::Python), has(Runtime::Node)) {
            (Some(runtime), ..) => runtime,
            (None, true, false) => Runtime::Python,
            (None, false, true) => Runtime::Node,
            (None, true, true) => return Err(ProjectError::TwoEntryPoints(folder)),
            (None, false, false) => return Err(ProjectError::NoEntryPoint(folder)),
        };
        Ok(Self {
            name: script_name(&folder),
            folder,
            runtime,
            database: database.map(Path::to_owned),
        })
    }

    /// The same project in another folder.
    pub fn at(&self, folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            ..self.clone()
        }
    }

    /// Whether a name in one of its folders is that of something which does not count.
    pub fn ignores(&self, folder: &Path, name: &str) -> bool {
        let is_database = self.database.as_deref().is_some_and(|database| {
            let base = database.file_name().map(|name| name.to_string_lossy());
            database.parent() == Some(folder) && base.is_some_and(|base| name.starts_with(&*base))
        });
        is_database || is_passing(name)
    }

    /// Folders whose changes count, itself first.
    pub fn folders(&self) -> Result<Vec<PathBuf>, ProjectError> {
        Ok(self.tree()?.folders)
    }

    /// A hash of everything that counts; the same as long as nothing does.
    pub fn fingerprint(&self) -> Result<String, ProjectError> {
        let mut hash = Sha256::new();
        for file in self.tree()?.files {
            let path = self.folder.join(&file.path);
            hash.update(file.path.as_os_str().as_encoded_bytes());
            hash.update([0]);
            if file.is_link {
                let target = path.canonicalize().map_err(at(&path))?;
                hash.update(target.as_os_str().as_encoded_bytes());
            } else {
                let mut content = fs::File::open(&path).map_err(at(&path))?;
                hash.update(file.bytes.to_be_bytes());
                io::copy(&mut content, &mut hash).map_err(at(&path))?;
            }
        }
        Ok(hex(&hash.finalize()))
    }

    /// Copies what counts to `to`, so that neither an edit nor the script changes what a version runs. Packages that the
    /// project brings are linked.
    pub fn copy(&self, to: &Path) -> Result<(), ProjectError> {
        let tree = self.tree()?;
        for folder in &tree.folders {
            let inside = folder.strip_prefix(&self.folder).unwrap_or(Path::new(""));
            let folder = to.join(inside);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
        }
        for file in &tree.files {
            let (from, to) = (self.folder.join(&file.path), to.join(&file.path));
            if file.is_link {
                let target = from.canonicalize().map_err(at(&from))?;
                symlink(target, &to).map_err(at(&to))?;
            } else {
                fs::copy(&from, &to).map_err(at(&from))?;
            }
        }
        let modules = self.folder.join(NODE_MODULES);
        if modules.is_dir() {
            let link = to.join(NODE_MODULES);
            symlink(modules, &link).map_err(at(&link))?;
        }
        Ok(())
    }

    fn tree(&self) -> Result<Tree, ProjectError> {
        let mut tree = Tree::default();
        self.walk(&self.folder, &mut tree)?;
        Ok(tree)
    }

    /// In the order of names, so that the same files always come in the same order.
    fn walk(&self, folder: &Path, tree: &mut Tree) -> Result<(), ProjectError> {
        tree.folders.push(folder.to_owned());
        let listed: io::Result<Vec<_>> = fs::read_dir(folder).map_err(at(folder))?.collect();
        let mut entries = listed.map_err(at(folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            if self.ignores(folder, &name.to_string_lossy()) {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                // Gone since it was listed.
                continue;
            };
            // A link to a file is the file, one to a folder stays a link, and one to nowhere is nothing.
            let target = if metadata.is_symlink() {
                let Ok(target) = fs::metadata(&path) else { continue };
                target
            } else {
                metadata.clone()
            };
            if target.is_dir() && is_foreign(&path, &name.to_string_lossy()) {
                continue;
            }
            if target.is_dir() && !metadata.is_symlink() {
                self.walk(&path, tree)?;
            } else if target.is_dir() || target.is_file() {
                let is_link = target.is_dir();
                tree.bytes += if is_link { 0 } else { target.len() };
                tree.files.push(Entry {
                    path: path.strip_prefix(&self.folder).unwrap_or(&path).to_owned(),
                    bytes: target.len(),
                    is_link,
                });
            }
            if tree.files.len() > MAX_FILES || tree.bytes > MAX_BYTES {
                return Err(ProjectError::TooLarge(self.folder.clone()));
            }
        }
        Ok(())
    }
}

/// What editors and interpreters leave beside a file.
fn is_passing(name: &str) -> bool {
    name.ends_with('~')
        || name.starts_with(".#")
        // vim tries with this name whether it may write.
        || name == "4913"
        || [".pyc", ".swp", ".swx", ".swo"].iter().any(|end| name.ends_with(end))
}

/// Folders of tools, of installed packages, and caches.
fn is_foreign(path: &Path, name: &str) -> bool {
    name.starts_with('.') || matches!(name, "__pycache__" | NODE_MODULES) || path.join("pyvenv.cfg").exists()
}

/// A name as an object of Kubernetes has it, made of the folder's.
fn script_name(folder: &Path) -> String {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase());
    let name: String = name
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(MAX_NAME)
        .collect();
    match name.trim_end_matches('-') {
        "" => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[&str]) -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let database = folder.path().canonicalize().unwrap().join("runs.db");
        let project = Project::find(folder.path(), None, Some(&database)).unwrap();
        (folder, project)
    }

    #[test]
    fn names_are_those_that_an_object_can_have() {
        for (folder, name) in [
            ("/home/ada/Balance Check_2", "balance-check-2"),
            ("/x/2024-report-", "report"),
            ("/x/äöü", "script"),
            ("/", "script"),
        ] {
            assert_eq!(script_name(Path::new(folder)), name);
        }
        assert_eq!(script_name(Path::new(&"x".repeat(80))).len(), MAX_NAME);
    }

    #[test]
    fn the_entry_point_says_the_language() {
        let folder = tempfile::tempdir().unwrap();
        let find = |runtime| Project::find(folder.path(), runtime, None);
        assert!(matches!(find(None), Err(ProjectError::NoEntryPoint(_))));
        fs::write(folder.path().join("main.js"), "").unwrap();
        assert_eq!(find(None).unwrap().runtime, Runtime::Node);
        fs::write(folder.path().join("main.py"), "").unwrap();
        assert!(matches!(find(None), Err(ProjectError::TwoEntryPoints(_))));
        assert_eq!(find(Some(Runtime::Python)).unwrap().runtime, Runtime::Python);
    }

    #[test]
    fn only_what_is_the_scripts_counts() {
        let (folder, project) = project(&["main.py", "lib/rates.py", ".env"]);
        let before = project.fingerprint().unwrap();
        for noise in [
            ".git/HEAD",
            "__pycache__/main.pyc",
            "node_modules/a/index.js",
            "venv/pyvenv.cfg",
            "venv/lib/x.py",
            "main.py~",
            ".main.py.swp",
            "runs.db",
            "runs.db-wal",
        ] {
            let path = folder.path().join(noise);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        assert_eq!(project.fingerprint().unwrap(), before);
        let copy = folder.path().join(".copy");
        project.copy(&copy).unwrap();
        let copied = Project::find(&copy, None, None).unwrap();
        assert_eq!(copied.fingerprint().unwrap(), before);
        assert!(copy.join("node_modules/a/index.js").exists() && !copy.join("venv").exists());
        symlink("lib", folder.path().join("linked")).unwrap();
        let linked = project.fingerprint().unwrap();
        let second = folder.path().join(".second");
        project.copy(&second).unwrap();
        assert_eq!(project.at(&second).fingerprint().unwrap(), linked);
        fs::write(folder.path().join("lib/rates.py"), "EUR = 2").unwrap();
        assert_ne!(project.fingerprint().unwrap(), before);
    }
}
