//! Reading, the same on every backend: what is asked is written here once, a backend only runs it.

mod failures;
mod figures;
mod following;
mod lines;
mod runs;
mod script;
mod series;
mod tail;
mod tally;

use super::StoreError;
use crate::query::{Dialect, Sql, Stop};

pub use failures::failures;
pub use figures::{lifetime, of_versions, window};
pub use lines::{body as segment_body, count as count_lines, page as lines};
pub use runs::{count as count_runs, detail as run, details as run_details, page as runs};
pub use script::OfScript;
pub use series::series;
pub use tail::{between, position};

/// One state of the database, however many questions are asked of it. Dropped, it stops what is under way.
pub trait Snapshot: Send {
    /// How its SQL is written.
    type DB: Dialect;
    /// Its rows.
    type Row: Values;

    /// Shows the rows that a statement finds, one after the other. [`StoreError::TimeLimit`] once it is time to stop.
    fn each(
        &mut self,
        sql: Sql<Self::DB>,
        visit: impl FnMut(&Self::Row) -> Result<(), StoreError> + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What tells when to stop.
    fn stop(&self) -> &Stop;
}

/// Values of a row by their places, from 0.
pub trait Values {
    /// A whole number of any width, which may be absent.
    fn optional_number(&self, at: usize) -> Result<Option<i64>, StoreError>;
    /// A text which may be absent.
    fn optional_text(&self, at: usize) -> Result<Option<&str>, StoreError>;
    /// Bytes which may be absent.
    fn optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError>;

    /// A whole number of any width.
    fn number(&self, at: usize) -> Result<i64, StoreError> {
        self.optional_number(at)?.ok_or_else(|| absent(at))
    }

    /// A text.
    fn text(&self, at: usize) -> Result<&str, StoreError> {
        self.optional_text(at)?.ok_or_else(|| absent(at))
    }

    /// Bytes; none where there is no value.
    fn bytes(&self, at: usize) -> Result<&[u8], StoreError> {
        Ok(self.optional_bytes(at)?.unwrap_or_default())
    }
}

fn absent(at: usize) -> StoreError {
    StoreError::Corrupt(format!("a row without a value in column {at}"))
}

/// A statement that begins with `text`.
fn sql<S: Snapshot>(text: &str) -> Sql<S::DB> {
    Sql::new(text)
}

/// Appends `text` and a number.
fn push<S: Snapshot>(sql: &mut Sql<S::DB>, text: &str, number: i64) {
    sql.push(text);
    S::DB::number(sql, number);
}

/// As a limit of rows.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
