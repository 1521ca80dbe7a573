//! Inputs, outputs and errors of runs as they are kept: JSON, compressed where that pays.

use std::io::Read;

use serde_json::value::RawValue;

use super::{StoreError, rows::Fields};
use crate::model::{Run, RunDetail};

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

/// A run with its payloads, from the columns `input, output, error` of the row that has them, if it has any.
pub fn detail(run: Run, payloads: Option<&impl Fields>) -> Result<RunDetail, StoreError> {
    let wrong = || StoreError::Corrupt(format!("a payload of the run {:?}", run.run_id));
    let text = |name: &str| -> Result<Option<String>, StoreError> {
        let Some(row) = payloads else {
            return Ok(None);
        };
        row.optional_bytes(name)?.map(unpack).transpose()
    };
    let raw = |name: &str| -> Result<Option<Box<RawValue>>, StoreError> {
        let json = text(name)?.map(RawValue::from_string).transpose();
        json.map_err(|_| wrong())
    };
    let error = text("error")?
        .map(|json| serde_json::from_str(&json))
        .transpose()
        .map_err(|_| wrong())?;
    let (input, output) = (raw("input")?, raw("output")?);
    Ok(RunDetail {
        run,
        input,
        output,
        error,
    })
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
