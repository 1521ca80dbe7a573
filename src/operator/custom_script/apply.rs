//! Fourth step: makes the cluster hold what was built, and takes away what is not used any more.

use std::collections::BTreeSet;

use k8s_openapi::{
    Resource as _,
    api::{
        apps::v1::{Deployment, ReplicaSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, PodSpec, Service},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde_json::json;

use super::{
    autoscaling::hand_over,
    build::Objects,
    dereference::Dereferenced,
    endpoint::peers_name,
    failure::Failure,
    validate::{Owner, owner},
};
use crate::{
    api::{CustomScript, labels, reasons},
    model::ScriptKey,
};

/// Name under which fields are owned.
pub const FIELD_MANAGER: &str = "scriptscope";

/// Name under which the number of pods is owned until the autoscaler takes it over.
const SCALE_MANAGER: &str = "scriptscope-scale";

/// Why it could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The attempt can not succeed like this.
    #[error("{0}")]
    Refused(Failure),
    /// The API server could not be asked; trying again helps.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// Applies the objects; returns the Deployment as the API server has it now.
pub async fn apply(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
    objects: &Objects,
    cluster: &Dereferenced,
) -> Result<Deployment, ApplyError> {
    if let Some(source) = &objects.source {
        create_source(client, key, object, source).await?;
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let services = Api::<Service>::namespaced(client.clone(), &key.namespace);
    for service in [&objects.service, &objects.peers] {
        services
            .patch(&service.name_any(), &parameters, &Patch::Apply(service))
            .await
            .map_err(|error| refusal(error, "Service"))?;
    }
    if objects.autoscaler.is_none() {
        remove_autoscaler(client, key, object, cluster).await?;
    }
    let deployments = Api::<Deployment>::namespaced(client.clone(), &key.namespace);
    let apply = || async {
        deployments
            .patch(&key.name, &parameters, &Patch::Apply(&objects.deployment))
            .await
            .map_err(|error| refusal(error, "Deployment"))
    };
    let before = cluster.deployment.as_ref();
    let deployment = match hand_over(before, &object.spec.replicas) {
        None => apply().await?,
        Some(pods) if before.is_some() => {
            give(&deployments, &key.name, pods).await?;
            apply().await?
        }
        Some(pods) => {
            apply().await?;
            give(&deployments, &key.name, pods).await?
        }
    };
    if let Some(autoscaler) = &objects.autoscaler {
        Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &key.namespace)
            .patch(&key.name, &parameters, &Patch::Apply(autoscaler))
            .await
            .map_err(|error| refusal(error, "HorizontalPodAutoscaler"))?;
    }
    Ok(deployment)
}

/// Gives the Deployment a number of pods that stays until the autoscaler changes it.
async fn give(deployments: &Api<Deployment>, name: &str, pods: i32) -> Result<Deployment, ApplyError> {
    let scale = json!({
        "apiVersion": Deployment::API_VERSION,
        "kind": Deployment::KIND,
        "metadata": { "name": name },
        "spec": { "replicas": pods },
    });
    let parameters = PatchParams::apply(SCALE_MANAGER).force();
    deployments
        .patch(name, &parameters, &Patch::Apply(scale))
        .await
        .map_err(|error| refusal(error, "Deployment"))
}

/// Removes the script's autoscaler, if there is one.
async fn remove_autoscaler(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
    cluster: &Dereferenced,
) -> Result<(), kube::Error> {
    if owner(cluster.autoscaler.as_ref(), object) != Owner::Us {
        return Ok(());
    }
    let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &key.namespace);
    gone(autoscalers.delete(&key.name, &DeleteParams::default()).await)
}

/// It never changes, so it is created or already there.
async fn create_source(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
    source: &ConfigMap,
) -> Result<(), ApplyError> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &key.namespace);
    let name = source.name_any();
    match maps.get_opt(&name).await? {
        None => match maps.create(&PostParams::default(), source).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(error, "ConfigMap")),
        },
        Some(found) if owner(Some(&found.metadata), object) == Owner::Us => Ok(()),
        Some(_) => {
            let message = format!("ConfigMap {name} exists and belongs to somebody else; delete it");
            Err(ApplyError::Refused(Failure::new(reasons::REJECTED, message)))
        }
    }
}

