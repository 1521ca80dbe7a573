//! The `CustomScript` objects of the cluster, as far as they are known.

use std::sync::Arc;

use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{api::CustomScript, model::ScriptKey};

/// Looks objects up without asking the API server.
pub trait ScriptObjects: Send + Sync + 'static {
    /// One object.
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>>;

    /// Every object, of one namespace or of all.
    fn list(&self, namespace: Option<&str>) -> Vec<ScriptKey>;
}

impl ScriptObjects for Store<CustomScript> {
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>> {
        Store::get(self, &ObjectRef::new(&script.name).within(&script.namespace))
    }

    fn list(&self, namespace: Option<&str>) -> Vec<ScriptKey> {
        self.state()
            .iter()
            .map(|object| ScriptKey::new(object.namespace().unwrap_or_default(), object.name_any()))
            .filter(|key| namespace.is_none_or(|n| n == key.namespace))
            .collect()
    }
}
