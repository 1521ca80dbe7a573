//! As much of an API server as the controller of exports talks to.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::{Method, Request, Response, request::Parts},
};
use kube::client::{Body, Client};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

pub const EVERYWHERE: &str = "/apis/scriptscope.dev/v1alpha1/scriptexports";
pub const IN_SHOP: &str = "/apis/scriptscope.dev/v1alpha1/namespaces/shop/scriptexports";

/// As much of an API server as the controller talks to.
pub struct Cluster {
    /// The one list that the controller may read.
    list: &'static str,
    pub objects: Mutex<BTreeMap<String, Value>>,
    pub events: Mutex<Vec<Value>>,
    /// Secrets by name; null for one that may not be read.
    pub secrets: Mutex<BTreeMap<String, Value>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Result<String, Infallible>>>>,
    patched: Mutex<Vec<(String, Value)>>,
    /// What was deleted: a watch that begins later hears of it, since it goes on where the list was.
    gone: Mutex<Vec<Value>>,
    /// Export of which nobody ever hears that it is running.
    pub held: Mutex<Option<String>>,
    changed: watch::Sender<u64>,
}

impl Cluster {
    pub fn new(list: &'static str, objects: Vec<Value>) -> Arc<Self> {
        let name = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
        Arc::new(Self {
            list,
            objects: Mutex::new(objects.into_iter().map(|o| (name(&o), o)).collect()),
            events: Mutex::default(),
            secrets: Mutex::default(),
            watchers: Mutex::default(),
            patched: Mutex::default(),
            gone: Mutex::default(),
            held: Mutex::default(),
            changed: watch::channel(0).0,
        })
    }

