//! What a sequence of run events does to a script's runs, worked out without a database.
//!
//! The rules: the first beginning of a run id stands; only a run in progress is closed, once; an end without a
//! beginning makes the whole run.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    mem,
};

use foldhash::quality::RandomState;

use super::{
    StoreError,
    batch::{End, RunEvent, Start, hour_of},
    digest::Digest,
};
use crate::{model::RunStatus, query::window::HOURS_A_DAY};

/// A run that the store has.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// Number of its payload's row, if it has one.
    pub payload: Option<i64>,
    /// Whether it is still in progress.
    pub in_progress: bool,
    /// When it began.
    pub executed_at: i64,
    /// Version that ran it.
    pub version: i64,
    /// Function called.
    pub function: String,
}

/// Where an event is from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Stream of the record.
    pub stream: i64,
    /// Version of the stream's pod.
    pub version: i64,
}

/// A run to insert.
#[derive(Debug)]
pub struct NewRun<'a> {
    /// Its id.
    pub run_id: &'a str,
    /// When it began.
    pub executed_at: i64,
    /// Where its first record is from.
    pub origin: Origin,
    /// Its beginning, if seen.
    pub start: Option<&'a Start>,
    /// Its end, if seen.
    pub end: Option<&'a End>,
}

/// A run to close.
#[derive(Debug)]
pub struct ClosedRun<'a> {
    /// The run as it is stored.
    pub stored: StoredRun,
    /// Its end.
    pub end: &'a End,
}

/// What to write.
#[derive(Debug, Default)]
pub struct RunChanges<'a> {
    /// Runs to insert.
    pub new: Vec<NewRun<'a>>,
    /// Runs to close.
    pub closed: Vec<ClosedRun<'a>>,
}

impl<'a> RunChanges<'a> {
    /// Closes stored runs; their ends in the same order.
    pub fn closing(stored: Vec<StoredRun>, ends: &'a [End]) -> Self {
        let closed = stored.into_iter().zip(ends);
        Self {
            new: Vec::new(),
            closed: closed.map(|(stored, end)| ClosedRun { stored, end }).collect(),
        }
    }
}

enum Known {
    New(usize),
    Stored(Box<StoredRun>),
    Closed,
}

/// Which runs must be looked up before events are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// Those that end and have not begun here. A run that begins is taken for a new one, which nearly all are: the store
    /// refuses its row if it is not, and then all must be looked up.
    Ends,
    /// All.
    All,
}

impl LookUp {
    /// The ids, each once.
    pub fn ids<'a>(self, events: impl IntoIterator<Item = &'a RunEvent>) -> Vec<&'a str> {
        let events = events.into_iter();
        let mut ids = Vec::new();
        let mut seen = HashSet::with_capacity_and_hasher(events.size_hint().0, RandomState::default());
        for event in events {
            let id = event.run_id();
            if seen.insert(id) && (self == Self::All || matches!(event, RunEvent::End(_))) {
                ids.push(id);
            }
        }
        ids
    }
}

/// Applies events in their order to the runs of one script, of which `stored` has those that
/// [`LookUp`] names and the store has.
pub fn apply<'a>(
    stored: HashMap<String, StoredRun>,
    events: impl IntoIterator<Item = (Origin, &'a RunEvent)>,
    ended_before: i64,
) -> RunChanges<'a> {
    let mut changes = RunChanges::default();
    let mut stored = stored;
    let events = events.into_iter();
    // Of each run there are mostly two.
    let mut known: HashMap<&str, Known, RandomState> =
        HashMap::with_capacity_and_hasher(events.size_hint().0 / 2, RandomState::default());
    for (origin, event) in events {
        if !stored.is_empty()
            && let Some(run) = stored.remove(event.run_id())
        {
            known.insert(event.run_id(), Known::Stored(Box::new(run)));
        }
        match event {
            RunEvent::Start(start) => {
                if let Entry::Vacant(vacant) = known.entry(&start.run_id) {
                    vacant.insert(Known::New(changes.new.len()));
                    changes.new.push(NewRun {
                        run_id: &start.run_id,
                        executed_at: start.executed_at,
                        origin,
                        start: Some(start),
                        end: None,
                    });
                }
            }
            RunEvent::End(end) => match known.get_mut(end.run_id.as_str()) {
                None if end.began_at < ended_before => {}
                None => {
                    known.insert(&end.run_id, Known::Closed);
                    changes.new.push(NewRun {
                        run_id: &end.run_id,
                        executed_at: end.began_at,
                        origin,
                        start: None,
                        end: Some(end),
                    });
                }
                Some(Known::New(at)) => {
                    if let Some(run) = changes.new.get_mut(*at) {
                        run.end.get_or_insert(end);
                    }
                }
                Some(Known::Closed) => {}
                Some(entry) => {
                    if let Known::Stored(run) = std::mem::replace(entry, Known::Closed)
                        && run.in_progress
                    {
                        changes.closed.push(ClosedRun { stored: *run, end });
                    }
                }
            },
        }
    }
    changes
}

