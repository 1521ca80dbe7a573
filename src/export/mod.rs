//! CSV files of runs and log lines: pure writing, and the files on the volume.

pub mod csv;
pub mod file;
pub mod pages;
pub mod range;

use serde::{Deserialize, Serialize};

use crate::model::{Filter, FilterError, ScriptKey, TimeRange};

/// What the rows of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Table {
    /// Runs, eight columns.
    Runs,
    /// Log lines, four columns.
    Logs,
}

impl Table {
    /// Name of the file that holds rows of `script`.
    pub fn file_name(self, script: &str) -> String {
        format!("{script}_{}_data.csv", self.subresource())
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
    /// What rows.
    pub table: Table,
    /// When they happened.
    pub range: TimeRange,
    /// Which of them.
    pub filter: Filter,
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
    #[error("a row could not be written as CSV: {0}")]
    Csv(#[from] csv::CsvError),
    /// The file could not be written.
    #[error("the file could not be written: {0}")]
    Io(#[from] std::io::Error),
    /// The description beside the file is not valid.
    #[error("the description of the export is not valid: {0}")]
    Sidecar(#[from] serde_json::Error),
    /// A name that is not one of Kubernetes, and could lead out of the folder.
    #[error("{0:?} is not a name of a Kubernetes object")]
    Name(String),
}
