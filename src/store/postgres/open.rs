//! Connecting: with which settings, how long to wait for the server, and in which shape the tables must be.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, sleep};

use super::{retry, writer};
use crate::store::{SNAPSHOTS, StoreError};

/// What operators call themselves on the server.
pub const NAME: &str = "scriptscope";
/// Besides those that commit: pods, checkpoints, deployments.
const LOOKUPS: u32 = 4;
/// Queries, merging and the listener.
const READERS: u32 = 8;
/// A connection for snapshots that nobody needs is closed then.
const SNAPSHOT_IDLE: Duration = Duration::from_mins(1);
/// How long to wait for a server that can not be reached when the operator starts.
pub const PATIENCE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a request waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(10);

/// Said on each connection. A database that does not wait for its disk would acknowledge what a crash then takes away;
/// a peer that is gone must not hold locks for hours.
const SETTINGS: &str = "SELECT set_config('synchronous_commit', 'on', false) \
        WHERE current_setting('synchronous_commit') = 'off'; \
    SET idle_in_transaction_session_timeout = '60s'; \
    SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
    SET client_min_messages = 'warning'";

/// An open database.
pub struct Opened {
    /// For what ingest needs: it must not wait for queries.
    pub pool: PgPool,
    /// For queries, which may take long.
    pub readers: PgPool,
    /// For [`crate::store::StoreSnapshot`]s, one each.
    pub snapshots: PgPool,
}

/// Connects to the database at `url` and brings its tables up to date.
pub async fn open(url: &str, patience: Duration) -> Result<Opened, StoreError> {
    let options = options(url)?;
    wait_for_server(&options, patience).await?;
    migrate(&options).await?;
    let pool = |connections| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(SETTINGS).execute(connection).await?;
                    Ok(())
                })
            })
    };
    Ok(Opened {
        pool: pool(writer::TASKS + LOOKUPS).connect_lazy_with(options.clone()),
        readers: pool(READERS).connect_lazy_with(options.clone()),
        snapshots: pool(SNAPSHOTS)
            .idle_timeout(SNAPSHOT_IDLE)
            .connect_lazy_with(options),
    })
}

/// How an operator connects to the database at `url`.
pub fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    // The error may repeat parts of the URL, the password among them.
    let options = PgConnectOptions::from_str(url).map_err(|_| {
        StoreError::Unusable(
            "the store's URL is not understood; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE"
                .to_owned(),
        )
    })?;
    Ok(options.application_name(NAME).disable_statement_logging())
}

async fn wait_for_server(options: &PgConnectOptions, patience: Duration) -> Result<(), StoreError> {
    let deadline = Instant::now() + patience;
    let mut said = false;
    loop {
        let error = match options.connect().await {
            Ok(_) => return Ok(()),
            Err(error) => StoreError::Database(error),
        };
        let message = format!("the database at {} can not be reached: {error}", place(options));
        if retry::failure(&error) == retry::Failure::Lasting || Instant::now() >= deadline {
            return Err(StoreError::Unusable(message));
        }
        if !said {
            tracing::warn!("Waiting, since {message}.");
            said = true;
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Where the database is; nothing secret.
pub fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(folder) => format!("{}/{database}", folder.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// Brings the tables up to date, under a lock of the whole database: several replicas may start at once.
pub async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    let setup = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;
    let migrated = sqlx::migrate!("src/store/postgres/migrations").run(&setup).await;
    setup.close().await;
    match migrated {
        Err(MigrateError::VersionMissing(version)) => Err(StoreError::Unusable(format!(
            "the database at {} was used by a newer version of ScriptScope (its tables are at {version}); \
             run that version or a later one",
            place(options)
        ))),
        migrated => Ok(migrated?),
    }
}
