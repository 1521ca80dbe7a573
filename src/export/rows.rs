//! The rows of a plan, read page by page, so that few are in memory.

use async_trait::async_trait;

use crate::{
    model::{LogLine, RunDetail},
    store::{LogCursor, LogQuery, Page, RowQuery, RunCursor, RunParts, RunQuery, StoreError, StoreSnapshot},
};

use super::{ExportError, Plan, Table};

/// Rows of the first page, before the size of a row is known.
const FIRST_ROWS: usize = 500;
/// The same of rows with what went into runs and what came out.
const FIRST_PAYLOADS: usize = 16;

/// A page of rows.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Runs; with what went in and came out only where that is asked for.
    Runs(Vec<RunDetail>),
    /// Log lines.
    Lines(Vec<LogLine>),
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Runs(runs) => runs.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes of text they are.
    fn text_bytes(&self) -> usize {
        match self {
            Self::Runs(runs) => runs.iter().map(run_bytes).sum(),
            Self::Lines(lines) => lines
                .iter()
                .map(|line| ROW_BYTES + line.message.len() + line.attributes.as_ref().map_or(0, String::len))
                .sum(),
        }
    }
}

/// What a row comes to beside its texts, about.
const ROW_BYTES: usize = 50;

fn run_bytes(detail: &RunDetail) -> usize {
    let (run, json) = (&detail.run, |json: &Option<Box<serde_json::value::RawValue>>| {
        json.as_ref().map_or(0, |json| json.get().len())
    });
    let error = detail.error.as_ref().map_or(0, |error| {
        error.message.len() + error.traceback.as_ref().map_or(0, String::len)
    });
    let texts = run.run_id.len() + run.function.len() + run.source.len();
    ROW_BYTES + texts + json(&detail.input) + json(&detail.output) + error
}

/// How large a page should be.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Bytes of text it should come to.
    pub bytes: usize,
    /// Rows it has at most.
    pub rows: usize,
}

/// What rows are read from.
#[async_trait]
pub trait Source: Send {
    /// A page of runs, with what is asked for of them.
    async fn runs(
        &mut self,
        query: &RunQuery,
        parts: RunParts,
    ) -> Result<Page<RunDetail, RunCursor>, StoreError>;
    /// A page of log lines.
    async fn lines(&mut self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError>;
}

/// The store as it was at one moment.
#[async_trait]
impl Source for Box<dyn StoreSnapshot> {
    async fn runs(
        &mut self,
        query: &RunQuery,
        parts: RunParts,
    ) -> Result<Page<RunDetail, RunCursor>, StoreError> {
        StoreSnapshot::runs(&mut **self, query, parts).await
    }

    async fn lines(&mut self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        self.logs(query).await
    }
}

enum Next {
    First,
    Run(RunCursor),
    Line(LogCursor),
    End,
}

/// The rows of a plan, page by page, newest first.
pub struct RowPages<S> {
    source: S,
    plan: Plan,
    size: PageSize,
    parts: RunParts,
    next: Next,
    limit: usize,
}

impl<S: Source> RowPages<S> {
    /// The rows that `plan` describes.
    pub fn new(source: S, plan: Plan, size: PageSize) -> Result<Self, ExportError> {
        plan.table().check(&plan.filter)?;
        let parts = plan.columns.parts();
        Ok(Self {
            source,
            plan,
            size,
            parts,
            next: Next::First,
            limit: match parts {
                RunParts::WithPayloads => FIRST_PAYLOADS,
                RunParts::Listed | RunParts::All => FIRST_ROWS,
            },
        })
    }

    /// The next page; none at the end. The first is there even without rows.
    pub async fn next_page(&mut self) -> Result<Option<Rows>, ExportError> {
        let (run_cursor, line_cursor) = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::First => (None, None),
            Next::Run(cursor) => (Some(cursor), None),
            Next::Line(cursor) => (None, Some(cursor)),
        };
        let rows = match self.plan.table() {
            Table::Runs => {
                let query = query(&self.plan, run_cursor, self.limit);
                let found = self.source.runs(&query, self.parts).await?;
                self.next = found.next.map_or(Next::End, Next::Run);
                Rows::Runs(found.rows)
            }
            Table::Logs => {
                let query = query(&self.plan, line_cursor, self.limit);
                let found = self.source.lines(&query).await?;
                self.next = found.next.map_or(Next::End, Next::Line);
                Rows::Lines(found.rows)
            }
        };
        if let Some(row) = rows.text_bytes().checked_div(rows.len()) {
            // Not at once as many as it takes: the next rows may be larger.
            let most = self.limit.saturating_mul(16).min(self.size.rows);
            self.limit = (self.size.bytes / row.max(1)).clamp(1, most);
        }
        Ok(Some(rows))
    }
}

/// The query of a plan for a page of `limit` rows after a row.
pub fn query<C>(plan: &Plan, after: Option<C>, limit: usize) -> RowQuery<C> {
    RowQuery {
        script: plan.script.clone(),
        range: plan.range,
        filter: plan.filter.clone(),
        after,
        limit,
    }
}
