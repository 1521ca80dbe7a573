//! Whether a bearer token is one of an agent: asked of the API server, and remembered for a short while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};

use crate::ingest::wire::AUDIENCE;

/// How long an answer is believed.
const TTL: Duration = Duration::from_mins(1);
/// Answers remembered at most.
const REMEMBERED: usize = 1_024;
/// Longest time for asking.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where the API server says on which node the token's pod runs.
const NODE: &str = "authentication.kubernetes.io/node-name";

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Name of its account.
    pub name: String,
    /// Its node, where the token is bound to a pod.
    pub node: Option<String>,
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not one of an agent.
    #[error("{0}")]
    Rejected(String),
    /// Nobody could say.
    #[error("{0}")]
    Unavailable(String),
}

type Answer = Result<Agent, String>;

/// Checks tokens.
pub struct AgentTokens {
    client: Client,
    /// `system:serviceaccount:<namespace>:<name>`.
    account: String,
    /// By the hash of the token, so that no token lies around in memory.
    answers: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
}

impl AgentTokens {
    /// Accepts the tokens of this `ServiceAccount`.
    pub fn new(client: Client, namespace: &str, service_account: &str) -> Self {
        Self {
            client,
            account: format!("system:serviceaccount:{namespace}:{service_account}"),
            answers: Mutex::default(),
        }
    }

    /// Whose token it is.
    pub async fn check(&self, token: &str) -> Result<Agent, TokenError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(answer) = self.remembered(&hash) {
            return answer.map_err(TokenError::Rejected);
        }
        let answer = judge(&self.ask(token).await?, &self.account);
        self.remember(hash, answer.clone());
        answer.map_err(TokenError::Rejected)
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, TokenError> {
        let unavailable =
            |why: String| TokenError::Unavailable(format!("the API server does not answer: {why}"));
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let parameters = PostParams::default();
        match tokio::time::timeout(TIMEOUT, reviews.create(&parameters, &review)).await {
            Ok(Ok(answer)) => Ok(answer.status.unwrap_or_default()),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("too slow".to_owned())),
        }
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(hash)?;
        (at.elapsed() < TTL).then(|| answer.clone())
    }

    fn remember(&self, hash: [u8; 32], answer: Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            answers.retain(|_, (at, _)| at.elapsed() < TTL);
        }
        if answers.len() >= REMEMBERED {
            answers.clear();
        }
        answers.insert(hash, (Instant::now(), answer));
    }
}

fn judge(status: &TokenReviewStatus, account: &str) -> Answer {
    if status.authenticated != Some(true) {
        return Err("the API server does not know the token, or it is not for this audience".to_owned());
    }
    // An API server that knows no audiences would let every token through.
    if !status
        .audiences
        .iter()
        .flatten()
        .any(|audience| audience == AUDIENCE)
    {
        return Err(format!("the token is not for the audience {AUDIENCE}"));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if name != account {
        return Err(format!("{name} is not the account of the agents, {account}"));
    }
    let node = user
        .extra
        .and_then(|mut extra| extra.remove(NODE)?.into_iter().next());
    Ok(Agent { name, node })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ACCOUNT: &str = "system:serviceaccount:scriptscope:scriptscope-agent";

    fn judged(status: &Value) -> Answer {
        judge(&serde_json::from_value(status.clone()).unwrap(), ACCOUNT)
    }

    #[test]
    fn the_account_of_the_agents_is_let_in_with_its_node() {
        let agent = judged(&json!({
            "authenticated": true, "audiences": [AUDIENCE],
            "user": { "username": ACCOUNT, "extra": { NODE: ["node0"] } }
        }));
        let expected = Agent {
            name: ACCOUNT.into(),
            node: Some("node0".into()),
        };
        assert_eq!(agent, Ok(expected));
    }

    #[test]
    fn nobody_else_is() {
        let user = json!({ "username": ACCOUNT });
        for (status, why) in [
            (json!({}), "does not know the token"),
            (json!({ "authenticated": true, "user": user }), "audience"),
            (
                json!({ "authenticated": true, "audiences": ["other"], "user": user }),
                "audience",
            ),
            (
                json!({ "authenticated": true, "audiences": [AUDIENCE],
                        "user": { "username": "system:serviceaccount:other:scriptscope-agent" } }),
                "is not the account",
            ),
        ] {
            let refused = judged(&status).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
