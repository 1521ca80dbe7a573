//! Log lines as they are stored: server-sent events.
//!
//! An event `lines` holds some lines, the oldest first, and its id says how far all of them reach. Who comes back with that
//! id in `Last-Event-ID` gets what was stored since, each line once. The reader's pace is the stream's: while it does not
//! take an event, none is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    ApiError, WebState,
    access::Identity,
    cache::key_of,
    guard::Token,
    query::{self, RowsRequest},
    readable::LogsOf,
};
use crate::{
    export::Table,
    model::{LogLine, ScriptKey, TimeRange},
    query::within,
    store::{LogCursor, LogPosition, LogQuery, Mark, StoreError, Tail, TailQuery},
};

/// How often it is asked whether the script has changed.
const TICK: Duration = Duration::from_millis(200);
/// How often something is said, rights are asked for again, and it is looked for lines whatever was told.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A stream ends after this time; its reader comes back and shows again who asks.
const LIFE: Duration = Duration::from_mins(10);
/// A reader that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_mins(1);
/// Lines of an event at most.
const LINES: usize = 500;
/// Lines from before that can be asked for.
const MAX_TAIL: usize = 1_000;
/// Segments that are known to be read.
const KNOWN: usize = 4_096;
/// Form of the ids made here.
const VERSION: u8 = 1;

/// Where a reader is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    /// Everything up to here has been sent.
    after: LogPosition,
    /// Of what lies up to here, the lines up to that one have been sent, too.
    under_way: Option<(LogPosition, LogCursor)>,
}

#[derive(Serialize, Deserialize)]
struct WirePosition {
    s: i64,
    m: BTreeMap<i64, (i64, bool)>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u8,
    /// First bytes of the hash of the query.
    q: [u8; 8],
    a: WirePosition,
    u: Option<WirePosition>,
    k: Option<(Timestamp, String)>,
}

pub(super) async fn logs(
    State(state): State<WebState>,
    LogsOf(script): LogsOf,
    Extension(reader): Extension<Identity>,
    token: Option<Extension<Token>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (request, tail) = query::stream(&uri)?;
    if tail > MAX_TAIL {
        return Err(ApiError::invalid("tail", format!("expected at most {MAX_TAIL}")));
    }
    let identity = format!(
        "{script} {}",
        request.identity(Table::Logs).map_err(|_| ApiError::internal())?
    );
    let last = headers
        .get("last-event-id")
        .map(|id| id.to_str().unwrap_or_default());
    let last = last.map(|id| decode(id, &identity)).transpose()?;
    let permit = state.streams.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "TooManyStreams",
            "too many logs are being followed; try again in a moment",
        )
    })?;
    let now = Timestamp::now();
    let range = if request.has_range {
        request.resolve(now)?
    } else {
        TimeRange::ALL
    };
    let mut follower = Follower {
        changes: state.store.changed_scripts(0).1,
        place: Place::default(),
        known: BTreeSet::new(),
        identity,
        range,
        request,
        script,
        reader,
        token: token.map(|Extension(token)| token),
        state,
    };
    let mut first = Vec::new();
    if let Some(place) = last {
        follower.place = place;
    } else {
        // The position first: what is stored from here on comes as news.
        follower.place.after = follower.state.store.log_position(&follower.script).await?;
        first = follower.before(tail, now).await?;
        if first.is_empty() {
            follower.state.require_script(&follower.script).await?;
        }
    }
    let begin = follower.event(&first)?;
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(follower.run(begin, sender, permit));
    let body = Body::from_stream(stream::poll_fn(move |context| {
        receiver
            .poll_recv(context)
            .map(|event| event.map(Ok::<Bytes, Infallible>))
    }));
    Ok((
        [
            (header::CONTENT_TYPE, "text/event-stream"),
            // For proxies that gather answers.
            (header::HeaderName::from_static("x-accel-buffering"), "no"),
        ],
        body,
    )
        .into_response())
}

/// A reader that is there.
struct Follower {
    state: WebState,
    script: ScriptKey,
    reader: Identity,
    token: Option<Token>,
    request: RowsRequest,
    range: TimeRange,
    identity: String,
    place: Place,
    /// Segments of which everything has been sent.
    known: BTreeSet<i64>,
    changes: u64,
}

impl Follower {
    /// The last lines from before.
    async fn before(&self, tail: usize, now: Timestamp) -> Result<Vec<LogLine>, ApiError> {
        let query = LogQuery {
            script: self.script.clone(),
            range: self.request.resolve(now)?,
            filter: self.request.filter.clone(),
            after: None,
            limit: tail,
        };
        let mut rows = self.state.store.logs(&query).await?.rows;
        rows.retain(|line| self.place.after.covers(line.log_id));
        rows.reverse();
        Ok(rows)
    }

