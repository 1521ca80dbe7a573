//! Rows in memory, for tests of what stands in front of the store.

use async_trait::async_trait;
use jiff::Timestamp;
use scriptscope::{
    ingest::wire::StreamKey,
    model::{
        Column, Deployment, DeploymentState, Figures, Filter, LogLine, Match, Operator, Run, RunDetail,
        RunStatus, ScriptKey, TimeRange, VersionFigures, failure_rate_basis_points,
    },
    store::{
        Append, AppendOutcome, Budget, CloseRuns, Cutoffs, LogCursor, LogQuery, Page, PodRecord, Retained,
        Retention, RunCursor, RunQuery, SeenObject, Storage, Store, StoreError, StreamCheckpoint,
    },
};

/// The rows, newest first.
#[derive(Default)]
pub struct MemoryStore {
    pub runs: Vec<(ScriptKey, Run)>,
    pub logs: Vec<(ScriptKey, LogLine)>,
    pub broken: bool,
}

impl MemoryStore {
    fn matching<'a>(
        &'a self,
        script: &'a ScriptKey,
        range: TimeRange,
        filter: &'a Filter,
    ) -> impl Iterator<Item = &'a Run> {
        self.runs
            .iter()
            .filter(move |(key, run)| key == script && range.contains(run.executed_on))
            .map(|(_, run)| run)
            .filter(|run| passes(filter, |column| run_cell(run, column)))
    }

    fn well(&self) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Unusable("password=secret".into()));
        }
        Ok(())
    }
}

fn passes(filter: &Filter, cell: impl Fn(Column) -> String) -> bool {
    let holds = |c: &scriptscope::model::Condition| {
        let cell = cell(c.column).to_lowercase();
        let mut values = c.values.iter().map(|v| v.to_lowercase());
        match c.operator {
            Operator::NotEquals => values.all(|v| v != cell),
            Operator::Contains => values.any(|v| cell.contains(&v)),
            _ => values.any(|v| v == cell),
        }
    };
    match filter.matching {
        Match::Any if !filter.conditions.is_empty() => filter.conditions.iter().any(holds),
        _ => filter.conditions.iter().all(holds),
    }
}

fn run_cell(run: &Run, column: Column) -> String {
    match column {
        Column::RunId => run.run_id.clone(),
        Column::Status => run.status.to_string(),
        Column::DeploymentVersion => run.deployment_version.to_string(),
        Column::Function => run.function.clone(),
        Column::SourceType => run.source_type.to_string(),
        Column::Source => run.source.clone(),
        _ => String::new(),
    }
}

fn log_cell(line: &LogLine, column: Column) -> String {
    match column {
        Column::RunId => line.run_id.clone().unwrap_or_default(),
        Column::LogId => line.log_id.to_string(),
        Column::LogLevel => line.level.to_string(),
        Column::LogMessage => line.message.clone(),
        _ => String::new(),
    }
}

/// The page of `rows` (sorted, newest first) after the rows whose key is not below `after`.
fn page<T: Clone, K: Ord, C>(
    rows: Vec<T>,
    limit: usize,
    after: Option<&K>,
    key: impl Fn(&T) -> K,
    cursor: impl Fn(&T) -> C,
) -> Page<T, C> {
    let mut rest = rows
        .into_iter()
        .filter(|row| after.is_none_or(|after| key(row) < *after));
    let rows: Vec<T> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| rows.last().map(cursor));
    Page { rows, next }
}

#[async_trait]
impl Store for MemoryStore {
    async fn runs(&self, query: &RunQuery) -> Result<Page<Run, RunCursor>, StoreError> {
        self.well()?;
        let mut rows: Vec<Run> = self
            .matching(&query.script, query.range, &query.filter)
            .cloned()
            .collect();
        let key = |run: &Run| (run.executed_on, run.run_id.clone());
        rows.sort_by_key(|run| std::cmp::Reverse(key(run)));
        let after = query.after.clone().map(|c| (c.executed_on, c.run_id));
        Ok(page(rows, query.limit, after.as_ref(), key, |run| RunCursor {
            executed_on: run.executed_on,
            run_id: run.run_id.clone(),
        }))
    }

    async fn run(&self, script: &ScriptKey, run_id: &str) -> Result<Option<RunDetail>, StoreError> {
        let found = self.runs.iter().find(|(k, r)| k == script && r.run_id == run_id);
        Ok(found.map(|(_, run)| RunDetail {
            run: run.clone(),
            input: serde_json::value::RawValue::from_string("{\"n\": 1.0}".into()).ok(),
            output: None,
            error: None,
        }))
    }

