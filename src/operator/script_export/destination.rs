//! Files that go to S3: whose credentials, and which uploads are under way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::future;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client};

use crate::{
    api::S3Destination,
    export::{
        file::ExportKey,
        s3::{S3Error, S3Http, S3Keys, S3Object, S3Target},
    },
};

/// How long the end of an upload may take that nobody waits for any more.
const ABORT: Duration = Duration::from_secs(5);

/// Why there is no place in S3.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// No such Secret. It may come: both may be applied at once.
    #[error(
        "spec.destination.s3.credentialsSecretRef: there is no Secret {0} in namespace {1}; make it with AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY"
    )]
    NoSecret(String, String),
    /// It lacks a key.
    #[error("spec.destination.s3.credentialsSecretRef: the Secret {0} has no {1}; add it")]
    NoKey(String, &'static str),
    /// It has what can be no authority.
    #[error(
        "spec.destination.s3.credentialsSecretRef: ca.crt in the Secret {0} must be certificates of authorities in PEM, or not be \
         there ({1})"
    )]
    Authorities(String, tokio_rustls::rustls::Error),
    /// The operator may not read it.
    #[error(
        "spec.destination.s3.credentialsSecretRef: the operator may not read the Secret {0} in namespace {1}: allow it with a \
         Role there (get on this Secret) for the operator's service account, or for all Secrets with the chart's value \
         exports.readSecrets=true"
    )]
    Forbidden(String, String),
    /// Another one is being written to the same place. It may end without a file.
    #[error("spec.destination.s3: the export {0} is writing {1} just now; choose another prefix")]
    InUse(String, String),
    /// TLS can not be had.
    #[error("connections with TLS can not be made: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// The place can not be.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// The API server said no.
    #[error("the Secret of spec.destination.s3.credentialsSecretRef could not be read: {0}")]
    Api(#[from] kube::Error),
}

impl DestinationError {
    /// Reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSecret(..) => "SecretNotFound",
            Self::NoKey(..) | Self::Authorities(..) => "SecretInvalid",
            Self::Forbidden(..) => "SecretForbidden",
            Self::InUse(..) => "DestinationTaken",
            Self::S3(error) => error.reason(),
            Self::Tls(_) | Self::Api(_) => "WriteFailed",
        }
    }

    /// Whether trying again would change nothing.
    pub fn is_final(&self) -> bool {
        match self {
            Self::S3(error) => error.is_final(),
            _ => false,
        }
    }
}

/// What is being written to S3, by export.
#[derive(Default)]
pub struct Uploads {
    http: OnceLock<S3Http>,
    objects: Mutex<HashMap<ExportKey, Arc<S3Object>>>,
}

impl Uploads {
    fn objects(&self) -> MutexGuard<'_, HashMap<ExportKey, Arc<S3Object>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http(&self) -> Result<S3Http, DestinationError> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = S3Http::new()?;
        Ok(self.http.get_or_init(|| http).clone())
    }

    /// The place of a file; it is this export's until [`Uploads::take`].
    pub async fn object(
        &self,
        client: &Client,
        key: &ExportKey,
        (destination, target): (&S3Destination, &S3Target),
        file_name: &str,
    ) -> Result<Arc<S3Object>, DestinationError> {
        let (keys, authorities) = keys(client, &key.namespace, destination).await?;
        let http = match authorities {
            Some(pem) => S3Http::trusting(pem.as_bytes()).map_err(|error| {
                DestinationError::Authorities(destination.credentials_secret_ref.name.clone(), error)
            })?,
            None => self.http()?,
        };
        let object = Arc::new(S3Object::new(http, target, keys, file_name)?);
        let location = object.location();
        let mut objects = self.objects();
        let other = objects
            .iter()
            .find(|(other, object)| *other != key && object.location() == location);
        if let Some((other, _)) = other {
            let other = format!("{}/{}", other.namespace, other.name);
            return Err(DestinationError::InUse(other, object.url()));
        }
        objects.insert(key.clone(), Arc::clone(&object));
        Ok(object)
    }

    /// The place is this export's no longer.
    pub fn take(&self, key: &ExportKey) -> Option<Arc<S3Object>> {
        self.objects().remove(key)
    }

    /// Ends the upload of an export, if there is one.
    pub async fn abort(&self, key: &ExportKey) {
        if let Some(object) = self.take(key) {
            abort(key.clone(), object).await;
        }
    }

    /// Ends all uploads, since the process ends.
    pub async fn abort_all(&self) {
        let objects = std::mem::take(&mut *self.objects());
        future::join_all(objects.into_iter().map(|(key, object)| abort(key, object))).await;
    }
}

/// Ends an upload.
pub async fn abort(key: ExportKey, object: Arc<S3Object>) {
    let Err(error) = in_time(object.abort_own()).await else {
        make_sure(object);
        return;
    };
    tracing::warn!(
        namespace = key.namespace,
        export = key.name,
        error,
        "An upload to S3 could not be ended; the bucket keeps its parts until its rules remove them."
    );
}

/// Removes what a cancelled export has in S3.
pub async fn withdraw(key: &ExportKey, object: Arc<S3Object>, uid: &str) {
    let Err(error) = in_time(object.withdraw(uid)).await else {
        make_sure(object);
        return;
    };
    tracing::warn!(
        namespace = key.namespace,
        export = key.name,
        error,
        "What an export has in S3 could not be removed."
    );
}

/// When an upload that was ended is ended again: a part may have been on its way, and servers keep what comes late.
const AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

fn make_sure(object: Arc<S3Object>) {
    tokio::spawn(async move {
        for pause in AGAIN {
            tokio::time::sleep(pause).await;
            if let Err(error) = object.abort_again().await {
                tracing::debug!(%error, "An upload that was ended could not be ended again.");
            }
        }
    });
}

/// What S3 is asked at the end, when nobody can wait long for it; what went wrong, for people.
async fn in_time(work: impl Future<Output = Result<(), S3Error>>) -> Result<(), String> {
    match tokio::time::timeout(ABORT, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it did not answer in time".to_owned()),
    }
}

/// Access to the bucket, and the authorities that its server is trusted by, where they are not the system's.
async fn keys(
    client: &Client,
    namespace: &str,
    destination: &S3Destination,
) -> Result<(S3Keys, Option<String>), DestinationError> {
    let name = &destination.credentials_secret_ref.name;
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match api.get_opt(name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return Err(DestinationError::NoSecret(name.clone(), namespace.to_owned())),
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            return Err(DestinationError::Forbidden(name.clone(), namespace.to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    let data = secret.data.unwrap_or_default();
    let value = |key: &str| {
        let ByteString(bytes) = data.get(key)?;
        // A line end is what editors and `echo` leave there.
        let text = std::str::from_utf8(bytes).ok()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let needed = |key| value(key).ok_or(DestinationError::NoKey(name.clone(), key));
    let keys = S3Keys {
        id: needed("AWS_ACCESS_KEY_ID")?,
        secret: needed("AWS_SECRET_ACCESS_KEY")?,
        token: value("AWS_SESSION_TOKEN"),
    };
    Ok((keys, value("ca.crt")))
}
