//! Who asks: client certificates out of a kubeconfig, and the dashboard's own address.

use std::{process::Stdio, sync::Arc, time::Duration};

use async_trait::async_trait;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, date_time_ymd,
};
use scriptscope::{
    metrics::Metrics,
    web::{
        self, Tls, WebState,
        access::{Access, AccessError, Identity, Permission},
        certificates::{Authorities, Chain},
        router,
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_util::sync::CancellationToken;

use crate::site::{Objects, Said, Site, Users, bare};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Tokens as `Users` does; certificates by a real authority.
struct WithCertificates(Authorities);

#[async_trait]
impl Access for WithCertificates {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        Users.identify(token).await
    }

    async fn identify_certificate(&self, chain: &Chain) -> Result<Identity, AccessError> {
        Ok(self.0.identify(chain, UnixTime::now())?)
    }

    async fn allowed(&self, user: &Identity, asked: &Permission<'_>) -> Result<bool, AccessError> {
        let group = user.groups.iter().any(|group| group == asked.namespace);
        Ok(group || Users.allowed(user, asked).await?)
    }
}

/// A kubeconfig whose user has such a certificate, and perhaps a token.
fn kubeconfig(site: &Site, name: &str, issuer: &Authority, years: (i32, i32), token: Option<&str>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "shop");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let folder = site.folder.path();
    let (cert_file, key_file) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "users": [{"name": "u", "user": {"client-certificate": cert_file, "client-key": key_file, "token": token}}]});
    let path = folder.join(format!("{name}.config"));
    std::fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_shows_who_asks() {
    let site = Site::new().await;
    let (ours, theirs) = (authority(), authority());
    let access = WithCertificates(Authorities::default());
    access.0.trust(&ours.pem()).unwrap();
    let state = WebState::new(
        site.store.clone(),
        Arc::new(access),
        Arc::new(Objects),
        site.folder.path(),
        Metrics::new(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(web::serve_tls(
        listener,
        Tls::new().unwrap(),
        router(state),
        stop.clone(),
    ));
    let says = async |config: &str, server: &str| {
        let mut command = bare();
        command.args([
            "runs",
            "pay",
            "--limit",
            "1",
            "--server",
            server,
            "--kubeconfig",
            config,
        ]);
        Said::from(command.output().await.unwrap())
    };
    let jane = kubeconfig(&site, "jane", &ours, (2020, 2100), None);
    assert!(says(&jane, &server).await.works().contains("run-000"));
    let old = kubeconfig(&site, "old", &ours, (2020, 2021), None);
    says(&old, &server)
        .await
        .fails(1, "the client certificate has expired; get a new one");
    let stranger = kubeconfig(&site, "stranger", &theirs, (2020, 2100), None);
    says(&stranger, &server)
        .await
        .fails(1, "not signed by an authority that this cluster takes");
    // A token wins, here one without rights; and goes over plain HTTP.
    let plain = format!("http://{}", site.address);
    let both = kubeconfig(&site, "both", &ours, (2020, 2100), Some("nobody"));
    says(&both, &plain).await.fails(1, "nobody needs get");
    says(&jane, &plain).await.fails(2, "needs https://");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_is_for_one_browser() {
    let site = Site::new().await;
    let mut child = site
        .command("shop", &["dashboard", "--no-open"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(Duration::from_secs(30), lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let address = line.strip_prefix("Dashboard: ").unwrap().to_owned();
    let base = address.split("/open/").next().unwrap().to_owned();
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let whoami = format!("{base}/api/v1/whoami");
    let get = async |url: &str, headers: &[(&str, &str)]| {
        let mut request = http.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    assert_eq!(get(&whoami, &[]).await.status(), 403);
    assert_eq!(get(&address, &[("host", "evil.example")]).await.status(), 403);
    let opened = get(&address, &[]).await;
    assert_eq!(opened.status(), 303);
    assert_eq!(opened.headers()["location"], "/");
    let cookie = opened.headers()["set-cookie"].to_str().unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let mine = ("cookie", cookie.as_str());
    assert_eq!(get(&address, &[]).await.status(), 403, "a ticket is good once");
    let who = get(&whoami, &[mine]).await;
    assert_eq!(who.status(), 200);
    assert!(who.text().await.unwrap().contains("\"shop\""));
    let page = get(&format!("{base}/"), &[mine]).await;
    assert!(page.headers().contains_key("content-security-policy"));
    assert!(page.text().await.unwrap().contains("ScriptScope"));
    // What another page or another name sends has the cookie, too.
    for foreign in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert_eq!(get(&whoami, &[mine, foreign]).await.status(), 403, "{foreign:?}");
    }
    assert_eq!(
        http.post(&whoami)
            .header("cookie", &cookie)
            .send()
            .await
            .unwrap()
            .status(),
        405
    );
    child.kill().await.unwrap();
    site.says("stranger", &["dashboard", "--no-open"])
        .await
        .fails(1, "the token is not valid");
}
