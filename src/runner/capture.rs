//! What a run prints to one stream: lines with their times for the record, and its beginning for the caller.
//!
//! In standard output korelogger leaves a mark wherever the echo of a line belongs. The caller sees the echo there; the
//! record does not, since the line has a span of its own. A mark names a line whose span came another way, or holds the
//! span, so that both take one write.

use std::{borrow::Cow, collections::HashMap, collections::VecDeque};

use jiff::Timestamp;
use memchr::memchr;
use uuid::Uuid;

use super::{
    json_text::{cut_encoded, encoded},
    records,
    span::Span,
};

/// Bytes of a stream that the caller gets.
pub const HEAD_BYTES: usize = 64 << 10;
/// Bytes of JSON in one `run.output` record, about.
pub const RECORD_BYTES: usize = 256 << 10;
/// Digits of a korelogger line's id.
const ID_LEN: usize = 24;
/// Digits of the length of a span in a mark.
const LENGTH_DIGITS: usize = 4;
/// Times are kept for each piece read, up to so many; from there on for each millisecond.
const FINE_TIMES: usize = 10_000;

/// The mark of one worker, which no other output can hold by chance.
#[derive(Clone, Debug)]
pub struct Mark(Vec<u8>);

impl Mark {
    /// A mark that was never used before.
    pub fn new() -> Self {
        Self(format!("\0{}", Uuid::now_v7().simple()).into_bytes())
    }

    /// What korelogger writes before the line's id.
    pub fn prefix(&self) -> String {
        format!("{}:", String::from_utf8_lossy(&self.0))
    }

    /// What `bytes` begin with: the mark, `:`, an id, NUL; or the mark, `=`, four hexadecimal digits, so many bytes of a
    /// span, NUL.
    fn read<'a>(&self, bytes: &'a [u8]) -> Found<'a> {
        let Some(rest) = bytes.strip_prefix(self.0.as_slice()) else {
            let is_part = self.0.starts_with(bytes);
            return if is_part { Found::Part } else { Found::Text };
        };
        match rest.split_first() {
            None => Found::Part,
            Some((b':', rest)) => Found::ended(rest, ID_LEN, Found::Id),
            Some((b'=', rest)) => {
                let Some((digits, rest)) = rest.split_at_checked(LENGTH_DIGITS) else {
                    return Found::Part;
                };
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                let length = usize::from_str_radix(digits, 16);
                length.map_or(Found::Text, |length| Found::ended(rest, length, Found::Span))
            }
            Some(_) => Found::Text,
        }
    }
}

/// What a mark is, with what comes behind it.
#[derive(Debug)]
enum Found<'a> {
    /// The id of a line whose span has come another way.
    Id(&'a [u8], &'a [u8]),
    /// A span.
    Span(&'a [u8], &'a [u8]),
    /// The possible beginning of a mark.
    Part,
    /// No mark.
    Text,
}

impl<'a> Found<'a> {
    /// `length` bytes and the NUL that ends a mark.
    fn ended(bytes: &'a [u8], length: usize, found: fn(&'a [u8], &'a [u8]) -> Self) -> Self {
        match bytes
            .split_at_checked(length)
            .map(|(payload, rest)| (payload, rest.split_first()))
        {
            Some((payload, Some((0, rest)))) => found(payload, rest),
            Some((_, Some(_))) => Self::Text,
            Some((_, None)) | None => Self::Part,
        }
    }
}

/// Echoes of korelogger lines that have arrived before their marks; bounded, since a caller sees no more than
/// [`HEAD_BYTES`] anyway. And spans that marks held.
#[derive(Default, Debug)]
pub struct Echoes {
    texts: HashMap<Vec<u8>, String>,
    bytes: usize,
    spans: Vec<Span>,
}

impl Echoes {
    /// Keeps the echo of the line with this id until its mark arrives.
    pub fn expect(&mut self, id: &str, level: &str, message: &str) {
        if self.bytes < 4 * HEAD_BYTES {
            let text = echo_text(level, message);
            self.bytes += text.len() + ID_LEN;
            self.texts.insert(id.as_bytes().to_vec(), text);
        }
    }

    fn take(&mut self, id: &[u8]) -> Option<String> {
        let text = self.texts.remove(id)?;
        self.bytes -= text.len() + ID_LEN;
        Some(text)
    }

    /// The spans that marks held since the last call.
    pub fn take_spans(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.spans)
    }
}

