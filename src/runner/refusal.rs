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
    /// Seconds after which trying again may help.
    pub retry: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self {
            status,
            code,
            message,
            field: None,
            retry: None,
        }
    }

    fn again(self) -> Self {
        self.after(1)
    }

    fn after(self, seconds: u64) -> Self {
        Self {
            retry: Some(seconds),
            ..self
        }
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
        let message =
            "no such path; call POST /functions/NAME, GET /functions for the list, or GET /runs/RUN_ID";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message.into())
    }

    /// The token is not that of the last record.
    pub fn wrong_token() -> Self {
        let message = "the token is not the one in the runner's last record";
        Self::new(StatusCode::FORBIDDEN, "WrongToken", message.into())
    }

    /// The path does not take this method.
    pub fn method() -> Self {
        let message = "wrong method; functions are called with POST, runs cancelled with DELETE, everything else is read with GET";
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
    pub fn queue_full(waiting: usize, seconds: u64) -> Self {
        let message = format!(
            "{waiting} calls wait already; try again later, or give the script more pods or concurrency"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "QueueFull", message).after(seconds)
    }

    /// It waited for its turn as long as calls may.
    pub fn waited_too_long(seconds: u64, retry: u64) -> Self {
        let message = format!(
            "no worker was free for {seconds} s; try again later, or give the script more pods or concurrency"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "QueueTimeout", message).after(retry)
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

    /// The head of the request is too large.
    pub fn large_head(max: usize) -> Self {
        let message = format!(
            "the address and the headers are larger than {} KiB together",
            max >> 10
        );
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Self::new(status, "HeadersTooLarge", message)
    }

    /// No key was shown.
    pub fn no_key() -> Self {
        let message =
            "an API key is needed; send it in the header x-api-key, or as Authorization: Bearer KEY";
        Self::new(StatusCode::UNAUTHORIZED, "ApiKeyMissing", message.into())
    }

    /// The key is none of the script's.
    pub fn wrong_key() -> Self {
        let message = "the API key is not valid for this script";
        Self::new(StatusCode::UNAUTHORIZED, "ApiKeyInvalid", message.into())
    }

    /// The script has no key at all.
    pub fn no_keys() -> Self {
        let message = "no API key is valid for this script: the Secret that its spec.endpoint.apiKeysSecretRef names does not \
                       exist, or holds no key of 16 characters and more";
        Self::new(StatusCode::UNAUTHORIZED, "NoApiKeys", message.into())
    }

    /// How to call is neither of the two ways.
    pub fn mode(given: &str) -> Self {
        let shown: String = given.chars().take(50).collect();
        let message = format!("mode is {shown:?}; it can be sync or async");
        Self::new(StatusCode::BAD_REQUEST, "InvalidMode", message).of("mode")
    }

    /// How long to wait is no number that is allowed.
    pub fn wait(longest: u64) -> Self {
        let message = format!("wait must be a number of seconds, at most {longest}");
        Self::new(StatusCode::BAD_REQUEST, "InvalidWait", message).of("wait")
    }

    /// It is no id of a run.
    pub fn no_run(run_id: &str) -> Self {
        let shown: String = run_id.chars().take(50).collect();
        let message = format!("{shown:?} is no run of this script");
        Self::new(StatusCode::NOT_FOUND, "RunNotFound", message)
    }

    /// The run has ended and its result is here no more.
    pub fn run_gone(run_id: &str, why: &str) -> Self {
        let message = format!(
            "{run_id}: {why}; the dashboard has the run, and so has \
             /api/v1/namespaces/NAMESPACE/scripts/NAME/runs/{run_id} of the operator"
        );
        Self::new(StatusCode::GONE, "RunGone", message)
    }

    /// The run has ended before it could be cancelled.
    pub fn run_ended(run_id: &str) -> Self {
        let message = format!("{run_id} has ended already; there is nothing to cancel");
        Self::new(StatusCode::CONFLICT, "RunEnded", message)
    }

    /// Another pod has the run and can not be asked.
    pub fn peer(why: &str) -> Self {
        let message =
            format!("another pod of this script has the run and can not be asked: {why}; try again");
        Self::new(StatusCode::BAD_GATEWAY, "PodNotReachable", message).again()
    }

    /// Calls should go to another pod.
    pub fn saturated() -> Self {
        let message = "every worker is busy, the queue is full, and another pod has room";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Saturated", message.into()).again()
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
        if let Some(seconds) = self.retry {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
