//! `versions`: the history of a script's deployments, and one version with what it changed.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::{
    Verbs,
    api::script_path,
    args::{Format, Place, Shape},
    error::CliError,
    output::{Cell, Columns, Out, colour_of, plain},
    rows::{micros, number, text, time},
};
use crate::operator::custom_script::display::duration;

/// Lines around a change that are shown with it.
const AROUND: usize = 3;
/// A comparison that takes longer shows more lines as changed than there are.
const LONGEST_DIFF: Duration = Duration::from_secs(2);

/// Arguments of `versions`.
#[derive(clap::Args, Clone, Debug)]
pub struct VersionsArgs {
    /// The script.
    pub script: String,
    /// One version: what it changed, with the source's lines, which needs get on customscripts.
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    pub version: Option<i64>,
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
    if let Some(version) = args.version {
        return one(&verbs, &path, version, &args.shape).await;
    }
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
        "Change",
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

fn shown(version: &Value, now: Timestamp) -> [Cell; 8] {
    let state = text(version, "state");
    [
        number(version, "version").into(),
        Cell::from(state).coloured(colour_of(state)),
        time(version, "startedAt").into(),
        micros(version, "durationMicros").into(),
        served(version, now).into(),
        author(version).into(),
        change(&version["change"]).into(),
        text(version, "reason").into(),
    ]
}

fn served(version: &Value, now: Timestamp) -> String {
    let at = |key: &str| text(version, key).parse::<Timestamp>().ok();
    let length = at("deployedAt").map(|from| at("endedAt").unwrap_or(now).duration_since(from));
    let micros = length.and_then(|length| i64::try_from(length.as_micros()).ok());
    micros.map(duration).unwrap_or_default()
}

/// Who asked for a version: the manager of fields, and the user that a command says it was run by.
fn author(version: &Value) -> String {
    let manager = text(version, "changedBy");
    match version["change"]["claimedBy"].as_str() {
        Some(user) if manager.is_empty() => format!("{user} (claimed)"),
        Some(user) => format!("{user} (claimed, by {manager})"),
        None => manager.to_owned(),
    }
}

fn change(change: &Value) -> String {
    let cause = text(change, "cause");
    let fields = change["fields"].as_array().into_iter().flatten();
    let mut fields: Vec<String> = fields.filter_map(Value::as_str).map(str::to_owned).collect();
    if let Some(more) = change["moreFields"].as_i64() {
        fields.push(format!("and {more} more"));
    }
    match (cause, &fields[..]) {
        (_, []) => cause.to_owned(),
        ("spec changed", _) => fields.join(", "),
        _ => format!("{cause}: {}", fields.join(", ")),
    }
}

async fn one(verbs: &Verbs, path: &str, version: i64, shape: &Shape) -> Result<(), CliError> {
    let json = verbs.api.json(&format!("{path}/{version}"), &[]).await?;
    let mut out = Out::default();
    if shape.output == Format::Json {
        return Ok(out.json(&json)?);
    }
    let state = text(&json, "state");
    let mut columns = Columns::new(&["Field", "Value"]);
    for (name, value) in [
        ("Version", number(&json, "version").into()),
        ("State", Cell::from(state).coloured(colour_of(state))),
        ("Reason", text(&json, "reason").into()),
        ("Deployment", text(&json, "deploymentId").into()),
        ("Started", time(&json, "startedAt").into()),
        ("Deployed in", micros(&json, "durationMicros").into()),
        ("Served for", served(&json, Timestamp::now()).into()),
        ("Changed by", author(&json).into()),
        ("Change", Cell::new(change(&json["change"]))),
    ] {
        if value != Cell::default() {
            columns.push([Cell::from(name), value]);
        }
    }
    if shape.output == Format::Csv {
        out.bytes(&columns.csv(!shape.no_headers).map_err(std::io::Error::from)?)?;
        return Ok(out.flush()?);
    }
    out.bytes(columns.text(false, out.colours()).as_bytes())?;
    if let Some(previous) = json["previousVersion"].as_i64() {
        let before = verbs.api.json(&format!("{path}/{previous}"), &[]).await?;
        let colours = out.colours();
        out.bytes(differences(&before, &json, colours).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// The lines of the source that changed from one version to another, as a unified diff.
fn differences(before: &Value, now: &Value, colours: bool) -> String {
    let files = |version: &Value| version["spec"]["source"]["inline"].as_object().cloned();
    let (Some(old), Some(new)) = (files(before), files(now)) else {
        return String::new();
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut shown = String::new();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was == is {
            continue;
        }
        let heading = |version: &Value, file: Option<&Value>| match file {
            Some(_) => format!("version {}: {}", version["version"], plain(name)),
            None => "/dev/null".to_owned(),
        };
        // Writing into a string can not fail.
        let _ = write!(
            shown,
            "\n--- {}\n+++ {}\n",
            heading(before, was),
            heading(now, is)
        );
        let text = |file: Option<&Value>| file.and_then(Value::as_str).unwrap_or_default().to_owned();
        shown.push_str(&unified(&text(was), &text(is), colours));
    }
    shown
}

fn unified(was: &str, is: &str, colours: bool) -> String {
    let diff = TextDiff::configure().timeout(LONGEST_DIFF).diff_lines(was, is);
    let mut text = String::new();
    for hunk in diff.unified_diff().context_radius(AROUND).iter_hunks() {
        let _ = writeln!(text, "{}", hunk.header());
        for line in hunk.iter_changes() {
            let (sign, colour) = match line.tag() {
                ChangeTag::Delete => ('-', colour_of("Failed")),
                ChangeTag::Insert => ('+', colour_of("Success")),
                ChangeTag::Equal => (' ', None),
            };
            let style = anstyle::Style::new().fg_color(colour.filter(|_| colours).map(Into::into));
            let words = plain(line.value().trim_end_matches('\n'));
            let _ = writeln!(text, "{style}{sign}{words}{style:#}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_says_how_long_it_took_and_served() {
        let version = json!({"version": 2, "state": "Deployed", "startedAt": "2026-01-01T00:00:00Z",
            "deployedAt": "2026-01-01T00:00:04.5Z", "endedAt": null, "durationMicros": 4_500_000,
            "changedBy": "kubectl-edit", "reason": null,
            "change": {"cause": "spec changed", "fields": ["env.RATE", "timeoutSeconds"], "moreFields": 5}});
        let cells = shown(&version, "2026-01-01T01:00:04.5Z".parse().unwrap());
        assert_eq!(
            cells[3..7],
            [
                "4.50 s",
                "1h 00m",
                "kubectl-edit",
                "env.RATE, timeoutSeconds, and 5 more"
            ]
            .map(Cell::from)
        );
        let failed = json!({"version": 3, "state": "Failed", "startedAt": "2026-01-01T00:00:00Z", "reason": "no image"});
        let cells = shown(&failed, "2026-01-01T01:00:00Z".parse().unwrap());
        assert_eq!(cells[3..7], ["", "", "", ""].map(Cell::from));
    }

    #[test]
    fn a_rollback_says_who_is_said_to_have_asked_for_it() {
        let version = json!({"changedBy": "scriptscope-rollback",
            "change": {"cause": "rollback to 3", "fields": ["env.RATE"], "claimedBy": "alice"}});
        assert_eq!(author(&version), "alice (claimed, by scriptscope-rollback)");
        assert_eq!(change(&version["change"]), "rollback to 3: env.RATE");
        assert_eq!(change(&json!({"cause": "first deployment"})), "first deployment");
    }

    #[test]
    fn changed_lines_of_the_source_are_shown_and_obeyed_by_no_terminal() {
        let version =
            |number: i64, files: Value| json!({"version": number, "spec": {"source": {"inline": files}}});
        let old = version(
            1,
            json!({"main.py": "a\nb\nc\n", "same.py": "x", "gone.py": "y\n"}),
        );
        let new = version(2, json!({"main.py": "a\n\u{1b}[2Jb\nc\n", "same.py": "x"}));
        assert_eq!(
            differences(&old, &new, false),
            "\n--- version 1: gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-y\n\
             \n--- version 1: main.py\n+++ version 2: main.py\n@@ -1,3 +1,3 @@\n a\n-b\n+\\u{1b}[2Jb\n c\n"
        );
        let image = json!({"version": 3, "spec": {"source": {"image": "shop/pay:1"}}});
        assert_eq!(differences(&new, &image, false), "");
    }
}