fn echo_text(level: &str, message: &str) -> String {
    format!("{level} :: {message}\n")
}

/// One stream of one run.
#[derive(Debug)]
pub struct Capture {
    stream: &'static str,
    mark: Option<Mark>,
    /// The possible beginning of a mark whose end has not been read.
    held: Vec<u8>,
    /// Text that is not in a record yet, and how much of it is.
    text: Vec<u8>,
    done: usize,
    /// Offset in the stream of `text[0]`.
    offset: u64,
    /// Up to which offset the text had been read when.
    times: VecDeque<(u64, Timestamp)>,
    head: Head,
}

impl Capture {
    /// The standard output of a run by a worker with this mark.
    pub fn stdout(mark: &Mark) -> Self {
        Self::new("stdout", Some(mark.clone()))
    }

    /// The standard error of a run.
    pub fn stderr() -> Self {
        Self::new("stderr", None)
    }

    fn new(stream: &'static str, mark: Option<Mark>) -> Self {
        Self {
            stream,
            mark,
            held: Vec::new(),
            text: Vec::new(),
            done: 0,
            offset: 0,
            times: VecDeque::new(),
            head: Head::default(),
        }
    }

    /// Takes in what was read at `now`, at most `budget` bytes of it, which it lowers. False when there was more.
    pub fn push(&mut self, chunk: &[u8], now: Timestamp, echoes: &mut Echoes, budget: &mut usize) -> bool {
        let Some(mark) = self.mark.take() else {
            return self.push_text(chunk, now, budget);
        };
        let held = std::mem::take(&mut self.held);
        let bytes: Cow<'_, [u8]> = if held.is_empty() {
            Cow::Borrowed(chunk)
        } else {
            Cow::Owned([&held, chunk].concat())
        };
        let mut rest = bytes.as_ref();
        let mut fits = true;
        // Where to look for the next mark: beyond a NUL that does not begin one.
        let mut from = 0;
        while let Some(at) = rest.get(from..).and_then(|r| memchr(0, r)).map(|at| from + at) {
            let (before, candidate) = rest.split_at(at);
            let (echo, behind) = match mark.read(candidate) {
                Found::Id(id, behind) => (echoes.take(id), behind),
                Found::Span(json, behind) => {
                    let Some((span, echo)) = Span::marked(json) else {
                        from = at + 1;
                        continue;
                    };
                    echoes.spans.push(span);
                    (Some(echo_text(&echo.level, &echo.message)), behind)
                }
                Found::Part => {
                    fits &= self.push_text(before, now, budget);
                    self.held = candidate.to_vec();
                    rest = &[];
                    break;
                }
                Found::Text => {
                    from = at + 1;
                    continue;
                }
            };
            fits &= self.push_text(before, now, budget);
            self.head.push(echo.unwrap_or_default().as_bytes());
            rest = behind;
            from = 0;
        }
        fits &= self.push_text(rest, now, budget);
        self.mark = Some(mark);
        fits
    }

    fn push_text(&mut self, text: &[u8], now: Timestamp, budget: &mut usize) -> bool {
        let fitting = text.get(..*budget).unwrap_or(text);
        if fitting.is_empty() {
            return text.is_empty();
        }
        *budget -= fitting.len();
        self.head.push(fitting);
        self.text.extend_from_slice(fitting);
        let end = self.offset + self.text.len() as u64;
        let coarse = self.times.len() >= FINE_TIMES;
        match self.times.back_mut() {
            Some((until, time)) if coarse && now.duration_since(*time).as_millis() < 1 => *until = end,
            _ => self.times.push_back((end, now)),
        }
        fitting.len() == text.len()
    }

    /// The stream is at its end: what looked like the beginning of a mark was text.
    pub fn end(&mut self, now: Timestamp, budget: &mut usize) {
        let held = std::mem::take(&mut self.held);
        self.push_text(&held, now, budget);
    }

    /// The next `run.output` record; none when no whole line is left, or with `last` no text at all.
    pub fn next_record(&mut self, run_id: &str, last: bool) -> Option<Vec<u8>> {
        let mut record = records::OutputRecord::new(Some(run_id), self.stream);
        while record.len() < RECORD_BYTES {
            let rest = self.text.get(self.done..).unwrap_or_default();
            let (line, length) = match memchr(b'\n', rest) {
                Some(at) => (rest.get(..at).unwrap_or_default(), at + 1),
                None if last && !rest.is_empty() => (rest, rest.len()),
                None => break,
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = String::from_utf8_lossy(line);
            let shown = cut_encoded(&text, RECORD_BYTES - 4 * records::LINE_OVERHEAD);
            if record.holds_lines() && record.len() + encoded(shown) > RECORD_BYTES - records::LINE_OVERHEAD {
                break;
            }
            // The time at which the line's last byte was read.
            let end = self.offset + (self.done + length) as u64;
            while self.times.len() > 1 && self.times.front().is_some_and(|(until, _)| *until < end) {
                self.times.pop_front();
            }
            let time = self
                .times
                .front()
                .map_or(Timestamp::UNIX_EPOCH, |(_, time)| *time);
            if shown.len() < text.len() {
                record.push(time, &format!("{shown} [cut: a line of {} bytes]", line.len()));
            } else {
                record.push(time, shown);
            }
            self.done += length;
        }
        self.release();
        record.holds_lines().then(|| record.finish())
    }

    /// Gives memory back that records have been made of, now and then.
    fn release(&mut self) {
        if self.done == self.text.len() || self.done > (1 << 20) {
            self.text.drain(..self.done);
            self.offset += self.done as u64;
            self.done = 0;
        }
    }

    /// Whether there is a whole line that is not in a record yet.
    pub fn has_line(&self) -> bool {
        memchr(b'\n', self.text.get(self.done..).unwrap_or_default()).is_some()
    }

    /// What the caller gets.
    pub fn into_head(self) -> String {
        self.head.finish()
    }
}

