//! A read transaction that ends in time.
//!
//! A statement runs on a thread that may block; its rows come in packs ([`packed`](super::packed)), while they are looked
//! at here. sqlx would make a copy of each value and send each row by itself, which took two thirds of the time of an
//! export.

use rusqlite::{Error, ErrorCode, Statement};
use sqlx::Sqlite;
use tokio::{sync::mpsc, task};

use super::{
    packed::Rows,
    readers::{Reader, Readers},
};
use crate::{
    query::{Sql, Stop, Value, Waiting},
    store::{StoreError, read},
};

/// Steps of SQLite's machine between two looks at the clock, about a tenth of a millisecond.
const STEPS: i32 = 10_000;
/// Packs of rows that the thread may be ahead.
const AHEAD: usize = 2;

/// One state of the database.
pub struct Snapshot {
    // Dropped first, so that the statement under way ends soon.
    _waiting: Waiting,
    stop: Stop,
    /// None while a statement runs, and after one whose thread is lost.
    reader: Option<Reader>,
}

impl Snapshot {
    /// Begins one; from the first statement on nothing that others write is seen.
    pub async fn begin(readers: &Readers) -> Result<Self, StoreError> {
        let waiting = Waiting::begin();
        let stop = waiting.stop();
        let reader = readers.reader().await?;
        let connection = reader.connection()?;
        connection.execute_batch("BEGIN")?;
        let asked = stop.clone();
        connection.progress_handler(STEPS, Some(move || asked.is_over()))?;
        Ok(Self {
            _waiting: waiting,
            stop,
            reader: Some(reader),
        })
    }
}

impl read::Snapshot for Snapshot {
    type DB = Sqlite;
    type Row = Rows;

    async fn each(
        &mut self,
        sql: Sql<Sqlite>,
        mut visit: impl FnMut(&Rows) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        self.stop.check()?;
        let lost = || StoreError::Unusable("the thread of a query is lost; ask again".to_owned());
        let reader = self.reader.take().ok_or_else(lost)?;
        let (packs, mut received) = mpsc::channel(AHEAD);
        let thread = task::spawn_blocking(move || {
            let result = run(&reader, sql, &packs);
            (reader, result)
        });
        let mut visited = Ok(());
        while let Some(mut rows) = received.recv().await {
            visited = rows.each(&mut visit);
            if visited.is_err() {
                break;
            }
        }
        // Nobody takes what it may still send.
        drop(received);
        let (reader, result) = thread.await.map_err(|_| lost())?;
        self.reader = Some(reader);
        visited?;
        match result {
            Err(StoreError::Reading(error))
                if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
            {
                Err(self.stop.error().into())
            }
            result => result,
        }
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }
}

/// Runs a statement, and sends what it finds as long as somebody takes it.
fn run(reader: &Reader, sql: Sql<Sqlite>, packs: &mpsc::Sender<Rows>) -> Result<(), StoreError> {
    let (text, values) = sql.into_parts();
    let mut statement = reader.connection()?.prepare(&text)?;
    for (n, value) in values.into_iter().enumerate() {
        bind(&mut statement, n + 1, value)?;
    }
    let columns = statement.column_count();
    let mut found = statement.raw_query();
    let mut rows = Rows::new(columns);
    let result = loop {
        match found.next() {
            Ok(Some(row)) => {
                for column in 0..columns {
                    rows.add(row.get_ref(column)?);
                }
            }
            Ok(None) => break Ok(()),
            // What was found before is of use.
            Err(error) => break Err(error.into()),
        }
        if rows.is_full() {
            let full = std::mem::replace(&mut rows, Rows::new(columns));
            if packs.blocking_send(full).is_err() {
                return Ok(());
            }
        }
    };
    if !rows.is_empty() {
        // Who is gone needs nothing.
        let _ = packs.blocking_send(rows);
    }
    result
}

fn bind(statement: &mut Statement<'_>, at: usize, value: Value) -> Result<(), Error> {
    match value {
        Value::Number(number) => statement.raw_bind_parameter(at, number),
        Value::Text(text) => statement.raw_bind_parameter(at, text),
        Value::Bytes(bytes) => statement.raw_bind_parameter(at, bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{query::within, store::read::Values};

    /// Counts for ever.
    const ENDLESS: &str =
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n WHERE n < 0";
    /// Counts, too, and says so.
    const COUNTING: &str = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT n FROM n";

    async fn each(readers: &Readers, sql: &str, seen: &mut Vec<i64>) -> Result<(), StoreError> {
        let mut snapshot = Snapshot::begin(readers).await?;
        let visit = |row: &Rows| {
            seen.push(row.number(0)?);
            Ok(())
        };
        read::Snapshot::each(&mut snapshot, Sql::new(sql), visit).await
    }

    fn one_reader() -> (tempfile::TempDir, Readers) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t (n INTEGER)")
            .unwrap();
        (folder, Readers::new(&path, 1))
    }

    #[tokio::test]
    async fn a_statement_ends_when_its_time_is_over_or_nobody_waits() {
        let (_folder, readers) = one_reader();
        let began = Instant::now();
        let mut seen = Vec::new();
        let late = within(Duration::from_millis(50), each(&readers, ENDLESS, &mut seen))
            .await
            .unwrap_err();
        assert!(matches!(late, StoreError::TimeLimit(_)), "{late}");
        let abandoned =
            tokio::time::timeout(Duration::from_millis(50), each(&readers, ENDLESS, &mut seen)).await;
        assert!(abandoned.is_err() && seen.is_empty());
        // The one connection there is can be used again.
        each(&readers, "SELECT 1", &mut seen).await.unwrap();
        assert_eq!(seen, [1]);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn what_was_found_in_time_is_seen() {
        let (_folder, readers) = one_reader();
        let mut seen = Vec::new();
        let late = within(Duration::from_millis(100), each(&readers, COUNTING, &mut seen)).await;
        assert!(matches!(late, Err(StoreError::TimeLimit(_))), "{late:?}");
        assert!(!seen.is_empty() && seen.iter().zip(1..).all(|(seen, n)| *seen == n));
    }

    #[tokio::test]
    async fn a_reader_that_fails_ends_the_statement() {
        let (_folder, readers) = one_reader();
        let mut snapshot = Snapshot::begin(&readers).await.unwrap();
        let wrong =
            read::Snapshot::each(&mut snapshot, Sql::new(COUNTING), |row| row.text(0).map(|_| ())).await;
        assert!(matches!(wrong, Err(StoreError::Corrupt(_))), "{wrong:?}");
        let unknown =
            read::Snapshot::each(&mut snapshot, Sql::new("SELECT * FROM nowhere"), |_| Ok(())).await;
        assert!(unknown.unwrap_err().to_string().contains("nowhere"));
        read::Snapshot::each(&mut snapshot, Sql::new("SELECT 1"), |_| Ok(()))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn nothing_written_later_is_seen() {
        let (folder, readers) = one_reader();
        let writer = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        let mut snapshot = Snapshot::begin(&readers).await.unwrap();
        let mut counts = Vec::new();
        for _ in 0..2 {
            let visit = |row: &Rows| {
                counts.push(row.number(0)?);
                Ok(())
            };
            read::Snapshot::each(&mut snapshot, Sql::new("SELECT count(*) FROM t"), visit)
                .await
                .unwrap();
            writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        }
        assert_eq!(counts, [0, 0]);
    }
}
