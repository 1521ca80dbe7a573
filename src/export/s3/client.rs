//! One object in S3, and the requests that make it. Requests are signed by `rusty_s3` and sent by hyper.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, builderstates::WantsSchemes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use instant_xml::FromXml;
use jiff::Timestamp;
use md5::{Digest, Md5};
use rusty_s3::{
    Bucket, Credentials, Map, S3Action,
    actions::{
        AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, DeleteObject, HeadObject,
        PutObject, UploadPart,
    },
    signing,
};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

use super::{
    error::{Patience, S3Error, error_of},
    target::{Place, S3Target},
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(30);
/// How long a request may take, with the part that it carries.
const REQUEST: Duration = Duration::from_mins(2);
/// How long a signature is good for.
const SIGNED: Duration = Duration::from_mins(15);
/// Longest answer that is read.
const ANSWER: usize = 1 << 20;
/// For requests whose failure begins the file again, or is soon told.
const SOON: Patience = Patience {
    pause: Duration::from_millis(500),
    tries: 3,
};
/// For requests with what took long to write.
const LONG: Patience = Patience {
    pause: Duration::from_millis(500),
    tries: 8,
};

/// A header that is signed.
pub(super) type Header = (&'static str, String);

/// Sends requests to S3 servers; clones share the connections.
#[derive(Clone, Debug)]
pub struct S3Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl S3Http {
    /// Without the machine's certificates, where there are none: then only servers without TLS can be reached.
    pub fn new() -> Result<Self, rustls::Error> {
        let with_roots =
            HttpsConnectorBuilder::new().with_provider_and_native_roots(ring::default_provider());
        Ok(Self::with(with_roots.or_else(|error| {
            tracing::warn!(%error, "There are no certificates of authorities; S3 can be reached without TLS only.");
            trusting(RootCertStore::empty())
        })?))
    }

    /// Trusts these authorities (PEM) and no others; an error where there is none.
    pub fn trusting(authorities: &[u8]) -> Result<Self, rustls::Error> {
        let unreadable = |error: pem::Error| rustls::Error::General(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            roots.add(certificate.map_err(unreadable)?)?;
        }
        if roots.is_empty() {
            return Err(unreadable(pem::Error::NoItemsFound));
        }
        Ok(Self::with(trusting(roots)?))
    }

    fn with(tls: HttpsConnectorBuilder<WantsSchemes>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(tls.https_or_http().enable_http1().wrap_connector(tcp));
        Self(client)
    }
}

fn trusting(roots: RootCertStore) -> Result<HttpsConnectorBuilder<WantsSchemes>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(config))
}

/// Bytes with the checksum that the server compares.
pub(super) struct Part {
    bytes: Bytes,
    md5: String,
}

impl Part {
    /// Takes a while with many bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            md5: BASE64_STANDARD.encode(Md5::digest(&bytes)),
            bytes: bytes.into(),
        }
    }

    fn headers(&self, headers: &[Header]) -> Vec<Header> {
        let mut headers = headers.to_vec();
        headers.push(("content-md5", self.md5.clone()));
        headers
    }
}

