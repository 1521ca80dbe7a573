//! How long data is kept: policies, what follows from them at a moment, and what a store must be able to delete. What
//! its steps do is the same on every backend ([`steps`]).

mod history;
pub mod logs;
pub mod pods;
pub mod runs;
pub mod sql;
pub mod steps;
pub mod usage;

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::StoreError;
use crate::model::{ScriptKey, parse_age};

/// No age may be shorter: a slip of the pen must not delete everything.
pub const MIN_AGE: SignedDuration = SignedDuration::from_hours(1);
/// No limit on bytes may be smaller, for the same reason.
pub const MIN_BYTES: u64 = 16 << 20;
/// What one run takes besides its payloads, with its share of the indexes, about.
pub const RUN_BYTES: u64 = 200;
/// Lines past their limit that share a segment with younger ones are hidden at once and written away this much later at
/// the latest, so that a segment is written again once a day at most.
pub const REWRITE_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Hourly rollups, ended deployments and gaps go at this age at the latest. Lifetime figures never do.
pub const HISTORY: SignedDuration = SignedDuration::from_hours(400 * 24);
/// A pod that has been gone for so long, and of which no run is left, is forgotten with its streams. Until then a late
/// batch of it is known for what it is.
pub const FORGET_POD_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);
/// By limits on bytes log lines go first, until they take one part in so many of the limit; then runs go.
const LOGS_SHARE: u64 = 4;

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// Not an age.
    #[error("{0:?} is not an age; give a whole number and h, d or w, such as 90d, or forever")]
    Age(String),
    /// An age that would delete nearly everything.
    #[error("{0} is too short; at least 1h")]
    TooShort(String),
    /// Not a number of bytes.
    #[error(
        "{0:?} is not an amount of bytes; give a whole number with or without Ki, Mi, Gi or Ti, such as 10Gi"
    )]
    Bytes(String),
    /// A limit that would delete nearly everything.
    #[error("{0} is too little; at least 16Mi")]
    TooFewBytes(String),
}

/// How long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// For ever.
    Forever,
    /// So long.
    For(SignedDuration),
}

impl Keep {
    /// Whichever is longer.
    #[must_use]
    pub fn or_longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::For(a), Self::For(b)) => Self::For(a.max(b)),
            _ => Self::Forever,
        }
    }

    /// Whichever is shorter.
    #[must_use]
    pub fn or_shorter(self, other: Self) -> Self {
        match (self, other) {
            (Self::For(a), Self::For(b)) => Self::For(a.min(b)),
            (Self::Forever, keep) | (keep, Self::Forever) => keep,
        }
    }

    fn cutoff(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Forever => None,
            Self::For(age) => now.checked_sub(age).ok(),
        }
    }
}

impl FromStr for Keep {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let age = parse_age(text).map_err(|_| RetentionError::Age(text.chars().take(40).collect()))?;
        if age < MIN_AGE {
            return Err(RetentionError::TooShort(text.to_owned()));
        }
        Ok(Self::For(age))
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::For(age) if age.as_hours() % 24 == 0 => write!(f, "{}d", age.as_hours() / 24),
            Self::For(age) => write!(f, "{}h", age.as_hours()),
        }
    }
}

/// A limit on bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxBytes(pub u64);

impl FromStr for MaxBytes {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let wrong = || RetentionError::Bytes(text.chars().take(40).collect());
        let (digits, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)]
            .into_iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))
            .unwrap_or((text, 0));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let bytes = digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(1 << shift))
            .ok_or_else(wrong)?;
        if bytes < MIN_BYTES {
            return Err(RetentionError::TooFewBytes(text.to_owned()));
        }
        Ok(Self(bytes))
    }
}

/// What a script asks for; what it does not name follows the cluster's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Ended runs, with their payloads.
    pub runs: Option<Keep>,
    /// Those of them that failed.
    pub failed_runs: Option<Keep>,
    /// Log lines.
    pub logs: Option<Keep>,
    /// Bytes of all together.
    pub max_bytes: Option<MaxBytes>,
}

/// How long the data of a script is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Successful runs, with their payloads, from their beginning on.
    pub runs: Keep,
    /// Failed runs; never shorter than `runs`.
    pub failed_runs: Keep,
    /// Log lines.
    pub logs: Keep,
    /// Bytes of all together.
    pub max_bytes: Option<MaxBytes>,
}

