//! A SQLite file as the source or the target of a copy.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::LocalBoxStream};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, QueryBuilder, Row as _, Sqlite, SqliteConnection, TypeInfo,
    ValueRef,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};

use super::{
    FROM, NUMBERED, Side, TO, TransferError, at,
    rows::{Column, Kind, Numbers, Row, Table, Value},
};
use crate::store::{
    StoreError,
    sqlite::{file, open},
};

/// Parameters of one statement; SQLite allows 32,766.
const PARAMETERS: usize = 30_000;
/// Rows of one statement.
const ROWS: usize = 500;
/// Pages kept while a file is written: its indexes are not in the order of its rows.
const CACHE_KIB: u32 = 64 << 10;

/// A file that is read or made.
pub struct SqliteSide {
    connection: SqliteConnection,
    _lock: Option<File>,
    making: Option<Making>,
}

/// A file that gets its name when it is whole.
struct Making {
    unfinished: PathBuf,
    path: PathBuf,
}

impl Drop for Making {
    fn drop(&mut self) {
        // Gone where it was finished.
        let _ = fs::remove_file(&self.unfinished);
    }
}

impl SqliteSide {
    /// The file at `path`, as it is at this moment.
    pub async fn source(path: &Path, force: bool) -> Result<Self, TransferError> {
        if !path.is_file() {
            return Err(at(FROM)(StoreError::Unusable(format!(
                "there is no file {}",
                path.display()
            ))));
        }
        let lock = open::try_lock(path).await.map_err(at(FROM))?;
        if lock.is_none() && !force {
            return Err(TransferError::InUse {
                side: FROM,
                message: format!(
                    "an operator runs on {}, and what it takes in meanwhile would be missing; stop it \
                     (kubectl scale --replicas=0), or say --force",
                    path.display()
                ),
            });
        }
        let begin = async {
            let mut connection = file::reading(path).connect().await?;
            sqlx::query("BEGIN").execute(&mut connection).await?;
            Ok(connection)
        };
        Ok(Self {
            connection: begin.await.map_err(at(FROM))?,
            _lock: lock,
            making: None,
        })
    }

    /// A new file at `path`.
    pub async fn target(path: &Path) -> Result<Self, TransferError> {
        if path.exists() {
            return Err(TransferError::NotEmpty(format!(
                "{} is there already; name another file, or move it away",
                path.display()
            )));
        }
        Self::begin(path).await.map_err(at(TO))
    }

    async fn begin(path: &Path) -> Result<Self, StoreError> {
        file::make_folder(path)?;
        let lock = open::try_lock(path).await?.ok_or_else(|| {
            StoreError::Unusable(format!("{} is in use by another process", path.display()))
        })?;
        let unfinished = file::beside(path, ".unfinished");
        // Of a copy that was broken off: nobody else has the lock.
        let _ = fs::remove_file(&unfinished);
        // Nothing of it counts until it is whole, so nothing is written twice.
        let options = SqliteConnectOptions::new()
            .filename(&unfinished)
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(false)
            .pragma("cache_size", format!("-{CACHE_KIB}"))
            .disable_statement_logging();
        let making = Making {
            unfinished,
            path: path.to_owned(),
        };
        open::migrate(options.clone()).await?;
        let mut connection = options.connect().await?;
        sqlx::query("BEGIN").execute(&mut connection).await?;
        Ok(Self {
            connection,
            _lock: Some(lock),
            making: Some(making),
        })
    }
}

#[async_trait(?Send)]
impl Side for SqliteSide {
    async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        let sql = "SELECT m.name, c.name, c.type FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
            WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY m.name, c.name";
        let mut tables: Vec<Table> = Vec::new();
        for row in sqlx::query(sql).fetch_all(&mut self.connection).await? {
            let (table, column, type_): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if tables.last().is_none_or(|last| last.name != table) {
                tables.push(Table {
                    name: table,
                    columns: Vec::new(),
                });
            }
            let kind = match &*type_ {
                "TEXT" => Kind::Text,
                "BLOB" => Kind::Bytes,
                _ => Kind::Number,
            };
            if let Some(last) = tables.last_mut() {
                last.columns.push(Column { name: column, kind });
            }
        }
        Ok(tables)
    }

    async fn migrations(&mut self) -> Result<Vec<i64>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
                .fetch_all(&mut self.connection)
                .await?,
        )
    }

    async fn count(&mut self, table: &str) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut self.connection)
            .await?;
        Ok(count.unsigned_abs())
    }

    fn rows<'a>(&'a mut self, table: &'a Table) -> LocalBoxStream<'a, Result<Row, StoreError>> {
        let sql = format!("SELECT {} FROM {}", table.list(), table.name);
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .fetch(&mut self.connection)
            .map(|row| row.map_err(StoreError::from).and_then(|row| values(&row)))
            .boxed_local()
    }

    async fn write(&mut self, table: &Table, rows: &[Row]) -> Result<(), StoreError> {
        let most = ROWS.min(PARAMETERS / table.columns.len().max(1));
        for chunk in rows.chunks(most) {
            let mut sql =
                QueryBuilder::<Sqlite>::new(format!("INSERT INTO {} ({}) ", table.name, table.list()));
            sql.push_values(chunk, |mut bound, row| {
                for value in row {
                    match value {
                        Value::Null => bound.push_bind(None::<i64>),
                        Value::Number(number) => bound.push_bind(*number),
                        Value::Text(text) => bound.push_bind(text.as_str()),
                        Value::Bytes(bytes) => bound.push_bind(bytes.as_slice()),
                    };
                }
            });
            let is_full = chunk.len() == most;
            sql.build()
                .persistent(is_full)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    async fn numbers(&mut self) -> Result<Numbers, StoreError> {
        let mut numbers = Numbers::new();
        for (table, column) in NUMBERED {
            let sql = format!(
                "SELECT max(coalesce((SELECT max({column}) FROM {table}), 0), \
                 coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0))"
            );
            let last = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_one(&mut self.connection)
                .await?;
            numbers.insert(table, last);
        }
        Ok(numbers)
    }

    async fn go_on_after(&mut self, numbers: &Numbers) -> Result<(), StoreError> {
        for (table, last) in numbers {
            // A table without AUTOINCREMENT (gaps) does not mind its row there.
            sqlx::query("DELETE FROM sqlite_sequence WHERE name = ?1")
                .bind(*table)
                .execute(&mut self.connection)
                .await?;
            sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)")
                .bind(*table)
                .bind(last)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        let Self {
            mut connection,
            _lock,
            making,
        } = *self;
        file::check(&mut connection).await?;
        connection.close().await?;
        match making {
            Some(making) => file::put_in_place(&making.unfinished, &making.path),
            None => Ok(()),
        }
    }
}

fn values(row: &SqliteRow) -> Result<Row, StoreError> {
    (0..row.len())
        .map(|column| {
            let raw = row.try_get_raw(column)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            let kind = raw.type_info().name().to_owned();
            Ok(match &*kind {
                "TEXT" => Value::Text(row.try_get(column)?),
                "BLOB" => Value::Bytes(row.try_get(column)?),
                _ => Value::Number(row.try_get(column)?),
            })
        })
        .collect()
}
