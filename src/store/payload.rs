//! Inputs, outputs and errors of runs as they are kept: JSON, compressed where that pays.

use std::{
    cell::RefCell,
    io::{self, Read},
};

use super::StoreError;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// There was one, too large to be kept; nothing follows.
const TRUNCATED: u8 = 2;
/// Below so many bytes zstd's frame costs more than it saves.
const WORTH_IT: usize = 128;
/// More than any payload that a runner is allowed to capture.
const MAX_BYTES: u64 = 256 << 20;

/// JSON to bytes.
pub fn pack(json: &str) -> Vec<u8> {
    let plain = || [&[PLAIN], json.as_bytes()].concat();
    if json.len() < WORTH_IT {
        return plain();
    }
    match compress(json.as_bytes()) {
        Ok(body) if body.len() < json.len() => [&[ZSTD], &body[..]].concat(),
        _ => plain(),
    }
}

thread_local! {
    /// Making a compressor costs more than to use it on what a run takes and gives.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(zstd::bulk::Compressor::new(1)?),
        };
        compressor.compress(bytes)
    })
}

/// Bytes that stand for a payload which was too large to be kept.
pub fn truncated() -> Vec<u8> {
    vec![TRUNCATED]
}

/// Whether bytes stand for a payload which was too large to be kept.
pub fn is_truncated(bytes: &[u8]) -> bool {
    bytes == [TRUNCATED]
}

/// Bytes to JSON.
pub fn unpack(bytes: &[u8]) -> Result<String, StoreError> {
    let wrong = || StoreError::Corrupt("a payload of a run".to_owned());
    let (coding, body) = bytes.split_first().ok_or_else(wrong)?;
    let json = match *coding {
        PLAIN => body.to_vec(),
        ZSTD => {
            let mut json = Vec::new();
            zstd::stream::read::Decoder::with_buffer(body)
                .and_then(|decoder| decoder.take(MAX_BYTES).read_to_end(&mut json))
                .map_err(|_| wrong())?;
            json
        }
        _ => return Err(wrong()),
    };
    String::from_utf8(json).map_err(|_| wrong())
}

/// Bytes of trace id, parent id and flags.
const TRACE_BYTES: usize = 25;

/// A W3C trace context to less than half of its text; any other text as it is. No text begins with a NUL.
pub fn pack_traceparent(text: &str) -> Vec<u8> {
    packed_trace(text).unwrap_or_else(|| text.as_bytes().to_vec())
}

fn packed_trace(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("00-")?.as_bytes();
    if digits.len() != 2 * TRACE_BYTES + 2 || digits[32] != b'-' || digits[49] != b'-' {
        return None;
    }
    let mut bytes = Vec::with_capacity(1 + TRACE_BYTES);
    bytes.push(0);
    for part in [&digits[..32], &digits[33..49], &digits[50..]] {
        for pair in part.chunks_exact(2) {
            bytes.push(nibble(pair[0])? << 4 | nibble(pair[1])?);
        }
    }
    Some(bytes)
}

/// What a digit stands for. Only lower case is a trace context, and only that comes back as it was.
fn nibble(digit: u8) -> Option<u8> {
    const NONE: u8 = 16;
    static VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value as usize] as usize] = value;
            value += 1;
        }
        values
    };
    let value = VALUES[usize::from(digit)];
    (value != NONE).then_some(value)
}

/// What [`pack_traceparent`] packed.
pub fn unpack_traceparent(bytes: &[u8]) -> Result<String, StoreError> {
    let wrong = || StoreError::Corrupt("a trace context of a run".to_owned());
    let Some((0, packed)) = bytes.split_first() else {
        return String::from_utf8(bytes.to_vec()).map_err(|_| wrong());
    };
    if packed.len() != TRACE_BYTES {
        return Err(wrong());
    }
    let mut text = String::with_capacity(2 * TRACE_BYTES + 5);
    text.push_str("00-");
    for (n, byte) in packed.iter().enumerate() {
        if n == 16 || n == 24 {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_contexts_come_back_and_valid_ones_are_packed() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(pack_traceparent(valid).len(), 26);
        for text in [
            valid,
            "",
            "00-",
            &valid.to_uppercase(),
            &valid.replace('-', "_"),
            "ü",
        ] {
            assert_eq!(unpack_traceparent(&pack_traceparent(text)).unwrap(), text);
        }
        assert!(unpack_traceparent(&[0, 1]).is_err() && unpack_traceparent(&[0xff]).is_err());
    }

    #[test]
    fn payloads_come_back_and_long_ones_are_smaller() {
        for json in ["", "1", &format!("[{}]", "\"ünï\",".repeat(1_000))] {
            assert_eq!(unpack(&pack(json)).unwrap(), json);
        }
        assert!(pack(&"a".repeat(10_000)).len() < 100);
        assert!(is_truncated(&truncated()) && !is_truncated(&pack("1")) && !is_truncated(&pack("")));
        assert!(unpack(&[]).is_err() && unpack(&[7, 1]).is_err() && unpack(&[ZSTD, 1, 2]).is_err());
    }
}
