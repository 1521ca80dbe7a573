//! Stores that are copied, backed up and put back: nothing is lost, nothing is twice, and everything is answered as before.

use std::{
    fmt::{Debug, Write as _},
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::tz::TimeZone;
use scriptscope::{
    agent,
    ingest::{
        AgentAuthenticator, AgentIdentity, AuthError, Ingest, PodDirectory, PodKnowledge, record::Record,
        router, wire::StreamKey,
    },
    metrics::Metrics,
    model::{
        Change, Column, DeploymentState, Filter, KeptSpec, LogLevel, Operator, RunStatus, ScriptKey, Step,
        TimeRange,
    },
    store::{
        self, Gap, LastWord, PodRecord, SeriesQuery, SettlePod, Store,
        backup::backup,
        transfer::{Progress, TransferError, transfer},
    },
};
use serde_json::value::RawValue;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    pg::Cluster,
    support::{
        Feed, Postgres, Sqlite, all_lines, all_runs, at, filter, finished, line, log_query, pod, position,
        run, run_query, script, sqlite, started, stream_key,
    },
};

/// Where a store is.
trait Place {
    fn url(&self) -> String;
}

impl Place for Sqlite {
    fn url(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }
}

impl Place for Postgres {
    fn url(&self) -> String {
        self.url.clone()
    }
}

const HOUR: i64 = 3_600_000_000;
const SCRIPTS: [&str; 3] = ["a", "b", "other"];

/// Some of everything that a store can hold.
async fn fill(store: &Arc<dyn Store>) {
    for (n, name) in SCRIPTS.into_iter().enumerate() {
        let key = script(name);
        for version in 1..=3 {
            let begun = store
                .begin_deployment(&key, &format!("print-{version}"), 0, at(version))
                .await
                .unwrap();
            assert_eq!(begun.version, version);
            let kept = KeptSpec {
                spec: format!("{{\"runtime\":\"python\",\"n\":{version}}}"),
                changed_by: Some("kubectl".into()),
                change: Change {
                    cause: "edited 'source' — ünïcode".into(),
                    fields: vec!["source".into()],
                    ..Change::default()
                },
                beside: "{}".into(),
            };
            store.keep_spec(&key, version, &kept).await.unwrap();
            let state = if version == 2 {
                DeploymentState::Failed
            } else {
                DeploymentState::Deployed
            };
            store
                .set_deployment_state(&key, version, state, Some("said so"), at(version + 10))
                .await
                .unwrap();
            let mut feed = Feed::open(store, &key, &format!("{name}-{version}"), version).await;
            fill_stream(&mut feed, version, n).await;
        }
    }
    // One pod has ended with a part unread, one has said its last word.
    store
        .settle_pod(&SettlePod {
            uid: "a-1".into(),
            unread: vec![0],
            time: at(HOUR),
        })
        .await
        .unwrap();
    let key = script("a");
    let feed = Feed::open(store, &key, "a-2", 2).await;
    let mut append = feed.append(vec![]);
    append.last_word = Some(LastWord::RunnerStopped { token: "t".into() });
    store.append(vec![append]).await.unwrap();
}

fn json(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(text.to_owned()).ok()
}

async fn fill_stream(feed: &mut Feed, version: i64, n: usize) {
    let days = 24 * HOUR * version;
    for batch in 0..8 {
        let mut records = Vec::new();
        for k in 0..25_i64 {
            let id = format!("run-{version}-{batch}-{k}");
            let began = days + batch * HOUR + k * 1_000_000;
            let status = if k % 5 == 4 {
                RunStatus::Failed
            } else {
                RunStatus::Success
            };
            if k == 7 {
                // Still in progress.
                records.push(Record::RunStarted(started(&id, at(began))));
            } else if k == 8 {
                let mut start = started(&id, at(began));
                start.input = json(&format!("{{\"text\":\"{}\"}}", "input ".repeat(100)));
                start.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
                let mut end = finished(&id, at(began + 10), 10, status);
                end.output = json("[1, 2, null]");
                records.extend([Record::RunStarted(start), Record::RunFinished(end)]);
            } else {
                records.extend(run(&id, began, (k + 1) * 1_500, status));
            }
            let offset = feed.offset + u64::try_from(k).unwrap();
            let mut printed = line(
                offset,
                began,
                &format!("line {k} of {version}, script {n}: 'żółć' \\ \u{1f980}"),
            );
            printed.level =
                [LogLevel::Stdout, LogLevel::Error, LogLevel::Info][usize::try_from(k % 3).unwrap()];
            printed.run_id = (k % 2 == 0).then_some(id);
            records.push(Record::Line(printed));
        }
        feed.send(records).await;
    }
    let mut lost = feed.append(vec![]);
    lost.gap = Some(Gap {
        reason: "FileTruncated".into(),
        bytes: 77,
    });
    feed.store.append(vec![lost]).await.unwrap();
}

