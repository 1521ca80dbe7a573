//! The records that the runner prints: one JSON object a line, told apart by the key `scriptscope`.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::{RunError, RunStatus, SourceType};

/// Bytes of a record's line beside its text, at most.
pub const LINE_OVERHEAD: usize = 128;

/// A time as records have it: RFC 3339, UTC, to the microsecond.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// A JSON object on a line of its own.
pub fn line<T: Serialize>(record: &T) -> Vec<u8> {
    // Only maps with keys that are no strings could fail, and no record has one.
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A run began.
#[derive(Debug, Serialize)]
pub struct Started<'a> {
    /// `run.started`.
    pub scriptscope: &'static str,
    /// When.
    pub time: String,
    /// Id of the run.
    pub run_id: &'a str,
    /// Deployment that runs it.
    pub deployment_id: &'a str,
    /// Version of that deployment.
    pub version: i64,
    /// Function called.
    pub function: &'a str,
    /// Caller.
    pub source: &'a str,
    /// Kind of caller.
    pub source_type: SourceType,
    /// W3C trace context.
    pub traceparent: &'a str,
    /// Arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<&'a RawValue>,
    /// The arguments are left out since they are larger than what is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub input_truncated: bool,
}

/// A run ended.
#[derive(Debug, Serialize)]
pub struct Finished<'a> {
    /// `run.finished`.
    pub scriptscope: &'static str,
    /// When.
    pub time: String,
    /// Id of the run.
    pub run_id: &'a str,
    /// `Success` or `Failed`.
    pub status: RunStatus,
    /// Microseconds from the call of the function to its answer.
    pub duration_us: u64,
    /// Result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<&'a RawValue>,
    /// The result is left out since it is larger than what is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub output_truncated: bool,
    /// Why it failed.
    pub error: Option<&'a RunError>,
}

/// The runner begins, and all that follows went through it; or it ends, and nothing follows.
#[derive(Debug, Serialize)]
pub struct Lifecycle<'a> {
    /// `runner.started` or `runner.stopped`.
    pub scriptscope: &'static str,
    /// When.
    pub time: String,
    /// To be said back to the runner when its end is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
}

/// Which payloads records hold.
#[derive(Clone, Copy, Debug)]
pub struct PayloadRule {
    /// Whether any is.
    pub keep: bool,
    /// The largest that is, in bytes of JSON.
    pub max_bytes: usize,
}

impl PayloadRule {
    /// The payload if it is to be kept, and whether it would be if it were smaller.
    pub fn apply(self, payload: Option<&RawValue>) -> (Option<&RawValue>, bool) {
        let asked = payload.filter(|_| self.keep);
        let kept = asked.filter(|p| p.get().len() <= self.max_bytes);
        (kept, asked.is_some() && kept.is_none())
    }
}

/// A `run.output` record being written.
#[derive(Debug)]
pub struct OutputRecord {
    json: Vec<u8>,
    lines: usize,
}

impl OutputRecord {
    /// A record without lines; without a run where they were printed outside of one. Ids of runs need no escaping.
    pub fn new(run_id: Option<&str>, stream: &'static str) -> Self {
        let run = run_id.map_or_else(String::new, |id| format!(r#""run_id":"{id}","#));
        let json = format!(r#"{{"scriptscope":"run.output",{run}"stream":"{stream}","lines":["#);
        Self {
            json: json.into_bytes(),
            lines: 0,
        }
    }

    /// Adds a line.
    pub fn push(&mut self, time: Timestamp, text: &str) {
        if self.lines > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(format!("[\"{time:.6}\",").as_bytes());
        // Writing a string into memory can not fail.
        let _ = serde_json::to_writer(&mut self.json, text);
        self.json.push(b']');
        self.lines += 1;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// Whether a line was added.
    pub fn holds_lines(&self) -> bool {
        self.lines > 0
    }

    /// The record.
    pub fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(b"]}\n");
        self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_decimals() {
        let time: Timestamp = "2025-05-14T06:07:27.5Z".parse().unwrap();
        assert_eq!(rfc3339(time), "2025-05-14T06:07:27.500000Z");
    }

    #[test]
    fn a_payload_is_left_out_when_large_or_unwanted() {
        let payload = RawValue::from_string("[1,2]".into()).unwrap();
        let rule = |keep, max_bytes| PayloadRule { keep, max_bytes };
        assert!(matches!(rule(true, 5).apply(Some(&payload)), (Some(_), false)));
        assert!(matches!(rule(true, 4).apply(Some(&payload)), (None, true)));
        assert!(matches!(rule(false, 100).apply(Some(&payload)), (None, false)));
        assert!(matches!(rule(true, 100).apply(None), (None, false)));
    }
}
