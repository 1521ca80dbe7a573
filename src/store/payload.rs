//! Inputs, outputs and errors of runs as they are kept: JSON, compressed where that pays.

use std::io::Read;

use super::StoreError;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
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
    match zstd::bulk::compress(json.as_bytes(), 1) {
        Ok(body) if body.len() < json.len() => [&[ZSTD], &body[..]].concat(),
        _ => plain(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_come_back_and_long_ones_are_smaller() {
        for json in ["", "1", &format!("[{}]", "\"ünï\",".repeat(1_000))] {
            assert_eq!(unpack(&pack(json)).unwrap(), json);
        }
        assert!(pack(&"a".repeat(10_000)).len() < 100);
        assert!(unpack(&[]).is_err() && unpack(&[7, 1]).is_err() && unpack(&[ZSTD, 1, 2]).is_err());
    }
}
