//! `runs`: the runs of a script. `run`: one of them with everything.

use serde_json::Value;

use super::{
    Verbs,
    api::{encoded, script_path},
    args::{Format, Place, Shape, Which},
    error::CliError,
    filter::Table,
    logs,
    output::{Cell, Columns, Out, colour_of, plain, plain_lines},
    rows::{Rows, exported_time, micros, number, text, time},
};
use crate::export::csv::{RUN_COLUMNS, milliseconds};

/// Lines of a run that are shown with it.
const LINES: usize = 1_000;

/// Arguments of `runs`.
#[derive(clap::Args, Clone, Debug)]
pub struct RunsArgs {
    /// The script.
    pub script: String,
    /// At most so many, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = super::at_most::<100_000>)]
    pub limit: usize,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `run`.
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// The script.
    pub script: String,
    /// The run's id.
    pub run_id: String,
    /// As a text for people, or as JSON.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    pub output: String,
    #[command(flatten)]
    place: Place,
}

/// Shows runs.
pub async fn runs(args: RunsArgs) -> Result<(), CliError> {
    let query = args.which.query(Table::Runs)?;
    let verbs = Verbs::new(args.place).await?;
    let path = format!("{}/runs", script_path(&verbs.namespace, &args.script));
    let rows = Rows::get(&verbs.api, &path, &query, args.limit).await?;
    let mut out = Out::default();
    match args.shape.output {
        Format::Json => return Ok(out.json(&rows.json())?),
        Format::Csv => {
            let mut columns = Columns::new(&RUN_COLUMNS);
            rows.items.iter().for_each(|run| columns.push(exported(run)));
            out.bytes(
                &columns
                    .csv(!args.shape.no_headers)
                    .map_err(std::io::Error::from)?,
            )?;
            out.flush()?;
        }
        Format::Table => {
            let mut columns = Columns::new(&RUN_COLUMNS);
            rows.items.iter().for_each(|run| columns.push(shown(run)));
            if columns.is_empty() {
                anstream::eprintln!("no runs of {} in this range and filter", plain(&args.script));
            } else {
                out.bytes(columns.text(!args.shape.no_headers, out.colours()).as_bytes())?;
                out.flush()?;
            }
        }
    }
    rows.tell_more();
    Ok(())
}

fn shown(run: &Value) -> [Cell; 8] {
    let status = text(run, "status");
    let said = match text(run, "reason") {
        "" => status.to_owned(),
        reason => format!("{status} ({reason})"),
    };
    [
        text(run, "runId").into(),
        Cell::new(said).coloured(colour_of(status)),
        number(run, "deploymentVersion").into(),
        micros(run, "responseTimeMicros").into(),
        text(run, "function").into(),
        time(run, "executedOn").into(),
        text(run, "sourceType").into(),
        text(run, "source").into(),
    ]
}

/// As in an exported file.
fn exported(run: &Value) -> [Cell; 8] {
    let response = run["responseTimeMicros"].as_i64().map(milliseconds);
    [
        text(run, "runId").into(),
        text(run, "status").into(),
        number(run, "deploymentVersion").into(),
        response.unwrap_or_default().into(),
        text(run, "function").into(),
        exported_time(run, "executedOn").into(),
        text(run, "sourceType").into(),
        text(run, "source").into(),
    ]
}

/// Shows one run.
pub async fn run(args: RunArgs) -> Result<(), CliError> {
    let verbs = Verbs::new(args.place).await?;
    let script = script_path(&verbs.namespace, &args.script);
    let path = format!("{script}/runs/{}", encoded(&args.run_id));
    let run = verbs.api.json(&path, &[]).await?;
    let mut out = Out::default();
    if args.output == "json" {
        return Ok(out.json(&run)?);
    }
    out.bytes(facts(&run, out.colours()).as_bytes())?;
    let logs = Rows::get(&verbs.api, &format!("{path}/logs"), &[], LINES).await;
    match logs {
        Ok(logs) => {
            if !logs.items.is_empty() {
                out.text("\nLogs")?;
            }
            for line in logs.items.iter().rev() {
                out.text(&logs::line_text(line, out.colours(), false))?;
            }
            logs.tell_more();
        }
        // Runs and logs are separate rights.
        Err(CliError::Operator {
            status: 403, message, ..
        }) => {
            anstream::eprintln!("its logs are not shown: {message}");
        }
        Err(error) => return Err(error),
    }
    Ok(out.flush()?)
}

fn facts(run: &Value, colours: bool) -> String {
    let mut facts = Columns::new(&["", ""]);
    let status = text(run, "status");
    let mut fact = |name: &'static str, value: Cell| {
        if value != Cell::default() {
            facts.push([Cell::from(name), value]);
        }
    };
    fact("Run ID", text(run, "runId").into());
    fact("Status", Cell::from(status).coloured(colour_of(status)));
    fact("Reason", text(run, "reason").into());
    fact("Deployment Version", number(run, "deploymentVersion").into());
    fact("Response Time", micros(run, "responseTimeMicros").into());
    fact("Function", text(run, "function").into());
    fact("Executed On", text(run, "executedOn").into());
    fact("Finished", text(run, "finishedAt").into());
    fact("Source Type", text(run, "sourceType").into());
    fact("Source", text(run, "source").into());
    fact("Trace", text(run, "traceparent").into());
    let mut all = facts.text(false, colours);
    for (name, key) in [("Input", "input"), ("Output", "output")] {
        if !run[key].is_null() {
            let json = serde_json::to_string_pretty(&run[key]).unwrap_or_default();
            all += ["\n", name, "\n", &plain_lines(&json), "\n"].concat().as_str();
        }
    }
    let error = &run["error"];
    if !error.is_null() {
        let kind = match text(error, "type") {
            "" => String::new(),
            kind => format!("{kind}: "),
        };
        let message = plain_lines(text(error, "message"));
        all += ["\nError\n", &plain(&kind), &message, "\n"].concat().as_str();
        if !text(error, "traceback").is_empty() {
            all += plain_lines(text(error, "traceback").trim_end()).as_str();
            all.push('\n');
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_shown_with_what_it_has() {
        let run = json!({"runId": "r1", "status": "Failed", "reason": "Exception", "deploymentVersion": 3,
            "responseTimeMicros": null, "function": "f", "executedOn": "2026-01-02T03:04:05.6789Z", "sourceType": "Test",
            "source": "\u{1b}[2Jme", "input": {"a": 1},
            "error": {"type": "ValueError", "message": "no\nluck", "traceback": "File 1\n"}});
        let text = facts(&run, false);
        assert!(text.contains("Reason               Exception\n"), "{text}");
        assert!(
            !text.contains("Response Time") && !text.contains("Output"),
            "{text}"
        );
        assert!(
            text.ends_with("\nError\nValueError: no\nluck\nFile 1\n"),
            "{text}"
        );
        assert!(
            text.contains("\\u{1b}[2Jme") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert_eq!(
            shown(&run)[1],
            Cell::from("Failed (Exception)").coloured(colour_of("Failed"))
        );
        assert_eq!(shown(&run)[5], Cell::from("2026-01-02T03:04:05.678Z"));
        assert_eq!(exported(&run)[5], Cell::from("2026-01-02T03:04:05.678900Z"));
    }
}
