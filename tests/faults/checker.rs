//! Compares what is stored with what was printed.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use scriptscope::{
    model::{Filter, LogId, LogLine, RunStatus, ScriptKey, TimeRange},
    store::{self, Page, RowQuery, Store},
};
use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::pod::{Line, Pod};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub lines: usize,
    pub lost: usize,
    pub doubled: usize,
    pub gaps: usize,
    /// What is wrong, for people.
    pub problems: Vec<String>,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Checks every pod. Where `may_lose`, lines may be missing of a stream that has a gap record.
pub async fn check(
    url: &str,
    pods: &[Pod],
    seen: &BTreeMap<(String, String), String>,
    may_lose: bool,
) -> Result<Verdict, AnyError> {
    let gaps = gaps(url).await?;
    let store = store::open(url).await?;
    let mut verdict = Verdict {
        gaps: gaps.values().map(Vec::len).sum(),
        ..Verdict::default()
    };
    let mut scripts: BTreeMap<ScriptKey, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        scripts.entry(pod.bed.script_key()).or_default().push(pod);
    }
    for (script, pods) in scripts {
        let lines = all(RowQuery::of(&script), async |query| store.logs(query).await).await?;
        seen_stays(&script, &lines, seen, &mut verdict);
        figures(&*store, &script, &lines, &pods, &mut verdict).await?;
        let mut streams: HashMap<i64, BTreeMap<LogId, LogLine>> = HashMap::new();
        for line in lines {
            let id = line.log_id;
            if streams.entry(id.stream).or_default().insert(id, line).is_some() {
                verdict.doubled += 1;
                verdict
                    .problems
                    .push(format!("{script}: two lines have the id {id}"));
            }
        }
        for pod in pods {
            for (restart, printed) in pod.printed.iter().enumerate() {
                let key = pod.bed.stream(u32::try_from(restart)?);
                let opened = store.open_streams(&[key]).await?;
                let id = opened
                    .into_iter()
                    .flatten()
                    .next()
                    .ok_or("the stream is not known")?
                    .id;
                let stored: Vec<Line> = streams
                    .remove(&id)
                    .unwrap_or_default()
                    .into_values()
                    .map(plain)
                    .collect();
                verdict.lines += printed.lines.len();
                let gaps = gaps.get(&id).map_or(&[][..], Vec::as_slice);
                let place = format!("{}/{restart}", pod.bed.uid);
                compare(&place, &printed.lines, &stored, may_lose, gaps, &mut verdict);
            }
        }
        for (id, lines) in streams {
            verdict.doubled += lines.len();
            verdict.problems.push(format!(
                "{script}: {} lines of a stream {id} that nobody printed",
                lines.len()
            ));
        }
    }
    store.close().await;
    Ok(verdict)
}

fn plain(line: LogLine) -> Line {
    Line {
        level: line.level,
        message: line.message,
        run_id: line.run_id,
    }
}

/// Every line once and in order; or, after a gap, none twice and in order.
fn compare(
    place: &str,
    printed: &[Line],
    stored: &[Line],
    may_lose: bool,
    gaps: &[String],
    verdict: &mut Verdict,
) {
    if stored == printed {
        if !gaps.is_empty() && !may_lose {
            verdict
                .problems
                .push(format!("{place}: gaps {gaps:?}, though nothing is lost"));
        }
        return;
    }
    let mut left = printed.iter();
    let odd = stored.iter().find(|line| !left.any(|other| other == *line));
    let is_in_order = odd.is_none();
    let odd = odd.map(|line| line.message.chars().take(80).collect::<String>());
    let mut counts: HashMap<(&str, Option<&str>), (usize, usize)> = HashMap::new();
    for (lines, is_stored) in [(printed, false), (stored, true)] {
        for line in lines {
            let count = counts.entry((&line.message, line.run_id.as_deref())).or_default();
            if is_stored { count.1 += 1 } else { count.0 += 1 }
        }
    }
    let lost: usize = counts
        .values()
        .map(|(printed, stored)| printed.saturating_sub(*stored))
        .sum();
    let doubled: usize = counts
        .values()
        .map(|(printed, stored)| stored.saturating_sub(*printed))
        .sum();
    verdict.doubled += doubled;
    if may_lose && is_in_order && doubled == 0 && !gaps.is_empty() {
        return;
    }
    verdict.lost += lost;
    let first = stored.iter().zip(printed).take_while(|(a, b)| a == b).count();
    let show = |lines: &[Line]| {
        let shown = lines.get(first).map(|line| {
            let start: String = line.message.chars().take(80).collect();
            format!(
                "{:?} {start:?} ({} bytes, run {:?})",
                line.level,
                line.message.len(),
                line.run_id
            )
        });
        shown.unwrap_or_else(|| "nothing".to_owned())
    };
    verdict.problems.push(format!(
        "{place}: {} of {} lines stored, {lost} lost, {doubled} doubled, gaps {gaps:?}, out of order {odd:?}; \
         the first {first} are right, then printed {} and stored {}",
        stored.len(),
        printed.len(),
        show(printed),
        show(stored)
    ));
}

