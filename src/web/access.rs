//! Who asks, and what they may see: bearer tokens and rights of Kubernetes.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::pki_types::UnixTime;

use crate::{api::GROUP, ingest::wire::AUDIENCE};

use super::{
    cache::{Cache, key_of},
    certificates::{Authorities, CertificateError, Chain},
};

/// How long the API server may take, waiting for a place included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Reviews under way at once.
const AT_ONCE: usize = 16;
/// How long a yes is believed; a right that is taken away ends within this time.
const YES: Duration = Duration::from_secs(30);
/// How long a no is believed; a right that is given begins within this time.
const NO: Duration = Duration::from_secs(10);
/// Entries of each cache.
const ENTRIES: usize = 4_096;

/// Somebody whose token is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name in Kubernetes, such as `system:serviceaccount:shop:reader`.
    pub username: String,
    /// Unique id, where Kubernetes gives one.
    pub uid: Option<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the authenticator says.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Something one may or may not do with `customscripts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission<'a> {
    /// Verb of the Kubernetes API.
    pub verb: &'a str,
    /// `runs`, `logs`, or empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty for all.
    pub namespace: &'a str,
    /// Name of the script; empty for all.
    pub name: &'a str,
}

impl<'a> Permission<'a> {
    /// Reading a subresource of a script.
    pub fn get(subresource: &'a str, namespace: &'a str, name: &'a str) -> Self {
        Self {
            verb: "get",
            subresource,
            namespace,
            name,
        }
    }
}

/// Why there is no answer to "who" or "may they".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The token is not good.
    #[error("the token is not valid")]
    Unauthenticated,
    /// The token is good, but not that of the agent.
    #[error("{username} is not the node agent")]
    WrongUser {
        /// Whose token it is.
        username: String,
    },
    /// The client certificate is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The API server can not be asked.
    #[error("the Kubernetes API server could not be asked")]
    Unavailable,
}

/// Knows readers and their rights.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Whose token it is.
    async fn identify(&self, token: &str) -> Result<Identity, AccessError>;

    /// Whose client certificate it is; its holder has proved to have the key.
    async fn identify_certificate(&self, _chain: &Chain) -> Result<Identity, AccessError> {
        Err(AccessError::Unauthenticated)
    }

    /// Whether they may do it.
    async fn allowed(&self, identity: &Identity, permission: &Permission<'_>) -> Result<bool, AccessError>;
}

/// [`Access`] by the reviews of the Kubernetes API server, remembered for a short while. Tokens are kept as hashes only.
pub struct KubeAccess {
    client: Client,
    agent: String,
    readers: Cache<Result<Identity, AccessError>>,
    agents: Cache<Result<Identity, AccessError>>,
    rights: Cache<bool>,
    authorities: Arc<Authorities>,
    places: Semaphore,
}

impl KubeAccess {
    /// `agent_namespace` and `agent_service_account` name the `ServiceAccount` whose tokens [`Self::review_agent`] takes.
    pub fn new(client: Client, agent_namespace: &str, agent_service_account: &str) -> Self {
        Self {
            client,
            agent: format!("system:serviceaccount:{agent_namespace}:{agent_service_account}"),
            readers: Cache::new(ENTRIES),
            agents: Cache::new(ENTRIES),
            rights: Cache::new(ENTRIES),
            authorities: Arc::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }

    /// Whose word on client certificates is believed; nobody's so far.
    pub fn authorities(&self) -> &Arc<Authorities> {
        &self.authorities
    }

    /// The node agent whose token it is: of the audience [`AUDIENCE`] and of the agent's own
    /// `ServiceAccount`.
    pub async fn review_agent(&self, token: &str) -> Result<Identity, AccessError> {
        let identity = self.review(&self.agents, token, Some(AUDIENCE)).await?;
        if identity.username == self.agent {
            Ok(identity)
        } else {
            Err(AccessError::WrongUser {
                username: identity.username,
            })
        }
    }

    async fn review(
        &self,
        known: &Cache<Result<Identity, AccessError>>,
        token: &str,
        audience: Option<&str>,
    ) -> Result<Identity, AccessError> {
        let key = key_of(token.as_bytes());
        if let Some(result) = known.get(&key) {
            return result;
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: audience.map(|a| vec![a.to_owned()]),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = self
            .ask("token", api.create(&PostParams::default(), &review))
            .await?;
        let result = identity_in(answer, audience).ok_or(AccessError::Unauthenticated);
        known.insert(key, result.clone(), if result.is_ok() { YES } else { NO });
        result
    }

    /// Calls the API server, with patience and without a crowd.
    async fn ask<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, AccessError> {
        let answer = tokio::time::timeout(PATIENCE, async {
            // Closed never: nobody closes it.
            let _place = self.places.acquire().await;
            call.await
        })
        .await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                // The body of the request, with the token in it, is no part of the error.
                tracing::warn!(%error, review = what, "A review by the API server failed.");
                Err(AccessError::Unavailable)
            }
            Err(_) => {
                tracing::warn!(review = what, "The API server did not answer a review in time.");
                Err(AccessError::Unavailable)
            }
        }
    }
}

#[async_trait]
impl Access for KubeAccess {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        self.review(&self.readers, token, None).await
    }

    async fn identify_certificate(&self, chain: &Chain) -> Result<Identity, AccessError> {
        Ok(self.authorities.identify(chain, UnixTime::now())?)
    }

    async fn allowed(&self, identity: &Identity, permission: &Permission<'_>) -> Result<bool, AccessError> {
        let spec = access_spec(identity, permission);
        let key = key_of(&serde_json::to_vec(&spec).map_err(|_| AccessError::Unavailable)?);
        if let Some(allowed) = self.rights.get(&key) {
            return Ok(allowed);
        }
        let review = SubjectAccessReview {
            spec,
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = self
            .ask("access", api.create(&PostParams::default(), &review))
            .await?;
        let allowed = answer.status.is_some_and(|s| s.allowed && s.denied != Some(true));
        self.rights.insert(key, allowed, if allowed { YES } else { NO });
        Ok(allowed)
    }
}

/// The user of a review that went well. An API server that knows nothing of audiences does not repeat the one asked
/// for; its word does not count.
fn identity_in(review: TokenReview, audience: Option<&str>) -> Option<Identity> {
    let status = review.status?;
    let for_us = audience.is_none_or(|audience| {
        status
            .audiences
            .as_deref()
            .unwrap_or_default()
            .iter()
            .any(|a| a == audience)
    });
    if status.authenticated != Some(true) || !for_us {
        return None;
    }
    let UserInfo {
        username,
        uid,
        groups,
        extra,
    } = status.user?;
    Some(Identity {
        username: username.filter(|name| !name.is_empty())?,
        uid,
        groups: groups.unwrap_or_default(),
        extra: extra.unwrap_or_default(),
    })
}

fn access_spec(identity: &Identity, permission: &Permission<'_>) -> SubjectAccessReviewSpec {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReviewSpec {
        user: Some(identity.username.clone()),
        uid: identity.uid.clone(),
        groups: Some(identity.groups.clone()),
        extra: (!identity.extra.is_empty()).then(|| identity.extra.clone()),
        resource_attributes: Some(ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some("customscripts".to_owned()),
            verb: Some(permission.verb.to_owned()),
            subresource: some(permission.subresource),
            namespace: some(permission.namespace),
            name: some(permission.name),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    }
}

#[cfg(test)]
mod tests;
