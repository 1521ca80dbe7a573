//! Follows one container's log through the API and appends it to the container's stream.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::AsyncBufRead;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Api, Client, api::LogParams};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    lines::Lines,
    resume::{ENDED, Line, Matcher, Resume},
};
use crate::ingest::{
    AgentIdentity, Ingest, IngestError,
    wire::{Chunk, ChunkHeader, ChunkResult, END_OF_STREAM, GapReason, Position, StreamKey, StreamState},
};

/// How long lines wait for more lines before they are stored.
const GATHER: Duration = Duration::from_millis(200);
/// So many bytes are stored at once.
const MAX_CHUNK_BYTES: usize = 512 << 10;
/// A connection on which nothing comes for so long may be dead without anybody noticing; another one is made.
const IDLE: Duration = Duration::from_mins(2);
/// Pauses between two connections.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why following stopped for now.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the API server does not send the log: {0}")]
    Api(#[from] kube::Error),
    #[error("the connection broke: {0}")]
    Read(#[from] io::Error),
    #[error("the lines can not be stored: {0}")]
    Store(#[from] IngestError),
    /// Somebody else has appended, or the stream is not known any more.
    #[error("the stream does not stand where it was left")]
    Moved,
}

/// How a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It prints.
    Running,
    /// It is no more; its log can be read: the current one's, or that of the container before it.
    Over { previous: bool },
    /// Its log can not be read any more.
    Gone,
}

/// Follows the log of a container from where its stream stands, until the container is no more and its log is read.
pub(super) async fn follow(client: Client, ingest: Arc<Ingest>, key: StreamKey) {
    let follower = Follower {
        pods: Api::namespaced(client, &key.namespace),
        ingest,
        key,
    };
    let mut failures = 0;
    // Whether the log was last seen to end, and not the connection to break.
    let mut at_end = false;
    loop {
        match follower.round(&mut at_end).await {
            Ok(true) => return,
            Ok(false) => failures = 0,
            Err(error) => {
                at_end = false;
                failures += 1;
                tracing::debug!(pod = follower.key.pod, %error, "Following a log was interrupted.");
            }
        }
        let pause = PAUSE.0 * 2_u32.saturating_pow(failures).min(64);
        sleep(pause.min(PAUSE.1)).await;
    }
}

struct Follower {
    pods: Api<Pod>,
    ingest: Arc<Ingest>,
    key: StreamKey,
}

impl Follower {
    /// One connection; says whether there is nothing more to do.
    async fn round(&self, at_end: &mut bool) -> Result<bool, FollowError> {
        let states = self
            .ingest
            .states(&reader(), std::slice::from_ref(&self.key))
            .await?;
        let position = match states.into_iter().next() {
            Some(StreamState::Follow { position }) => position,
            Some(StreamState::Ignore) => return Ok(true),
            Some(StreamState::Unknown) | None => return Ok(false),
        };
        if position.file == ENDED {
            return Ok(true);
        }
        // Asked before the log is read: what was over before is read to its end.
        let standing = self.standing().await?;
        let mut tail = Tail::new(self, &position);
        let mut read_to_end = false;
        if standing != Standing::Gone {
            let params = LogParams {
                container: Some(self.key.container.clone()),
                follow: standing == Standing::Running,
                previous: standing == Standing::Over { previous: true },
                // Whole seconds already, so that nobody rounds them up.
                since_time: tail.since(),
                timestamps: true,
                ..LogParams::default()
            };
            let response = self.pods.log_stream(&self.key.pod, &params).await?;
            read_to_end = tail.read(Lines::new(std::pin::pin!(response))).await?;
        }
        match standing {
            Standing::Running => {
                *at_end = read_to_end;
                Ok(false)
            }
            Standing::Over { .. } if !read_to_end => Ok(false),
            Standing::Over { .. } => tail.end().await.map(|()| true),
            Standing::Gone => {
                // Where it was not seen to end, nobody knows what it printed last.
                tail.gap |= !*at_end;
                tail.end().await.map(|()| true)
            }
        }
    }

    async fn standing(&self) -> Result<Standing, FollowError> {
        let pod = self.pods.get_opt(&self.key.pod).await?;
        Ok(pod.map_or(Standing::Gone, |pod| standing(&pod, &self.key)))
    }
}

fn standing(pod: &Pod, key: &StreamKey) -> Standing {
    if pod.metadata.uid.as_deref() != Some(&key.pod_uid) {
        return Standing::Gone;
    }
    let Some(status) = container(pod, &key.container) else {
        return Standing::Gone;
    };
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let state = status.state.as_ref();
    if restarts == key.restart + 1 {
        Standing::Over { previous: true }
    } else if restarts != key.restart {
        Standing::Gone
    } else if state.is_some_and(|state| state.running.is_none()) {
        // Terminated, or waiting for its restart: the log of the one that ended is still the current one.
        Standing::Over { previous: false }
    } else {
        Standing::Running
    }
}

/// A container's status in its pod.
pub(super) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

/// The end of a stream, being appended to.
struct Tail<'a> {
    follower: &'a Follower,
    offset: u64,
    resume: Resume,
    matcher: Option<Matcher>,
    bytes: Vec<u8>,
    gap: bool,
    /// An agent has read it before, so it is not known which lines are stored.
    is_foreign: bool,
    /// When what is gathered is stored.
    due: Option<Instant>,
}

