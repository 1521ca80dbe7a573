//! Groups of failed runs. Pure.

use std::{cmp::Reverse, collections::HashMap, fmt::Write as _};

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Frame, message::normalised};
use crate::model::{RunError, TimeRange};

/// Buckets of the counts over time.
const BUCKETS: usize = 24;
/// Runs of a group that are named, the newest: as many as a condition of a filter has values.
const NAMED: usize = 50;
/// Characters of a whole message that is shown.
const SHOWN: usize = 1_000;

/// A run that failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedRun<'a> {
    /// Its id.
    pub run_id: &'a str,
    /// When it began.
    pub executed_on: Timestamp,
    /// Version that ran it.
    pub version: i64,
    /// Why it failed, in one word.
    pub reason: Option<&'a str>,
    /// Why it failed, where more is kept.
    pub error: Option<&'a RunError>,
}

/// Failed runs of one fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureGroup {
    /// What tells the group from others; the same for the same error at any time.
    pub fingerprint: String,
    /// Why its runs failed, in one word.
    pub reason: String,
    /// Type of the exception, where one was raised.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What the messages have in common: their values are replaced.
    pub message: String,
    /// The newest message, as it is.
    pub example: String,
    /// Where it was raised in the script's own files, of the newest run.
    pub frame: Option<Frame>,
    /// How many runs.
    pub count: i64,
    /// When the first of them began.
    pub first_seen: Timestamp,
    /// When the last of them began.
    pub last_seen: Timestamp,
    /// The first version that has it.
    pub first_version: i64,
    /// The last version that has it.
    pub last_version: i64,
    /// The newest runs, the last first; all of them where there are no more than these.
    pub runs: Vec<String>,
    /// Runs by bucket of [`Failures`].
    pub counts: Vec<i64>,
}

/// What groups were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// The groups, those of most runs first.
    pub items: Vec<FailureGroup>,
    /// Groups that were left out since there are many.
    pub left_out: i64,
    /// Failed runs that were read, the newest ones.
    pub read: i64,
    /// Whether there may be older ones in the range that were not read.
    pub more: bool,
    /// When the oldest run that was read began.
    pub oldest: Option<Timestamp>,
    /// First moment of the first bucket.
    pub from: Option<Timestamp>,
    /// First moment after the last bucket.
    pub to: Option<Timestamp>,
}

struct Group {
    shown: FailureGroup,
    times: Vec<Timestamp>,
}

/// Groups runs as they come.
#[derive(Default)]
pub struct Grouping {
    groups: HashMap<[u8; 8], Group>,
    read: usize,
    newest: Option<Timestamp>,
    oldest: Option<Timestamp>,
}

impl Grouping {
    /// Takes a run; the newest come first.
    pub fn add(&mut self, run: FailedRun<'_>) {
        self.read += 1;
        self.newest = self.newest.max(Some(run.executed_on));
        self.oldest = Some(self.oldest.map_or(run.executed_on, |t| t.min(run.executed_on)));
        let error = run.error;
        let reason = error.map(|e| &*e.reason).or(run.reason).unwrap_or("Unknown");
        let kind = error.and_then(|e| e.kind.as_deref());
        let full = error.map_or("", |e| &*e.message);
        let message = normalised(full);
        let frame = error.and_then(|e| Frame::of(e.traceback.as_deref()?));
        let print = fingerprint(reason, kind, &message, frame.as_ref());
        let group = self.groups.entry(print).or_insert_with(|| Group {
            shown: FailureGroup {
                fingerprint: hex(print),
                reason: reason.to_owned(),
                kind: kind.map(str::to_owned),
                message,
                example: full.chars().take(SHOWN).collect(),
                frame,
                count: 0,
                first_seen: run.executed_on,
                last_seen: run.executed_on,
                first_version: run.version,
                last_version: run.version,
                runs: Vec::new(),
                counts: Vec::new(),
            },
            times: Vec::new(),
        });
        let shown = &mut group.shown;
        shown.count += 1;
        shown.first_seen = shown.first_seen.min(run.executed_on);
        shown.last_seen = shown.last_seen.max(run.executed_on);
        shown.first_version = shown.first_version.min(run.version);
        shown.last_version = shown.last_version.max(run.version);
        if shown.runs.len() < NAMED {
            shown.runs.push(run.run_id.to_owned());
        }
        group.times.push(run.executed_on);
    }

    /// How many runs it took.
    pub fn len(&self) -> usize {
        self.read
    }

