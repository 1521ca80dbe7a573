//! An open file of a stream, and the listing that finds it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    follow::Listed,
    layout::LogName,
    log_file::{Inode, LogFile},
};

/// The most bytes in a chunk. Far more than the longest line that a runtime writes (16 KiB).
pub(super) const MAX_CHUNK_BYTES: usize = 1 << 20;

/// An open file of a stream.
pub(super) struct Held {
    pub file: LogFile,
    pub inode: Inode,
    pub name: LogName,
    pub identity: Option<String>,
    pub size: u64,
    pub deleted: bool,
    pub changed: Instant,
    /// Where reading found the end of a compressed file.
    pub end: Option<u64>,
}

impl Held {
    /// None if the name no longer stands for the file listed.
    pub fn open(folder: &Path, listed: &Listed, now: Instant) -> io::Result<Option<Self>> {
        let opened = LogFile::open(&folder.join(listed.name.to_string()), listed.name.compressed);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let facts = file.facts()?;
        if facts.inode != listed.inode {
            return Ok(None);
        }
        Ok(Some(Self {
            identity: file.identity(false).unwrap_or_default(),
            file,
            inode: facts.inode,
            name: listed.name.clone(),
            size: facts.size,
            deleted: facts.deleted,
            changed: now.checked_sub(facts.age).unwrap_or(now),
            end: None,
        }))
    }

    /// Looks how the file has changed.
    pub fn refresh(&mut self, now: Instant) {
        let Ok(facts) = self.file.facts() else { return };
        if facts.size != self.size {
            self.size = facts.size;
            self.changed = now;
        }
        self.deleted = facts.deleted;
        if self.identity.is_none() && self.size > 0 {
            self.identity = self.file.identity(false).unwrap_or_default();
        }
    }

    /// Whether it has no byte, and has had none for so long.
    pub fn is_empty_for(&self, quiet: Duration, now: Instant) -> bool {
        let is_empty = self.size == 0 || (self.file.is_compressed() && self.identity.is_none());
        is_empty && now.duration_since(self.changed) >= quiet
    }

    /// Reads bytes from `offset` on that end with a line into `buffer`; says how many, and the file's identity. None if
    /// there is no such line yet.
    pub fn read(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
        sealed: bool,
    ) -> io::Result<Option<(String, usize)>> {
        let limit = buffer.len().min(MAX_CHUNK_BYTES);
        let length = if self.file.is_compressed() {
            limit
        } else {
            usize::try_from(self.size - offset).unwrap_or(limit).min(limit)
        };
        let count = self.file.read_at(offset, &mut buffer[..length])?;
        let is_end = if self.file.is_compressed() {
            count < length
        } else {
            offset + count as u64 >= self.size
        };
        if count == 0 {
            self.end = self.file.decompressed_size();
            self.file.rest();
            return Ok(None);
        }
        let count = match memchr::memrchr(b'\n', &buffer[..count]) {
            Some(end) => end + 1,
            None if count >= MAX_CHUNK_BYTES || (sealed && is_end) => count,
            None => return Ok(None),
        };
        if self.identity.is_none() {
            self.identity = self.file.identity(sealed)?;
        }
        Ok(self.identity.clone().map(|identity| (identity, count)))
    }
}

/// The files of one restart in a container's folder, in the order they were written.
pub(super) fn list(folder: &Path, restart: u32) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(LogName::parse);
        let Some(name) = name.filter(|name| name.restart == restart) else {
            continue;
        };
        // Followed if it is a link, as opening it would.
        if let Ok(metadata) = fs::metadata(entry.path()) {
            let inode = (metadata.dev(), metadata.ino());
            listed.push(Listed { name, inode });
        }
    }
    listed.sort_by(|a, b| a.name.order().cmp(&b.name.order()));
    Ok(listed)
}
