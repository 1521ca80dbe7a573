//! Readers whom a reverse proxy has signed in, over real connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

#[path = "common/rows.rs"]
#[allow(dead_code)] // other tests use more of it
mod rows;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use clap::Parser;
use rows::Rows;
use scriptscope::{
    api::CustomScript,
    metrics::Metrics,
    model::ScriptKey,
    web::{
        self, ProxyArgs, ProxyAuth, ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Lets the group `shop-readers` read what is in the namespace shop, and remembers who was asked about.
#[derive(Default)]
struct Rights(Mutex<Vec<Identity>>);

#[async_trait]
impl Access for Rights {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        match token {
            "bob's" => Ok(Identity {
                username: "bob".to_owned(),
                ..Identity::default()
            }),
            _ => Err(AccessError::Unauthenticated),
        }
    }

    async fn allowed(&self, user: &Identity, asked: &Permission<'_>) -> Result<bool, AccessError> {
        self.0.lock().unwrap().push(user.clone());
        Ok(asked.namespace == "shop" && user.groups.iter().any(|group| group == "shop-readers"))
    }
}

struct NoObjects;

impl ScriptObjects for NoObjects {
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>> {
        let draft = CustomScript::new(
            "draft",
            serde_json::from_value(json!({"runtime": "python"})).unwrap(),
        );
        (script == &ScriptKey::new("shop", "draft")).then(|| Arc::new(draft))
    }

    fn list(&self, _: Option<&str>) -> Vec<ScriptKey> {
        Vec::new()
    }
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    proxy: ProxyArgs,
}

struct Site {
    address: String,
    rights: Arc<Rights>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The operator's web server, started with these arguments.
async fn site(args: &[&str]) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let store = Rows::default().store(&folder).await;
    let rights = Arc::new(Rights::default());
    let args = Command::parse_from(["operator"].iter().chain(args)).proxy;
    let state = WebState::new(
        store,
        rights.clone(),
        Arc::new(NoObjects),
        folder.path(),
        Metrics::new(),
    )
    .behind(ProxyAuth::new(&args));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/api/v1", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(web::serve(listener, router(state), stop.clone()));
    Site {
        address,
        rights,
        stop,
        _folder: folder,
    }
}

impl Site {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = reqwest::Client::new().get(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

const ANN: [(&str, &str); 2] = [
    ("x-forwarded-user", "ann@example.com"),
    ("x-forwarded-groups", "shop-readers,ops"),
];
const RUNS: &str = "/namespaces/shop/scripts/draft/runs";

#[tokio::test]
async fn a_trusted_proxy_says_who_asks_and_kubernetes_what_they_may() {
    let site = site(&[
        "--dashboard-auth=proxy",
        "--trusted-proxies=10.0.0.7,127.0.0.1/32",
    ])
    .await;
    let (status, me) = site.get("/whoami", &ANN).await;
    assert_eq!((status, &me["username"]), (200, &json!("ann@example.com")));
    assert_eq!(
        me["groups"],
        json!(["shop-readers", "ops", "system:authenticated"])
    );
    assert_eq!(site.get(RUNS, &ANN).await.0, 200);
    let asked = site.rights.0.lock().unwrap()[0].clone();
    assert_eq!(asked.username, "ann@example.com");
    assert_eq!(asked.groups, ["shop-readers", "ops", "system:authenticated"]);
    let other = "/namespaces/bank/scripts/loans/runs";
    let (status, refused) = site.get(other, &ANN).await;
    assert_eq!(status, 403);
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("ann@example.com needs get on")
    );
    assert_eq!(site.get(RUNS, &ANN[..1]).await.0, 403);
    // A token is still one, and says more than a header.
    let token = ("authorization", "Bearer bob's");
    assert_eq!(site.get("/whoami", &[token]).await.1["username"], "bob");
    assert_eq!(site.get("/whoami", &[ANN[0], token]).await.1["username"], "bob");
    // A session from before does not, as the proxy knows who is there now.
    let cookie = ("cookie", "scriptscope-session=bob's");
    assert_eq!(
        site.get("/whoami", &[ANN[0], cookie]).await.1["username"],
        "ann@example.com"
    );
    assert_eq!(
        site.get("/whoami", &[("x-forwarded-user", "system:admin")])
            .await
            .0,
        401
    );
}

#[tokio::test]
async fn nobody_else_is_believed() {
    for args in [
        &[][..],
        &["--trusted-proxies=127.0.0.0/8"],
        &["--dashboard-auth=proxy", "--trusted-proxies=10.0.0.7,::1"],
    ] {
        let site = site(args).await;
        for path in ["/whoami", RUNS] {
            let (status, answer) = site.get(path, &ANN).await;
            assert_eq!(
                (status, &answer["error"]["code"]),
                (401, &json!("Unauthenticated")),
                "{args:?}"
            );
        }
        assert!(site.rights.0.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn another_site_s_page_is_not_its_visitor() {
    let site = site(&["--dashboard-auth=proxy", "--trusted-proxies=127.0.0.1"]).await;
    for (from, status) in [
        ("same-origin", 200),
        ("none", 200),
        ("cross-site", 401),
        ("same-site", 401),
    ] {
        let answer = site.get(RUNS, &[ANN[0], ANN[1], ("sec-fetch-site", from)]).await;
        assert_eq!(answer.0, status, "{from}");
    }
    // What changes something needs the browser's word that the dashboard itself asks.
    let post = |from: Option<&'static str>| {
        let request = reqwest::Client::new().post(format!("{}/session", site.address));
        let request = request.header(ANN[0].0, ANN[0].1);
        from.into_iter()
            .fold(request, |request, from| request.header("sec-fetch-site", from))
    };
    for (from, status) in [(None, 401), (Some("cross-site"), 401), (Some("same-origin"), 400)] {
        assert_eq!(post(from).send().await.unwrap().status(), status, "{from:?}");
    }
}

#[tokio::test]
async fn the_headers_have_the_names_that_the_proxy_gives_them() {
    let args = [
        "--dashboard-auth=proxy",
        "--trusted-proxies=127.0.0.1",
        "--proxy-user-header=X-Auth-Request-Email",
        "--proxy-groups-header=X-Auth-Request-Groups",
    ];
    let site = site(&args).await;
    assert_eq!(site.get("/whoami", &ANN).await.0, 401);
    let named = [
        ("x-auth-request-email", "ann"),
        ("x-auth-request-groups", "shop-readers"),
    ];
    assert_eq!(site.get(RUNS, &named).await.0, 200);
}

/// Debian's nginx in front of the site, which asks for a password and says who came in. It ends with this.
struct Nginx {
    process: std::process::Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As in docs/dashboard.md.
async fn nginx(upstream: &str) -> Nginx {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    std::fs::write(
        folder.path().join("users"),
        "ann@example.com:{PLAIN}secret\nbob:{PLAIN}secret\n",
    )
    .unwrap();
    let at = folder.path().display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
    map $remote_user $groups {{ ann@example.com shop-readers; default \"\"; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            auth_basic ScriptScope;
            auth_basic_user_file {at}/users;
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_read_timeout 1h;
            proxy_set_header Authorization \"\";
            proxy_set_header X-Forwarded-User $remote_user;
            proxy_set_header X-Forwarded-Groups $groups;
        }}
    }}
}}
"
    );
    std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
    let process = std::process::Command::new("nginx")
        .arg("-p")
        .arg(folder.path())
        .arg("-e")
        .arg(folder.path().join("errors"))
        .arg("-c")
        .arg(folder.path().join("nginx.conf"))
        .spawn()
        .expect("nginx is there (make deps-test)");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "nginx does not listen");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Nginx {
        process,
        address: format!("http://127.0.0.1:{port}"),
        _folder: folder,
    }
}

