//! Deletes, now and then, what is past its retention: a script's own or the operator's settings, the data of deleted
//! scripts too. In steps with pauses, so that ingest goes on meanwhile.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Resource, ResourceExt,
    runtime::{
        events::EventType,
        reflector::{ObjectRef, Store},
    },
};
use tokio_util::sync::CancellationToken;

use super::{Scope, context::Context, custom_script};
use crate::{
    api::{self, CustomScript, reasons},
    model::ScriptKey,
    store::{
        Budget, Cutoffs, Keep, MaxBytes, OnDelete, Policy, Retained, SeenObject, Storage, StoreError,
        fair_share,
    },
};

/// How often to look at the objects there are, which is cheap.
const LOOK: Duration = Duration::from_secs(2);
/// How often to look for what can be deleted.
const PASS: Duration = Duration::from_mins(5);
/// How long one script may take before the next has its turn.
const TURN: Duration = Duration::from_secs(10);
/// Shortest pause between two steps; otherwise as long as the step took, so that ingest has at least every other moment.
const PAUSE: Duration = Duration::from_millis(10);
/// A step should take about so long.
const STEP: Duration = Duration::from_millis(100);
/// Rows of a step, at first, at least and at most.
const ROWS: (usize, usize, usize) = (500, 50, 2_000);
/// Bytes of log segments of a step.
const STEP_BYTES: u64 = 8 << 20;
/// Shortest time between two events of a script.
const EVENTS: SignedDuration = SignedDuration::from_hours(24);

/// How long data is kept unless a script says otherwise.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(id = "retention")] // two groups of one name can not be told apart
pub struct Args {
    /// Age at which ended runs are deleted, with their inputs and outputs: at least 1h, such as 90d, or forever.
    #[arg(
        long = "retention-runs",
        env = "SCRIPTSCOPE_RETENTION_RUNS",
        default_value = "90d"
    )]
    runs: Keep,
    /// The same of failed runs; not shorter than that of runs.
    #[arg(
        long = "retention-failed-runs",
        env = "SCRIPTSCOPE_RETENTION_FAILED_RUNS",
        default_value = "180d"
    )]
    failed_runs: Keep,
    /// Age at which log lines are deleted.
    #[arg(
        long = "retention-logs",
        env = "SCRIPTSCOPE_RETENTION_LOGS",
        default_value = "30d"
    )]
    logs: Keep,
    /// Bytes that the data of one script may take, at least 16Mi, such as 10Gi. Default: any number.
    #[arg(long = "retention-max-bytes", env = "SCRIPTSCOPE_RETENTION_MAX_BYTES")]
    max_bytes: Option<MaxBytes>,
    /// Bytes that the data of all scripts together may take; the largest scripts give first. Default: any number.
    #[arg(
        long = "retention-max-store-bytes",
        env = "SCRIPTSCOPE_RETENTION_MAX_STORE_BYTES"
    )]
    max_store_bytes: Option<MaxBytes>,
}

/// The settings, checked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    policy: Policy,
    max_store_bytes: Option<MaxBytes>,
}

impl Args {
    /// The settings, or what is wrong with them.
    pub fn limits(&self) -> Result<Limits, &'static str> {
        if self.failed_runs.or_longer(self.runs) != self.failed_runs {
            return Err(
                "--retention-failed-runs must not be shorter than --retention-runs; raise it, or lower --retention-runs",
            );
        }
        Ok(Limits {
            policy: Policy {
                runs: self.runs,
                failed_runs: self.failed_runs,
                logs: self.logs,
                max_bytes: self.max_bytes,
            },
            max_store_bytes: self.max_store_bytes,
        })
    }
}

/// Runs until it is told to stop. `scripts` must have seen the whole cluster once: a script that was not seen yet is not
/// one that is gone.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    scripts: Store<CustomScript>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let mut keeper = Keeper {
        context,
        scope,
        scripts,
        limits,
        seen: None,
        gone: HashSet::new(),
        measured: BTreeSet::new(),
        told: HashMap::new(),
    };
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next_pass = Instant::now();
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let work = async {
            let gone = keeper.note_objects().await?;
            if gone || Instant::now() >= next_pass {
                let more = keeper.pass().await?;
                next_pass = Instant::now() + if more { Duration::ZERO } else { PASS };
            }
            Ok::<(), StoreError>(())
        };
        match shutdown.run_until_cancelled(work).await {
            Some(Err(error)) => {
                tracing::warn!(%error, "What is past its retention could not be deleted.");
                next_pass = Instant::now() + PASS;
            }
            Some(Ok(())) => {}
            None => return,
        }
    }
}

