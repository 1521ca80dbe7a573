//! What readers get from the web server, and what they do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

#[path = "web/hostile.rs"]
mod hostile;
#[path = "common/rows.rs"]
mod rows;

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use jiff::{SignedDuration, Timestamp};
use rows::Rows;
use scriptscope::{
    api::CustomScript,
    export::{
        Plan, Table,
        file::{ExportFolder, ExportKey},
        format::Format,
    },
    metrics::Metrics,
    model::{Filter, LogId, LogLevel, LogLine, Run, RunStatus, ScriptKey, SourceType, TimeRange},
    store::{PodRecord, SettlePod, Store},
    web::{
        ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Users by token: `shop` and `bank` read runs and logs of their namespace, `runs-only` only runs of shop, `pay-only`
/// only the script pay, `all` everything, `nobody` nothing.
struct Users;

#[async_trait]
impl Access for Users {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        match token {
            "offline" => Err(AccessError::Unavailable),
            "shop" | "bank" | "runs-only" | "pay-only" | "all" | "nobody" => Ok(Identity {
                username: token.to_owned(),
                groups: vec!["readers".to_owned()],
                ..Identity::default()
            }),
            _ => Err(AccessError::Unauthenticated),
        }
    }

    async fn allowed(&self, user: &Identity, asked: &Permission<'_>) -> Result<bool, AccessError> {
        assert_eq!(asked.verb, "get");
        Ok(match &*user.username {
            "all" => true,
            "runs-only" => (asked.namespace, asked.subresource) == ("shop", "runs"),
            "pay-only" => (asked.namespace, asked.name) == ("shop", "pay"),
            name => name == asked.namespace,
        })
    }
}

/// One object, `shop/draft`, that has no data.
struct Objects;

impl ScriptObjects for Objects {
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>> {
        (script == &ScriptKey::new("shop", "draft")).then(|| {
            let spec = serde_json::from_value(json!({"runtime": "python"})).unwrap();
            let mut object = CustomScript::new("draft", spec);
            object.status = serde_json::from_value(json!({"phase": "Draft"})).unwrap();
            Arc::new(object)
        })
    }

    fn list(&self, namespace: Option<&str>) -> Vec<ScriptKey> {
        let draft = ScriptKey::new("shop", "draft");
        if namespace.is_none_or(|n| n == "shop") {
            vec![draft]
        } else {
            Vec::new()
        }
    }
}

fn run(n: i64, status: RunStatus, source: &str) -> Run {
    Run {
        run_id: format!("run-{n:03}"),
        status,
        reason: None,
        deployment_version: 1 + n % 2,
        deployment_id: "d".into(),
        response_time_micros: (status == RunStatus::Success).then_some(n * 1_500 + 1),
        function: "check".into(),
        executed_on: Timestamp::now() - SignedDuration::from_mins(n),
        finished_at: None,
        source_type: SourceType::Api,
        source: source.into(),
        traceparent: None,
    }
}

fn line(n: i64, message: &str) -> LogLine {
    LogLine {
        log_id: LogId {
            stream: 1,
            offset: 10_000 - n,
            index: 0,
        },
        level: if n % 2 == 0 {
            LogLevel::Info
        } else {
            LogLevel::Error
        },
        message: message.into(),
        timestamp: Timestamp::now() - SignedDuration::from_mins(n),
        run_id: Some(format!("run-{:03}", n % 3)),
        attributes: None,
    }
}

const HOSTILE: &str = "<img src=x onerror=alert(1)>,\"quoted\"\n=1+1";

fn rows() -> Rows {
    let (pay, loans) = (ScriptKey::new("shop", "pay"), ScriptKey::new("bank", "loans"));
    let mut store = Rows::default();
    for n in 0..120 {
        let status = RunStatus::ALL[usize::try_from(n % 3).unwrap()];
        store.runs.push((pay.clone(), run(n, status, "billing")));
        store.logs.push((pay.clone(), line(n, &format!("message {n}"))));
    }
    store
        .runs
        .push((pay.clone(), run(500, RunStatus::Failed, HOSTILE)));
    store.logs.push((pay.clone(), line(500, HOSTILE)));
    store
        .runs
        .push((pay, run(60 * 24 * 30, RunStatus::Success, "old")));
    store
        .runs
        .push((loans.clone(), run(1, RunStatus::Success, "teller")));
    store.logs.push((loans, line(1, "secret of the bank")));
    store
}

struct Site {
    app: Router,
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
}

async fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let store = rows().store(&folder).await;
    let state = WebState::new(
        store.clone(),
        Arc::new(Users),
        Arc::new(Objects),
        folder.path(),
        Metrics::new(),
    );
    Site {
        app: router(state),
        store,
        folder,
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    #[track_caller]
    fn fails(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let error = self.json()["error"].clone();
        assert_eq!(error["code"], code);
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
        error
    }

    #[track_caller]
    fn works(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

impl Site {
    async fn get(&self, token: &str, path: &str) -> Answer {
        let mut request = Request::get(path);
        if !token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 10 << 20).await.unwrap().to_vec();
        Answer {
            status,
            headers,
            body,
        }
    }

    async fn export(&self, name: &str, table: Table) -> scriptscope::export::file::Sidecar {
        let key = ExportKey {
            namespace: "shop".into(),
            name: name.into(),
        };
        let plan = Plan::new(
            ScriptKey::new("shop", "pay"),
            table,
            TimeRange::ALL,
            Filter::default(),
        );
        ExportFolder::new(self.folder.path())
            .write(
                &key,
                "uid-1",
                plan,
                Format::default(),
                self.store.clone(),
                &|_| {},
            )
            .await
            .unwrap()
    }
}

const PAY: &str = "/api/v1/namespaces/shop/scripts/pay";

fn routes() -> Vec<(String, &'static str)> {
    [
        ("", "runs"),
        ("/figures", "runs"),
        ("/deployments", "runs"),
        ("/errors", "runs"),
        ("/runs", "runs"),
        ("/runs.csv", "runs"),
        ("/runs.parquet", "runs"),
        ("/runs/run-001", "runs"),
        ("/runs/run-001/logs", "logs"),
        ("/logs", "logs"),
        ("/logs.csv", "logs"),
        ("/logs.parquet", "logs"),
    ]
    .map(|(path, right)| (format!("{PAY}{path}"), right))
    .into_iter()
    .chain([
        ("/api/v1/namespaces/shop/exports/all-runs/file".to_owned(), "runs"),
        ("/api/v1/namespaces/shop/exports/all-logs/file".to_owned(), "logs"),
    ])
    .collect()
}

#[tokio::test]
async fn each_route_asks_who_and_whether_they_may() {
    let site = site().await;
    site.export("all-runs", Table::Runs).await;
    site.export("all-logs", Table::Logs).await;
    for (path, right) in routes() {
        for (token, status) in [("", 401), ("wrong", 401), ("offline", 503)] {
            let answer = site.get(token, &path).await;
            assert_eq!(answer.status, status, "{path} as {token:?}");
            let challenged = answer.headers.contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401, "{path}");
            assert!(!answer.text().contains("billing") && !answer.text().contains("message 1"));
        }
        for (token, may) in [
            ("shop", true),
            ("all", true),
            ("pay-only", true),
            ("runs-only", right == "runs"),
            ("bank", false),
            ("nobody", false),
        ] {
            let answer = site.get(token, &path).await;
            if may {
                assert_eq!(answer.status, 200, "{path} as {token}: {}", answer.text());
            } else {
                let error = answer.fails(403, "Forbidden");
                assert_eq!(
                    error["message"],
                    format!("{token} needs get on customscripts/{right} in namespace shop")
                );
            }
        }
    }
    let basic = Request::get(PAY).header(header::AUTHORIZATION, "Basic c2hvcDpzaG9w");
    let answer = site.send(basic.body(Body::empty()).unwrap()).await;
    answer.fails(401, "Unauthenticated");
}

#[tokio::test]
async fn a_list_holds_what_the_reader_may_see() {
    let site = site().await;
    let names = async |token: &str, query: &str| {
        let list = site.get(token, &format!("/api/v1/scripts{query}")).await.works();
        let name = |s: &Value| format!("{}/{}", s["namespace"], s["name"]).replace('"', "");
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names("all", "").await, ["bank/loans", "shop/draft", "shop/pay"]);
    assert_eq!(names("shop", "").await, ["shop/draft", "shop/pay"]);
    assert_eq!(names("bank", "").await, ["bank/loans"]);
    assert_eq!(names("nobody", "").await, Vec::<String>::new());
    assert_eq!(names("pay-only", "?namespace=shop").await, ["shop/pay"]);
    let refused = site.get("bank", "/api/v1/scripts?namespace=shop").await;
    refused.fails(403, "Forbidden");
    let scripts = site.get("shop", "/api/v1/scripts").await.works();
    assert_eq!(scripts["items"][0]["phase"], "Draft");
    assert_eq!(scripts["items"][1]["figures"]["totalRuns"], 122);
    let me = site.get("shop", "/api/v1/whoami").await.works();
    assert_eq!(me, json!({"username": "shop", "groups": ["readers"]}));
}

#[tokio::test]
async fn pages_hold_every_row_once() {
    let site = site().await;
    for (table, id, expected) in [("runs", "runId", 121), ("logs", "logId", 121)] {
        let mut seen = Vec::new();
        let mut query = "limit=50".to_owned();
        loop {
            let page = site.get("shop", &format!("{PAY}/{table}?{query}")).await.works();
            for row in page["items"].as_array().unwrap() {
                seen.push(row[id].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            query = format!("limit=50&cursor={next}");
        }
        assert_eq!(seen.len(), expected, "the last 7 days of {table}");
        let mut unique = seen.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), expected);
    }
    let old = site
        .get("shop", &format!("{PAY}/runs?last=60d&source=old"))
        .await
        .works();
    assert_eq!(old["items"].as_array().unwrap().len(), 1);
    assert!(old["range"]["from"].is_string() && old["range"]["to"].is_null());
}

#[tokio::test]
async fn a_cursor_goes_with_its_query_only() {
    let site = site().await;
    let page = site.get("shop", &format!("{PAY}/runs?limit=5")).await.works();
    let next = page["next"].as_str().unwrap();
    for query in [
        format!("runs?cursor={next}&status=Failed"),
        format!("runs?cursor={next}&last=1h"),
        format!("logs?cursor={next}"),
        "runs?cursor=garbage".into(),
        "runs?cursor=".into(),
        "runs?cursor=%00%ff".into(),
        "logs?cursor=eyJ2IjoxfQ".into(),
    ] {
        let answer = site.get("shop", &format!("{PAY}/{query}")).await;
        let error = answer.fails(400, "Invalid");
        assert_eq!(error["field"], "cursor", "{query}");
    }
}

#[tokio::test]
async fn a_wrong_request_is_told_what_is_wrong() {
    let site = site().await;
    for (query, field) in [
        ("/runs?colour=red", "colour"),
        ("/runs?level=Info", "level"),
        ("/logs?status=Failed", "status"),
        ("/runs?limit=1001", "limit"),
        ("/runs?from=now", "from"),
        ("/runs?last=7d&preset=Today", "range"),
        ("/logs?level=Loud", "filter"),
        ("/runs?filter=x", "filter"),
        ("/figures?limit=5", "limit"),
        ("/runs.csv?cursor=x", "cursor"),
        ("/runs/run-001?x=1", "x"),
        ("?x=1", "x"),
    ] {
        let error = site
            .get("shop", &format!("{PAY}{query}"))
            .await
            .fails(400, "Invalid");
        assert_eq!(error["field"], field, "{query}");
    }
    let unknown = site.get("shop", "/api/v1/scripts?name=pay").await;
    assert_eq!(unknown.fails(400, "Invalid")["field"], "name");
    site.get("shop", "/api/v1/nothing").await.fails(404, "NotFound");
    site.get("shop", "/api/v1/namespaces/shop/scripts/nope/runs")
        .await
        .fails(404, "ScriptNotFound");
    site.get("shop", &format!("{PAY}/runs/nope"))
        .await
        .fails(404, "RunNotFound");
    site.get("shop", &format!("{PAY}/runs/nope/logs"))
        .await
        .fails(404, "RunNotFound");
    let post = Request::post(format!("{PAY}/runs")).header(header::AUTHORIZATION, "Bearer shop");
    site.send(post.body(Body::empty()).unwrap())
        .await
        .fails(405, "MethodNotAllowed");
    let long = site
        .get("shop", &format!("{PAY}/runs?source={}", "x".repeat(20_000)))
        .await;
    long.fails(414, "TooLarge");
    let headers = Request::get("/").header("x-much", "x".repeat(40_000));
    site.send(headers.body(Body::empty()).unwrap())
        .await
        .fails(431, "TooLarge");
    let body = Request::get("/").header(header::CONTENT_LENGTH, "1000000");
    site.send(body.body(Body::empty()).unwrap())
        .await
        .fails(413, "TooLarge");
}

#[tokio::test]
async fn a_known_script_without_rows_is_empty_and_a_broken_store_is_not() {
    let page = site()
        .await
        .get("shop", "/api/v1/namespaces/shop/scripts/draft/runs")
        .await
        .works();
    assert_eq!(page["items"], json!([]));
    let broken = site().await;
    broken.store.close().await;
    for path in ["/runs", "/logs", "/figures", "/runs.csv"] {
        let answer = broken.get("shop", &format!("{PAY}{path}")).await;
        answer.fails(503, "StoreUnavailable");
        assert!(!answer.text().contains("secret"));
    }
}

#[tokio::test]
async fn one_run_comes_with_its_payloads_and_its_lines() {
    let site = site().await;
    let answer = site.get("shop", &format!("{PAY}/runs/run-001")).await;
    let run = answer.works();
    assert_eq!(run["runId"], "run-001");
    // As the script gave it, not as it would be printed again.
    assert!(answer.text().contains("{\"n\": 1.0}"), "{}", answer.text());
    let lines = site
        .get("shop", &format!("{PAY}/runs/run-001/logs"))
        .await
        .works();
    let items = lines["items"].as_array().unwrap();
    assert!(!items.is_empty() && items.iter().all(|l| l["runId"] == "run-001"));
    let searched = site
        .get("shop", &format!("{PAY}/logs?search=MESSAGE+11&level=Info"))
        .await
        .works();
    let found: Vec<&str> = searched["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        found,
        [
            "message 110",
            "message 112",
            "message 114",
            "message 116",
            "message 118"
        ]
    );
}

#[tokio::test]
async fn markup_stays_text() {
    let site = site().await;
    let answer = site.get("shop", &format!("{PAY}/logs?search=onerror")).await;
    assert_eq!(answer.works()["items"][0]["message"], HOSTILE);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
    for path in ["/", "/scripts/shop/pay/runs"] {
        let page = site.get("", path).await;
        let kind = "text/html; charset=utf-8".parse().unwrap();
        assert_eq!(
            (page.status, &page.headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &kind)
        );
        assert!(page.headers.contains_key(header::CONTENT_SECURITY_POLICY));
        assert!(page.text().contains("ScriptScope"));
    }
    site.get("", "/../Cargo.toml").await.fails(404, "NotFound");
}

#[tokio::test]
async fn a_token_can_become_a_session() {
    let site = site().await;
    let session = |method: &str, token: &str| {
        let request = Request::builder().method(method).uri("/api/v1/session");
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        request.body(Body::empty()).unwrap()
    };
    let refused = site.send(session("POST", "wrong")).await;
    refused.fails(401, "Unauthenticated");
    assert!(!refused.headers.contains_key(header::SET_COOKIE));
    let begun = site.send(session("POST", "shop")).await;
    assert_eq!(begun.status, 204);
    let cookie = begun.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    let asked = |from: &str| {
        let request = Request::get("/api/v1/whoami").header(header::COOKIE, pair);
        let request = request.header("sec-fetch-site", from);
        request.body(Body::empty()).unwrap()
    };
    let me = site.send(asked("same-origin")).await.works();
    assert_eq!(me["username"], "shop");
    let other = site.send(asked("same-site")).await;
    other.fails(401, "Unauthenticated");
    let ended = site.send(session("DELETE", "wrong")).await;
    assert_eq!(ended.status, 204);
    let cookie = ended.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.starts_with("scriptscope-session=;") && cookie.contains("Max-Age=0"),
        "{cookie}"
    );
}

