//! JSON text that is passed on unread: made one line, and refused where it is nested too deeply for the readers.

/// The deepest nesting that every reader of a payload can take; Python's own limit is a few times that.
pub const MAX_DEPTH: usize = 200;

/// The JSON is nested more deeply than [`MAX_DEPTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the JSON is nested more than {MAX_DEPTH} levels deep")]
pub struct TooDeep;

/// Takes the white space out of valid JSON, so that it fits into a record of one line.
pub fn compact(json: &str) -> Result<String, TooDeep> {
    let mut compact = Vec::with_capacity(json.len());
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(TooDeep);
            }
        }
        compact.push(byte);
    }
    // Only ASCII was left out, so this is still UTF-8.
    Ok(String::from_utf8(compact).unwrap_or_else(|_| json.to_owned()))
}

/// How many bytes a character takes in a JSON string.
fn encoded_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

/// How many bytes a text takes in a JSON string.
pub fn encoded(text: &str) -> usize {
    text.chars().map(encoded_len).sum()
}

/// The longest beginning of `text` that takes at most `max` bytes in a JSON string.
pub fn cut_encoded(text: &str, max: usize) -> &str {
    // The common case, told without looking at the characters.
    if text.len().saturating_mul(6) <= max {
        return text;
    }
    let mut length = 0;
    for (at, c) in text.char_indices() {
        length += encoded_len(c);
        if length > max {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_and_strings_stay() {
        let text = "{ \"a b\" :\n [1, \"x \\\" y\\\\\" ,\t{}\r\n] }";
        assert_eq!(compact(text).unwrap(), r#"{"a b":[1,"x \" y\\",{}]}"#);
        assert_eq!(compact("\"\u{e9} \u{1f600}\"").unwrap(), "\"\u{e9} \u{1f600}\"");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(compact(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(compact(&nested(MAX_DEPTH + 1)), Err(TooDeep));
        assert!(
            compact(&format!("\"{}\"", "[".repeat(1000))).is_ok(),
            "not within a string"
        );
    }

    #[test]
    fn a_cut_text_takes_no_more_room_than_allowed() {
        for text in [
            "plain text",
            "\0\0\0\0",
            "\"quoted\"",
            "\u{e9}\u{e9}\u{e9}",
            "\u{1f600}\u{1f600}",
        ] {
            for max in 0..30 {
                let cut = cut_encoded(text, max);
                assert!(text.starts_with(cut));
                let encoded = serde_json::to_string(cut).unwrap().len() - 2;
                assert!(encoded <= max, "{text:?} {max} {encoded}");
                let next = text[cut.len()..].chars().next();
                assert!(
                    next.is_none_or(|c| encoded + encoded_len(c) > max),
                    "{text:?} {max}: cut too early"
                );
            }
        }
    }
}
