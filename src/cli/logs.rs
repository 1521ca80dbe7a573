//! `logs`: what a script printed, and with `-f` what it prints.

use serde_json::Value;

use super::{
    Verbs,
    api::script_path,
    args::{Format, Place, Shape, Which},
    error::CliError,
    filter::Table,
    follow,
    output::{Cell, Columns, Out, colour_of, plain},
    rows::{Rows, exported_time, text, time},
};
use crate::{export::csv::LOG_COLUMNS, model::LogLevel};

/// Arguments of `logs`.
#[derive(clap::Args, Clone, Debug)]
pub struct LogsArgs {
    /// The script.
    pub script: String,
    /// Go on with lines as they come, until interrupted.
    #[arg(short, long, conflicts_with = "to")]
    pub follow: bool,
    /// At most so many lines, the newest. Default: 200; with --follow, 10 before the new ones.
    #[arg(long, visible_alias = "tail", value_name = "COUNT", value_parser = super::at_most::<100_000>)]
    pub limit: Option<usize>,
    /// Only lines of this run.
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Only lines of these levels: Stdout, Stderr, Info, Debug, Warning, Error.
    #[arg(long, value_delimiter = ',', value_name = "LEVEL")]
    pub level: Vec<LogLevel>,
    /// Only lines with this text in them, upper and lower case alike.
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    place: Place,
}

/// Shows log lines, the oldest first.
pub async fn logs(args: LogsArgs) -> Result<(), CliError> {
    let mut query = args.which.query(Table::Logs)?;
    query.extend(args.run.map(|run| ("run", run)));
    query.extend(args.search.map(|text| ("search", text)));
    query.extend(args.level.iter().map(|level| ("level", level.to_string())));
    let verbs = Verbs::new(args.place).await?;
    let path = format!("{}/logs", script_path(&verbs.namespace, &args.script));
    let mut printer = Printer {
        out: Out::default(),
        shape: args.shape,
    };
    if args.follow {
        return follow::follow(&verbs.api, &path, &query, args.limit.unwrap_or(10), &mut printer).await;
    }
    let rows = Rows::get(&verbs.api, &path, &query, args.limit.unwrap_or(200)).await?;
    if args.shape.output == Format::Json {
        let mut json = rows.json();
        json["gaps"] = rows.page["gaps"].clone();
        return Ok(printer.out.json(&json)?);
    }
    if rows.items.is_empty() {
        anstream::eprintln!("no lines of {} in this range and filter", plain(&args.script));
    }
    printer.begin()?;
    for line in rows.items.iter().rev() {
        printer.line(line)?;
    }
    printer.out.flush()?;
    for gap in rows.page["gaps"].as_array().into_iter().flatten() {
        anstream::eprintln!(
            "about {}: at least {} bytes of pod {} could not be read ({})",
            plain(text(gap, "time")),
            gap["bytes"].as_u64().unwrap_or_default(),
            plain(text(gap, "pod")),
            plain(text(gap, "reason")),
        );
    }
    rows.tell_more();
    Ok(())
}

/// Writes lines as they come.
pub struct Printer {
    /// Where to.
    pub out: Out,
    /// How.
    pub shape: Shape,
}

impl Printer {
    /// What stands above all lines.
    pub fn begin(&mut self) -> Result<(), CliError> {
        if self.shape.output == Format::Csv && !self.shape.no_headers {
            let headings = Columns::new(&LOG_COLUMNS)
                .csv(true)
                .map_err(std::io::Error::from)?;
            self.out.bytes(&headings)?;
        }
        Ok(())
    }

    /// One line.
    pub fn line(&mut self, line: &Value) -> Result<(), CliError> {
        let mut bytes = match self.shape.output {
            Format::Table => line_text(line, self.out.colours(), true).into_bytes(),
            Format::Json => line.to_string().into_bytes(),
            Format::Csv => {
                let mut columns = Columns::new(&LOG_COLUMNS);
                let [id, level, message] =
                    ["logId", "level", "message"].map(|key| Cell::from(text(line, key)));
                columns.push([id, level, message, exported_time(line, "timestamp").into()]);
                let record = columns.csv(false).map_err(std::io::Error::from)?;
                return Ok(self.out.bytes(&record)?);
            }
        };
        bytes.push(b'\n');
        Ok(self.out.bytes(&bytes)?)
    }
}

/// A line for people: when, level, run, message.
pub fn line_text(line: &Value, colours: bool, with_run: bool) -> String {
    let mut columns = Columns::new(&["", "", "", ""]);
    let level = text(line, "level");
    let mut row = vec![
        Cell::new(time(line, "timestamp")),
        Cell::new(format!("{level:<7}")).coloured(colour_of(level)),
    ];
    if with_run {
        let run = match text(line, "runId") {
            "" => "-",
            run => run,
        };
        row.push(Cell::from(run).coloured(colour_of("Debug")));
    }
    row.push(Cell::from(text(line, "message")));
    columns.push(row);
    columns.text(false, colours).trim_end_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_when_how_bad_whose_and_what() {
        let line = json!({"logId": "1-2-0", "level": "Info", "message": "a\u{1b}]0;x\u{7}b",
            "timestamp": "2026-01-02T03:04:05.000006Z", "runId": null});
        assert_eq!(
            line_text(&line, false, true),
            "2026-01-02T03:04:05.000Z   Info      -   a\\u{1b}]0;x\\u{7}b"
        );
    }
}
