//! Errors as readers see them: `{"error":{"code","message","field"?}}`.

use axum::{
    Json,
    extract::rejection::PathRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{export::ExportError, model::FilterError, store::StoreError};

use super::access::AccessError;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// For programs; stable.
    pub code: &'static str,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// The part of the request that is wrong.
    pub field: Option<String>,
}

impl ApiError {
    /// An error with this status.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
        }
    }

    /// A part of the request is wrong.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.chars().take(100).collect()),
            ..Self::new(StatusCode::BAD_REQUEST, "Invalid", message)
        }
    }

    /// Nobody knows who asks.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthenticated", message)
    }

    /// The reader has no right to it.
    pub fn forbidden(user: &str, subresource: &str, namespace: &str) -> Self {
        Self::forbidden_to("get", user, subresource, namespace)
    }

    /// The reader has no right to do this with it.
    pub fn forbidden_to(verb: &str, user: &str, subresource: &str, namespace: &str) -> Self {
        let slash = if subresource.is_empty() { "" } else { "/" };
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("{user} needs {verb} on customscripts{slash}{subresource} in namespace {namespace}"),
        )
    }

    /// It does not exist.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Our fault; what it was is in the log only.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal",
            "the operator failed to answer; its log says why",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"scriptscope\""),
            );
        }
        response
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Unauthenticated => {
                Self::unauthenticated("the token is not valid, or not for this cluster, or has expired")
            }
            AccessError::Certificate(error) => Self::unauthenticated(error.to_string()),
            AccessError::WrongUser { .. } => Self::new(StatusCode::FORBIDDEN, "Forbidden", error.to_string()),
            AccessError::Unavailable => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "AccessUnavailable",
                "the Kubernetes API server could not be asked for your rights; try again",
            ),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        Self::invalid("filter", error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Filter(error) => error.into(),
            StoreError::TimeLimit(error) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "TimeLimit", error.to_string())
            }
            StoreError::Database(_) | StoreError::Reading(_) | StoreError::Unusable(_) => {
                tracing::error!(%error, "The store could not be read.");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "StoreUnavailable",
                    "the store could not be read; try again, and see the operator's log if it persists",
                )
            }
            error => {
                tracing::error!(%error, "The store could not be read.");
                Self::internal()
            }
        }
    }
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Filter(error) => error.into(),
            ExportError::Store(error) => error.into(),
            ExportError::Name(_) => Self::invalid("export", error.to_string()),
            error => {
                tracing::error!(%error, "An export could not be read.");
                Self::internal()
            }
        }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid("path", rejection.body_text())
    }
}
