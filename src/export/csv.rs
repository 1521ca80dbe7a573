//! Rows as CSV (RFC 4180, UTF-8). Pure.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use jiff::{
    Timestamp,
    fmt::{StdIoWrite, temporal::DateTimePrinter},
};
use serde_json::value::RawValue;

use crate::model::{LogLine, RunDetail};

use super::{
    columns::{Columns, LogColumn, RunColumn},
    record::Record,
    rows::Rows,
};

/// Why a row could not be written.
pub type CsvError = io::Error;

/// What a file begins with by which Excel knows UTF-8.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Bytes of records that are handed on at once.
const BUFFER: usize = 64 << 10;

/// Headings of runs in a file that asks for no columns in particular.
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
/// Headings of log lines in a file that asks for no columns in particular.
pub const LOG_COLUMNS: [&str; 4] = ["Log ID", "Log Level", "Log Message", "Timestamp"];

/// As many decimals in each time, so that whoever guesses a column's form from its first value guesses right.
const TIMES: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Writes the headings.
pub fn header(columns: &Columns, mut out: impl Write) -> Result<(), CsvError> {
    let mut bytes = Vec::new();
    let mut record = Record::begin(&mut bytes);
    for heading in columns.headings() {
        record.text(heading);
    }
    record.end();
    out.write_all(&bytes)
}

/// Writes rows, one a record. Nothing of rows that the columns are not of.
pub fn rows(columns: &Columns, rows: &Rows, mut out: impl Write) -> Result<(), CsvError> {
    let mut bytes = Vec::with_capacity(BUFFER * 2);
    let mut write = |bytes: &mut Vec<u8>, least: usize| {
        if bytes.len() > least {
            out.write_all(bytes)?;
            bytes.clear();
        }
        Ok(())
    };
    match (columns, rows) {
        (Columns::Runs(columns), Rows::Runs(runs)) => {
            for run in runs {
                let mut record = Record::begin(&mut bytes);
                for column in columns {
                    run_cell(run, *column, &mut record);
                }
                record.end();
                write(&mut bytes, BUFFER)?;
            }
        }
        (Columns::Logs(columns), Rows::Lines(lines)) => {
            for line in lines {
                let mut record = Record::begin(&mut bytes);
                for column in columns {
                    line_cell(line, *column, &mut record);
                }
                record.end();
                write(&mut bytes, BUFFER)?;
            }
        }
        _ => {}
    }
    write(&mut bytes, 0)
}

fn run_cell(detail: &RunDetail, column: RunColumn, record: &mut Record<'_>) {
    let run = &detail.run;
    let optional =
        |text: Option<&str>, record: &mut Record<'_>| record.text(&inert(text.unwrap_or_default()));
    match column {
        RunColumn::RunId => record.text(&inert(&run.run_id)),
        RunColumn::Status => record.text(run.status.as_str()),
        RunColumn::DeploymentVersion => record.plain(|out| {
            // Writing to a Vec can not fail.
            let _ = write!(out, "{}", run.deployment_version);
        }),
        RunColumn::ResponseTime => {
            record.text(&run.response_time_micros.map(milliseconds).unwrap_or_default());
        }
        RunColumn::Function => record.text(&inert(&run.function)),
        RunColumn::ExecutedOn => time(record, Some(run.executed_on)),
        RunColumn::SourceType => record.text(run.source_type.as_str()),
        RunColumn::Source => record.text(&inert(&run.source)),
        RunColumn::FinishedOn => time(record, run.finished_at),
        RunColumn::Reason => optional(run.reason.as_deref(), record),
        RunColumn::DeploymentId => record.text(&inert(&run.deployment_id)),
        RunColumn::TraceId => optional(trace_id(detail), record),
        RunColumn::Input => optional(detail.input.as_deref().map(RawValue::get), record),
        RunColumn::Output => optional(detail.output.as_deref().map(RawValue::get), record),
        RunColumn::Error => record.text(&inert(&error_text(detail).unwrap_or_default())),
        RunColumn::Traceback => {
            optional(detail.error.as_ref().and_then(|e| e.traceback.as_deref()), record);
        }
    }
}

fn line_cell(line: &LogLine, column: LogColumn, record: &mut Record<'_>) {
    match column {
        LogColumn::LogId => record.plain(|out| line.log_id.append_to(out)),
        LogColumn::LogLevel => record.text(line.level.as_str()),
        LogColumn::LogMessage => record.text(&inert(&line.message)),
        LogColumn::Timestamp => time(record, Some(line.timestamp)),
        LogColumn::RunId => record.text(&inert(line.run_id.as_deref().unwrap_or_default())),
        LogColumn::Attributes => record.text(&inert(line.attributes.as_deref().unwrap_or_default())),
    }
}

