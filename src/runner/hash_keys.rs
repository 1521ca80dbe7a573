//! `scriptscope api-keys`: what runs beside a script's container that needs API keys. Reads a mounted Secret, writes the
//! hashes of its keys for the runner, and does so again whenever the Secret changes.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::prctl;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::keys::{HashedKeys, hashed};

/// The shortest key that is taken. The script can read the hashes, so that a key which can be guessed is none.
const SHORTEST: usize = 16;
/// The longest.
const LONGEST: usize = 4 << 10;
/// How often the Secret is looked at. The kubelet itself takes up to about a minute.
const LOOK: Duration = Duration::from_secs(2);

/// Options of `scriptscope api-keys`.
#[derive(clap::Args, Debug)]
pub struct HashKeysArgs {
    /// Folder with a file a key; the file's name is the key's.
    #[arg(long, env = "SCRIPTSCOPE_API_KEYS_FROM")]
    pub from: PathBuf,
    /// File to write the hashes to.
    #[arg(long, env = "SCRIPTSCOPE_API_KEYS")]
    pub to: PathBuf,
}

/// The hashes could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the hashes of the API keys could not be written to {}: {source}", path.display())]
pub struct HashKeysError {
    path: PathBuf,
    source: io::Error,
}

/// Keeps the hashes up to date until it is told to stop.
pub fn hash_keys(args: &HashKeysArgs) -> Result<(), HashKeysError> {
    let path = args.to.clone();
    // What this process knows is for nobody else.
    prctl::set_dumpable(false)
        .map_err(io::Error::from)
        .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build())
        .and_then(|runtime| runtime.block_on(follow(args)))
        .map_err(|source| HashKeysError { path, source })
}

async fn follow(args: &HashKeysArgs) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let (found, refused) = read(&args.from);
        let now = Some((found, refused));
        if now == written {
            continue;
        }
        if let Some((found, refused)) = &now {
            write(&args.to, found)?;
            tell(found, refused);
        }
        written = now;
    }
}

fn tell(found: &HashedKeys, refused: &[String]) {
    for name in refused {
        tracing::warn!(
            name,
            "An API key is not taken: it needs {SHORTEST} to {LONGEST} characters."
        );
    }
    if found.keys.is_empty() {
        tracing::warn!("No API key is there; every call is refused until the Secret holds one.");
    }
}

/// The keys in a folder, and the names of those that are too short or too long. A folder that is not there has none.
fn read(folder: &Path) -> (HashedKeys, Vec<String>) {
    let (mut found, mut refused) = (HashedKeys::default(), Vec::new());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // The kubelet's own links and folders begin with a dot.
        if name.starts_with('.') {
            continue;
        }
        let Ok(bytes) = read_file(&entry.path()) else {
            continue;
        };
        // Tools that write files like to end them with a newline.
        let key = bytes.trim_ascii();
        if (SHORTEST..=LONGEST).contains(&key.len()) {
            found.keys.insert(name, hashed(key));
        } else {
            refused.push(name);
        }
    }
    refused.sort_unstable();
    (found, refused)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(2 * LONGEST as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file is there as a whole or not at all.
fn write(path: &Path, keys: &HashedKeys) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(keys)?)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_the_kubelet_mounts_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..2026_01")).unwrap();
        fs::write(at("..2026_01/billing"), "0123456789abcdef\n").unwrap();
        std::os::unix::fs::symlink("..2026_01", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/billing", at("billing")).unwrap();
        fs::write(at("short"), "0123456789abcde\n").unwrap();
        fs::write(at("long"), "x".repeat(LONGEST + 1)).unwrap();
        let (found, refused) = read(folder.path());
        let expected = [("billing".to_owned(), hashed(b"0123456789abcdef"))];
        assert_eq!(found.keys, expected.into());
        assert_eq!(refused, ["long", "short"]);
        assert_eq!(read(&at("none")), (HashedKeys::default(), Vec::new()));
    }
}
