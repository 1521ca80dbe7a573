//! `stats`: the figures of scripts.

use serde_json::Value;

use super::{
    Verbs,
    api::script_path,
    args::{Format, Place, Shape, Which},
    error::CliError,
    filter::Table,
    output::{Cell, Columns, Out, colour_of, plain},
    rows::{micros, number, text, time},
};
use crate::operator::custom_script::display::rate;

/// Arguments of `stats`.
#[derive(clap::Args, Clone, Debug)]
pub struct StatsArgs {
    /// The script. Default: all of the namespace.
    pub script: Option<String>,
    /// All scripts of all namespaces that you may see.
    #[arg(short = 'A', long, conflicts_with_all = ["script", "namespace"])]
    pub all_namespaces: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    place: Place,
}

const FIGURES: [&str; 9] = [
    "Runs",
    "Succeeded",
    "Failed",
    "In Progress",
    "Failure%",
    "P50",
    "P90",
    "P99",
    "Logs",
];

/// Shows figures.
pub async fn stats(args: StatsArgs) -> Result<(), CliError> {
    let query = args.which.query(Table::Runs)?;
    if args.script.is_none() && !args.which.is_all() {
        return Err(CliError::Usage(
            "--last, --from, --to and --filter need a script; without them the figures are those of the whole life".to_owned(),
        ));
    }
    let verbs = Verbs::new(args.place).await?;
    match &args.script {
        None => {
            let namespace = (!args.all_namespaces).then_some(verbs.namespace.as_str());
            let json = all(&verbs, namespace).await?;
            let columns = of_scripts(&json);
            print(args.shape, &json, &columns, "no scripts here that you may see")
        }
        Some(script) if args.which.is_all() => {
            let json = verbs
                .api
                .json(&script_path(&verbs.namespace, script), &[])
                .await?;
            print(args.shape, &json, &by_version(&json), "")
        }
        Some(script) => {
            let path = format!("{}/figures", script_path(&verbs.namespace, script));
            let json = verbs.api.json(&path, &query).await?;
            let mut columns = Columns::new(&FIGURES);
            columns.push(figures(&json["figures"]));
            print(args.shape, &json, &columns, "")?;
            if args.shape.output == Format::Table {
                let end = match text(&json["range"], "to") {
                    "" => "now",
                    to => to,
                };
                anstream::eprintln!("from {} to {}", plain(text(&json["range"], "from")), plain(end));
            }
            Ok(())
        }
    }
}

/// All scripts, through all pages.
async fn all(verbs: &Verbs, namespace: Option<&str>) -> Result<Value, CliError> {
    let mut query = Vec::new();
    query.extend(namespace.map(|namespace| ("namespace", namespace.to_owned())));
    let mut all: Option<Value> = None;
    loop {
        let mut page = verbs.api.json("/api/v1/scripts", &query).await?;
        let next = page["continue"].as_str().map(str::to_owned);
        match (&mut all, page["items"].take()) {
            (Some(all), Value::Array(items)) => {
                if let Some(scripts) = all["items"].as_array_mut() {
                    scripts.extend(items);
                }
            }
            (None, items) => all = Some(serde_json::json!({ "items": items })),
            _ => {}
        }
        let Some(next) = next else { break };
        query.retain(|(key, _)| *key != "continue");
        query.push(("continue", next));
    }
    Ok(all.unwrap_or_default())
}

fn print(shape: Shape, json: &Value, columns: &Columns, nothing: &str) -> Result<(), CliError> {
    let mut out = Out::default();
    match shape.output {
        Format::Json => out.json(json)?,
        Format::Csv => out.bytes(&columns.csv(!shape.no_headers).map_err(std::io::Error::from)?)?,
        Format::Table if columns.is_empty() => anstream::eprintln!("{nothing}"),
        Format::Table => out.bytes(columns.text(!shape.no_headers, out.colours()).as_bytes())?,
    }
    Ok(out.flush()?)
}

fn figures(figures: &Value) -> Vec<Cell> {
    let basis_points = figures["failureRateBasisPoints"].as_i64();
    vec![
        number(figures, "totalRuns").into(),
        number(figures, "succeededRuns").into(),
        number(figures, "failedRuns").into(),
        number(figures, "inProgressRuns").into(),
        basis_points.map(rate).unwrap_or_default().into(),
        micros(figures, "p50Microseconds").into(),
        micros(figures, "p90Microseconds").into(),
        micros(figures, "p99Microseconds").into(),
        number(figures, "totalLogs").into(),
    ]
}

fn of_scripts(json: &Value) -> Columns {
    let mut headings = vec!["Namespace", "Name", "Phase", "Version"];
    headings.extend(FIGURES);
    headings.push("Last Run");
    let mut columns = Columns::new(&headings);
    for script in json["items"].as_array().into_iter().flatten() {
        let phase = text(script, "phase");
        // Its data outlives the object.
        let phase = if script["exists"] == false {
            "Deleted"
        } else {
            phase
        };
        let mut row: Vec<Cell> = vec![
            text(script, "namespace").into(),
            text(script, "name").into(),
            Cell::from(phase).coloured(colour_of(phase)),
            number(script, "version").into(),
        ];
        row.extend(figures(&script["figures"]));
        row.push(time(&script["figures"], "lastRunTime").into());
        columns.push(row);
    }
    columns
}

/// The whole life, then version by version.
fn by_version(json: &Value) -> Columns {
    let mut headings = vec!["Version"];
    headings.extend(FIGURES);
    let mut columns = Columns::new(&headings);
    let mut row = |name: String, of: &Value| {
        let mut row = vec![Cell::from(name)];
        row.extend(figures(of));
        columns.push(row);
    };
    row("all".to_owned(), &json["figures"]);
    for version in json["byVersion"].as_array().into_iter().flatten() {
        row(number(version, "version"), version);
    }
    columns
}