/// The API server's no is the answer to give to the user; everything else is tried again.
fn refusal(error: kube::Error, kind: &str) -> ApplyError {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            ApplyError::Refused(Failure::new(
                reasons::REJECTED,
                format!("the API server refuses the {kind}: {}", status.message),
            ))
        }
        error => ApplyError::Kube(error),
    }
}

/// Takes a script down step by step: no new calls, no new pods, and once the pods are gone nothing is left of it.
/// Scaling to zero before deleting keeps the owners of the pods, by which what they print is recognised, until they are
/// gone. Returns whether that is so. `pods` is how many are left.
pub async fn undeploy(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
    cluster: &Dereferenced,
    pods: usize,
) -> Result<bool, kube::Error> {
    let services = Api::<Service>::namespaced(client.clone(), &key.namespace);
    if owner(cluster.service.as_ref(), object) == Owner::Us {
        gone(services.delete(&key.name, &DeleteParams::default()).await)?;
    }
    // First, or it would scale up again what is scaled to zero.
    remove_autoscaler(client, key, object, cluster).await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), &key.namespace);
    let live = cluster.deployment.as_ref();
    if let Some(live) = live.filter(|live| owner(Some(&live.metadata), object) == Owner::Us) {
        if live.spec.as_ref().and_then(|spec| spec.replicas) != Some(0) {
            let zero = json!({ "spec": { "replicas": 0 } });
            let parameters = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            deployments
                .patch(&key.name, &parameters, &Patch::Merge(zero))
                .await?;
            return Ok(false);
        }
        if pods > 0 || !is_at_zero(live) {
            return Ok(false);
        }
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        gone(deployments.delete(&key.name, &parameters).await)?;
    }
    // Until here pods that stop could be asked for their runs.
    if owner(cluster.peers.as_ref(), object) == Owner::Us {
        gone(
            services
                .delete(&peers_name(&key.name), &DeleteParams::default())
                .await,
        )?;
    }
    remove_sources(client, key, object, &BTreeSet::new()).await?;
    Ok(pods == 0)
}

fn is_at_zero(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    status.is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation && status.replicas.unwrap_or(0) == 0
    })
}

/// Removes the source of versions that run no more. To be called when no rollout is under way.
pub async fn remove_old_sources(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
    deployment: &Deployment,
) -> Result<(), kube::Error> {
    let template = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let mut keep = sources_of(template);
    let selector = ListParams::default().labels(&format!("{}={}", labels::SCRIPT, key.name));
    let sets = Api::<ReplicaSet>::namespaced(client.clone(), &key.namespace);
    for set in sets.list(&selector).await? {
        let spec = set.spec.unwrap_or_default();
        if spec.replicas.unwrap_or(1) > 0 || set.status.is_none_or(|status| status.replicas > 0) {
            keep.extend(sources_of(spec.template.and_then(|t| t.spec).as_ref()));
        }
    }
    remove_sources(client, key, object, &keep).await
}

fn sources_of(pod: Option<&PodSpec>) -> BTreeSet<String> {
    pod.and_then(|pod| pod.volumes.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|volume| volume.config_map.as_ref().map(|map| map.name.clone()))
        .collect()
}

async fn remove_sources(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
    keep: &BTreeSet<String>,
) -> Result<(), kube::Error> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &key.namespace);
    let selector = format!(
        "{}={},{}={}",
        labels::SCRIPT,
        key.name,
        labels::MANAGED_BY,
        labels::MANAGER
    );
    for map in maps
        .list_metadata(&ListParams::default().labels(&selector))
        .await?
    {
        let name = map.name_any();
        if owner(Some(&map.metadata), object) == Owner::Us && !keep.contains(&name) {
            gone(maps.delete(&name, &DeleteParams::default()).await)?;
        }
    }
    Ok(())
}

/// Deleting what is gone already is no error.
fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
