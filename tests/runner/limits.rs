//! What a request may be, how many calls wait, and when a pod says that calls should go to another.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::harness::{Runner, eventually, none};

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let runner = Runner::start("plain", &[]).await;
    let long = "x".repeat(33 << 10);
    let (status, body, _) = runner.ask("POST", "/functions/check", &[("x-long", &long)]).await;
    assert_eq!((status, &body["error"]["code"]), (431, &json!("HeadersTooLarge")));
    let (status, body, _) = runner.ask("GET", &format!("/functions?{long}"), &[]).await;
    assert_eq!((status, &body["error"]["code"]), (431, &json!("HeadersTooLarge")));
    let mut stream = TcpStream::connect(runner.address()).unwrap();
    stream.write_all(b"GET /functions HTTP/1.1\r\nx: ").unwrap();
    // More than the server reads at all: it may close before everything is sent.
    let _ = stream.write_all(&vec![b'x'; 200 << 10]);
    let mut answer = [0; 12];
    let read = stream.read(&mut answer).unwrap_or(0);
    assert!(read == 0 || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    assert_eq!(runner.get("/functions").await, 200, "the next one is served");
}

/// One runner is full, the other is not: the full one sends callers away, but not when nobody else has room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_pod_is_not_ready_while_another_has_room() {
    let peers = "127.0.1.2,127.0.1.3";
    let one = Runner::start(
        "rough",
        &[
            ("SCRIPTSCOPE_LISTEN", "127.0.1.2:0"),
            ("SCRIPTSCOPE_POD_IP", "127.0.1.2"),
            ("SCRIPTSCOPE_PEERS", peers),
        ],
    )
    .await;
    let fill = async |runner: &Runner| {
        let mut runs = Vec::new();
        for _ in 0..5 {
            runs.push(runner.begin("never", &none()).await);
        }
        runs
    };
    let runs = fill(&one).await;
    assert_eq!(one.get("/internal/free").await, 429);
    assert_eq!(one.get("/readyz").await, 200, "no other pod is there");
    let refused = one.call("ok", none()).await;
    assert_eq!((refused.status, refused.retry_after), (429, true));

    let listen = format!("127.0.1.3:{}", one.address().rsplit(':').next().unwrap());
    let other = Runner::start(
        "rough",
        &[
            ("SCRIPTSCOPE_LISTEN", &listen),
            ("SCRIPTSCOPE_POD_IP", "127.0.1.3"),
            ("SCRIPTSCOPE_PEERS", peers),
        ],
    )
    .await;
    let (status, body, _) = one.ask("GET", "/readyz", &[]).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("Saturated")));
    let others = fill(&other).await;
    assert_eq!(
        (one.get("/readyz").await, other.get("/readyz").await),
        (200, 200),
        "both are full"
    );
    for run in &others {
        other.ask("DELETE", &format!("/runs/{run}"), &[]).await;
    }
    // Its worker was killed with the run and has to start again.
    other.answers("/internal/free", 200).await;
    assert_eq!(one.get("/readyz").await, 503);
    one.ask("DELETE", &format!("/runs/{}", runs[4]), &[]).await;
    assert_eq!(one.get("/readyz").await, 503, "one place is not half the queue");
    one.ask("DELETE", &format!("/runs/{}", runs[3]), &[]).await;
    assert_eq!(one.get("/readyz").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waited_too_long_gives_its_place_back() {
    let runner = Runner::start("rough", &[("SCRIPTSCOPE_QUEUE_SECONDS", "1")]).await;
    let busy = runner.begin("never", &none()).await;
    eventually("the run has begun", || {
        (!runner.objects().is_empty()).then_some(())
    })
    .await;
    let waiting: Vec<_> = (0..4).map(|_| runner.calls("ok", &none())).collect();
    for call in waiting {
        let (status, body) = call.await.unwrap();
        assert_eq!((status, &body["error"]["code"]), (429, &json!("QueueTimeout")));
    }
    // Four places are free again although the worker is still busy.
    for _ in 0..4 {
        runner.begin("ok", &none()).await;
    }
    runner.ask("DELETE", &format!("/runs/{busy}"), &[]).await;
    let next = runner.begin("ok", &none()).await;
    runner.records(&next).await;
}
