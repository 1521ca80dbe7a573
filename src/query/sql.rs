//! A statement that is being written, with the values it speaks of apart from its text.

use std::{fmt, marker::PhantomData};

use sqlx::{AssertSqlSafe, Database, Encode, Type, query::Query};

use super::Dialect;

/// A statement and its values. Its text never has anything in it that came from outside: that is bound.
pub struct Sql<DB> {
    text: String,
    values: Vec<Value>,
    dialect: PhantomData<fn() -> DB>,
}

/// A value that a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl<DB: Dialect> Sql<DB> {
    /// Begins with `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            values: Vec::new(),
            dialect: PhantomData,
        }
    }

    /// Appends text of the statement itself.
    pub fn push(&mut self, text: impl fmt::Display) -> &mut Self {
        fmt::Write::write_fmt(&mut self.text, format_args!("{text}")).unwrap_or_default(); // a String takes everything
        self
    }

    /// Appends a value.
    pub fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        DB::push_placeholder(&mut self.text, self.values.len());
        self
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text, and the values in the order of their places in it.
    pub fn into_parts(self) -> (String, Vec<Value>) {
        (self.text, self.values)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// The statement as sqlx runs it, not kept for another time.
pub(super) fn query<DB>(sql: Sql<DB>) -> Query<'static, DB, <DB as Database>::Arguments>
where
    DB: Dialect + sqlx::database::HasStatementCache,
    i64: Encode<'static, DB> + Type<DB>,
    String: Encode<'static, DB> + Type<DB>,
    Vec<u8>: Encode<'static, DB> + Type<DB>,
{
    let (text, values) = sql.into_parts();
    let query = sqlx::query(AssertSqlSafe(text)).persistent(false);
    values.into_iter().fold(query, |query, value| match value {
        Value::Number(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Bytes(bytes) => query.bind(bytes),
    })
}
