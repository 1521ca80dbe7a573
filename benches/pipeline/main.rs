//! Benchmarks of whole paths; `make bench` runs all, `make bench NAME=ingest_plain_sqlite` one. Each prints one JSON line
//! with its figure, a raw engine's beside it, and what both cost ([`report::Report`]).

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that can not run has nothing to say
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // figures

mod beside;
#[path = "../../tests/common/postgres.rs"]
#[allow(dead_code)] // shared with the tests
mod cluster;
mod disk;
mod export;
mod figures;
mod generate;
mod ingest;
mod latency;
mod many_lines;
mod many_runs;
mod memory;
mod page;
mod postgres;
mod report;
mod retention;
mod runs;
mod sandbox;
mod search;
#[path = "../../tests/common/testbed.rs"]
#[allow(dead_code)] // shared with the fault tests
mod testbed;
mod trickle;
mod usage;

use report::Scale;

/// The product's, since the server that is measured runs in this program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Name of a benchmark, and what runs it.
type Bench = (&'static str, fn(Scale));

const BENCHES: &[Bench] = &[
    ("ingest_plain_sqlite", ingest::plain_sqlite),
    ("retention_ingest_p99", retention::ingest_p99),
    ("ingest_spans_sqlite", ingest::spans_sqlite),
    ("ingest_runs_sqlite", runs::ingest_sqlite),
    ("ingest_plain_postgres", postgres::ingest_plain),
    ("ingest_runs_postgres", postgres::ingest_runs),
    ("bytes_per_line", disk::per_line),
    ("bytes_per_run", runs::bytes_per_run),
    ("visible_latency_p99", latency::p99),
    ("page_runs_p99_sqlite", page::runs_p99_sqlite),
    ("page_runs_p99_postgres", page::runs_p99_postgres),
    ("tiles_p99", page::tiles_p99),
    ("search_miss", search::miss),
    ("search_token", search::token),
    ("digest_error", figures::digest_error),
    ("node_cpu", trickle::node_cpu),
    ("rss_idle", memory::idle),
    ("rss_ingest", ingest::rss),
    ("rss_export", memory::export),
    ("export_logs_csv", export::logs_csv),
    ("export_runs_csv", export::runs_csv),
    ("export_runs_csv_postgres", export::runs_csv_postgres),
    ("export_while_ingest", beside::export_while_ingest),
    ("runner_overhead_p50", sandbox::overhead_python),
    ("runner_overhead_p50_node", sandbox::overhead_node),
    ("korelogger_call", sandbox::korelogger_python),
    ("korelogger_call_node", sandbox::korelogger_node),
];

fn main() {
    testbed::serve_if_asked();
    let scale = Scale::from_env();
    // `cargo bench` adds arguments of its own.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    for name in &wanted {
        if !BENCHES.iter().any(|(known, _)| known == name) {
            let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
            eprintln!("There is no benchmark {name}; there are {}.", known.join(", "));
            std::process::exit(2);
        }
    }
    for (name, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            run(scale);
        }
    }
}
