//! The REST API on a store, for one who may read everything.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response, header},
};
use scriptscope::{
    api::CustomScript,
    metrics::Metrics,
    model::ScriptKey,
    store::Store,
    web::{
        ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Everybody;

#[async_trait]
impl Access for Everybody {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        Ok(Identity {
            username: token.to_owned(),
            ..Identity::default()
        })
    }

    async fn allowed(&self, _: &Identity, _: &Permission<'_>) -> Result<bool, AccessError> {
        Ok(true)
    }
}

struct NoObjects;

impl ScriptObjects for NoObjects {
    fn get(&self, _: &ScriptKey) -> Option<Arc<CustomScript>> {
        None
    }

    fn list(&self, _: Option<&str>) -> Vec<ScriptKey> {
        Vec::new()
    }
}

/// Where the rows of `shop/pay` are.
pub const PAY: &str = "/api/v1/namespaces/shop/scripts/pay";

pub struct Site(Router);

impl Site {
    pub fn new(store: Arc<dyn Store>, data: &Path) -> Self {
        let (access, objects) = (Arc::new(Everybody), Arc::new(NoObjects));
        Self(router(WebState::new(
            store,
            access,
            objects,
            data,
            Metrics::new(),
        )))
    }

    /// The answer as it begins.
    pub async fn ask(&self, path: &str) -> Response<Body> {
        let request = Request::get(path).header(header::AUTHORIZATION, "Bearer reader");
        let request = request.body(Body::empty()).unwrap();
        self.0.clone().oneshot(request).await.unwrap()
    }

    /// The whole body of an answer that succeeds.
    pub async fn body(&self, path: &str) -> Vec<u8> {
        let answer = self.ask(path).await;
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap().to_vec();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        body
    }

    /// All items of a list, through all its pages.
    pub async fn items(&self, list: &str, query: &str) -> Value {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let body = self
                .body(&format!("{PAY}/{list}?limit=1000&{query}{cursor}"))
                .await;
            let mut page: Value = serde_json::from_slice(&body).unwrap();
            items.append(page["items"].as_array_mut().unwrap());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return json!(items),
            }
        }
    }
}
