//! Showing the operator who asks, with what the kubeconfig has: a bearer token, or else a client certificate.

use std::{future::ready, path::PathBuf, sync::Arc};

use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use kube::client::{Body, ConfigExt};
use tokio::sync::Mutex;
use tokio_rustls::rustls::{
    self, ClientConfig,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxService};

use super::{cluster::Cluster, error::CliError};
use crate::key_proof::signature_checks;

type Authorization = BoxService<Request<Body>, Response<()>, BoxError>;

/// What shows who asks.
pub enum Credentials {
    /// A bearer token out of a file, which may change.
    File(PathBuf),
    /// A bearer token of the kubeconfig: static, out of a file, or of a plugin that makes a new one when it expires.
    Bearer(Mutex<Authorization>),
    /// A client certificate with its key.
    Certificate(Arc<ClientConfig>),
}

impl Credentials {
    /// Those that the flags and the kubeconfig say. A token is preferred, as the API server does.
    pub async fn find(cluster: &Cluster) -> Result<Self, CliError> {
        if let Some(file) = &cluster.place().token_file {
            return Ok(Self::File(file.clone()));
        }
        let config = cluster.config().await?;
        if let Some(layer) = config.auth_layer()? {
            // The layer signs requests; what it puts into one is handed back.
            let echo = service_fn(|request: Request<Body>| {
                let mut response = Response::new(());
                *response.headers_mut() = request.headers().clone();
                ready(Ok::<_, BoxError>(response))
            });
            let credentials = Self::Bearer(Mutex::new(layer.layer(echo).boxed()));
            // A plugin may give a certificate alone.
            if credentials.bearer().await?.is_some() {
                return Ok(credentials);
            }
        }
        let mut tls = config.rustls_client_config()?;
        if !tls.client_auth_cert_resolver.has_certs() {
            return Err(CliError::Failed(
                "the kubeconfig's user has neither a token nor a client certificate; log in, or give --token-file"
                    .to_owned(),
            ));
        }
        // The operator's certificate is made anew whenever it starts. What vouches for it is the tunnel: the API server has
        // made sure of the node, and the node of the pod. A signature by the client's key is good for this connection
        // alone, so that nobody in between could use it elsewhere.
        let provider = Arc::clone(tls.crypto_provider());
        tls.dangerous()
            .set_certificate_verifier(Arc::new(InTunnel(provider)));
        tls.alpn_protocols.clear();
        Ok(Self::Certificate(Arc::new(tls)))
    }

    /// The value of the header Authorization, where there is a token.
    pub async fn bearer(&self) -> Result<Option<HeaderValue>, CliError> {
        let value = match self {
            Self::Certificate(_) => None,
            Self::File(path) => {
                let token = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| CliError::Failed(format!("--token-file {}: {error}", path.display())))?;
                let value = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| {
                    CliError::Failed(format!("--token-file {} does not hold a token", path.display()))
                })?;
                Some(value)
            }
            Self::Bearer(layer) => {
                let mut layer = layer.lock().await;
                let failed = |error: BoxError| {
                    CliError::Failed(format!("the kubeconfig's credentials can not be had: {error}"))
                };
                let signer = layer.ready().await.map_err(failed)?;
                let response = signer.call(Request::new(Body::empty())).await.map_err(failed)?;
                let value = response.headers().get(AUTHORIZATION).cloned();
                let is_bearer = |value: &HeaderValue| value.as_bytes().starts_with(b"Bearer ");
                if value.as_ref().is_some_and(|value| !is_bearer(value)) {
                    return Err(CliError::Failed(
                        "the kubeconfig's user has a password, which the operator does not take; use a token or a client certificate"
                            .to_owned(),
                    ));
                }
                value
            }
        };
        Ok(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }

    /// TLS with the client certificate, where that shows who asks.
    pub fn tls(&self) -> Option<&Arc<ClientConfig>> {
        match self {
            Self::Certificate(tls) => Some(tls),
            Self::File(_) | Self::Bearer(_) => None,
        }
    }
}

/// Takes any certificate of whoever proves to have its key.
#[derive(Debug)]
struct InTunnel(Arc<CryptoProvider>);

impl ServerCertVerifier for InTunnel {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signature_checks!();
}
