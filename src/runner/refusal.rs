//! Answers to calls that never became a run.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::server::MAX_BODY_BYTES;

/// Why a call never became a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// Machine-readable reason.
    pub code: &'static str,
    /// Text for people.
    pub message: String,
    /// The argument it is about.
    pub field: Option<String>,
    /// Whether trying again soon may help.
    pub retry: bool,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self {
            status,
            code,
            message,
            field: None,
            retry: false,
        }
    }

    fn again(self) -> Self {
        Self { retry: true, ..self }
    }

    fn of(self, field: &str) -> Self {
        let field = Some(field.chars().take(200).collect());
        Self { field, ..self }
    }

    /// The body is no JSON.
    pub fn not_json(why: &str) -> Self {
        let message = format!("the body is not JSON: {why}; send the arguments as a JSON object");
        Self::new(StatusCode::BAD_REQUEST, "NotJson", message)
    }

    /// The body is JSON but no object.
    pub fn not_an_object() -> Self {
        let message = "the body is not a JSON object; send the arguments by name, such as {\"account\": 17}";
        Self::new(StatusCode::BAD_REQUEST, "NotAnObject", message.into())
    }

    /// The function has no such parameter.
    pub fn unknown_argument(name: &str, signature: &str) -> Self {
        let shown: String = name.chars().take(200).collect();
        let message = format!("{signature} has no parameter {shown:?}");
        Self::new(StatusCode::BAD_REQUEST, "UnknownArgument", message).of(name)
    }

    /// A parameter without a default is not given.
    pub fn missing_argument(name: &str, signature: &str) -> Self {
        let message = format!("argument {name:?} of {signature} is missing");
        Self::new(StatusCode::BAD_REQUEST, "MissingArgument", message).of(name)
    }

    /// There is no such function.
    pub fn no_function<'a>(name: &str, there_are: impl Iterator<Item = &'a str>) -> Self {
        let shown: String = name.chars().take(200).collect();
        let names: Vec<_> = there_are.collect();
        let message = if names.is_empty() {
            format!("no function {shown:?}: the script has no public function")
        } else {
            format!(
                "no function {shown:?} in the script; there are: {}",
                names.join(", ")
            )
        };
        Self::new(StatusCode::NOT_FOUND, "FunctionNotFound", message)
    }

    /// The path is not one of ours.
    pub fn no_route() -> Self {
        let message = "no such path; call POST /functions/NAME, or GET /functions for the list";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message.into())
    }

    /// The token is not that of the last record.
    pub fn wrong_token() -> Self {
        let message = "the token is not the one in the runner's last record";
        Self::new(StatusCode::FORBIDDEN, "WrongToken", message.into())
    }

    /// The path does not take this method.
    pub fn method() -> Self {
        let message = "wrong method; functions are called with POST, everything else is read with GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message.into())
    }

    /// The body is too large.
    pub fn too_large() -> Self {
        let message = format!("the body is larger than {} MiB", MAX_BODY_BYTES >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message)
    }

    /// The body did not arrive.
    pub fn slow_body(seconds: u64) -> Self {
        let message = format!("the body did not arrive within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "BodyTimeout", message)
    }

    /// The client broke off.
    pub fn broken_body(why: &str) -> Self {
        let message = format!("the body could not be read: {why}");
        Self::new(StatusCode::BAD_REQUEST, "BodyNotReadable", message)
    }

    /// As many calls wait as may.
    pub fn queue_full(waiting: usize) -> Self {
        let message = format!(
            "{waiting} calls wait already; try again later, or give the script more pods or concurrency"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "QueueFull", message).again()
    }

    /// It waited for its turn as long as calls may.
    pub fn waited_too_long(seconds: u64) -> Self {
        let message = format!(
            "no worker was free for {seconds} s; try again later, or give the script more pods or concurrency"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "QueueTimeout", message).again()
    }

    /// No worker has the script loaded.
    pub fn not_ready(why: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "NotReady", why.into()).again()
    }

    /// The runner was told to stop.
    pub fn stopping() -> Self {
        let message = "this pod is stopping; try again and another one answers";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Stopping", message.into()).again()
    }

    /// The runner itself is at fault.
    pub fn internal(why: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", why.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(field), Some(map)) = (self.field, error.as_object_mut()) {
            map.insert("field".into(), field.into());
        }
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        if self.retry {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
