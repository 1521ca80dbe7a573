//! A Postgres database as the source or the target of a copy.

use async_trait::async_trait;
use futures::{StreamExt, stream::LocalBoxStream};
use sqlx::{
    AssertSqlSafe, ConnectOptions, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::time::{Instant, sleep};

use super::{
    FROM, NUMBERED, PATIENCE, POLL, Side, TABLES, TO, TransferError, at,
    rows::{Column, Kind, Numbers, Row, Table, Value},
};
use crate::store::{
    StoreError,
    postgres::{copy::Rows, open, runs_write::PAYLOAD_BLOCK},
};

/// What this calls itself on the server; operators call themselves [`open::NAME`].
const NAME: &str = "scriptscope migrate-store";

/// A database that is read or written, in one transaction.
pub struct PostgresSide {
    connection: PgConnection,
    is_target: bool,
}

impl PostgresSide {
    /// The database at `url`, as it is at this moment.
    pub async fn source(url: &str, force: bool) -> Result<Self, TransferError> {
        let connection = connect(url, FROM, force).await?.1;
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        Self::begin(connection, begin, false).await.map_err(at(FROM))
    }

    /// The database at `url`, its tables made where there are none yet.
    pub async fn target(url: &str, force: bool) -> Result<Self, TransferError> {
        let (options, connection) = connect(url, TO, force).await?;
        open::migrate(&options).await.map_err(at(TO))?;
        let mut side = Self::begin(connection, "BEGIN", true).await.map_err(at(TO))?;
        // An operator that starts now waits until all of it is there.
        let lock = format!("LOCK TABLE {} IN EXCLUSIVE MODE", TABLES.join(", "));
        sqlx::raw_sql(AssertSqlSafe(lock))
            .execute(&mut side.connection)
            .await
            .map_err(|error| at(TO)(error.into()))?;
        Ok(side)
    }

    async fn begin(
        mut connection: PgConnection,
        begin: &'static str,
        is_target: bool,
    ) -> Result<Self, StoreError> {
        sqlx::raw_sql(
            "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; \
             SET client_min_messages = 'warning'",
        )
        .execute(&mut connection)
        .await?;
        sqlx::raw_sql(begin).execute(&mut connection).await?;
        Ok(Self {
            connection,
            is_target,
        })
    }
}

/// A connection to the database at `url`, which no operator may use unless `force`.
async fn connect(
    url: &str,
    side: &'static str,
    force: bool,
) -> Result<(PgConnectOptions, PgConnection), TransferError> {
    let options = open::options(url).map_err(at(side))?.application_name(NAME);
    let mut connection = options.connect().await.map_err(|error| {
        at(side)(StoreError::Unusable(format!(
            "the database at {} can not be reached: {error}",
            open::place(&options)
        )))
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
        )
        .bind(open::NAME)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| at(side)(error.into()))?;
        if others == 0 || force {
            return Ok((options, connection));
        }
        if Instant::now() >= deadline {
            return Err(TransferError::InUse {
                side,
                message: format!(
                    "an operator is connected to the database at {} ({others} connections), and what it takes in \
                     meanwhile would be missing; stop it (kubectl scale --replicas=0), or say --force",
                    open::place(&options)
                ),
            });
        }
        sleep(POLL).await;
    }
}