/// Ended runs of a group, to be added to its rollup.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Successful ones.
    pub succeeded: i64,
    /// Failed ones.
    pub failed: i64,
    /// Response times of the successful ones.
    pub digest: Digest,
}

impl Ended {
    /// Counts an ended run.
    pub fn count(&mut self, status: RunStatus, response_time: Option<i64>) {
        match status {
            RunStatus::Success => {
                self.succeeded += 1;
                if let Some(time) = response_time {
                    self.digest.add(time);
                }
            }
            RunStatus::Failed => self.failed += 1,
            RunStatus::InProgress => {}
        }
    }
}

/// Additions to the lifetime figures of one version.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Runs that ended.
    pub ended: Ended,
    /// Log lines.
    pub lines: i64,
    /// When the last of its new runs began.
    pub last_run_at: Option<i64>,
}

/// Additions to the rollups of one script.
#[derive(Clone, Debug, Default)]
pub struct Rollups {
    /// By hour and version, then by function.
    pub runs: BTreeMap<(i64, i64), BTreeMap<String, Ended>>,
    /// By hour, version and code of the level.
    pub lines: BTreeMap<(i64, i64, u8), i64>,
    /// By version.
    pub totals: BTreeMap<i64, Totals>,
}

impl Rollups {
    /// Takes out the ended runs by hours: by hour, version and function.
    pub fn take_hours(&mut self) -> BTreeMap<(i64, i64, String), Ended> {
        let groups = mem::take(&mut self.runs).into_iter();
        groups
            .flat_map(|((hour, version), functions)| {
                let functions = functions.into_iter();
                functions.map(move |(function, ended)| ((hour, version, function), ended))
            })
            .collect()
    }

    /// The ended runs by days, whatever the function: by the first hour of the day, version and an empty function.
    pub fn days(&self) -> BTreeMap<(i64, i64, String), Ended> {
        let mut days: BTreeMap<_, Ended> = BTreeMap::new();
        for (&(hour, version), functions) in &self.runs {
            let day = hour.div_euclid(HOURS_A_DAY) * HOURS_A_DAY;
            let sum = days.entry((day, version, String::new())).or_default();
            for ended in functions.values() {
                sum.succeeded += ended.succeeded;
                sum.failed += ended.failed;
                sum.digest.merge(ended.digest.clone());
            }
        }
        days
    }

    /// Counts what changed.
    pub fn add(&mut self, changes: &RunChanges<'_>) {
        for run in &changes.new {
            let totals = self.totals.entry(run.origin.version).or_default();
            totals.last_run_at = totals.last_run_at.max(Some(run.executed_at));
            if let Some(end) = run.end {
                let function = run.start.map_or("", |start| &start.function);
                self.ended(
                    run.executed_at,
                    run.origin.version,
                    function,
                    end.status,
                    end.response_time,
                );
            }
        }
        for ClosedRun { stored, end } in &changes.closed {
            self.ended(
                stored.executed_at,
                stored.version,
                &stored.function,
                end.status,
                end.response_time,
            );
        }
    }

    /// Counts one ended run in the hour in which it began.
    pub fn ended(
        &mut self,
        executed_at: i64,
        version: i64,
        function: &str,
        status: RunStatus,
        response_time: Option<i64>,
    ) {
        let group = (hour_of(executed_at), version);
        let functions = self.runs.entry(group).or_default();
        match functions.get_mut(function) {
            Some(ended) => ended.count(status, response_time),
            None => functions
                .entry(function.to_owned())
                .or_default()
                .count(status, response_time),
        }
        self.totals
            .entry(version)
            .or_default()
            .ended
            .count(status, response_time);
    }

