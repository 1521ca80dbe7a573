//! `export`: all runs or log lines of a range as a CSV file.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    Verbs,
    api::{script_path, with_query},
    args::{Place, Which},
    error::{CliError, with_causes},
    filter::Table,
    output::Out,
};

/// Arguments of `export`.
#[derive(clap::Args, Clone, Debug)]
pub struct ExportArgs {
    /// The script.
    pub script: String,
    /// What of it.
    #[arg(value_enum)]
    pub data: Data,
    /// The file, which appears when it is complete. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    place: Place,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Data {
    /// Run ID, Status, Deployment Version, Response Time, Function, Executed On, Source Type, Source.
    Runs,
    /// Log ID, Log Level, Log Message, Timestamp.
    Logs,
}

/// Writes the file.
pub async fn export(args: ExportArgs) -> Result<(), CliError> {
    let (table, name) = match args.data {
        Data::Runs => (Table::Runs, "runs.csv"),
        Data::Logs => (Table::Logs, "logs.csv"),
    };
    let query = args.which.query(table)?;
    let verbs = Verbs::new(args.place).await?;
    let path = format!("{}/{name}", script_path(&verbs.namespace, &args.script));
    let body = verbs.api.get(&with_query(&path, &query), &[]).await?.into_body();
    match args.out {
        None => {
            let mut out = Out::default();
            copy(body, |bytes| out.bytes(bytes)).await?;
            Ok(out.flush()?)
        }
        Some(file) => {
            let bytes = to_file(body, &file).await?;
            anstream::eprintln!("{}: {bytes} bytes", file.display());
            Ok(())
        }
    }
}

/// Writes beside the file, then puts the whole in its place.
async fn to_file(body: Incoming, file: &Path) -> Result<u64, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("--out {}: {error}", file.display()));
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let name = file
        .file_name()
        .ok_or_else(|| CliError::Usage(format!("--out {}: expected the name of a file", file.display())))?;
    let part = folder.unwrap_or(Path::new(".")).join(format!(
        ".{}.{}.part",
        name.to_string_lossy(),
        std::process::id()
    ));
    let mut writer = std::io::BufWriter::new(std::fs::File::create_new(&part).map_err(failed)?);
    let mut all = 0;
    let written = copy(body, |bytes| {
        all += bytes.len() as u64;
        writer.write_all(bytes)
    })
    .await;
    let finished = written.and_then(|()| {
        let end = writer.into_inner().map_err(std::io::IntoInnerError::into_error);
        end.and_then(|f| f.sync_all())
            .and_then(|()| std::fs::rename(&part, file))
            .map_err(failed)
    });
    if finished.is_err() {
        // What is left of it is no use to anybody.
        let _ = std::fs::remove_file(&part);
    }
    finished.map(|()| all)
}

async fn copy(
    mut body: Incoming,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), CliError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            CliError::Failed(format!(
                "the download broke off: {}; try again",
                with_causes(&error)
            ))
        })?;
        let bytes: Bytes = frame.into_data().unwrap_or_default();
        write(&bytes)?;
    }
    Ok(())
}