    pub fn client(self: &Arc<Self>) -> Client {
        let cluster = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = Arc::clone(&cluster);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                Ok::<_, Infallible>(cluster.respond(&parts, &body).await)
            }
        });
        Client::new(service, "default")
    }

    /// The same for a process of its own; ends with the runtime.
    pub async fn serve(self: &Arc<Self>) -> SocketAddr {
        let cluster = Arc::clone(self);
        let routes = Router::new().fallback(move |request: Request<axum::body::Body>| {
            let cluster = Arc::clone(&cluster);
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                cluster.respond(&parts, &body).await
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    async fn respond(&self, parts: &Parts, body: &[u8]) -> Response<axum::body::Body> {
        let path = parts.uri.path();
        if parts.uri.query().unwrap_or_default().contains("watch=true") {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            {
                // As long as nobody deletes. What came since the list was made is told, and the rest once more.
                let objects = self.objects.lock().unwrap();
                for object in objects.values() {
                    let event = json!({"type": "ADDED", "object": object}).to_string() + "\n";
                    sender.send(Ok(event)).unwrap();
                }
                for object in &*self.gone.lock().unwrap() {
                    let event = json!({"type": "DELETED", "object": object}).to_string() + "\n";
                    sender.send(Ok(event)).unwrap();
                }
                self.watchers.lock().unwrap().push(sender);
            }
            let events = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
            return Response::new(axum::body::Body::from_stream(events));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let is_held = self.held.lock().unwrap().as_ref().is_some_and(|name| {
            path.ends_with(&format!("/{name}/status")) && sent["status"]["phase"] == "Running"
        });
        if is_held {
            std::future::pending::<()>().await;
        }
        let (code, answer) = self.answer(&parts.method, path, sent);
        self.changed.send_modify(|n| *n += 1);
        let body = axum::body::Body::from(answer.to_string());
        Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(body)
            .unwrap()
    }

    fn answer(&self, method: &Method, path: &str, sent: Value) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                                "reason": reason, "code": code, "message": reason});
            (code, status)
        };
        if path.contains("/events") {
            self.events.lock().unwrap().push(sent.clone());
            return (201, sent);
        }
        if let Some(name) = path.strip_prefix("/api/v1/namespaces/shop/secrets/") {
            return match self.secrets.lock().unwrap().get(name) {
                None => failure(404, "NotFound"),
                Some(Value::Null) => failure(403, "Forbidden"),
                Some(secret) => (200, secret.clone()),
            };
        }
        let mut objects = self.objects.lock().unwrap();
        if method == Method::POST && path == IN_SHOP {
            let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
            if objects.contains_key(&name) {
                return failure(409, "AlreadyExists");
            }
            let mut object = export(&name, &sent["spec"], Value::Null);
            for kept in ["annotations", "labels", "ownerReferences"] {
                object["metadata"][kept] = sent["metadata"][kept].clone();
            }
            objects.insert(name, object.clone());
            self.notify("ADDED", &object);
            return (201, object);
        }
        if path.ends_with("/scriptexports") && path != self.list {
            return failure(403, "Forbidden");
        }
        if path == self.list {
            let items: Vec<Value> = objects.values().cloned().collect();
            // Written to by somebody else just after it was listed.
            if let Some(contended) = objects.get_mut("contended") {
                contended["metadata"]["resourceVersion"] = json!("2");
            }
            return (
                200,
                json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExportList",
                       "metadata": {"resourceVersion": "1"}, "items": items}),
            );
        }
        let name = path.trim_end_matches("/status").rsplit('/').next().unwrap();
        if method == Method::DELETE {
            let Some(object) = objects.get(name) else {
                return failure(404, "NotFound");
            };
            if sent["preconditions"].is_object() && sent["preconditions"]["uid"] != object["metadata"]["uid"]
            {
                return failure(409, "Conflict");
            }
            let object = objects.remove(name).unwrap();
            self.notify("DELETED", &object);
            self.gone.lock().unwrap().push(object.clone());
            return (200, object);
        }
        let known = path.contains("/scriptexports/");
        let Some(object) = objects.get_mut(name).filter(|_| known) else {
            return failure(404, "NotFound");
        };
        if method == Method::PATCH {
            if sent["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return failure(409, "Conflict");
            }
            let version: u64 = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
            object["status"] = sent["status"].clone();
            self.patched
                .lock()
                .unwrap()
                .push((name.to_owned(), sent["status"].clone()));
            self.notify("MODIFIED", object);
        }
        (200, object.clone())
    }

    /// Changes the spec of an export, as a user would.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(name).unwrap();
        edit(&mut object["spec"]);
        let version: u64 = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        self.notify("MODIFIED", object);
    }

    /// Creates an export, as a user would.
    pub fn create(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects.lock().unwrap().insert(name, object.clone());
        self.notify("ADDED", object);
    }

    /// Deletes one.
    pub fn delete(&self, name: &str) {
        let gone = self.objects.lock().unwrap().remove(name).unwrap();
        self.notify("DELETED", &gone);
    }

    /// Whether an export has come to its end.
    pub fn has_ended(&self, name: &str) -> bool {
        let status = self.status(name);
        ["Succeeded", "Failed", "Cancelled"].contains(&status["phase"].as_str().unwrap_or_default())
    }

    pub fn notify(&self, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object}).to_string() + "\n";
        for watcher in &*self.watchers.lock().unwrap() {
            let _ = watcher.send(Ok(event.clone()));
        }
    }

    pub fn status(&self, name: &str) -> Value {
        self.objects.lock().unwrap()[name]["status"].clone()
    }

    /// Phases told of an export, in order, each once.
    pub fn phases(&self, name: &str) -> Vec<String> {
        let patched = self.patched.lock().unwrap();
        let mut phases: Vec<String> = patched
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, status)| status["phase"].as_str().unwrap().to_owned())
            .collect();
        phases.dedup();
        phases
    }

    pub async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !reached(self) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait)
            .await
            .unwrap_or_else(|_| {
                let objects = self.objects.lock().unwrap();
                let statuses = objects
                    .iter()
                    .map(|(name, object)| format!("{name}: {}", object["status"]));
                panic!("never: {what}; {}", statuses.collect::<Vec<_>>().join("; "))
            });
    }
}

pub fn export(name: &str, spec: &Value, status: Value) -> Value {
    let mut object = json!({
        "apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                     "resourceVersion": "1", "generation": 1},
        "spec": spec,
    });
    if !status.is_null() {
        object["status"] = status;
    }
    object
}
