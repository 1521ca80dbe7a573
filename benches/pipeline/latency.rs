//! How long it takes from a line's print until a reader sees it.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    generate, ingest,
    report::{Baseline, Report, Scale},
    testbed::{self, Config, Pod, Process},
    usage,
};

/// Each file is a script's, so that the number of lines stored says which.
const FILES: usize = 4;
const LINES_PER_SECOND: u64 = 1_000;
/// How often readers look.
const LOOK: Duration = Duration::from_millis(4);

/// Pods' files that an agent follows into SQLite.
pub struct Followed {
    pub files: Vec<File>,
    pub server: Process,
    pub address: SocketAddr,
    pub agent: Process,
}

/// Makes the pods' files in a folder, and starts server and agent.
pub fn follow(scratch: &Path, pods: Vec<Pod>) -> Followed {
    let logs = scratch.join("pods");
    let files = pods
        .iter()
        .map(|pod| generate::create(&logs, pod).into_inner().unwrap())
        .collect();
    let config = Config {
        store: format!("sqlite://{}", scratch.join("store.db").display()),
        listen: ([127, 0, 0, 1], 0).into(),
        pods,
    };
    let (server, address) = testbed::start_server(&config);
    let agent = testbed::start_agent(address, &logs, scratch);
    Followed {
        files,
        server,
        address,
        agent,
    }
}

/// The 99th percentile of the time from print to readable, milliseconds, at 1,000 lines a second.
pub fn p99(scale: Scale) {
    let lines = scale.of(20, 4) * LINES_PER_SECOND as usize;
    let scratch = tempfile::tempdir().unwrap();
    let pods: Vec<Pod> = generate::pods(FILES, "")
        .into_iter()
        .enumerate()
        .map(|(n, pod)| Pod {
            script: script(n),
            ..pod
        })
        .collect();
    let Followed {
        mut files,
        server,
        address,
        agent,
    } = follow(scratch.path(), pods);
    // From here on everything is being followed.
    for file in &mut files {
        print(file, 0);
    }
    while (0..FILES).any(|n| stored(address, n) == 0) {
        thread::sleep(LOOK);
    }
    let (printed, seen) = mpsc::channel();
    let writing = thread::spawn(move || {
        let began = Instant::now();
        for n in 1..=lines {
            let due = Duration::from_micros(1_000_000 / LINES_PER_SECOND) * n as u32;
            thread::sleep(due.saturating_sub(began.elapsed()));
            let _ = printed.send((n % FILES, Instant::now()));
            print(&mut files[n % FILES], n);
        }
    });
    let mut latencies = observe(address, &seen, lines);
    writing.join().unwrap();
    latencies.sort_unstable();
    let millis = |share: f64| latencies[(share * (lines - 1) as f64) as usize].as_secs_f64() * 1e3;
    eprintln!(
        "  p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
        millis(0.5),
        millis(0.9),
        millis(0.99),
        millis(1.0)
    );
    Report {
        name: "visible_latency_p99",
        value: millis(0.99),
        unit: "ms",
        baseline: Baseline {
            name: "fsync of one line",
            value: fsync_millis(scratch.path()),
        },
        ratio: 0.0,
        cpu_seconds: [agent.0.id(), server.0.id()].map(usage::cpu_seconds).iter().sum(),
        max_rss_bytes: usage::max_rss_bytes(server.0.id()),
        n: lines,
    }
    .print();
}

/// Looks until all lines are stored; how long each took.
fn observe(address: SocketAddr, printed: &mpsc::Receiver<(usize, Instant)>, lines: usize) -> Vec<Duration> {
    let mut waiting: [std::collections::VecDeque<Instant>; FILES] = Default::default();
    let mut known = [1_usize; FILES];
    let mut latencies = Vec::with_capacity(lines);
    while latencies.len() < lines {
        thread::sleep(LOOK);
        for (file, time) in printed.try_iter() {
            waiting[file].push_back(time);
        }
        for n in 0..FILES {
            let stored = stored(address, n);
            let now = Instant::now();
            // A line may be seen before the news of its print.
            let new = (stored - known[n]).min(waiting[n].len());
            latencies.extend(waiting[n].drain(..new).map(|time| now - time));
            known[n] += new;
        }
    }
    latencies
}

fn script(n: usize) -> String {
    format!("measured-{n}")
}

fn stored(address: SocketAddr, n: usize) -> usize {
    ingest::stored(address, &script(n)).lines as usize
}

pub fn print(file: &mut File, n: usize) {
    let message = generate::plain_message(n, n as u64);
    // One write a line, as the runtime does.
    let line = format!("{:.9} stdout F {message}\n", Timestamp::now());
    file.write_all(line.as_bytes()).unwrap();
}

/// The median time that the disk takes to keep a line, milliseconds.
fn fsync_millis(folder: &std::path::Path) -> f64 {
    let mut file = File::create(folder.join("fsync")).unwrap();
    let mut times: Vec<Duration> = (0..50)
        .map(|n| {
            print(&mut file, n);
            let began = Instant::now();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}
