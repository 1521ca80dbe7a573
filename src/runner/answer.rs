//! What a caller is told of a run that has ended.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::call::Report;
use crate::model::{RunError, RunStatus};

/// Reason of a run that somebody asked to end.
pub const CANCELLED: &str = "Cancelled";
/// Reason of a run that took too long.
pub const TIMEOUT: &str = "Timeout";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    run_id: &'a str,
    status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    stdout: &'a str,
    stderr: &'a str,
    duration_ms: f64,
}

/// The answer's body.
pub fn body(report: &Report) -> serde_json::Result<Vec<u8>> {
    // To the microsecond, as the record has it. A run is over long before they do not fit.
    let micros = u32::try_from(report.duration.as_micros()).unwrap_or(u32::MAX);
    serde_json::to_vec(&Answer {
        run_id: &report.run_id,
        status: report.status(),
        result: report.result.as_deref().ok(),
        error: report.result.as_ref().err(),
        stdout: &report.stdout,
        stderr: &report.stderr,
        duration_ms: f64::from(micros) / 1e3,
    })
}

/// The HTTP status that tells a waiting caller how the run ended.
pub fn status(report: &Report) -> StatusCode {
    match &report.result {
        Ok(_) => StatusCode::OK,
        Err(error) => match error.reason.as_str() {
            TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
            // Trying again would only undo what somebody wanted.
            CANCELLED => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}
