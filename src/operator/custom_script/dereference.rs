//! First step: reads from the cluster what a `CustomScript` speaks of.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service},
        node::v1::RuntimeClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client};

use super::{endpoint::peers_name, fingerprint::Files};
use crate::{api::CustomScript, model::ScriptKey};

/// What the cluster holds for a script.
#[derive(Clone, Debug, Default)]
pub struct Dereferenced {
    /// The files of the `ConfigMap` that `spec.source.configMapRef` names, if it does and there is one.
    pub config_map: Option<Files>,
    /// Whether the `RuntimeClass` is there (or none is asked for).
    pub runtime_class_found: bool,
    /// The Deployment of the script's name.
    pub deployment: Option<Deployment>,
    /// Metadata of the Service of the script's name.
    pub service: Option<ObjectMeta>,
    /// Metadata of the Service behind which the script's pods find each other.
    pub peers: Option<ObjectMeta>,
    /// Metadata of the autoscaler of the script's name.
    pub autoscaler: Option<ObjectMeta>,
}

/// Reads it.
pub async fn dereference(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
) -> Result<Dereferenced, kube::Error> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), &key.namespace);
    let services = Api::<Service>::namespaced(client.clone(), &key.namespace);
    let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &key.namespace);
    let peers = peers_name(&key.name);
    let (deployment, service, peers, autoscaler, config_map, runtime_class_found) = tokio::try_join!(
        deployments.get_opt(&key.name),
        services.get_metadata_opt(&key.name),
        services.get_metadata_opt(&peers),
        autoscalers.get_metadata_opt(&key.name),
        config_map(client, key, object),
        runtime_class_found(client, object),
    )?;
    Ok(Dereferenced {
        config_map,
        runtime_class_found,
        deployment,
        service: service.map(|service| service.metadata),
        peers: peers.map(|service| service.metadata),
        autoscaler: autoscaler.map(|autoscaler| autoscaler.metadata),
    })
}

async fn config_map(
    client: &Client,
    key: &ScriptKey,
    object: &CustomScript,
) -> Result<Option<Files>, kube::Error> {
    let source = object.spec.source.as_ref();
    let Some(reference) = source.and_then(|source| source.config_map_ref.as_ref()) else {
        return Ok(None);
    };
    let found = Api::<ConfigMap>::namespaced(client.clone(), &key.namespace)
        .get_opt(&reference.name)
        .await?;
    Ok(found.map(|map| Files {
        text: map.data.unwrap_or_default(),
        binary: map.binary_data.unwrap_or_default(),
    }))
}

async fn runtime_class_found(client: &Client, object: &CustomScript) -> Result<bool, kube::Error> {
    let name = object.spec.runtime_class_name.as_str();
    if name.is_empty() {
        return Ok(true);
    }
    let found = Api::<RuntimeClass>::all(client.clone())
        .get_metadata_opt(name)
        .await?;
    Ok(found.is_some())
}
