//! The HTTP service that agents talk to; see [`wire`](super::wire) for the protocol.

use std::{sync::Arc, time::Duration, time::Instant};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    access::{AgentAuthenticator, AgentIdentity, AuthError, CommitListener, PodDirectory, PodKnowledge},
    batch::{self, Effect, Ready, StreamChunks},
    checkpoints::Checkpoints,
    wire::{
        BATCHES_PATH, BatchResponse, Chunk, ChunkResult, MAX_BATCH_BYTES, Position, STREAMS_PATH, StreamKey,
        StreamState, StreamsRequest, StreamsResponse, decode_batch,
    },
};
use crate::{
    metrics::Metrics,
    store::{AppendOutcome, LastWord, PodRecord, Store, StoreError, StreamCheckpoint},
};

/// Batches taken in at once; others wait before their body is read. Two keep a processor busy while the store's one
/// writer works, two more hide the network.
const MAX_BATCHES: usize = 4;
/// An agent that sends its body more slowly than this gives up its turn.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// More bytes than this are parsed off the threads that serve requests.
const INLINE_PARSE_BYTES: usize = 32 << 10;

/// Takes in what agents ship.
pub struct Ingest {
    store: Arc<dyn Store>,
    authenticator: Arc<dyn AgentAuthenticator>,
    directory: Arc<dyn PodDirectory>,
    listener: Option<Arc<dyn CommitListener>>,
    metrics: Metrics,
    checkpoints: Checkpoints,
    slots: Semaphore,
}

/// The routes of the ingest service.
pub fn router(ingest: Arc<Ingest>) -> Router {
    Router::new()
        .route(STREAMS_PATH, post(streams))
        .route(BATCHES_PATH, post(batches))
        .with_state(ingest)
}

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IngestError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the token is one of node {token}, the request speaks for node {request}")]
    WrongNode { token: String, request: String },
    #[error("the request is not valid: {0}")]
    Invalid(String),
    #[error("the body has more than {MAX_BATCH_BYTES} bytes; send smaller batches")]
    TooLarge,
    #[error("the body took longer than {} seconds", BODY_TIMEOUT.as_secs())]
    TooSlow,
    #[error("the store can not take it now")]
    Store(#[from] StoreError),
    #[error("the batch could not be processed")]
    Internal,
}

impl IngestError {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Auth(AuthError::Rejected(_)) => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Auth(AuthError::Unavailable(_)) => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            Self::WrongNode { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "Invalid"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "TooLarge"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "TooSlow"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        }
    }
}

impl IntoResponse for IngestError {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        // The agent learns no more than it needs.
        if let Self::Store(error) = &self {
            tracing::warn!(%error, "A request of an agent failed in the store.");
        } else {
            tracing::debug!(error = %self, "A request of an agent was refused.");
        }
        let body = json!({"error": {"code": code, "message": self.to_string()}});
        (status, Json(body)).into_response()
    }
}

