//! The operator's REST API, reached through a tunnel or at an address of this machine.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    cluster::Cluster,
    credentials::Credentials,
    error::{CliError, with_causes},
    tunnel::{self, Stream},
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
/// How long an answer may take to begin; the operator gives up earlier.
const ANSWER: Duration = Duration::from_mins(1);
/// Connections that are kept.
const KEPT: usize = 16;
/// Largest answer that is taken as a whole, in bytes.
const LARGEST: usize = 256 << 20;
/// Labels of the operator's pods.
const OPERATOR: &str = "app.kubernetes.io/part-of=scriptscope,app.kubernetes.io/component=operator";
/// Names of its ports: with a certificate one needs TLS.
const WEB: &str = "web";
const WEB_TLS: &str = "web-tls";

/// A connection that takes requests.
pub type Sender = SendRequest<Full<Bytes>>;

/// How the operator is reached.
enum Way {
    /// At an address of this machine.
    Address { host: String, port: u16, tls: bool },
    /// Through the API server.
    Tunnel { client: Client, namespace: String },
}

/// The operator.
pub struct Api {
    way: Way,
    credentials: Credentials,
    /// Connections that may be free.
    idle: Mutex<Vec<Sender>>,
}

impl Api {
    /// The operator that the flags and the kubeconfig name.
    pub async fn new(cluster: &Cluster) -> Result<Self, CliError> {
        let credentials = Credentials::find(cluster).await?;
        let way = match &cluster.place().server {
            Some(server) => address(server)?,
            None => Way::Tunnel {
                client: cluster.client().await?,
                namespace: cluster.place().system_namespace.clone(),
            },
        };
        if let (Way::Address { tls: false, .. }, Some(_)) = (&way, credentials.tls()) {
            return Err(CliError::Usage(
                "--server: the kubeconfig's user has a client certificate, which needs https://; or give --token-file".to_owned(),
            ));
        }
        Ok(Self {
            way,
            credentials,
            idle: Mutex::default(),
        })
    }

    /// A new connection.
    async fn open(&self) -> Result<Sender, CliError> {
        timeout(CONNECT, async {
            let stream = self.stream().await?;
            handshake(stream).await
        })
        .await
        .map_err(|_| {
            CliError::Failed(format!(
                "the operator does not answer within {} s",
                CONNECT.as_secs()
            ))
        })?
    }

    async fn stream(&self) -> Result<Stream, CliError> {
        let certificate = self.credentials.tls();
        let (stream, tls): (Stream, bool) = match &self.way {
            Way::Address { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| {
                        CliError::Failed(format!("--server: {host}:{port} can not be reached: {error}"))
                    })?;
                stream.set_nodelay(true)?;
                (Box::new(stream), *tls)
            }
            Way::Tunnel { client, namespace } => {
                let tls = certificate.is_some();
                let port = if tls { WEB_TLS } else { WEB };
                let missing = |found| no_operator(namespace, found);
                let (pod, port) = tunnel::ready_pod(client, namespace, OPERATOR, &[port], missing).await?;
                (tunnel::forward(client, namespace, &pod, port).await?, tls)
            }
        };
        match certificate.filter(|_| tls) {
            Some(certificate) => {
                let name = ServerName::from(IpAddr::from([127, 0, 0, 1]));
                let connector = TlsConnector::from(certificate.clone());
                let stream = connector.connect(name, stream).await.map_err(|error| {
                    CliError::Failed(format!(
                        "the operator does not take the client certificate: {error}"
                    ))
                })?;
                Ok(Box::new(stream))
            }
            None if tls => Err(CliError::Usage(
                "--server: https:// is for client certificates; with a token use http://".to_owned(),
            )),
            None => Ok(stream),
        }
    }

    /// Puts into a request who asks.
    async fn sign(&self, request: &mut Request<Full<Bytes>>) -> Result<(), CliError> {
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        if let Some(bearer) = self.credentials.bearer().await? {
            headers.insert(header::AUTHORIZATION, bearer);
        }
        Ok(())
    }

    /// A connection that is free, or a new one.
    async fn sender(&self) -> Result<Sender, CliError> {
        let free = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|sender| !sender.is_closed());
            let free = idle.iter().position(SendRequest::is_ready);
            free.map(|at| idle.swap_remove(at))
        };
        match free {
            Some(sender) => Ok(sender),
            None => self.open().await,
        }
    }

    /// Sends a request as the user; the answer, whatever it says.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CliError> {
        self.sign(&mut request).await?;
        let mut sender = self.sender().await?;
        let answer = timeout(ANSWER, sender.send_request(request)).await;
        let response = answer
            .map_err(|_| CliError::Failed(format!("no answer within {} s", ANSWER.as_secs())))?
            .map_err(|error| CliError::Failed(format!("the connection broke: {}", with_causes(&error))))?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(sender);
        }
        drop(idle);
        Ok(response)
    }

    /// `GET`, on the connection that there is or a new one. What is no success is an error.
    pub async fn get(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Response<Incoming>, CliError> {
        let uri: Uri = path
            .parse()
            .map_err(|_| CliError::Usage(format!("{path} is not a path; a name may be too long")))?;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        for (name, value) in headers {
            let value = HeaderValue::try_from(value)
                .map_err(|_| CliError::Failed(format!("the header {name} can not be sent")))?;
            request.headers_mut().insert(*name, value);
        }
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    /// `GET` of JSON.
    pub async fn json(&self, path: &str, query: &[(&str, String)]) -> Result<Value, CliError> {
        let response = self.get(&with_query(path, query), &[]).await?;
        Ok(serde_json::from_slice(&whole(response).await?)?)
    }
}

fn no_operator(namespace: &str, found: usize) -> String {
    if found == 0 {
        format!(
            "there is no operator in namespace {namespace}; if it is in another one, say so with --system-namespace"
        )
    } else {
        format!(
            "no pod of the operator in namespace {namespace} is ready; see kubectl -n {namespace} get pods"
        )
    }
}

/// A connection over a stream.
pub async fn handshake(stream: Stream) -> Result<Sender, CliError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "A connection ended with an error.");
        }
    });
    Ok(sender)
}

