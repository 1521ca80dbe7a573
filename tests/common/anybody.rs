//! Ingest for tests of what comes after it: every agent is believed, and no pod is known but from its log.

use async_trait::async_trait;
use scriptscope::ingest::{AgentAuthenticator, AgentIdentity, AuthError, PodDirectory, PodKnowledge};

pub struct AnyAgent;

#[async_trait]
impl AgentAuthenticator for AnyAgent {
    async fn authenticate(&self, _: &str) -> Result<AgentIdentity, AuthError> {
        Ok(AgentIdentity {
            name: "agent".to_owned(),
            node: None,
        })
    }
}

pub struct NoOthers;

impl PodDirectory for NoOthers {
    fn knows(&self, _: &str, _: &str) -> PodKnowledge {
        PodKnowledge::Unseen
    }
}
