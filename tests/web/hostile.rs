//! Clients that dawdle, come in crowds, or say what they should not.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::http::header;
use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    metrics::Metrics,
    model::{RunStatus, ScriptKey},
    web::{Limits, WebState, router, serve_within},
};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{Objects, PAY, Rows, Site, Users, line, run, site};

/// A server that ends with the test.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    _site: Site,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn served(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop, site) = (
        listener.local_addr().unwrap(),
        CancellationToken::new(),
        site().await,
    );
    tokio::spawn(serve_within(listener, site.app.clone(), limits, stop.clone()));
    Server {
        address,
        stop,
        _site: site,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Somebody who asks properly is answered, and soon.
    async fn answers_others(&self) {
        let began = Instant::now();
        let url = format!("http://{}{PAY}/runs", self.address);
        let answer = reqwest::Client::new().get(url).bearer_auth("shop").send();
        let answer = timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().await.unwrap().contains("billing"));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    /// Sends bytes, and reads until the server closes.
    async fn says(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // It may refuse before it has read all of it.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
            match read
                .unwrap_or_else(|_| panic!("it stays open after {:?}", String::from_utf8_lossy(&answer)))
            {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Sends a byte again and again; how long the server bore it.
async fn dribble(mut stream: TcpStream, head: &[u8]) -> Duration {
    let began = Instant::now();
    stream.write_all(head).await.unwrap();
    let mut buffer = [0; 4096];
    loop {
        assert!(began.elapsed() < Duration::from_secs(20), "it bears it for ever");
        if stream.write_all(b"x").await.is_err() {
            return began.elapsed();
        }
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(50), stream.read(&mut buffer)).await {
            return began.elapsed();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_or_a_body_that_does_not_come_ends_the_connection() {
    let server = served(Limits {
        head: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    let head = dribble(server.connect().await, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let none = dribble(server.connect().await, b"");
    let request = "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer shop\r\nContent-Length: 60000\r\n\r\n";
    let body = dribble(server.connect().await, request.as_bytes());
    let chunked = "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer shop\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n";
    let chunked = dribble(server.connect().await, chunked.as_bytes());
    let others = async {
        for _ in 0..5 {
            server.answers_others().await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let (head, none, body, chunked, ()) = tokio::join!(head, none, body, chunked, others);
    for (what, took) in [
        ("head", head),
        ("nothing", none),
        ("body", body),
        ("chunks", chunked),
    ] {
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_keep_nobody_out() {
    let server = served(Limits::default()).await;
    let mut idle = Vec::new();
    for n in 0..2_000 {
        let mut stream = server.connect().await;
        if n % 2 == 0 {
            // Half a request.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost:").await;
        }
        idle.push(stream);
        if n % 400 == 399 {
            server.answers_others().await;
        }
    }
    for _ in 0..5 {
        server.answers_others().await;
    }
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_takes_no_answer_keeps_nobody_out() {
    let server = served(Limits {
        connections: 1,
        stall: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    let mut stream = server.connect().await;
    // More answers than buffers on the way hold, and none of them is read.
    let request = format!("GET {PAY}/logs.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer shop\r\n\r\n");
    let asking = tokio::spawn(async move {
        for _ in 0..20_000 {
            if stream.write_all(request.as_bytes()).await.is_err() {
                break;
            }
        }
        stream
    });
    sleep(Duration::from_millis(300)).await;
    let url = format!("http://{}{PAY}/runs", server.address);
    let answer = reqwest::Client::new().get(url).bearer_auth("shop").send();
    let answer = timeout(Duration::from_secs(20), answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    asking.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let server = served(Limits::default()).await;
    let long = "a".repeat(20 << 10);
    let longest = "a".repeat(80 << 10);
    let session =
        "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer shop\r\n";
    for (what, request, status) in [
        (
            "URL",
            format!("GET /{long} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            "414",
        ),
        (
            "headers",
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: {long}\r\nB: {long}\r\n\r\n"),
            "431",
        ),
        (
            "head",
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: {longest}\r\n\r\n"),
            "431",
        ),
        (
            "body",
            format!("{session}Content-Length: 100000000\r\n\r\n"),
            "413",
        ),
        (
            "number of headers",
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
                "A: b\r\n".repeat(200)
            ),
            "431",
        ),
    ] {
        let answer = server.says(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {answer:.300}"
        );
    }
    server.answers_others().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_in_names_and_headers_add_nothing_to_an_answer() {
    let server = served(Limits::default()).await;
    let injected = "%0d%0aSet-Cookie:%20stolen=1%0d%0a%0d%0a%3Cscript%3E";
    for path in [
        format!("/{injected}"),
        format!("/api/v1/namespaces/{injected}/scripts/pay"),
        format!("/api/v1/namespaces/shop/scripts/{injected}/runs"),
        format!("{PAY}/runs/{injected}"),
        format!("{PAY}/runs?filter={injected}"),
        format!("{PAY}/runs?{injected}=1"),
        format!("{PAY}/runs.csv?last={injected}"),
        format!("/api/v1/namespaces/shop/exports/{injected}/file"),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer shop\r\n\r\n"
        );
        let answer = server.says(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(
            !head.contains("stolen") && !head.contains("<script>"),
            "{path}: {head}"
        );
        if !head.starts_with("http/1.1 200") {
            assert!(head.contains("content-type: application/json"), "{path}: {head}");
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(json["error"]["message"].is_string(), "{path}: {body}");
        }
    }
    // Headers that hold what no header may hold are no request at all.
    for bad in [
        "A: b\0c",
        "A\nB: c",
        "A: b\rX: d",
        " : c",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: x, chunked\r\nContent-Length: 5",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bad}\r\n\r\n");
        let answer = server.says(request.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.matches("HTTP/1.1 ").count() == 1,
            "{bad:?}: {answer:.300}"
        );
    }
    server.answers_others().await;
}

#[tokio::test]
async fn no_name_leads_out_of_the_folder_of_exports() {
    let site = site().await;
    std::fs::write(site.folder.path().join("outside"), "secret of the disk").unwrap();
    for name in [
        "..",
        ".",
        "%2e%2e",
        "..%2foutside",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "..%5c..%5coutside",
        "%252e%252e%252foutside",
        "a%00b",
        "%2fetc%2fpasswd",
        "outside",
        "....%2f%2foutside",
        "%c0%ae%c0%ae%c0%afoutside",
    ] {
        for path in [
            format!("/api/v1/namespaces/shop/exports/{name}/file"),
            format!("/api/v1/namespaces/{name}/exports/x/file"),
            format!("/assets/{name}"),
            format!("/{name}"),
        ] {
            let answer = site.get("all", &path).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                !text.contains("secret of the disk") && !text.contains("root:"),
                "{path}: {text}"
            );
            // Names without a dot are addresses of the dashboard's own pages.
            let is_page = answer.headers[header::CONTENT_TYPE]
                .to_str()
                .unwrap()
                .starts_with("text/html");
            assert!(
                is_page || answer.status.is_client_error(),
                "{path}: {}",
                answer.status
            );
        }
    }
}

#[tokio::test]
async fn markup_in_every_field_is_a_text_in_json() {
    const EVIL: &str = "</script><script>alert(1)</script>";
    let folder = tempfile::tempdir().unwrap();
    let pay = ScriptKey::new("shop", "pay");
    let mut evil = run(1, RunStatus::Failed, EVIL);
    evil.run_id = EVIL.to_owned();
    evil.function = EVIL.to_owned();
    let mut printed = line(1, EVIL);
    printed.run_id = Some(EVIL.to_owned());
    printed.timestamp = Timestamp::now() - SignedDuration::from_mins(1);
    let rows = Rows {
        runs: vec![(pay.clone(), evil)],
        logs: vec![(pay, printed)],
    };
    let store = rows.store(&folder).await;
    let state = WebState::new(
        store.clone(),
        Arc::new(Users),
        Arc::new(Objects),
        folder.path(),
        Metrics::new(),
    );
    let site = Site {
        app: router(state),
        store,
        folder,
    };
    let encoded = "%3C%2Fscript%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    for (path, pointers) in [
        (
            format!("{PAY}/runs"),
            &["/items/0/runId", "/items/0/function", "/items/0/source"][..],
        ),
        (format!("{PAY}/runs/{encoded}"), &["/runId"]),
        (format!("{PAY}/logs"), &["/items/0/message", "/items/0/runId"]),
        (format!("{PAY}/runs/{encoded}/logs"), &["/items/0/message"]),
    ] {
        let answer = site.get("shop", &path).await;
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json", "{path}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        let json = answer.works();
        for pointer in pointers {
            let value = json.pointer(pointer).and_then(serde_json::Value::as_str);
            assert_eq!(value, Some(EVIL), "{path} {pointer}: {json}");
        }
    }
    // What is saved as a file is no page, whatever is in it.
    for file in ["runs.csv", "logs.csv"] {
        let answer = site.get("shop", &format!("{PAY}/{file}")).await;
        let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
        assert!(kind.starts_with("text/csv"), "{kind}");
        let disposition = answer.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
        assert!(disposition.starts_with("attachment"), "{disposition}");
    }
}
