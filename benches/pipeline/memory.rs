//! Memory of the operator's ingest and store when nothing happens, and while someone downloads everything.

use std::{thread, time::Duration, time::Instant};

use crate::{
    generate,
    ingest::{SCRIPT, Work, runtime},
    report::{Baseline, Report, Scale},
    testbed::{self, Config},
    usage,
};

/// Scripts that an idle operator knows.
const SCRIPTS: usize = 100;
const IDLE: Duration = Duration::from_secs(3);

/// An open store with a hundred scripts, and no work.
pub fn idle(_: Scale) {
    let scratch = tempfile::tempdir().unwrap();
    let pods = (0..SCRIPTS).flat_map(|n| generate::pods(1, &format!("script-{n}")));
    let config = Config {
        store: format!("sqlite://{}", scratch.path().join("store.db").display()),
        listen: ([127, 0, 0, 1], 0).into(),
        pods: pods
            .enumerate()
            .map(|(n, pod)| testbed::Pod {
                uid: format!("00000000-0000-4000-8000-{n:012}"),
                ..pod
            })
            .collect(),
    };
    let (server, _) = testbed::start_server(&config);
    let before = usage::cpu_seconds(server.0.id());
    thread::sleep(IDLE);
    let process = server.0.id();
    Report {
        name: "rss_idle",
        value: usage::max_rss_bytes(process) as f64,
        unit: "bytes",
        baseline: Baseline {
            name: "this program without a server",
            value: usage::max_rss_bytes(std::process::id()) as f64,
        },
        ratio: 0.0,
        cpu_seconds: usage::cpu_seconds(process) - before,
        max_rss_bytes: usage::max_rss_bytes(process),
        n: SCRIPTS,
    }
    .print();
}

/// Every line of a script as CSV, by a server that was started for it.
pub fn export(scale: Scale) {
    let lines = scale.of(10_000_000, 300_000);
    let work = Work::new(|logs, pods| generate::plain(logs, pods, lines));
    work.ship(lines).stop();
    let config = Config {
        store: format!("sqlite://{}", work.database().display()),
        listen: ([127, 0, 0, 1], 0).into(),
        pods: Vec::new(),
    };
    let (server, address) = testbed::start_server(&config);
    let process = server.0.id();
    let idle = usage::max_rss_bytes(process);
    let began = Instant::now();
    let (bytes, newlines) = runtime().block_on(async {
        let url = format!("http://{address}/logs.csv/{SCRIPT}");
        let mut answer = reqwest::get(url).await.unwrap();
        let (mut bytes, mut newlines) = (0, 0);
        while let Some(part) = answer.chunk().await.unwrap() {
            bytes += part.len();
            newlines += memchr::memchr_iter(b'\n', &part).count();
        }
        (bytes, newlines)
    });
    assert_eq!(newlines, lines + 1, "each line and the headings");
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "  {:.0} rows/s, {:.0} MB/s",
        lines as f64 / seconds,
        bytes as f64 / seconds / 1e6
    );
    Report {
        name: "rss_export",
        value: usage::max_rss_bytes(process) as f64,
        unit: "bytes",
        baseline: Baseline {
            name: "the same process before",
            value: idle as f64,
        },
        ratio: 0.0,
        cpu_seconds: usage::cpu_seconds(process),
        max_rss_bytes: usage::max_rss_bytes(process),
        n: lines,
    }
    .print();
}
