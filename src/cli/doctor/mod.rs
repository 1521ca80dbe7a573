//! `doctor`: looks at everything that an installation needs, and says what is wrong and what to do.

mod facts;
mod fetch;
mod findings;
mod samples;

use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Value, json};

pub(super) use self::{
    facts::Facts,
    fetch::{fetch, health_of, system_pods},
    findings::{Finding, Grade, findings},
};
use super::{
    CliError,
    args::Place,
    cluster::Cluster,
    output::{Out, plain},
};

/// Arguments of `doctor`.
#[derive(clap::Args, Clone, Debug)]
pub struct DoctorArgs {
    /// How the findings are written.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Only what is not as it should be.
    #[arg(long)]
    problems: bool,
    #[command(flatten)]
    place: Place,
}

/// Form of the findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Looks, and fails where something does not work.
pub async fn doctor(args: DoctorArgs) -> Result<(), CliError> {
    let cluster = Cluster::new(args.place);
    let facts = Box::pin(fetch(&cluster)).await?;
    let found = findings(&facts);
    let mut out = Out::default();
    match args.output {
        Form::Json => out.json(&report(&found))?,
        Form::Table => {
            for finding in &found {
                if !args.problems || finding.grade != Grade::Ok {
                    out.text(&shown(finding, out.colours()))?;
                }
            }
        }
    }
    match count(&found, Grade::Fail) {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 check failed".to_owned())),
        n => Err(CliError::Failed(format!("{n} checks failed"))),
    }
}

fn count(found: &[Finding], grade: Grade) -> usize {
    found.iter().filter(|finding| finding.grade == grade).count()
}

/// The findings for programs.
pub(super) fn report(found: &[Finding]) -> Value {
    json!({
        "summary": {
            "ok": count(found, Grade::Ok),
            "warn": count(found, Grade::Warn),
            "fail": count(found, Grade::Fail),
        },
        "findings": found,
    })
}

/// A finding for people; what to do stands below what was seen.
fn shown(finding: &Finding, colours: bool) -> String {
    let colour = match finding.grade {
        Grade::Ok => anstyle::AnsiColor::Green,
        Grade::Warn => anstyle::AnsiColor::Yellow,
        Grade::Fail => anstyle::AnsiColor::Red,
    };
    let style = if colours {
        anstyle::Style::new().bold().fg_color(Some(colour.into()))
    } else {
        anstyle::Style::new()
    };
    let grade = finding.grade.name();
    let mut text = format!(
        "{style}{grade:<4}{style:#}  {:<16} {}",
        finding.check,
        plain(&finding.saw)
    );
    if let Some(remedy) = &finding.remedy {
        let _ = write!(text, "\n{:24}-> {}", "", plain(remedy));
    }
    text
}
