//! TLS for clients that show who they are by a certificate.
//!
//! The server's own certificate is made when it starts and vouches for nothing: these connections come through the API
//! server's port-forward, whose ends are authenticated, and the client's proof is good for its connection alone. A client's
//! certificate is not judged here but with each request, so that one which is refused is told why.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, DistinguishedName, ServerConfig,
        crypto::CryptoProvider,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
    },
    server::TlsStream,
};

use super::certificates::{Chain, provider};
use crate::key_proof::signature_checks;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The server's side of TLS can not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate could be made.
    #[error("a certificate can not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// It is not taken.
    #[error("TLS can not be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The server's side of TLS. Clones share it.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// With a new key and a certificate of its own.
    pub fn new() -> Result<Self, TlsError> {
        let own = rcgen::generate_simple_self_signed(["scriptscope".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let provider = provider();
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(HasTheKey(provider)))
            .with_single_cert(vec![own.cert.der().clone()], PrivateKeyDer::Pkcs8(key))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The connection under TLS, and the routes as its client may use them.
    pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        router: Router,
    ) -> Option<(TlsStream<S>, Router)> {
        let stream = match tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "A client did not get on with TLS.");
                return None;
            }
            Err(_) => return None,
        };
        let chain = stream.get_ref().1.peer_certificates().map(|chain| {
            let chain: Vec<CertificateDer<'static>> = chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect();
            Chain(chain.into())
        });
        let router = match chain {
            Some(chain) => Router::new().fallback_service(router).layer(Extension(chain)),
            None => router,
        };
        Some((stream, router))
    }
}

/// Lets every client in that has no certificate, or the key of the one it shows.
#[derive(Debug)]
struct HasTheKey(Arc<CryptoProvider>);

impl ClientCertVerifier for HasTheKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    signature_checks!();
}
