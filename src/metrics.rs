//! The operator's own metrics, in OpenMetrics text. Labels are bounded: namespaces, scripts, statuses, fixed names.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::{
    model::{RunStatus, ScriptKey},
    store::{Retained, Storage},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    namespace: String,
    script: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScriptLabels {
    namespace: String,
    script: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StoreLabels {
    namespace: String,
    script: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    controller: &'static str,
    category: &'static str,
}

/// How the operator fares.
#[derive(Clone, Default)]
struct Condition {
    ingest_errors: Counter,
    oldest_open_run: Gauge<f64, AtomicU64>,
    store_writable: Gauge,
    volume_available: Gauge,
    volume_size: Gauge,
    leader: Gauge,
}

impl Condition {
    fn registered(registry: &mut Registry) -> Self {
        let this = Self::default();
        registry.register(
            "ingest_errors",
            "Batches that the store did not take; agents send them again",
            this.ingest_errors.clone(),
        );
        registry.register_with_unit(
            "oldest_open_run",
            "Age of the oldest run in progress, 0 where there is none",
            Unit::Seconds,
            this.oldest_open_run.clone(),
        );
        registry.register(
            "store_writable",
            "Whether the store can be written, 1 or 0",
            this.store_writable.clone(),
        );
        registry.register_with_unit(
            "volume_available",
            "Free space of the operator's volume",
            Unit::Bytes,
            this.volume_available.clone(),
        );
        registry.register_with_unit(
            "volume_size",
            "Size of the operator's volume",
            Unit::Bytes,
            this.volume_size.clone(),
        );
        registry.register(
            "leader",
            "Whether this operator runs the controllers, 1 or 0",
            this.leader.clone(),
        );
        this
    }
}

/// Every metric. Clones share the values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    runs: Family<RunLabels, Counter>,
    run_duration: Family<ScriptLabels, Histogram, fn() -> Histogram>,
    ingest_lines: Counter,
    ingest_bytes: Counter,
    ingest_batches: Counter,
    ingest_lag: Gauge<f64, AtomicU64>,
    log_gaps: Family<ReasonLabel, Counter>,
    store_write: Histogram,
    store_bytes: Family<StoreLabels, Gauge>,
    retention_deleted: Family<KindLabel, Counter>,
    reconcile_duration: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    condition: Condition,
    export_rows: Counter,
    export_bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("scriptscope");
        let runs = Family::default();
        let run_duration = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.001, 2.5, 15))) as fn() -> Histogram,
        );
        let (ingest_lines, ingest_bytes, ingest_batches) =
            (Counter::default(), Counter::default(), Counter::default());
        let ingest_lag = Gauge::default();
        let log_gaps = Family::default();
        let store_write = Histogram::new(exponential_buckets(0.0005, 2.5, 12));
        let store_bytes = Family::default();
        let retention_deleted = Family::default();
        let reconcile_duration = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.001, 2.5, 12))) as fn() -> Histogram,
        );
        let reconcile_errors = Family::default();
        let (export_rows, export_bytes) = (Counter::default(), Counter::default());

        registry.register("runs", "Runs that ended, by status", Family::clone(&runs));
        registry.register_with_unit(
            "run_duration",
            "Response time of successful runs",
            Unit::Seconds,
            run_duration.clone(),
        );
        registry.register("ingest_lines", "Log lines stored", ingest_lines.clone());
        registry.register(
            "ingest_bytes",
            "Bytes of container logs taken in",
            ingest_bytes.clone(),
        );
        registry.register("ingest_batches", "Batches taken in", ingest_batches.clone());
        registry.register_with_unit(
            "ingest_lag",
            "Age of the newest line when it was stored, last batch",
            Unit::Seconds,
            ingest_lag.clone(),
        );
        registry.register(
            "log_gaps",
            "Stretches of log that could not be read",
            Family::clone(&log_gaps),
        );
        registry.register_with_unit(
            "store_write",
            "Duration of one write transaction",
            Unit::Seconds,
            store_write.clone(),
        );
        registry.register_with_unit(
            "store",
            "Data of a script as compressed, about",
            Unit::Bytes,
            Family::clone(&store_bytes),
        );
        registry.register(
            "retention_deleted",
            "What retention deleted, by kind; bytes are about",
            Family::clone(&retention_deleted),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of one reconciliation",
            Unit::Seconds,
            reconcile_duration.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciliations that failed",
            Family::clone(&reconcile_errors),
        );
        registry.register("export_rows", "Rows written to exports", export_rows.clone());
        registry.register("export_bytes", "Bytes written to exports", export_bytes.clone());
        let condition = Condition::registered(&mut registry);
        Self {
            registry: Arc::new(registry),
            runs,
            run_duration,
            ingest_lines,
            ingest_bytes,
            ingest_batches,
            ingest_lag,
            log_gaps,
            store_write,
            store_bytes,
            retention_deleted,
            reconcile_duration,
            reconcile_errors,
            condition,
            export_rows,
            export_bytes,
        }
    }

    /// Counts runs that ended, each with its status and how long it took in microseconds. Labels are looked up once, not for
    /// each run.
    pub fn runs_ended(&self, script: &ScriptKey, ended: &[(RunStatus, i64)]) {
        for status in [RunStatus::Success, RunStatus::Failed] {
            let count = ended.iter().filter(|(of, _)| *of == status).count();
            if count > 0 {
                self.runs
                    .get_or_create(&RunLabels {
                        namespace: script.namespace.clone(),
                        script: script.name.clone(),
                        status: status.as_str(),
                    })
                    .inc_by(count as u64);
            }
        }
        let mut successful = ended
            .iter()
            .filter(|(status, _)| *status == RunStatus::Success)
            .peekable();
        if successful.peek().is_none() {
            return;
        }
        let histogram = self.run_duration.get_or_create(&ScriptLabels {
            namespace: script.namespace.clone(),
            script: script.name.clone(),
        });
        for (_, micros) in successful {
            histogram.observe(Duration::from_micros(u64::try_from(*micros).unwrap_or(0)).as_secs_f64());
        }
    }

    /// Counts a batch that was stored.
    pub fn batch_stored(&self, lines: u64, bytes: u64, write: Duration) {
        self.ingest_batches.inc();
        self.ingest_lines.inc_by(lines);
        self.ingest_bytes.inc_by(bytes);
        self.store_write.observe(write.as_secs_f64());
    }

    /// Counts a batch that the store did not take.
    pub fn batch_refused(&self) {
        self.condition.ingest_errors.inc();
    }

    /// Notes how old the oldest run in progress is; 0 where there is none.
    pub fn oldest_open_run(&self, seconds: f64) {
        self.condition.oldest_open_run.set(seconds.max(0.0));
    }

    /// Notes whether the store can be written.
    pub fn writable(&self, writable: bool) {
        self.condition.store_writable.set(writable.into());
    }

    /// Notes free space and size of the operator's volume, in bytes.
    pub fn volume(&self, available: u64, size: u64) {
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.condition.volume_available.set(bytes(available));
        self.condition.volume_size.set(bytes(size));
    }

    /// Notes how old the newest line of a batch was when it was stored.
    pub fn lag(&self, seconds: f64) {
        self.ingest_lag.set(seconds.max(0.0));
    }

    /// Counts a gap; `reason` is one of a fixed set.
    pub fn gap(&self, reason: &str) {
        self.log_gaps
            .get_or_create(&ReasonLabel {
                reason: reason.to_owned(),
            })
            .inc();
    }

    /// Counts what retention deleted.
    pub fn retained(&self, deleted: &Retained) {
        for (kind, count) in [
            ("runs", deleted.runs),
            ("lines", deleted.lines),
            ("segments", deleted.segments),
            ("other", deleted.other),
            ("bytes", deleted.bytes),
        ] {
            self.retention_deleted
                .get_or_create(&KindLabel { kind })
                .inc_by(count);
        }
    }

    /// Notes how many bytes a script's data takes; none where there is no such script any more.
    pub fn stored(&self, script: &ScriptKey, storage: Option<&Storage>) {
        let bytes = storage.map(|storage| [storage.runs, storage.payloads, storage.logs]);
        for (n, kind) in ["runs", "payloads", "logs"].into_iter().enumerate() {
            let labels = StoreLabels {
                namespace: script.namespace.clone(),
                script: script.name.clone(),
                kind,
            };
            match &bytes {
                Some(bytes) => {
                    let bytes = i64::try_from(bytes[n]).unwrap_or(i64::MAX);
                    self.store_bytes.get_or_create(&labels).set(bytes);
                }
                None => {
                    self.store_bytes.remove(&labels);
                }
            }
        }
    }

    /// Counts a reconciliation; `error` is the category of its error, from a fixed set.
    pub fn reconciled(&self, controller: &'static str, took: Duration, error: Option<&'static str>) {
        self.reconcile_duration
            .get_or_create(&ControllerLabel { controller })
            .observe(took.as_secs_f64());
        if let Some(category) = error {
            self.reconcile_errors
                .get_or_create(&ErrorLabels { controller, category })
                .inc();
        }
    }

    /// Notes whether this operator runs the controllers.
    pub fn leads(&self, leads: bool) {
        self.condition.leader.set(leads.into());
    }

    /// Counts what an export wrote.
    pub fn exported(&self, rows: u64, bytes: u64) {
        self.export_rows.inc_by(rows);
        self.export_bytes.inc_by(bytes);
    }

    /// The metrics as OpenMetrics text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_durations_are_encoded_under_their_names() {
        let metrics = Metrics::new();
        let script = ScriptKey::new("shop", "qbalance");
        metrics.runs_ended(&script, &[(RunStatus::Success, 12_000), (RunStatus::Failed, 7)]);
        let text = metrics.encode().unwrap();
        let line = r#"scriptscope_runs_total{namespace="shop",script="qbalance",status="Failed"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.contains("scriptscope_run_duration_seconds_count"), "{text}");
    }

    #[test]
    fn what_a_script_takes_is_shown_while_there_is_the_script() {
        let metrics = Metrics::new();
        let script = ScriptKey::new("shop", "qbalance");
        let storage = Storage {
            logs: 7,
            ..Storage::default()
        };
        metrics.stored(&script, Some(&storage));
        metrics.retained(&Retained {
            runs: 3,
            ..Retained::default()
        });
        let text = metrics.encode().unwrap();
        let line = r#"scriptscope_store_bytes{namespace="shop",script="qbalance",kind="logs"} 7"#;
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains(r#"scriptscope_retention_deleted_total{kind="runs"} 3"#),
            "{text}"
        );
        metrics.stored(&script, None);
        assert!(!metrics.encode().unwrap().contains("store_bytes{"));
    }
}
