//! A stretch of log that could not be read.

use jiff::Timestamp;
use serde::Serialize;

/// Lines that are lost, where they would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogGap {
    /// About when they were printed.
    pub time: Timestamp,
    /// Name of the pod that printed them.
    pub pod: String,
    /// How many times its container had been restarted.
    pub restart: u32,
    /// Deployment version.
    pub version: i64,
    /// Why, in one word.
    pub reason: String,
    /// How many bytes at least; 0 if unknown.
    pub bytes: u64,
    /// Where they are missing in what the container printed, in bytes.
    pub offset: u64,
}
