//! The server that the dashboard's benchmark looks at: the real router on a SQLite store, with runs and log lines by the million of
//! one script, the last 90 days'.
//!
//! `make bench-ui` starts it, with `SCRIPTSCOPE_UI_BENCH` saying how many runs and how many lines there are. It says in one line of
//! JSON where it listens, and serves until its standard input ends. Without that variable it does nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that can not run has nothing to say
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // figures

#[path = "../../tests/ui/feed.rs"]
#[allow(dead_code)] // shared with the dashboard's tests
mod feed;
#[path = "../pipeline/generate.rs"]
#[allow(dead_code)] // shared with the other benchmarks
mod generate;
#[path = "../pipeline/many_lines.rs"]
mod many_lines;
#[path = "../pipeline/many_runs.rs"]
#[allow(dead_code)] // shared with the other benchmarks
mod many_runs;
#[path = "../../tests/common/testbed.rs"]
#[allow(dead_code)] // shared with the fault tests
mod testbed;

use std::{
    env,
    io::Read,
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    routing::post,
};
use feed::Feed;
use jiff::Timestamp;
use scriptscope::{
    api::CustomScript,
    metrics::Metrics,
    model::{LogLevel, ScriptKey},
    store::Store,
    web::{
        self, ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use serde_json::json;
use testbed::anybody;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The product's, since the server that is measured runs in this program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOW_MANY: &str = "SCRIPTSCOPE_UI_BENCH";
/// Microseconds of the days that the lines lie in, as the runs do.
const SPAN: i64 = 90 * 24 * 3_600_000_000;
/// The version that prints now.
const VERSION: i64 = 5;

fn script() -> ScriptKey {
    ScriptKey::new(many_runs::NAMESPACE, many_runs::SCRIPT)
}

/// Whoever shows a token may read everything.
struct Everybody;

#[async_trait]
impl Access for Everybody {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        Ok(Identity {
            username: token.to_owned(),
            ..Identity::default()
        })
    }

    async fn allowed(&self, _: &Identity, _: &Permission<'_>) -> Result<bool, AccessError> {
        Ok(true)
    }
}

struct OneScript;

impl ScriptObjects for OneScript {
    fn get(&self, asked: &ScriptKey) -> Option<Arc<CustomScript>> {
        static OBJECT: OnceLock<Arc<CustomScript>> = OnceLock::new();
        let object = OBJECT.get_or_init(|| {
            let spec = serde_json::from_value(json!({"runtime": "python"})).unwrap();
            let mut object = CustomScript::new(many_runs::SCRIPT, spec);
            let status =
                json!({"phase": "Deployed", "version": VERSION, "endpoint": "http://measured.bed.svc"});
            object.status = serde_json::from_value(status).unwrap();
            Arc::new(object)
        });
        (*asked == script()).then(|| object.clone())
    }

    fn list(&self, namespace: Option<&str>) -> Vec<ScriptKey> {
        let one = [script()].into_iter();
        one.filter(|script| namespace.is_none_or(|n| n == script.namespace))
            .collect()
    }
}

/// Mostly plain lines, some of each level, few errors.
fn level_of(n: usize) -> LogLevel {
    match n % 1_000 {
        0 => LogLevel::Error,
        1..=9 => LogLevel::Warning,
        10..=109 => LogLevel::Debug,
        110..=399 => LogLevel::Info,
        _ => LogLevel::Stdout,
    }
}

async fn fill(path: &Path, runs: usize, lines: usize) -> Arc<dyn Store> {
    let began = Instant::now();
    let (store, _) = many_runs::sqlite(path, runs).await;
    let lines = many_lines::Lines {
        script: script(),
        version: VERSION,
        count: lines,
        step: SPAN / lines.max(1) as i64,
        level: level_of,
    };
    many_lines::fill(&store, &lines).await;
    eprintln!(
        "  {runs} runs and {} lines made in {:.0} s",
        lines.count,
        began.elapsed().as_secs_f64()
    );
    store
}

/// Prints so many lines by korelogger, now.
async fn print(State(feed): State<Arc<Feed>>, UrlPath(lines): UrlPath<usize>) -> StatusCode {
    let lines: Vec<_> = (0..lines)
        .map(|n| {
            let message = generate::plain_message(n, fastrand::u64(..));
            json!({"name": "gvisor_info_log", "start_time": Timestamp::now(),
                "attributes": {"run_id": "run_live", "log.message": message, "log.level": "INFO"}})
        })
        .collect();
    feed.print(&script(), VERSION, &lines).await;
    StatusCode::NO_CONTENT
}

async fn serve(routes: Router, shutdown: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(web::serve(listener, routes, shutdown));
    address
}

#[tokio::main]
async fn main() {
    let Ok(how_many) = env::var(HOW_MANY) else { return };
    let count = how_many
        .parse()
        .expect("SCRIPTSCOPE_UI_BENCH is a number of runs");
    let folder = tempfile::tempdir().unwrap();
    let store = fill(&folder.path().join("store.db"), count, count).await;
    let metrics = Metrics::new();
    let feed = Arc::new(Feed::new(store.clone(), metrics.clone()));
    let shutdown = CancellationToken::new();
    let state = WebState::new(
        store,
        Arc::new(Everybody),
        Arc::new(OneScript),
        folder.path(),
        metrics,
    );
    let pod = Router::new()
        .route("/print/{lines}", post(print))
        .with_state(feed);
    let pod = serve(pod, shutdown.clone()).await;
    let page = serve(router(state.until(shutdown.clone())), shutdown.clone()).await;
    println!("{}", json!({ "page": page, "pod": pod }));
    // Whoever started this holds the other end.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = ended.await;
    shutdown.cancel();
}
