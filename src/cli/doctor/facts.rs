//! What is known of an installation. Nothing here judges.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

/// What was looked at, or why it could not be.
pub type Looked<T> = Result<T, String>;

/// Everything that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Version of this command.
    pub command: String,
    /// Namespace of the operator.
    pub system: String,
    /// The API server; without it nothing else is known.
    pub server: Looked<Server>,
    /// Plural names of the kinds that the API server serves in this version.
    pub kinds: Looked<Vec<String>>,
    /// Deployments of the operator.
    pub operators: Looked<Vec<Operator>>,
    /// Pods of the operator.
    pub operator_pods: Looked<Vec<OperatorPod>>,
    /// `DaemonSet`s of the agent.
    pub agents: Looked<Vec<Agents>>,
    /// Nodes with an agent that is ready.
    pub agent_nodes: Looked<Vec<String>>,
    /// `CustomScript`s.
    pub scripts: Looked<Vec<Script>>,
    /// Pods of scripts that run.
    pub script_pods: Looked<Vec<ScriptPod>>,
    /// Names of the `RuntimeClass`es.
    pub runtime_classes: Looked<Vec<String>>,
    /// What the caller may do.
    pub rights: Vec<Right>,
    /// When nodes last renewed their Leases, by name.
    pub node_leases: Looked<BTreeMap<String, Timestamp>>,
    /// The Lease of the operators, where there is to be one.
    pub lease: Looked<Option<LeaseFact>>,
    /// Webhooks that the API server calls for these kinds.
    pub webhooks: Looked<Vec<String>>,
}

/// The API server.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Its clock.
    pub now: Timestamp,
    /// How far this machine's clock is ahead of it, in seconds.
    pub ahead_seconds: i64,
}

/// A Deployment of the operator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Operator {
    pub name: String,
    pub wanted: i32,
    pub available: i32,
    /// The label `app.kubernetes.io/version`.
    pub version: Option<String>,
    pub image: Option<String>,
    /// Whether agents deliver, not the API server.
    pub collects_by_agent: bool,
    /// Name of the Lease, where there may be several operators.
    pub lease: Option<String>,
}

/// A pod of the operator.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorPod {
    pub name: String,
    pub ready: bool,
    pub restarts: i32,
    /// Why its container ended the last time.
    pub last_end: Option<String>,
    /// What it says of itself, where it runs.
    pub health: Looked<Health>,
}

/// What an operator says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// Whether `/readyz` is well.
    pub ready: bool,
    /// What it says.
    pub readyz: String,
    /// Sums of its metrics over all their labels, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// A `DaemonSet` of the agent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Agents {
    pub name: String,
    pub desired: i32,
    pub ready: i32,
}

/// A `CustomScript`.
#[derive(Clone, Debug, Serialize)]
pub struct Script {
    pub namespace: String,
    pub name: String,
    /// Empty where it runs on the node's own kernel or in a Deployment that is adopted.
    pub runtime_class: String,
    /// Its phase and why, where its deployment failed.
    pub failed: Option<String>,
    /// Whether its records are not stored, and why.
    pub not_stored: Option<String>,
}

/// A pod of a script.
#[derive(Clone, Debug, Serialize)]
pub struct ScriptPod {
    pub namespace: String,
    pub name: String,
    pub node: String,
}

/// Something the command does.
#[derive(Clone, Debug, Serialize)]
pub struct Right {
    /// Such as `create pods/portforward in scriptscope-system`.
    pub what: String,
    /// For what it is needed.
    pub why: &'static str,
    /// Without it no verb works.
    pub is_vital: bool,
    /// Whether the caller may.
    pub allowed: Looked<bool>,
}

/// The Lease of the operators.
#[derive(Clone, Debug, Serialize)]
pub struct LeaseFact {
    pub name: String,
    pub holder: Option<String>,
    pub renewed: Option<Timestamp>,
}
