//! The file of a database as a file: beside what it lies, whether it is sound, how it gets its name.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::store::StoreError;

/// How to read the database at `path` beside an operator that may write it.
pub fn reading(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
}

/// The path with something after its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the folder that `path` is in.
pub fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(folder).map_err(|error| {
        StoreError::Unusable(format!(
            "the folder {} can not be made: {error}",
            folder.display()
        ))
    })
}

/// Fails unless SQLite finds the whole file sound, and each row that others refer to.
pub async fn check(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(3)")
        .fetch_all(&mut *connection)
        .await?;
    if found != ["ok"] {
        return Err(StoreError::Corrupt(format!(
            "the file is damaged: {}",
            found.join("; ")
        )));
    }
    let lost = sqlx::query("PRAGMA foreign_key_check")
        .fetch_optional(&mut *connection)
        .await?;
    match lost {
        Some(_) => Err(StoreError::Corrupt("a row refers to one that is gone".to_owned())),
        None => Ok(()),
    }
}

/// Gives a file that is whole its name, so that it is there after a power failure, too.
pub fn put_in_place(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    let done = || -> io::Result<()> {
        File::open(unfinished)?.sync_all()?;
        fs::rename(unfinished, path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        }
    };
    done()
        .map_err(|error| StoreError::Unusable(format!("{} can not be put in place: {error}", path.display())))
}
