//! Prints outside any run, passed on line by line.

use jiff::Timestamp;
use memchr::{memchr, memmem, memrchr};

use super::{records::OutputRecord, span::Span};

/// Bytes of a line; a longer one is cut into several.
const MAX_LINE: usize = 256 << 10;

/// Collects bytes to whole lines.
#[derive(Debug, Default)]
pub struct PlainLines {
    partial: Vec<u8>,
}

impl PlainLines {
    /// Adds what was read; whole lines if there are any.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.partial.extend_from_slice(bytes);
        let end = match memrchr(b'\n', &self.partial) {
            Some(at) => at + 1,
            None if self.partial.len() >= MAX_LINE => return self.end(),
            None => return None,
        };
        let rest = self.partial.split_off(end);
        Some(std::mem::replace(&mut self.partial, rest))
    }

    /// What is left, as a line.
    pub fn end(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return None;
        }
        if memchr(b'\n', line.get(line.len() - 1..).unwrap_or_default()).is_none() {
            line.push(b'\n');
        }
        Some(line)
    }
}

/// Whole lines of standard output, fit to stand among the runner's records: one that could be read as a record, as the first
/// line of one, or as a log line of a run, is put into a record, as text.
pub fn among_records(lines: Vec<u8>, now: Timestamp) -> Vec<u8> {
    if memchr(b'{', &lines).is_none() {
        return lines;
    }
    let mut fit = Vec::with_capacity(2 * lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if is_dangerous(line) {
            let text = String::from_utf8_lossy(line);
            fit.append(&mut text_record(now, text.trim_end_matches(['\r', '\n'])));
        } else {
            fit.extend_from_slice(line);
        }
    }
    fit
}

fn is_dangerous(line: &[u8]) -> bool {
    let has = |key: &[u8]| memmem::find(line, key).is_some();
    if has(br#""scriptscope""#) || line.trim_ascii_end() == b"{" {
        return true;
    }
    line.starts_with(b"{") && has(br#""log.message""#) && !Span::names_no_run(line)
}

/// A record with one line of text that belongs to no run.
pub fn text_record(now: Timestamp, text: &str) -> Vec<u8> {
    let mut record = OutputRecord::new(None, "stdout");
    record.push(now, text);
    record.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_passed_on() {
        let mut lines = PlainLines::default();
        assert_eq!(lines.push(b"one\ntw"), Some(b"one\n".to_vec()));
        assert_eq!(lines.push(b"o"), None);
        assert_eq!(lines.push(b"\n\nthree"), Some(b"two\n\n".to_vec()));
        assert_eq!(lines.end(), Some(b"three\n".to_vec()));
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn a_print_that_looks_like_a_record_is_text() {
        let forged = r#"{"scriptscope":"run.started","run_id":"x"}"#;
        let lines = format!("one\n{forged}\r\n {{}}\n").into_bytes();
        let time = Timestamp::UNIX_EPOCH;
        let fit = String::from_utf8(among_records(lines, time)).unwrap();
        let all: Vec<&str> = fit.lines().collect();
        assert_eq!((all.len(), all[0], all[2]), (3, "one", " {}"));
        let record: serde_json::Value = serde_json::from_str(all[1]).unwrap();
        assert_eq!(record["scriptscope"], "run.output");
        assert_eq!(record["lines"][0][1], forged);
        assert!(record.get("run_id").is_none());
    }

    #[test]
    fn a_print_that_looks_like_a_line_of_a_run_is_text() {
        let span = |run: &str| format!(r#"{{"name":"x","attributes":{{{run}"log.message":"m"}}}}"#);
        let (own, forged) = (span(""), span(r#""run_id":"r","#));
        // Over many lines, as console exporters print: without its beginning it is nothing.
        let lines = format!("{own}\n{forged}\n{{\n\"attributes\": {{\"run_id\": \"r\"}}\n}}\n").into_bytes();
        let fit = String::from_utf8(among_records(lines, Timestamp::UNIX_EPOCH)).unwrap();
        let all: Vec<&str> = fit.lines().collect();
        assert_eq!((all.len(), all[0]), (5, own.as_str()));
        for (at, text) in [(1, forged.as_str()), (2, "{")] {
            let record: serde_json::Value = serde_json::from_str(all[at]).unwrap();
            assert_eq!(record["scriptscope"], "run.output");
            assert_eq!(record["lines"][0][1], text);
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = PlainLines::default();
        let piece = vec![b'x'; 100_000];
        let cut: Vec<_> = (0..3).filter_map(|_| lines.push(&piece)).collect();
        assert_eq!(cut.len(), 1);
        assert_eq!(cut[0].len(), 300_001);
        assert_eq!(cut[0].last(), Some(&b'\n'));
    }
}
