//! A real S3 server (versitygw, see `make deps-test`) in a folder of its own, and what a test asks it.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Method, Response, StatusCode};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle, actions::CreateMultipartUpload};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, copy},
    net::{TcpListener, TcpStream},
};

const KEY: &str = "AKIATESTTESTTEST";
const SECRET: &str = "a-secret-that-nobody-may-see";
const SIGNED: Duration = Duration::from_mins(1);

/// Ends with its test.
pub struct S3Server {
    process: Child,
    _folder: TempDir,
    pub address: SocketAddr,
    bucket: Bucket,
    credentials: Credentials,
    http: reqwest::Client,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl S3Server {
    /// With a bucket `reports`.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [data, meta] = ["data", "meta"].map(|name| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        });
        // Nobody else binds it meanwhile: the system gives out ports in turn.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let process = Command::new("versitygw")
            .args(["--access", KEY, "--secret", SECRET, "--quiet", "--port"])
            .arg(address.to_string())
            .arg("posix")
            .arg("--sidecar")
            .args([meta, data])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("versitygw is not installed: make deps-test");
        let endpoint = format!("http://{address}").parse().unwrap();
        let server = Self {
            process,
            _folder: folder,
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
        text.matches("<UploadId>").count()
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, server, most));
        }
    });
    address
}

async fn carry(client: TcpStream, server: SocketAddr, most: usize) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from, mut back) = client.into_split();
    let (mut answers, mut to) = server.into_split();
    let answered = tokio::spawn(async move { copy(&mut answers, &mut back).await });
    let _ = copy(&mut from.take(most as u64), &mut to).await;
    // It says nothing more, and takes nothing.
    let _ = answered.await;
}

async fn text_of(request: reqwest::RequestBuilder) -> String {
    request.send().await.unwrap().text().await.unwrap()
}
