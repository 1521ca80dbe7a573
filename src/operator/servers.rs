//! The servers for agents and readers, and what they ask of the cluster: whose token it is, and whose pod.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::Router;
use kube::{Client, runtime::reflector};
use tokio_util::sync::CancellationToken;

use super::{
    Args,
    custom_script::address_of,
    farewell::Notices,
    pod_index::{Knowledge, PodIndex},
};
use crate::{
    api::{CustomScript, labels},
    ingest::{self, AgentAuthenticator, AgentIdentity, AuthError, Ingest, PodDirectory, PodKnowledge},
    metrics::Metrics,
    store::Store,
    web::{
        self, ProxyAuth, WebState,
        access::{AccessError, KubeAccess},
        certificates::Authorities,
    },
};

/// Where the API server says on which node the pod runs that a token is bound to.
const NODE: &str = "authentication.kubernetes.io/node-name";

/// What the operator serves, besides its health.
pub struct Routers {
    /// For agents.
    pub ingest: Router,
    /// For readers.
    pub web: Router,
    /// What agents deliver to.
    pub service: Arc<Ingest>,
    /// Whose word on readers' certificates is believed.
    pub authorities: Arc<Authorities>,
}

/// The routes for agents and for readers; who may use which the API server says.
pub fn routers(
    args: &Args,
    client: &Client,
    store: &Arc<dyn Store>,
    pods: &Arc<PodIndex>,
    scripts: &reflector::Store<CustomScript>,
    (metrics, notices): (&Metrics, &Notices),
    shutdown: &CancellationToken,
) -> Routers {
    let access = KubeAccess::new(client.clone(), &args.namespace, &args.agent_service_account);
    let access = Arc::new(access);
    let authorities = Arc::clone(access.authorities());
    let ingest = Ingest::new(store.clone(), access.clone(), pods.clone(), metrics.clone())
        .with_listener(Arc::new(notices.clone()));
    let ingest = Arc::new(ingest);
    let scripts = Arc::new(scripts.clone());
    let web = WebState::new(store.clone(), access, scripts, &args.data_dir, metrics.clone())
        .with_time_limit(Duration::from_secs(args.query_seconds.into()))
        .behind(ProxyAuth::new(&args.proxy))
        .with_calls(called_at)
        .until(shutdown.clone());
    Routers {
        ingest: ingest::router(ingest.clone()),
        web: web::router(web),
        service: ingest,
        authorities,
    }
}

/// Where a script is called, while it can be. Its status alone is not believed: others may be able to write it.
fn called_at(object: &CustomScript) -> Option<String> {
    let said = object.status.as_ref()?.endpoint.as_ref()?;
    Some(address_of(object)).filter(|address| address == said)
}

#[async_trait]
impl AgentAuthenticator for KubeAccess {
    async fn authenticate(&self, token: &str) -> Result<AgentIdentity, AuthError> {
        match self.review_agent(token).await {
            Ok(mut identity) => Ok(AgentIdentity {
                node: identity
                    .extra
                    .remove(NODE)
                    .and_then(|nodes| nodes.into_iter().next()),
                name: identity.username,
            }),
            Err(AccessError::Unavailable) => {
                Err(AuthError::Unavailable(AccessError::Unavailable.to_string()))
            }
            Err(error) => Err(AuthError::Rejected(error.to_string())),
        }
    }
}

impl PodDirectory for PodIndex {
    fn knows(&self, namespace: &str, pod_uid: &str) -> PodKnowledge {
        // Pods that are not watched would be unseen for ever, and asked about as long.
        if !self.watches(namespace) {
            return PodKnowledge::NotAScript;
        }
        match self.knowledge(pod_uid) {
            Knowledge::Script => PodKnowledge::Script {
                container: self
                    .container(pod_uid)
                    .unwrap_or_else(|| labels::CONTAINER.to_owned()),
            },
            Knowledge::NotAScript => PodKnowledge::NotAScript,
            Knowledge::Unseen => PodKnowledge::Unseen,
        }
    }

    fn is_collected(&self, pod_uid: &str) -> bool {
        Self::is_collected(self, pod_uid)
    }

    fn may_be_on(&self, pod_uid: &str, node: &str) -> bool {
        Self::may_be_on(self, pod_uid, node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Scope;

    #[test]
    fn a_pod_of_a_namespace_that_is_not_watched_is_no_scripts() {
        let pods = PodIndex::new(Scope::namespace("shop"));
        assert_eq!(pods.knows("other", "uid"), PodKnowledge::NotAScript);
        assert_eq!(pods.knows("shop", "uid"), PodKnowledge::Unseen);
    }
}
