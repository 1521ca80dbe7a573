//! That whoever is at the other end of TLS has the key of its certificate. Both ends ask for this alone where the certificate is
//! judged elsewhere.

/// The members of rustls' `ServerCertVerifier` and `ClientCertVerifier` that are about signatures, for a type whose first field
/// is an `Arc<CryptoProvider>`.
macro_rules! signature_checks {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &tokio_rustls::rustls::pki_types::CertificateDer<'_>,
            signature: &tokio_rustls::rustls::DigitallySignedStruct,
        ) -> Result<
            tokio_rustls::rustls::client::danger::HandshakeSignatureValid,
            tokio_rustls::rustls::Error,
        > {
            let algorithms = &self.0.signature_verification_algorithms;
            tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &tokio_rustls::rustls::pki_types::CertificateDer<'_>,
            signature: &tokio_rustls::rustls::DigitallySignedStruct,
        ) -> Result<
            tokio_rustls::rustls::client::danger::HandshakeSignatureValid,
            tokio_rustls::rustls::Error,
        > {
            let algorithms = &self.0.signature_verification_algorithms;
            tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<tokio_rustls::rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

pub(crate) use signature_checks;