/// A line that a reader has once seen is there for good, under the same id.
fn seen_stays(
    script: &ScriptKey,
    lines: &[LogLine],
    seen: &BTreeMap<(String, String), String>,
    verdict: &mut Verdict,
) {
    let now: HashMap<String, &str> = lines
        .iter()
        .map(|l| (l.log_id.to_string(), &*l.message))
        .collect();
    for ((owner, id), text) in seen {
        if *owner == script.name && now.get(id) != Some(&&**text) {
            verdict.problems.push(format!(
                "{script}: line {id} was shown to a reader and is not there any more"
            ));
        }
    }
}

/// Runs are there once with the right status, and figures say what rows say.
async fn figures(
    store: &dyn Store,
    script: &ScriptKey,
    lines: &[LogLine],
    pods: &[&Pod],
    verdict: &mut Verdict,
) -> Result<(), AnyError> {
    let runs = all(RowQuery::of(script), async |query| store.runs(query).await).await?;
    let mut stored: Vec<(String, RunStatus)> = runs.into_iter().map(|run| (run.run_id, run.status)).collect();
    let mut printed: Vec<(String, RunStatus)> = pods
        .iter()
        .flat_map(|pod| &pod.runs)
        .map(|(id, status)| (id.clone(), *status))
        .collect();
    stored.sort();
    printed.sort();
    if stored != printed {
        let odd = stored.iter().zip(&printed).find(|(a, b)| a != b);
        verdict.problems.push(format!(
            "{script}: {} runs stored, {} printed; first difference {odd:?}",
            stored.len(),
            printed.len()
        ));
    }
    let count = |wanted| stored.iter().filter(|(_, status)| *status == wanted).count();
    let rows = [
        stored.len(),
        count(RunStatus::Success),
        count(RunStatus::Failed),
        count(RunStatus::InProgress),
        lines.len(),
    ];
    let lifetime = store.figures(script).await?;
    let window = store
        .window_figures(script, TimeRange::ALL, &Filter::default())
        .await?;
    for (name, found) in [("lifetime", lifetime), ("window", window)] {
        let found = [
            found.total_runs,
            found.succeeded_runs,
            found.failed_runs,
            found.in_progress_runs,
            found.total_logs,
        ];
        if found.map(usize::try_from) != rows.map(Ok) {
            verdict.problems.push(format!(
                "{script}: {name} figures are {found:?}, rows are {rows:?}"
            ));
        }
    }
    Ok(())
}

trait Everything<C> {
    fn of(script: &ScriptKey) -> RowQuery<C>;
}

impl<C> Everything<C> for RowQuery<C> {
    fn of(script: &ScriptKey) -> Self {
        Self {
            script: script.clone(),
            range: TimeRange::ALL,
            filter: Filter::default(),
            after: None,
            limit: 1_000,
        }
    }
}

async fn all<T, C>(
    mut query: RowQuery<C>,
    read: impl AsyncFn(&RowQuery<C>) -> Result<Page<T, C>, store::StoreError>,
) -> Result<Vec<T>, AnyError> {
    let mut rows = Vec::new();
    loop {
        let page = read(&query).await?;
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(rows),
        }
    }
}

/// Gap records by stream.
async fn gaps(url: &str) -> Result<HashMap<i64, Vec<String>>, AnyError> {
    const SQL: &str = "SELECT stream_id, reason FROM gaps ORDER BY id";
    let rows: Vec<(i64, String)> = match url.strip_prefix("sqlite://") {
        Some(path) => {
            let options = SqliteConnectOptions::new().filename(Path::new(path));
            let mut connection = SqliteConnection::connect_with(&options).await?;
            sqlx::query_as(SQL).fetch_all(&mut connection).await?
        }
        None => {
            sqlx::query_as(SQL)
                .fetch_all(&mut PgConnection::connect(url).await?)
                .await?
        }
    };
    let mut gaps: HashMap<i64, Vec<String>> = HashMap::new();
    for (stream, reason) in rows {
        gaps.entry(stream).or_default().push(reason);
    }
    Ok(gaps)
}