    async fn logs(&self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        self.well()?;
        let mut rows: Vec<LogLine> = self
            .logs
            .iter()
            .filter(|(key, line)| *key == query.script && query.range.contains(line.timestamp))
            .map(|(_, line)| line)
            .filter(|line| passes(&query.filter, |column| log_cell(line, column)))
            .cloned()
            .collect();
        let key = |line: &LogLine| (line.timestamp, line.log_id);
        rows.sort_by_key(|line| std::cmp::Reverse(key(line)));
        let after = query.after.map(|c| (c.timestamp, c.log_id));
        Ok(page(rows, query.limit, after.as_ref(), key, |line| LogCursor {
            timestamp: line.timestamp,
            log_id: line.log_id,
        }))
    }

    async fn scripts(&self, namespace: Option<&str>) -> Result<Vec<ScriptKey>, StoreError> {
        self.well()?;
        let keys = self
            .runs
            .iter()
            .map(|(k, _)| k)
            .chain(self.logs.iter().map(|(k, _)| k));
        let mut keys: Vec<ScriptKey> = keys
            .filter(|k| namespace.is_none_or(|n| n == k.namespace))
            .cloned()
            .collect();
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    async fn window_figures(
        &self,
        script: &ScriptKey,
        range: TimeRange,
        filter: &Filter,
    ) -> Result<Figures, StoreError> {
        self.well()?;
        let runs: Vec<&Run> = self.matching(script, range, filter).collect();
        let count = |status| i64::try_from(runs.iter().filter(|r| r.status == status).count()).unwrap();
        let mut times: Vec<i64> = runs.iter().filter_map(|r| r.response_time_micros).collect();
        times.sort_unstable();
        let rank = |p| scriptscope::model::nearest_rank(times.len(), p).map(|i| times[i]);
        let (succeeded, failed) = (count(RunStatus::Success), count(RunStatus::Failed));
        Ok(Figures {
            total_runs: i64::try_from(runs.len()).unwrap(),
            succeeded_runs: succeeded,
            failed_runs: failed,
            in_progress_runs: count(RunStatus::InProgress),
            failure_rate_basis_points: failure_rate_basis_points(succeeded, failed),
            p50_microseconds: rank(500),
            p90_microseconds: rank(900),
            p99_microseconds: rank(990),
            total_logs: i64::try_from(self.logs.iter().filter(|(k, _)| k == script).count()).unwrap(),
            last_run_time: runs.iter().map(|r| r.executed_on).max(),
        })
    }

    async fn figures(&self, script: &ScriptKey) -> Result<Figures, StoreError> {
        self.window_figures(script, TimeRange::ALL, &Filter::default())
            .await
    }

    async fn version_figures(
        &self,
        script: &ScriptKey,
        _limit: usize,
    ) -> Result<Vec<VersionFigures>, StoreError> {
        let figures = self.figures(script).await?;
        Ok(vec![VersionFigures { version: 1, figures }])
    }

    async fn deployments(&self, _: &ScriptKey, _: usize) -> Result<Vec<Deployment>, StoreError> {
        Ok(Vec::new())
    }

    async fn close(&self) {}

    async fn check(&self) -> Result<(), StoreError> {
        self.well()
    }

    fn changed_scripts(&self, _: u64) -> (Vec<ScriptKey>, u64) {
        (Vec::new(), 0)
    }

    async fn begin_deployment(
        &self,
        _: &ScriptKey,
        _: &str,
        _: i64,
        _: Timestamp,
    ) -> Result<Deployment, StoreError> {
        unreachable!("readers only")
    }

    async fn set_deployment_state(
        &self,
        _: &ScriptKey,
        _: i64,
        _: DeploymentState,
        _: Option<&str>,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        unreachable!("readers only")
    }

    async fn register_pod(&self, _: &PodRecord) -> Result<(), StoreError> {
        unreachable!("readers only")
    }

    async fn open_streams(&self, _: &[StreamKey]) -> Result<Vec<Option<StreamCheckpoint>>, StoreError> {
        unreachable!("readers only")
    }

    async fn append(&self, _: Vec<Append>) -> Result<Vec<AppendOutcome>, StoreError> {
        unreachable!("readers only")
    }

    async fn close_runs(&self, _: &CloseRuns) -> Result<u64, StoreError> {
        unreachable!("readers only")
    }

    async fn pods_with_open_runs(&self) -> Result<Vec<(PodRecord, Timestamp)>, StoreError> {
        unreachable!("readers only")
    }
}

#[async_trait]
impl Retention for MemoryStore {
    async fn retain(&self, _: &ScriptKey, _: &Cutoffs, _: Budget) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }

    async fn purge(&self, _: &ScriptKey, _: Timestamp, _: Budget) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }

    async fn forget_pods(
        &self,
        _: &ScriptKey,
        _: &[String],
        _: Timestamp,
        _: Budget,
    ) -> Result<Retained, StoreError> {
        Ok(Retained::default())
    }

    async fn storage(&self, _: &ScriptKey) -> Result<Storage, StoreError> {
        Ok(Storage::default())
    }

    async fn give_back_space(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn note_object(&self, _: &ScriptKey, _: &SeenObject) -> Result<(), StoreError> {
        Ok(())
    }

    async fn seen_objects(&self) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError> {
        Ok(Vec::new())
    }
}
