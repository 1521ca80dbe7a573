//! The dashboard and the REST API, for whoever sits at this machine.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

use crate::{
    api::{CustomScript, CustomScriptStatus},
    loopback::LocalSite,
    model::ScriptKey,
    runner::Runtime,
    web::{
        self, ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
    },
};

/// Who everybody is who gets in.
const OWNER: &str = "you";
/// The token that every request is given here. It opens nothing that whoever gets as far may not open.
const TOKEN: HeaderValue = HeaderValue::from_static("Bearer local");

/// Everybody who gets in may see everything.
pub struct Owner;

#[async_trait]
impl Access for Owner {
    async fn identify(&self, _: &str) -> Result<Identity, AccessError> {
        Ok(Identity {
            username: OWNER.to_owned(),
            ..Identity::default()
        })
    }

    async fn allowed(&self, _: &Identity, _: &Permission<'_>) -> Result<bool, AccessError> {
        Ok(true)
    }
}

/// The one script there is, as if it were an object of Kubernetes.
pub struct OneScript {
    key: ScriptKey,
    object: Mutex<Arc<CustomScript>>,
}

impl OneScript {
    /// The script, not deployed yet.
    pub fn new(key: &ScriptKey, runtime: Runtime) -> Result<Self, serde_json::Error> {
        let object = serde_json::from_value(serde_json::json!({
            "apiVersion": "scriptscope.dev/v1alpha1",
            "kind": "CustomScript",
            "metadata": { "name": key.name, "namespace": key.namespace },
            "spec": { "runtime": runtime.name() },
        }))?;
        Ok(Self {
            key: key.clone(),
            object: Mutex::new(Arc::new(object)),
        })
    }

    /// Changes what is said of its state.
    pub fn update(&self, change: impl FnOnce(&mut CustomScriptStatus)) {
        let mut object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut object).status.get_or_insert_default());
    }
}

impl ScriptObjects for OneScript {
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>> {
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        (*script == self.key).then(|| Arc::clone(&object))
    }

    fn list(&self, namespace: Option<&str>) -> Vec<ScriptKey> {
        let is_there = namespace.is_none_or(|namespace| namespace == self.key.namespace);
        is_there.then(|| self.key.clone()).into_iter().collect()
    }
}

/// The web server's routes, for requests that were meant for this port of this machine.
pub fn router(state: WebState, port: u16) -> Router {
    web::router(state).layer(middleware::from_fn_with_state(LocalSite::new(port), let_in))
}

async fn let_in(State(site): State<LocalSite>, mut request: Request, next: Next) -> Response {
    if !site.takes(request.headers()) {
        let why = "this is served for this machine's browser alone\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    request.headers_mut().insert(header::AUTHORIZATION, TOKEN);
    next.run(request).await
}
