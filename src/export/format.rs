//! How a file is written: its format, and what follows from it. Pure.

use serde::{Deserialize, Serialize};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Format {
    /// Text, one record a line (RFC 4180).
    Csv {
        /// What the text is compressed with.
        compression: Compression,
        /// Whether it begins with a byte order mark, by which Excel knows UTF-8.
        bom: bool,
    },
    /// Apache Parquet, compressed with zstd.
    Parquet,
}

/// What a CSV file is compressed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Compression {
    /// Nothing.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Default for Format {
    fn default() -> Self {
        Self::Csv {
            compression: Compression::None,
            bom: false,
        }
    }
}

impl Format {
    /// How names of its files end, without the first dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv { compression, .. } => match compression {
                Compression::None => "csv",
                Compression::Gzip => "csv.gz",
                Compression::Zstd => "csv.zst",
            },
            Self::Parquet => "parquet",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv { compression, .. } => match compression {
                Compression::None => "text/csv; charset=utf-8; header=present",
                Compression::Gzip => "application/gzip",
                Compression::Zstd => "application/zstd",
            },
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}
