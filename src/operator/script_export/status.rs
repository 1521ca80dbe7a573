//! From how an export went to what its status says. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    api::{Artifact, ExportPhase, ExportProgress, ScheduledExport, ScriptExportStatus, conditions},
    export::{
        file::{ExportKey, Progress, Sidecar},
        s3::Stored,
    },
};

/// Why an export can not be made; trying again would change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition, one CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// Where an export stands.
#[derive(Clone, Debug)]
pub enum Stage<'a> {
    /// It waits for its turn.
    Pending,
    /// Rows are being written; `trouble` is why the last attempt failed.
    Running {
        /// Rows and bytes so far.
        progress: Progress,
        /// Rows that there will be, about.
        estimated: Option<u64>,
        /// What went wrong before.
        trouble: Option<&'a str>,
    },
    /// The file is there.
    Succeeded(&'a Artifact),
    /// There will be no file.
    Failed(&'a Refusal),
    /// There will be no file, since nobody wants it any more.
    Cancelled,
}

/// Whether nothing more will happen to an export.
pub fn is_finished(status: Option<&ScriptExportStatus>) -> bool {
    matches!(
        status.and_then(|s| s.phase),
        Some(ExportPhase::Succeeded | ExportPhase::Failed | ExportPhase::Cancelled)
    )
}

/// The moment that relative ranges count from: when the export began, to the second, so that an attempt after a crash
/// has the range of the first.
pub fn start_of(previous: Option<&ScriptExportStatus>, now: Timestamp) -> Timestamp {
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
    previous
        .and_then(|s| s.started_at.as_ref())
        .map_or(whole, |time| time.0)
}

/// The complete status of an export.
pub fn status(
    generation: Option<i64>,
    previous: Option<&ScriptExportStatus>,
    started: Option<Timestamp>,
    stage: &Stage<'_>,
    now: Timestamp,
) -> ScriptExportStatus {
    let (phase, message, reason) = match stage {
        Stage::Pending => (ExportPhase::Pending, "waiting for its turn".to_owned(), "Pending"),
        Stage::Running { trouble: None, .. } => (
            ExportPhase::Running,
            "rows are being written".to_owned(),
            "Running",
        ),
        Stage::Running {
            trouble: Some(trouble),
            ..
        } => (
            ExportPhase::Running,
            format!("beginning again, since {trouble}"),
            "Retrying",
        ),
        Stage::Succeeded(file) => (
            ExportPhase::Succeeded,
            format!("{} rows are in {}", file.rows, file.file_name),
            "Written",
        ),
        Stage::Failed(refusal) => (ExportPhase::Failed, refusal.message.clone(), refusal.reason),
        Stage::Cancelled => (
            ExportPhase::Cancelled,
            "cancelled, and what was written is removed".to_owned(),
            "Cancelled",
        ),
    };
    let (progress, artifact) = match stage {
        Stage::Pending => (None, None),
        Stage::Running {
            progress, estimated, ..
        } => (Some(progress_of(progress.rows, *estimated, progress.bytes)), None),
        Stage::Succeeded(file) => (
            Some(ExportProgress {
                rows_written: file.rows,
                rows_estimated: Some(file.rows),
                bytes_written: file.bytes,
            }),
            Some((*file).clone()),
        ),
        Stage::Failed(_) | Stage::Cancelled => (previous.and_then(|s| s.progress.clone()), None),
    };
    let ended = !matches!(phase, ExportPhase::Pending | ExportPhase::Running);
    let condition = |kind: &str, is: bool| {
        condition(
            previous,
            Condition {
                type_: kind.to_owned(),
                status: if is { "True" } else { "False" }.to_owned(),
                reason: reason.to_owned(),
                message: message.clone(),
                observed_generation: generation,
                last_transition_time: Time(now),
            },
        )
    };
    ScriptExportStatus {
        phase: Some(phase),
        observed_generation: generation,
        progress,
        artifact,
        started_at: started.map(Time),
        completed_at: ended.then_some(Time(now)),
        conditions: vec![
            condition(conditions::COMPLETE, phase == ExportPhase::Succeeded),
            condition(conditions::FAILED, phase == ExportPhase::Failed),
            condition(conditions::CANCELLED, phase == ExportPhase::Cancelled),
        ],
        message: Some(message),
        ..ScriptExportStatus::default()
    }
}

/// What a schedule has come to.
#[derive(Clone, Debug)]
pub struct Scheduled<'a> {
    /// Why no file can be made; none where all is well.
    pub refusal: Option<&'a Refusal>,
    /// Nobody wants further files.
    pub cancelled: bool,
    /// Nobody wants files now.
    pub suspended: bool,
    /// The last time for which a file was begun.
    pub last: Option<Timestamp>,
    /// When the next is due.
    pub next: Option<Timestamp>,
    /// What is kept, newest first.
    pub history: Vec<ScheduledExport>,
    /// How far the newest is.
    pub progress: Option<ExportProgress>,
}

