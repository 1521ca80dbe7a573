//! Why S3 did not do what it was asked for, with the field and the remedy. Never with what a server sent as text: it may be
//! any server.

use std::time::Duration;

/// Why a file is not in its bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum S3Error {
    /// A field that can not be.
    #[error("spec.destination.s3.{field}: {message}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong with it, and what it can be.
        message: String,
    },
    /// The credentials do not do.
    #[error(
        "spec.destination.s3.credentialsSecretRef: {endpoint} refuses {what} with these credentials ({code}): check \
         AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the Secret, and that they may s3:PutObject and \
         s3:AbortMultipartUpload there"
    )]
    Denied {
        /// Who refuses.
        endpoint: String,
        /// What is refused, `s3://bucket/key`.
        what: String,
        /// What the server calls it.
        code: String,
    },
    /// There is no such bucket.
    #[error(
        "spec.destination.s3.bucket: there is no bucket {bucket} at {endpoint}: make it, or correct the name, the endpoint or \
         the region"
    )]
    NoBucket {
        /// Its name.
        bucket: String,
        /// Where it is not.
        endpoint: String,
    },
    /// Something else has the name.
    #[error(
        "spec.destination.s3: {0} is there already and not of this export, and is not written over: choose another prefix, or \
         remove it"
    )]
    Taken(String),
    /// More parts than there can be.
    #[error(
        "the file has more than {} GiB, which is more than can be sent to S3: narrow the range, or compress it", .0 >> 30
    )]
    TooLarge(u64),
    /// Nobody answers.
    #[error("spec.destination.s3.endpoint: {endpoint} could not be reached: {cause}")]
    Unreachable {
        /// Who.
        endpoint: String,
        /// Why.
        cause: String,
    },
    /// It can not now.
    #[error("{endpoint} could not do it now ({code})")]
    Busy {
        /// Who.
        endpoint: String,
        /// What the server calls it.
        code: String,
    },
    /// It has lost the upload.
    #[error("the upload was ended by somebody else: NoSuchUpload")]
    NoUpload,
    /// Anything else.
    #[error("{endpoint} refused the request ({code})")]
    Refused {
        /// Who.
        endpoint: String,
        /// What the server calls it.
        code: String,
    },
}

impl S3Error {
    /// Reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "InvalidDestination",
            Self::Denied { .. } => "DestinationDenied",
            Self::NoBucket { .. } => "DestinationNotFound",
            Self::Taken(_) => "DestinationTaken",
            Self::TooLarge(_) => "TooLarge",
            Self::Unreachable { .. } | Self::Busy { .. } => "DestinationUnreachable",
            Self::NoUpload | Self::Refused { .. } => "WriteFailed",
        }
    }

    /// Whether trying again would change nothing.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Invalid { .. }
                | Self::Denied { .. }
                | Self::NoBucket { .. }
                | Self::Taken(_)
                | Self::TooLarge(_)
        )
    }

    /// Whether the same request may do a moment later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }
}

/// How often and how soon a request is sent again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// First pause; each later one is twice as long.
    pub pause: Duration,
    /// How often at most.
    pub tries: u32,
}

/// What an answer other than a success means.
pub(super) fn error_of(
    status: http::StatusCode,
    code: Option<String>,
    endpoint: &str,
    bucket: &str,
    what: &str,
) -> S3Error {
    let endpoint = endpoint.to_owned();
    let name = code.unwrap_or_else(|| format!("status {}", status.as_u16()));
    match (&*name, status.as_u16()) {
        ("NoSuchBucket", _) => S3Error::NoBucket {
            bucket: bucket.to_owned(),
            endpoint,
        },
        ("NoSuchUpload", _) => S3Error::NoUpload,
        ("PreconditionFailed", _) | (_, 412) => S3Error::Taken(what.to_owned()),
        (
            "AuthorizationHeaderMalformed"
            | "AuthorizationQueryParametersError"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 307 | 308) => S3Error::Invalid {
            field: "region",
            message: format!("{endpoint} has bucket {bucket} in another region ({name}): set the bucket's"),
        },
        (
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "AccessDenied",
            _,
        )
        | (_, 401 | 403) => S3Error::Denied {
            endpoint,
            what: what.to_owned(),
            code: name,
        },
        // What arrived is not what was sent.
        (
            "BadDigest" | "RequestTimeout" | "IncompleteBody" | "SlowDown" | "InternalError"
            | "ServiceUnavailable",
            _,
        )
        | (_, 408 | 425 | 429 | 500..=599) => S3Error::Busy { endpoint, code: name },
        _ => S3Error::Refused { endpoint, code: name },
    }
}
