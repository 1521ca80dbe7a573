//! A call, what is recorded when it begins and ends, and what became of it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{
    caller::Caller,
    output::Output,
    records::{self, Finished, PayloadRule, Started, rfc3339},
};
use crate::model::{RunError, RunStatus};

/// What is the same for all runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Deployment.
    pub deployment_id: String,
    /// Its version.
    pub version: i64,
    /// How long a run may take.
    pub timeout: Duration,
    /// Whether prints are recorded as they come.
    pub live: bool,
    /// Which inputs are recorded.
    pub input: PayloadRule,
    /// Which outputs are recorded.
    pub output: PayloadRule,
    /// Bytes that a run may print, both streams and korelogger's lines together.
    pub max_output_bytes: usize,
}

/// A call that fits its function.
#[derive(Debug)]
pub struct Call {
    /// Id of the run it becomes.
    pub run_id: String,
    /// Name of the function.
    pub function: String,
    /// Arguments, a JSON object on one line.
    pub arguments: Box<RawValue>,
    /// Who calls.
    pub caller: Caller,
    /// Cancelled when the run is to end.
    pub cancel: CancellationToken,
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// Id of the run.
    pub run_id: String,
    /// What the function returned, or why it failed.
    pub result: Result<Box<RawValue>, RunError>,
    /// Beginning of its standard output, with korelogger's echoes.
    pub stdout: String,
    /// Beginning of its standard error.
    pub stderr: String,
    /// From the call of the function to its answer.
    pub duration: Duration,
}

/// Records that a run begins.
pub async fn print_started(call: &Call, settings: &Settings, output: &Output) {
    let (input, input_truncated) = settings.input.apply(Some(&call.arguments));
    let record = Started {
        scriptscope: "run.started",
        time: rfc3339(Timestamp::now()),
        run_id: &call.run_id,
        deployment_id: &settings.deployment_id,
        version: settings.version,
        function: &call.function,
        source: &call.caller.source,
        source_type: call.caller.source_type,
        traceparent: &call.caller.traceparent,
        input,
        input_truncated,
    };
    output.stdout(records::line(&record)).await;
}

/// Records that a run has ended.
pub async fn print_finished(report: &Report, settings: &Settings, output: &Output) {
    let (result, output_truncated) = settings.output.apply(report.result.as_deref().ok());
    let record = Finished {
        scriptscope: "run.finished",
        time: rfc3339(Timestamp::now()),
        run_id: &report.run_id,
        status: report.status(),
        duration_us: u64::try_from(report.duration.as_micros()).unwrap_or(u64::MAX),
        output: result,
        output_truncated,
        error: report.result.as_ref().err(),
    };
    output.stdout(records::line(&record)).await;
}

impl Report {
    /// `Success` or `Failed`.
    pub fn status(&self) -> RunStatus {
        match self.result {
            Ok(_) => RunStatus::Success,
            Err(_) => RunStatus::Failed,
        }
    }
}

/// An error without an exception behind it.
pub fn failure(reason: &str, message: String) -> RunError {
    RunError {
        reason: reason.into(),
        kind: None,
        message,
        traceback: None,
    }
}
