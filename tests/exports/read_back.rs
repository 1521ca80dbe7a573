//! Exported files, opened with what people open them with: pandas and `DuckDB` see the rows of the REST API.

use std::{path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    export::{
        Table,
        columns::Columns,
        file::ExportFolder,
        format::{Compression, Format},
    },
    model::{LogId, LogLevel, LogLine, Run, RunStatus, ScriptKey, SourceType},
    store::Store,
};

use crate::{key, plan, read_back_with::read_back, rows::Rows, site::Site};

/// What is hard to put into a file, and to get out of it.
const AWKWARD: &[&str] = &[
    "a plain line",
    "",
    " spaces around ",
    "commas, and, more",
    "say \"hi\"",
    "\"",
    "\"\"",
    "two\nlines",
    "dos\r\nlines",
    "a\rreturn",
    "ends in a newline\n",
    "\n",
    "=1+1",
    "=HYPERLINK(\"http://evil.example\",\"click\")",
    "+1",
    "-1",
    "@SUM(A1)",
    "\ttab first",
    "\rreturn first",
    "'quoted'",
    "emoji 🎉 and 日本 and привет",
    "e\u{301} combining, \u{200f}right to left",
    "\u{feff}a mark",
    "no \u{fffd} text",
    "007",
    "1e5",
    "3.0",
    "true",
    "NA",
    "null",
    "nan",
    "None",
    "2026-01-01T00:00:00Z",
    "back\\slash \\n \\\"",
    "semi;colon|pipe",
    "# no comment",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{2028}line separator\u{85}",
    "{\"json\": \"a,b\"}",
];

fn text(n: usize) -> String {
    let awkward = AWKWARD[n % AWKWARD.len()];
    match n / AWKWARD.len() % 3 {
        0 => awkward.to_owned(),
        1 => format!("{awkward}{}", AWKWARD[n * 7 % AWKWARD.len()]),
        _ => format!("{n} {awkward}").repeat(1 + n % 40),
    }
}

fn rows() -> Rows {
    let pay = || ScriptKey::new("shop", "pay");
    let time = |n: usize| {
        // Whole seconds among them, and several at one moment.
        let micros = if n.is_multiple_of(5) { 0 } else { 123_456 + n };
        Timestamp::now().round(jiff::Unit::Second).unwrap() - SignedDuration::from_hours(1)
            + SignedDuration::from_secs(i64::try_from(n / 3).unwrap())
            + SignedDuration::from_micros(i64::try_from(micros).unwrap())
    };
    let mut rows = Rows::default();
    for n in 0..1_500 {
        let status = RunStatus::ALL[n % 3];
        rows.runs.push((
            pay(),
            Run {
                run_id: format!("run-{n}"),
                status,
                reason: None,
                deployment_version: 1 + i64::try_from(n % 2).unwrap(),
                deployment_id: "d".into(),
                response_time_micros: (status == RunStatus::Success)
                    .then_some(i64::try_from(n * 37).unwrap()),
                function: AWKWARD[n % AWKWARD.len()].replace('\0', ""),
                executed_on: time(n),
                finished_at: None,
                source_type: SourceType::Api,
                source: text(n),
                traceparent: None,
            },
        ));
        rows.logs.push((
            pay(),
            LogLine {
                log_id: LogId {
                    stream: 1,
                    offset: i64::try_from(n).unwrap(),
                    index: 0,
                },
                level: LogLevel::ALL[n % LogLevel::ALL.len()],
                message: text(n),
                timestamp: time(n),
                run_id: (n % 2 == 0).then(|| format!("run-{n}")),
                attributes: None,
            },
        ));
    }
    rows
}

