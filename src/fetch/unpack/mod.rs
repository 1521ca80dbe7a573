//! Archives to folders, whatever is in them: nothing is written outside the folder, and not without bound.
//!
//! No link exists while files are written: links are made last, so that nothing can be written through one. A link's
//! target may climb only at its beginning and only as far as the link's own depth, so it ends inside whatever other links
//! it meets on its way.

mod tar;
mod tree;
mod zip;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

pub use self::tree::Link;
use self::tree::Tree;

/// What an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// The longest path of an entry, in bytes.
const MAX_PATH: usize = 1_024;
/// How deep folders may lie in each other.
const MAX_DEPTH: usize = 64;

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Something else.
    #[error("it is no archive that can be unpacked; give a .zip, .tar, .tar.gz or .tgz")]
    NotAnArchive,
    /// A path out of the folder.
    #[error(
        "its entry {0:?} would be written outside the project's folder; archives need plain relative paths"
    )]
    Outside(String),
    /// A path that no file system takes.
    #[error(
        "its entry {0:?} has too long or too deep a path: at most {MAX_PATH} bytes and {MAX_DEPTH} folders"
    )]
    PathTooLong(String),
    /// A link out of the folder.
    #[error(
        "its entry {name:?} is a link to {target:?}, which leads outside the project's folder or may do so; leave it out"
    )]
    LinkOutside {
        /// The link.
        name: String,
        /// Its target.
        target: String,
    },
    /// A hard link to what was not there before.
    #[error("its entry {name:?} is a hard link to {target:?}, which is no earlier file of the archive")]
    LinkToNothing {
        /// The link.
        name: String,
        /// Its target.
        target: String,
    },
    /// A device and the like.
    #[error("its entry {name:?} is {kind}; only files, folders and links are unpacked")]
    Kind {
        /// The entry.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// One path for two things.
    #[error("its entry {0:?} is there twice, or as a file and a folder; make the archive anew")]
    Twice(String),
    /// Too many entries.
    #[error("it holds more than {0} files and folders; leave out what the script does not need")]
    TooMany(u64),
    /// Too many bytes.
    #[error("its files have more than {0} bytes together; leave out what the script does not need")]
    TooLarge(u64),
    /// Cannot be read.
    #[error("its entry {0:?} is encrypted; archives must not be")]
    Encrypted(String),
    /// Cannot be read, at all or from some point on.
    #[error("it is damaged or cut off: {0}")]
    Damaged(String),
    /// A file of the project could not be written.
    #[error("{name:?} could not be written: {source}")]
    Write {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks `archive`, whose format its content tells, into `folder`, which exists and is empty; the links that there are.
pub fn unpack(archive: &mut File, folder: &Path, limits: Limits) -> Result<Vec<Link>, UnpackError> {
    let mut tree = Tree::new(folder, limits);
    let mut start = [0; 512];
    let read = fill(archive, &mut start).map_err(damaged)?;
    archive.seek(SeekFrom::Start(0)).map_err(damaged)?;
    let start = start.get(..read).unwrap_or_default();
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        zip::unpack(archive, &mut tree)?;
    } else if start.starts_with(&[0x1f, 0x8b]) {
        let unzipped = MultiGzDecoder::new(io::BufReader::with_capacity(BUFFER, archive));
        tar::unpack(io::BufReader::with_capacity(BUFFER, unzipped), &mut tree)?;
    } else if tar::is_tar(start) {
        tar::unpack(io::BufReader::with_capacity(BUFFER, archive), &mut tree)?;
    } else {
        return Err(UnpackError::NotAnArchive);
    }
    tree.finish()
}

const BUFFER: usize = 64 << 10;

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn damaged(error: io::Error) -> UnpackError {
    UnpackError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests;
