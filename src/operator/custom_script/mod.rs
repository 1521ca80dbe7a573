//! The controller of `CustomScript`: dereference, validate, build, apply, status.
//!
//! There is no finalizer: pods, Service and source belong to the object and the garbage collector takes them, the data
//! stays by design, and a deployment whose object is gone is ended by [`super::departed`]. So deleting an object never
//! waits for the operator.

mod adopt;
pub mod adopted;
mod adopted_status;
mod apply;
mod attempt;
mod autoscaling;
mod build;
pub mod change;
mod dereference;
pub mod display;
mod endpoint;
mod failure;
pub mod figures;
mod fingerprint;
#[cfg(test)]
mod fixtures;
mod reconcile;
pub mod recorded;
mod rollout;
mod source;
mod status;
mod validate;

pub(super) use status::endpoint as address_of;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service},
};
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt,
        controller::{self, Action},
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use build::{Images, RUNNER_PORT, is_runner};
pub use dereference::Dereferenced;
pub use display::{display, duration, metrics, rate};
pub use failure::Failure;
pub use validate::retention;

use super::{
    Scope,
    context::{Backoff, Context, ReconcilerError},
    health::Part,
    watches::{self, WatchBackoff},
};
use crate::{
    api::{CustomScript, labels},
    store::StoreError,
};

/// Name of the controller in metrics and logs.
const NAME: &str = "customscript";
/// Objects reconciled at once.
const CONCURRENCY: u16 = 8;
/// A reconciliation asks the cluster and the store a dozen things; one that takes longer is tried again.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// The status is no JSON.
    #[error("the status can not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It took too long.
    #[error("not done within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    /// The API server handed out an object without name, namespace or UID.
    #[error("the object has no {0}")]
    NoMetadata(&'static str),
}

impl ReconcilerError for Error {
    fn category(&self) -> &'static str {
        match self {
            Self::Kube(kube::Error::Api(_)) => "api",
            Self::Kube(_) => "connection",
            Self::Store(_) => "store",
            Self::Json(_) => "json",
            Self::Timeout => "timeout",
            Self::NoMetadata(_) => "metadata",
        }
    }
}

/// What the controller's functions are given.
struct Shared {
    context: Arc<Context>,
    backoff: Backoff<ObjectRef<CustomScript>>,
}

/// Watches all scripts of the scope, filling the store behind `writer` (`listed` begins when it is full), and hands on those that changed otherwise than
/// in their status, which only the operator writes.
pub fn changes(
    scope: &Scope,
    client: kube::Client,
    writer: Writer<CustomScript>,
    listed: Part,
) -> impl Stream<Item = Result<CustomScript, watcher::Error>> + Send + 'static {
    watcher(scope.api::<CustomScript>(client), watcher::Config::default())
        .backoff(WatchBackoff::default())
        .modify(recorded::keep_author)
        .reflect(writer)
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                listed.ready();
            }
        })
        .touched_objects()
        .predicate_filter(relevant(), PredicateConfig::default())
}

fn relevant() -> impl Predicate<CustomScript> + Send + 'static {
    |object: &CustomScript| {
        let mut hasher = DefaultHasher::new();
        let meta = &object.metadata;
        meta.generation.hash(&mut hasher);
        meta.annotations.hash(&mut hasher);
        meta.deletion_timestamp.is_some().hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// Which script.
pub type ScriptRef = ObjectRef<CustomScript>;

/// Runs the controller until it is told to stop; what is under way then is finished. `touched` names scripts whose pods
/// have changed.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    scripts: Store<CustomScript>,
    changes: impl Stream<Item = Result<CustomScript, watcher::Error>> + Send + 'static,
    touched: mpsc::Receiver<ScriptRef>,
    resync: impl Stream<Item = ()> + Send + 'static,
    shutdown: CancellationToken,
) {
    let client = context.client.clone();
    let ours = watcher::Config::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER));
    let config_maps: Api<PartialObjectMeta<ConfigMap>> = scope.api(client.clone());
    let (readers, adopters) = (scripts.clone(), scripts.clone());
    let shared = Arc::new(Shared {
        context,
        backoff: Backoff::default(),
    });
    Controller::for_stream(changes, scripts)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .trigger_backoff(WatchBackoff::default())
        .owns(scope.api::<Deployment>(client.clone()), ours.clone())
        .owns(scope.api::<Service>(client.clone()), ours)
        .reconcile_on(stream::unfold(touched, |mut touched| async {
            Some((touched.recv().await?, touched))
        }))
        .watches(config_maps, watcher::Config::default(), move |map| {
            readers_of(&readers, &map)
        })
        .watches(
            scope.api::<PartialObjectMeta<Deployment>>(client.clone()),
            watcher::Config::default(),
            move |deployment| adopters_of(&adopters, &deployment),
        )
        .reconcile_all_on(resync)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, error_policy, shared)
        .for_each(|result| {
            report(result);
            std::future::ready(())
        })
        .await;
}

