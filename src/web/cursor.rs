//! Cursors: where a page ended and which query it belongs to, opaque to readers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::TimeRange,
    store::{LogCursor, RunCursor},
};

use super::{ApiError, cache::key_of};

/// Form of the cursors made here.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u8,
    /// First bytes of the hash of the query.
    q: [u8; 8],
    /// The range as it was resolved for the first page, so that all pages are of one range.
    f: Option<Timestamp>,
    u: Option<Timestamp>,
    t: Timestamp,
    id: String,
}

/// A position in a table of rows.
pub(super) trait Position: Sized {
    fn parts(&self) -> (Timestamp, String);
    fn from_parts(time: Timestamp, id: String) -> Option<Self>;
}

impl Position for RunCursor {
    fn parts(&self) -> (Timestamp, String) {
        (self.executed_on, self.run_id.clone())
    }

    fn from_parts(executed_on: Timestamp, run_id: String) -> Option<Self> {
        Some(Self { executed_on, run_id })
    }
}

impl Position for LogCursor {
    fn parts(&self) -> (Timestamp, String) {
        (self.timestamp, self.log_id.to_string())
    }

    fn from_parts(timestamp: Timestamp, id: String) -> Option<Self> {
        Some(Self {
            timestamp,
            log_id: id.parse().ok()?,
        })
    }
}

/// The cursor after `position`, for the query that `query` describes.
pub(super) fn encode<P: Position>(
    position: &P,
    range: TimeRange,
    query: &str,
) -> Result<String, serde_json::Error> {
    let (t, id) = position.parts();
    let wire = Wire {
        v: VERSION,
        q: fingerprint(query),
        f: range.from,
        u: range.to,
        t,
        id,
    };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire)?))
}

/// The position and range in a cursor, if it is one and belongs to this query.
pub(super) fn decode<P: Position>(text: &str, query: &str) -> Result<(P, TimeRange), ApiError> {
    let wrong = || {
        ApiError::invalid(
            "cursor",
            "this is not a cursor; use `next` of the page before, as it is",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    if wire.v != VERSION {
        return Err(wrong());
    }
    if wire.q != fingerprint(query) {
        return Err(ApiError::invalid(
            "cursor",
            "this cursor belongs to another query; begin again without a cursor",
        ));
    }
    let position = P::from_parts(wire.t, wire.id).ok_or_else(wrong)?;
    Ok((
        position,
        TimeRange {
            from: wire.f,
            to: wire.u,
        },
    ))
}

fn fingerprint(query: &str) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&key_of(query.as_bytes())[..8]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogId;

    fn log_cursor() -> LogCursor {
        LogCursor {
            timestamp: "2026-01-02T03:04:05.000006Z".parse().unwrap(),
            log_id: LogId {
                stream: 3,
                offset: 1 << 40,
                index: 7,
            },
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let range = TimeRange {
            from: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            to: None,
        };
        let text = encode(&log_cursor(), range, "q").unwrap();
        assert!(
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_eq!(decode::<LogCursor>(&text, "q").unwrap(), (log_cursor(), range));
        let run = RunCursor {
            executed_on: range.from.unwrap(),
            run_id: "rün \"1\"".into(),
        };
        let text = encode(&run, TimeRange::ALL, "q").unwrap();
        assert_eq!(decode::<RunCursor>(&text, "q").unwrap(), (run, TimeRange::ALL));
    }

    #[test]
    fn other_queries_and_garbage_are_refused() {
        let text = encode(&log_cursor(), TimeRange::ALL, "q").unwrap();
        let other = decode::<LogCursor>(&text, "other").unwrap_err();
        assert!(other.message.contains("another query"), "{other:?}");
        for garbage in ["", "x", "é", "e30", "bnVsbA", &text[..text.len() - 2]] {
            let error = decode::<LogCursor>(garbage, "q").unwrap_err();
            assert_eq!(error.field.as_deref(), Some("cursor"), "{garbage}");
        }
    }
}
