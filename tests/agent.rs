//! The agent against the ingest service: real files, real HTTP, requests and answers that get lost. Only the store is
//! in memory.

#![allow(clippy::unwrap_used)] // tests

#[path = "common/memory_store.rs"]
mod memory_store;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use scriptscope::{
    agent,
    ingest::{
        AgentAuthenticator, AgentIdentity, AuthError, CommitListener, Ingest, PodDirectory, PodKnowledge,
        record::Record,
        router,
        wire::{
            BATCHES_PATH, BatchResponse, Chunk, ChunkHeader, ChunkResult, MAX_BATCH_BYTES, Position,
            STREAMS_PATH, StreamKey, StreamState, StreamsRequest, StreamsResponse, encode_batch,
        },
    },
    metrics::Metrics,
    model::ScriptKey,
    store::{Gap, LastWord, PodRecord, Store},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use memory_store::MemoryStore;

const NODE: &str = "node-1";
const TOKEN: &str = "an-agents-token";

struct Tokens;

#[async_trait]
impl AgentAuthenticator for Tokens {
    async fn authenticate(&self, token: &str) -> Result<AgentIdentity, AuthError> {
        match token {
            TOKEN => Ok(AgentIdentity {
                name: "agent".into(),
                node: Some(NODE.into()),
            }),
            "who-knows" => Err(AuthError::Unavailable("no API server".into())),
            _ => Err(AuthError::Rejected("not an agent".into())),
        }
    }
}

#[derive(Default)]
struct Pods(HashMap<String, PodKnowledge>);

impl PodDirectory for Pods {
    fn knows(&self, _: &str, pod_uid: &str) -> PodKnowledge {
        self.0.get(pod_uid).cloned().unwrap_or(PodKnowledge::Unseen)
    }

    fn is_collected(&self, pod_uid: &str) -> bool {
        pod_uid != "uid-released"
    }

    fn may_be_on(&self, pod_uid: &str, node: &str) -> bool {
        pod_uid != "uid-elsewhere" || node != NODE
    }
}

/// What was told of commits, a line each.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl CommitListener for Heard {
    fn runner_stopped(&self, pod: &PodRecord, token: &str) {
        self.0
            .lock()
            .unwrap()
            .push(format!("stopped {} {token}", pod.name));
    }

    fn gap_recorded(&self, pod: &PodRecord, gap: &Gap) {
        self.0
            .lock()
            .unwrap()
            .push(format!("gap {} {}", pod.name, gap.reason));
    }

    fn given_up(&self, stream: &StreamKey) {
        self.0.lock().unwrap().push(format!("given up {}", stream.pod));
    }
}

/// What the network does to requests.
#[derive(Clone)]
struct Faults(Arc<Mutex<fastrand::Rng>>, f64);

async fn fail(State(Faults(random, share)): State<Faults>, request: Request, next: Next) -> Response {
    let chance = random.lock().unwrap().f64();
    if chance < share / 2.0 {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let response = next.run(request).await;
    if chance < share {
        // The connection breaks after the work is done.
        let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
        return Body::from_stream(broken).into_response();
    }
    response
}

struct Server {
    store: Arc<MemoryStore>,
    metrics: Metrics,
    heard: Arc<Heard>,
    url: String,
    _task: JoinHandle<()>,
}

async fn serve(pods: Pods, faults: Option<Faults>) -> Server {
    let store = Arc::new(MemoryStore::default());
    let metrics = Metrics::new();
    let heard = Arc::new(Heard::default());
    let ingest = Ingest::new(store.clone(), Arc::new(Tokens), Arc::new(pods), metrics.clone())
        .with_listener(heard.clone());
    let mut routes: Router = router(Arc::new(ingest));
    if let Some(faults) = faults {
        routes = routes.layer(middleware::from_fn_with_state(faults, fail));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    Server {
        store,
        metrics,
        heard,
        url,
        _task: tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }),
    }
}

impl Server {
    async fn register(&self, key: &StreamKey) {
        let pod = PodRecord {
            uid: key.pod_uid.clone(),
            name: key.pod.clone(),
            container: "script".into(),
            script: ScriptKey::new("shop", "qbalance"),
            version: 1,
            deployment_id: "d1".into(),
        };
        self.store.register_pod(&pod).await.unwrap();
    }

