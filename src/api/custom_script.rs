//! `CustomScript`: a script to deploy and to keep the runs and logs of.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// A custom script: a small project whose functions are called over HTTP and run in sandboxed pods. ScriptScope records
/// every run and every log line of it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "scriptscope.dev",
    version = "v1alpha1",
    kind = "CustomScript",
    plural = "customscripts",
    shortname = "script",
    category = "scriptscope",
    doc = "A custom script: a small project whose functions are called over HTTP and run in sandboxed pods. ScriptScope records every run and every log line of it.",
    namespaced,
    status = "CustomScriptStatus",
    validation = Rule::new("size(self.metadata.name) <= 52")
        .message("metadata.name may have at most 52 characters, so that pod names fit"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter and hold only a-z, 0-9 and '-', since it names a Service"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase", description = "Where the script stands"),
    printcolumn(name = "VERSION", type_ = "integer", json_path = ".status.version", description = "Version of the last deployment attempt"),
    printcolumn(name = "RUNS", type_ = "integer", json_path = ".status.metrics.totalRuns", description = "Runs so far, all versions"),
    printcolumn(name = "FAILURE%", type_ = "string", json_path = ".status.display.failureRate", description = "Share of the ended runs that failed"),
    printcolumn(name = "P90", type_ = "string", json_path = ".status.display.p90", description = "90 % of the successful runs took at most this long"),
    printcolumn(name = "P99", type_ = "string", json_path = ".status.display.p99", description = "99 % of the successful runs took at most this long"),
    printcolumn(name = "LOGS", type_ = "integer", json_path = ".status.metrics.totalLogs", description = "Log lines so far"),
    printcolumn(name = "LAST RUN", type_ = "date", json_path = ".status.metrics.lastRunTime", description = "When the last run began"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.source) && has(self.workload))")
    .message("spec.source and spec.workload exclude each other: give the script's source, or name a Deployment that exists")
    .field_path(".source"))]
#[x_kube(validation = Rule::new("has(self.source) || has(self.workload)")
    .message("spec.source is missing: give the script's source, or name a Deployment that exists in spec.workload"))]
#[x_kube(validation = Rule::new("!has(self.replicas) || !has(self.replicas.max) || self.replicas.max <= self.replicas.min || (has(self.resources) && \
        ((has(self.resources.requests) && 'cpu' in self.resources.requests) || (has(self.resources.limits) && 'cpu' in self.resources.limits)))")
    .message("spec.resources.requests.cpu is missing: spec.replicas.max is above min, and the number of pods follows from how much of \
        the CPU that a pod requests is used; set it, such as 100m"))]
#[x_kube(validation = Rule::new("!(has(self.source) && has(self.source.image) && has(self.runtimeImage))")
    .message("spec.source.image and spec.runtimeImage exclude each other: the script runs in the image that holds it")
    .field_path(".runtimeImage"))]
#[x_kube(validation = Rule::new("!has(self.source) || has(self.runtime)")
    .message("spec.runtime is missing: name the language that spec.source is written in"))]
#[x_kube(validation = Rule::new("!has(self.runtime) || self.runtime != 'python' || !has(self.source) || !has(self.source.inline) || 'main.py' in self.source.inline")
    .message("spec.source.inline needs a file main.py, the entry point")
    .field_path(".source"))]
#[x_kube(validation = Rule::new("!has(self.runtime) || self.runtime != 'node' || !has(self.source) || !has(self.source.inline) || 'main.js' in self.source.inline")
    .message("spec.source.inline needs a file main.js, the entry point")
    .field_path(".source"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.runtime)")
    .message("spec.runtime has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".runtime"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.runtimeImage)")
    .message("spec.runtimeImage has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".runtimeImage"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.resources)")
    .message("spec.resources has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".resources"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.serviceAccountName)")
    .message("spec.serviceAccountName has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".serviceAccountName"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.endpoint)")
    .message("spec.endpoint has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".endpoint"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.env) || size(self.env) == 0")
    .message("spec.env has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".env"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.envFrom) || size(self.envFrom) == 0")
    .message("spec.envFrom has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".envFrom"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.imagePullSecrets) || size(self.imagePullSecrets) == 0")
    .message("spec.imagePullSecrets has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".imagePullSecrets"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.runtimeClassName) || self.runtimeClassName == 'gvisor'")
    .message("spec.runtimeClassName has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".runtimeClassName"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.timeoutSeconds) || self.timeoutSeconds == 60")
    .message("spec.timeoutSeconds has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".timeoutSeconds"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.concurrency) || self.concurrency == 1")
    .message("spec.concurrency has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".concurrency"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.replicas) || (self.replicas.min == 1 && !has(self.replicas.max) && self.replicas.targetCPUUtilization == 75)")
    .message("spec.replicas has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".replicas"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.logging) || self.logging.standard == 'AfterCompletion'")
    .message("spec.logging has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".logging"))]
#[x_kube(validation = Rule::new("!has(self.workload) || !has(self.capture) || (self.capture.input && self.capture.output && self.capture.maxBytes == 262144)")
    .message("spec.capture has no meaning with spec.workload, whose pods its owner sets up; remove it")
    .field_path(".capture"))]
