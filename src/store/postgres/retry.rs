//! Which failures pass, and how long to wait for it.

use std::{iter, time::Duration};

use sqlx::error::DatabaseError;

use crate::store::StoreError;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 8;

/// What to make of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may work the next time: a conflict with another transaction, a lost connection, a restart.
    Passing,
    /// It would fail again.
    Lasting,
}

/// The pauses between attempts; as many as there may be further ones.
pub fn pauses() -> impl Iterator<Item = Duration> {
    iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE))).take(ATTEMPTS)
}

/// What to make of an error.
pub fn failure(error: &StoreError) -> Failure {
    let passes = match error {
        StoreError::Database(sqlx::Error::Database(error)) => passes(error.as_ref()),
        StoreError::Database(
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed,
        ) => true,
        _ => false,
    };
    if passes {
        Failure::Passing
    } else {
        Failure::Lasting
    }
}

/// Whether a row was refused since there is one with its key.
pub fn is_duplicate(error: &StoreError) -> bool {
    match error {
        StoreError::Database(error) => error
            .as_database_error()
            .is_some_and(DatabaseError::is_unique_violation),
        _ => false,
    }
}

fn passes(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| code_passes(&code))
}

fn code_passes(code: &str) -> bool {
    // Connection lost; rolled back for a serialisation failure or a deadlock; too many connections; the server is
    // being stopped, has crashed or is starting; a standby that has just been made the primary's successor.
    code.starts_with("08")
        || matches!(
            code,
            "40001" | "40P01" | "53300" | "57P01" | "57P02" | "57P03" | "25006" | "55P03"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_and_lost_connections_pass_and_mistakes_last() {
        for code in ["40001", "40P01", "08006", "57P01", "57P03"] {
            assert!(code_passes(code), "{code}");
        }
        for code in ["23505", "42P01", "22021", "53100"] {
            assert!(!code_passes(code), "{code}");
        }
        let lost = StoreError::Database(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
        assert_eq!(failure(&lost), Failure::Passing);
        assert_eq!(failure(&StoreError::Corrupt(String::new())), Failure::Lasting);
        assert!(pauses().count() == ATTEMPTS && pauses().all(|pause| pause <= LONGEST_PAUSE));
    }
}