impl<'a> Tail<'a> {
    fn new(follower: &'a Follower, position: &Position) -> Self {
        let resume = Resume::parse(&position.file);
        let is_foreign = resume.is_none() && position.offset > 0;
        Self {
            follower,
            offset: position.offset,
            is_foreign,
            gap: is_foreign,
            matcher: resume.as_ref().and_then(Matcher::new),
            resume: resume.unwrap_or_default(),
            bytes: Vec::new(),
            due: None,
        }
    }

    /// From when on to ask for lines.
    fn since(&self) -> Option<Timestamp> {
        if self.is_foreign {
            // Rather a gap than lines twice.
            return Timestamp::from_second(Timestamp::now().as_second()).ok();
        }
        self.resume.since()
    }

    /// Stores lines as they come; says whether the response has ended, or else nothing came for long.
    async fn read<R: AsyncBufRead + Unpin>(&mut self, mut lines: Lines<R>) -> Result<bool, FollowError> {
        let mut idle = Instant::now() + IDLE;
        loop {
            let due = self.due.unwrap_or(idle);
            let line = tokio::select! {
                line = lines.next() => line,
                () = sleep_until(due) => {
                    self.settle().await?;
                    if Instant::now() >= idle {
                        return Ok(false);
                    }
                    continue;
                }
            };
            match line {
                Ok(Some(line)) => {
                    idle = Instant::now() + IDLE;
                    self.take(line).await?;
                }
                Ok(None) => return self.settle().await.map(|()| true),
                Err(error) => {
                    self.settle().await?;
                    return Err(error.into());
                }
            }
        }
    }

    async fn take(&mut self, line: Line) -> Result<(), FollowError> {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
        if let Some(matcher) = &mut self.matcher {
            if let Some(recognised) = matcher.feed(line) {
                self.matcher = None;
                self.gap |= recognised.interrupted;
                for line in recognised.fresh {
                    self.push(&line).await?;
                }
            }
            return Ok(());
        }
        self.push(&line).await
    }

    async fn push(&mut self, line: &Line) -> Result<(), FollowError> {
        line.write(&mut self.bytes);
        self.resume.note(line);
        if self.bytes.len() >= MAX_CHUNK_BYTES {
            self.store(self.resume.to_string()).await?;
        }
        Ok(())
    }

    /// Nothing more comes for now: decides what is new and stores it.
    async fn settle(&mut self) -> Result<(), FollowError> {
        self.due = None;
        if let Some(mut matcher) = self.matcher.take_if(|matcher| matcher.is_holding()) {
            let recognised = matcher.decide();
            self.gap |= recognised.interrupted;
            for line in recognised.fresh {
                self.push(&line).await?;
            }
        }
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.store(self.resume.to_string()).await
    }

    async fn end(&mut self) -> Result<(), FollowError> {
        self.settle().await?;
        self.bytes.extend_from_slice(END_OF_STREAM);
        self.store(ENDED.to_owned()).await
    }

    /// Appends what is gathered, and with it where to go on.
    async fn store(&mut self, state: String) -> Result<(), FollowError> {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let gap = self
            .gap
            .then(|| GapReason::ApiFollowInterrupted.as_str().to_owned());
        let chunk = Chunk {
            header: ChunkHeader {
                stream: self.follower.key.clone(),
                offset: self.offset,
                file: state,
                file_start: 0,
                length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                gap,
            },
            bytes,
        };
        let results = self.follower.ingest.append(&reader(), vec![chunk]).await?;
        match results.into_iter().next() {
            Some(ChunkResult::Committed { position }) => {
                self.offset = position.offset;
                self.gap = false;
                self.due = None;
                Ok(())
            }
            _ => Err(FollowError::Moved),
        }
    }
}

/// The operator itself, which speaks for pods of any node.
fn reader() -> AgentIdentity {
    AgentIdentity {
        name: "collection through the API".to_owned(),
        node: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn standing_of(restarts: i32, state: &serde_json::Value, restart: u32) -> Standing {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "status": {"containerStatuses": [{
                "name": "script", "image": "i", "imageID": "", "ready": true, "restartCount": restarts, "state": state,
            }]}
        }))
        .unwrap();
        let key = StreamKey {
            namespace: "shop".into(),
            pod: "p".into(),
            pod_uid: "u".into(),
            container: "script".into(),
            restart,
        };
        standing(&pod, &key)
    }

    #[test]
    fn a_log_is_followed_while_its_container_runs_and_read_while_it_is_kept() {
        let (running, ended) = (json!({"running": {}}), json!({"terminated": {"exitCode": 0}}));
        assert_eq!(standing_of(0, &running, 0), Standing::Running);
        assert_eq!(standing_of(2, &ended, 2), Standing::Over { previous: false });
        assert_eq!(standing_of(1, &running, 0), Standing::Over { previous: true });
        assert_eq!(standing_of(2, &running, 0), Standing::Gone);
    }
}
