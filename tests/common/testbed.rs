//! The operator's ingest and store in a process of their own, without Kubernetes: what fault tests kill and benchmarks
//! measure. A test program calls [`serve_if_asked`] first thing in `main` and starts itself again as the server.

#[allow(dead_code)] // its agents show a token
pub mod anybody;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    routing::get,
};
use scriptscope::{
    export::{
        ExportError, Plan, Table,
        file::{ExportFolder, ExportKey},
        format::Format,
        pages::FilePages,
    },
    ingest::{AgentAuthenticator, AgentIdentity, AuthError, Ingest, router, wire::StreamKey},
    metrics::Metrics,
    model::{Filter, LogLine, ScriptKey, TimeRange},
    store::{self, LogQuery, PodRecord, Store},
};
use serde::{Deserialize, Serialize};

use anybody::NoOthers;

/// Environment variable that makes a test program the server; its value is a [`Config`].
const ROLE: &str = "SCRIPTSCOPE_TESTBED";
/// Name of the node that the agent under test speaks for.
pub const NODE: &str = "node-1";
const AS_IN_THE_CHART: [(&str, &str); 2] = [("MIMALLOC_ALLOW_THP", "0"), ("MIMALLOC_PURGE_DELAY", "10000")];
const TOKEN: &str = "a-token-of-the-testbed";
pub const NAMESPACE: &str = "bed";
const CONTAINER: &str = "script";

/// What the server serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// URL of the store.
    pub store: String,
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// The pods it knows from the start.
    pub pods: Vec<Pod>,
}

/// A pod of a script.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Pod {
    /// UID, and its name after `pod-`.
    pub uid: String,
    /// Name of the script.
    pub script: String,
}

impl Pod {
    /// Whose runs and lines it has.
    pub fn script_key(&self) -> ScriptKey {
        ScriptKey::new(NAMESPACE, &self.script)
    }

    /// Kubelet's folder of its container, below the logs' folder.
    pub fn folder(&self) -> String {
        format!("{NAMESPACE}_pod-{0}_{0}/{CONTAINER}", self.uid)
    }

    /// Its stream after `restart` restarts.
    pub fn stream(&self, restart: u32) -> StreamKey {
        StreamKey {
            namespace: NAMESPACE.to_owned(),
            pod: format!("pod-{}", self.uid),
            pod_uid: self.uid.clone(),
            container: CONTAINER.to_owned(),
            restart,
        }
    }

    /// As the store knows it.
    pub fn record(&self) -> PodRecord {
        PodRecord {
            uid: self.uid.clone(),
            name: format!("pod-{}", self.uid),
            container: CONTAINER.to_owned(),
            script: self.script_key(),
            version: 1,
            deployment_id: format!("{}-1", self.script),
        }
    }
}

struct OneToken;

#[async_trait]
impl AgentAuthenticator for OneToken {
    async fn authenticate(&self, token: &str) -> Result<AgentIdentity, AuthError> {
        if token == TOKEN {
            return Ok(AgentIdentity {
                name: "agent".to_owned(),
                node: None,
            });
        }
        Err(AuthError::Rejected("not the testbed's".to_owned()))
    }
}

/// What a script has stored.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Stored {
    /// Log lines.
    pub lines: i64,
    /// Runs that ended.
    pub ended: i64,
    /// All runs.
    pub begun: i64,
}

/// Serves and never returns where the environment asks for the server.
pub fn serve_if_asked() {
    let Ok(config) = env::var(ROLE) else { return };
    let config: Config = serde_json::from_str(&config).expect("a configuration of the testbed");
    // Standard output is where it says its address.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(serve(config));
}

async fn serve(config: Config) {
    let store = store::open(&config.store).await.expect("a store");
    for pod in &config.pods {
        store.register_pod(&pod.record()).await.expect("a pod registered");
    }
    let ingest = Ingest::new(
        Arc::clone(&store),
        Arc::new(OneToken),
        Arc::new(NoOthers),
        Metrics::new(),
    );
    let routes = Router::new()
        .route("/stored/{script}", get(stored))
        .route("/lines/{script}", get(newest_lines))
        .route("/logs.csv/{script}", get(all_lines))
        .route("/export/{script}", get(export))
        .with_state(store)
        .merge(router(Arc::new(ingest)));
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .expect("a port to listen on");
    println!("{}", listener.local_addr().expect("an address"));
    axum::serve(listener, routes).await.expect("requests served");
}

