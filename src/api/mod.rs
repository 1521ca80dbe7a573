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
}

/// Condition types and reasons; the only ones used.
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