/// The whole body of an answer.
pub async fn whole<B>(response: Response<B>) -> Result<Bytes, CliError>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| CliError::Failed(format!("the answer broke off: {error}")))
}

/// An answer that is an error.
async fn refusal(response: Response<Incoming>) -> CliError {
    let status = response.status();
    let body = match whole(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    of_body(status, &body)
}

/// The error that a body says, in the form that operator and runner share.
pub fn of_body(status: StatusCode, body: &[u8]) -> CliError {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| json["error"][key].as_str().map(str::to_owned);
    CliError::Operator {
        status: status.as_u16(),
        message: text("message").unwrap_or_else(|| format!("the answer is {status}")),
        field: text("field"),
    }
}

/// The address that `--server` says. A token is sent there in the clear, so it must be of this machine.
fn address(server: &str) -> Result<Way, CliError> {
    let wrong = |why: &str| {
        CliError::Usage(format!(
            "--server: {why}; expected an address of this machine such as http://127.0.0.1:8080 (see kubectl port-forward)"
        ))
    };
    let uri: Uri = server.parse().map_err(|_| wrong("not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong("it must begin with http:// or https://")),
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !is_here {
        return Err(wrong("a token would go through the network in the clear"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong("it has a path"));
    }
    Ok(Way::Address {
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        tls,
    })
}

/// A path with a query.
pub fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    if pairs.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", pairs.join("&"))
    }
}

/// A text as a part of a path or a query.
pub fn encoded(text: &str) -> String {
    use std::fmt::Write as _;

    text.bytes()
        .fold(String::with_capacity(text.len()), |mut all, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                all.push(char::from(byte));
            } else {
                let _ = write!(all, "%{byte:02X}");
            }
            all
        })
}

/// The path of a script.
pub fn script_path(namespace: &str, script: &str) -> String {
    format!(
        "/api/v1/namespaces/{}/scripts/{}",
        encoded(namespace),
        encoded(script)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_nowhere_in_the_clear() {
        for good in ["http://127.0.0.1:8080", "http://localhost", "https://[::1]:8443/"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://example.com", "in the clear"),
            ("http://127.0.0.1.example.com", "in the clear"),
            ("ftp://127.0.0.1", "http://"),
            ("127.0.0.1:8080", "--server"),
            ("http://127.0.0.1/x", "path"),
        ] {
            let error = address(bad).err().unwrap().to_string();
            assert!(
                error.contains(why) && error.starts_with("--server"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn names_stay_within_their_place() {
        assert_eq!(
            script_path("a", "../b?c#d e"),
            "/api/v1/namespaces/a/scripts/..%2Fb%3Fc%23d%20e"
        );
        let query = with_query("/x", &[("filter", "a&b=ü".to_owned()), ("limit", "5".to_owned())]);
        assert_eq!(query, "/x?filter=a%26b%3D%C3%BC&limit=5");
    }

    #[test]
    fn an_error_is_told_as_it_was_said() {
        let body = br#"{"error":{"code":"Invalid","message":"expected a number","field":"last"}}"#;
        assert_eq!(
            of_body(StatusCode::BAD_REQUEST, body).to_string(),
            "--last: expected a number"
        );
        let odd = of_body(StatusCode::BAD_GATEWAY, b"<html>").to_string();
        assert!(odd.contains("502"), "{odd}");
    }
}
