//! Statements of many rows that are prepared once, since to parse the text of one costs more than to run it.

use std::sync::{Arc, OnceLock};

/// Rows of the statements that are kept; what is to be written is cut into these.
const SIZES: [usize; 4] = [128, 32, 8, 1];
/// Names remembered at once; few are different.
const NAMES: usize = 16;

/// A statement for one row, in texts for several rows.
pub struct Statements {
    shape: Shape,
    texts: OnceLock<[String; SIZES.len()]>,
}

enum Shape {
    Insert { head: &'static str, columns: usize },
    Repeated(&'static str),
}

impl Statements {
    /// An insert, of a text that ends in `VALUES` and rows of so many columns.
    pub const fn new(head: &'static str, columns: usize) -> Self {
        Self {
            shape: Shape::Insert { head, columns },
            texts: OnceLock::new(),
        }
    }

    /// A whole statement, with its semicolon, which is said once a row: one round trip to the thread that SQLite has for many.
    pub const fn repeated(statement: &'static str) -> Self {
        Self {
            shape: Shape::Repeated(statement),
            texts: OnceLock::new(),
        }
    }

    /// Cuts rows into what one statement writes, each with the statement.
    pub fn chunks<'r, T>(&'static self, rows: &'r [T]) -> impl Iterator<Item = (&'static str, &'r [T])> {
        let texts = self.texts.get_or_init(|| SIZES.map(|size| self.text(size)));
        let mut rest = rows;
        std::iter::from_fn(move || {
            let (text, size) = texts.iter().zip(SIZES).find(|(_, size)| *size <= rest.len())?;
            let (chunk, after) = rest.split_at(size);
            rest = after;
            Some((text.as_str(), chunk))
        })
    }

    fn text(&self, rows: usize) -> String {
        match self.shape {
            Shape::Insert { head, columns } => {
                let row = format!("({})", vec!["?"; columns].join(","));
                format!("{head}{}", vec![row.as_str(); rows].join(","))
            }
            Shape::Repeated(statement) => statement.repeat(rows),
        }
    }
}

/// Texts that come again and again, each allocated once.
#[derive(Default)]
pub struct Names(Vec<Arc<str>>);

impl Names {
    /// The text, shared.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        if self.0.len() < NAMES {
            self.0.push(Arc::clone(&new));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_statements_that_hold_them() {
        static STATEMENTS: Statements = Statements::new("INSERT INTO t VALUES ", 2);
        let rows: Vec<usize> = (0..307).collect();
        let mut seen = Vec::new();
        for (sql, chunk) in STATEMENTS.chunks(&rows) {
            assert_eq!(sql.matches("(?,?)").count(), chunk.len());
            seen.extend_from_slice(chunk);
        }
        assert_eq!(seen, rows);
        assert_eq!(STATEMENTS.chunks(&rows).count(), 2 + 1 + 2 + 3);
    }
}
