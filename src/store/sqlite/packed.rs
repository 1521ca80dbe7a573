//! Rows on their way from the thread that reads them: many in one piece of memory.

use rusqlite::types::ValueRef;

use crate::store::{StoreError, read::Values};

/// Rows that follow each other, and one of them that is looked at.
#[derive(Default)]
pub struct Rows {
    /// Of all rows, one after the other.
    cells: Vec<Cell>,
    /// What texts and bytes are parts of.
    bytes: Vec<u8>,
    columns: usize,
    /// First cell of the row that is looked at.
    at: usize,
}

#[derive(Clone, Copy)]
enum Cell {
    Null,
    Number(i64),
    Real,
    /// Start and length.
    Text(usize, usize),
    Bytes(usize, usize),
}

/// A piece of this size, in bytes, goes on its way.
const FULL: usize = 256 << 10;
/// So does one of so many cells.
const MOST_CELLS: usize = 16_384;

impl Rows {
    /// For rows of so many columns.
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            ..Self::default()
        }
    }

    /// Adds a value, the next of its row.
    pub fn add(&mut self, value: ValueRef<'_>) {
        let start = self.bytes.len();
        self.cells.push(match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Number(number),
            ValueRef::Real(_) => Cell::Real,
            ValueRef::Text(text) => {
                self.bytes.extend_from_slice(text);
                Cell::Text(start, text.len())
            }
            ValueRef::Blob(bytes) => {
                self.bytes.extend_from_slice(bytes);
                Cell::Bytes(start, bytes.len())
            }
        });
    }

    /// Whether it is large enough to go.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || self.cells.len() >= MOST_CELLS
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Looks at each row in turn.
    pub fn each(&mut self, mut visit: impl FnMut(&Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        for at in (0..self.cells.len()).step_by(self.columns.max(1)) {
            self.at = at;
            visit(self)?;
        }
        Ok(())
    }

    fn cell(&self, at: usize) -> Result<Cell, StoreError> {
        let cell = (at < self.columns)
            .then(|| self.cells.get(self.at + at))
            .flatten();
        cell.copied()
            .ok_or_else(|| StoreError::Corrupt(format!("a row without a column {at}")))
    }

    fn part(&self, start: usize, length: usize) -> &[u8] {
        self.bytes.get(start..start + length).unwrap_or_default()
    }
}

fn wrong(at: usize, what: &str) -> StoreError {
    StoreError::Corrupt(format!("a row whose column {at} is not {what}"))
}

impl Values for Rows {
    fn optional_number(&self, at: usize) -> Result<Option<i64>, StoreError> {
        match self.cell(at)? {
            Cell::Null => Ok(None),
            Cell::Number(number) => Ok(Some(number)),
            _ => Err(wrong(at, "a whole number")),
        }
    }

    fn optional_text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        match self.cell(at)? {
            Cell::Null => Ok(None),
            Cell::Text(start, length) => str::from_utf8(self.part(start, length))
                .map(Some)
                .map_err(|_| wrong(at, "UTF-8")),
            _ => Err(wrong(at, "a text")),
        }
    }

    fn optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        match self.cell(at)? {
            Cell::Null => Ok(None),
            Cell::Text(start, length) | Cell::Bytes(start, length) => Ok(Some(self.part(start, length))),
            _ => Err(wrong(at, "bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_as_they_went_in() {
        let mut rows = Rows::new(4);
        for n in 0..3 {
            rows.add(ValueRef::Integer(n));
            rows.add(ValueRef::Text("größe".as_bytes()));
            rows.add(ValueRef::Blob(&[0, 255]));
            rows.add(ValueRef::Null);
        }
        let mut seen = Vec::new();
        rows.each(|row| {
            seen.push(row.number(0)?);
            assert_eq!((row.text(1)?, row.bytes(2)?), ("größe", &[0, 255][..]));
            assert_eq!(row.optional_number(3)?, None);
            assert!(row.text(0).is_err() && row.number(1).is_err() && row.optional_number(4).is_err());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [0, 1, 2]);
        let mut invalid = Rows::new(1);
        invalid.add(ValueRef::Text(&[255]));
        assert!(invalid.each(|row| row.text(0).map(|_| ())).is_err());
    }
}
