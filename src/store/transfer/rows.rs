//! Rows of any table, whichever database they are from.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// The last number that each table has dealt out.
pub type Numbers = BTreeMap<&'static str, i64>;

/// A table; its columns are in the order of their names, which is the order of the values of its rows.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
}

impl Table {
    /// Its columns, for SQL.
    pub fn list(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| &*column.name).collect();
        names.join(", ")
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

impl Column {
    /// Whether both hold the same values.
    pub fn holds(a: &Self, b: &Self) -> bool {
        let plain = |kind| match kind {
            Kind::Small | Kind::Flag => Kind::Number,
            kind => kind,
        };
        a.name == b.name && plain(a.kind) == plain(b.kind)
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits.
    Number,
    /// 16 bits.
    Small,
    /// 0 or 1.
    Flag,
    Text,
    Bytes,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    /// Its size in bytes, about.
    pub fn len(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Number(_) => 8,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    fn hash(&self, hash: &mut Sha256) {
        let (tag, bytes): (u8, &[u8]) = match self {
            Self::Null => (0, &[]),
            Self::Number(number) => (1, &number.to_le_bytes()),
            Self::Text(text) => (2, text.as_bytes()),
            Self::Bytes(bytes) => (3, bytes),
        };
        hash.update([tag]);
        // With its length, so that two columns can not be taken for others.
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
}

/// The values of a row.
pub type Row = Vec<Value>;

/// The checksum of a table's rows, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// How many rows.
    pub rows: u64,
    /// Half of the SHA-256 of each row, added up. A sum, not an exclusive or: two equal rows do not vanish.
    pub sum: u128,
}

impl Checksum {
    /// Adds a row.
    pub fn add(&mut self, row: &Row) {
        let mut hash = Sha256::new();
        for value in row {
            value.hash(&mut hash);
        }
        let digest = hash.finalize();
        let half = digest
            .iter()
            .take(16)
            .fold(0, |sum: u128, byte| sum << 8 | u128::from(*byte));
        self.sum = self.sum.wrapping_add(half);
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[Row]) -> Checksum {
        let mut checksum = Checksum::default();
        for row in rows {
            checksum.add(row);
        }
        checksum
    }

    #[test]
    fn a_checksum_minds_every_value_and_no_order() {
        let text = |text: &str| Value::Text(text.to_owned());
        let (a, b) = (vec![Value::Number(1), text("ab")], vec![Value::Null, text("c")]);
        let both = of(&[a.clone(), b.clone()]);
        assert_eq!(both, of(&[b.clone(), a.clone()]));
        for other in [
            vec![a.clone()],
            vec![a.clone(), b.clone(), b.clone()],
            vec![a.clone(), vec![Value::Number(0), text("c")]],
            vec![a.clone(), vec![Value::Null, Value::Bytes(b"c".to_vec())]],
            vec![a.clone(), a.clone()],
        ] {
            assert_ne!(both, of(&other), "{other:?}");
        }
        // What a column ends with is not what the next begins with.
        assert_ne!(
            of(&[vec![text("ab"), text("c")]]),
            of(&[vec![text("a"), text("bc")]])
        );
    }
}