/// The records of a CSV file, without its headings.
fn records(csv: &[u8]) -> Vec<Vec<String>> {
    csv::Reader::from_reader(csv)
        .records()
        .map(|r| r.unwrap().iter().map(ToOwned::to_owned).collect())
        .collect()
}

/// A time of a page as files have it.
fn with_micros(time: &Value) -> String {
    let time: Timestamp = time.as_str().unwrap().parse().unwrap();
    format!("{time:.6}")
}

#[tokio::test]
async fn a_csv_file_has_the_rows_of_the_pages() {
    let site = site().await;
    let query = "last=60d&status=Success&status=Failed";
    let answer = site.get("shop", &format!("{PAY}/runs.csv?{query}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers[header::CONTENT_DISPOSITION],
        "attachment; filename=\"pay_runs_data.csv\""
    );
    let page = site
        .get("shop", &format!("{PAY}/runs?{query}&limit=1000"))
        .await
        .works();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let expected: Vec<Vec<String>> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let time = r["responseTimeMicros"].as_i64();
            vec![
                text(&r["runId"]),
                text(&r["status"]),
                r["deploymentVersion"].to_string(),
                time.map(scriptscope::export::csv::milliseconds)
                    .unwrap_or_default(),
                text(&r["function"]),
                with_micros(&r["executedOn"]),
                text(&r["sourceType"]),
                text(&r["source"]),
            ]
        })
        .collect();
    assert_eq!(expected.len(), 82);
    assert_eq!(records(&answer.body), expected);

    let answer = site.get("shop", &format!("{PAY}/logs.csv")).await;
    let page = site.get("shop", &format!("{PAY}/logs?limit=1000")).await.works();
    let expected: Vec<Vec<String>> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            let [id, level, message] = ["logId", "level", "message"].map(|c| text(&l[c]));
            vec![id, level, message, with_micros(&l["timestamp"])]
        })
        .collect();
    assert_eq!(records(&answer.body), expected);
    let empty = site
        .get("shop", "/api/v1/namespaces/shop/scripts/draft/logs.csv")
        .await;
    assert_eq!(empty.text(), "Log ID,Log Level,Log Message,Timestamp\r\n");
}