    /// Counts lines.
    pub fn lines(&mut self, hour: i64, version: i64, level: u8, count: i64) {
        *self.lines.entry((hour, version, level)).or_insert(0) += count;
        self.totals.entry(version).or_default().lines += count;
    }
}

/// The digest of both, as bytes; empty where nothing is new.
pub fn merged_digest(stored: Option<&Vec<u8>>, new: &mut Ended) -> Result<Vec<u8>, StoreError> {
    if new.succeeded == 0 {
        return Ok(Vec::new());
    }
    let mut digest = stored.map_or_else(|| Ok(Digest::default()), |bytes| Digest::decode(bytes))?;
    digest.merge(mem::take(&mut new.digest));
    Ok(digest.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin {
        stream: 1,
        version: 3,
    };

    fn start(id: &str, at: i64) -> RunEvent {
        RunEvent::Start(Start {
            run_id: id.into(),
            executed_at: at,
            function: "f".into(),
            source_type: 1,
            source: String::new(),
            traceparent: None,
            input: None,
        })
    }

    fn end(id: &str, at: i64, took: i64) -> RunEvent {
        RunEvent::End(End {
            run_id: id.into(),
            finished_at: at,
            began_at: at - took,
            status: RunStatus::Success,
            response_time: Some(took),
            reason: None,
            output: None,
            error: None,
        })
    }

    fn stored(in_progress: bool) -> HashMap<String, StoredRun> {
        let run = StoredRun {
            payload: None,
            in_progress,
            executed_at: 5,
            version: 2,
            function: "g".into(),
        };
        HashMap::from([("r".to_owned(), run)])
    }

    #[test]
    fn the_first_beginning_and_the_first_end_stand() {
        let events = [
            start("r", 10),
            start("r", 99),
            end("r", 30, 20),
            end("r", 50, 40),
            start("r", 70),
        ];
        let changes = apply(HashMap::new(), events.iter().map(|e| (ORIGIN, e)), i64::MIN);
        assert_eq!((changes.new.len(), changes.closed.len()), (1, 0));
        assert_eq!(changes.new[0].executed_at, 10);
        assert_eq!(changes.new[0].end.unwrap().response_time, Some(20));
    }

    #[test]
    fn an_end_without_a_beginning_makes_the_whole_run_and_a_late_beginning_changes_nothing() {
        let events = [end("r", 30, 20), start("r", 1)];
        let changes = apply(HashMap::new(), events.iter().map(|e| (ORIGIN, e)), i64::MIN);
        assert_eq!(changes.new.len(), 1);
        assert_eq!(changes.new[0].executed_at, 10);
    }

    #[test]
    fn a_second_end_of_a_deleted_run_brings_it_not_back() {
        let events = [
            end("deleted", 30, 20),
            start("late", 5),
            end("late", 31, 26),
            end("new", 40, 20),
        ];
        let changes = apply(HashMap::new(), events.iter().map(|e| (ORIGIN, e)), 20);
        let ids: Vec<&str> = changes.new.iter().map(|run| run.run_id).collect();
        assert_eq!(ids, ["late", "new"]);
    }

    #[test]
    fn only_ends_without_a_beginning_are_looked_up_unless_all_are() {
        let events = [start("a", 1), end("a", 2, 1), end("b", 3, 1), start("b", 2)];
        assert_eq!(LookUp::Ends.ids(&events), ["b"]);
        assert_eq!(LookUp::All.ids(&events), ["a", "b"]);
    }

    #[test]
    fn a_stored_run_is_closed_once_and_only_if_in_progress() {
        let events = [start("r", 1), end("r", 30, 20), end("r", 31, 21)];
        let changes = apply(stored(true), events.iter().map(|e| (ORIGIN, e)), i64::MIN);
        assert_eq!((changes.new.len(), changes.closed.len()), (0, 1));
        let mut rollups = Rollups::default();
        rollups.add(&changes);
        // Counted for the version that began it.
        assert_eq!(rollups.totals.keys().collect::<Vec<_>>(), [&2]);
        let changes = apply(stored(false), events.iter().map(|e| (ORIGIN, e)), i64::MIN);
        assert_eq!((changes.new.len(), changes.closed.len()), (0, 0));
    }
}