async fn streams(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<StreamsResponse>, IngestError> {
    let agent = ingest.authenticate(&headers).await?;
    let body = read_body(request).await?;
    let request: StreamsRequest =
        serde_json::from_slice(&body).map_err(|error| IngestError::Invalid(error.to_string()))?;
    check_node(&agent, &request.node)?;
    if let Some(listener) = &ingest.listener {
        request
            .given_up
            .iter()
            .for_each(|stream| listener.given_up(stream));
    }
    let streams = ingest.states(&agent, &request.streams).await?;
    Ok(Json(StreamsResponse { streams }))
}

async fn batches(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<BatchResponse>, IngestError> {
    let agent = ingest.authenticate(&headers).await?;
    let _slot = ingest.slots.acquire().await.map_err(|_| IngestError::Internal)?;
    let body = read_body(request).await?;
    let (node, chunks) = decode_batch(&body).map_err(|error| IngestError::Invalid(error.to_string()))?;
    check_node(&agent, &node)?;
    for chunk in &chunks {
        batch::check(&chunk.header).map_err(IngestError::Invalid)?;
    }
    let chunks = ingest.take_in(&agent, chunks, Timestamp::now()).await?;
    Ok(Json(BatchResponse { chunks }))
}

/// Reads a body into one piece of memory of its size, so that what is received is copied once.
async fn read_body(request: Request) -> Result<Bytes, IngestError> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BATCH_BYTES) {
        return Err(IngestError::TooLarge);
    }
    let mut parts = request.into_body().into_data_stream();
    let reading = async {
        let mut body = BytesMut::with_capacity(announced.unwrap_or_default());
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| IngestError::Invalid(error.to_string()))?;
            if body.len() + part.len() > MAX_BATCH_BYTES {
                return Err(IngestError::TooLarge);
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .map_err(|_| IngestError::TooSlow)?
}

fn check_node(agent: &AgentIdentity, request: &str) -> Result<(), IngestError> {
    match &agent.node {
        Some(token) if token != request => Err(IngestError::WrongNode {
            token: token.clone(),
            request: request.chars().take(253).collect(),
        }),
        _ => Ok(()),
    }
}

impl Ingest {
    /// The service over a store. `directory` is asked about pods that the store does not know.
    pub fn new(
        store: Arc<dyn Store>,
        authenticator: Arc<dyn AgentAuthenticator>,
        directory: Arc<dyn PodDirectory>,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            authenticator,
            directory,
            listener: None,
            metrics,
            checkpoints: Checkpoints::default(),
            slots: Semaphore::new(MAX_BATCHES),
        }
    }

    /// Tells `listener` what is committed.
    #[must_use]
    pub fn with_listener(mut self, listener: Arc<dyn CommitListener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Whether the agent may speak for the pod of this stream: one that is collected, and where both nodes are known, of its
    /// own.
    fn may_speak(&self, agent: &AgentIdentity, stream: &StreamKey) -> bool {
        if !self.directory.is_collected(&stream.pod_uid) {
            return false;
        }
        let node = agent.node.as_deref();
        let may = node.is_none_or(|node| self.directory.may_be_on(&stream.pod_uid, node));
        if !may {
            tracing::warn!(
                agent = agent.name,
                node,
                pod = stream.pod,
                "An agent speaks for a pod of another node."
            );
        }
        may
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<AgentIdentity, IngestError> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .ok_or_else(|| AuthError::Rejected("send it as \"Authorization: Bearer ...\"".to_owned()))?;
        Ok(self.authenticator.authenticate(token.trim()).await?)
    }

    /// What [`STREAMS_PATH`] answers.
    pub(crate) async fn states(
        &self,
        agent: &AgentIdentity,
        streams: &[StreamKey],
    ) -> Result<Vec<StreamState>, IngestError> {
        let checkpoints = self.store.open_streams(streams).await?;
        if checkpoints.len() != streams.len() {
            return Err(IngestError::Internal);
        }
        let states = streams.iter().zip(checkpoints).map(|(stream, checkpoint)| {
            if !self.may_speak(agent, stream) {
                return StreamState::Ignore;
            }
            let Some(checkpoint) = checkpoint else {
                return self.state_of_unfollowed(stream);
            };
            let position = checkpoint.position.clone();
            self.checkpoints.put(stream.clone(), checkpoint);
            StreamState::Follow { position }
        });
        Ok(states.collect())
    }

    fn state_of_unfollowed(&self, stream: &StreamKey) -> StreamState {
        match self.directory.knows(&stream.namespace, &stream.pod_uid) {
            PodKnowledge::NotAScript => StreamState::Ignore,
            PodKnowledge::Script { container } if container != stream.container => StreamState::Ignore,
            // Registered a moment ago, or about to be.
            PodKnowledge::Script { .. } | PodKnowledge::Unseen => StreamState::Unknown,
        }
    }

    /// What [`BATCHES_PATH`] does, for a reader within the operator.
    pub(crate) async fn append(
        &self,
        reader: &AgentIdentity,
        chunks: Vec<Chunk>,
    ) -> Result<Vec<ChunkResult>, IngestError> {
        let _slot = self.slots.acquire().await.map_err(|_| IngestError::Internal)?;
        self.take_in(reader, chunks, Timestamp::now()).await
    }

    async fn take_in(
        &self,
        agent: &AgentIdentity,
        chunks: Vec<Chunk>,
        received: Timestamp,
    ) -> Result<Vec<ChunkResult>, IngestError> {
        let mut results = vec![ChunkResult::Unknown; chunks.len()];
        let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let mut streams = batch::by_stream(chunks);
        streams.retain(|group| self.may_speak(agent, &group.stream));
        let work = self.with_checkpoints(streams).await?;
        let parse = move || -> Vec<Ready> {
            let work = work.into_iter();
            work.map(|(group, checkpoint)| batch::ready(group, checkpoint, received))
                .collect()
        };
        let ready = if bytes > INLINE_PARSE_BYTES {
            tokio::task::spawn_blocking(parse)
                .await
                .map_err(|_| IngestError::Internal)?
        } else {
            parse()
        };
        self.store(ready, &mut results).await?;
        Ok(results)
    }

    /// The checkpoint of each stream that is followed, read again from the store where memory can not be right.
    async fn with_checkpoints(
        &self,
        streams: Vec<StreamChunks>,
    ) -> Result<Vec<(StreamChunks, StreamCheckpoint)>, IngestError> {
        let mut known: Vec<Option<StreamCheckpoint>> = streams
            .iter()
            .map(|group| {
                let first = &group.chunks.first()?.1.header;
                self.checkpoints
                    .get(&group.stream)
                    .filter(|checkpoint| batch::follows(first, checkpoint.position.offset))
            })
            .collect();
        let missing: Vec<usize> = (0..known.len()).filter(|place| known[*place].is_none()).collect();
        if !missing.is_empty() {
            let keys: Vec<StreamKey> = missing.iter().map(|at| streams[*at].stream.clone()).collect();
            let opened = self.store.open_streams(&keys).await?;
            for ((place, key), checkpoint) in missing.into_iter().zip(keys).zip(opened) {
                match &checkpoint {
                    Some(checkpoint) => self.checkpoints.put(key, checkpoint.clone()),
                    None => self.checkpoints.remove(&key),
                }
                known[place] = checkpoint;
            }
        }
        let followed = streams.into_iter().zip(known);
        Ok(followed
            .filter_map(|(group, known)| Some((group, known?)))
            .collect())
    }

    /// Stores all streams' parts in one transaction and says what became of each chunk.
    async fn store(&self, ready: Vec<Ready>, results: &mut [ChunkResult]) -> Result<(), IngestError> {
        let (mut appends, mut effects) = (Vec::new(), Vec::new());
        for mut part in ready {
            match part.prepared.take() {
                Some(prepared) => {
                    appends.push(prepared.append);
                    effects.push((part, prepared.effect));
                }
                None => answer(&part, &part.checkpoint.position, results),
            }
        }
        if appends.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let outcomes = self.store.append(appends).await;
        let took = began.elapsed();
        let outcomes = match outcomes {
            Ok(outcomes) if outcomes.len() == effects.len() => outcomes,
            failed => {
                self.metrics.batch_refused();
                // It may have been stored all the same: ask again next time.
                for (part, _) in &effects {
                    self.checkpoints.remove(&part.stream);
                }
                failed?;
                return Err(IngestError::Internal);
            }
        };
        let mut total = Total::default();
        for ((mut part, effect), outcome) in effects.into_iter().zip(outcomes) {
            match outcome {
                AppendOutcome::Committed(position) => {
                    self.count(&part.checkpoint.pod, &effect, &mut total);
                    answer(&part, &position, results);
                    part.checkpoint.position = position;
                    part.checkpoint.carry = effect.carry;
                    self.checkpoints.put(part.stream, part.checkpoint);
                }
                AppendOutcome::Conflict(position) => {
                    self.checkpoints.remove(&part.stream);
                    part.refused.append(&mut part.accepted);
                    answer(&part, &position, results);
                }
                // The chunks' results say `Unknown` already.
                AppendOutcome::Unknown => self.checkpoints.remove(&part.stream),
            }
        }
        if total.bytes > 0 {
            self.metrics.batch_stored(total.lines, total.bytes, took);
        }
        if let Some(newest) = total.newest {
            self.metrics
                .lag(Timestamp::now().duration_since(newest).as_secs_f64());
        }
        Ok(())
    }

    fn count(&self, pod: &PodRecord, effect: &Effect, total: &mut Total) {
        total.lines += effect.lines;
        total.bytes += effect.bytes;
        total.newest = total.newest.max(effect.newest);
        if let Some(gap) = &effect.gap {
            self.metrics.gap(&gap.reason);
        }
        if let Some(listener) = &self.listener {
            if let Some(gap) = &effect.gap {
                listener.gap_recorded(pod, gap);
            }
            if let Some(LastWord::RunnerStopped { token }) = &effect.last_word {
                listener.runner_stopped(pod, token);
            }
        }
        self.metrics.runs_ended(&pod.script, &effect.ended);
    }
}

/// What a batch counts as.
#[derive(Default)]
struct Total {
    lines: u64,
    bytes: u64,
    newest: Option<Timestamp>,
}

fn answer(part: &Ready, position: &Position, results: &mut [ChunkResult]) {
    for place in &part.accepted {
        results[*place] = ChunkResult::Committed {
            position: position.clone(),
        };
    }
    for place in &part.refused {
        results[*place] = ChunkResult::Conflict {
            position: position.clone(),
        };
    }
}
