//! A read transaction that ends in time.

use std::time::Duration;

use futures::TryStreamExt;
use sqlx::{Error, PgPool, Postgres, Row, Transaction, TypeInfo, ValueRef, postgres::PgRow};
use tokio::time::timeout;

use super::SNAPSHOT;
use crate::{
    query::{Dialect, Sql, Stop, Waiting},
    store::{
        StoreError,
        read::{self, Values},
    },
};

/// What a statement fails with that took longer than it may.
const CANCELLED: &str = "57014";

/// One state of the database.
pub struct Snapshot {
    _waiting: Waiting,
    stop: Stop,
    transaction: Transaction<'static, Postgres>,
}

impl Snapshot {
    /// Begins one; from here on nothing that others write is seen.
    pub async fn begin(pool: &PgPool) -> Result<Self, StoreError> {
        let waiting = Waiting::begin();
        let stop = waiting.stop();
        Ok(Self {
            _waiting: waiting,
            stop,
            transaction: pool.begin_with(SNAPSHOT).await?,
        })
    }

    /// Tells the server how long the next statement may take, which also ends one that nobody waits for.
    async fn bound(&mut self) -> Result<(), StoreError> {
        let left = self.stop.left().unwrap_or(UNBOUND).min(UNBOUND);
        let mut sql = Sql::<Postgres>::new("SELECT set_config('statement_timeout', ");
        Postgres::text(&mut sql, format!("{}ms", left.as_millis().max(1)));
        sql.push(", true)");
        Postgres::query(sql).execute(&mut *self.transaction).await?;
        Ok(())
    }
}

/// Where there is no limit, a statement that nobody waits for any more ends after so long.
const UNBOUND: Duration = Duration::from_mins(10);

impl read::Snapshot for Snapshot {
    type DB = Postgres;
    type Row = PgRow;

    async fn each(
        &mut self,
        sql: Sql<Postgres>,
        mut visit: impl FnMut(&PgRow) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        self.stop.check()?;
        if self.stop.left().is_some() {
            self.bound().await?;
        }
        let (stop, transaction) = (self.stop.clone(), &mut *self.transaction);
        let mut rows = Postgres::query(sql).fetch(transaction);
        loop {
            // The server keeps to the time, too; this is for one that does not answer at all.
            let next = timeout(
                stop.left().unwrap_or(UNBOUND) + Duration::from_secs(1),
                rows.try_next(),
            )
            .await;
            match next {
                Ok(Ok(Some(row))) => visit(&row)?,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(Error::Database(error))) if error.code().as_deref() == Some(CANCELLED) => {
                    return Err(stop.error().into());
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(stop.error().into()),
            }
        }
    }

    fn stop(&self) -> &Stop {
        &self.stop
    }
}

impl Values for PgRow {
    fn optional_number(&self, at: usize) -> Result<Option<i64>, StoreError> {
        let raw = self.try_get_raw(at)?;
        let narrow = raw.type_info().name() == "INT2";
        if narrow {
            return Ok(self.try_get::<Option<i16>, _>(at)?.map(i64::from));
        }
        Ok(self.try_get(at)?)
    }

    fn optional_text(&self, at: usize) -> Result<Option<&str>, StoreError> {
        Ok(self.try_get(at)?)
    }

    fn optional_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.try_get(at)?)
    }
}
