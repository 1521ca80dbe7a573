//! What the ingest service must be told by others: who is asking, and whose pods there are.

use async_trait::async_trait;

use super::wire::StreamKey;
use crate::store::{Gap, PodRecord};

/// Whom a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Name of the account, for logs.
    pub name: String,
    /// The node on which the agent runs, where the token says so. It may then speak for no other.
    pub node: Option<String>,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token is not one of an agent. Answered with 401.
    #[error("the token is not accepted: {0}")]
    Rejected(String),
    /// Nobody could say. Answered with 503, so that the agent tries again.
    #[error("the token can not be checked: {0}")]
    Unavailable(String),
}

/// Checks the bearer tokens of agents, of the audience [`AUDIENCE`](super::wire::AUDIENCE).
#[async_trait]
pub trait AgentAuthenticator: Send + Sync + 'static {
    /// Whom the token belongs to. Called for each request, so answers should be cached.
    async fn authenticate(&self, token: &str) -> Result<AgentIdentity, AuthError>;
}

/// What is known of a pod that the store does not follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodKnowledge {
    /// It is a script's pod; the output of this container is the script's, that of others is not.
    Script {
        /// Name of the container.
        container: String,
    },
    /// It belongs to no script.
    NotAScript,
    /// The pod has not been seen yet.
    Unseen,
}

/// The pods of the cluster, as the controllers watch them.
pub trait PodDirectory: Send + Sync + 'static {
    /// What is known of the pod with this UID in this namespace. Must not block.
    fn knows(&self, namespace: &str, pod_uid: &str) -> PodKnowledge;

    /// Whether what the pod prints is to be stored, where the store knows it: a script may cease to adopt it. Must not block.
    fn is_collected(&self, _pod_uid: &str) -> bool {
        true
    }

    /// Whether the pod runs on this node, for all that is known; an agent of another node may not speak for it. Must not
    /// block.
    fn may_be_on(&self, _pod_uid: &str, _node: &str) -> bool {
        true
    }
}

/// Is told what agents have said, once that is committed. Nothing here may block.
pub trait CommitListener: Send + Sync + 'static {
    /// The runner in this pod ends, and its last record is committed; the runner waits for its `token`.
    fn runner_stopped(&self, pod: &PodRecord, token: &str);

    /// Something that this pod printed could not be read.
    fn gap_recorded(&self, pod: &PodRecord, gap: &Gap);

    /// An agent has let go of a deleted pod's log, since nobody here ever knew the pod.
    fn given_up(&self, stream: &StreamKey);
}
