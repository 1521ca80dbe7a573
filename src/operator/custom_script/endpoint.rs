//! What a pod's endpoint needs beside the runner: its API keys, and the way to the other pods. Pure.
//!
//! Neither the operator nor the script's container ever sees an API key: the Secret is mounted into a container of its
//! own, which writes the hashes of the keys into a volume that both containers share.

use k8s_openapi::{
    api::core::v1::{
        Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceRequirements,
        SecretVolumeSource, Service, ServicePort, ServiceSpec, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use sha2::{Digest, Sha256};

use super::build::{
    Plan, RUNNER_DIR, RUNNER_PORT, container_security, meta, mount, runner_path, script_name,
};
use super::fingerprint::hex;
use crate::api::{CustomScriptSpec, labels};

/// Name of the container that hashes the keys, and of the volume with the Secret.
const KEYS: &str = "api-keys";
/// Name of the volume with the hashes.
const HASHES: &str = "api-key-hashes";
const KEYS_DIR: &str = "/run/scriptscope/api-keys";
const HASHES_DIR: &str = "/run/scriptscope/api-key-hashes";

fn secret(spec: &CustomScriptSpec) -> Option<&str> {
    let reference = spec.endpoint.as_ref()?.api_keys_secret_ref.as_ref()?;
    Some(&reference.name)
}

fn hashes_file() -> String {
    format!("{HASHES_DIR}/keys.json")
}

/// Reads the Secret for as long as the pod lives: an init container that goes on (a sidecar), so that the hashes are
/// there soon after the runner, and a change of the Secret counts without a restart.
pub fn keys_container(plan: Plan<'_>) -> Option<Container> {
    secret(&plan.object.spec)?;
    let quantities = |cpu: &str, memory: &str| {
        let pairs = [("cpu", cpu), ("memory", memory)];
        Some(
            pairs
                .map(|(name, text)| (name.to_owned(), Quantity(text.to_owned())))
                .into(),
        )
    };
    Some(Container {
        name: KEYS.to_owned(),
        image: Some(plan.images.install.clone()),
        command: Some(vec![runner_path(), KEYS.to_owned()]),
        restart_policy: Some("Always".to_owned()),
        env: Some(vec![
            plain("SCRIPTSCOPE_API_KEYS_FROM", KEYS_DIR),
            plain("SCRIPTSCOPE_API_KEYS", &hashes_file()),
        ]),
        volume_mounts: Some(vec![
            mount("runner", RUNNER_DIR, true),
            mount(KEYS, KEYS_DIR, true),
            mount(HASHES, HASHES_DIR, false),
        ]),
        resources: Some(ResourceRequirements {
            requests: quantities("5m", "16Mi"),
            limits: quantities("100m", "64Mi"),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    })
}

/// Volumes of the keys. A Secret that is not there yet keeps no pod from starting: calls are refused until it is.
pub fn volumes(spec: &CustomScriptSpec) -> Vec<Volume> {
    let Some(secret) = secret(spec) else {
        return Vec::new();
    };
    vec![
        Volume {
            name: KEYS.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                default_mode: Some(0o440),
                optional: Some(true),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: HASHES.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("4Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}

/// What the script's container sees of them.
pub fn script_mounts(spec: &CustomScriptSpec) -> Vec<VolumeMount> {
    let mounts = secret(spec).map(|_| mount(HASHES, HASHES_DIR, true));
    mounts.into_iter().collect()
}

/// The runner's variables: where the hashes are, and how pods find each other.
pub fn env(plan: Plan<'_>) -> Vec<EnvVar> {
    let keys = secret(&plan.object.spec).map(|_| plain("SCRIPTSCOPE_API_KEYS", &hashes_file()));
    let own = EnvVar {
        name: "SCRIPTSCOPE_POD_IP".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "status.podIP".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let peers = plain("SCRIPTSCOPE_PEERS", &peers_name(script_name(plan)));
    keys.into_iter().chain([own, peers]).collect()
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

/// Name of the Service behind which the pods find each other. A script's name has at most 52 characters, a Service's 63;
/// the digits keep it apart from another script's own Service.
pub fn peers_name(script: &str) -> String {
    let digest = Sha256::digest(script);
    format!("{script}-{}", &hex(&digest)[..10])
}

/// That Service: its name resolves to every pod, also to those that take no calls just now, whose runs can be asked for
/// all the same.
pub fn peers(plan: Plan<'_>) -> Service {
    let name = script_name(plan);
    Service {
        metadata: meta(plan, peers_name(name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some([(labels::SCRIPT.to_owned(), name.to_owned())].into()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: RUNNER_PORT,
                target_port: Some(IntOrString::String("http".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
