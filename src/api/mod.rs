//! The objects of the API group `scriptscope.dev`, one file a kind; no I/O.

// The docs of these types become the CRDs' descriptions, where backticks would only be noise.
#[allow(clippy::doc_markdown, clippy::duplicated_attributes)]
mod custom_script;
#[allow(clippy::doc_markdown, clippy::duplicated_attributes)]
mod script_export;

use kube::CustomResourceExt;

pub use custom_script::*;
pub use script_export::*;

/// The API group.
pub const GROUP: &str = "scriptscope.dev";

/// Labels and annotations on what belongs to a script.
pub mod labels {
    /// Name of the `CustomScript`.
    pub const SCRIPT: &str = "scriptscope.dev/script";
    /// Version of the deployment.
    pub const VERSION: &str = "scriptscope.dev/version";
    /// Id of the deployment.
    pub const DEPLOYMENT_ID: &str = "scriptscope.dev/deployment-id";
    /// Standard label; its value is [`MANAGER`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Who manages our objects.
    pub const MANAGER: &str = "scriptscope";
    /// Name of the container that runs the script.
    pub const CONTAINER: &str = "script";
    /// Annotation of a `CustomScript`: any new value of it is a new deployment of the same thing.
    pub const REDEPLOY: &str = "scriptscope.dev/redeploy";
    /// Annotation of a `CustomScript`: what `scriptscope rollback` did last, JSON.
    pub const ROLLBACK: &str = "scriptscope.dev/rollback";
}

/// Condition types; the only ones used.
pub mod conditions {
    /// Summary: the script can be called (`CustomScript`).
    pub const READY: &str = "Ready";
    /// A deployment or an export is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// What the script's pods print reaches the store.
    pub const STORED: &str = "Stored";
    /// The export is complete.
    pub const COMPLETE: &str = "Complete";
    /// The export failed.
    pub const FAILED: &str = "Failed";
    /// The export was cancelled.
    pub const CANCELLED: &str = "Cancelled";
}

/// Reasons of conditions and events of a `CustomScript`; the only ones used.
pub mod reasons {
    /// Event: a deployment attempt began. Condition: it is under way.
    pub const DEPLOYING: &str = "Deploying";
    /// Event: the first pod of an attempt is ready. Condition: it serves.
    pub const DEPLOYED: &str = "Deployed";
    /// Event: a deployment attempt failed.
    pub const DEPLOYMENT_FAILED: &str = "DeploymentFailed";
    /// Event: the script was undeployed. Condition: it is.
    pub const UNDEPLOYED: &str = "Undeployed";
    /// Pods are finishing their runs before they go.
    pub const UNDEPLOYING: &str = "Undeploying";
    /// It was never deployed.
    pub const DRAFT: &str = "Draft";
    /// The newest version does not serve, an earlier one does.
    pub const PREVIOUS_VERSION_SERVES: &str = "PreviousVersionServes";
    /// Objects of a deleted `CustomScript` of the same name are still going.
    pub const NAME_IN_USE: &str = "NameInUse";
    /// Nothing is under way.
    pub const STEADY: &str = "Steady";
    /// The store takes what the pods print.
    pub const STORE_WRITABLE: &str = "StoreWritable";
    /// It does not.
    pub const STORE_FAILED: &str = "StoreFailed";

    /// Event: data past its retention was deleted.
    pub const RETENTION_APPLIED: &str = "RetentionApplied";
    /// Event: the retention asked for makes no sense; nothing is deleted.
    pub const INVALID_RETENTION: &str = "InvalidRetention";

    /// `spec.workload` names a Deployment that does not exist.
    pub const WORKLOAD_MISSING: &str = "WorkloadMissing";
    /// The adopted Deployment is scaled to zero.
    pub const WORKLOAD_AT_ZERO: &str = "WorkloadScaledToZero";
    /// Another `CustomScript` adopts the Deployment already.
    pub const WORKLOAD_TAKEN: &str = "WorkloadTaken";
    /// The Deployment is one that can not be adopted.
    pub const WORKLOAD_REFUSED: &str = "WorkloadRefused";
    /// `spec.workload.container` names no container, or none where there are several.
    pub const WORKLOAD_CONTAINER: &str = "WorkloadContainerMissing";
    /// `spec.source.configMapRef` names no `ConfigMap`.
    pub const CONFIG_MAP_MISSING: &str = "ConfigMapMissing";
    /// The source has no entry point (`main.py`, `main.js`).
    pub const ENTRY_POINT_MISSING: &str = "EntryPointMissing";
    /// The source does not fit into a `ConfigMap`.
    pub const SOURCE_TOO_LARGE: &str = "SourceTooLarge";
    /// The object lacks what the API would have asked for.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// `spec.runtimeClassName` names no `RuntimeClass`.
    pub const RUNTIME_CLASS_MISSING: &str = "RuntimeClassMissing";
    /// An object of the script's name exists and belongs to somebody else.
    pub const NAME_CONFLICT: &str = "NameConflict";
    /// The API server refused an object of the script.
    pub const REJECTED: &str = "Rejected";
    /// The script could not be loaded.
    pub const LOAD_FAILED: &str = "LoadFailed";
    /// The archive could not be fetched or unpacked.
    pub const SOURCE_FAILED: &str = "SourceFailed";
    /// The packages that the script asks for could not be installed.
    pub const DEPENDENCIES_FAILED: &str = "DependenciesFailed";
    /// A volume of the script holds more than it may.
    pub const VOLUME_FULL: &str = "VolumeFull";
    /// The container ends again and again.
    pub const CRASH_LOOP: &str = "CrashLoopBackOff";
    /// The image can not be pulled.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// The container can not be created as configured.
    pub const CONTAINER_CONFIG: &str = "ContainerConfigError";
    /// No node takes the pod.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// The pod is refused: quota, admission, limits.
    pub const POD_REFUSED: &str = "PodRefused";
    /// The pod is not ready, and nothing says why.
    pub const NOT_READY: &str = "NotReady";
}

/// The CRDs as YAML documents: file name and text. `scriptscope crd` prints them, `crds/` holds them.
pub fn crds() -> Result<Vec<(&'static str, String)>, serde_norway::Error> {
    Ok(vec![
        (
            "scriptscope.dev_customscripts.yaml",
            serde_norway::to_string(&CustomScript::crd())?,
        ),
        (
            "scriptscope.dev_scriptexports.yaml",
            serde_norway::to_string(&ScriptExport::crd())?,
        ),
    ])
}
