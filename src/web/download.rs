//! Files straight from the store, as fast as the reader takes them.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    export::{
        ExportError, Plan, Table,
        format::Format,
        pages::{FilePages, Piece},
    },
    metrics::Metrics,
    model::ScriptKey,
};

use super::{
    ApiError, WebState, query,
    readable::{LogsOf, RunsOf},
};

/// A reader that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_mins(1);
/// Pages made ahead of the reader.
const AHEAD: usize = 1;

pub(super) async fn runs_csv(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Response, ApiError> {
    download(state, script, &uri, Table::Runs, Format::default()).await
}

pub(super) async fn runs_parquet(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Response, ApiError> {
    download(state, script, &uri, Table::Runs, Format::Parquet).await
}

pub(super) async fn logs_csv(
    State(state): State<WebState>,
    LogsOf(script): LogsOf,
    uri: Uri,
) -> Result<Response, ApiError> {
    download(state, script, &uri, Table::Logs, Format::default()).await
}

pub(super) async fn logs_parquet(
    State(state): State<WebState>,
    LogsOf(script): LogsOf,
    uri: Uri,
) -> Result<Response, ApiError> {
    download(state, script, &uri, Table::Logs, Format::Parquet).await
}

/// A download under way: its place among all, and among those of Parquet.
type Places = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

fn places(state: &WebState, format: Format) -> Result<Places, ApiError> {
    let place = |of: &Arc<Semaphore>| {
        Arc::clone(of).try_acquire_owned().map_err(|_| {
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "TooManyDownloads",
                "too many files are being downloaded; try again in a moment, or make a ScriptExport",
            )
        })
    };
    let parquet = (format == Format::Parquet)
        .then(|| place(&state.parquets))
        .transpose()?;
    Ok((place(&state.downloads)?, parquet))
}

async fn download(
    state: WebState,
    script: ScriptKey,
    uri: &Uri,
    table: Table,
    format: Format,
) -> Result<Response, ApiError> {
    let (request, columns, format) = query::file(uri, table, format)?;
    let range = request.resolve(Timestamp::now())?;
    let places = places(&state, format)?;
    let disposition = attachment(&table.file_name(&script.name, format));
    let plan = Plan {
        columns,
        ..Plan::new(script.clone(), table, range, request.filter)
    };
    let mut pages = Pages {
        pages: FilePages::new(state.store.clone(), plan, format)?,
        reading: state.reading.clone(),
    };
    // The first page before the answer begins: what fails so far is still an error that the reader can see.
    let first = pages.next().await?.unwrap_or_default();
    if first.rows == 0 {
        state.require_script(&script).await?;
    }
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    tokio::spawn(send(first, pages, sender, state.metrics.clone(), places));
    let body = Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context)));
    Ok((
        [
            (header::CONTENT_TYPE, format.media_type()),
            (header::CONTENT_DISPOSITION, &disposition),
        ],
        body,
    )
        .into_response())
}

/// The header that makes a browser keep a file; names are those of Kubernetes objects and need no quoting.
pub(super) fn attachment(file_name: &str) -> String {
    format!("attachment; filename=\"{file_name}\"")
}

/// The pieces of a file, made in turns with other files: whoever wants the next one goes behind those that wait already.
struct Pages {
    pages: FilePages,
    reading: Arc<Semaphore>,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Piece>, ExportError> {
        // None only of a closed semaphore, and nobody closes it.
        let _turn = self.reading.acquire().await.ok();
        self.pages.next_page().await
    }
}

/// Sends page after page. A failure breaks the body off, so that half a file never looks like a whole one.
async fn send(
    first: Piece,
    mut pages: Pages,
    sender: mpsc::Sender<io::Result<Bytes>>,
    metrics: Metrics,
    _places: Places,
) {
    let mut page = first;
    loop {
        metrics.exported(page.rows, page.bytes.len() as u64);
        // A compressor holds back what it was given until that is worth a block.
        if !page.bytes.is_empty() && sender.send_timeout(Ok(page.bytes.into()), STALLED).await.is_err() {
            return abort(&sender).await;
        }
        let next = tokio::select! {
            next = pages.next() => next,
            // Nobody reads on: what the store is doing for it ends, too.
            () = sender.closed() => return,
        };
        page = match next {
            Ok(None) => return,
            Ok(Some(page)) => page,
            Err(error) => {
                tracing::error!(%error, "A download was broken off.");
                return abort(&sender).await;
            }
        };
    }
}

async fn abort(sender: &mpsc::Sender<io::Result<Bytes>>) {
    // Nobody may be listening any more.
    let _ = sender
        .send_timeout(Err(io::Error::other("broken off")), STALLED)
        .await;
}
