//! A copy of a store while it is used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions, Connection};

use super::{
    Place, StoreError, place,
    sqlite::{file, open},
};

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// A file that is removed unless it got its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies the SQLite store at `url` as it is at this moment into the new file `to`; an operator may go on writing. The copy
/// is checked, and has its name only when it is whole. For Postgres its own tools are named.
pub async fn backup(url: &str, to: &Path) -> Result<Backup, StoreError> {
    let Place::Sqlite(path) = place(url)? else {
        return Err(StoreError::Unusable(
            "the store is a Postgres database; back it up with pg_dump --format=custom, which needs no standstill either"
                .to_owned(),
        ));
    };
    if !path.is_file() {
        return Err(StoreError::Unusable(format!(
            "there is no store at {}; name another with --database-url",
            path.display()
        )));
    }
    if to.exists() {
        return Err(StoreError::Unusable(format!(
            "{} is there already; name another file",
            to.display()
        )));
    }
    file::make_folder(to)?;
    let unfinished = Unfinished(file::beside(to, ".unfinished"));
    let _lock = open::try_lock(&unfinished.0)
        .await?
        .ok_or_else(|| StoreError::Unusable(format!("another backup to {} is under way", to.display())))?;
    let lock = Unfinished(file::beside(&unfinished.0, open::LOCK));
    let _ = fs::remove_file(&unfinished.0);
    let name = unfinished
        .0
        .to_str()
        .ok_or_else(|| StoreError::Unusable(format!("the name {} is no UTF-8", unfinished.0.display())))?;
    let mut source = file::reading(path).connect().await?;
    // One read transaction: whatever is committed meanwhile is not in it.
    sqlx::query("VACUUM INTO ?1")
        .bind(name)
        .execute(&mut source)
        .await?;
    source.close().await?;
    let mut copy = file::reading(&unfinished.0).connect().await?;
    file::check(&mut copy).await?;
    copy.close().await?;
    let bytes = fs::metadata(&unfinished.0).map_or(0, |found| found.len());
    file::put_in_place(&unfinished.0, to)?;
    drop(lock);
    Ok(Backup { bytes })
}
