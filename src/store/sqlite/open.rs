//! Opening the file: who may, with which settings, in which shape.

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};
use tokio::time::{Instant, sleep};

use super::{file, readers::Readers};
use crate::store::{SNAPSHOTS, StoreError};

/// The oldest SQLite that does not damage a WAL shared by several connections (sqlite.org/wal.html#walresetbug).
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];
/// Pages in the write-ahead log until they are written back, 16 MiB: each time costs two more syncs of the disk.
const CHECKPOINT_PAGES: u32 = 4_096;
/// For queries.
const QUERIES: u32 = 4;
/// For what the store does by itself: merging, indexing, and short lists.
const READERS: u32 = 3;
const LOOKUPS: u32 = 2;
/// Pages that the writing connection keeps, at most.
const WRITER_CACHE_KIB: u32 = 16 << 10;
/// How long to wait for another process to let go of the file, as the one before does on a restart.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// What the name of the lock's file has more than the database's.
pub const LOCK: &str = ".lock";

/// An open database.
pub struct Opened {
    /// Held as long as the file is in use.
    pub lock: File,
    /// The one connection that writes.
    pub writer: SqliteConnection,
    /// How to make it anew.
    pub writing: SqliteConnectOptions,
    /// Those of merging and whatever else the store does by itself.
    pub readers: SqlitePool,
    /// Those that answer queries, which may take long.
    pub queries: Readers,
    /// Those that look up what writing needs, which must not wait for queries.
    pub lookups: SqlitePool,
    /// For [`crate::store::StoreSnapshot`]s, one each.
    pub snapshots: Readers,
}

/// Opens the database at `path`, made and migrated as needed.
pub async fn open(path: &Path) -> Result<Opened, StoreError> {
    file::make_folder(path)?;
    let lock = try_lock(path).await?.ok_or_else(|| {
        StoreError::Unusable(format!(
            "{}: the database is in use by another process; run one operator a file, or use Postgres for several",
            file::beside(path, LOCK).display()
        ))
    })?;
    let common = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let writing = common
        .clone()
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        // A commit that does not fit is written to the log in pieces, and pages of it several times.
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        .pragma("journal_size_limit", (64 << 20).to_string());
    migrate(writing.clone()).await?;
    let writer = writing.connect().await?;
    let reading = common.read_only(true);
    let pool = |connections| SqlitePoolOptions::new().max_connections(connections);
    let readers = pool(READERS).connect_with(reading.clone()).await?;
    let lookups = pool(LOOKUPS).connect_with(reading).await?;
    Ok(Opened {
        lock,
        writer,
        writing,
        readers,
        queries: Readers::new(path, QUERIES),
        lookups,
        snapshots: Readers::new(path, SNAPSHOTS),
    })
}

/// Makes the tables, or brings them up to date.
pub async fn migrate(options: SqliteConnectOptions) -> Result<(), StoreError> {
    // Migrations run on a pool: on a lone connection sqlx's future is not `Send` enough.
    let setup = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    check_version(&setup).await?;
    sqlx::migrate!("src/store/sqlite/migrations").run(&setup).await?;
    setup.close().await;
    Ok(())
}

/// Takes the lock beside the file, where nobody else holds it for long: two processes would each think itself the only
/// writer.
pub async fn try_lock(path: &Path) -> Result<Option<File>, StoreError> {
    let name = file::beside(path, LOCK);
    let unusable = |what: &str| StoreError::Unusable(format!("{}: {what}", name.display()));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|error| unusable(&format!("can not be opened: {error}")))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(unusable(&format!("can not be locked: {error}"))),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(None),
            Err(TryLockError::WouldBlock) => sleep(LOCK_POLL).await,
        }
    }
}

async fn check_version(pool: &SqlitePool) -> Result<(), StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(pool)
        .await?;
    if is_new_enough(&version) {
        return Ok(());
    }
    let [major, minor, patch] = OLDEST_SQLITE;
    Err(StoreError::Unusable(format!(
        "SQLite {version} can damage its write-ahead log; {major}.{minor}.{patch} or later is needed"
    )))
}

fn is_new_enough(version: &str) -> bool {
    let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    numbers.as_slice() >= OLDEST_SQLITE.as_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, enough) in [
            ("3.51.3", true),
            ("3.53", true),
            ("3.6.9", false),
            ("3.51.2", false),
            ("x", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }
}
