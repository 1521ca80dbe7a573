//! `versions`: the history of a script's deployments.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Verbs,
    api::script_path,
    args::{Format, Place, Shape},
    error::CliError,
    output::{Cell, Columns, Out, colour_of},
    rows::{number, text, time},
};
use crate::operator::custom_script::display::duration;

/// Arguments of `versions`.
#[derive(clap::Args, Clone, Debug)]
pub struct VersionsArgs {
    /// The script.
    pub script: String,
    /// At most so many, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = super::at_most::<100>)]
    limit: usize,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    place: Place,
}

/// Shows versions.
pub async fn versions(args: VersionsArgs) -> Result<(), CliError> {
    let verbs = Verbs::new(args.place).await?;
    let path = format!("{}/deployments", script_path(&verbs.namespace, &args.script));
    let json = verbs
        .api
        .json(&path, &[("limit", args.limit.to_string())])
        .await?;
    let mut out = Out::default();
    if args.shape.output == Format::Json {
        return Ok(out.json(&json)?);
    }
    let mut columns = Columns::new(&[
        "Version",
        "State",
        "Started",
        "Deployed in",
        "Served for",
        "Changed by",
        "Reason",
    ]);
    let now = Timestamp::now();
    for version in json["items"].as_array().into_iter().flatten() {
        columns.push(shown(version, now));
    }
    if args.shape.output == Format::Csv {
        let text = columns
            .csv(!args.shape.no_headers)
            .map_err(std::io::Error::from)?;
        out.bytes(&text)?;
    } else if columns.is_empty() {
        anstream::eprintln!("{} was never deployed", args.script);
    } else {
        out.bytes(columns.text(!args.shape.no_headers, out.colours()).as_bytes())?;
    }
    Ok(out.flush()?)
}

fn shown(version: &Value, now: Timestamp) -> [Cell; 7] {
    let state = text(version, "state");
    let at = |key: &str| text(version, key).parse::<Timestamp>().ok();
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
        let length = Duration::try_from(to?.duration_since(from?)).ok()?;
        Some(duration(i64::try_from(length.as_micros()).ok()?))
    };
    let (started, deployed) = (at("startedAt"), at("deployedAt"));
    [
        number(version, "version").into(),
        Cell::from(state).coloured(colour_of(state)),
        time(version, "startedAt").into(),
        between(started, deployed).unwrap_or_default().into(),
        between(deployed, at("endedAt").or(Some(now)))
            .unwrap_or_default()
            .into(),
        text(version, "changedBy").into(),
        text(version, "reason").into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_says_how_long_it_took_and_served() {
        let version = json!({"version": 2, "state": "Deployed", "startedAt": "2026-01-01T00:00:00Z",
            "deployedAt": "2026-01-01T00:00:04.5Z", "endedAt": null, "changedBy": "kubectl-edit", "reason": null});
        let cells = shown(&version, "2026-01-01T01:00:04.5Z".parse().unwrap());
        assert_eq!(cells[3..6], ["4.50 s", "1h 00m", "kubectl-edit"].map(Cell::from));
        let failed = json!({"version": 3, "state": "Failed", "startedAt": "2026-01-01T00:00:00Z", "reason": "no image"});
        let cells = shown(&failed, "2026-01-01T01:00:00Z".parse().unwrap());
        assert_eq!(cells[3..5], ["", ""].map(Cell::from));
    }
}