impl Policy {
    /// The cluster's policy with a script's wishes. Where a script names only one of the ages of runs, the other gives
    /// way, so that failed runs are never kept shorter than successful ones.
    #[must_use]
    pub fn with(&self, wish: &Wish) -> Self {
        let (runs, failed_runs) = match (wish.runs, wish.failed_runs) {
            (None, None) => (self.runs, self.failed_runs),
            (Some(runs), None) => (runs, self.failed_runs.or_longer(runs)),
            (None, Some(failed)) => (self.runs.or_shorter(failed), failed),
            (Some(runs), Some(failed)) => (runs, failed.or_longer(runs)),
        };
        Self {
            runs,
            failed_runs,
            logs: wish.logs.unwrap_or(self.logs),
            max_bytes: wish.max_bytes.or(self.max_bytes),
        }
    }

    /// What may go at `now`.
    pub fn cutoffs(&self, now: Timestamp) -> Cutoffs {
        Cutoffs {
            now,
            runs: self.runs.cutoff(now),
            failed_runs: self.failed_runs.cutoff(now),
            logs: self.logs.cutoff(now),
            max_bytes: self.max_bytes.map(|max| max.0),
        }
    }
}

/// What may go, at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// The moment.
    pub now: Timestamp,
    /// Successful runs that began before.
    pub runs: Option<Timestamp>,
    /// Failed runs that began before.
    pub failed_runs: Option<Timestamp>,
    /// Log lines from before.
    pub logs: Option<Timestamp>,
    /// What is above so many bytes, the oldest first.
    pub max_bytes: Option<u64>,
}

impl Cutoffs {
    /// Everything from before a moment.
    pub fn all_before(moment: Timestamp, now: Timestamp) -> Self {
        Self {
            now,
            runs: Some(moment),
            failed_runs: Some(moment),
            logs: Some(moment),
            max_bytes: None,
        }
    }
}

/// How much one transaction may delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rows.
    pub rows: usize,
    /// Bytes of log segments.
    pub bytes: u64,
}

/// What a step of retention deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Runs.
    pub runs: u64,
    /// Log lines.
    pub lines: u64,
    /// Whole log segments.
    pub segments: u64,
    /// Rows of other tables: rollups, gaps, deployments, pods, streams.
    pub other: u64,
    /// Bytes, about.
    pub bytes: u64,
    /// Whether there may be more to delete.
    pub more: bool,
}

impl Retained {
    /// Adds what a further step deleted.
    pub fn add(&mut self, step: &Self) {
        self.runs += step.runs;
        self.lines += step.lines;
        self.segments += step.segments;
        self.other += step.other;
        self.bytes += step.bytes;
        self.more = step.more;
    }

    /// Whether nothing was deleted.
    pub fn is_nothing(&self) -> bool {
        self.runs == 0 && self.lines == 0 && self.segments == 0 && self.other == 0
    }
}

/// Bytes that a script takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Runs and their indexes, about ([`RUN_BYTES`] each).
    pub runs: u64,
    /// Inputs, outputs and errors of runs, as compressed.
    pub payloads: u64,
    /// Log segments, as compressed.
    pub logs: u64,
}

impl Storage {
    /// All together.
    pub fn total(&self) -> u64 {
        self.runs + self.payloads + self.logs
    }

    /// Bytes to be deleted, of logs and of runs with their payloads, to get down to `max`.
    pub fn excess(&self, max: u64) -> (u64, u64) {
        let over = self.total().saturating_sub(max);
        let logs = over.min(self.logs.saturating_sub(max / LOGS_SHARE));
        (logs, over - logs)
    }
}

/// The largest size that every script may have so that all together have at most `limit` bytes: the largest ones give
/// first, and those below give nothing. None where all fit as they are.
pub fn fair_share(sizes: &[u64], limit: u64) -> Option<u64> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let (mut left, mut others) = (limit, sizes.len() as u64);
    for size in sizes {
        if size > left / others {
            return Some(left / others);
        }
        left -= size;
        others -= 1;
    }
    None
}

/// What becomes of a script's data when its object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDelete {
    /// It stays for as long as the cluster's policy says.
    #[default]
    Retain,
    /// It is deleted.
    Purge,
}

/// The object whose data a script's is, as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenObject {
    /// Its UID: another object may have the name later.
    pub uid: String,
    /// What is to become of the data.
    pub on_delete: OnDelete,
}

