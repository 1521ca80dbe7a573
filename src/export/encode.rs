//! Rows to bytes of a file, whatever its format. Blocking.

use std::{
    io::{self, BufWriter, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use zstd::stream::write::Encoder as ZstdEncoder;

use super::{
    ExportError,
    columns::Columns,
    csv,
    format::{Compression, Format},
    parquet::ParquetFile,
    rows::Rows,
};

/// Bytes written to a file at once.
const BUFFER: usize = 256 << 10;
/// Fast; higher levels cost more processor than they save disk.
const GZIP_LEVEL: u32 = 3;
const ZSTD_LEVEL: i32 = 1;

/// A file that counts and hashes what is written to it.
pub struct Hashed<W: Write> {
    inner: BufWriter<W>,
    hash: Sha256,
    bytes: Arc<AtomicU64>,
}

/// What was written.
pub struct Written {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl<W: Write> Hashed<W> {
    /// `bytes` tells how much was written so far.
    pub fn new(inner: W, bytes: Arc<AtomicU64>) -> Self {
        Self {
            inner: BufWriter::with_capacity(BUFFER, inner),
            hash: Sha256::new(),
            bytes,
        }
    }

    fn finish(self) -> io::Result<(Written, W)> {
        let inner = self.inner.into_inner().map_err(io::IntoInnerError::into_error)?;
        let written = Written {
            bytes: self.bytes.load(Ordering::Relaxed),
            sha256: self.hash.finalize().into(),
        };
        Ok((written, inner))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        self.bytes.fetch_add(taken as u64, Ordering::Relaxed);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file that is being written.
pub enum Encoder<W: Write + Send> {
    /// CSV as it is.
    Plain(Columns, Hashed<W>),
    /// CSV through gzip.
    Gzip(Columns, GzEncoder<Hashed<W>>),
    /// CSV through zstd.
    Zstd(Columns, ZstdEncoder<'static, Hashed<W>>),
    /// Parquet.
    Parquet(Box<ParquetFile<Hashed<W>>>),
}

impl<W: Write + Send> Encoder<W> {
    /// Begins a file: writes what it has before its rows.
    pub fn new(format: Format, columns: Columns, out: Hashed<W>) -> Result<Self, ExportError> {
        let (mut encoder, bom) = match format {
            Format::Parquet => return Ok(Self::Parquet(Box::new(ParquetFile::new(columns, out)?))),
            Format::Csv { compression, bom } => match compression {
                Compression::None => (Self::Plain(columns, out), bom),
                Compression::Gzip => {
                    let gzip = GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                    (Self::Gzip(columns, gzip), bom)
                }
                Compression::Zstd => {
                    let mut zstd = ZstdEncoder::new(out, ZSTD_LEVEL)?;
                    zstd.include_checksum(true)?;
                    (Self::Zstd(columns, zstd), bom)
                }
            },
        };
        if let Some((columns, out)) = encoder.csv() {
            if bom {
                out.write_all(csv::BYTE_ORDER_MARK.as_bytes())?;
            }
            csv::header(columns, Unflushed(out))?;
        }
        Ok(encoder)
    }

    /// Takes rows.
    pub fn rows(&mut self, rows: &Rows) -> Result<(), ExportError> {
        match self {
            Self::Parquet(file) => file.rows(rows)?,
            csv => {
                if let Some((columns, out)) = csv.csv() {
                    csv::rows(columns, rows, Unflushed(out))?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is left, and gives back what was written to.
    pub fn finish(self) -> Result<(Written, W), ExportError> {
        let out = match self {
            Self::Plain(_, out) => out,
            Self::Gzip(_, out) => out.finish()?,
            Self::Zstd(_, out) => out.finish()?,
            Self::Parquet(file) => file.finish()?,
        };
        Ok(out.finish()?)
    }

    fn csv(&mut self) -> Option<(&Columns, &mut dyn Write)> {
        match self {
            Self::Plain(columns, out) => Some((columns, out)),
            Self::Gzip(columns, out) => Some((columns, out)),
            Self::Zstd(columns, out) => Some((columns, out)),
            Self::Parquet(_) => None,
        }
    }
}

/// What is not flushed after every page: a compressor would begin a new block each time.
struct Unflushed<'a>(&'a mut dyn Write);

impl Write for Unflushed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