/// The complete status of an export with a schedule.
pub fn scheduled(
    generation: Option<i64>,
    previous: Option<&ScriptExportStatus>,
    scheduled: &Scheduled<'_>,
    now: Timestamp,
) -> ScriptExportStatus {
    let (phase, reason, message) = match scheduled {
        Scheduled { cancelled: true, .. } => (
            ExportPhase::Cancelled,
            "Cancelled",
            "cancelled; there will be no further file".to_owned(),
        ),
        Scheduled {
            refusal: Some(refusal),
            ..
        } => (ExportPhase::Failed, refusal.reason, refusal.message.clone()),
        Scheduled { suspended: true, .. } => (
            ExportPhase::Suspended,
            "Suspended",
            "no file is made while spec.suspend is set".to_owned(),
        ),
        Scheduled { next: None, .. } => (
            ExportPhase::Scheduled,
            "Scheduled",
            "no further file is ever due: see spec.schedule".to_owned(),
        ),
        Scheduled { next: Some(next), .. } => (
            ExportPhase::Scheduled,
            "Scheduled",
            format!("the next file is due at {next}"),
        ),
    };
    let conditions = [
        (conditions::COMPLETE, false),
        (conditions::FAILED, phase == ExportPhase::Failed),
        (conditions::CANCELLED, phase == ExportPhase::Cancelled),
    ];
    let conditions = conditions.map(|(kind, is)| {
        let new = Condition {
            type_: kind.to_owned(),
            status: if is { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.clone(),
            observed_generation: generation,
            last_transition_time: Time(now),
        };
        condition(previous, new)
    });
    let ended = scheduled.cancelled.then(|| {
        let before = previous.and_then(|s| s.completed_at.clone());
        before.unwrap_or(Time(now))
    });
    ScriptExportStatus {
        phase: Some(phase),
        observed_generation: generation,
        progress: scheduled.progress.clone(),
        artifact: scheduled
            .history
            .iter()
            .find_map(|export| export.artifact.clone()),
        completed_at: ended,
        conditions: conditions.into(),
        message: Some(message),
        last_schedule_time: scheduled.last.map(Time),
        next_schedule_time: scheduled.next.map(Time),
        history: scheduled.history.clone(),
        ..ScriptExportStatus::default()
    }
}

/// The condition, with the moment of its last change of status.
fn condition(previous: Option<&ScriptExportStatus>, mut new: Condition) -> Condition {
    let same = previous
        .into_iter()
        .flat_map(|s| &s.conditions)
        .find(|old| old.type_ == new.type_ && old.status == new.status);
    if let Some(old) = same {
        new.last_transition_time = old.last_transition_time.clone();
    }
    new
}

fn progress_of(rows: u64, estimated: Option<u64>, bytes: u64) -> ExportProgress {
    ExportProgress {
        rows_written: signed(rows),
        // Some of those that were not there when they were counted.
        rows_estimated: estimated.map(|estimated| signed(estimated.max(rows))),
        bytes_written: signed(bytes),
    }
}

/// A file on the operator's volume.
pub fn on_volume(key: &ExportKey, file: &Sidecar) -> Artifact {
    Artifact {
        file_name: file.file_name.clone(),
        url: format!("/api/v1/namespaces/{}/exports/{}/file", key.namespace, key.name),
        bytes: signed(file.bytes),
        sha256: file.sha256.clone(),
        rows: signed(file.rows),
    }
}

/// A file in S3.
pub fn in_s3(file_name: String, url: String, stored: &Stored) -> Artifact {
    Artifact {
        file_name,
        url,
        bytes: signed(stored.bytes),
        sha256: stored.sha256.clone(),
        rows: signed(stored.rows),
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::{Table, format::Format},
        model::{Filter, ScriptKey},
    };

    fn key() -> ExportKey {
        ExportKey {
            namespace: "shop".into(),
            name: "failed".into(),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_finished_export_says_where_its_file_is() {
        let started = at("2026-01-01T00:00:00Z");
        let running = Stage::Running {
            progress: Progress { rows: 3, bytes: 99 },
            estimated: Some(2),
            trouble: None,
        };
        let before = status(Some(1), None, Some(started), &running, started);
        assert_eq!(before.phase, Some(ExportPhase::Running));
        let progress = before.progress.as_ref().unwrap();
        assert_eq!((progress.rows_written, progress.rows_estimated), (3, Some(3)));
        assert!(before.conditions.iter().all(|c| c.status == "False"));
        assert!(!is_finished(Some(&before)));

        let file = Sidecar {
            due: None,
            format: Format::default(),
            columns: Vec::new(),
            uid: "u".into(),
            script: ScriptKey::new("shop", "pay"),
            data: Table::Runs,
            from: None,
            to: None,
            filter: Filter::default(),
            file_name: "pay_runs_data.csv".into(),
            bytes: 120,
            sha256: "ab".into(),
            rows: 4,
        };
        let done = at("2026-01-01T00:01:00Z");
        let after = status(
            Some(1),
            Some(&before),
            Some(started),
            &Stage::Succeeded(&on_volume(&key(), &file)),
            done,
        );
        assert!(is_finished(Some(&after)));
        let artifact = after.artifact.unwrap();
        assert_eq!(artifact.url, "/api/v1/namespaces/shop/exports/failed/file");
        assert_eq!((artifact.rows, artifact.bytes), (4, 120));
        assert_eq!(after.started_at, Some(Time(started)));
        assert_eq!(after.completed_at, Some(Time(done)));
        let [complete, failed, cancelled] = &after.conditions[..] else {
            panic!("three conditions");
        };
        assert_eq!((&*cancelled.type_, &*cancelled.status), ("Cancelled", "False"));
        assert_eq!((&*complete.type_, &*complete.status), ("Complete", "True"));
        assert_eq!(complete.observed_generation, Some(1));
        assert_eq!(complete.last_transition_time, Time(done));
        // False before, false now: no transition.
        assert_eq!((&*failed.type_, &*failed.status), ("Failed", "False"));
        assert_eq!(failed.last_transition_time, Time(started));
    }

    #[test]
    fn a_refused_export_says_why() {
        let refusal = Refusal {
            reason: "InvalidFilter",
            message: "Status: what?".into(),
        };
        let now = at("2026-01-01T00:00:00.5Z");
        let status = status(Some(1), None, None, &Stage::Failed(&refusal), now);
        assert_eq!(status.phase, Some(ExportPhase::Failed));
        assert_eq!(status.message.as_deref(), Some("Status: what?"));
        assert_eq!(status.conditions[1].reason, "InvalidFilter");
        assert_eq!(status.conditions[1].status, "True");
        assert_eq!(status.artifact, None);
    }

    #[test]
    fn a_cancelled_export_has_neither_failed_nor_a_file() {
        let now = at("2026-01-01T00:00:00Z");
        let status = status(Some(2), None, Some(now), &Stage::Cancelled, now);
        assert!(is_finished(Some(&status)) && status.artifact.is_none());
        assert_eq!(status.completed_at, Some(Time(now)));
        let given: Vec<&str> = status.conditions.iter().map(|c| &*c.status).collect();
        assert_eq!(given, ["False", "False", "True"]);
    }

    #[test]
    fn a_second_attempt_has_the_range_of_the_first() {
        let first = at("2026-01-01T00:00:00Z");
        assert_eq!(start_of(None, at("2026-01-01T00:00:00.9Z")), first);
        let status = status(None, None, Some(first), &Stage::Pending, first);
        assert_eq!(start_of(Some(&status), at("2026-02-01T00:00:00Z")), first);
    }
}
