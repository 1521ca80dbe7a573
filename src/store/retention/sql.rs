//! Statements that mean the same on every backend, and what runs them.

use sqlx::{PgConnection, Row, Sqlite, SqliteConnection, postgres::PgRow, sqlite::SqliteRow};

use crate::{
    query::{Dialect, Sql},
    segment::Segment,
    store::{
        StoreError, postgres,
        read::{Snapshot, Values},
        sqlite,
    },
};
use futures::TryStreamExt;
use sqlx::Postgres;

/// A transaction that writes.
pub trait Write: Send {
    /// How its SQL is written.
    type DB: Dialect;
    /// Its rows.
    type Row: Values;

    /// Runs a statement; says how many rows it changed.
    fn execute(&mut self, sql: Sql<Self::DB>) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Shows the rows that a statement returns, one after the other.
    fn each(
        &mut self,
        sql: Sql<Self::DB>,
        visit: impl FnMut(&Self::Row) -> Result<(), StoreError> + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Stores a segment; a `full` one is never merged again.
    fn insert_segment(
        &mut self,
        script_id: i64,
        tier: i64,
        full: bool,
        segment: &Segment,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A connection within a transaction that writes.
pub struct Writing<'c, C>(pub &'c mut C);

/// The same for each kind of connection: sqlx can not be asked generically.
macro_rules! writing {
    ($connection:ty, $database:ty, $row:ty, $insert:path) => {
        impl Write for Writing<'_, $connection> {
            type DB = $database;
            type Row = $row;

            async fn execute(&mut self, sql: Sql<$database>) -> Result<u64, StoreError> {
                let done = <$database>::query(sql).execute(&mut *self.0).await?;
                Ok(done.rows_affected())
            }

            async fn each(
                &mut self,
                sql: Sql<$database>,
                mut visit: impl FnMut(&$row) -> Result<(), StoreError> + Send,
            ) -> Result<(), StoreError> {
                let mut rows = <$database>::query(sql).fetch(&mut *self.0);
                while let Some(row) = rows.try_next().await? {
                    visit(&row)?;
                }
                Ok(())
            }

            async fn insert_segment(
                &mut self,
                script_id: i64,
                tier: i64,
                full: bool,
                segment: &Segment,
            ) -> Result<(), StoreError> {
                $insert(&mut *self.0, script_id, tier, full, segment).await
            }
        }
    };
}

writing!(SqliteConnection, Sqlite, SqliteRow, sqlite::insert_segment);
writing!(PgConnection, Postgres, PgRow, postgres::insert_segment);

impl Values for SqliteRow {
    fn optional_number(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn optional_text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.try_get(at)?)
    }
}

/// A statement that begins with `text`.
pub fn sql<DB: Dialect>(text: impl Into<String>) -> Sql<DB> {
    Sql::new(text)
}

/// Appends `text` and a number.
pub fn push<DB: Dialect>(sql: &mut Sql<DB>, text: &str, number: i64) {
    sql.push(text);
    DB::number(sql, number);
}

/// Appends numbers, separated by commas, and the closing bracket.
pub fn push_list<DB: Dialect>(sql: &mut Sql<DB>, numbers: impl IntoIterator<Item = i64>) {
    for (n, number) in numbers.into_iter().enumerate() {
        push(sql, if n > 0 { ", " } else { "" }, number);
    }
    sql.push(")");
}

/// Appends texts, separated by commas, and the closing bracket.
pub fn push_texts<DB: Dialect>(sql: &mut Sql<DB>, texts: &[String]) {
    for (n, text) in texts.iter().enumerate() {
        if n > 0 {
            sql.push(", ");
        }
        DB::text(sql, text.clone());
    }
    sql.push(")");
}

/// Appends a number or NULL.
pub fn push_optional<DB: Dialect>(sql: &mut Sql<DB>, text: &str, number: Option<i64>) {
    match number {
        Some(number) => push(sql, text, number),
        None => {
            sql.push(text).push("NULL");
        }
    }
}

/// The numbers in the first row of what a statement finds, `N` columns of it.
pub async fn first<S: Snapshot, const N: usize>(
    snapshot: &mut S,
    sql: Sql<S::DB>,
) -> Result<Option<[Option<i64>; N]>, StoreError> {
    let mut found = None;
    snapshot
        .each(sql, |row| {
            if found.is_none() {
                found = Some(numbers(row)?);
            }
            Ok(())
        })
        .await?;
    Ok(found)
}

/// The first `N` columns of a row, all of them numbers.
pub fn numbers<const N: usize>(row: &impl Values) -> Result<[Option<i64>; N], StoreError> {
    let mut numbers = [None; N];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.optional_number(at)?;
    }
    Ok(numbers)
}