    async fn post(&self, path: &str, token: &str, body: Vec<u8>) -> (StatusCode, Bytes) {
        let request = reqwest::Client::new().post(format!("{}{path}", self.url));
        let response = request.bearer_auth(token).body(body).send().await.unwrap();
        (response.status(), response.bytes().await.unwrap())
    }

    async fn batch(&self, chunks: &[Chunk]) -> Vec<ChunkResult> {
        let (status, body) = self
            .post(BATCHES_PATH, TOKEN, encode_batch(NODE, chunks).unwrap())
            .await;
        assert_eq!(status, StatusCode::OK, "{body:?}");
        serde_json::from_slice::<BatchResponse>(&body).unwrap().chunks
    }

    fn messages(&self, key: &StreamKey) -> Vec<String> {
        let records = self.store.stream(key).records;
        let message = |record| match record {
            Record::Line(line) => line.message,
            other => panic!("not a line: {other:?}"),
        };
        records.into_iter().map(message).collect()
    }
}

fn key(pod: &str) -> StreamKey {
    StreamKey {
        namespace: "shop".into(),
        pod: pod.into(),
        pod_uid: format!("uid-{pod}"),
        container: "script".into(),
        restart: 0,
    }
}

fn streams_request(node: &str, streams: &[StreamKey]) -> Vec<u8> {
    let request = StreamsRequest {
        node: node.into(),
        streams: streams.to_vec(),
        given_up: Vec::new(),
    };
    serde_json::to_vec(&request).unwrap()
}

