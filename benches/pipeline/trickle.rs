//! What a node costs that prints a little all the time: the unit of docs/scaling.md.

use std::{thread, time::Duration, time::Instant};

use crate::{
    generate,
    ingest::SCRIPT,
    latency::{self, Followed},
    report::{Baseline, Report, Scale},
    usage,
};

const PODS: usize = 20;
const LINES_PER_SECOND: u64 = 400;

/// Processor time of the operator for each second of such a node, milliseconds.
pub fn node_cpu(scale: Scale) {
    let seconds = scale.of(20, 4) as u64;
    let scratch = tempfile::tempdir().unwrap();
    let pods = generate::pods(PODS, SCRIPT);
    let Followed {
        mut files,
        server,
        agent,
        ..
    } = latency::follow(scratch.path(), pods);
    let processes = [server.0.id(), agent.0.id()];
    let before = processes.map(usage::cpu_seconds);
    let began = Instant::now();
    let lines = seconds * LINES_PER_SECOND;
    for n in 0..lines {
        let due = Duration::from_micros(1_000_000 / LINES_PER_SECOND) * n as u32;
        thread::sleep(due.saturating_sub(began.elapsed()));
        latency::print(&mut files[n as usize % PODS], n as usize);
    }
    thread::sleep(Duration::from_secs(1));
    let [of_server, of_agent] =
        [0, 1].map(|at| (usage::cpu_seconds(processes[at]) - before[at]) / seconds as f64);
    Report {
        name: "node_cpu",
        value: of_server * 1e3,
        unit: "ms/s",
        baseline: Baseline {
            name: "the agent of that node",
            value: of_agent * 1e3,
        },
        ratio: 0.0,
        cpu_seconds: (of_server + of_agent) * seconds as f64,
        max_rss_bytes: usage::max_rss_bytes(processes[0]),
        n: lines as usize,
    }
    .print();
}
