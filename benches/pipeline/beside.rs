//! Plain lines ingested while ten million others are exported, beside the same ingest alone.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    generate,
    ingest::{FILES, Work, runtime, stored},
    report::{Baseline, Report, Scale},
    testbed::{self, Config, Pod},
    usage,
};

/// What ingest did.
struct Ingested {
    lines_per_second: f64,
    /// Files that were begun, and rows of those that were written.
    exports: usize,
    rows: u64,
    cpu_seconds: f64,
    max_rss_bytes: u64,
}

/// Lines a second that are ingested while the operator makes one file of a script's lines after the other.
pub fn export_while_ingest(scale: Scale) {
    let exported = scale.of(10_000_000, 300_000);
    let ingested = scale.of(10_000_000, 300_000);
    let work = Work::new(|logs, pods| generate::plain(logs, pods, exported));
    work.ship(exported).stop();
    let alone = ingest(&work.database(), "alone", 1, ingested, None);
    let beside = ingest(
        &work.database(),
        "beside",
        2,
        ingested,
        Some(crate::ingest::SCRIPT),
    );
    assert!(beside.exports > 0);
    eprintln!(
        "  {} exports of {exported} rows begun meanwhile, {} rows written by those that ended",
        beside.exports, beside.rows
    );
    Report {
        name: "export_while_ingest",
        value: beside.lines_per_second,
        unit: "lines/s",
        baseline: Baseline {
            name: "the same ingest without an export",
            value: alone.lines_per_second,
        },
        ratio: 0.0,
        cpu_seconds: beside.cpu_seconds,
        max_rss_bytes: beside.max_rss_bytes,
        n: ingested,
    }
    .print();
}

/// Ships so many lines of a script of its own, by a server that was started for it and makes files of `exported` meanwhile.
fn ingest(database: &Path, script: &str, number: usize, lines: usize, exported: Option<&str>) -> Ingested {
    let scratch = tempfile::tempdir().unwrap();
    let pods: Vec<Pod> = generate::pods(FILES, script)
        .into_iter()
        .enumerate()
        .map(|(n, pod)| Pod {
            uid: format!("00000000-0000-4000-8{number:03}-{n:012}"),
            ..pod
        })
        .collect();
    let logs = scratch.path().join("pods");
    generate::plain(&logs, &pods, lines);
    let config = Config {
        store: format!("sqlite://{}", database.display()),
        listen: ([127, 0, 0, 1], 0).into(),
        pods,
    };
    let (server, address) = testbed::start_server(&config);
    let (mut exports, mut rows) = (0, 0);
    let url = exported.map(|script| format!("http://{address}/export/{script}"));
    let runtime = runtime();
    let client = reqwest::Client::new();
    let exporting = async {
        let Some(url) = &url else {
            return std::future::pending().await;
        };
        loop {
            exports += 1;
            let answer = client.get(url).send().await.unwrap();
            let written: u64 = answer.error_for_status().unwrap().json().await.unwrap();
            rows += written;
        }
    };
    let all = async {
        if url.is_some() {
            // The export is under way.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let began = Instant::now();
        let agent = testbed::start_agent(address, &logs, scratch.path());
        let waiting = tokio::task::spawn_blocking({
            let script = script.to_owned();
            move || {
                while (stored(address, &script).lines as usize) < lines {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        waiting.await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        (seconds, usage::cpu_seconds(agent.0.id()))
    };
    let (seconds, of_agent) = runtime.block_on(async {
        tokio::select! {
            all = all => all,
            never = exporting => never,
        }
    });
    Ingested {
        lines_per_second: lines as f64 / seconds,
        exports,
        rows,
        cpu_seconds: of_agent + usage::cpu_seconds(server.0.id()),
        max_rss_bytes: usage::max_rss_bytes(server.0.id()),
    }
}