#[x_kube(validation = Rule::new("has(self.workload) == has(oldSelf.workload)")
    .message("spec.workload can not be given to a script that exists, nor taken from it: delete the CustomScript, whose runs and logs \
        stay, and create it anew under the same name"))]
pub struct CustomScriptSpec {
    /// Whether the script's pods should run. `Undeployed` takes the pods away and keeps every run and log line; a Deployment
    /// named in `workload` is left alone, and what it prints is not collected meanwhile.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// Language of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Container image that the script runs in, with `python3` or `node` on its path. Default: set by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub runtime_image: Option<String>,
    /// The script's files: exactly one of the members. The functions of main.py, or those that main.js exports, at the root can
    /// be called. Packages that requirements.txt or package.json name are installed before the script starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// A Deployment of any kind that exists and is only observed, instead of `runtime` and `source`: nothing is ever changed
    /// about it. Each of its pod templates is a version. What its pods print is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Environment variables of the script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env_schema")]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose keys become environment variables of the script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "env_from_schema")]
    pub env_from: Vec<EnvFromSource>,
    /// CPU and memory of one pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// RuntimeClass of the pods; empty for the cluster's default. Default `gvisor`.
    #[serde(default = "gvisor")]
    #[schemars(length(max = 253))]
    pub runtime_class_name: String,
    /// ServiceAccount of the pods. Its token is never mounted unless it is named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Secrets for pulling the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Seconds after which a run is ended as Failed with reason Timeout, 1 to 600.
    #[serde(default = "sixty")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: i32,
    /// Number of pods, 1 to 10. Changing it is no new version.
    #[serde(default)]
    pub replicas: Replicas,
    /// Runs at once in one pod, each in a worker process of its own.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: i32,
    /// Who may call. Default: whoever reaches the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// How prints are shown.
    #[serde(default)]
    pub logging: Logging,
    /// What of a run's input and output is kept.
    #[serde(default)]
    pub capture: Capture,
    /// How long runs and log lines are kept. What is not given follows the operator's settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// What becomes of runs and log lines when this object is deleted. `Retain`: they stay for as long as the operator's
    /// settings say. `Purge`: they are deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// Whether pods should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Pods run.
    #[default]
    Deployed,
    /// No pods; the data stays.
    Undeployed,
}

/// Language of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Python 3.10 or newer.
    Python,
    /// Node 20 or newer.
    Node,
}

impl Runtime {
    /// The file at the project's root whose functions can be called.
    pub fn entry_point(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::Node => "main.js",
        }
    }
}

/// Where the files come from. Exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.inline), has(self.configMapRef), has(self.archive), has(self.image)].filter(x, x).size() == 1")
    .message("spec.source needs exactly one of inline, configMapRef, archive and image"))]
pub struct Source {
    /// File names and their texts; `main.py` or `main.js` is the entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "inline_schema")]
    pub inline: Option<BTreeMap<String, String>>,
    /// A ConfigMap in the same namespace, each key a file. A change of it is a new deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<NameRef>,
    /// An archive that each pod fetches and unpacks before the script starts. A change of it is a new deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// An image that holds the script in its folder /app, with its packages, and the language on its path. A change of this
    /// name is a new deployment; a tag that was moved is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
}

/// An archive of a script's files.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where it is: an http or https URL of a .zip, .tar, .tar.gz or .tgz of at most 1 GB, which may hold 50,000 files and
    /// folders of 4 GiB. If all lies in one folder, that is left out.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@]+([/?].*)?$')")
        .message("spec.source.archive.url must be an http or https URL without user and password"))]
    pub url: String,
    /// SHA-256 of the archive, 64 hexadecimal digits, so that a version stays what it was: `sha256sum FILE` prints it.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{64}$')")
        .message("spec.source.archive.sha256 must have 64 hexadecimal digits (0-9, a-f), as sha256sum prints them"))]
    pub sha256: String,
}

/// A reference by name within the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A workload that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The Deployment whose pods are observed, in the same namespace. It may come later.
    pub deployment_ref: NameRef,
    /// Container whose output is the script's. Default: the only one, or the one that the pod template's annotation
    /// kubectl.kubernetes.io/default-container names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
}

