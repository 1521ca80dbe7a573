//! Writes the figures into the status, under a field manager of their own and only when they have changed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::reflector::{ObjectRef, Store},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Error, display, metrics, status::apply_body};
use crate::{
    api::{CustomScript, MetricsStatus},
    model::ScriptKey,
    operator::context::{Context, ReconcilerError},
};

/// Owner of the fields `metrics` and `display`.
const FIELD_MANAGER: &str = "scriptscope-metrics";
/// Name in metrics and logs.
const NAME: &str = "figures";
/// How often to ask the store what has changed.
const TICK: Duration = Duration::from_secs(1);
/// Shortest time between two writes of one script's figures.
const PACE: Duration = Duration::from_secs(5);
/// Versions listed.
const VERSIONS: usize = 5;
/// Scripts written at once.
const CONCURRENCY: usize = 4;
/// Longest time for one script.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Which scripts are due: those that changed, each at most once in [`PACE`].
#[derive(Debug, Default)]
struct Pacer {
    waiting: BTreeSet<ScriptKey>,
    written: HashMap<ScriptKey, Instant>,
}

impl Pacer {
    fn changed(&mut self, scripts: impl IntoIterator<Item = ScriptKey>) {
        self.waiting.extend(scripts);
    }

    fn due(&mut self, now: Instant) -> Vec<ScriptKey> {
        self.written
            .retain(|_, at| now.saturating_duration_since(*at) < PACE);
        let due: Vec<_> = self
            .waiting
            .iter()
            .filter(|key| !self.written.contains_key(*key))
            .cloned()
            .collect();
        for key in &due {
            self.waiting.remove(key);
            self.written.insert(key.clone(), now);
        }
        due
    }
}

/// Runs until it is told to stop.
pub async fn run(context: Arc<Context>, scripts: Store<CustomScript>, shutdown: CancellationToken) {
    let mut pacer = Pacer::default();
    let mut since = 0;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What the status says may be older than this process.
    pacer.changed(scripts.state().iter().filter_map(|script| key(script)));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let (changed, next) = context.store.changed_scripts(since);
        since = next;
        pacer.changed(changed);
        let without =
            scripts.state_filter(|script| script.status.as_ref().is_some_and(|s| s.metrics.is_none()));
        pacer.changed(without.iter().filter_map(|script| key(script)));
        let failed: Vec<ScriptKey> = stream::iter(pacer.due(Instant::now()))
            .map(|key| flush(&context, &scripts, key))
            .buffer_unordered(CONCURRENCY)
            .filter_map(std::future::ready)
            .collect()
            .await;
        pacer.changed(failed);
    }
}

fn key(script: &CustomScript) -> Option<ScriptKey> {
    Some(ScriptKey::new(script.namespace()?, script.name_any()))
}

/// Writes one script's figures; returns its key if that must be tried again.
async fn flush(context: &Context, scripts: &Store<CustomScript>, key: ScriptKey) -> Option<ScriptKey> {
    let object = scripts.get(&ObjectRef::new(&key.name).within(&key.namespace))?;
    let began = Instant::now();
    let result = tokio::time::timeout(TIMEOUT, write(context, &object, &key))
        .await
        .unwrap_or(Err(Error::Timeout));
    let category = result.as_ref().err().map(ReconcilerError::category);
    context.metrics.reconciled(NAME, began.elapsed(), category);
    let error = result.err()?;
    tracing::warn!(script = %key, %error, "The figures could not be written into the status.");
    Some(key)
}

async fn write(context: &Context, object: &CustomScript, key: &ScriptKey) -> Result<(), Error> {
    let figures = context.store.figures(key).await?;
    let versions = context.store.version_figures(key, VERSIONS).await?;
    let mut wanted = metrics(&figures, &versions);
    let current = object.status.as_ref().and_then(|status| status.metrics.as_ref());
    if !differs(current, &wanted)? {
        return Ok(());
    }
    wanted.updated_at = Some(Time(Timestamp::now()));
    let body = apply_body(&json!({ "metrics": wanted, "display": display(&figures) }));
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let api = Api::<CustomScript>::namespaced(context.client.clone(), &key.namespace);
    match api
        .patch_status(&key.name, &parameters, &Patch::Apply(body))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the figures differ, whenever they were written. As JSON, where times have whole seconds on both sides.
fn differs(current: Option<&MetricsStatus>, wanted: &MetricsStatus) -> Result<bool, serde_json::Error> {
    let Some(current) = current else { return Ok(true) };
    let current = MetricsStatus {
        updated_at: None,
        ..current.clone()
    };
    Ok(serde_json::to_value(current)? != serde_json::to_value(wanted)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Figures;

    #[test]
    fn a_busy_script_is_written_at_most_every_five_seconds_and_its_last_change_is_not_lost() {
        let (a, b) = (ScriptKey::new("shop", "a"), ScriptKey::new("shop", "b"));
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.changed([a.clone()]);
        assert_eq!(pacer.due(start), [a.clone()]);
        pacer.changed([a.clone(), b.clone()]);
        assert_eq!(pacer.due(start + TICK), [b]);
        assert!(pacer.due(start + PACE - TICK).is_empty());
        assert_eq!(pacer.due(start + PACE), [a]);
        assert!(pacer.due(start + PACE * 3).is_empty());
        assert!(pacer.written.is_empty(), "scripts at rest are forgotten");
    }

    #[test]
    fn the_same_figures_are_not_written_twice() {
        let figures = Figures {
            total_runs: 3,
            last_run_time: Some("2025-05-14T12:00:00.123456Z".parse().unwrap()),
            ..Figures::default()
        };
        let wanted = metrics(&figures, &[]);
        assert!(differs(None, &wanted).unwrap());
        // As it comes back: with the time of the write, and times in whole seconds.
        let mut written: MetricsStatus =
            serde_json::from_value(serde_json::to_value(&wanted).unwrap()).unwrap();
        written.updated_at = Some(Time("2025-05-14T12:00:05Z".parse().unwrap()));
        assert!(!differs(Some(&written), &wanted).unwrap());
        let more = metrics(
            &Figures {
                total_runs: 4,
                ..figures
            },
            &[],
        );
        assert!(differs(Some(&written), &more).unwrap());
    }
}