/// What the store answers to every question, a text each.
async fn answers(store: &Arc<dyn Store>) -> Vec<String> {
    let mut all = Vec::new();
    let mut note = |what: &str, answer: &dyn Debug| all.push(format!("{what}: {answer:#?}"));
    note("scripts", &store.scripts(None).await.unwrap());
    let keys: Vec<ScriptKey> = SCRIPTS.into_iter().map(script).collect();
    note("figures", &store.figures_of(&keys).await.unwrap());
    let mut open = store.pods_with_open_runs().await.unwrap();
    open.sort_by(|a, b| a.0.uid.cmp(&b.0.uid));
    note("open runs", &open);
    let mut unsettled = store.unsettled_pods().await.unwrap();
    unsettled.sort_by(|a, b| a.uid.cmp(&b.uid));
    note("unsettled", &unsettled);
    for key in &keys {
        note("deployments", &store.deployments(key, 10).await.unwrap());
        for version in 1..=3 {
            note("spec", &store.deployed_spec(key, version).await.unwrap());
            let uid = format!("{}-{version}", key.name);
            note("streams", &store.pod_streams(&[uid]).await.unwrap());
            let streams = [stream_key(&pod(key, &format!("{}-{version}", key.name), version))];
            note("checkpoints", &store.open_streams(&streams).await.unwrap());
        }
        note("versions", &store.version_figures(key, 10).await.unwrap());
        note("gaps", &store.gaps(key, TimeRange::ALL, 100).await.unwrap());
        let failed = filter(Column::Status, Operator::Equals, &["Failed"]);
        for wanted in [Filter::default(), failed] {
            let window = store.window_figures(key, TimeRange::ALL, &wanted).await.unwrap();
            note("window", &window);
            for step in Step::ALL {
                let query = SeriesQuery {
                    script: key.clone(),
                    range: TimeRange::ALL,
                    filter: wanted.clone(),
                    step,
                    zone: TimeZone::get("America/New_York").unwrap_or(TimeZone::UTC),
                };
                note("series", &store.series(&query).await.unwrap());
            }
            let query = run_query(key, wanted.clone());
            let (grouping, more) = store.failures(&query).await.unwrap();
            note("failures", &grouping.finish(TimeRange::ALL, at(0), 10, more));
            note("count", &store.count_runs(&query, 10_000).await.unwrap());
            let runs = all_runs(store, query).await;
            assert!(!runs.is_empty());
            for run in runs.iter().step_by(3) {
                note("run", &store.run(key, &run.run_id).await.unwrap());
            }
            note("runs", &runs);
        }
        let search = filter(Column::LogMessage, Operator::Contains, &["line 13 of"]);
        for wanted in [Filter::default(), search] {
            let lines = all_lines(store, log_query(key, wanted)).await;
            assert!(!lines.is_empty());
            note("lines", &lines);
        }
    }
    all
}

async fn opened(url: &str) -> Arc<dyn Store> {
    store::open(url).await.unwrap()
}

/// Ends the use of a store as an operator that stops does.
async fn closed(store: Arc<dyn Store>) {
    store.close().await;
}

/// Copies a full store, compares all answers, and goes on with it.
async fn everything_moves(from: &impl Place, to: &impl Place) {
    let (from, to) = (from.url(), to.url());
    let store = opened(&from).await;
    fill(&store).await;
    let before = answers(&store).await;
    closed(store).await;
    let mut rows = (0, 0);
    let copied = transfer(&from, &to, false, &mut |progress| rows = progress.rows)
        .await
        .unwrap();
    assert_eq!(rows.0, rows.1, "the progress ends at 100 %");
    assert_eq!(
        rows.1,
        copied.iter().map(|table| table.checksum.rows).sum::<u64>()
    );
    let of = |name: &str| copied.iter().find(|c| c.table == name).unwrap().checksum.rows;
    assert_eq!((of("scripts"), of("runs")), (3, 3 * 3 * 200));
    assert!(of("run_payloads") > 0 && of("gaps") > 0 && of("log_segments") > 0);

    let store = opened(&to).await;
    let after = answers(&store).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
    goes_on(&store).await;
    closed(store).await;
    // The source is as it was.
    let store = opened(&from).await;
    assert_eq!(answers(&store).await, before);
    closed(store).await;
    // A second copy would mix the two.
    let again = transfer(&from, &to, false, &mut |_| {}).await;
    assert!(matches!(again, Err(TransferError::NotEmpty(_))), "{again:?}");
}