/// The beginning of a stream.
#[derive(Default, Debug)]
struct Head {
    bytes: Vec<u8>,
    total: u64,
}

impl Head {
    fn push(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES - self.bytes.len();
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.total += bytes.len() as u64;
    }

    fn finish(self) -> String {
        let whole = self.total <= self.bytes.len() as u64;
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if !whole {
            let shown = self.bytes.len();
            let note = format!("\n[truncated: the first {shown} of {} bytes]", self.total);
            text.push_str(&note);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn time(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).unwrap()
    }

    fn lines(capture: &mut Capture, last: bool) -> Vec<(String, String)> {
        let mut all = Vec::new();
        while let Some(record) = capture.next_record("run_1", last) {
            assert_eq!(memchr(b'\n', &record), Some(record.len() - 1), "one line");
            assert!(record.len() <= RECORD_BYTES);
            let record: Value = serde_json::from_slice(&record).unwrap();
            assert_eq!(record["scriptscope"], "run.output");
            for line in record["lines"].as_array().unwrap() {
                all.push((line[0].as_str().unwrap().into(), line[1].as_str().unwrap().into()));
            }
        }
        all
    }

    fn texts(capture: &mut Capture) -> Vec<String> {
        lines(capture, true).into_iter().map(|(_, text)| text).collect()
    }

    fn marked(mark: &Mark, id: &str) -> Vec<u8> {
        [mark.prefix().as_bytes(), id.as_bytes(), b"\0"].concat()
    }

    const ID: &str = "0123456789abcdef00000001";

    #[test]
    fn an_echo_is_for_the_caller_alone_wherever_the_reads_cut_it() {
        let mark = Mark::new();
        let input = [b"before\nab".as_slice(), &marked(&mark, ID), b"cd\n\0after\n"].concat();
        for cut in 0..=input.len() {
            let mut capture = Capture::stdout(&mark);
            let mut echoes = Echoes::default();
            echoes.expect(ID, "INFO", "two\nlines");
            let mut budget = 1000;
            for part in [&input[..cut], &input[cut..]] {
                assert!(capture.push(part, time(0), &mut echoes, &mut budget));
            }
            capture.end(time(0), &mut budget);
            assert_eq!(texts(&mut capture), ["before", "abcd", "\0after"], "cut at {cut}");
            let head = capture.into_head();
            assert_eq!(
                head, "before\nabINFO :: two\nlines\ncd\n\0after\n",
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_mark_may_hold_the_span_wherever_the_reads_cut_it() {
        let mark = Mark::new();
        let json = r#"{"name":"gvisor_info_log","attributes":{"log.meta.logid":"a","log.level":"INFO","log.message":"two\nlines"}}"#;
        let marked = |json: &str| {
            format!(
                "{}={:04x}{json}\0",
                mark.prefix().trim_end_matches(':'),
                json.len()
            )
        };
        let input = format!("before\nab{}cd\n{}after\n", marked(json), marked("no span"));
        for cut in 0..=input.len() {
            let mut capture = Capture::stdout(&mark);
            let mut echoes = Echoes::default();
            let mut budget = 1000;
            let mut spans = Vec::new();
            for part in [&input.as_bytes()[..cut], &input.as_bytes()[cut..]] {
                assert!(capture.push(part, time(0), &mut echoes, &mut budget));
                spans.extend(echoes.take_spans().into_iter().map(Span::line));
            }
            capture.end(time(0), &mut budget);
            assert_eq!(spans, [format!("{json}\n").into_bytes()], "cut at {cut}");
            let texts = texts(&mut capture);
            assert_eq!((texts.len(), &*texts[1]), (3, "abcd"), "cut at {cut}");
            assert!(texts[2].ends_with("no span\0after"), "what is no span stays");
            let head = capture.into_head();
            assert!(
                head.starts_with("before\nabINFO :: two\nlines\ncd\n"),
                "cut at {cut}: {head}"
            );
        }
    }

    #[test]
    fn a_print_that_looks_like_an_echo_stays() {
        let mark = Mark::new();
        let mut capture = Capture::stdout(&mark);
        let mut echoes = Echoes::default();
        echoes.expect(ID, "INFO", "hello");
        let input = [
            b"INFO :: hello\n".as_slice(),
            &marked(&mark, ID),
            &marked(&Mark::new(), ID),
            b"\n",
        ]
        .concat();
        capture.push(&input, time(0), &mut echoes, &mut 1000);
        let texts = texts(&mut capture);
        assert_eq!(texts[0], "INFO :: hello");
        assert!(texts[1].contains(ID), "another worker's mark is text");
    }

    #[test]
    fn lines_have_the_time_of_their_end_and_keep_their_order() {
        let mut capture = Capture::stderr();
        let mut echoes = Echoes::default();
        let mut budget = 1000;
        for (at, text) in [(1, "a\nb"), (2, "b\r\n"), (3, "c"), (4, "\nd")] {
            capture.push(text.as_bytes(), time(at), &mut echoes, &mut budget);
        }
        assert!(capture.has_line());
        let found = lines(&mut capture, false);
        let expected = [("01", "a"), ("02", "bb"), ("04", "c")]
            .map(|(at, text)| (format!("1970-01-01T00:00:00.0000{at}Z"), text.to_owned()));
        assert_eq!(found, expected);
        assert!(!capture.has_line());
        let rest = [("1970-01-01T00:00:00.000004Z".to_owned(), "d".to_owned())];
        assert_eq!(lines(&mut capture, true), rest);
        assert_eq!(lines(&mut capture, true), []);
    }

    #[test]
    fn much_output_becomes_several_records_and_a_long_line_is_cut() {
        let mut capture = Capture::stderr();
        let mut budget = 8 << 20;
        let long = "\u{1}".repeat(RECORD_BYTES);
        let mut input = String::new();
        for i in 0..50_000 {
            input += "line ";
            input += &i.to_string();
            input.push('\n');
        }
        input.push_str(&long);
        input.push_str("\nend");
        capture.push(input.as_bytes(), time(0), &mut Echoes::default(), &mut budget);
        let texts = texts(&mut capture);
        assert_eq!(texts.len(), 50_002);
        assert_eq!(texts[49_999], "line 49999");
        assert!(texts[50_000].ends_with(&format!("[cut: a line of {RECORD_BYTES} bytes]")));
        assert_eq!(texts[50_001], "end");
        let head = capture.into_head();
        assert!(head.starts_with("line 0\n") && head.contains("[truncated: the first 65536 of"));
    }

    #[test]
    fn no_more_than_the_budget_is_kept() {
        let mut capture = Capture::stderr();
        let mut budget = 5;
        assert!(capture.push(b"abc", time(0), &mut Echoes::default(), &mut budget));
        assert!(!capture.push(b"def", time(0), &mut Echoes::default(), &mut budget));
        assert!(!capture.push(b"g", time(0), &mut Echoes::default(), &mut budget));
        assert_eq!(texts(&mut capture), ["abcde"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut capture = Capture::stderr();
        capture.push(b"caf\xe9 \xff\n", time(0), &mut Echoes::default(), &mut 100);
        assert_eq!(texts(&mut capture), ["caf\u{fffd} \u{fffd}"]);
    }
}