/// The scripts whose source is this `ConfigMap`.
fn readers_of(
    scripts: &Store<CustomScript>,
    map: &PartialObjectMeta<ConfigMap>,
) -> Vec<ObjectRef<CustomScript>> {
    let (namespace, name) = (map.namespace(), map.name_any());
    let reads = |script: &CustomScript| {
        let source = script.spec.source.as_ref();
        let reference = source.and_then(|source| source.config_map_ref.as_ref());
        reference.is_some_and(|reference| reference.name == name)
    };
    scripts
        .state_filter(|script| script.namespace() == namespace && reads(script))
        .iter()
        .map(|script| ObjectRef::from_obj(script.as_ref()))
        .collect()
}

/// The scripts that name this Deployment.
fn adopters_of(
    scripts: &Store<CustomScript>,
    deployment: &PartialObjectMeta<Deployment>,
) -> Vec<ObjectRef<CustomScript>> {
    let (namespace, name) = (deployment.namespace(), deployment.name_any());
    let names = |script: &CustomScript| {
        let workload = script.spec.workload.as_ref();
        workload.is_some_and(|workload| workload.deployment_ref.name == name)
    };
    scripts
        .state_filter(|script| script.namespace() == namespace && names(script))
        .iter()
        .map(|script| ObjectRef::from_obj(script.as_ref()))
        .collect()
}

async fn reconcile(object: Arc<CustomScript>, shared: Arc<Shared>) -> Result<Action, Error> {
    let leadership = &shared.context.leadership;
    if !leadership.leads() {
        // When it does, every script is looked at.
        return Ok(Action::await_change());
    }
    let began = Instant::now();
    let work = Box::pin(leadership.hold(reconcile::reconcile(&object, &shared.context)));
    let Some(result) = tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or(Some(Err(Error::Timeout)))
    else {
        return Ok(Action::await_change());
    };
    let category = result.as_ref().err().map(ReconcilerError::category);
    shared.context.metrics.reconciled(NAME, began.elapsed(), category);
    if result.is_ok() {
        shared.backoff.succeeded(&ObjectRef::from_obj(object.as_ref()));
    }
    result
}

#[allow(clippy::needless_pass_by_value)] // as the controller wants it
fn error_policy(object: Arc<CustomScript>, error: &Error, shared: Arc<Shared>) -> Action {
    if matches!(error, Error::NoMetadata(_)) {
        return Action::await_change();
    }
    Action::requeue(shared.backoff.failed(ObjectRef::from_obj(object.as_ref())))
}

fn report(result: Result<(ObjectRef<CustomScript>, Action), controller::Error<Error, watcher::Error>>) {
    match result {
        Ok((object, _)) => tracing::debug!(%object, "Reconciled."),
        Err(controller::Error::ObjectNotFound(object)) => tracing::debug!(%object, "The object is gone."),
        Err(controller::Error::ReconcilerFailed(error, object)) => {
            tracing::warn!(%object, %error, category = error.category(), "A reconciliation failed.");
        }
        Err(error) => watches::failed(NAME, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CustomScriptStatus, NameRef, Source};

    #[test]
    fn a_status_alone_reconciles_nothing() {
        let before = fixtures::script();
        let mut after = before.clone();
        after.status = Some(CustomScriptStatus::default());
        after.metadata.resource_version = Some("2".into());
        assert_eq!(
            relevant().hash_property(&before),
            relevant().hash_property(&after)
        );
        after.metadata.annotations = Some([(labels::REDEPLOY.to_owned(), "1".to_owned())].into());
        assert_ne!(
            relevant().hash_property(&before),
            relevant().hash_property(&after)
        );
    }

    #[test]
    fn a_config_map_wakes_the_scripts_that_read_it() {
        let mut object = fixtures::script();
        object.spec.source = Some(Source {
            config_map_ref: Some(NameRef { name: "code".into() }),
            ..Source::default()
        });
        let (reader, mut writer) = kube::runtime::reflector::store::<CustomScript>();
        writer.apply_watcher_event(&watcher::Event::Apply(object));
        let map = |namespace: &str, name: &str| -> PartialObjectMeta<ConfigMap> {
            serde_json::from_value(
                serde_json::json!({ "metadata": { "namespace": namespace, "name": name } }),
            )
            .unwrap()
        };
        assert_eq!(readers_of(&reader, &map("shop", "code")).len(), 1);
        assert_eq!(readers_of(&reader, &map("shop", "other")).len(), 0);
        assert_eq!(readers_of(&reader, &map("other", "code")).len(), 0);
    }
}
