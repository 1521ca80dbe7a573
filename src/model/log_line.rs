//! Log lines.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::run::named;

/// One line that a script printed or logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// Unique, and the same after any restart.
    pub log_id: LogId,
    /// Level.
    pub level: LogLevel,
    /// Text, without a line end.
    pub message: String,
    /// When it was printed.
    pub timestamp: Timestamp,
    /// The run that printed it; none for a line of the script outside any run.
    pub run_id: Option<String>,
    /// Further attributes of its span, a JSON object.
    #[serde(serialize_with = "as_json", skip_serializing_if = "Option::is_none")]
    pub attributes: Option<String>,
}

/// Writes text that is JSON as what it stands for.
// By reference to the field, as serde hands it over.
#[allow(clippy::ref_option)]
fn as_json<S: serde::Serializer>(json: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = json.as_deref().unwrap_or("null");
    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
        Ok(value) => value.serialize(serializer),
        Err(_) => serializer.serialize_str(text),
    }
}

/// Where a line came from: the stream's number in the store, the byte offset of its record in that stream, and its
/// place within the record. This never changes, so the id is the same however often the line is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// Number of the stream (one container's output between two restarts).
    pub stream: i64,
    /// Byte offset of the record in the stream.
    pub offset: i64,
    /// Index of the line in the record.
    pub index: i32,
}

impl LogId {
    /// Appends the id as text, see its `Display`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        hexadecimal(self.stream.cast_unsigned(), out);
        out.push(b'-');
        hexadecimal(self.offset.cast_unsigned(), out);
        out.push(b'-');
        hexadecimal(self.index.cast_unsigned().into(), out);
    }
}

/// Appends a number without leading zeros. What `{:x}` does, without a formatter: files have millions of these.
fn hexadecimal(number: u64, out: &mut Vec<u8>) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    out.extend(
        (0..digits)
            .rev()
            .map(|digit| b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize]),
    );
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.stream, self.offset, self.index)
    }
}

/// The text is not a log id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log id; expected three hexadecimal numbers joined by '-'")]
pub struct LogIdError;

impl FromStr for LogId {
    type Err = LogIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or(LogIdError);
        let (stream, offset, index) = (next()?, next()?, next()?);
        Ok(Self {
            stream: i64::from_str_radix(stream, 16).map_err(|_| LogIdError)?,
            offset: i64::from_str_radix(offset, 16).map_err(|_| LogIdError)?,
            index: i32::from_str_radix(index, 16).map_err(|_| LogIdError)?,
        })
    }
}

impl Serialize for LogId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Level of a line. `Stdout` and `Stderr` are prints, the others come from korelogger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Printed to standard output.
    Stdout,
    /// Printed to standard error.
    Stderr,
    /// `korelogger.info`.
    Info,
    /// `korelogger.debug`.
    Debug,
    /// `korelogger.warning`.
    Warning,
    /// `korelogger.error`.
    Error,
}

impl LogLevel {
    /// Every level, in the order of their codes in the store.
    pub const ALL: [Self; 6] = [
        Self::Stdout,
        Self::Stderr,
        Self::Info,
        Self::Debug,
        Self::Warning,
        Self::Error,
    ];

    /// The name shown to people and used in filters and CSV files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "Stdout",
            Self::Stderr => "Stderr",
            Self::Info => "Info",
            Self::Debug => "Debug",
            Self::Warning => "Warning",
            Self::Error => "Error",
        }
    }
}

named!(LogLevel, "log level");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_id_is_appended_as_it_is_displayed() {
        for (stream, offset, index) in [
            (0, 0, 0),
            (1, 255, 0),
            (15, 16, 17),
            (i64::MAX, i64::MIN, -1),
            (-1, 4096, i32::MAX),
        ] {
            let id = LogId {
                stream,
                offset,
                index,
            };
            let mut appended = Vec::new();
            id.append_to(&mut appended);
            assert_eq!(String::from_utf8(appended).unwrap(), id.to_string());
        }
    }

    #[test]
    fn a_log_id_survives_its_text_form() {
        let id = LogId {
            stream: 17,
            offset: 1 << 40,
            index: 3,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("17-x".parse::<LogId>().is_err());
    }

    #[test]
    fn codes_and_names_go_both_ways() {
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::from_code(level.code()), Some(level));
            assert_eq!(level.as_str().to_lowercase().parse(), Ok(level));
        }
        let error = "Loud".parse::<LogLevel>().unwrap_err();
        assert!(error.to_string().contains("Stdout, Stderr"), "{error}");
    }
}