/// Number of pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.max) || self.max >= self.min")
    .message("spec.replicas.max must not be below spec.replicas.min; raise max, or lower min")
    .field_path(".max"))]
pub struct Replicas {
    /// Number of pods, 1 to 10; the least one where `max` is above it.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub min: i32,
    /// The most pods, 1 to 10. Above `min` there are as many as the use of CPU asks for. Default: `min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub max: Option<i32>,
    /// Per cent of spec.resources.requests.cpu that the pods should use on average, 10 to 100. Counts where `max` is above
    /// `min`.
    #[serde(default = "three_quarters", rename = "targetCPUUtilization")]
    #[schemars(range(min = 10, max = 100))]
    pub target_cpu_utilization: i32,
}

impl Replicas {
    /// The most pods, if that is not the least number, too.
    pub fn scaled_to(&self) -> Option<i32> {
        self.max.filter(|max| *max > self.min)
    }
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// A Secret in the same namespace. Each of its keys is the name of an API key, which becomes the Source of the runs that
    /// it starts; the value is the API key, 16 to 4096 characters. Callers send it as `x-api-key` or
    /// `Authorization: Bearer`. A change of the Secret counts within about a minute, without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_keys_secret_ref: Option<NameRef>,
}

/// How prints are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logging {
    /// When prints (standard output and error) of a run appear. korelogger's lines always appear at once.
    #[serde(default)]
    pub standard: StandardOutput,
}

/// When prints appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StandardOutput {
    /// When the run ends.
    #[default]
    AfterCompletion,
    /// As they are printed.
    Live,
}

/// What of a run's payloads is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Keep the arguments of each run.
    #[serde(default = "yes")]
    pub input: bool,
    /// Keep the result of each run.
    #[serde(default = "yes")]
    pub output: bool,
    /// Larger payloads are left out and marked, in bytes.
    #[serde(default = "quarter_mebibyte")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub max_bytes: i32,
}

/// How long data is kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.runs) || !has(self.failedRuns) || self.failedRuns == 'forever' || (self.runs != 'forever' && \
        int(self.failedRuns.substring(0, size(self.failedRuns) - 1)) * (self.failedRuns.endsWith('w') ? 168 : self.failedRuns.endsWith('d') ? 24 : 1) >= \
        int(self.runs.substring(0, size(self.runs) - 1)) * (self.runs.endsWith('w') ? 168 : self.runs.endsWith('d') ? 24 : 1))")
    .message("spec.retention.failedRuns must not be shorter than spec.retention.runs; raise it, or lower runs"))]
pub struct Retention {
    /// Age at which ended runs are deleted, with their inputs and outputs: a whole number and h, d or w, at least 1h, or
    /// `forever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "runs_age_schema")]
    pub runs: Option<String>,
    /// The same of failed runs, never shorter than `runs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "failed_runs_age_schema")]
    pub failed_runs: Option<String>,
    /// Age at which log lines are deleted: a whole number and h, d or w, at least 1h, or `forever`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "logs_age_schema")]
    pub logs: Option<String>,
    /// Bytes that all of the script's data may take, compressed, at least 16Mi. Above it log lines go first, the oldest
    /// first, until they take a quarter of it; then ended runs, the oldest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "max_bytes_schema")]
    pub max_bytes: Option<String>,
}

/// What becomes of the data of a deleted object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted.
    Purge,
}

/// What the operator found.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CustomScriptStatus {
    /// Where the script stands: Draft (never deployed), Deploying, Deployed, DeploymentFailed, or ReadyToDeploy
    /// (undeployed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Version of the last deployment attempt. It goes up by one with each and never goes backwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Id of the last deployment attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_id: Option<String>,
    /// Generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where to call it, within the cluster; absent with `spec.workload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Ready: it can be called. Progressing: a deployment is under way. Stored: what it prints reaches the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The last 10 deployment attempts, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<DeploymentStatus>,
    /// Figures over the whole life of the script, all versions together, for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsStatus>,
    /// The same, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<DisplayStatus>,
}

/// Where a script stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // described at `CustomScriptStatus::phase`, where the schema shows it
pub enum Phase {
    Draft,
    Deploying,
    Deployed,
    DeploymentFailed,
    ReadyToDeploy,
}

/// One deployment attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// Its version.
    pub version: i64,
    /// Its id.
    pub deployment_id: String,
    /// Deploying, Deployed, Failed, Replaced or Undeployed.
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// When it could first be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Time>,
    /// When it failed, was replaced or was undeployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How long it took from startedAt to deployedAt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_microseconds: Option<i64>,
    /// Field manager that changed the spec last when it began, such as kubectl-edit. The API server does not keep users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// Why it began, and what it changed compared with the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeStatus>,
}

