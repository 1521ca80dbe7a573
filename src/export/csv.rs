//! Rows as CSV (RFC 4180, UTF-8). Pure.

use std::{borrow::Cow, fmt::Write as _, io::Write};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde_json::value::RawValue;

use crate::model::{LogLine, RunDetail};

use super::{
    columns::{Columns, LogColumn, RunColumn},
    rows::Rows,
};

/// Why a row could not be written.
pub type CsvError = ::csv::Error;

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
pub fn header(columns: &Columns, out: impl Write) -> Result<(), CsvError> {
    let mut writer = writer(out);
    writer.write_record(columns.headings())?;
    Ok(writer.flush()?)
}

/// Writes rows, one a record. Nothing of rows that the columns are not of.
pub fn rows(columns: &Columns, rows: &Rows, out: impl Write) -> Result<(), CsvError> {
    let mut writer = writer(out);
    let mut cell = String::new();
    match (columns, rows) {
        (Columns::Runs(columns), Rows::Runs(runs)) => {
            for run in runs {
                for column in columns {
                    cell.clear();
                    writer.write_field(&*run_cell(run, *column, &mut cell))?;
                }
                writer.write_record(None::<&[u8]>)?;
            }
        }
        (Columns::Logs(columns), Rows::Lines(lines)) => {
            for line in lines {
                for column in columns {
                    cell.clear();
                    writer.write_field(&*line_cell(line, *column, &mut cell))?;
                }
                writer.write_record(None::<&[u8]>)?;
            }
        }
        _ => {}
    }
    Ok(writer.flush()?)
}

fn writer<W: Write>(out: W) -> ::csv::Writer<W> {
    ::csv::WriterBuilder::new()
        .terminator(::csv::Terminator::CRLF)
        .buffer_capacity(BUFFER)
        .from_writer(out)
}

/// A cell of a run; `cell` is empty and takes what has to be written out.
fn run_cell<'a>(detail: &'a RunDetail, column: RunColumn, cell: &'a mut String) -> Cow<'a, str> {
    let run = &detail.run;
    let text = |text: Option<&'a str>| text.map_or(Cow::Borrowed(""), inert);
    match column {
        RunColumn::RunId => inert(&run.run_id),
        RunColumn::Status => run.status.as_str().into(),
        RunColumn::DeploymentVersion => number(cell, run.deployment_version),
        RunColumn::ResponseTime => run
            .response_time_micros
            .map(milliseconds)
            .unwrap_or_default()
            .into(),
        RunColumn::Function => inert(&run.function),
        RunColumn::ExecutedOn => time(cell, Some(run.executed_on)),
        RunColumn::SourceType => run.source_type.as_str().into(),
        RunColumn::Source => inert(&run.source),
        RunColumn::FinishedOn => time(cell, run.finished_at),
        RunColumn::Reason => text(run.reason.as_deref()),
        RunColumn::DeploymentId => inert(&run.deployment_id),
        RunColumn::TraceId => text(trace_id(detail)),
        RunColumn::Input => text(detail.input.as_deref().map(RawValue::get)),
        RunColumn::Output => text(detail.output.as_deref().map(RawValue::get)),
        RunColumn::Error => error_text(detail).map_or(Cow::Borrowed(""), |text| match text {
            Cow::Borrowed(text) => inert(text),
            Cow::Owned(text) => Cow::Owned(inert(&text).into_owned()),
        }),
        RunColumn::Traceback => text(detail.error.as_ref().and_then(|e| e.traceback.as_deref())),
    }
}

fn line_cell<'a>(line: &'a LogLine, column: LogColumn, cell: &'a mut String) -> Cow<'a, str> {
    match column {
        LogColumn::LogId => number(cell, line.log_id),
        LogColumn::LogLevel => line.level.as_str().into(),
        LogColumn::LogMessage => inert(&line.message),
        LogColumn::Timestamp => time(cell, Some(line.timestamp)),
        LogColumn::RunId => inert(line.run_id.as_deref().unwrap_or_default()),
        LogColumn::Attributes => inert(line.attributes.as_deref().unwrap_or_default()),
    }
}

fn number(cell: &mut String, number: impl std::fmt::Display) -> Cow<'_, str> {
    // Writing to a String can not fail.
    let _ = write!(cell, "{number}");
    Cow::Borrowed(cell)
}

fn time(cell: &mut String, time: Option<Timestamp>) -> Cow<'_, str> {
    if let Some(time) = time {
        let _ = TIMES.print_timestamp(&time, &mut *cell);
    }
    Cow::Borrowed(cell)
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
            "nul\0",
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