    /// Whether it took none.
    pub fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// The `limit` largest groups, with their runs counted over a range that ends `now` at the latest. `more` says
    /// whether there are runs in the range that were not read.
    pub fn finish(self, range: TimeRange, now: Timestamp, limit: usize, more: bool) -> Failures {
        let from = range.from.or(self.oldest);
        let end = range.to.map_or(now, |to| to.min(now));
        // A clock may be ahead of ours.
        let to = self.newest.map(|newest| end.max(after(newest)));
        let buckets = from.zip(to);
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by(|a, b| {
            let key = |g: &Group| {
                (
                    Reverse((g.shown.count, g.shown.last_seen)),
                    g.shown.fingerprint.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        let left_out = groups.len().saturating_sub(limit);
        groups.truncate(limit);
        let items = groups
            .into_iter()
            .map(|group| FailureGroup {
                counts: buckets.map_or_else(Vec::new, |(from, to)| counts(&group.times, from, to)),
                ..group.shown
            })
            .collect();
        Failures {
            items,
            left_out: whole(left_out),
            read: whole(self.read),
            more,
            oldest: self.oldest,
            from,
            to,
        }
    }
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn after(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond().saturating_add(1)).unwrap_or(time)
}

/// The line is no part of it: it moves with every edit of the file.
fn fingerprint(reason: &str, kind: Option<&str>, message: &str, frame: Option<&Frame>) -> [u8; 8] {
    let mut hash = Sha256::new();
    let file = frame.map(|frame| &*frame.file);
    let function = frame.and_then(|frame| frame.function.as_deref());
    for part in [Some(reason), kind, Some(message), file, function] {
        hash.update(part.unwrap_or_default());
        hash.update([0, u8::from(part.is_some())]);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hash.finalize()[..8]);
    short
}

fn hex(bytes: [u8; 8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How many of the times lie in each of equal parts of a stretch of time.
fn counts(times: &[Timestamp], from: Timestamp, to: Timestamp) -> Vec<i64> {
    let mut counts = vec![0; BUCKETS];
    let (from, to) = (i128::from(from.as_microsecond()), i128::from(to.as_microsecond()));
    let long = (to - from).max(1);
    for time in times {
        let at = (i128::from(time.as_microsecond()) - from) * i128::try_from(BUCKETS).unwrap_or(1) / long;
        let at = usize::try_from(at).unwrap_or(0).min(BUCKETS - 1);
        counts[at] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn error(message: &str, traceback: Option<&str>) -> RunError {
        RunError {
            reason: "Exception".to_owned(),
            kind: Some("ValueError".to_owned()),
            message: message.to_owned(),
            traceback: traceback.map(str::to_owned),
        }
    }

    fn add(grouping: &mut Grouping, id: &str, second: i64, version: i64, error: &RunError) {
        grouping.add(FailedRun {
            run_id: id,
            executed_on: at(second),
            version,
            reason: Some("Exception"),
            error: Some(error),
        });
    }

    const ALL: usize = 100;

    #[test]
    fn runs_that_differ_in_values_and_lines_are_one_group() {
        let trace = |line| format!("  File \"/app/main.py\", line {line}, in charge");
        let mut grouping = Grouping::default();
        add(&mut grouping, "c", 30, 3, &error("order 3", Some(&trace(41))));
        add(&mut grouping, "b", 20, 1, &error("order 22", Some(&trace(9))));
        add(&mut grouping, "a", 10, 2, &error("order 1", Some(&trace(9))));
        add(&mut grouping, "x", 5, 2, &error("order 1", None));
        let found = grouping.finish(TimeRange::ALL, at(40), ALL, false);
        assert_eq!((found.read, found.left_out, found.more), (4, 0, false));
        let [group, other] = &*found.items else {
            panic!("{:?}", found.items)
        };
        assert_eq!((group.count, group.message.as_str()), (3, "order <n>"));
        assert_eq!(
            (&*group.example, group.frame.as_ref().unwrap().line),
            ("order 3", 41)
        );
        assert_eq!((group.first_seen, group.last_seen), (at(10), at(30)));
        assert_eq!((group.first_version, group.last_version), (1, 3));
        assert_eq!(group.runs, ["c", "b", "a"]);
        assert_eq!((&*other.runs[0], &other.frame), ("x", &None));
        assert_ne!(group.fingerprint, other.fingerprint);
    }

    #[test]
    fn a_run_without_an_error_is_grouped_by_its_reason() {
        let mut grouping = Grouping::default();
        for (id, reason) in [("a", Some("OOMKilled")), ("b", Some("OOMKilled")), ("c", None)] {
            grouping.add(FailedRun {
                run_id: id,
                executed_on: at(1),
                version: 1,
                reason,
                error: None,
            });
        }
        let found = grouping.finish(TimeRange::ALL, at(2), ALL, false);
        let reasons: Vec<(&str, i64)> = found.items.iter().map(|g| (&*g.reason, g.count)).collect();
        assert_eq!(reasons, [("OOMKilled", 2), ("Unknown", 1)]);
    }

    #[test]
    fn counts_cover_the_range_and_add_up() {
        let range = TimeRange {
            from: Some(at(0)),
            to: Some(at(240)),
        };
        let mut grouping = Grouping::default();
        for second in [239, 230, 229, 10, 9, 0] {
            add(&mut grouping, "r", second, 1, &error("no", None));
        }
        let found = grouping.finish(range, at(1_000), ALL, false);
        let counts = &found.items[0].counts;
        assert_eq!((counts.len(), counts.iter().sum::<i64>()), (24, 6));
        assert_eq!((counts[0], counts[1], counts[22], counts[23]), (2, 1, 1, 2));
        // A range that is not over ends now, but never before the last run.
        let mut grouping = Grouping::default();
        add(&mut grouping, "r", 120, 1, &error("no", None));
        let found = grouping.finish(range, at(60), ALL, false);
        assert_eq!(found.items[0].counts[23], 1);
    }

    #[test]
    fn the_largest_groups_come_first_and_the_rest_is_counted() {
        let mut grouping = Grouping::default();
        for (n, word) in ["one", "two", "two", "three", "three", "three"]
            .iter()
            .enumerate()
        {
            add(
                &mut grouping,
                "r",
                i64::try_from(n).unwrap(),
                1,
                &error(word, None),
            );
        }
        let found = grouping.finish(TimeRange::ALL, at(100), 2, true);
        let messages: Vec<&str> = found.items.iter().map(|g| &*g.message).collect();
        assert_eq!(
            (messages, found.left_out, found.more),
            (vec!["three", "two"], 1, true)
        );
        let nothing = Grouping::default().finish(TimeRange::ALL, at(100), 2, false);
        assert_eq!((nothing.read, nothing.oldest, nothing.to), (0, None, None));
    }
}
