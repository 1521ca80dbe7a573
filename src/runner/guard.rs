//! What every request has to pass: the size of its head, and the API key where one is needed.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::time::timeout;

use super::{FREE_PATH, STORED_PATH, refusal::Refusal, server::Server};

/// The largest head of a request, in bytes. The server itself takes twice as much, so that it can say so.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Of a body that is too large, so much is read and thrown away, so that the client gets to read the answer.
const MAX_DISCARDED_BYTES: usize = 64 << 20;
/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Paths of the kubelet, the operator and other runners, who have no key.
const OPEN: [&str; 4] = ["/livez", "/readyz", STORED_PATH, FREE_PATH];

/// Name of the API key that a request has shown.
#[derive(Clone, Debug, Default)]
pub struct KeyName(pub Option<String>);

/// Lets a request pass or answers it.
pub async fn guard(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    match check(&server, request.uri(), request.headers()) {
        Ok(name) => {
            request.extensions_mut().insert(name);
            next.run(request).await
        }
        Err(refusal) => {
            discard(request.into_body()).await;
            refusal.into_response()
        }
    }
}

fn check(server: &Server, uri: &Uri, headers: &HeaderMap) -> Result<KeyName, Refusal> {
    let address = uri.path_and_query().map_or(0, |text| text.as_str().len());
    let bytes = headers.iter().fold(address, |sum, (name, value)| {
        sum + name.as_str().len() + value.len()
    });
    if bytes > MAX_HEAD_BYTES {
        return Err(Refusal::large_head(MAX_HEAD_BYTES));
    }
    match &server.keys {
        Some(keys) if !OPEN.contains(&uri.path()) => keys.check(headers).map(Some).map(KeyName),
        _ => Ok(KeyName(None)),
    }
}

/// Reads a body that nobody wants: unread, it would break the connection before the client has read the answer.
pub async fn discard(body: Body) {
    let _ = timeout(BODY_TIMEOUT, read_body(body, 0)).await;
}

/// Reads a body of at most `max` bytes, which has to arrive in time.
pub async fn receive(body: Body, max: usize) -> Result<Bytes, Refusal> {
    timeout(BODY_TIMEOUT, read_body(body, max))
        .await
        .map_err(|_| Refusal::slow_body(BODY_TIMEOUT.as_secs()))?
}

async fn read_body(body: Body, max: usize) -> Result<Bytes, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut read) = (BytesMut::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Refusal::broken_body(&e.to_string()))?;
        read += chunk.len();
        if read <= max {
            kept.extend_from_slice(&chunk);
        } else {
            kept = BytesMut::new();
        }
        if read > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if read > max {
        return Err(Refusal::too_large());
    }
    Ok(kept.freeze())
}