async fn stored(
    State(store): State<Arc<dyn Store>>,
    UrlPath(script): UrlPath<String>,
) -> Result<Json<Stored>, (StatusCode, String)> {
    let figures = store.figures(&ScriptKey::new(NAMESPACE, script)).await;
    let figures = figures.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(Stored {
        lines: figures.total_logs,
        ended: figures.succeeded_runs + figures.failed_runs,
        begun: figures.total_runs,
    }))
}

/// The newest lines of a script, as a reader sees them.
async fn newest_lines(
    State(store): State<Arc<dyn Store>>,
    UrlPath(script): UrlPath<String>,
) -> Result<Json<Vec<LogLine>>, (StatusCode, String)> {
    let query = LogQuery {
        script: ScriptKey::new(NAMESPACE, script),
        range: TimeRange::ALL,
        filter: Filter::default(),
        after: None,
        limit: 200,
    };
    let page = store.logs(&query).await;
    let page = page.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(page.rows))
}

/// Makes a file of all lines of a script, as of a `ScriptExport`, and forgets it; says how many rows it had.
async fn export(
    State(store): State<Arc<dyn Store>>,
    UrlPath(script): UrlPath<String>,
) -> Result<Json<u64>, (StatusCode, String)> {
    let failed = |error: &dyn std::error::Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    let key = ExportKey {
        namespace: NAMESPACE.to_owned(),
        name: "all".to_owned(),
    };
    let (plan, format) = (all_of(script), Format::default());
    let written = ExportFolder::new(folder.path())
        .write(&key, "uid", plan, format, store, &|_| {})
        .await;
    Ok(Json(written.map_err(|error| failed(&error))?.rows))
}

fn all_of(script: String) -> Plan {
    let script = ScriptKey::new(NAMESPACE, script);
    Plan::new(script, Table::Logs, TimeRange::ALL, Filter::default())
}

/// All lines of a script as CSV.
async fn all_lines(
    State(store): State<Arc<dyn Store>>,
    UrlPath(script): UrlPath<String>,
) -> Result<Body, (StatusCode, String)> {
    let pages = FilePages::new(store, all_of(script), Format::default());
    let pages = pages.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let pages = futures::stream::try_unfold(pages, |mut pages| async {
        let page = pages.next_page().await?;
        Ok::<_, ExportError>(page.map(|page| (page.bytes, pages)))
    });
    Ok(Body::from_stream(pages))
}

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program as the server. Its first line on standard output is where it listens.
pub fn server_command(config: &Config) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command
        .env(ROLE, serde_json::to_string(config).expect("a configuration"))
        .envs(AS_IN_THE_CHART)
        .stdout(Stdio::piped());
    command
}

/// Waits until a server listens; none where it ends instead.
pub fn address_of(server: &mut Child) -> Option<SocketAddr> {
    let mut line = String::new();
    let stdout = server.stdout.take()?;
    BufReader::new(stdout).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// Starts this program again as the server; says where it listens.
pub fn start_server(config: &Config) -> (Process, SocketAddr) {
    let mut child = server_command(config).spawn().expect("the server started");
    let address = address_of(&mut child).expect("its address");
    (Process(child), address)
}

/// The agent on a folder of pod logs; its token lies in `scratch`.
pub fn agent_command(operator: SocketAddr, logs: &Path, scratch: &Path) -> Command {
    let token = scratch.join("token");
    fs::write(&token, TOKEN).expect("a token");
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    command
        .envs(AS_IN_THE_CHART)
        .args([
            "agent",
            "--operator",
            &format!("http://{operator}"),
            "--node",
            NODE,
        ])
        .arg("--token-file")
        .arg(&token)
        .arg("--logs-dir")
        .arg(logs);
    command
}

/// Starts the agent.
pub fn start_agent(operator: SocketAddr, logs: &Path, scratch: &Path) -> Process {
    let child = agent_command(operator, logs, scratch).spawn();
    Process(child.expect("the agent started"))
}
