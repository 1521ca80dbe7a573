//! The rows of a plan as pieces of CSV, read from the store page by page, so that no more than one is in memory.

use std::sync::Arc;

use crate::store::{LogCursor, RowQuery, RunCursor, Store};

use super::{ExportError, Plan, Table, csv};

/// Bytes of CSV a page should come to.
const PAGE_BYTES: usize = 2 << 20;
/// Rows of the first page, before the size of a row is known.
const FIRST_ROWS: usize = 500;
/// Rows a page has at least and at most.
const ROWS: (usize, usize) = (50, 8_192);

/// A piece of CSV.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvPage {
    /// Whole records; the first piece begins with the headings.
    pub bytes: Vec<u8>,
    /// Number of records, without the headings.
    pub rows: u64,
}

enum Next {
    First,
    Run(RunCursor),
    Line(LogCursor),
    End,
}

/// The pieces of a file, in order.
pub struct CsvPages {
    store: Arc<dyn Store>,
    plan: Plan,
    next: Next,
    limit: usize,
}

impl CsvPages {
    /// The file that `plan` describes.
    pub fn new(store: Arc<dyn Store>, plan: Plan) -> Result<Self, ExportError> {
        plan.table.check(&plan.filter)?;
        Ok(Self {
            store,
            plan,
            next: Next::First,
            limit: FIRST_ROWS,
        })
    }

    /// The next piece; none at the end. The first is there even without rows.
    pub async fn next_page(&mut self) -> Result<Option<CsvPage>, ExportError> {
        let mut page = CsvPage::default();
        let (run_cursor, line_cursor) = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::First => {
                page.bytes = csv::header(self.plan.table)?;
                (None, None)
            }
            Next::Run(cursor) => (Some(cursor), None),
            Next::Line(cursor) => (None, Some(cursor)),
        };
        let (body, rows) = match self.plan.table {
            Table::Runs => {
                let found = self.store.runs(&self.query(run_cursor)).await?;
                self.next = found.next.map_or(Next::End, Next::Run);
                (csv::runs(&found.rows)?, found.rows.len())
            }
            Table::Logs => {
                let found = self.store.logs(&self.query(line_cursor)).await?;
                self.next = found.next.map_or(Next::End, Next::Line);
                (csv::log_lines(&found.rows)?, found.rows.len())
            }
        };
        if let Some(row) = body.len().checked_div(rows) {
            self.limit = (PAGE_BYTES / row.max(1)).clamp(ROWS.0, ROWS.1);
        }
        page.bytes.extend_from_slice(&body);
        page.rows = rows as u64;
        Ok(Some(page))
    }

    fn query<C>(&self, after: Option<C>) -> RowQuery<C> {
        RowQuery {
            script: self.plan.script.clone(),
            range: self.plan.range,
            filter: self.plan.filter.clone(),
            after,
            limit: self.limit,
        }
    }
}
