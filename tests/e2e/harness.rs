//! A user's tools: kubectl, HTTP calls of a script's endpoint, the REST API with a token.

use std::{
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command, sync::OnceCell};

/// Namespace that the chart is installed in.
pub const SYSTEM: &str = "scriptscope-system";

/// Runs kubectl; its output, or its error text.
pub async fn try_kubectl(args: &[&str], stdin: Option<&str>) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts; `make test` puts it on the path");
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(stdin.unwrap_or_default().as_bytes())
        .await
        .unwrap();
    drop(pipe);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// Runs kubectl, which must succeed.
pub async fn kubectl(args: &[&str]) -> String {
    try_kubectl(args, None)
        .await
        .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
}

/// Applies a manifest, as a user does.
pub async fn apply(manifest: &Value) -> Result<String, String> {
    try_kubectl(&["apply", "-f", "-"], Some(&manifest.to_string())).await
}

/// Asks again until there is an answer; panics with the last word on it otherwise.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if start.elapsed() > limit => panic!("not within {limit:?}: {what}; last: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The HTTP client of all tests.
pub fn http() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // Each test has a runtime of its own, so that no connection may outlive a call.
        Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(120))
            .no_proxy()
            .build()
            .unwrap()
    })
}

/// Base address of the operator's web server.
pub async fn operator() -> &'static str {
    static URL: OnceCell<String> = OnceCell::const_new();
    URL.get_or_init(|| async {
        let ip = kubectl(&[
            "-n",
            SYSTEM,
            "get",
            "service",
            "scriptscope",
            "-o",
            "jsonpath={.spec.clusterIP}",
        ])
        .await;
        format!("http://{ip}")
    })
    .await
}

/// A token of a service account that may read everything.
pub async fn admin_token() -> &'static str {
    static TOKEN: OnceCell<String> = OnceCell::const_new();
    TOKEN
        .get_or_init(|| async {
            let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "e2e-reader", "namespace": SYSTEM}},
                {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "e2e-reader"},
                 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scriptscope-viewer"},
                 "subjects": [{"kind": "ServiceAccount", "name": "e2e-reader", "namespace": SYSTEM}]}]});
            apply(&manifest).await.unwrap();
            kubectl(&["-n", SYSTEM, "create", "token", "e2e-reader", "--duration", "2h"]).await.trim().to_owned()
        })
        .await
}

/// `GET` of the REST API with a token.
pub async fn rest_as(token: Option<&str>, path: &str) -> (StatusCode, String) {
    let mut request = http().get(format!("{}{path}", operator().await));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    match request.send().await {
        Ok(response) => (response.status(), response.text().await.unwrap_or_default()),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

/// Whether nothing answers at that address, not even with a refusal.
fn is_unreachable(error: &reqwest::Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::HostUnreachable)
    })
}