fn chunk(stream: &StreamKey, offset: u64, text: &str) -> Chunk {
    Chunk {
        header: ChunkHeader {
            stream: stream.clone(),
            offset,
            file: "f".into(),
            file_start: 0,
            length: 0,
            gap: None,
        },
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn at(result: &ChunkResult) -> (bool, u64) {
    match result {
        ChunkResult::Committed { position } => (true, position.offset),
        ChunkResult::Conflict { position } => (false, position.offset),
        ChunkResult::Unknown => panic!("unknown stream"),
    }
}

// --- the service

#[tokio::test]
async fn only_an_agent_of_the_node_is_let_in() {
    let server = serve(Pods::default(), None).await;
    let ask = |node, token| server.post(STREAMS_PATH, token, streams_request(node, &[]));
    for (node, token, status, code) in [
        (NODE, "someone", StatusCode::UNAUTHORIZED, "Unauthorized"),
        (NODE, "who-knows", StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        ("node-2", TOKEN, StatusCode::FORBIDDEN, "Forbidden"),
    ] {
        let (given, body) = ask(node, token).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((given, &body["error"]["code"]), (status, &code.into()));
    }
    assert_eq!(ask(NODE, TOKEN).await.0, StatusCode::OK);
    for (body, status) in [
        (b"nonsense".to_vec(), StatusCode::BAD_REQUEST),
        (vec![0; MAX_BATCH_BYTES + 1], StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let (given, body) = server.post(BATCHES_PATH, TOKEN, body).await;
        assert_eq!(given, status);
        assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn streams_are_followed_ignored_or_asked_about_again() {
    let script = PodKnowledge::Script {
        container: "script".into(),
    };
    let known = HashMap::from([
        ("uid-other".to_owned(), PodKnowledge::NotAScript),
        ("uid-early".to_owned(), script.clone()),
        ("uid-mesh".to_owned(), script),
    ]);
    let server = serve(Pods(known), None).await;
    server.register(&key("mine")).await;
    let sidecar = StreamKey {
        container: "proxy".into(),
        ..key("mesh")
    };
    let asked = [key("mine"), key("other"), key("early"), sidecar, key("new")];
    let (_, body) = server
        .post(STREAMS_PATH, TOKEN, streams_request(NODE, &asked))
        .await;
    let answer: StreamsResponse = serde_json::from_slice(&body).unwrap();
    let follow = StreamState::Follow {
        position: Position::default(),
    };
    assert_eq!(
        answer.streams,
        [
            follow,
            StreamState::Ignore,
            StreamState::Unknown,
            StreamState::Ignore,
            StreamState::Unknown
        ]
    );
}

#[tokio::test]
async fn a_pod_that_is_collected_no_more_is_ignored_though_the_store_knows_it() {
    let server = serve(Pods::default(), None).await;
    let released = key("released");
    server.register(&released).await;
    let results = server
        .batch(&[chunk(&released, 0, "2026-01-02T03:04:05Z stdout F 1\n")])
        .await;
    assert_eq!(results, [ChunkResult::Unknown]);
    assert!(server.messages(&released).is_empty());
    let question = streams_request(NODE, std::slice::from_ref(&released));
    let (_, body) = server.post(STREAMS_PATH, TOKEN, question).await;
    let answer: StreamsResponse = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer.streams, [StreamState::Ignore]);
}

#[tokio::test]
async fn a_chunk_is_appended_only_where_the_stream_stands() {
    let server = serve(Pods::default(), None).await;
    let (a, b) = (key("a"), key("b"));
    server.register(&a).await;
    server.register(&b).await;
    let line = |n: u32| format!("2026-01-02T03:04:05.{n}Z stdout F {n}\n");
    let length = line(1).len() as u64;

    let results = server
        .batch(&[
            chunk(&a, 0, &line(1)),
            chunk(&b, 0, &line(1)),
            chunk(&a, length, &line(2)),
            chunk(&a, 3 * length, &line(4)),
            chunk(&key("stranger"), 0, &line(1)),
        ])
        .await;
    assert_eq!(at(&results[0]), (true, 2 * length));
    assert_eq!(at(&results[1]), (true, length));
    assert_eq!(at(&results[2]), (true, 2 * length));
    assert_eq!(at(&results[3]), (false, 2 * length));
    assert_eq!(results[4], ChunkResult::Unknown);

    // The same again, as after a lost answer.
    let results = server.batch(&[chunk(&a, length, &line(2))]).await;
    assert_eq!(at(&results[0]), (false, 2 * length));
    assert_eq!(server.messages(&a), ["1", "2"]);

    // A full disk delays, nothing else.
    server.store.fail(1);
    let body = encode_batch(NODE, &[chunk(&a, 2 * length, &line(3))]).unwrap();
    let (status, answer) = server.post(BATCHES_PATH, TOKEN, body.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!String::from_utf8_lossy(&answer).contains("disk"), "{answer:?}");
    assert_eq!(server.post(BATCHES_PATH, TOKEN, body).await.0, StatusCode::OK);
    assert_eq!(server.messages(&a), ["1", "2", "3"]);

    // Bytes that can not be read any more.
    let mut after_gap = chunk(&a, 100 * length, &line(9));
    after_gap.header.gap = Some("FileRotatedAway".into());
    assert_eq!(at(&server.batch(&[after_gap]).await[0]), (true, 101 * length));
    let gaps = server.store.stream(&a).gaps;
    assert_eq!(
        (&*gaps[0].reason, gaps[0].bytes),
        ("FileRotatedAway", 97 * length)
    );
    let metrics = server.metrics.encode().unwrap();
    for line in [
        "scriptscope_log_gaps_total{reason=\"FileRotatedAway\"} 1",
        "scriptscope_ingest_lines_total 5",
        "scriptscope_ingest_batches_total 3",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn nothing_is_taken_for_a_pod_of_another_node() {
    let server = serve(Pods::default(), None).await;
    let (here, elsewhere) = (key("here"), key("elsewhere"));
    server.register(&here).await;
    server.register(&elsewhere).await;
    let line = "2026-01-02T03:04:05Z stdout F forged\n";
    let asked = streams_request(NODE, &[elsewhere.clone(), here.clone()]);
    let (_, body) = server.post(STREAMS_PATH, TOKEN, asked).await;
    let answer: StreamsResponse = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer.streams[0], StreamState::Ignore);
    assert!(matches!(answer.streams[1], StreamState::Follow { .. }));
    let results = server
        .batch(&[chunk(&elsewhere, 0, line), chunk(&here, 0, line)])
        .await;
    assert_eq!(results[0], ChunkResult::Unknown);
    assert_eq!(at(&results[1]), (true, line.len() as u64));
    assert!(server.messages(&elsewhere).is_empty());
}

#[tokio::test]
async fn the_last_word_of_a_stream_is_committed_and_then_told() {
    let server = serve(Pods::default(), None).await;
    let (a, b) = (key("a"), key("b"));
    server.register(&a).await;
    server.register(&b).await;
    let stopped =
        "2026-01-02T03:04:05Z stdout F {\"scriptscope\":\"runner.stopped\",\"token\":\"secret-1\"}\n";
    let line = "2026-01-02T03:04:05Z stdout F x\n";
    let heard = || server.heard.0.lock().unwrap().clone();

    server.store.fail(1);
    let body = encode_batch(NODE, &[chunk(&a, 0, stopped)]).unwrap();
    let (status, _) = server.post(BATCHES_PATH, TOKEN, body.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(heard(), [""; 0], "it is not stored");
    // Twice, as after a lost answer.
    for _ in 0..2 {
        server.post(BATCHES_PATH, TOKEN, body.clone()).await;
    }
    assert_eq!(heard(), ["stopped a secret-1"]);
    let token = "secret-1".to_owned();
    assert_eq!(
        server.store.stream(&a).last_word,
        Some(LastWord::RunnerStopped { token })
    );

    server.batch(&[chunk(&b, 0, line)]).await;
    assert_eq!(server.store.stream(&b).last_word, None);
    let mut end = chunk(&b, line.len() as u64 + 5, "\n");
    end.header.gap = Some("FileTruncated".into());
    server.batch(&[end]).await;
    assert_eq!(server.store.stream(&b).last_word, Some(LastWord::EndOfFiles));

    let request = StreamsRequest {
        node: NODE.into(),
        streams: Vec::new(),
        given_up: vec![key("ghost")],
    };
    let request = serde_json::to_vec(&request).unwrap();
    assert_eq!(server.post(STREAMS_PATH, TOKEN, request).await.0, StatusCode::OK);
    assert_eq!(heard()[1..], ["gap b FileTruncated", "given up ghost"]);
}

// --- the agent and the service

/// A script's pod on a node, printing numbers.
struct Pod {
    key: StreamKey,
    folder: PathBuf,
    file: File,
    printed: u32,
    rotations: u32,
}

impl Pod {
    fn start(logs: &Path, name: &str) -> Self {
        let key = key(name);
        let folder = logs.join(format!("shop_{name}_{}", key.pod_uid)).join("script");
        fs::create_dir_all(&folder).unwrap();
        Self {
            file: File::create(folder.join("0.log")).unwrap(),
            key,
            folder,
            printed: 0,
            rotations: 0,
        }
    }

    fn print(&mut self, count: u32) {
        for _ in 0..count {
            let n = self.printed;
            self.printed += 1;
            // Every seventh line comes in two pieces.
            let text = if n.is_multiple_of(7) {
                format!(
                    "2026-01-02T03:04:05.{n:09}Z stdout P line \n2026-01-02T03:04:05.{n:09}Z stdout F {n}\n"
                )
            } else {
                format!("2026-01-02T03:04:05.{n:09}Z stdout F line {n}\n")
            };
            self.file.write_all(text.as_bytes()).unwrap();
        }
    }

    fn rotate(&mut self) {
        self.rotations += 1;
        let (path, n) = (self.folder.join("0.log"), self.rotations);
        fs::rename(&path, self.folder.join(format!("0.log.20260102-{n:06}"))).unwrap();
        self.file = File::create(path).unwrap();
    }
}

struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Result<(), agent::AgentError>>,
}

fn start_agent(server: &Server, logs: &Path) -> Agent {
    let token_file = logs.join("token");
    fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let stop = CancellationToken::new();
    let args = agent::Args {
        operator: server.url.clone(),
        token_file,
        node: NODE.into(),
        logs_dir: logs.to_owned(),
        poll_millis: 10,
    };
    Agent {
        task: tokio::spawn(agent::follow(args, stop.clone())),
        stop,
    }
}

/// Waits until every number printed is stored once and in order.
async fn check(server: &Server, pods: &[Pod]) {
    for pod in pods {
        let stored = tokio::time::timeout(Duration::from_secs(15), async {
            loop {
                let messages = server.messages(&pod.key);
                if messages.len() >= pod.printed as usize {
                    return messages;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap_or_else(|_| server.messages(&pod.key));
        let expected: Vec<_> = (0..pod.printed).map(|n| format!("line {n}")).collect();
        let same = stored.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        assert!(
            stored == expected,
            "{}: {} of {} lines, right up to {same}",
            pod.key.pod,
            stored.len(),
            expected.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_dead_agents_change_nothing() {
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(20_260_102)));
    let server = serve(Pods::default(), Some(Faults(random, 0.3))).await;
    let folder = tempfile::tempdir().unwrap();
    let mut pods: Vec<_> = ["a", "b", "c"].map(|name| Pod::start(folder.path(), name)).into();
    for pod in &pods {
        server.register(&pod.key).await;
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut agent = start_agent(&server, folder.path());
    for round in 0..60 {
        for pod in &mut pods {
            pod.print(random.u32(0..200));
            if random.u8(0..12) == 0 {
                pod.rotate();
                pod.print(random.u32(0..20));
            }
        }
        if round % 7 == 3 {
            // As by kill -9, in the middle of anything.
            agent.task.abort();
            agent = start_agent(&server, folder.path());
        }
        tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
    }
    check(&server, &pods).await;
    assert!(
        pods.iter()
            .all(|pod| server.store.stream(&pod.key).gaps.is_empty())
    );
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_ships_what_there_is() {
    let server = serve(Pods::default(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut pods = [Pod::start(folder.path(), "a")];
    server.register(&pods[0].key).await;
    pods[0].print(10);
    let agent = start_agent(&server, folder.path());
    check(&server, &pods).await;
    pods[0].print(50_000);
    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
    let stored = server.messages(&pods[0].key).len();
    assert_eq!(stored, 50_010);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_comes_and_goes_while_the_operator_is_slow_is_read() {
    let mut server = serve(Pods::default(), None).await;
    // In front of it, something that takes every connection and passes nothing on until it is told to.
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = server.url.trim_start_matches("http://").to_owned();
    server.url = format!("http://{}", front.local_addr().unwrap());
    let pass = CancellationToken::new();
    let (waiting, mut waits) = tokio::sync::mpsc::channel(1);
    let gate = pass.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = front.accept().await {
            let _ = waiting.try_send(());
            gate.cancelled().await;
            let mut far = tokio::net::TcpStream::connect(&behind).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut pods = vec![Pod::start(folder.path(), "a")];
    server.register(&pods[0].key).await;
    let agent = start_agent(&server, folder.path());
    waits.recv().await.unwrap();
    let mut brief = Pod::start(folder.path(), "brief");
    server.register(&brief.key).await;
    brief.print(100);
    // As long as the shortest life of a pod, and longer than the agent takes to look again.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    fs::remove_dir_all(brief.folder.parent().unwrap()).unwrap();
    pass.cancel();
    pods.push(brief);
    check(&server, &pods).await;
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_pods_that_live_fifty_milliseconds_are_read() {
    let server = serve(Pods::default(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut first = Pod::start(folder.path(), "first");
    first.print(1);
    server.register(&first.key).await;
    let agent = start_agent(&server, folder.path());
    let mut pods = vec![first];
    check(&server, &pods).await;
    for n in 0..5 {
        let mut pod = Pod::start(folder.path(), &format!("brief{n}"));
        server.register(&pod.key).await;
        pod.print(100);
        tokio::time::sleep(Duration::from_millis(50)).await;
        fs::remove_dir_all(pod.folder.parent().unwrap()).unwrap();
        pods.push(pod);
    }
    check(&server, &pods).await;
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_overtakes_the_backlog_of_another_pod() {
    let server = serve(Pods::default(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let mut busy = Pod::start(folder.path(), "busy");
    let text = "x".repeat(8_000);
    for _ in 0..10_000 {
        writeln!(busy.file, "2026-01-02T03:04:05Z stdout F {text}").unwrap();
    }
    let mut quiet = Pod::start(folder.path(), "quiet");
    server.register(&busy.key).await;
    server.register(&quiet.key).await;
    let agent = start_agent(&server, folder.path());
    let stored = |key: &StreamKey| server.store.stream(key).records.len();
    let begins = async |key: &StreamKey| {
        while stored(key) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let both = async {
        begins(&busy.key).await;
        quiet.print(1);
        begins(&quiet.key).await;
    };
    tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .expect("both are read");
    assert!(stored(&busy.key) < 10_000, "the line had to wait for the backlog");
    agent.task.abort();
}
