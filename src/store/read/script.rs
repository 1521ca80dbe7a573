//! One state of the database, as far as it is one script's.

use async_trait::async_trait;

use super::{
    Snapshot,
    following::{self, Reading},
};
use crate::{
    model::{LogLine, RunDetail},
    store::{LogCursor, LogQuery, Page, RunCursor, RunParts, RunQuery, StoreError, StoreSnapshot},
};

/// See [`StoreSnapshot`].
pub struct OfScript<S> {
    snapshot: S,
    script_id: Option<i64>,
    /// Where the last page of log lines ended.
    reading: Reading,
    /// Bytes for what is read ahead.
    memory: usize,
}

impl<S> OfScript<S> {
    /// Of a script that has stored nothing yet where there is no number.
    pub fn new(snapshot: S, script_id: Option<i64>) -> Self {
        Self {
            snapshot,
            script_id,
            reading: Reading::default(),
            memory: following::MOST_MEMORY,
        }
    }

    /// The same with another number of bytes for what is read ahead.
    #[cfg(test)]
    pub fn with_memory(self, memory: usize) -> Self {
        Self { memory, ..self }
    }
}

#[async_trait]
impl<S: Snapshot> StoreSnapshot for OfScript<S> {
    async fn runs(
        &mut self,
        query: &RunQuery,
        parts: RunParts,
    ) -> Result<Page<RunDetail, RunCursor>, StoreError> {
        match self.script_id {
            Some(id) => super::run_details(&mut self.snapshot, id, query, parts).await,
            None => Ok(Page::default()),
        }
    }

    async fn logs(&mut self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        match self.script_id {
            Some(id) => following::page(&mut self.snapshot, id, query, &mut self.reading, self.memory).await,
            None => Ok(Page::default()),
        }
    }
}