/// `GET` of the REST API by one who may read everything; the JSON, or what went wrong.
pub async fn rest(path: &str) -> Result<Value, String> {
    let (status, text) = rest_as(Some(admin_token().await), path).await;
    if !status.is_success() {
        return Err(format!("{path}: {status} {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("{path}: {error} in {text}"))
}

/// A script in a namespace of its own, which is removed with the test.
pub struct Script {
    pub namespace: String,
    pub name: String,
}

/// What a call was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    pub fn run_id(&self) -> &str {
        self.body["runId"]
            .as_str()
            .unwrap_or_else(|| panic!("no runId in {self:?}"))
    }
}

impl Script {
    /// A fresh namespace for the test `test`.
    pub async fn new(test: &str, name: &str) -> Self {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let namespace = format!("e2e-{test}-{}", &id[24..]);
        kubectl(&["create", "namespace", &namespace]).await;
        Self {
            namespace,
            name: name.to_owned(),
        }
    }

    /// The manifest of a Python script with this `main.py`; `more` members of the spec on top.
    pub fn manifest(&self, main: &str, more: &Value) -> Value {
        let mut spec = json!({"runtime": "python", "source": {"inline": {"main.py": main}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            if value.is_null() {
                spec.as_object_mut().unwrap().remove(key);
            } else {
                spec[key] = value.clone();
            }
        }
        json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "CustomScript",
               "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec})
    }

    /// Applies it and waits until it serves the latest spec.
    pub async fn deploy(&self, main: &str, more: Value) {
        apply(&self.manifest(main, &more)).await.unwrap();
        self.wait_for_phase("Deployed").await;
    }

    /// Merges a patch into the object.
    pub async fn patch(&self, patch: &Value) {
        kubectl(&[
            "-n",
            &self.namespace,
            "patch",
            "customscript",
            &self.name,
            "--type=merge",
            "-p",
            &patch.to_string(),
        ])
        .await;
    }

    /// The object.
    pub async fn object(&self) -> Value {
        let text = kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "customscript",
            &self.name,
            "-o",
            "json",
        ])
        .await;
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until the status speaks of the latest spec and has this phase; the status.
    pub async fn wait_for_phase(&self, phase: &str) -> Value {
        eventually(
            &format!("{} is {phase}", self.name),
            Duration::from_secs(90),
            || async {
                let object = self.object().await;
                let status = &object["status"];
                if status["phase"] == phase
                    && status["observedGeneration"] == object["metadata"]["generation"]
                {
                    Ok(status.clone())
                } else {
                    Err(status.to_string())
                }
            },
        )
        .await
    }

    /// Waits until the status' figures satisfy `good`; the status.
    pub async fn wait_for_metrics(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        eventually(what, Duration::from_secs(30), || async {
            let status = self.object().await["status"].clone();
            if good(&status["metrics"]) {
                Ok(status)
            } else {
                Err(status["metrics"].to_string())
            }
        })
        .await
    }

    /// Address of the script's Service as the host reaches it.
    pub async fn address(&self) -> String {
        let ip = kubectl(&[
            "-n",
            &self.namespace,
            "get",
            "service",
            &self.name,
            "-o",
            "jsonpath={.spec.clusterIP}",
        ])
        .await;
        format!("http://{ip}")
    }

    /// Calls a function.
    pub async fn call(&self, function: &str, arguments: Value) -> Answer {
        self.call_with(function, arguments, &[]).await
    }

    /// Calls a function with headers.
    pub async fn call_with(&self, function: &str, arguments: Value, headers: &[(&str, &str)]) -> Answer {
        let address = self.address().await;
        let mut request = http()
            .post(format!("{address}/functions/{function}"))
            .json(&arguments);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let began = Instant::now();
        let response = loop {
            match request.try_clone().unwrap().send().await {
                Ok(response) => break response,
                // A sandbox that gets no processor for seconds does not say where it is; nothing was sent to it.
                Err(error) if is_unreachable(&error) && began.elapsed() < Duration::from_secs(20) => {}
                Err(error) => panic!("{function}: {error:?}"),
            }
        };
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        Answer { status, body }
    }

    /// Path of the script in the REST API.
    pub fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/scripts/{}", self.namespace, self.name)
    }

    /// All items of a list, through all its pages.
    pub async fn items(&self, list: &str, query: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = rest(&format!("{}/{list}?limit=1000&{query}{cursor}", self.path()))
                .await
                .unwrap();
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Waits until the run has ended in the store; the run with its payloads.
    pub async fn ended_run(&self, run_id: &str) -> Value {
        eventually(
            &format!("run {run_id} is stored"),
            Duration::from_secs(20),
            || async {
                let run = rest(&format!("{}/runs/{run_id}", self.path())).await?;
                if run["status"] == "In Progress" {
                    Err(run.to_string())
                } else {
                    Ok(run)
                }
            },
        )
        .await
    }

    /// The messages of a run's log lines of one level, in the order they were printed.
    pub async fn messages(&self, run_id: &str, level: &str) -> Vec<String> {
        let mut lines = self.items("logs", &format!("run={run_id}&level={level}")).await;
        lines.reverse();
        lines
            .iter()
            .map(|line| line["message"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if std::env::var_os("SCRIPTSCOPE_E2E_KEEP").is_none() {
            let _ = std::process::Command::new("kubectl")
                .args(["delete", "namespace", &self.namespace, "--wait=false"])
                .stdout(Stdio::null())
                .status();
        }
    }
}
