//! Runs: one call of one function of a script.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One run, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Unique within its script.
    pub run_id: String,
    /// How it stands.
    pub status: RunStatus,
    /// Why it failed, in one word: `Exception`, `Timeout`, `WorkerExited`, ... Empty while in progress or after success.
    pub reason: Option<String>,
    /// Version of the deployment that ran it.
    pub deployment_version: i64,
    /// Id of the deployment that ran it.
    pub deployment_id: String,
    /// Microseconds from call to answer; successful runs only.
    pub response_time_micros: Option<i64>,
    /// Name of the function called.
    pub function: String,
    /// When the run began.
    pub executed_on: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What kind of caller it was.
    pub source_type: SourceType,
    /// Name of the caller.
    pub source: String,
    /// W3C trace context of the call.
    pub traceparent: Option<String>,
}

/// One run with what went in and what came out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetail {
    /// The run itself.
    #[serde(flatten)]
    pub run: Run,
    /// Arguments of the call, as JSON.
    pub input: Option<Box<serde_json::value::RawValue>>,
    /// The arguments were larger than what is kept.
    pub input_truncated: bool,
    /// Returned value, as JSON.
    pub output: Option<Box<serde_json::value::RawValue>>,
    /// The returned value was larger than what is kept.
    pub output_truncated: bool,
    /// Why it failed.
    pub error: Option<RunError>,
}

impl From<Run> for RunDetail {
    /// Without what went in or came out.
    fn from(run: Run) -> Self {
        Self {
            run,
            input: None,
            input_truncated: false,
            output: None,
            output_truncated: false,
            error: None,
        }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunError {
    /// Machine-readable reason, the run's `reason`.
    pub reason: String,
    /// Type of the exception (`ValueError`), where one was raised.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Text for people.
    pub message: String,
    /// Stack trace, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunStatus {
    /// Begun and not ended.
    #[serde(rename = "In Progress")]
    InProgress,
    /// Ended with a result.
    Success,
    /// Ended without one.
    Failed,
}

impl RunStatus {
    /// Every status, in the order of their codes in the store.
    pub const ALL: [Self; 3] = [Self::InProgress, Self::Success, Self::Failed];

    /// The name shown to people and used in filters and CSV files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "In Progress",
            Self::Success => "Success",
            Self::Failed => "Failed",
        }
    }
}

/// What kind of caller started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SourceType {
    /// Another workload that named itself.
    Tool,
    /// A client of the script's endpoint.
    #[serde(rename = "API")]
    Api,
    /// Somebody trying the script out.
    Test,
}

impl SourceType {
    /// Every source type, in the order of their codes in the store.
    pub const ALL: [Self; 3] = [Self::Tool, Self::Api, Self::Test];

    /// The name shown to people and used in filters and CSV files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "Tool",
            Self::Api => "API",
            Self::Test => "Test",
        }
    }
}

/// A name that none of a fixed set has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a {what}; expected one of {expected}")]
pub struct UnknownName {
    /// What was looked for: `status`, `source type`, `log level`.
    pub what: &'static str,
    /// The name given.
    pub given: String,
    /// The names there are.
    pub expected: String,
}

/// `Display`, `FromStr` (case-insensitive) and store codes for an enum with `ALL` and `as_str`.
macro_rules! named {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::model::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .into_iter()
                    .find(|x| x.as_str().eq_ignore_ascii_case(name))
                    .ok_or_else(|| $crate::model::UnknownName {
                        what: $what,
                        given: name.chars().take(100).collect(),
                        expected: Self::ALL.map(|x| x.as_str()).join(", "),
                    })
            }
        }

        impl $type {
            /// The code that the store keeps: the position in `ALL`. Codes are never reused.
            pub fn code(self) -> u8 {
                self as u8
            }

            /// The value with this code.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.get(usize::from(code)).copied()
            }
        }
    };
}
pub(super) use named;

named!(RunStatus, "status");
named!(SourceType, "source type");
