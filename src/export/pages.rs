//! The rows of a plan as pieces of CSV, for a reader who takes them as they are made.

use std::sync::Arc;

use crate::store::Store;

use super::{
    ExportError, Plan,
    columns::Columns,
    csv,
    rows::{PageSize, RowPages},
};

/// How much a piece holds.
const SIZE: PageSize = PageSize {
    bytes: 2 << 20,
    rows: 8_192,
};

/// A piece of CSV.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvPage {
    /// Whole records; the first piece begins with the headings.
    pub bytes: Vec<u8>,
    /// Number of records, without the headings.
    pub rows: u64,
}

/// The pieces of a file, in order.
pub struct CsvPages {
    rows: RowPages<Arc<dyn Store>>,
    columns: Columns,
    is_first: bool,
}

impl CsvPages {
    /// The file that `plan` describes.
    pub fn new(store: Arc<dyn Store>, plan: Plan) -> Result<Self, ExportError> {
        let columns = plan.columns.clone();
        Ok(Self {
            rows: RowPages::new(store, plan, SIZE)?,
            columns,
            is_first: true,
        })
    }

    /// The next piece; none at the end. The first is there even without rows.
    pub async fn next_page(&mut self) -> Result<Option<CsvPage>, ExportError> {
        let Some(rows) = self.rows.next_page().await? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        if std::mem::take(&mut self.is_first) {
            csv::header(&self.columns, &mut bytes)?;
        }
        csv::rows(&self.columns, &rows, &mut bytes)?;
        Ok(Some(CsvPage {
            bytes,
            rows: rows.len() as u64,
        }))
    }
}
