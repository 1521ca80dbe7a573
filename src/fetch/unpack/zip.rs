//! Zip archives.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::{
    BUFFER, MAX_PATH, UnpackError, damaged,
    tree::{Place, Tree, shown},
};

/// Kinds of file in a Unix mode.
const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
/// Where the list of entries is described: so far from the end at most.
const TAIL: u64 = 22 + 0xffff;

/// Unpacks everything.
pub fn unpack(archive: &mut File, tree: &mut Tree) -> Result<(), UnpackError> {
    check_count(archive, tree.limits().entries)?;
    let reader = BufReader::with_capacity(BUFFER, archive);
    let mut archive = ZipArchive::new(reader).map_err(|error| unreadable("", error))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| match error {
            ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => {
                UnpackError::Encrypted(format!("number {}", index + 1))
            }
            error => unreadable("", error),
        })?;
        one(&mut entry, tree)?;
    }
    Ok(())
}

/// The library holds the list of entries in memory, so their number is looked at before. (0xffff stands for more.)
fn check_count(archive: &mut File, most: u64) -> Result<(), UnpackError> {
    let length = archive.seek(SeekFrom::End(0)).map_err(damaged)?;
    archive
        .seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .map_err(damaged)?;
    let mut tail = Vec::new();
    archive.take(TAIL).read_to_end(&mut tail).map_err(damaged)?;
    let counts = tail
        .windows(12)
        .filter(|window| window.starts_with(b"PK\x05\x06"))
        .filter_map(|window| Some(u16::from_le_bytes([*window.get(10)?, *window.get(11)?])));
    let mut found = false;
    for count in counts {
        found = true;
        if count == u16::MAX || u64::from(count) > most {
            return Err(UnpackError::TooMany(most));
        }
    }
    archive.seek(SeekFrom::Start(0)).map_err(damaged)?;
    if found {
        Ok(())
    } else {
        Err(UnpackError::Damaged("its list of entries is missing".to_owned()))
    }
}

fn one<R: Read>(entry: &mut ZipFile<'_, R>, tree: &mut Tree) -> Result<(), UnpackError> {
    let name = entry.name().map_err(|error| unreadable("", error))?.into_owned();
    // Some Windows programs write the wrong separator; a name with a colon or a zero is nobody's file.
    if name.contains(['\\', '\0']) {
        return Err(UnpackError::Outside(name));
    }
    let Some(place) = Place::new(Path::new(&name))? else {
        return Ok(());
    };
    if entry.encrypted() {
        return Err(UnpackError::Encrypted(name));
    }
    let mode = entry.unix_mode().unwrap_or(FILE | 0o644);
    let is_folder = name.ends_with('/');
    match mode & KIND {
        _ if is_folder => tree.folder(&place),
        FOLDER => tree.folder(&place),
        LINK => {
            let mut target = Vec::new();
            let mut content = entry.take(MAX_PATH as u64 + 1);
            content.read_to_end(&mut target).map_err(damaged)?;
            tree.link(place, Path::new(std::ffi::OsStr::from_bytes(&target)))
        }
        0 | FILE => tree.file(&place, mode & 0o111 != 0, entry).map(drop),
        _ => Err(UnpackError::Kind {
            name: shown(Path::new(&name)),
            kind: "a device, a pipe or a socket",
        }),
    }
}

fn unreadable(name: &str, error: ZipError) -> UnpackError {
    match error {
        ZipError::CompressionMethodNotSupported(method) => UnpackError::Damaged(format!(
            "{name}it is compressed by method {method}, which is not supported; use deflate"
        )),
        error => UnpackError::Damaged(error.to_string()),
    }
}