/// Ingest goes on at the checkpoints; numbers that were given are given to nothing else.
async fn goes_on(store: &Arc<dyn Store>) {
    let a = script("a");
    let query = |filter| log_query(&a, filter);
    let (lines, runs) = (
        all_lines(store, query(Filter::default())).await.len(),
        all_runs(store, run_query(&a, Filter::default())).await.len(),
    );
    let mut feed = Feed::open(store, &a, "a-3", 3).await;
    assert_eq!(feed.offset, 9_000, "the checkpoint moved, too");
    // What was stored before is not stored again.
    let mut repeated = feed.append(vec![Record::Line(line(8_000, 1, "again"))]);
    (repeated.expected_offset, repeated.position) = (8_000, position(9_000));
    let outcome = store.append(vec![repeated]).await.unwrap();
    assert_eq!(outcome, [store::AppendOutcome::Conflict(position(9_000))]);
    let open = finished("run-3-7-7", at(30 * 24 * HOUR), 5, RunStatus::Success);
    let mut start = started("with-payload", at(31 * 24 * HOUR));
    start.input = json("\"fresh\"");
    feed.send(vec![
        Record::RunFinished(open),
        Record::RunStarted(start),
        Record::Line(line(9_000, 1, "after the move")),
    ])
    .await;
    // New streams, scripts and gaps get numbers of their own.
    let mut fresh = Feed::open(store, &script("new"), "fresh", 1).await;
    fresh
        .send(vec![Record::Line(line(0, 1, "of a new script"))])
        .await;
    let found = all_lines(store, query(Filter::default())).await;
    assert_eq!(found.len(), lines + 1);
    let mut ids: Vec<String> = found.iter().map(|line| line.log_id.to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), lines + 1, "no id twice");
    let all = all_runs(store, run_query(&a, Filter::default())).await;
    assert_eq!(all.len(), runs + 1);
    let ended = store.run(&a, "run-3-7-7").await.unwrap().unwrap();
    assert_eq!(ended.run.status, RunStatus::Success);
    let earlier = store.run(&a, "run-1-0-8").await.unwrap().unwrap();
    assert!(format!("{earlier:?}").contains("input input"), "{earlier:?}");
    let later = store.run(&a, "with-payload").await.unwrap().unwrap();
    assert!(format!("{later:?}").contains("fresh"), "{later:?}");
    let new = all_lines(store, log_query(&script("new"), Filter::default())).await;
    assert_eq!(new.len(), 1);
    assert_eq!(
        store
            .begin_deployment(&a, "next", 0, at(5))
            .await
            .unwrap()
            .version,
        4
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_moves_to_postgres_and_on_to_sqlite() {
    let (file, database, copy) = (sqlite(), crate::support::postgres(), sqlite());
    everything_moves(&file, &database).await;
    // And back, with what has come since.
    let store = opened(&database.url()).await;
    let before = answers(&store).await;
    closed(store).await;
    transfer(&database.url(), &copy.url(), false, &mut |_| {})
        .await
        .unwrap();
    let store = opened(&copy.url()).await;
    assert_eq!(answers(&store).await, before);
    let mut feed = Feed::open(&store, &script("a"), "a-3", 3).await;
    assert_eq!(feed.offset, 10_000);
    feed.send(run("back-again", 1, 5, RunStatus::Failed).into()).await;
    closed(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_moves_to_sqlite() {
    everything_moves(&crate::support::postgres(), &sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_within_its_kind() {
    everything_moves(&sqlite(), &sqlite()).await;
    everything_moves(&crate::support::postgres(), &crate::support::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_an_operator_uses_is_copied_only_by_force() {
    let (file, database, third) = (sqlite(), crate::support::postgres(), crate::support::postgres());
    let using = opened(&file.url()).await;
    fill(&using).await;
    let refused = transfer(&file.url(), &database.url(), false, &mut |_| {}).await;
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("--from: an operator runs on") && text.contains("--force"),
        "{text}"
    );
    transfer(&file.url(), &database.url(), true, &mut |_| {})
        .await
        .unwrap();
    closed(using).await;

    let using = opened(&database.url()).await;
    for (from, to, side) in [
        (&database.url(), &third.url(), "--from"),
        (&third.url(), &database.url(), "--to"),
    ] {
        let text = transfer(from, to, false, &mut |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(text.starts_with(&format!("{side}: ")), "{from} {to}: {text}");
        assert!(
            !text.contains("postgres@"),
            "no part of the URL that may be secret: {text}"
        );
    }
    closed(using).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_breaks_off_leaves_nothing_and_begins_anew() {
    let (file, copy, database) = (sqlite(), sqlite(), crate::support::postgres());
    let store = opened(&file.url()).await;
    fill(&store).await;
    closed(store).await;
    for to in [copy.url(), database.url()] {
        let (from, stop) = (file.url(), Notify::new());
        let mut tell = |progress: &Progress| {
            if progress.rows.0 > 100 {
                stop.notify_one();
            }
        };
        let copying = transfer(&from, &to, false, &mut tell);
        tokio::select! {
            biased;
            // In the midst of it, as by Ctrl-C.
            () = stop.notified() => {}
            done = copying => panic!("not broken off: {done:?}"),
        }
        transfer(&file.url(), &to, false, &mut |_| {}).await.unwrap();
        let store = opened(&to).await;
        assert_eq!(
            all_runs(&store, run_query(&script("a"), Filter::default()))
                .await
                .len(),
            600
        );
        closed(store).await;
    }
    let left: Vec<_> = fs::read_dir(copy.path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("unfinished"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    command.args(arguments).env_remove("SCRIPTSCOPE_DATABASE_URL");
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_how_far_it_is_and_what_to_do_next() {
    let (file, database) = (sqlite(), crate::support::postgres());
    let store = opened(&file.url()).await;
    fill(&store).await;
    closed(store).await;
    let migrate = || {
        let output = command(&["migrate-store", "--from", &file.url(), "--to", &database.url()])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = migrate();
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains("(100 %)") && err.contains("rows/s") && err.contains("verifying"),
        "{err}"
    );
    assert!(
        out.contains("equal on both sides") && out.contains("database.existingSecret.name"),
        "{out}"
    );
    let (code, out, err) = migrate();
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("--to: the store is not empty"), "{err}");
    let nothing = command(&[
        "migrate-store",
        "--from",
        "sqlite:///nowhere/x.db",
        "--to",
        &database.url(),
    ])
    .output()
    .unwrap();
    let err = String::from_utf8(nothing.stderr).unwrap();
    assert!(err.contains("--from: there is no file /nowhere/x.db"), "{err}");
}

// --- backups

struct OneToken;

#[async_trait]
impl AgentAuthenticator for OneToken {
    async fn authenticate(&self, _: &str) -> Result<AgentIdentity, AuthError> {
        Ok(AgentIdentity {
            name: "agent".into(),
            node: None,
        })
    }
}

struct NoOthers;

impl PodDirectory for NoOthers {
    fn knows(&self, _: &str, _: &str) -> PodKnowledge {
        PodKnowledge::Unseen
    }
}

/// Ingest on a store, at the same address each time.
struct Server {
    store: Arc<dyn Store>,
    task: JoinHandle<()>,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Server {
    async fn start(url: &str, address: SocketAddr) -> Self {
        let store = opened(url).await;
        let ingest = Ingest::new(
            store.clone(),
            Arc::new(OneToken),
            Arc::new(NoOthers),
            Metrics::new(),
        );
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = router(Arc::new(ingest));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        Self {
            store,
            task: tokio::spawn(async move {
                scriptscope::web::serve(listener, routes, stopped).await;
            }),
            stop,
            address,
        }
    }

    /// Ends, connections and all: who still has one could go on writing.
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.store.close().await;
    }
}

/// A pod that prints numbers into a kubelet's file.
struct Printer {
    key: ScriptKey,
    file: File,
    printed: usize,
}

impl Printer {
    fn new(logs: &Path, pod: &PodRecord) -> Self {
        let stream: StreamKey = stream_key(pod);
        let folder = logs.join(format!("shop_{}_{}/script", stream.pod, stream.pod_uid));
        fs::create_dir_all(&folder).unwrap();
        Self {
            key: pod.script.clone(),
            file: File::create(folder.join("0.log")).unwrap(),
            printed: 0,
        }
    }

    fn print(&mut self, count: usize) {
        let mut text = String::new();
        for _ in 0..count {
            let n = self.printed;
            writeln!(text, "2026-01-02T03:04:05.{n:09}Z stdout F line {n}").unwrap();
            self.printed += 1;
        }
        self.file.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until each line is stored once, in order.
    async fn is_stored(&self, store: &Arc<dyn Store>) {
        let expected: Vec<String> = (0..self.printed).rev().map(|n| format!("line {n}")).collect();
        let mut found = Vec::new();
        for _ in 0..600 {
            let lines = all_lines(store, log_query(&self.key, Filter::default())).await;
            found = lines.into_iter().map(|line| line.message).collect();
            if found.len() >= expected.len() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
    }
}

/// Backs a store up while agents deliver, loses it, puts the backup in its place, and sees what is there.
async fn an_older_state_is_caught_up_with(
    url: &str,
    save: impl AsyncFn() -> PathBuf,
    put_back: impl AsyncFn(PathBuf),
) {
    let logs = tempfile::tempdir().unwrap();
    let token_file = logs.path().join("token");
    fs::write(&token_file, "token").unwrap();
    let server = Server::start(url, "127.0.0.1:0".parse().unwrap()).await;
    let address = server.address;
    let record = pod(&script("a"), "u", 1);
    for version in 1..=2 {
        let (key, print) = (script("a"), version.to_string());
        let begun = server.store.begin_deployment(&key, &print, 0, at(0)).await;
        assert_eq!(begun.unwrap().version, version);
    }
    server.store.register_pod(&record).await.unwrap();
    let mut printer = Printer::new(logs.path(), &record);
    let stop = CancellationToken::new();
    let agent = tokio::spawn(agent::follow(
        agent::Args {
            operator: format!("http://{address}"),
            token_file,
            node: "node-1".into(),
            logs_dir: logs.path().to_owned(),
            poll_millis: 10,
        },
        stop.clone(),
    ));
    printer.print(2_000);
    printer.is_stored(&server.store).await;
    // While it goes on.
    let printing = async {
        for _ in 0..40 {
            printer.print(100);
            sleep(Duration::from_millis(5)).await;
        }
    };
    let (saved, ()) = tokio::join!(save(), printing);
    printer.is_stored(&server.store).await;
    let third = server.store.begin_deployment(&script("a"), "3", 0, at(1)).await;
    assert_eq!(third.unwrap().version, 3);
    server.stop().await;

    put_back(saved).await;
    let server = Server::start(url, address).await;
    let stored = all_lines(&server.store, log_query(&script("a"), Filter::default())).await;
    assert!(
        (2_000..=6_000).contains(&stored.len()),
        "the backup is of one moment: {}",
        stored.len()
    );
    printer.print(500);
    printer.is_stored(&server.store).await;
    // The object's status knows of version 3.
    let next = server.store.begin_deployment(&script("a"), "3", 3, at(2)).await;
    assert_eq!(next.unwrap().version, 4);
    stop.cancel();
    agent.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_backup_of_a_running_store_can_be_put_back() {
    let backend = sqlite();
    let (path, folder) = (backend.path.clone(), tempfile::tempdir().unwrap());
    let url = backend.url();
    let save = async || {
        let file = folder.path().join("backup.db");
        let made = backup(&url, &file).await.unwrap();
        assert_eq!(made.bytes, fs::metadata(&file).unwrap().len());
        let twice = backup(&url, &file).await.unwrap_err().to_string();
        assert!(twice.contains("is there already"), "{twice}");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
        file
    };
    let put_back = async |saved: PathBuf| {
        for suffix in ["-wal", "-shm", ""] {
            let _ = fs::remove_file(format!("{}{suffix}", path.display()));
        }
        fs::copy(saved, &path).unwrap();
    };
    an_older_state_is_caught_up_with(&url, save, put_back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_a_running_postgres_can_be_put_back() {
    let url = Cluster::shared().new_database();
    let name = url.rsplit('/').next().unwrap().to_owned();
    let save = async || {
        let name = name.clone();
        tokio::task::spawn_blocking(move || Cluster::shared().dump(&name))
            .await
            .unwrap()
    };
    let put_back = async |saved: PathBuf| {
        let name = name.clone();
        tokio::task::spawn_blocking(move || Cluster::shared().restore(&name, &saved))
            .await
            .unwrap();
    };
    an_older_state_is_caught_up_with(&url, save, put_back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_can_be_had_through_a_pipe() {
    let backend = sqlite();
    let store = opened(&backend.url()).await;
    fill(&store).await;
    let before = answers(&store).await;
    let output = command(&["backup", "-", "--database-url", &backend.url()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    closed(store).await;
    let copy = sqlite();
    fs::create_dir_all(copy.path.parent().unwrap()).unwrap();
    fs::write(&copy.path, output.stdout).unwrap();
    let store = opened(&copy.url()).await;
    assert_eq!(answers(&store).await, before);
    closed(store).await;
    let files = fs::read_dir(backend.path.parent().unwrap()).unwrap();
    let left: Vec<_> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("backup"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let postgres = crate::support::postgres();
    let refused = command(&["backup", "/tmp/never", "--database-url", &postgres.url()])
        .output()
        .unwrap();
    let err = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && err.contains("pg_dump"), "{err}");
}
