//! `migrate-store` and `backup`: the store itself, where it lies. They need no cluster, but to be where the store can be
//! reached: in the operator's pod, or in one that has its volume or its Secret.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{CliError, output::Out};
use crate::store::{
    backup,
    transfer::{Copied, Progress, Stage, transfer},
};

/// How often the progress is told where it can not be written over.
const TELL: Duration = Duration::from_secs(5);
/// How often it is where it can.
const REDRAW: Duration = Duration::from_millis(200);
/// The path that means standard output.
const STDOUT: &str = "-";

/// Arguments of `migrate-store`.
#[derive(clap::Args, Clone, Debug)]
pub struct MigrateArgs {
    /// The store to read, `sqlite:///FILE` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. It stays as it is.
    #[arg(
        long,
        value_name = "URL",
        env = "SCRIPTSCOPE_MIGRATE_FROM",
        hide_env_values = true
    )]
    pub from: String,
    /// The store to write, in the same form: an empty database, or a file that is not there yet.
    #[arg(
        long,
        value_name = "URL",
        env = "SCRIPTSCOPE_MIGRATE_TO",
        hide_env_values = true
    )]
    pub to: String,
    /// Also while an operator runs on one of them. What it takes in meanwhile is missing in the copy.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `backup`.
#[derive(clap::Args, Clone, Debug)]
pub struct BackupArgs {
    /// The file to write, which must not be there yet; - is standard output.
    pub file: PathBuf,
    /// The store.
    #[arg(
        long,
        value_name = "URL",
        env = "SCRIPTSCOPE_DATABASE_URL",
        default_value = "sqlite:///var/lib/scriptscope/scriptscope.db",
        hide_env_values = true
    )]
    pub database_url: String,
}

/// Copies a store into another.
pub async fn migrate(args: MigrateArgs) -> Result<(), CliError> {
    let mut meter = Meter::new();
    let copied = transfer(&args.from, &args.to, args.force, &mut |progress| {
        meter.tell(progress);
    })
    .await;
    meter.end();
    let copied = copied.map_err(|error| CliError::Failed(error.to_string()))?;
    let mut out = Out::default();
    out.text(&table(&copied))?;
    out.text(next(&args.to))?;
    Ok(())
}

fn table(copied: &[Copied]) -> String {
    let lines: Vec<String> = copied
        .iter()
        .map(|Copied { table, checksum }| {
            format!("{table:<22} {:>12} rows  {:032x}", checksum.rows, checksum.sum)
        })
        .collect();
    let rows: u64 = copied.iter().map(|copied| copied.checksum.rows).sum();
    format!(
        "{}\n{rows} rows are equal on both sides, by the checksums above.",
        lines.join("\n")
    )
}

fn next(to: &str) -> &'static str {
    if to.starts_with("sqlite") {
        "Next: let the chart use the file (database.url=sqlite:///..., operator.replicas=1; the file must lie on the \
         operator's volume) and start the operator. The old database is as it was; remove it when you are content."
    } else {
        "Next: put the URL into a Secret, let the chart use it (database.existingSecret.name) and start the operator. The \
         old store is as it was; remove it when you are content."
    }
}

/// Tells how far it is.
struct Meter {
    told: Option<Instant>,
    stage: Option<Stage>,
    terminal: bool,
}

impl Meter {
    fn new() -> Self {
        Self {
            told: None,
            stage: None,
            terminal: io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, progress: &Progress) {
        let (done, all) = progress.rows;
        let pause = if self.terminal { REDRAW } else { TELL };
        let is_due = done == all
            || self.stage != Some(progress.stage)
            || self.told.is_none_or(|told| told.elapsed() > pause);
        if !is_due {
            return;
        }
        if self.terminal && self.stage.is_some_and(|stage| stage != progress.stage) {
            anstream::eprintln!();
        }
        (self.told, self.stage) = (Some(Instant::now()), Some(progress.stage));
        let line = line(progress);
        if self.terminal {
            anstream::eprint!("\r\u{1b}[2K{line}");
            let _ = io::stderr().flush();
        } else {
            anstream::eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal && self.told.is_some() {
            anstream::eprintln!();
        }
    }
}

/// `copying runs: 1200 of 4000 rows (30 %), 12.3 MB, 4000 rows/s`.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // for people
fn line(progress: &Progress) -> String {
    let stage = match progress.stage {
        Stage::Copy => "copying",
        Stage::Verify => "verifying",
    };
    let (done, all) = progress.rows;
    let percent = (done * 100).checked_div(all).unwrap_or(100);
    let rate = (done as f64 / progress.elapsed.as_secs_f64().max(0.001)) as u64;
    format!(
        "{stage} {}: {done} of {all} rows ({percent} %), {:.1} MB, {rate} rows/s",
        progress.table,
        progress.bytes as f64 / 1e6
    )
}

/// Copies the store while it is used.
pub async fn save(args: BackupArgs) -> Result<(), CliError> {
    let failed = |error: crate::store::StoreError| CliError::Failed(error.to_string());
    if args.file.as_os_str() != STDOUT {
        let made = backup::backup(&args.database_url, &args.file)
            .await
            .map_err(failed)?;
        anstream::eprintln!(
            "{} has {} bytes and is sound.",
            super::output::plain(&args.file.display().to_string()),
            made.bytes
        );
        return Ok(());
    }
    if io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "a database is nothing for a terminal; say > FILE".to_owned(),
        ));
    }
    // Beside the store, since elsewhere in its pod there is little room.
    let folder = args
        .database_url
        .strip_prefix("sqlite://")
        .and_then(|path| Path::new(path).parent())
        .filter(|folder| folder.is_dir())
        .map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = tempfile::Builder::new().prefix(".backup-").tempdir_in(folder)?;
    let file = folder.path().join("store.db");
    let made = backup::backup(&args.database_url, &file).await.map_err(failed)?;
    let mut source = std::fs::File::open(&file)?;
    let mut out = io::stdout().lock();
    let copied = io::copy(&mut source, &mut out)?;
    out.flush()?;
    anstream::eprintln!("{copied} of {} bytes written; the copy is sound.", made.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_rows_percent_and_rate() {
        let mut progress = Progress {
            stage: Stage::Copy,
            table: "runs",
            rows: (1_200, 4_000),
            bytes: 12_340_000,
            elapsed: Duration::from_millis(300),
        };
        assert_eq!(
            line(&progress),
            "copying runs: 1200 of 4000 rows (30 %), 12.3 MB, 4000 rows/s"
        );
        // An empty store is all there.
        (progress.rows, progress.stage) = ((0, 0), Stage::Verify);
        assert!(line(&progress).starts_with("verifying runs: 0 of 0 rows (100 %)"));
    }
}