/// Access to a bucket. Neither part is ever logged.
pub struct S3Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`.
    pub token: Option<String>,
}

/// An object that is to be.
pub struct S3Object {
    http: S3Http,
    credentials: Credentials,
    place: Place,
    /// The upload that has not ended.
    upload: Mutex<Upload>,
    /// The upload that was ended without an object.
    ended: Mutex<Option<String>>,
}

/// Where the upload of an object stands.
#[derive(Clone, Debug, Default)]
enum Upload {
    #[default]
    None,
    /// It may have begun: the server was asked, and its answer did not come yet.
    Asked,
    /// What the server calls it.
    Begun(String),
}

/// How often an upload is looked for that was asked for and not answered, and the time between.
const LOOKS: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(150);

/// What an object says of itself: its length and metadata.
pub(super) struct Head {
    pub headers: HeaderMap,
}

/// What a server said.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(FromXml)]
#[xml(rename = "Error")]
struct ErrorAnswer {
    #[xml(rename = "Code")]
    code: String,
}

#[derive(FromXml)]
#[xml(
    rename = "ListMultipartUploadsResult",
    ns("http://s3.amazonaws.com/doc/2006-03-01/")
)]
struct Uploads {
    uploads: Vec<Listed>,
}

#[derive(FromXml)]
#[xml(rename = "Upload", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
struct Listed {
    #[xml(rename = "Key")]
    key: String,
    #[xml(rename = "UploadId")]
    id: String,
}

impl S3Object {
    /// An object of this name at `target`; nothing is sent yet.
    pub fn new(http: S3Http, target: &S3Target, keys: S3Keys, file_name: &str) -> Result<Self, S3Error> {
        let credentials = match keys.token {
            Some(token) => Credentials::new_with_token(keys.id, keys.secret, token),
            None => Credentials::new(keys.id, keys.secret),
        };
        Ok(Self {
            http,
            credentials,
            place: target.place(file_name)?,
            upload: Mutex::default(),
            ended: Mutex::default(),
        })
    }

    /// `s3://bucket/key`.
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket().name(), self.place.key)
    }

    /// The same of another server is another object.
    pub fn location(&self) -> String {
        self.bucket().object_url(&self.place.key).to_string()
    }

    fn bucket(&self) -> &Bucket {
        &self.place.bucket
    }

    #[expect(clippy::unnecessary_wraps, reason = "as every action wants them")]
    fn keys(&self) -> Option<&Credentials> {
        Some(&self.credentials)
    }

    /// What is there under its name; none where there is nothing, or nothing is said to these credentials.
    pub(super) async fn head(&self) -> Result<Option<Head>, S3Error> {
        let action = HeadObject::new(self.bucket(), self.keys(), &self.place.key);
        match self.send(SOON, &signed(&action), Bytes::new(), &[]).await {
            Ok(answer) => Ok(Some(Head {
                headers: answer.headers,
            })),
            // An answer to HEAD has no body, and so no code: whether it is the bucket that is not there comes out later.
            Err(error) if error.may_pass() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The whole object in one request.
    pub(super) async fn put(&self, part: Part, headers: &[Header]) -> Result<(), S3Error> {
        let mut action = PutObject::new(self.bucket(), self.keys(), &self.place.key);
        let headers = part.headers(headers);
        sign_headers(action.headers_mut(), &headers);
        self.send(LONG, &signed(&action), part.bytes, &headers)
            .await
            .map(drop)
    }

    /// Begins an upload in parts.
    pub(super) async fn begin(&self, headers: &[Header]) -> Result<(), S3Error> {
        let mut action = CreateMultipartUpload::new(self.bucket(), self.keys(), &self.place.key);
        sign_headers(action.headers_mut(), headers);
        self.set_upload(Upload::Asked);
        let answer = self.send(SOON, &signed(&action), Bytes::new(), headers).await;
        let answer = answer.inspect_err(|_| drop(self.set_upload(Upload::None)))?;
        let id = std::str::from_utf8(&answer.body)
            .ok()
            .and_then(|text| CreateMultipartUpload::parse_response(text).ok())
            .map(|created| created.upload_id().to_owned())
            .ok_or_else(|| self.strange())?;
        self.set_upload(Upload::Begun(id));
        Ok(())
    }

    /// Says where the upload stands now; where it stood before.
    fn set_upload(&self, upload: Upload) -> Upload {
        let mut current = self.upload.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, upload)
    }

    fn upload_id(&self) -> Option<String> {
        match &*self.upload.lock().unwrap_or_else(PoisonError::into_inner) {
            Upload::Begun(id) => Some(id.clone()),
            Upload::None | Upload::Asked => None,
        }
    }

    /// Sends a part, counted from 1; its tag is needed at the end.
    pub(super) async fn part(&self, number: u16, part: Part) -> Result<String, S3Error> {
        let id = self.upload_id().ok_or(S3Error::NoUpload)?;
        let mut action = UploadPart::new(self.bucket(), self.keys(), &self.place.key, number, &id);
        let headers = part.headers(&[]);
        sign_headers(action.headers_mut(), &headers);
        let answer = self.send(LONG, &signed(&action), part.bytes, &headers).await?;
        let tag = answer
            .headers
            .get(http::header::ETAG)
            .and_then(|tag| tag.to_str().ok());
        tag.map(str::to_owned).ok_or_else(|| self.strange())
    }

    /// Makes the object of its parts.
    pub(super) async fn complete(&self, tags: &[String]) -> Result<(), S3Error> {
        let id = self.upload_id().ok_or(S3Error::NoUpload)?;
        let action = || {
            CompleteMultipartUpload::new(
                self.bucket(),
                self.keys(),
                &self.place.key,
                &id,
                tags.iter().map(String::as_str),
            )
        };
        let body = Bytes::from(action().body());
        self.send(LONG, &signed(&action()), body, &[]).await?;
        self.set_upload(Upload::None);
        Ok(())
    }

    /// Replaces what the object says of itself, which could not be known when its upload began. Within the server.
    pub(super) async fn describe(&self, headers: &[Header]) -> Result<(), S3Error> {
        let mut action = PutObject::new(self.bucket(), self.keys(), &self.place.key);
        let mut headers = headers.to_vec();
        // No character of a bucket's name or a prefix needs to be escaped here but those that URLs have anyway.
        headers.push((
            "x-amz-copy-source",
            format!("/{}/{}", self.bucket().name(), self.place.key),
        ));
        headers.push(("x-amz-metadata-directive", "REPLACE".to_owned()));
        sign_headers(action.headers_mut(), &headers);
        self.send(SOON, &signed(&action), Bytes::new(), &headers)
            .await
            .map(drop)
    }

    /// Removes the object.
    pub(super) async fn delete(&self) -> Result<(), S3Error> {
        let action = DeleteObject::new(self.bucket(), self.keys(), &self.place.key);
        self.send(SOON, &signed(&action), Bytes::new(), &[])
            .await
            .map(drop)
    }

    /// Ends the upload that this process has begun, if it has.
    pub async fn abort_own(&self) -> Result<(), S3Error> {
        match self.set_upload(Upload::None) {
            Upload::None => Ok(()),
            Upload::Begun(id) => {
                self.abort(&id).await?;
                *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
                Ok(())
            }
            Upload::Asked => {
                // The request may be on its way still.
                for _ in 0..LOOKS {
                    if self.abort_listed().await? > 0 {
                        break;
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Ok(())
            }
        }
    }

    /// Ends the same upload once more: a part that was on its way may have come after its end, and be kept for ever.
    pub async fn abort_again(&self) -> Result<(), S3Error> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match ended {
            Some(id) => self.abort(&id).await,
            None => Ok(()),
        }
    }

    /// Ends every upload of this object that has begun and not ended, of this process or one before.
    pub(super) async fn abort_all(&self) -> Result<(), S3Error> {
        self.abort_own().await?;
        self.abort_listed().await.map(drop)
    }

    /// Ends the uploads of this object that the server knows; says how many there were.
    async fn abort_listed(&self) -> Result<usize, S3Error> {
        let uploads = self.uploads().await?;
        for id in &uploads {
            self.abort(id).await?;
        }
        Ok(uploads.len())
    }

    async fn abort(&self, id: &str) -> Result<(), S3Error> {
        let action = AbortMultipartUpload::new(self.bucket(), self.keys(), &self.place.key, id);
        match self.send(SOON, &signed(&action), Bytes::new(), &[]).await {
            Ok(_) | Err(S3Error::NoUpload) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn uploads(&self) -> Result<Vec<String>, S3Error> {
        let list = (Method::GET, || self.list_url());
        let answer = self.send(SOON, &list, Bytes::new(), &[]).await?;
        let text = std::str::from_utf8(&answer.body).map_err(|_| self.strange())?;
        let found: Uploads = instant_xml::from_str(text).map_err(|_| self.strange())?;
        // Others begin with this one's name.
        let ours = found
            .uploads
            .into_iter()
            .filter(|upload| upload.key == self.place.key);
        Ok(ours.map(|upload| upload.id).collect())
    }

    /// What `rusty_s3` does not have: the uploads that have begun and not ended, of names that begin with this one.
    fn list_url(&self) -> String {
        let query = [("prefix", self.place.key.as_str()), ("uploads", "")];
        signing::sign(
            &Timestamp::now(),
            rusty_s3::Method::Get,
            self.bucket().base_url().clone(),
            self.credentials.key(),
            self.credentials.secret(),
            self.credentials.token(),
            self.bucket().region(),
            SIGNED.as_secs(),
            query.into_iter(),
            std::iter::empty(),
        )
        .into()
    }

    fn strange(&self) -> S3Error {
        S3Error::Refused {
            endpoint: self.place.endpoint.clone(),
            code: "an answer that S3 does not give".to_owned(),
        }
    }

    /// Sends a request, again where that may help.
    async fn send(
        &self,
        patience: Patience,
        request: &(Method, impl Fn() -> String),
        body: Bytes,
        headers: &[Header],
    ) -> Result<Answer, S3Error> {
        let mut tries = 1;
        let mut pause = patience.pause;
        loop {
            let result = tokio::time::timeout(REQUEST, self.once(request, body.clone(), headers)).await;
            let error = match result.unwrap_or_else(|_| Err(self.unreachable("it did not answer in time"))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.may_pass() || tries >= patience.tries {
                return Err(error);
            }
            tracing::debug!(%error, "A request to S3 is sent again.");
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn once(
        &self,
        (method, url): &(Method, impl Fn() -> String),
        body: Bytes,
        headers: &[Header],
    ) -> Result<Answer, S3Error> {
        // Never logged: what signs it is in it.
        let mut request = Request::builder().method(method).uri(url());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| self.strange())?;
        let answer = self
            .http
            .0
            .request(request)
            .await
            .map_err(|error| self.unreachable(&root(&error)))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER)
            .collect()
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        };
        // A long operation begins its answer before it knows.
        let code = code(&answer.body);
        if answer.status.is_success() && code.is_none() {
            return Ok(answer);
        }
        let status = if answer.status.is_success() {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            answer.status
        };
        Err(error_of(
            status,
            code,
            &self.place.endpoint,
            self.bucket().name(),
            &self.url(),
        ))
    }

    fn unreachable(&self, cause: &str) -> S3Error {
        S3Error::Unreachable {
            endpoint: self.place.endpoint.clone(),
            cause: cause.to_owned(),
        }
    }
}

/// How a request is made, each time anew, since a signature is good for a while only.
fn signed<'a, A: S3Action<'a>>(action: &A) -> (Method, impl Fn() -> String) {
    let method = match A::METHOD {
        rusty_s3::Method::Head => Method::HEAD,
        rusty_s3::Method::Get => Method::GET,
        rusty_s3::Method::Post => Method::POST,
        rusty_s3::Method::Put => Method::PUT,
        rusty_s3::Method::Delete => Method::DELETE,
    };
    (method, || action.sign(SIGNED).into())
}

/// The code of an error, if it is one; made of letters, so that no server can say anything else through it.
fn code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let error: ErrorAnswer = instant_xml::from_str(text).ok()?;
    let is_word = !error.code.is_empty()
        && error.code.len() <= 64
        && error.code.bytes().all(|b| b.is_ascii_alphanumeric());
    is_word.then_some(error.code)
}

fn sign_headers(signed: &mut Map<'_>, headers: &[Header]) {
    for (name, value) in headers {
        signed.insert(*name, value.clone());
    }
}

/// What is at the bottom of an error: `connection refused`, not `client error (Connect)`.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