/// What a store must be able to delete. Each step is one transaction; callers repeat it, with pauses, while there is
/// more, so that ingest gets its turn in between. Whatever is interrupted is taken up by the next step.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Deletes some of what is past the cutoffs: log lines, ended runs with their payloads, and rows that only describe
    /// them. Never a run in progress, never lifetime figures.
    async fn retain(
        &self,
        script: &ScriptKey,
        cutoffs: &Cutoffs,
        budget: Budget,
    ) -> Result<Retained, StoreError>;

    /// Deletes some of everything from before a moment, lifetime figures too. The script's name and its highest version
    /// stay: numbers of versions go on should it come again.
    async fn purge(
        &self,
        script: &ScriptKey,
        before: Timestamp,
        budget: Budget,
    ) -> Result<Retained, StoreError>;

    /// Forgets pods of a script, and their streams, that have been gone for [`FORGET_POD_AFTER`] and have no runs any
    /// more. `present` are the UIDs of all its pods that the cluster has.
    async fn forget_pods(
        &self,
        script: &ScriptKey,
        present: &[String],
        now: Timestamp,
        budget: Budget,
    ) -> Result<Retained, StoreError>;

    /// Bytes that a script takes.
    async fn storage(&self, script: &ScriptKey) -> Result<Storage, StoreError>;

    /// Gives some of the space that is free back to the file system; says whether there is more. A no-op where the
    /// database does so by itself.
    async fn give_back_space(&self) -> Result<bool, StoreError>;

    /// Remembers the object of a script, for the time when it is gone.
    async fn note_object(&self, script: &ScriptKey, object: &SeenObject) -> Result<(), StoreError>;

    /// The objects last seen, of every script that had one.
    async fn seen_objects(&self) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(text: &str) -> Keep {
        text.parse().unwrap()
    }

    fn policy() -> Policy {
        Policy {
            runs: keep("90d"),
            failed_runs: keep("180d"),
            logs: keep("30d"),
            max_bytes: None,
        }
    }

    #[test]
    fn a_zero_or_a_slip_never_becomes_a_policy() {
        for text in [
            "0d",
            "0h",
            "59m",
            "-1d",
            "",
            "d",
            "90",
            "1.5d",
            "90D",
            "99999999999999999999d",
            "Forever",
        ] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
        for text in [
            "0",
            "",
            "1",
            "15Mi",
            "16777215",
            "-1Gi",
            "1G",
            "+99999999",
            "99999999999Ti",
            "Gi",
        ] {
            assert!(text.parse::<MaxBytes>().is_err(), "{text}");
        }
        assert_eq!(keep("1h"), Keep::For(MIN_AGE));
        assert_eq!("16Mi".parse(), Ok(MaxBytes(MIN_BYTES)));
        let error = "30m".parse::<Keep>().unwrap_err().to_string();
        assert_eq!(error, "30m is too short; at least 1h");
    }

    #[test]
    fn failed_runs_are_never_kept_shorter() {
        let with = |runs: Option<&str>, failed: Option<&str>| {
            let merged = policy().with(&Wish {
                runs: runs.map(keep),
                failed_runs: failed.map(keep),
                ..Wish::default()
            });
            (merged.runs.to_string(), merged.failed_runs.to_string())
        };
        assert_eq!(with(None, None), ("90d".into(), "180d".into()));
        assert_eq!(with(Some("365d"), None), ("365d".into(), "365d".into()));
        assert_eq!(with(Some("7d"), None), ("7d".into(), "180d".into()));
        assert_eq!(with(None, Some("12h")), ("12h".into(), "12h".into()));
        assert_eq!(with(Some("forever"), None), ("forever".into(), "forever".into()));
        assert_eq!(with(None, Some("forever")), ("90d".into(), "forever".into()));
    }

    #[test]
    fn logs_go_first_and_leave_a_quarter_to_themselves() {
        let storage = |runs, payloads, logs| Storage { runs, payloads, logs };
        assert_eq!(storage(10, 10, 80).excess(100), (0, 0));
        assert_eq!(storage(10, 10, 100).excess(100), (20, 0));
        assert_eq!(storage(60, 60, 100).excess(100), (75, 45));
        assert_eq!(storage(60, 60, 20).excess(100), (0, 40));
    }

    #[test]
    fn the_largest_scripts_give_first() {
        assert_eq!(fair_share(&[], 10), None);
        assert_eq!(fair_share(&[1, 2, 3], 6), None);
        assert_eq!(fair_share(&[1, 2, 30], 13), Some(10));
        assert_eq!(fair_share(&[20, 2, 30], 22), Some(10));
        assert_eq!(fair_share(&[5, 5, 5], 9), Some(3));
    }
}