/// What a version changed. Paths of fields only, never values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeStatus {
    /// Such as: first deployment, spec changed, redeploy requested, rollback to 3.
    pub cause: String,
    /// The first fields of the spec that changed, such as env.RATE and source.inline.main.py.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// How many more fields changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_fields: Option<i64>,
    /// User that ran scriptscope rollback, as that command wrote it down. Whoever may change this object could have written
    /// another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
}

/// Figures for machines: whole numbers, durations in microseconds over successful runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsStatus {
    /// The figures.
    #[serde(flatten)]
    pub figures: FiguresStatus,
    /// The last 5 versions that have runs, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_version: Vec<VersionStatus>,
    /// When these figures last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
}

/// Figures of a set of runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FiguresStatus {
    /// Runs begun.
    #[serde(default)]
    pub total_runs: i64,
    /// Runs that ended with a result.
    #[serde(default)]
    pub succeeded_runs: i64,
    /// Runs that failed.
    #[serde(default)]
    pub failed_runs: i64,
    /// Runs begun and not ended.
    #[serde(default)]
    pub in_progress_runs: i64,
    /// Failed runs per 10,000 ended ones; absent until a run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate_basis_points: Option<i64>,
    /// Half of the successful runs took at most this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_microseconds: Option<i64>,
    /// 90 % of the successful runs took at most this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90_microseconds: Option<i64>,
    /// 99 % of the successful runs took at most this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_microseconds: Option<i64>,
    /// Log lines stored.
    #[serde(default)]
    pub total_logs: i64,
    /// When the last run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_time: Option<Time>,
}

/// Figures of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// The version.
    pub version: i64,
    /// Its figures.
    #[serde(flatten)]
    pub figures: FiguresStatus,
}

/// Figures for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisplayStatus {
    /// Such as `33.33%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<String>,
    /// Such as `412 ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<String>,
    /// Such as `412 ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<String>,
    /// Such as `1.24 s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<String>,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            min: one(),
            max: None,
            target_cpu_utilization: three_quarters(),
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            input: yes(),
            output: yes(),
            max_bytes: quarter_mebibyte(),
        }
    }
}

fn gvisor() -> String {
    "gvisor".to_owned()
}

fn one() -> i32 {
    1
}

fn three_quarters() -> i32 {
    75
}

fn sixty() -> i32 {
    60
}

fn yes() -> bool {
    true
}

fn quarter_mebibyte() -> i32 {
    262_144
}

/// Bounds keep the object under etcd's size limit; file names are what a ConfigMap can hold, so no path leaves the
/// project's folder.
fn inline_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "minProperties": 1,
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 900_000 },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, size(name) <= 253 && name.matches('^[-._a-zA-Z0-9]+$') && name != '.' && name != '..')",
                "message": "spec.source.inline: a file name may hold letters, digits, '-', '_' and '.' and at most 253 characters"
            }
        ]
    })
}

/// What the operator itself does not look into is checked by the apiserver when the pod template is applied; copying
/// the pod schema here would blow the CRD up for no gain.
fn env_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 256,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 253 },
                "value": { "type": "string", "maxLength": 131_072 },
                "valueFrom": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
            }
        },
        "x-kubernetes-validations": [{
            "rule": "self.all(e, !e.name.startsWith('SCRIPTSCOPE_'))",
            "message": "spec.env: names that begin with SCRIPTSCOPE_ are the runner's own"
        }]
    })
}

fn env_from_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}

fn runs_age_schema(_: &mut SchemaGenerator) -> Schema {
    age_schema("spec.retention.runs")
}

fn failed_runs_age_schema(_: &mut SchemaGenerator) -> Schema {
    age_schema("spec.retention.failedRuns")
}

fn logs_age_schema(_: &mut SchemaGenerator) -> Schema {
    age_schema("spec.retention.logs")
}

/// Units below an hour are left out, so that no age is below the least one.
fn age_schema(field: &str) -> Schema {
    schemars::json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": "self == 'forever' || self.matches('^[1-9][0-9]{0,4}[hdw]$')",
            "message": format!("{field} must be at least 1h: a whole number and h, d or w, such as 90d, or forever")
        }]
    })
}

fn max_bytes_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 20,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[1-9][0-9]{0,15}(Ki|Mi|Gi|Ti)?$') && quantity(self).compareTo(quantity('16Mi')) >= 0",
            "message": "spec.retention.maxBytes must be at least 16Mi: a whole number with or without Ki, Mi, Gi or Ti, such as 10Gi"
        }]
    })
}
