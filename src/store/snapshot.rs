//! Reading at length what the store holds at one moment.

use async_trait::async_trait;

use super::{LogCursor, LogQuery, Page, RunCursor, RunQuery, StoreError};
use crate::model::{LogLine, RunDetail};

/// Snapshots that can be read at once; who wants a further one waits.
pub const SNAPSHOTS: u32 = EXPORT_SNAPSHOTS + DOWNLOAD_SNAPSHOTS;
/// Those of exports, which take turns.
pub const EXPORT_SNAPSHOTS: u32 = 22;
/// Those of downloads, which can do without.
pub const DOWNLOAD_SNAPSHOTS: u32 = 2;

/// What is read of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunParts {
    /// What a list of runs shows: id, status, version, response time, function, time, caller. The rest is empty.
    Listed,
    /// All but payloads.
    All,
    /// Also what went in and what came out; a page may be shorter than asked for where that is much.
    WithPayloads,
}

/// The rows of one script as they were at one moment (that of the first page), whatever is stored, merged or deleted
/// meanwhile.
///
/// It has a connection of its own, and the database keeps for it what it would clear away; so it is not to be held any
/// longer than reading takes, and never at the pace of somebody far away.
#[async_trait]
pub trait StoreSnapshot: Send {
    /// A page of runs.
    async fn runs(
        &mut self,
        query: &RunQuery,
        parts: RunParts,
    ) -> Result<Page<RunDetail, RunCursor>, StoreError>;

    /// A page of log lines.
    async fn logs(&mut self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError>;
}
