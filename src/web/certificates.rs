//! Who asks, from a client certificate: as the API server does it, the name is the subject's common name and the groups are
//! its organizations, if one of the cluster's authorities for clients has signed it.

use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::{
    self, CertificateError as Refused, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_cert::{
    Certificate,
    der::{Decode, asn1::ObjectIdentifier},
};

use super::access::Identity;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
/// The group of everybody whom the API server knows.
pub(super) const AUTHENTICATED: &str = "system:authenticated";

/// The certificates that a client has shown, its own first, with proof that it has the key.
#[derive(Clone, Debug)]
pub struct Chain(pub Arc<[CertificateDer<'static>]>);

/// Why a certificate says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Its time is over.
    #[error("the client certificate has expired; get a new one, or use a token")]
    Expired,
    /// Its time has not begun.
    #[error("the client certificate is not valid yet; compare the clocks")]
    NotYet,
    /// Nobody whom the cluster trusts has signed it.
    #[error(
        "the client certificate is not signed by an authority that this cluster takes for clients, or does so no more; get a new one, or use a token"
    )]
    Unknown,
    /// It names nobody.
    #[error("the client certificate has no common name, which would be the user")]
    Nameless,
    /// It is not for showing who asks.
    #[error("the client certificate can not be used: {0}; get a new one, or use a token")]
    Unusable(String),
    /// The authorities are not known.
    #[error(
        "the operator does not know yet which client certificates this cluster takes; use a token, or ask who administers the operator whether it may read ConfigMap kube-system/extension-apiserver-authentication"
    )]
    NoAuthorities,
}

/// The authorities could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authorities for client certificates can not be read: {0}")]
pub struct AuthoritiesError(String);

/// The cluster's authorities for clients, which change.
#[derive(Default)]
pub struct Authorities(RwLock<Option<Arc<dyn ClientCertVerifier>>>);

impl Authorities {
    /// Takes these, PEM, instead of those before.
    pub fn trust(&self, pem: &str) -> Result<(), AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| AuthoritiesError(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| AuthoritiesError(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| AuthoritiesError(error.to_string()))?;
        self.set(Some(verifier));
        Ok(())
    }

    /// Takes none.
    pub fn forget(&self) {
        self.set(None);
    }

    fn set(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
    }

    /// Whose certificate it is, `now`.
    pub fn identify(&self, chain: &Chain, now: UnixTime) -> Result<Identity, CertificateError> {
        let verifier = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let verifier = verifier.ok_or(CertificateError::NoAuthorities)?;
        let (own, others) = chain.0.split_first().ok_or(CertificateError::Nameless)?;
        verifier
            .verify_client_cert(own, others, now)
            .map_err(|error| refused(&error))?;
        identity_of(own)
    }
}

/// The one crypto provider that is built in.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn refused(error: &rustls::Error) -> CertificateError {
    match error {
        rustls::Error::InvalidCertificate(Refused::Expired | Refused::ExpiredContext { .. }) => {
            CertificateError::Expired
        }
        rustls::Error::InvalidCertificate(Refused::NotValidYet | Refused::NotValidYetContext { .. }) => {
            CertificateError::NotYet
        }
        rustls::Error::InvalidCertificate(Refused::UnknownIssuer | Refused::BadSignature) => {
            CertificateError::Unknown
        }
        error => CertificateError::Unusable(error.to_string()),
    }
}

fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, CertificateError> {
    let unusable = |error: x509_cert::der::Error| CertificateError::Unusable(error.to_string());
    let certificate = Certificate::from_der(certificate).map_err(unusable)?;
    let mut identity = Identity::default();
    for part in certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|part| part.0.iter())
    {
        // What is no text is no name.
        let text = || String::from_utf8(part.value.value().to_vec()).ok();
        match part.oid {
            COMMON_NAME => identity.username = text().unwrap_or_default(),
            ORGANIZATION => identity.groups.extend(text()),
            _ => {}
        }
    }
    if identity.username.is_empty() {
        return Err(CertificateError::Nameless);
    }
    identity.groups.push(AUTHENTICATED.to_owned());
    Ok(identity)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
    };

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn client(name: &str, groups: &[&str], edit: impl Fn(&mut CertificateParams)) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        edit(&mut params);
        params
    }

    fn chain(params: &CertificateParams, issuer: &Authority) -> Chain {
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap();
        Chain([certificate.der().clone()].into())
    }

    fn at(time: &str) -> UnixTime {
        let seconds = time.parse::<jiff::Timestamp>().unwrap().as_second();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds.cast_unsigned()))
    }

    #[test]
    fn a_certificate_says_who_asks_while_its_authority_is_trusted() {
        let (ours, theirs) = (authority(), authority());
        let authorities = Authorities::default();
        let now = at("2026-06-01T00:00:00Z");
        let jane = client("jane", &["shop"], |_| {});
        let janes = chain(&jane, &ours);
        assert_eq!(
            authorities.identify(&janes, now),
            Err(CertificateError::NoAuthorities)
        );
        authorities.trust(&ours.pem()).unwrap();
        let identity = authorities.identify(&janes, now).unwrap();
        assert_eq!(identity.username, "jane");
        assert_eq!(identity.groups, ["shop", "system:authenticated"]);
        let refused = |chain: &Chain, time: &str| authorities.identify(chain, at(time)).unwrap_err();
        assert_eq!(refused(&janes, "2027-01-02T00:00:00Z"), CertificateError::Expired);
        assert_eq!(refused(&janes, "2025-12-31T00:00:00Z"), CertificateError::NotYet);
        let then = "2026-06-01T00:00:00Z";
        assert_eq!(refused(&chain(&jane, &theirs), then), CertificateError::Unknown);
        let nameless = client("", &["system:masters"], |_| {});
        assert_eq!(
            refused(&chain(&nameless, &ours), then),
            CertificateError::Nameless
        );
        let server = client("node", &[], |p| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        assert!(matches!(
            refused(&chain(&server, &ours), then),
            CertificateError::Unusable(_)
        ));
        assert_eq!(refused(&Chain([].into()), then), CertificateError::Nameless);
        // The authority is replaced; both at once, while that goes on.
        authorities
            .trust(&format!("{}{}", ours.pem(), theirs.pem()))
            .unwrap();
        assert!(authorities.identify(&janes, now).is_ok());
        authorities.trust(&theirs.pem()).unwrap();
        assert_eq!(authorities.identify(&janes, now), Err(CertificateError::Unknown));
        // What can not be read changes nothing.
        assert!(authorities.trust("").is_err());
        assert!(authorities.identify(&chain(&jane, &theirs), now).is_ok());
    }
}