#[tokio::test]
async fn an_export_is_served_whole_and_nothing_else_is() {
    let site = site().await;
    let written = site.export("all-runs", Table::Runs).await;
    assert_eq!(written.rows, 122);
    let file = site
        .get("shop", "/api/v1/namespaces/shop/exports/all-runs/file")
        .await;
    assert_eq!(file.body.len() as u64, written.bytes);
    assert_eq!(file.headers[header::CONTENT_LENGTH], written.bytes.to_string());
    assert_eq!(records(&file.body).len(), 122);
    assert_eq!(
        file.headers[header::CONTENT_DISPOSITION],
        "attachment; filename=\"pay_runs_data.csv\""
    );

    site.get("shop", "/api/v1/namespaces/shop/exports/other/file")
        .await
        .fails(404, "ExportNotFound");
    site.get("bank", "/api/v1/namespaces/shop/exports/other/file")
        .await
        .fails(403, "Forbidden");
    std::fs::write(site.folder.path().join("export.json"), "{}").unwrap();
    for name in [
        "..%2F..%2Fshop%2Fall-runs",
        "..",
        "%2e%2e",
        ".",
        "all-runs%2F",
        "a%00b",
        "A",
    ] {
        for token in ["shop", "all"] {
            let path = format!("/api/v1/namespaces/shop/exports/{name}/file");
            let answer = site.get(token, &path).await;
            assert!(
                answer.status == 400 || answer.status == 404,
                "{name}: {}",
                answer.status
            );
        }
    }
    let outside = site.get("all", "/api/v1/namespaces/..%2F../exports/x/file").await;
    outside.fails(400, "Invalid");

    // A file that is not as it was written is not served.
    let path = site.folder.path().join("exports/shop/all-runs/pay_runs_data.csv");
    std::fs::write(path, "cut").unwrap();
    let cut = site
        .get("shop", "/api/v1/namespaces/shop/exports/all-runs/file")
        .await;
    cut.fails(500, "Internal");
}