    async fn run(mut self, begin: Bytes, sender: mpsc::Sender<Bytes>, _permit: OwnedSemaphorePermit) {
        let end = Instant::now() + LIFE;
        let (mut said, mut checked) = (Instant::now(), Instant::now());
        let mut event = Some(begin);
        // At once when one comes back.
        let mut look = true;
        loop {
            if let Some(event) = event.take() {
                if sender.send_timeout(event, STALLED).await.is_err() {
                    return;
                }
                said = Instant::now();
            }
            if Instant::now() >= end {
                return;
            }
            if checked.elapsed() >= KEEP_ALIVE {
                if let Err(error) = self.still_may().await {
                    return refuse(&sender, &error).await;
                }
                checked = Instant::now();
                look = true;
            }
            if said.elapsed() >= KEEP_ALIVE {
                event = Some(Bytes::from_static(b": still here\n\n"));
            }
            if !look {
                tokio::select! {
                    () = tokio::time::sleep(TICK) => {}
                    () = sender.closed() => return,
                    () = self.state.closing.cancelled() => return,
                }
                look = self.has_changed();
                continue;
            }
            let next = tokio::select! {
                next = self.next() => next,
                () = sender.closed() => return,
            };
            match next {
                Ok(lines) => {
                    look = self.place.under_way.is_some();
                    if !lines.is_empty() {
                        match self.event(&lines) {
                            Ok(lines) => event = Some(lines),
                            Err(error) => return refuse(&sender, &error).await,
                        }
                    }
                }
                Err(error) => return refuse(&sender, &error.into()).await,
            }
        }
    }

    fn has_changed(&mut self) -> bool {
        let (scripts, changes) = self.state.store.changed_scripts(self.changes);
        self.changes = changes;
        scripts.contains(&self.script)
    }

    /// Whether the reader may go on.
    async fn still_may(&self) -> Result<(), ApiError> {
        if let Some(Token(token)) = &self.token {
            self.state.access.identify(token).await?;
        }
        self.state.authorize(&self.reader, "logs", &self.script).await
    }

    /// The next lines; moves on.
    async fn next(&mut self) -> Result<Vec<LogLine>, StoreError> {
        let store = Arc::clone(&self.state.store);
        let (upto, from) = match self.place.under_way.take() {
            Some((upto, from)) => (upto, Some(from)),
            None => (store.log_position(&self.script).await?, None),
        };
        if upto == self.place.after {
            return Ok(Vec::new());
        }
        let query = TailQuery {
            script: self.script.clone(),
            range: self.range,
            filter: self.request.filter.clone(),
            after: self.place.after.clone(),
            upto,
            from,
            limit: LINES,
            skip: Arc::new(self.known.clone()),
        };
        let found = within(self.state.time_limit, store.logs_between(&query)).await;
        let Tail {
            rows,
            more,
            complete,
            incomplete,
        } = match found {
            Ok(found) => found,
            Err(error) => {
                self.place.under_way = query.from.map(|from| (query.upto, from));
                return Err(error);
            }
        };
        if let Some(line) = rows.last().filter(|_| more) {
            let from = LogCursor {
                timestamp: line.timestamp,
                log_id: line.log_id,
            };
            self.place.under_way = Some((query.upto, from));
        } else {
            let mut after = query.upto;
            // What is not complete is read again.
            after.segment = incomplete.map_or(after.segment, |first| after.segment.min(first - 1));
            self.place.after = after;
            self.known.extend(complete);
            while self.known.len() > KNOWN {
                self.known.pop_first();
            }
        }
        Ok(rows)
    }

    /// Lines as an event.
    fn event(&self, lines: &[LogLine]) -> Result<Bytes, ApiError> {
        let wire = |position: &LogPosition| WirePosition {
            s: position.segment,
            m: position
                .streams
                .iter()
                .map(|(stream, mark)| (*stream, (mark.offset, mark.open)))
                .collect(),
        };
        let under_way = self.place.under_way.as_ref();
        let id = Wire {
            v: VERSION,
            q: fingerprint(&self.identity),
            a: wire(&self.place.after),
            u: under_way.map(|(upto, _)| wire(upto)),
            k: under_way.map(|(_, from)| (from.timestamp, from.log_id.to_string())),
        };
        let id = serde_json::to_vec(&id).map_err(|_| ApiError::internal())?;
        let id = URL_SAFE_NO_PAD.encode(id);
        let data = json!({ "items": lines });
        Ok(format!("event: lines\nid: {id}\ndata: {data}\n\n").into())
    }
}

/// Tells the reader why the stream ends.
async fn refuse(sender: &mpsc::Sender<Bytes>, error: &ApiError) {
    let data = json!({ "error": { "code": error.code, "message": error.message } });
    let event = format!("event: error\ndata: {data}\n\n");
    // It may be gone already.
    let _ = sender.send_timeout(event.into(), STALLED).await;
}

fn fingerprint(query: &str) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&key_of(query.as_bytes())[..8]);
    short
}

fn decode(id: &str, query: &str) -> Result<Place, ApiError> {
    let wrong = || {
        ApiError::invalid(
            "Last-Event-ID",
            "this is not the id of an event of this stream; begin again without it",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(id).map_err(|_| wrong())?;
    let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    if wire.v != VERSION || wire.q != fingerprint(query) {
        return Err(wrong());
    }
    let position = |wire: WirePosition| LogPosition {
        segment: wire.s,
        streams: wire
            .m
            .into_iter()
            .map(|(stream, (offset, open))| (stream, Mark { offset, open }))
            .collect(),
    };
    let under_way = match (wire.u, wire.k) {
        (Some(upto), Some((timestamp, id))) => {
            let log_id = id.parse().map_err(|_| wrong())?;
            Some((position(upto), LogCursor { timestamp, log_id }))
        }
        _ => None,
    };
    Ok(Place {
        after: position(wire.a),
        under_way,
    })
}
