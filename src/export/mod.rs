//! Files of runs and log lines, CSV and Parquet: pure writing, and the files on the volume and in S3.

pub mod columns;
pub mod csv;
mod disk;
mod encode;
pub mod file;
pub mod format;
mod live;
pub mod pages;
mod parquet;
pub mod range;
mod record;
pub mod rows;
pub mod s3;
mod writing;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Filter, FilterError, ScriptKey, TimeRange};

use columns::Columns;
use format::Format;

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// Runs.
    Runs,
    /// Log lines.
    Logs,
}

impl Table {
    /// Name of the file that holds rows of `script`.
    pub fn file_name(self, script: &str, format: Format) -> String {
        self.file_name_due(script, None, format)
    }

    /// The same of a file that a schedule asks for, with the minute it was due.
    pub fn file_name_due(self, script: &str, due: Option<Timestamp>, format: Format) -> String {
        let due = due.map_or_else(String::new, |due| due.strftime("_%Y-%m-%dT%H%MZ").to_string());
        format!("{script}_{}_data{due}.{}", self.subresource(), format.extension())
    }

    /// The subresource of `customscripts` that a reader needs `get` on.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Logs => "logs",
        }
    }

    /// Checks that every condition of the filter can be applied to these rows.
    pub fn check(self, filter: &Filter) -> Result<(), FilterError> {
        match self {
            Self::Runs => filter.check_runs(),
            Self::Logs => filter.check_logs(),
        }
    }
}

/// Which rows make a file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose rows.
    pub script: ScriptKey,
    /// What is said of them, and so what rows they are.
    pub columns: Columns,
    /// When they happened.
    pub range: TimeRange,
    /// Which of them.
    pub filter: Filter,
    /// When the file was due, if a schedule asks for it.
    pub due: Option<Timestamp>,
}

impl Plan {
    /// All columns that a file has if nothing is said.
    pub fn new(script: ScriptKey, table: Table, range: TimeRange, filter: Filter) -> Self {
        Self {
            script,
            columns: Columns::of(table),
            range,
            filter,
            due: None,
        }
    }

    /// Name of the file.
    pub fn file_name(&self, format: Format) -> String {
        self.table().file_name_due(&self.script.name, self.due, format)
    }

    /// What rows.
    pub fn table(&self) -> Table {
        self.columns.table()
    }
}

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The filter can not be applied.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// A row could not be formatted.
    #[error("a row could not be written as Parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// The volume is almost full.
    #[error(
        "the volume for exports has less than {} MiB left, which are kept for the store: delete exports, narrow the range, \
         or make the volume larger",
        .0 >> 20
    )]
    Full(u64),
    /// The writing broke down.
    #[error("the writing of the file broke down: {0}")]
    Broken(#[from] tokio::task::JoinError),
    /// The file could not be written.
    #[error("the file could not be written: {0}")]
    Io(#[from] std::io::Error),
    /// The description beside the file is not valid.
    #[error("the description of the export is not valid: {0}")]
    Sidecar(#[from] serde_json::Error),
    /// It could not be sent.
    #[error(transparent)]
    S3(#[from] s3::S3Error),
    /// A name that is not one of Kubernetes, and could lead out of the folder.
    #[error("{0:?} is not a name of a Kubernetes object")]
    Name(String),
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