#[tokio::test]
async fn nginx_says_who_came_in_and_nobody_says_it_for_them() {
    let site = site(&["--dashboard-auth=proxy", "--trusted-proxies=127.0.0.1"]).await;
    let nginx = nginx(site.address.trim_end_matches("/api/v1")).await;
    let get = |user: Option<&'static str>, path: &str| {
        let request = reqwest::Client::new().get(format!("{}/api/v1{path}", nginx.address));
        let request = request.header("sec-fetch-site", "same-origin");
        // By hand, as reqwest's own is behind a feature.
        match user {
            Some("ann") => request.header("authorization", "Basic YW5uQGV4YW1wbGUuY29tOnNlY3JldA=="),
            Some(_) => request.header("authorization", "Basic Ym9iOnNlY3JldA=="),
            None => request,
        }
    };
    assert_eq!(get(None, "/whoami").send().await.unwrap().status(), 401);
    let forged = get(Some("ann"), "/whoami")
        .header("x-forwarded-user", "root")
        .header("x-forwarded-groups", "admins");
    let me: Value = forged.send().await.unwrap().json().await.unwrap();
    assert_eq!(me["username"], "ann@example.com");
    assert_eq!(me["groups"], json!(["shop-readers", "system:authenticated"]));
    assert_eq!(get(Some("ann"), RUNS).send().await.unwrap().status(), 200);
    // Kubernetes' word counts, not the proxy's alone.
    assert_eq!(get(Some("bob"), RUNS).send().await.unwrap().status(), 403);
    // What is followed comes through as it happens.
    let mut stream = get(Some("ann"), "/namespaces/shop/scripts/draft/logs/stream")
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let first = tokio::time::timeout(std::time::Duration::from_secs(10), stream.chunk());
    let first = first.await.expect("an event at once").unwrap().unwrap();
    assert!(first.starts_with(b"event: lines"));
}
