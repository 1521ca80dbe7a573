//! Third step: the objects that run a script. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{
            Capabilities, ConfigMap, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction,
            Pod, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecurityContext,
            Service, ServicePort, ServiceSpec, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};

use super::{autoscaling, endpoint, fingerprint::Files, source};
use crate::{
    api::{CustomScript, CustomScriptSpec, Runtime, StandardOutput, labels},
    model,
    runner::STOP_SECONDS,
};

/// Port that the runner listens on.
pub const RUNNER_PORT: i32 = 8080;
/// Port of the Service.
const SERVICE_PORT: i32 = 80;
/// User and group of the processes; nobody's in particular.
const USER: i64 = 65_532;
/// Folder of the runner in the pod.
pub(super) const RUNNER_DIR: &str = "/scriptscope";
/// Folder of the script in the pod.
pub(super) const PROJECT_DIR: &str = "/app";
const INSTALL: &str = "install";

/// The images that the operator chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Holds the `scriptscope` binary as its entry point.
    pub install: String,
    /// Runs Python scripts that name no image of their own.
    pub python: String,
    /// Runs Node scripts that name no image of their own.
    pub node: String,
}

impl Images {
    /// What a script runs in unless it names an image of its own.
    pub fn of(&self, runtime: Option<Runtime>) -> &str {
        match runtime {
            Some(Runtime::Node) => &self.node,
            Some(Runtime::Python) | None => &self.python,
        }
    }
}

/// What is to be built.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The script.
    pub object: &'a CustomScript,
    /// Its owner reference for everything built.
    pub owner: &'a OwnerReference,
    /// Its files.
    pub files: &'a Files,
    /// The attempt that runs.
    pub attempt: &'a model::Deployment,
    /// The images.
    pub images: &'a Images,
}

/// The objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The source of this version, where it is not fetched by the pod or in an image.
    pub source: Option<ConfigMap>,
    /// Where it can be called.
    pub service: Service,
    /// Where its pods find each other.
    pub peers: Service,
    /// What chooses the number of pods, where the spec leaves a choice.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// What runs it.
    pub deployment: Deployment,
}

/// Builds them.
pub fn build(plan: Plan<'_>) -> Objects {
    let source = config_map(plan);
    let name = source.as_ref().and_then(|map| map.metadata.name.as_deref());
    let deployment = deployment(plan, name.unwrap_or_default());
    Objects {
        service: service(plan),
        peers: endpoint::peers(plan),
        autoscaler: autoscaling::autoscaler(plan),
        source,
        deployment,
    }
}

/// The images that a live Deployment of the same attempt runs, where it does: an upgraded operator leaves running pods
/// alone, and the next deployment takes its images.
pub fn images_in_use(live: Option<&Deployment>, attempt: &model::Deployment, default: &Images) -> Images {
    let template = live.and_then(|d| d.spec.as_ref()).map(|spec| &spec.template);
    let same = template
        .and_then(|t| t.metadata.as_ref()?.labels.as_ref())
        .is_some_and(|l| l.get(labels::DEPLOYMENT_ID) == Some(&attempt.deployment_id));
    let Some(pod) = template.and_then(|t| t.spec.as_ref()).filter(|_| same) else {
        return default.clone();
    };
    let image = |containers: &[Container], name: &str, default: &str| {
        let container = containers.iter().find(|c| c.name == name);
        container
            .and_then(|c| c.image.clone())
            .unwrap_or_else(|| default.to_owned())
    };
    Images {
        install: image(
            pod.init_containers.as_deref().unwrap_or_default(),
            INSTALL,
            &default.install,
        ),
        // One of them is in use; the script's runtime says which.
        python: image(&pod.containers, labels::CONTAINER, &default.python),
        node: image(&pod.containers, labels::CONTAINER, &default.node),
    }
}

/// The version that a live Deployment was applied for.
pub fn version_of(live: &Deployment) -> Option<i64> {
    let template = &live.spec.as_ref()?.template;
    let labels = template.metadata.as_ref()?.labels.as_ref()?;
    labels.get(labels::VERSION)?.parse().ok()
}

