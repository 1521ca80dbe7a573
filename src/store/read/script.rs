//! One state of the database, as far as it is one script's.

use async_trait::async_trait;

use super::Snapshot;
use crate::{
    model::{LogLine, Run, RunDetail},
    store::{LogCursor, LogQuery, Page, RunCursor, RunQuery, StoreError, StoreSnapshot},
};

/// See [`StoreSnapshot`].
pub struct OfScript<S> {
    snapshot: S,
    script_id: Option<i64>,
}

impl<S> OfScript<S> {
    /// Of a script that has stored nothing yet where there is no number.
    pub fn new(snapshot: S, script_id: Option<i64>) -> Self {
        Self { snapshot, script_id }
    }
}

#[async_trait]
impl<S: Snapshot> StoreSnapshot for OfScript<S> {
    async fn runs(&mut self, query: &RunQuery) -> Result<Page<Run, RunCursor>, StoreError> {
        match self.script_id {
            Some(id) => super::runs(&mut self.snapshot, id, query).await,
            None => Ok(Page::default()),
        }
    }

    async fn run_details(&mut self, query: &RunQuery) -> Result<Page<RunDetail, RunCursor>, StoreError> {
        match self.script_id {
            Some(id) => super::run_details(&mut self.snapshot, id, query).await,
            None => Ok(Page::default()),
        }
    }

    async fn logs(&mut self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        match self.script_id {
            Some(id) => super::lines(&mut self.snapshot, id, query).await,
            None => Ok(Page::default()),
        }
    }
}