#[async_trait(?Send)]
impl Side for PostgresSide {
    async fn tables(&mut self) -> Result<Vec<Table>, StoreError> {
        let sql = "SELECT c.table_name::text, c.column_name::text, c.data_type::text \
            FROM information_schema.columns c JOIN information_schema.tables t \
            ON t.table_schema = c.table_schema AND t.table_name = c.table_name AND t.table_type = 'BASE TABLE' \
            WHERE c.table_schema = current_schema() ORDER BY c.table_name, c.column_name COLLATE \"C\"";
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
                "text" => Kind::Text,
                "bytea" => Kind::Bytes,
                "smallint" => Kind::Small,
                "boolean" => Kind::Flag,
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
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| match column.kind {
                Kind::Small => format!("{}::bigint", column.name),
                Kind::Flag => format!("{}::int::bigint", column.name),
                _ => column.name.clone(),
            })
            .collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), table.name);
        sqlx::query(AssertSqlSafe(sql))
            .persistent(false)
            .fetch(&mut self.connection)
            .map(|row| row.map_err(StoreError::from).and_then(|row| values(&row, table)))
            .boxed_local()
    }

    async fn write(&mut self, table: &Table, rows: &[Row]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let width = i16::try_from(table.columns.len())
            .map_err(|_| StoreError::Corrupt(format!("the columns of {}", table.name)))?;
        let mut copy = Rows::new(width);
        for row in rows {
            copy.begin();
            for (value, column) in row.iter().zip(&table.columns) {
                field(&mut copy, value, column)?;
            }
        }
        let into = format!(
            "COPY {} ({}) FROM STDIN WITH (FORMAT binary)",
            table.name,
            table.list()
        );
        copy.send(&mut self.connection, &into).await
    }

    async fn numbers(&mut self) -> Result<Numbers, StoreError> {
        let mut numbers = Numbers::new();
        for (table, column) in NUMBERED {
            let (sequence, last) = if table == PAYLOADS {
                // Dealt out in blocks.
                (
                    "'payload_blocks'".to_owned(),
                    format!("(last_value + 1) * {PAYLOAD_BLOCK}"),
                )
            } else {
                (
                    format!("pg_get_serial_sequence('{table}', '{column}')"),
                    "last_value".to_owned(),
                )
            };
            let sql = format!(
                "SELECT greatest(coalesce((SELECT max({column}) FROM {table}), 0), coalesce((SELECT {last} FROM pg_sequences \
                 WHERE format('%I.%I', schemaname, sequencename)::regclass = ({sequence})::regclass), 0))"
            );
            let last = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_one(&mut self.connection)
                .await?;
            numbers.insert(table, last);
        }
        Ok(numbers)
    }

    async fn go_on_after(&mut self, numbers: &Numbers) -> Result<(), StoreError> {
        for (table, column) in NUMBERED {
            let last = numbers.get(table).copied().unwrap_or_default();
            let (sequence, last) = if table == PAYLOADS {
                // The next block begins above the last number.
                let next = last.div_euclid(PAYLOAD_BLOCK) + i64::from(last.rem_euclid(PAYLOAD_BLOCK) > 0);
                ("'payload_blocks'".to_owned(), next - 1)
            } else {
                (format!("pg_get_serial_sequence('{table}', '{column}')"), last)
            };
            sqlx::query(AssertSqlSafe(format!(
                "SELECT setval({sequence}, greatest($1::bigint, 1), $1::bigint > 0)"
            )))
            .bind(last)
            .execute(&mut self.connection)
            .await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await?;
        if self.is_target {
            // The planner knows nothing yet of what came at once.
            sqlx::raw_sql("ANALYZE").execute(&mut self.connection).await?;
        }
        Ok(())
    }
}

const PAYLOADS: &str = "run_payloads";

fn field(copy: &mut Rows, value: &Value, column: &Column) -> Result<(), StoreError> {
    let wrong = || StoreError::Corrupt(format!("the value {value:?} in column {}", column.name));
    match (value, column.kind) {
        (Value::Null, _) => copy.bigint(None),
        (Value::Number(number), Kind::Number) => copy.bigint(*number),
        (Value::Number(number), Kind::Small) => copy.small(i16::try_from(*number).map_err(|_| wrong())?),
        (Value::Number(number @ (0 | 1)), Kind::Flag) => copy.flag(*number == 1),
        (Value::Text(text), Kind::Text) => copy.bytes(text.as_bytes()),
        (Value::Bytes(bytes), Kind::Bytes) => copy.bytes(bytes.as_slice()),
        _ => return Err(wrong()),
    };
    Ok(())
}

fn values(row: &PgRow, table: &Table) -> Result<Row, StoreError> {
    let columns = table.columns.iter().enumerate();
    columns
        .map(|(at, column)| {
            Ok(match column.kind {
                Kind::Text => row.try_get::<Option<_>, _>(at)?.map(Value::Text),
                Kind::Bytes => row.try_get::<Option<_>, _>(at)?.map(Value::Bytes),
                Kind::Number | Kind::Small | Kind::Flag => {
                    row.try_get::<Option<_>, _>(at)?.map(Value::Number)
                }
            }
            .unwrap_or(Value::Null))
        })
        .collect()
}
