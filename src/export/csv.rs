//! Rows as CSV (RFC 4180, UTF-8). Pure.

use std::borrow::Cow;

use crate::model::{LogLine, Run};

use super::Table;

/// Why a row could not be written.
pub type CsvError = ::csv::Error;

/// Headings of runs.
pub const RUN_COLUMNS: [&str; 8] = [
    "Run ID",
    "Status",
    "Deployment Version",
    "Response Time",
    "Function",
    "Executed On",
    "Source Type",
    "Source",
];
/// Headings of log lines.
pub const LOG_COLUMNS: [&str; 4] = ["Log ID", "Log Level", "Log Message", "Timestamp"];

/// The heading line of a file.
pub fn header(table: Table) -> Result<Vec<u8>, CsvError> {
    match table {
        Table::Runs => records([RUN_COLUMNS.map(Cow::Borrowed)]),
        Table::Logs => records([LOG_COLUMNS.map(Cow::Borrowed)]),
    }
}

/// Runs, one a record.
pub fn runs(rows: &[Run]) -> Result<Vec<u8>, CsvError> {
    records(rows.iter().map(|run| {
        [
            inert(&run.run_id),
            run.status.as_str().into(),
            run.deployment_version.to_string().into(),
            run.response_time_micros
                .map(milliseconds)
                .unwrap_or_default()
                .into(),
            inert(&run.function),
            run.executed_on.to_string().into(),
            run.source_type.as_str().into(),
            inert(&run.source),
        ]
    }))
}

/// Log lines, one a record.
pub fn log_lines(rows: &[LogLine]) -> Result<Vec<u8>, CsvError> {
    records(rows.iter().map(|line| {
        [
            line.log_id.to_string().into(),
            line.level.as_str().into(),
            inert(&line.message),
            line.timestamp.to_string().into(),
        ]
    }))
}

/// Microseconds as milliseconds with as many decimals as needed, three at most.
pub fn milliseconds(micros: i64) -> String {
    let text = format!("{}.{:03}", micros / 1_000, micros % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that no spreadsheet takes for a formula: an apostrophe goes before what one could begin with.
pub fn inert(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn records<'a, const N: usize>(
    rows: impl IntoIterator<Item = [Cow<'a, str>; N]>,
) -> Result<Vec<u8>, CsvError> {
    let mut writer = ::csv::WriterBuilder::new()
        .terminator(::csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for row in rows {
        writer.write_record(row.iter().map(|cell| cell.as_bytes()))?;
    }
    writer.into_inner().map_err(|e| e.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogId, LogLevel, RunStatus, SourceType};

    fn run(id: &str, micros: Option<i64>) -> Run {
        Run {
            run_id: id.into(),
            status: RunStatus::Success,
            reason: None,
            deployment_version: 3,
            deployment_id: "d".into(),
            response_time_micros: micros,
            function: "check".into(),
            executed_on: "2025-05-14T06:07:27.238927Z".parse().unwrap(),
            finished_at: None,
            source_type: SourceType::Api,
            source: "billing".into(),
            traceparent: None,
        }
    }

    fn line(message: &str) -> LogLine {
        LogLine {
            log_id: LogId {
                stream: 1,
                offset: 255,
                index: 0,
            },
            level: LogLevel::Info,
            message: message.into(),
            timestamp: "2025-05-14T06:07:27Z".parse().unwrap(),
            run_id: None,
            attributes: None,
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn files_have_the_promised_columns() {
        assert_eq!(
            text(header(Table::Runs).unwrap()),
            "Run ID,Status,Deployment Version,Response Time,Function,Executed On,Source Type,Source\r\n"
        );
        assert_eq!(
            text(header(Table::Logs).unwrap()),
            "Log ID,Log Level,Log Message,Timestamp\r\n"
        );
        assert_eq!(
            text(runs(&[run("r1", Some(12_345)), run("r2", None)]).unwrap()),
            "r1,Success,3,12.345,check,2025-05-14T06:07:27.238927Z,API,billing\r\n\
             r2,Success,3,,check,2025-05-14T06:07:27.238927Z,API,billing\r\n"
        );
        assert_eq!(
            text(log_lines(&[line("hello")]).unwrap()),
            "1-ff-0,Info,hello,2025-05-14T06:07:27Z\r\n"
        );
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let messages = [
            "a,b",
            "say \"hi\"",
            "two\nlines",
            "dos\r\nlines",
            "",
            " spaces ",
            "привет 日本 🎉",
            "a=b",
            "nul\0",
        ];
        let written = log_lines(&messages.map(line)).unwrap();
        let mut reader = ::csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(&written[..]);
        let read: Vec<String> = reader
            .records()
            .map(|record| record.unwrap()[2].to_owned())
            .collect();
        assert_eq!(read, messages);
        assert!(text(written).contains("\"say \"\"hi\"\"\""));
    }

    #[test]
    fn no_cell_is_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"] {
            assert_eq!(inert(formula), format!("'{formula}"));
        }
        assert_eq!(inert("1-1"), "1-1");
        let mut evil = run("=r", Some(1));
        (evil.function, evil.source) = ("@f".into(), "=HYPERLINK(\"x\",\"y\")".into());
        let written = text(runs(&[evil]).unwrap());
        assert!(written.starts_with("'=r,"), "{written}");
        assert!(written.contains(",'@f,"), "{written}");
        assert!(
            written.ends_with(",\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"\r\n"),
            "{written}"
        );
        assert!(text(log_lines(&[line("=cmd()")]).unwrap()).contains(",'=cmd(),"));
    }

    #[test]
    fn milliseconds_are_exact_and_short() {
        for (micros, expected) in [
            (0, "0"),
            (1, "0.001"),
            (500, "0.5"),
            (12_000, "12"),
            (100_000, "100"),
            (1_234_567, "1234.567"),
        ] {
            assert_eq!(milliseconds(micros), expected);
        }
    }
}