async fn files(
    data: &Path,
    store: &Arc<dyn Store>,
    table: Table,
    columns: &[&str],
) -> Vec<std::path::PathBuf> {
    let csv = |compression, bom| Format::Csv { compression, bom };
    let exports = ExportFolder::new(data);
    let mut paths = Vec::new();
    for (name, format) in [
        ("plain", csv(Compression::None, false)),
        ("bom", csv(Compression::None, true)),
        ("gzip", csv(Compression::Gzip, false)),
        ("zstd", csv(Compression::Zstd, true)),
        ("parquet", Format::Parquet),
    ] {
        let key = key(&format!("{}-{name}-{}", table.subresource(), columns.len()));
        let mut plan = plan(table);
        plan.columns = Columns::named(table, columns).unwrap();
        exports
            .write(&key, "uid", plan, format, store.clone(), &|_| {})
            .await
            .unwrap();
        paths.push(exports.find(&key).await.unwrap().unwrap().1);
    }
    paths
}

#[tokio::test]
async fn pandas_and_duckdb_read_the_rows_of_the_api() {
    let data = tempfile::tempdir().unwrap();
    let store = rows().store(&data).await;
    let site = Site::new(store.clone(), data.path());
    for (table, list, further) in [
        (
            Table::Runs,
            "runs",
            [
                "Executed On",
                "Finished On",
                "Reason",
                "Source",
                "Run ID",
                "Response Time",
            ]
            .as_slice(),
        ),
        (
            Table::Logs,
            "logs",
            ["Timestamp", "Log Message", "Run ID", "Log ID"].as_slice(),
        ),
    ] {
        let items = site.items(list, "last=1d").await;
        assert_eq!(items.as_array().unwrap().len(), 1_500);
        let mut all = files(data.path(), &store, table, &[]).await;
        all.extend(files(data.path(), &store, table, further).await);
        read_back(&items, &all);
    }
}

#[tokio::test]
async fn a_text_with_nul_is_read_whole() {
    let data = tempfile::tempdir().unwrap();
    let mut rows = Rows::default();
    for (n, message) in ["a\0b", "\0", "plain, text", "=\0", "\"\0\""]
        .into_iter()
        .enumerate()
    {
        let line = LogLine {
            log_id: LogId {
                stream: 1,
                offset: i64::try_from(n).unwrap(),
                index: 0,
            },
            level: LogLevel::Stdout,
            message: message.into(),
            timestamp: Timestamp::now() - SignedDuration::from_secs(60),
            run_id: None,
            attributes: None,
        };
        rows.logs.push((ScriptKey::new("shop", "pay"), line));
    }
    let store = rows.store(&data).await;
    let items = Site::new(store.clone(), data.path()).items("logs", "").await;
    read_back(&items, &files(data.path(), &store, Table::Logs, &[]).await);
}

/// What Excel opens as text, in columns, and runs nothing of.
#[tokio::test]
async fn a_file_for_excel_has_its_mark_its_line_ends_and_no_formula() {
    let data = tempfile::tempdir().unwrap();
    let store = rows().store(&data).await;
    let paths = files(data.path(), &store, Table::Logs, &[]).await;
    let plain = std::fs::read(&paths[0]).unwrap();
    let marked = std::fs::read(&paths[1]).unwrap();
    assert_eq!(marked.strip_prefix("\u{feff}".as_bytes()), Some(&*plain));
    let (mut is_quoted, mut begins, mut ends) = (false, 0, 0);
    for (at, byte) in plain.iter().enumerate() {
        is_quoted ^= *byte == b'"';
        if *byte == b'\n' && !is_quoted {
            assert_eq!(plain[at - 1], b'\r', "each record ends in CRLF");
            ends += 1;
        }
        // A cell begins after a separator, and perhaps a quote.
        let before = at.checked_sub(1).map(|at| plain[at]);
        if !is_quoted && matches!(before, Some(b',' | b'\n')) {
            begins += 1;
            assert!(!b"=+-@\t".contains(byte), "a formula at byte {at}");
        }
    }
    assert!(ends == 1_501 && begins > 3 * 1_500, "{ends} {begins}");
    let mut reader = csv::Reader::from_reader(&*plain);
    for record in reader.records() {
        for cell in &record.unwrap() {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?}");
        }
    }
}
