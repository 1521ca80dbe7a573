//! What rows of the tables mean, whichever database they are from.

use std::sync::Arc;

use sqlx::{Column, Row, TypeInfo, postgres::PgRow, sqlite::SqliteRow};

use super::{PodRecord, StoreError, batch::Owner, run_changes::StoredRun};
use crate::{
    ingest::wire::Position,
    model::{RunStatus, ScriptKey},
};

/// Columns of a row by their names.
pub trait Fields {
    /// A whole number of any width, which may be absent.
    fn optional_number(&self, name: &str) -> Result<Option<i64>, StoreError>;
    /// A text which may be absent.
    fn optional_text(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// A whole number of any width.
    fn number(&self, name: &str) -> Result<i64, StoreError> {
        self.optional_number(name)?.ok_or_else(|| absent(name))
    }

    /// A text.
    fn text(&self, name: &str) -> Result<String, StoreError> {
        self.optional_text(name)?.ok_or_else(|| absent(name))
    }
}

fn absent(name: &str) -> StoreError {
    StoreError::Corrupt(format!("a row without {name}"))
}

impl Fields for SqliteRow {
    fn optional_number(&self, name: &str) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get(name)?)
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(name)?)
    }
}

impl Fields for PgRow {
    fn optional_number(&self, name: &str) -> Result<Option<i64>, StoreError> {
        if self.try_column(name)?.type_info().name() == "INT2" {
            return Ok(self.try_get::<Option<i16>, _>(name)?.map(i64::from));
        }
        Ok(self.try_get(name)?)
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.try_get(name)?)
    }
}

/// A code of the model's kept as a number.
fn code<T>(row: &impl Fields, name: &str, from: fn(u8) -> Option<T>) -> Result<T, StoreError> {
    let code = row.number(name)?;
    u8::try_from(code)
        .ok()
        .and_then(from)
        .ok_or_else(|| StoreError::Corrupt(format!("the {name} {code} of a run")))
}

/// A run as events are applied to it.
pub fn stored_run(row: &impl Fields) -> Result<StoredRun, StoreError> {
    Ok(StoredRun {
        payload: row.optional_number("payload")?,
        in_progress: code(row, "status", RunStatus::from_code)? == RunStatus::InProgress,
        executed_at: row.number("executed_at")?,
        version: row.number("version")?,
        function: row.text("function")?,
    })
}

/// A pod from the columns `uid, name, container, version, deployment_id, namespace, script`.
pub fn pod(row: &impl Fields) -> Result<PodRecord, StoreError> {
    Ok(PodRecord {
        uid: row.text("uid")?,
        name: row.text("name")?,
        container: row.text("container")?,
        script: ScriptKey::new(row.text("namespace")?, row.text("script")?),
        version: row.number("version")?,
        deployment_id: row.text("deployment_id")?,
    })
}

/// Whose a stream is, from the columns of [`pod`] and `script_id`.
pub fn owner(row: &impl Fields) -> Result<Arc<Owner>, StoreError> {
    Ok(Arc::new(Owner {
        script_id: row.number("script_id")?,
        pod: pod(row)?,
    }))
}

/// A position from the columns `committed_offset, file, file_start`.
pub fn position(row: &impl Fields) -> Result<Position, StoreError> {
    let unsigned = |name: &str| -> Result<u64, StoreError> {
        let number = row.number(name)?;
        u64::try_from(number).map_err(|_| StoreError::Corrupt(format!("the {name} {number}")))
    };
    Ok(Position {
        offset: unsigned("committed_offset")?,
        file: row.text("file")?,
        file_start: unsigned("file_start")?,
    })
}