#[tokio::test]
async fn the_server_answers_until_it_is_told_to_stop() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let site = site().await;
    let server = tokio::spawn(scriptscope::web::serve(listener, site.app.clone(), stop.clone()));
    let answer = reqwest::Client::new()
        .get(format!("http://{address}{PAY}/runs.csv"))
        .bearer_auth("shop")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(records(&answer.bytes().await.unwrap()).len(), 121);
    stop.cancel();
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_could_not_be_read_stands_beside_the_lines_of_its_time() {
    let site = site().await;
    let now = Timestamp::now();
    for minutes in [5, 70] {
        let name = format!("pay-{minutes}");
        let pod = PodRecord {
            uid: name.clone(),
            name,
            container: "script".into(),
            script: ScriptKey::new("shop", "pay"),
            version: 3,
            deployment_id: "d".into(),
        };
        site.store.register_pod(&pod).await.unwrap();
        let settled = SettlePod {
            uid: pod.uid,
            unread: vec![0],
            time: now - SignedDuration::from_mins(minutes) - SignedDuration::from_secs(30),
        };
        assert_eq!(site.store.settle_pod(&settled).await.unwrap().len(), 1);
    }

    let all = site.get("shop", &format!("{PAY}/gaps?last=1d")).await;
    let items = all.json()["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 2);
    assert_eq!(
        (&items[0]["pod"], &items[0]["reason"], &items[0]["offset"]),
        (&json!("pay-5"), &json!("PodEndedUnread"), &json!(0))
    );
    let first = site
        .get("shop", &format!("{PAY}/gaps?last=1h&limit=1"))
        .await
        .json();
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
    let wrong = site.get("shop", &format!("{PAY}/gaps?level=Info")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.text());
    let foreign = site.get("bank", &format!("{PAY}/gaps")).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);

    // 50 lines a page, one a minute.
    let mut path = format!("{PAY}/logs?last=1d");
    let mut seen = Vec::new();
    loop {
        let page = site.get("shop", &path).await.json();
        let gaps = page["gaps"].as_array().unwrap();
        seen.push(gaps.iter().map(|gap| gap["pod"].clone()).collect::<Vec<_>>());
        match page["next"].as_str() {
            Some(next) => path = format!("{PAY}/logs?last=1d&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [vec![json!("pay-5")], vec![json!("pay-70")], vec![]]);
}

#[tokio::test]
async fn errors_are_grouped_within_range_and_filter() {
    let site = site().await;
    let errors = site.get("shop", &format!("{PAY}/errors")).await.works();
    // Of 121 runs in the last 7 days those of n % 3 == 2, and the hostile one.
    let failed = site.get("shop", &format!("{PAY}/figures")).await.works()["figures"]["failedRuns"].clone();
    let [group] = errors["items"].as_array().unwrap().as_slice() else {
        panic!("{errors}")
    };
    assert_eq!((&group["count"], &errors["read"]["runs"]), (&failed, &failed));
    assert_eq!(
        (&group["reason"], &group["message"]),
        (&json!("Exception"), &json!("no"))
    );
    assert_eq!(errors["read"]["more"], false);
    assert_eq!(group["counts"].as_array().unwrap().len(), 24);
    assert_eq!(
        (&group["firstVersion"], &group["lastVersion"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(group["runs"][0], "run-002");

    let one = site
        .get("shop", &format!("{PAY}/errors?version=2&last=10m"))
        .await
        .works();
    assert_eq!(one["items"][0]["runs"], json!(["run-005"]), "{one}");
    let none = site
        .get("shop", &format!("{PAY}/errors?status=Success"))
        .await
        .works();
    assert_eq!((&none["items"], &none["read"]["runs"]), (&json!([]), &json!(0)));
    for (query, field) in [
        ("cursor=x", "cursor"),
        ("count=true", "count"),
        ("level=Info", "level"),
        ("limit=0", "limit"),
    ] {
        let error = site
            .get("shop", &format!("{PAY}/errors?{query}"))
            .await
            .fails(400, "Invalid");
        assert_eq!(error["field"], field);
    }
    let nobody = site
        .get("shop", "/api/v1/namespaces/shop/scripts/misspelt/errors")
        .await;
    nobody.fails(404, "ScriptNotFound");
}

#[tokio::test]
async fn a_file_is_the_same_in_every_format() {
    use std::io::Read;

    use parquet::file::reader::{FileReader, SerializedFileReader};

    let site = site().await;
    let to = Timestamp::now();
    let query = format!("status=Failed&from=2020-01-01T00:00:00Z&to={to}");
    let plain = site.get("shop", &format!("{PAY}/runs.csv?{query}")).await;
    let gzip = site
        .get("shop", &format!("{PAY}/runs.csv?{query}&compression=gzip"))
        .await;
    assert_eq!(
        gzip.headers[header::CONTENT_DISPOSITION],
        "attachment; filename=\"pay_runs_data.csv.gz\""
    );
    assert_eq!(gzip.headers[header::CONTENT_TYPE], "application/gzip");
    assert!(!gzip.headers.contains_key(header::CONTENT_ENCODING));
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*gzip.body)
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.body);
    let zstd = site
        .get("shop", &format!("{PAY}/runs.csv?{query}&compression=Zstd"))
        .await;
    assert_eq!(zstd::decode_all(&*zstd.body).unwrap(), plain.body);

    let file = site
        .get(
            "shop",
            &format!("{PAY}/runs.parquet?{query}&columns=Source,Run%20ID,Reason"),
        )
        .await;
    assert_eq!(
        file.headers[header::CONTENT_TYPE],
        "application/vnd.apache.parquet"
    );
    assert_eq!(
        file.headers[header::CONTENT_DISPOSITION],
        "attachment; filename=\"pay_runs_data.parquet\""
    );
    let file = SerializedFileReader::new(bytes::Bytes::from(file.body)).unwrap();
    let (mut ids, mut sources) = (Vec::new(), Vec::new());
    for row in file.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let columns: Vec<(String, parquet::record::Field)> = row.into_columns();
        let text = |n: usize| columns[n].1.to_string().trim_matches('"').to_owned();
        let names: Vec<&str> = columns.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["Source", "Run ID", "Reason"]);
        sources.push(text(0));
        ids.push(text(1));
    }
    let expected: Vec<String> = records(&plain.body)
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(ids.len(), 41);
    assert_eq!(ids, expected);
    assert!(sources.iter().any(|source| source.contains("onerror")));
    let logs = site
        .get("shop", &format!("{PAY}/logs.parquet?search=message"))
        .await;
    let logs = SerializedFileReader::new(bytes::Bytes::from(logs.body)).unwrap();
    assert_eq!(logs.metadata().file_metadata().num_rows(), 120);
    // A file without rows is one all the same.
    let none = site
        .get("shop", &format!("{PAY}/runs.parquet?source=nobody"))
        .await;
    let none = SerializedFileReader::new(bytes::Bytes::from(none.body)).unwrap();
    assert_eq!(none.metadata().file_metadata().num_rows(), 0);
}

#[tokio::test]
async fn a_wrong_format_names_the_key_and_the_remedy() {
    let site = site().await;
    for (path, field, remedy) in [
        ("runs.csv?compression=rar", "compression", "Gzip"),
        (
            "runs.csv?compression=Gzip&compression=Zstd",
            "compression",
            "twice",
        ),
        ("runs.parquet?compression=Gzip", "compression", "already"),
        ("runs.csv?columns=Colour", "columns", "Run ID"),
        ("logs.parquet?columns=Log%20ID,Log%20ID", "columns", "twice"),
        ("runs.parquet?columns=Run%20ID,Input", "columns", "ScriptExport"),
        ("runs.parquet?limit=3", "limit", "leave it out"),
    ] {
        let error = site
            .get("shop", &format!("{PAY}/{path}"))
            .await
            .fails(400, "Invalid");
        assert_eq!(error["field"], field, "{path}");
        assert!(error["message"].as_str().unwrap().contains(remedy), "{error}");
    }
}
