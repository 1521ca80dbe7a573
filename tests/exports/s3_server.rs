//! A real S3 server (versitygw, see `make deps-test`) in a folder of its own, and what a test asks it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Method, Response, StatusCode};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle, actions::CreateMultipartUpload};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

const KEY: &str = "AKIATESTTESTTEST";
const SECRET: &str = "a-secret-that-nobody-may-see";
const SIGNED: Duration = Duration::from_mins(1);

/// Ends with its test.
pub struct S3Server {
    _process: Process,
    folder: TempDir,
    pub address: SocketAddr,
    bucket: Bucket,
    credentials: Credentials,
    http: reqwest::Client,
}

/// Ends with its owner.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that nobody else binds meanwhile: the system gives out ports in turn.
fn free_address(ip: IpAddr) -> SocketAddr {
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// The server on the folder of another, or its first.
fn serve(folder: &Path, address: SocketAddr, options: &[(&str, PathBuf)]) -> Process {
    let mut command = Command::new("versitygw");
    command.args(["--access", KEY, "--secret", SECRET, "--quiet", "--port"]);
    command.arg(address.to_string());
    for (option, path) in options {
        command.arg(option).arg(path);
    }
    let process = command
        .args(["posix", "--sidecar"])
        .args([folder.join("meta"), folder.join("data")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("versitygw is not installed: make deps-test");
    Process(process)
}

impl S3Server {
    /// With a bucket `reports`.
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at an address of this machine.
    pub async fn start_at(ip: IpAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["data", "meta"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let address = free_address(ip);
        let process = serve(folder.path(), address, &[]);
        let endpoint = format!("http://{address}").parse().unwrap();
        let server = Self {
            _process: process,
            folder,
            address,
            bucket: Bucket::new(endpoint, UrlStyle::Path, "reports", "us-east-1").unwrap(),
            credentials: Credentials::new(KEY, SECRET),
            http: reqwest::Client::new(),
        };
        let url = server.bucket.create_bucket(&server.credentials).sign(SIGNED);
        let made = async {
            loop {
                match server.http.put(url.as_str()).send().await {
                    Ok(answer) => return answer.status(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let status = tokio::time::timeout(Duration::from_secs(30), made).await.unwrap();
        assert!(status.is_success(), "{status}");
        server
    }

    /// A second door to the same buckets, with TLS; and the certificate, which nobody else knows.
    pub async fn with_tls(&self) -> (Process, SocketAddr, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let paths = ["certificate", "key"].map(|name| self.folder.path().join(name));
        std::fs::write(&paths[0], pair.cert.pem()).unwrap();
        std::fs::write(&paths[1], pair.signing_key.serialize_pem()).unwrap();
        let address = free_address(Ipv4Addr::LOCALHOST.into());
        let [certificate, key] = paths;
        let process = serve(
            self.folder.path(),
            address,
            &[("--cert", certificate), ("--key", key)],
        );
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listens)
            .await
            .unwrap();
        (process, address, pair.cert.pem())
    }

    /// Takes the bucket away, with all that is in it.
    pub fn remove_bucket(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data/reports")).unwrap();
    }

    /// The Secret of its credentials.
    pub fn secret() -> Value {
        secret(&[("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)])
    }

    /// Where an export goes, by way of `address`.
    pub fn destination(address: SocketAddr, prefix: &str) -> Value {
        json!({"s3": {"bucket": "reports", "prefix": prefix, "endpoint": format!("http://{address}"),
                      "credentialsSecretRef": {"name": "s3"}}})
    }

    pub async fn get(&self, key: &str) -> Option<Response> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNED);
        let answer = self.http.get(url.as_str()).send().await.unwrap();
        (answer.status() != StatusCode::NOT_FOUND).then(|| answer.error_for_status().unwrap())
    }

    /// Keys of all objects.
    pub async fn keys(&self) -> Vec<String> {
        let url = self.bucket.list_objects_v2(Some(&self.credentials)).sign(SIGNED);
        let text = text_of(self.http.get(url.as_str())).await;
        let list = rusty_s3::actions::ListObjectsV2::parse_response(&text).unwrap();
        list.contents.into_iter().map(|object| object.key).collect()
    }

    /// Begins an upload and leaves it.
    pub async fn begin(&self, key: &str) -> String {
        let url = CreateMultipartUpload::new(&self.bucket, Some(&self.credentials), key).sign(SIGNED);
        let text = text_of(self.http.post(url.as_str())).await;
        let id = CreateMultipartUpload::parse_response(&text)
            .unwrap()
            .upload_id()
            .to_owned();
        let url = self
            .bucket
            .upload_part(Some(&self.credentials), key, 1, &id)
            .sign(SIGNED);
        let part = self
            .http
            .put(url.as_str())
            .body(vec![b'x'; 5 << 20])
            .send()
            .await
            .unwrap();
        assert!(part.status().is_success());
        id
    }

    /// How many uploads have begun and not ended.
    pub async fn uploads(&self) -> usize {
        self.upload_ids().await.len()
    }

    /// Ids of the uploads that have begun and not ended.
    pub async fn upload_ids(&self) -> Vec<String> {
        let url = rusty_s3::signing::sign(
            &jiff::Timestamp::now(),
            rusty_s3::Method::Get,
            self.bucket.base_url().clone(),
            KEY,
            SECRET,
            None,
            "us-east-1",
            60,
            [("uploads", "")].into_iter(),
            std::iter::empty(),
        );
        let answer = self.http.request(Method::GET, url.as_str()).send().await.unwrap();
        let text = answer.error_for_status().unwrap().text().await.unwrap();
        let ids = text.split("<UploadId>").skip(1);
        ids.map(|rest| rest.split('<').next().unwrap().to_owned())
            .collect()
    }

    pub async fn until_uploads(&self, count: usize) {
        let wait = async {
            while self.uploads().await != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the number of uploads");
    }
}

/// The Secret of its credentials, with the certificate of an authority.
pub fn secret_with_authority(certificate: &str) -> Value {
    secret(&[
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("ca.crt", certificate),
    ])
}

/// A Secret with these keys.
pub fn secret(pairs: &[(&str, &str)]) -> Value {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let data: serde_json::Map<String, Value> = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(value))))
        .collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": "shop"}, "data": data})
}

/// Stands in front of a server; no connection carries more than `most` bytes to it.
pub async fn narrow(server: SocketAddr, most: usize) -> SocketAddr {
    Gate::before(server, most).await.address
}

/// Stands in front of a server; while it is closed, no connection carries more than so many bytes to it. Those are cut off
/// when it opens.
pub struct Gate {
    pub address: SocketAddr,
    opened: CancellationToken,
}

impl Gate {
    pub async fn before(server: SocketAddr, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let opened = CancellationToken::new();
        let all = opened.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if all.is_cancelled() {
                    tokio::spawn(carry(client, server, usize::MAX, Duration::ZERO));
                } else {
                    let limited = carry(client, server, most, Duration::ZERO);
                    tokio::spawn(all.clone().run_until_cancelled_owned(limited));
                }
            }
        });
        Self { address, opened }
    }

    pub fn open(&self) {
        self.opened.cancel();
    }
}

/// Stands in front of a server that is far away: what it says takes so long, and it takes little at once.
pub async fn slow(server: SocketAddr, latency: Duration) -> SocketAddr {
    let listener = TcpListener::bind((server.ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, server, usize::MAX, latency));
        }
    });
    address
}

async fn carry(client: TcpStream, server: SocketAddr, most: usize, latency: Duration) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from, mut back) = client.into_split();
    let (mut answers, mut to) = server.into_split();
    let answered = tokio::spawn(async move { copy_late(&mut answers, &mut back, latency).await });
    let _ = copy_late(&mut from.take(most as u64), &mut to, latency / 4).await;
    // It says nothing more, and takes nothing.
    let _ = answered.await;
}

/// Copies with a pause before each piece.
async fn copy_late(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    latency: Duration,
) -> std::io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let taken = from.read(&mut piece).await?;
        if taken == 0 {
            return Ok(());
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        to.write_all(&piece[..taken]).await?;
    }
}

async fn text_of(request: reqwest::RequestBuilder) -> String {
    request.send().await.unwrap().text().await.unwrap()
}
