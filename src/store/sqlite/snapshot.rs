//! A read transaction that ends in time.

use futures::TryStreamExt;
use sqlx::{Error, QueryBuilder, Row, Sqlite, SqlitePool, Transaction, sqlite::SqliteRow};

use crate::{
    query::{Stop, Waiting},
    store::{
        StoreError,
        read::{self, Values},
    },
};

/// Steps of SQLite's machine between two looks at the clock, about a tenth of a millisecond.
const STEPS: i32 = 10_000;
/// The code of a statement that was interrupted.
const INTERRUPTED: &str = "9";

/// One state of the database.
pub struct Snapshot {
    // Dropped first, so that the statement under way ends soon.
    _waiting: Waiting,
    stop: Stop,
    transaction: Transaction<'static, Sqlite>,
}

impl Snapshot {
    /// Begins one; from here on nothing that others write is seen.
    pub async fn begin(pool: &SqlitePool) -> Result<Self, StoreError> {
        let waiting = Waiting::begin();
        let stop = waiting.stop();
        let mut transaction = pool.begin().await?;
        let asked = stop.clone();
        transaction
            .lock_handle()
            .await?
            .set_progress_handler(STEPS, move || !asked.is_over());
        Ok(Self {
            _waiting: waiting,
            stop,
            transaction,
        })
    }
}

impl read::Snapshot for Snapshot {
    type DB = Sqlite;
    type Row = SqliteRow;

    async fn each(
        &mut self,
        mut sql: QueryBuilder<Sqlite>,
        mut visit: impl FnMut(&SqliteRow) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        self.stop.check()?;
        let mut rows = sql.build().persistent(false).fetch(&mut *self.transaction);
        loop {
            match rows.try_next().await {
                Ok(Some(row)) => visit(&row)?,
                Ok(None) => return Ok(()),
                Err(Error::Database(error)) if error.code().as_deref() == Some(INTERRUPTED) => {
                    return Err(self.stop.error().into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }
}

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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;
    use crate::query::within;

    /// Counts for ever.
    const ENDLESS: &str =
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n WHERE n < 0";

    async fn endless(pool: &SqlitePool) -> Result<(), StoreError> {
        let mut snapshot = Snapshot::begin(pool).await?;
        read::Snapshot::each(&mut snapshot, QueryBuilder::new(ENDLESS), |_| Ok(())).await
    }

    #[tokio::test]
    async fn a_statement_ends_when_its_time_is_over_or_nobody_waits() {
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect("sqlite::memory:")
            .await
            .unwrap();
        let began = Instant::now();
        let late = within(Duration::from_millis(50), endless(&pool))
            .await
            .unwrap_err();
        assert!(matches!(late, StoreError::TimeLimit(_)), "{late}");
        let abandoned = tokio::time::timeout(Duration::from_millis(50), endless(&pool)).await;
        assert!(abandoned.is_err());
        // The one connection there is can be used again.
        let one: i64 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await.unwrap();
        assert_eq!(one, 1);
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
