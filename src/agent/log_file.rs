//! An open log file, plain or compressed, read by offset.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::Duration,
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// How much of a file's first line identifies it.
const IDENTITY_BYTES: usize = 4 << 10;

/// Device and inode.
pub(super) type Inode = (u64, u64);

/// What the file system says of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileFacts {
    pub inode: Inode,
    pub size: u64,
    /// It has no name any more.
    pub deleted: bool,
    /// Since it was last written to.
    pub age: Duration,
}

/// An open log file.
pub(super) struct LogFile {
    file: File,
    compressed: bool,
    /// There only while the file is being read: a decoder takes a hundred times the memory of an open file.
    gzip: Option<Gzip>,
}

/// A decoder only goes forward, so the last bytes are kept: a reader comes back for the line that it cut.
struct Gzip {
    decoder: MultiGzDecoder<FromStart>,
    /// Decompressed bytes so far.
    at: u64,
    last: Vec<u8>,
}

const KEPT_BYTES: usize = 64 << 10;

/// Reads a file from its start, whoever else reads it: copies of a descriptor share their place in the file.
struct FromStart {
    file: File,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl LogFile {
    pub fn open(path: &Path, compressed: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self {
            file,
            compressed,
            gzip: None,
        })
    }

    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Whether it holds a decoder.
    pub fn is_decoding(&self) -> bool {
        self.gzip.is_some()
    }

    /// Lets the decoder go; reading begins another one.
    pub fn rest(&mut self) {
        self.gzip = None;
    }

    pub fn facts(&self) -> io::Result<FileFacts> {
        let metadata = self.file.metadata()?;
        Ok(FileFacts {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            deleted: metadata.nlink() == 0,
            age: metadata.modified()?.elapsed().unwrap_or_default(),
        })
    }

    /// Bytes in a compressed file, right after reading has found its end.
    pub fn decompressed_size(&self) -> Option<u64> {
        self.gzip.as_ref().map(|gzip| gzip.at)
    }

    /// Fills `buffer` from `offset` on (in decompressed bytes) as far as the file goes; says how far.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { file, gzip, .. } = self;
        if !self.compressed {
            return fill(buffer, |rest, done| file.read_at(rest, offset + done as u64));
        }
        let mut decoder = match gzip.take() {
            Some(gzip) => gzip,
            None => Gzip::begin(file)?,
        };
        let count = decoder.read_at(file, offset, buffer);
        *gzip = Some(decoder);
        count
    }

    /// The identity of a file: a hash of its first line, which holds a time in nanoseconds. None while that line is not
    /// complete; `sealed` says that it will not be.
    pub fn identity(&mut self, sealed: bool) -> io::Result<Option<String>> {
        let mut start = [0; IDENTITY_BYTES];
        let length = if self.compressed {
            Gzip::begin(&self.file)?.read_at(&self.file, 0, &mut start)?
        } else {
            self.read_at(0, &mut start)?
        };
        let start = &start[..length];
        let line = match memchr::memchr(b'\n', start) {
            Some(end) => &start[..end],
            None if length == IDENTITY_BYTES || (sealed && length > 0) => start,
            None => return Ok(None),
        };
        let digest = Sha256::digest(line);
        let first = digest
            .iter()
            .take(16)
            .fold(0_u128, |id, byte| id << 8 | u128::from(*byte));
        Ok(Some(format!("{first:032x}")))
    }
}

impl Gzip {
    fn begin(file: &File) -> io::Result<Self> {
        let from_start = FromStart {
            file: file.try_clone()?,
            at: 0,
        };
        Ok(Self {
            decoder: MultiGzDecoder::new(from_start),
            at: 0,
            last: Vec::new(),
        })
    }

    fn read_at(&mut self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if offset < self.at - self.last.len() as u64 {
            *self = Self::begin(file)?;
        }
        let kept = match self.at.checked_sub(offset).map(usize::try_from) {
            Some(Ok(back)) => &self.last[self.last.len() - back..],
            _ => &[],
        };
        let kept = &kept[..kept.len().min(buffer.len())];
        let reused = kept.len();
        buffer[..reused].copy_from_slice(kept);
        if reused == buffer.len() {
            return Ok(reused);
        }
        let skip = (offset + reused as u64).saturating_sub(self.at);
        self.at += io::copy(&mut self.decoder.by_ref().take(skip), &mut io::sink())?;
        if self.at < offset {
            self.last.clear();
            return Ok(0);
        }
        let decoded = fill(&mut buffer[reused..], |rest, _| self.decoder.read(rest))?;
        self.at += decoded as u64;
        let length = reused + decoded;
        self.last = buffer[length.saturating_sub(KEPT_BYTES)..length].to_vec();
        Ok(length)
    }
}

fn fill(buffer: &mut [u8], mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read(&mut buffer[done..], done) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_compressed_file_reads_like_the_plain_one() {
        let folder = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        let (plain, packed) = (folder.path().join("p"), folder.path().join("z"));
        std::fs::write(&plain, &text).unwrap();
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&packed).unwrap(), flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        encoder.finish().unwrap();
        let mut plain = LogFile::open(&plain, false).unwrap();
        let mut packed = LogFile::open(&packed, true).unwrap();
        assert_eq!(plain.identity(false).unwrap(), packed.identity(false).unwrap());
        let mut random = fastrand::Rng::with_seed(3);
        let mut at = 0;
        for _ in 0..200 {
            let length = random.usize(1..100_000);
            let (mut a, mut b) = (vec![0; length], vec![0; length]);
            let read = (
                plain.read_at(at, &mut a).unwrap(),
                packed.read_at(at, &mut b).unwrap(),
            );
            assert_eq!(read.0, read.1, "at {at}");
            assert!(a == b, "at {at}");
            // Mostly forward with a few bytes again, now and then back, at times beyond the end.
            at = (at + read.0 as u64).saturating_sub(random.u64(0..2_000));
            if random.u8(0..10) == 0 {
                at = random.u64(0..text.len() as u64 + 100);
            }
        }
    }
}