fn time(record: &mut Record<'_>, time: Option<Timestamp>) {
    record.plain(|out| {
        if let Some(time) = time {
            // Writing to a Vec can not fail.
            let _ = TIMES.print_timestamp(&time, StdIoWrite(out));
        }
    });
}

/// The id of the trace of a run's call, 32 hexadecimal digits.
pub fn trace_id(run: &RunDetail) -> Option<&str> {
    run.run.traceparent.as_deref()?.split('-').nth(1)
}

/// Why a run failed: what was raised and what it says.
pub fn error_text(run: &RunDetail) -> Option<Cow<'_, str>> {
    let error = run.error.as_ref()?;
    Some(match &error.kind {
        Some(kind) => Cow::Owned(format!("{kind}: {}", error.message)),
        None => Cow::Borrowed(&error.message),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::Table,
        model::{LogId, LogLevel, Run, RunError, RunStatus, SourceType},
    };

    fn run(id: &str, micros: Option<i64>) -> RunDetail {
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
        .into()
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

    fn heading(table: Table) -> String {
        let mut out = Vec::new();
        header(&Columns::of(table), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn with(columns: &Columns, of: &Rows) -> String {
        let mut out = Vec::new();
        rows(columns, of, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn runs(of: Vec<RunDetail>) -> String {
        with(&Columns::of(Table::Runs), &Rows::Runs(of))
    }

    fn lines(of: Vec<LogLine>) -> String {
        with(&Columns::of(Table::Logs), &Rows::Lines(of))
    }

    #[test]
    fn files_have_the_promised_columns() {
        assert_eq!(
            heading(Table::Runs),
            "Run ID,Status,Deployment Version,Response Time,Function,Executed On,Source Type,Source\r\n"
        );
        assert_eq!(Columns::of(Table::Runs).headings(), RUN_COLUMNS);
        assert_eq!(heading(Table::Logs), "Log ID,Log Level,Log Message,Timestamp\r\n");
        assert_eq!(Columns::of(Table::Logs).headings(), LOG_COLUMNS);
        assert_eq!(
            runs(vec![run("r1", Some(12_345)), run("r2", None)]),
            "r1,Success,3,12.345,check,2025-05-14T06:07:27.238927Z,API,billing\r\n\
             r2,Success,3,,check,2025-05-14T06:07:27.238927Z,API,billing\r\n"
        );
        assert_eq!(
            lines(vec![line("hello")]),
            "1-ff-0,Info,hello,2025-05-14T06:07:27.000000Z\r\n"
        );
    }

    #[test]
    fn further_columns_say_what_went_in_and_what_came_out() {
        let columns = Columns::named(
            Table::Runs,
            &[
                "Run ID",
                "Finished On",
                "Reason",
                "Trace ID",
                "Input",
                "Error",
                "Traceback",
            ],
        )
        .unwrap();
        let mut failed = run("r1", None);
        failed.run.finished_at = Some("2025-05-14T06:07:28Z".parse().unwrap());
        failed.run.reason = Some("Exception".into());
        failed.run.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        failed.input = RawValue::from_string("{\"n\": 1}".into()).ok();
        failed.error = Some(RunError {
            reason: "Exception".into(),
            kind: Some("ValueError".into()),
            message: "negative".into(),
            traceback: Some("one\ntwo".into()),
        });
        assert_eq!(
            with(&columns, &Rows::Runs(vec![failed, run("r2", None)])),
            "r1,2025-05-14T06:07:28.000000Z,Exception,0af7651916cd43dd8448eb211c80319c,\"{\"\"n\"\": 1}\",\
             ValueError: negative,\"one\ntwo\"\r\nr2,,,,,,\r\n"
        );
        let columns = Columns::named(Table::Logs, &["Attributes", "Run ID"]).unwrap();
        let mut of_run = line("x");
        of_run.run_id = Some("=r".into());
        assert_eq!(with(&columns, &Rows::Lines(vec![of_run])), ",'=r\r\n");
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
        ];
        let written = lines(messages.map(line).into());
        let mut reader = ::csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(written.as_bytes());
        let read: Vec<String> = reader
            .records()
            .map(|record| record.unwrap()[2].to_owned())
            .collect();
        assert_eq!(read, messages);
        assert!(written.contains("\"say \"\"hi\"\"\""));
    }

    #[test]
    fn no_cell_is_a_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"] {
            assert_eq!(inert(formula), format!("'{formula}"));
        }
        assert_eq!(inert("1-1"), "1-1");
        let mut evil = run("=r", Some(1));
        (evil.run.function, evil.run.source) = ("@f".into(), "=HYPERLINK(\"x\",\"y\")".into());
        let written = runs(vec![evil]);
        assert!(written.starts_with("'=r,"), "{written}");
        assert!(written.contains(",'@f,"), "{written}");
        assert!(
            written.ends_with(",\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"\r\n"),
            "{written}"
        );
        assert!(lines(vec![line("=cmd()")]).contains(",'=cmd(),"));
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