/// What is to be done about a script.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    /// Its policy applies.
    Retain(Policy),
    /// Everything from before goes: the object was deleted then, and wanted it so.
    Purge(Timestamp),
    /// Nothing: its settings make no sense.
    Leave,
}

/// What a step does.
enum Work<'a> {
    Retain(Cutoffs),
    Purge(Timestamp),
    /// Pods other than these are gone, at a moment.
    ForgetPods(&'a [String], Timestamp),
}

/// What has been deleted since the last event.
#[derive(Debug, Default)]
struct Told {
    at: Option<Timestamp>,
    deleted: Retained,
}

struct Keeper {
    context: Arc<Context>,
    scope: Scope,
    scripts: Store<CustomScript>,
    limits: Limits,
    /// What the store knows of the objects, once it was asked.
    seen: Option<HashMap<ScriptKey, SeenObject>>,
    /// Scripts to be purged whose object was found gone.
    gone: HashSet<ScriptKey>,
    /// Scripts whose size is among the metrics.
    measured: BTreeSet<ScriptKey>,
    told: HashMap<ScriptKey, Told>,
}

impl Keeper {
    /// Writes down the objects there are, for the time when they are gone. Says whether one that wanted its data purged was
    /// found gone.
    async fn note_objects(&mut self) -> Result<bool, StoreError> {
        if self.seen.is_none() {
            self.seen = Some(self.context.store.seen_objects().await?.into_iter().collect());
        }
        let seen = self.seen.get_or_insert_default();
        let mut gone: HashSet<ScriptKey> = seen
            .iter()
            .filter(|(key, seen)| seen.on_delete == OnDelete::Purge && self.scope.contains(&key.namespace))
            .map(|(key, _)| key.clone())
            .collect();
        for object in self.scripts.state() {
            let (Some(key), Some(now)) = (key(&object), seen_object(&object)) else {
                continue;
            };
            match seen.get(&key) {
                // Another object of the name: the data of the one before goes first, and this is noted then.
                Some(before) if before.uid != now.uid && before.on_delete == OnDelete::Purge => continue,
                Some(before) if *before == now => {}
                _ => {
                    self.context.store.note_object(&key, &now).await?;
                    seen.insert(key.clone(), now);
                }
            }
            gone.remove(&key);
        }
        let news = !gone.is_subset(&self.gone);
        self.gone = gone;
        Ok(news)
    }

