//! Requests to the operator.

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::stream;
use reqwest::{Body, Client, RequestBuilder, StatusCode, header};
use serde::{Deserialize, de::DeserializeOwned};

use super::node::Batch;
use crate::ingest::wire::{
    BATCHES_PATH, BatchResponse, ChunkResult, STREAMS_PATH, StreamKey, StreamState, StreamsRequest,
    StreamsResponse, WireError, encode_header,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// So much of an error's text is logged.
const MAX_MESSAGE: usize = 300;

/// Why the operator could not be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShipError {
    #[error("the token file {} can not be read: {error}", path.display())]
    Token { path: PathBuf, error: io::Error },
    #[error("the token file {} holds no token", .0.display())]
    EmptyToken(PathBuf),
    #[error("the operator can not be reached: {}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("the operator answered {status}: {message}")]
    Status { status: StatusCode, message: String },
    #[error("the operator's answer can not be understood: {0}")]
    Answer(String),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The operator's ingest service.
pub(super) struct Operator {
    client: Client,
    url: String,
    node: String,
    token_file: PathBuf,
}

impl Operator {
    pub fn new(url: &str, node: String, token_file: PathBuf) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(REQUEST_TIMEOUT)
                .build()?,
            url: url.trim_end_matches('/').to_owned(),
            node,
            token_file,
        })
    }

    /// What to do with each stream; and tells which are given up.
    pub async fn ask(
        &self,
        streams: &[StreamKey],
        given_up: &[StreamKey],
    ) -> Result<Vec<StreamState>, ShipError> {
        let request = StreamsRequest {
            node: self.node.clone(),
            streams: streams.to_vec(),
            given_up: given_up.to_vec(),
        };
        let body = serde_json::to_vec(&request).map_err(WireError::from)?;
        let request = self.request(STREAMS_PATH, "application/json").await?;
        let answer: StreamsResponse = answer(request.body(body)).await?;
        same_length(streams.len(), answer.streams)
    }

    /// What became of each chunk. The body goes out as it lies in memory.
    pub async fn deliver(&self, batch: Batch) -> Result<Vec<ChunkResult>, ShipError> {
        let count = batch.headers.len();
        let start = Bytes::from(encode_header(&self.node, batch.headers)?);
        let length = start.len() + batch.bytes.len();
        let parts = stream::iter([start, batch.bytes].map(Ok::<_, io::Error>));
        let request = self
            .request(BATCHES_PATH, "application/octet-stream")
            .await?
            .header(header::CONTENT_LENGTH, length)
            .body(Body::wrap_stream(parts));
        let answer: BatchResponse = answer(request).await?;
        same_length(count, answer.chunks)
    }

    async fn request(&self, path: &str, kind: &str) -> Result<RequestBuilder, ShipError> {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.bearer_auth(self.token().await?);
        Ok(request.header(header::CONTENT_TYPE, kind))
    }

    /// Read each time, since kubelet renews it.
    async fn token(&self) -> Result<String, ShipError> {
        let text = tokio::fs::read_to_string(&self.token_file).await;
        let text = text.map_err(|error| ShipError::Token {
            path: self.token_file.clone(),
            error,
        })?;
        match text.trim() {
            "" => Err(ShipError::EmptyToken(self.token_file.clone())),
            token => Ok(token.to_owned()),
        }
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ShipError> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    if !status.is_success() {
        return Err(ShipError::Status {
            status,
            message: message(&body),
        });
    }
    serde_json::from_slice(&body).map_err(|error| ShipError::Answer(error.to_string()))
}

fn same_length<T>(asked: usize, answers: Vec<T>) -> Result<Vec<T>, ShipError> {
    if answers.len() == asked {
        Ok(answers)
    } else {
        Err(ShipError::Answer(format!(
            "{} answers to {asked} questions",
            answers.len()
        )))
    }
}

fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Detail,
    }
    #[derive(Deserialize)]
    struct Detail {
        message: String,
    }
    let text = match serde_json::from_slice::<Body>(body) {
        Ok(body) => body.error.message,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE)]).into_owned(),
    };
    text.chars().take(MAX_MESSAGE).collect()
}

/// An error and its causes; the outermost alone says only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
