//! The init step of a script's pod that fetches the script's archive and unpacks it: `scriptscope fetch`.
//!
//! It runs in the script's own sandbox, never in the operator. [`download`] gets the bytes and checks their sum, [`unpack`]
//! trusts nothing in them, [`guard`] keeps cloud credentials out of reach.

mod download;
mod guard;
mod unpack;

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::termination::{self, EXIT_UNUSABLE};

pub use self::{
    download::{Address, AddressError, DownloadError, Sha256Error, Sha256Sum},
    unpack::{Limits, UnpackError},
};

/// The most that is downloaded, in bytes.
pub const MAX_ARCHIVE_BYTES: u64 = 1_000_000_000;
/// What an archive may hold.
pub const LIMITS: Limits = Limits {
    bytes: 4 << 30,
    entries: 50_000,
};
/// How long the download may take.
pub const TIME_LIMIT: Duration = Duration::from_mins(10);

/// Options of `scriptscope fetch`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the archive is: an http or https URL of a .zip, .tar, .tar.gz or .tgz.
    #[arg(long)]
    pub url: Address,
    /// SHA-256 of the archive.
    #[arg(long)]
    pub sha256: Sha256Sum,
    /// Folder to unpack into; what is in it is removed before.
    #[arg(long)]
    pub to: PathBuf,
    /// File that the project must have at its root.
    #[arg(long)]
    pub entry: String,
    /// Folder for the archive itself while it is unpacked.
    #[arg(long, default_value = "/tmp")]
    pub scratch: PathBuf,
    /// File to write the reason of a failure to.
    #[arg(long, hide = true)]
    pub termination_log: Option<PathBuf>,
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It did not arrive.
    #[error("spec.source.archive: {0}")]
    Download(#[from] DownloadError),
    /// It was refused.
    #[error("spec.source.archive: {address} was not unpacked: {source}")]
    Unpack {
        /// The archive.
        address: Address,
        /// Why.
        source: UnpackError,
    },
    /// It is some other project.
    #[error(
        "spec.source.archive: {address} has no file {entry}, the entry point, at its root or in its only folder; it holds {found}"
    )]
    EntryPoint {
        /// The archive.
        address: Address,
        /// What is missing.
        entry: String,
        /// What is there.
        found: String,
    },
    /// The disk.
    #[error("{} could not be written: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Fetches and unpacks; ends the process with [`EXIT_UNUSABLE`] when that can not be done.
pub fn run(args: Args) {
    match fetch(&args) {
        Ok(bytes) => tracing::info!(url = %args.url, bytes, "The archive was fetched and unpacked."),
        Err(error) => {
            termination::tell(args.termination_log, &error.to_string());
            std::process::exit(EXIT_UNUSABLE)
        }
    }
}

/// Fetches and unpacks; how many bytes the archive has.
pub fn fetch(args: &Args) -> Result<u64, FetchError> {
    args.url.check()?;
    let named = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Write { path, source }
    };
    empty(&args.to).map_err(named(&args.to))?;
    let mut archive = unnamed(&args.scratch).map_err(named(&args.scratch))?;
    let bytes = download::download(
        &args.url,
        args.sha256,
        &mut archive,
        MAX_ARCHIVE_BYTES,
        TIME_LIMIT,
    )?;
    let work = args.to.join(".scriptscope-unpacked");
    fs::create_dir(&work).map_err(named(&work))?;
    let refused = |source| FetchError::Unpack {
        address: args.url.clone(),
        source,
    };
    io::Seek::rewind(&mut archive).map_err(named(&args.scratch))?;
    let links = unpack::unpack(&mut archive, &work, LIMITS).map_err(refused)?;
    drop(archive);
    let project = if work.join(&args.entry).is_file() {
        work.clone()
    } else {
        let folder = only_folder(&work).map_err(named(&work))?;
        let folder = folder.filter(|folder| folder.join(&args.entry).is_file());
        let folder = folder.ok_or_else(|| FetchError::EntryPoint {
            address: args.url.clone(),
            entry: args.entry.clone(),
            found: listed(&work),
        })?;
        links
            .iter()
            .try_for_each(unpack::Link::check_stripped)
            .map_err(refused)?;
        folder
    };
    publish(&project, &args.to).map_err(named(&args.to))?;
    fs::remove_dir_all(&work).map_err(named(&work))?;
    Ok(bytes)
}

/// A file without a name: gone with the process, however that ends.
fn unnamed(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".scriptscope-{}", uuid::Uuid::new_v4().simple()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Makes the folder, or removes what an earlier try has left in it. (The folder itself is a volume's.)
pub(crate) fn empty(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The folder that holds everything else; macOS adds one of its own to archives.
fn only_folder(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut found = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == "__MACOSX" {
            continue;
        }
        if found.is_some() || !entry.file_type()?.is_dir() {
            return Ok(None);
        }
        found = Some(entry.path());
    }
    Ok(found)
}

fn publish(project: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(project)? {
        let entry = entry?;
        // The folder that was worked in may be the project itself.
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The first names in a folder, for a message.
fn listed(folder: &Path) -> String {
    const SHOWN: usize = 10;
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    match names.len() {
        0 => "nothing".to_owned(),
        count if count > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}