    fn object(&self, key: &ScriptKey) -> Option<Arc<CustomScript>> {
        self.scripts
            .get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    fn task(&self, key: &ScriptKey, object: Option<&CustomScript>, now: Timestamp) -> Task {
        let seen = self.seen.as_ref().and_then(|seen| seen.get(key));
        task(&self.limits.policy, seen, object, now)
    }

    /// Looks at every script once; says whether there is more to delete.
    async fn pass(&mut self) -> Result<bool, StoreError> {
        let store = self.context.store.clone();
        let mut keys: BTreeSet<ScriptKey> = store.scripts(self.scope.watched()).await?.into_iter().collect();
        let seen = self.seen.iter().flat_map(HashMap::keys);
        keys.extend(seen.filter(|key| self.scope.contains(&key.namespace)).cloned());
        let sizes = self.measure(&keys).await?;
        let share = self
            .limits
            .max_store_bytes
            .and_then(|max| fair_share(&sizes.iter().map(Storage::total).collect::<Vec<_>>(), max.0));
        let pods = self.context.pods.present();
        let mut more = false;
        for key in keys {
            let object = self.object(&key);
            let now = Timestamp::now();
            let task = self.task(&key, object.as_deref(), now);
            let work = match task {
                Task::Leave => continue,
                Task::Purge(before) => Work::Purge(before),
                Task::Retain(policy) => {
                    let mut cutoffs = policy.cutoffs(now);
                    cutoffs.max_bytes = cutoffs.max_bytes.into_iter().chain(share).min();
                    Work::Retain(cutoffs)
                }
            };
            let mut deleted = self.steps(&key, &work).await?;
            let unfinished = deleted.more;
            let present = pods.get(&key.namespace).map_or(&[][..], Vec::as_slice);
            let forgotten = self.steps(&key, &Work::ForgetPods(present, now)).await?;
            deleted.add(&forgotten);
            more |= unfinished || forgotten.more;
            if let (Task::Purge(_), false, Some(object)) = (task, unfinished, &object) {
                self.note(&key, object).await?;
            }
            self.tell(&key, object.as_deref(), &task, &deleted, now).await;
        }
        more |= self.give_back_space().await?;
        Ok(more)
    }

    /// The data of the object before is gone: this one is the script's now.
    async fn note(&mut self, key: &ScriptKey, object: &CustomScript) -> Result<(), StoreError> {
        if let Some(now) = seen_object(object) {
            self.context.store.note_object(key, &now).await?;
            self.seen.get_or_insert_default().insert(key.clone(), now);
        }
        Ok(())
    }

    /// The sizes of all scripts, which the metrics then show.
    async fn measure(&mut self, keys: &BTreeSet<ScriptKey>) -> Result<Vec<Storage>, StoreError> {
        let mut sizes = Vec::with_capacity(keys.len());
        for key in keys {
            let storage = self.context.store.storage(key).await?;
            self.context.metrics.stored(key, Some(&storage));
            sizes.push(storage);
        }
        for key in self.measured.difference(keys) {
            self.context.metrics.stored(key, None);
        }
        self.measured.clone_from(keys);
        Ok(sizes)
    }

    /// Works step by step while there is more, for one turn at most.
    async fn steps(&self, key: &ScriptKey, work: &Work<'_>) -> Result<Retained, StoreError> {
        let store = &self.context.store;
        let turn = Instant::now();
        let mut all = Retained::default();
        let mut rows = ROWS.0;
        loop {
            let began = Instant::now();
            let budget = Budget {
                rows,
                bytes: STEP_BYTES,
            };
            let done = match work {
                Work::Retain(cutoffs) => store.retain(key, cutoffs, budget).await?,
                Work::Purge(before) => store.purge(key, *before, budget).await?,
                Work::ForgetPods(present, now) => store.forget_pods(key, present, *now, budget).await?,
            };
            let took = began.elapsed();
            self.context.metrics.retained(&done);
            all.add(&done);
            if !all.more || turn.elapsed() >= TURN {
                return Ok(all);
            }
            rows = next_rows(rows, took);
            tokio::time::sleep(took.max(PAUSE)).await;
        }
    }

    /// Gives free space back, for one turn at most; says whether there is more.
    async fn give_back_space(&self) -> Result<bool, StoreError> {
        let turn = Instant::now();
        while turn.elapsed() < TURN {
            let began = Instant::now();
            if !self.context.store.give_back_space().await? {
                return Ok(false);
            }
            tokio::time::sleep(began.elapsed().max(PAUSE)).await;
        }
        Ok(true)
    }

    /// Says in an event what was deleted, once a day at most.
    async fn tell(
        &mut self,
        key: &ScriptKey,
        object: Option<&CustomScript>,
        task: &Task,
        deleted: &Retained,
        now: Timestamp,
    ) {
        if deleted.runs > 0 || deleted.lines > 0 {
            let (runs, lines) = (deleted.runs, deleted.lines);
            tracing::info!(script = %key, runs, lines, "Data past its retention was deleted.");
        }
        let Some(object) = object else {
            self.told.remove(key);
            return;
        };
        let told = self.told.entry(key.clone()).or_default();
        told.deleted.add(deleted);
        let nothing = told.deleted.runs == 0 && told.deleted.lines == 0;
        if nothing || told.at.is_some_and(|at| now.duration_since(at) < EVENTS) {
            return;
        }
        let note = note(task, &told.deleted);
        *told = Told {
            at: Some(now),
            deleted: Retained::default(),
        };
        // The recorder takes two events of one action for one.
        let action = format!("Retain{}", now.as_second());
        let about = object.object_ref(&());
        self.context
            .event(
                &about,
                EventType::Normal,
                reasons::RETENTION_APPLIED,
                action,
                note,
            )
            .await;
    }
}

fn note(task: &Task, deleted: &Retained) -> String {
    let Retained { runs, lines, .. } = deleted;
    match task {
        Task::Retain(policy) => {
            let bytes = policy
                .max_bytes
                .map_or_else(String::new, |max| format!(", at most {} bytes", max.0));
            format!(
                "Deleted {runs} runs and {lines} log lines past their retention (runs {}, failed runs {}, logs {}{bytes}); \
                 lifetime figures stay",
                policy.runs, policy.failed_runs, policy.logs
            )
        }
        Task::Purge(_) | Task::Leave => {
            format!(
                "Deleted {runs} runs and {lines} log lines of a deleted CustomScript of this name (onDelete: Purge)"
            )
        }
    }
}

/// What is to be done about a script whose object is this one, or gone.
fn task(policy: &Policy, seen: Option<&SeenObject>, object: Option<&CustomScript>, now: Timestamp) -> Task {
    let purge = seen.is_some_and(|seen| seen.on_delete == OnDelete::Purge);
    let Some(object) = object else {
        return if purge {
            Task::Purge(now)
        } else {
            Task::Retain(*policy)
        };
    };
    let another = seen.is_some_and(|seen| Some(&seen.uid) != object.metadata.uid.as_ref());
    if purge && another {
        // Whatever it has printed itself is younger.
        return match &object.metadata.creation_timestamp {
            Some(created) => Task::Purge(created.0),
            None => Task::Leave,
        };
    }
    match custom_script::retention(object) {
        Ok(wish) => Task::Retain(policy.with(&wish)),
        Err(problem) => {
            tracing::warn!(script = object.name_any(), %problem, "The retention makes no sense; nothing is deleted.");
            Task::Leave
        }
    }
}

fn key(object: &CustomScript) -> Option<ScriptKey> {
    Some(ScriptKey::new(object.namespace()?, object.name_any()))
}

fn seen_object(object: &CustomScript) -> Option<SeenObject> {
    Some(SeenObject {
        uid: object.uid()?,
        on_delete: match object.spec.on_delete {
            api::OnDelete::Retain => OnDelete::Retain,
            api::OnDelete::Purge => OnDelete::Purge,
        },
    })
}

/// Rows of the next step, after one that took so long.
fn next_rows(rows: usize, took: Duration) -> usize {
    let (_, least, most) = ROWS;
    if took > STEP {
        (rows / 2).max(least)
    } else if took < STEP / 3 {
        (rows * 2).min(most)
    } else {
        rows
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Policy {
        let days = |count: i64| Keep::For(SignedDuration::from_hours(24 * count));
        Policy {
            runs: days(90),
            failed_runs: days(180),
            logs: days(30),
            max_bytes: None,
        }
    }

    fn object(uid: &str, spec: &serde_json::Value) -> CustomScript {
        serde_json::from_value(json!({
            "apiVersion": "scriptscope.dev/v1alpha1", "kind": "CustomScript",
            "metadata": { "name": "q", "namespace": "shop", "uid": uid, "creationTimestamp": "2026-11-20T12:00:00Z" },
            "spec": spec
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_data_of_a_deleted_script_goes_only_if_that_was_asked_for() {
        let now = at("2026-11-22T12:00:00Z");
        let seen = |on_delete| SeenObject {
            uid: "o1".into(),
            on_delete,
        };
        let (keep, purge) = (seen(OnDelete::Retain), seen(OnDelete::Purge));
        let policy = policy();
        let decide = |seen, object| task(&policy, seen, object, now);
        assert_eq!(decide(None, None), Task::Retain(policy));
        assert_eq!(decide(Some(&keep), None), Task::Retain(policy));
        assert_eq!(decide(Some(&purge), None), Task::Purge(now));
        let same = object("o1", &json!({ "onDelete": "Purge" }));
        assert_eq!(decide(Some(&purge), Some(&same)), Task::Retain(policy));
        let next = object("o2", &json!({}));
        assert_eq!(
            decide(Some(&purge), Some(&next)),
            Task::Purge(at("2026-11-20T12:00:00Z"))
        );
        assert_eq!(decide(Some(&keep), Some(&next)), Task::Retain(policy));
    }

    #[test]
    fn settings_that_make_no_sense_delete_nothing() {
        let wrong = object("o1", &json!({ "retention": { "runs": "0d" } }));
        assert_eq!(task(&policy(), None, Some(&wrong), Timestamp::now()), Task::Leave);
        let args = Args {
            runs: "90d".parse().unwrap(),
            failed_runs: "30d".parse().unwrap(),
            logs: Keep::Forever,
            max_bytes: None,
            max_store_bytes: None,
        };
        assert!(args.limits().unwrap_err().starts_with("--retention-failed-runs"));
    }

    #[test]
    fn steps_get_smaller_when_they_take_long() {
        assert_eq!(next_rows(500, Duration::from_millis(300)), 250);
        assert_eq!(next_rows(60, Duration::from_secs(3)), 50);
        assert_eq!(next_rows(500, Duration::from_millis(50)), 500);
        assert_eq!(next_rows(1_500, Duration::from_millis(5)), 2_000);
    }
}
