//! Pods that print, as the agent would ship it.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use bytes::Bytes;
use jiff::Timestamp;
use scriptscope::{
    ingest::{
        Ingest, router,
        wire::{BATCHES_PATH, Chunk, ChunkHeader, STREAMS_PATH, StreamKey, StreamsRequest, encode_batch},
    },
    metrics::Metrics,
    model::ScriptKey,
    store::{PodRecord, Store},
};
use serde_json::Value;
use tokio::sync::Mutex;
use tower::ServiceExt;

use crate::anybody::{AnyAgent, NoOthers};

/// Bytes shipped at once.
const CHUNK: usize = 1 << 20;
const NODE: &str = "node-1";

/// One pod a script and version.
pub struct Feed {
    store: Arc<dyn Store>,
    ingest: Router,
    offsets: Mutex<HashMap<StreamKey, u64>>,
}

impl Feed {
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let ingest = Ingest::new(store.clone(), Arc::new(AnyAgent), Arc::new(NoOthers), metrics);
        Self {
            store,
            ingest: router(Arc::new(ingest)),
            offsets: Mutex::default(),
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Value {
        let request = Request::post(path).header(header::AUTHORIZATION, "Bearer agent");
        let request = request.body(Body::from(body)).unwrap();
        let response = self.ingest.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// The pod of a version, known to the store.
    pub async fn pod(&self, script: &ScriptKey, version: i64) -> StreamKey {
        let pod = PodRecord {
            uid: format!("{}-{}-{version}", script.namespace, script.name),
            name: format!("{}-{version}-x7k2p", script.name),
            container: "script".into(),
            script: script.clone(),
            version,
            deployment_id: format!("{}-{version}", script.name),
        };
        self.store.register_pod(&pod).await.unwrap();
        StreamKey {
            namespace: script.namespace.clone(),
            pod: pod.name,
            pod_uid: pod.uid,
            container: pod.container,
            restart: 0,
        }
    }

    /// Has a pod print lines, and waits until they are stored.
    pub async fn print(&self, script: &ScriptKey, version: i64, lines: &[Value]) {
        let now = Timestamp::now();
        let text: Vec<String> = lines
            .iter()
            .map(|line| format!("{now} stdout F {line}\n"))
            .collect();
        self.ship(script, version, &text.concat(), None).await;
    }

    /// Bytes of a pod that can not be read any more, and a line after them.
    pub async fn lose(&self, script: &ScriptKey, version: i64, bytes: u64, line: &str) {
        let key = self.pod(script, version).await;
        *self.offsets.lock().await.entry(key).or_default() += bytes;
        self.ship(script, version, line, Some("FileRotatedAway")).await;
    }

    async fn ship(&self, script: &ScriptKey, version: i64, text: &str, gap: Option<&str>) {
        let key = self.pod(script, version).await;
        let mut offsets = self.offsets.lock().await;
        let offset = offsets.entry(key.clone()).or_default();
        let asked = StreamsRequest {
            node: NODE.into(),
            streams: vec![key.clone()],
            given_up: vec![],
        };
        self.post(STREAMS_PATH, serde_json::to_vec(&asked).unwrap()).await;
        let mut rest = text;
        while !rest.is_empty() {
            let cut = rest.len().min(CHUNK);
            let end = rest.as_bytes()[..cut].iter().rposition(|b| *b == b'\n').unwrap() + 1;
            let (piece, after) = rest.split_at(end);
            let chunk = Chunk {
                header: ChunkHeader {
                    stream: key.clone(),
                    offset: *offset,
                    file: "f".into(),
                    file_start: 0,
                    length: 0,
                    gap: gap.map(ToOwned::to_owned),
                },
                bytes: Bytes::copy_from_slice(piece.as_bytes()),
            };
            let answer = self
                .post(BATCHES_PATH, encode_batch(NODE, &[chunk]).unwrap())
                .await;
            *offset += u64::try_from(piece.len()).unwrap();
            assert!(answer.to_string().contains(&offset.to_string()), "{answer}");
            rest = after;
        }
    }
}
