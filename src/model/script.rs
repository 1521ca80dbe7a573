//! Whose data it is: a script, and the deployments it went through.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The owner of runs and log lines. Data belongs to namespace and name, not to one object's UID, so that a script
/// re-created under its name goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScriptKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the `CustomScript`.
    pub name: String,
}

impl ScriptKey {
    /// The script `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ScriptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One deployment attempt. Each takes the next version number and keeps it, also when it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Version number, from 1 on.
    pub version: i64,
    /// Unique name of the attempt, found on its pods and in its run records.
    pub deployment_id: String,
    /// Where the attempt stands.
    pub state: DeploymentState,
    /// Why it failed, for people.
    pub reason: Option<String>,
    /// Hash of what runs; two attempts with the same fingerprint run the same.
    pub fingerprint: String,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When its first pod was ready.
    pub deployed_at: Option<Timestamp>,
    /// When it failed, was replaced or was undeployed.
    pub ended_at: Option<Timestamp>,
    /// Who asked for it, as the API server names field managers, where it says so.
    pub changed_by: Option<String>,
    /// What it changed; none of versions from before this was kept.
    pub change: Option<Change>,
    /// Whether one can go back to it.
    pub spec_kept: bool,
}

impl Deployment {
    /// How long it took until it served, in microseconds.
    pub fn duration_micros(&self) -> Option<i64> {
        let length = self.deployed_at?.duration_since(self.started_at);
        i64::try_from(length.as_micros()).ok()
    }
}

/// Why there is a version, and what of the spec is not as it was in the version before. Never a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// For people, such as `first deployment`, `spec changed`, `rollback to 3`.
    pub cause: String,
    /// The first of the fields that changed, as paths such as `env.RATE` and `source.inline.main.py`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// How many more fields changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_fields: usize,
    /// User that the command which asked for it says it was run by. Whoever may change the object could have written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What is written down of a version when it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSpec {
    /// The members of the object's spec that make a version, JSON, with the source as it was.
    pub spec: String,
    /// See [`Deployment::changed_by`].
    pub changed_by: Option<String>,
    /// See [`Deployment::change`].
    pub change: Change,
    /// What the spec does not have but the next version is compared with, JSON.
    pub beside: String,
}

/// What made a version: enough to go back to it.
#[derive(Clone, Debug, Default)]
pub struct DeployedSpec {
    /// The members of the object's spec that make a version, with the source as it was; none of versions from before
    /// these were kept.
    pub spec: Option<Box<serde_json::value::RawValue>>,
    /// See [`KeptSpec::beside`].
    pub beside: Option<String>,
}

/// State of one deployment attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeploymentState {
    /// Pods are on their way.
    Deploying,
    /// Pods serve.
    Deployed,
    /// It did not come up; `reason` says why.
    Failed,
    /// A later version took its place.
    Replaced,
    /// Taken down on request.
    Undeployed,
}

impl DeploymentState {
    /// The name used in the API, the store and the pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploying => "Deploying",
            Self::Deployed => "Deployed",
            Self::Failed => "Failed",
            Self::Replaced => "Replaced",
            Self::Undeployed => "Undeployed",
        }
    }

    /// The state with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Deploying,
            Self::Deployed,
            Self::Failed,
            Self::Replaced,
            Self::Undeployed,
        ]
        .into_iter()
        .find(|s| s.as_str() == name)
    }

    /// Whether no further change of state is expected.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Failed | Self::Replaced | Self::Undeployed)
    }
}
