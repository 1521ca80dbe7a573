//! Tar archives, in all the dialects that people have: long names by GNU or pax.

use std::{
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use tar::{Archive, Entry, EntryType, Header, PaxExtensions};

use super::{
    UnpackError, damaged,
    tree::{Place, Tree, shown},
};

/// The longest list of extra attributes of an entry, in bytes. They are held in memory.
const MAX_EXTENSION: u64 = 64 << 10;

/// Whether a file that begins so is a tar archive.
pub fn is_tar(start: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(start) else {
        return false;
    };
    let header = Header::from_byte_slice(block);
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    // The checksum counts its own field as eight blanks; archives older than ustar have nothing else to tell them by.
    let (before, after) = (block.get(..148), block.get(156..));
    let expected = sum(before.unwrap_or_default()) + sum(after.unwrap_or_default()) + 8 * u32::from(b' ');
    block.iter().all(|byte| *byte == 0) || header.cksum().is_ok_and(|found| found == expected)
}

/// What extension entries said of the next one.
#[derive(Default)]
struct Extended {
    name: Option<PathBuf>,
    target: Option<PathBuf>,
}

/// Unpacks everything. Extension entries are read here and not by the library, which would hold any size of them in memory.
pub fn unpack(reader: impl Read, tree: &mut Tree) -> Result<(), UnpackError> {
    let mut archive = Archive::new(reader);
    let mut extended = Extended::default();
    let mut seen = 0;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        // Also those that write nothing take their time.
        seen += 1;
        if seen > 4 * tree.limits().entries {
            return Err(UnpackError::TooMany(tree.limits().entries));
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => extended.name = Some(path_of(&extension(&mut entry)?)),
            EntryType::GNULongLink => extended.target = Some(path_of(&extension(&mut entry)?)),
            EntryType::XHeader => extended.read(&extension(&mut entry)?)?,
            EntryType::XGlobalHeader => drop(extension(&mut entry)?),
            _ => one(&mut entry, std::mem::take(&mut extended), tree)?,
        }
    }
    Ok(())
}

impl Extended {
    fn read(&mut self, attributes: &[u8]) -> Result<(), UnpackError> {
        for attribute in PaxExtensions::new(attributes) {
            let attribute = attribute.map_err(damaged)?;
            match attribute.key_bytes() {
                b"path" => self.name = Some(path_of(attribute.value_bytes())),
                b"linkpath" => self.target = Some(path_of(attribute.value_bytes())),
                _ => {}
            }
        }
        Ok(())
    }
}

fn extension(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, UnpackError> {
    let size = entry.header().entry_size().map_err(damaged)?;
    if size > MAX_EXTENSION {
        return Err(UnpackError::Damaged(format!(
            "an entry has {size} bytes of attributes; at most {MAX_EXTENSION} are read"
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned()
}

fn one(entry: &mut Entry<'_, impl Read>, extended: Extended, tree: &mut Tree) -> Result<(), UnpackError> {
    let header = entry.header();
    let path = extended.name.unwrap_or_else(|| path_of(&header.path_bytes()));
    let target = extended
        .target
        .or_else(|| header.link_name_bytes().map(|bytes| path_of(&bytes)))
        .unwrap_or_default();
    let (kind, size) = (header.entry_type(), header.entry_size().map_err(damaged)?);
    let executable = header.mode().is_ok_and(|mode| mode & 0o111 != 0);
    // The folder itself is there.
    let Some(place) = Place::new(&path)? else {
        return Ok(());
    };
    match kind {
        // Before ustar a folder was a file whose name ends so.
        EntryType::Regular if path.as_os_str().as_bytes().ends_with(b"/") => tree.folder(&place),
        EntryType::Regular | EntryType::Continuous => {
            let written = tree.file(&place, executable, entry)?;
            if written < size {
                let name = place.name();
                return Err(UnpackError::Damaged(format!(
                    "{name:?} ends after {written} of {size} bytes"
                )));
            }
            Ok(())
        }
        EntryType::Directory => tree.folder(&place),
        EntryType::Symlink => tree.link(place, &target),
        EntryType::Link => tree.hard_link(&place, &target),
        other => Err(UnpackError::Kind {
            name: shown(&path),
            kind: match other {
                EntryType::Char | EntryType::Block => "a device",
                EntryType::Fifo => "a pipe",
                EntryType::GNUSparse => "a sparse file",
                _ => "of an unknown type",
            },
        }),
    }
}
