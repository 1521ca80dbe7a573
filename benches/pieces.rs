//! The pieces of the path from a log file's bytes to a segment, one by one: `cargo bench --bench pieces`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a benchmark that can not run has nothing to say
#![allow(missing_docs)] // Criterion's macros

use std::{fmt::Write, ops::ControlFlow};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use scriptscope::{
    ingest::parse::{Parsed, Parser},
    model::LogId,
    segment::{self, LineKey, LineRef},
};

const LINES: usize = 16_384;
const BEGIN: &str = "2026-01-02T03:04:05Z";

fn log(mut line: impl FnMut(usize) -> String) -> Vec<u8> {
    let began: Timestamp = BEGIN.parse().unwrap();
    let mut text = String::new();
    for n in 0..LINES {
        let time = Timestamp::from_microsecond(began.as_microsecond() + i64::try_from(n).unwrap()).unwrap();
        writeln!(text, "{time:.9} stdout F {}", line(n)).unwrap();
    }
    text.into_bytes()
}

fn plain() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    log(|n| {
        let id = random.u64(..);
        format!(
            "request {id:016x} of customer {} was answered with status 200 after {} ms",
            n % 1_000,
            n % 97
        )
    })
}

fn records() -> Vec<u8> {
    log(|n| {
        format!(
            r#"{{"scriptscope":"run.finished","time":"{BEGIN}","run_id":"run_{n}","status":"Success","duration_us":{n},"output":{{"n":{n}}},"error":null}}"#
        )
    })
}

fn spans() -> Vec<u8> {
    log(|n| {
        format!(
            r#"{{"name":"gvisor_info_log","kind":"SpanKind.INTERNAL","start_time":"{BEGIN}","attributes":{{"run_id":"run_{}","log.message":"balance {n} read","log.level":"INFO","log.meta.pid":"41"}},"events":[],"links":[]}}"#,
            n / 10
        )
    })
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut parser = Parser::new(0, BEGIN.parse().unwrap());
    parser.feed(&Bytes::copy_from_slice(bytes));
    parser.finish()
}

fn line_refs(parsed: &Parsed) -> Vec<LineRef<'_>> {
    let lines = parsed.records.lines.iter();
    lines
        .map(|line| LineRef {
            key: LineKey {
                micros: line.micros,
                id: LogId {
                    stream: 1,
                    offset: i64::try_from(line.offset).unwrap(),
                    index: 0,
                },
            },
            level: line.level,
            run_id: line.run_id,
            message: line.message,
            source: None,
            attributes: line.attributes,
        })
        .collect()
}

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pieces");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(LINES as u64));
    for (name, bytes) in [
        ("parse plain", plain()),
        ("parse records", records()),
        ("parse spans", spans()),
    ] {
        group.bench_function(name, |bench| bench.iter(|| parse(&bytes)));
    }
    let parsed = parse(&plain());
    let lines = line_refs(&parsed);
    group.bench_function("encode", |bench| {
        bench.iter(|| segment::encode(&lines).unwrap());
    });
    let body = segment::encode(&lines).unwrap().unwrap().body;
    group.bench_function("scan", |bench| {
        bench.iter(|| {
            let mut bytes = 0;
            segment::scan(&body, &(i64::MIN..i64::MAX), |line| {
                bytes += line.message.len();
                ControlFlow::Continue(())
            })
            .unwrap();
            bytes
        });
    });
    let quarters = [body.clone(), body.clone(), body.clone(), body];
    group
        .throughput(Throughput::Elements(4 * LINES as u64))
        .bench_function("merge", |bench| bench.iter(|| segment::merge(&quarters).unwrap()));
    group.finish();
}

criterion_group!(benches, pieces);
criterion_main!(benches);