/// Labels of every object of a script; a selector for them, too.
pub fn object_labels(script: &str) -> BTreeMap<String, String> {
    [(labels::SCRIPT, script), (labels::MANAGED_BY, labels::MANAGER)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

pub(super) fn meta(plan: Plan<'_>, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: plan.object.metadata.namespace.clone(),
        labels: Some(object_labels(script_name(plan))),
        owner_references: Some(vec![plan.owner.clone()]),
        ..ObjectMeta::default()
    }
}

pub(super) fn script_name(plan: Plan<'_>) -> &str {
    plan.object.metadata.name.as_deref().unwrap_or_default()
}

/// The name follows from the content, so that two versions with the same source share it and a version's source never
/// changes underneath it.
fn config_map(plan: Plan<'_>) -> Option<ConfigMap> {
    if source::delivery(&plan.object.spec) != source::Delivery::ConfigMap {
        return None;
    }
    let digest = plan.files.digest();
    Some(ConfigMap {
        metadata: meta(plan, format!("{}-source-{}", script_name(plan), &digest[..10])),
        data: Some(plan.files.text.clone()).filter(|files| !files.is_empty()),
        binary_data: Some(plan.files.binary.clone()).filter(|files| !files.is_empty()),
        immutable: Some(true),
    })
}

fn service(plan: Plan<'_>) -> Service {
    let name = script_name(plan);
    Service {
        metadata: meta(plan, name.to_owned()),
        spec: Some(ServiceSpec {
            selector: Some([(labels::SCRIPT.to_owned(), name.to_owned())].into()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: SERVICE_PORT,
                target_port: Some(IntOrString::String("http".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn deployment(plan: Plan<'_>, source: &str) -> Deployment {
    let name = script_name(plan);
    let spec = &plan.object.spec.replicas;
    let selector = BTreeMap::from([(labels::SCRIPT.to_owned(), name.to_owned())]);
    let mut pod_labels = object_labels(name);
    pod_labels.insert(labels::VERSION.to_owned(), plan.attempt.version.to_string());
    pod_labels.insert(
        labels::DEPLOYMENT_ID.to_owned(),
        plan.attempt.deployment_id.clone(),
    );
    Deployment {
        metadata: meta(plan, name.to_owned()),
        spec: Some(DeploymentSpec {
            // Left to the autoscaler where there is one.
            replicas: spec.scaled_to().is_none().then_some(spec.min),
            selector: LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            },
            // A version that does not come up takes nothing from the one that serves.
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            progress_deadline_seconds: Some(source::progress_seconds(plan)),
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(
                        [("kubectl.kubernetes.io/default-container", labels::CONTAINER)]
                            .map(|(k, v)| (k.to_owned(), v.to_owned()))
                            .into(),
                    ),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(plan, source)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod(plan: Plan<'_>, source: &str) -> PodSpec {
    let spec = &plan.object.spec;
    let empty_dir = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    PodSpec {
        runtime_class_name: Some(spec.runtime_class_name.clone()).filter(|name| !name.is_empty()),
        service_account_name: spec.service_account_name.clone(),
        automount_service_account_token: Some(spec.service_account_name.is_some()),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds(spec)),
        image_pull_secrets: Some(spec.image_pull_secrets.clone()).filter(|secrets| !secrets.is_empty()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        init_containers: Some(
            [vec![install_container(plan)], source::steps(plan)]
                .concat()
                .into_iter()
                .chain(endpoint::keys_container(plan))
                .collect(),
        ),
        containers: vec![script_container(plan)],
        volumes: Some(
            [
                vec![empty_dir("runner")],
                source::volumes(plan, source),
                vec![empty_dir("tmp")],
                endpoint::volumes(spec),
            ]
            .concat(),
        ),
        ..PodSpec::default()
    }
}

/// Whether the pod's container is our runner.
pub fn is_runner(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut commands = containers.filter_map(|c| Some((&c.name, c.command.as_ref()?.first()?)));
    commands.any(|(name, command)| name == labels::CONTAINER && *command == runner_path())
}

pub(super) fn runner_path() -> String {
    format!("{RUNNER_DIR}/scriptscope")
}

/// How long the pod has once it is told to stop.
fn grace_seconds(spec: &CustomScriptSpec) -> i64 {
    i64::from(spec.timeout_seconds) + STOP_SECONDS.cast_signed()
}

fn install_container(plan: Plan<'_>) -> Container {
    Container {
        name: INSTALL.to_owned(),
        image: Some(plan.images.install.clone()),
        args: Some(["install", "--to", RUNNER_DIR].map(str::to_owned).into()),
        volume_mounts: Some(vec![mount("runner", RUNNER_DIR, false)]),
        // A quota may ask for limits on every container; the same ones cost a pod nothing more.
        resources: plan.object.spec.resources.clone(),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn script_container(plan: Plan<'_>) -> Container {
    let spec = &plan.object.spec;
    Container {
        name: labels::CONTAINER.to_owned(),
        image: Some(source::image(plan)),
        command: Some(vec![runner_path(), "runner".to_owned()]),
        working_dir: Some(PROJECT_DIR.to_owned()),
        env: Some(env(plan)),
        env_from: Some(spec.env_from.clone()).filter(|sources| !sources.is_empty()),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: RUNNER_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        volume_mounts: Some(
            [
                vec![mount("runner", RUNNER_DIR, true), mount("tmp", "/tmp", false)],
                source::mounts(plan),
                endpoint::script_mounts(spec),
            ]
            .concat(),
        ),
        resources: spec.resources.clone(),
        security_context: Some(container_security()),
        // A sandbox and an interpreter take their time to start; from then on the liveness probe watches.
        startup_probe: Some(probe("/livez", 1, 2, 120)),
        // A full pod says so at once. One that is slow to answer because its node is busy stays: without it a Service of one
        // pod refuses connections.
        readiness_probe: Some(probe("/readyz", 1, 5, 2)),
        liveness_probe: Some(probe("/livez", 10, 5, 3)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// The script's own variables, then the runner's; of two with one name the later one counts, and ours come last.
fn env(plan: Plan<'_>) -> Vec<EnvVar> {
    let spec: &CustomScriptSpec = &plan.object.spec;
    let logging = match spec.logging.standard {
        StandardOutput::AfterCompletion => "AfterCompletion",
        StandardOutput::Live => "Live",
    };
    let ours = [
        ("SCRIPTSCOPE_DEPLOYMENT_ID", plan.attempt.deployment_id.clone()),
        ("SCRIPTSCOPE_VERSION", plan.attempt.version.to_string()),
        ("SCRIPTSCOPE_TIMEOUT_SECONDS", spec.timeout_seconds.to_string()),
        ("SCRIPTSCOPE_CONCURRENCY", spec.concurrency.to_string()),
        ("SCRIPTSCOPE_LOGGING", logging.to_owned()),
        ("SCRIPTSCOPE_CAPTURE_INPUT", spec.capture.input.to_string()),
        ("SCRIPTSCOPE_CAPTURE_OUTPUT", spec.capture.output.to_string()),
        (
            "SCRIPTSCOPE_CAPTURE_MAX_BYTES",
            spec.capture.max_bytes.to_string(),
        ),
    ];
    // Python is the runner's default, and pods of an operator that knew nothing else stay as they are.
    let runtime = (spec.runtime == Some(Runtime::Node)).then_some(("SCRIPTSCOPE_RUNTIME", "node".to_owned()));
    let ours: Vec<_> = ours.into_iter().chain(runtime).collect();
    let of_endpoint = endpoint::env(plan);
    let names = ours.iter().map(|(name, _)| *name);
    let names: BTreeSet<&str> = names.chain(of_endpoint.iter().map(|e| e.name.as_str())).collect();
    let own = |env: &&EnvVar| !names.contains(env.name.as_str());
    let mut theirs: Vec<EnvVar> = spec.env.iter().filter(own).cloned().collect();
    source::add_path(plan, &mut theirs);
    theirs
        .into_iter()
        .chain(ours.iter().map(|(name, value)| EnvVar {
            name: (*name).to_owned(),
            value: Some(value.clone()),
            ..EnvVar::default()
        }))
        .chain(of_endpoint)
        .collect()
}

pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn probe(path: &str, period_seconds: i32, timeout_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(timeout_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
