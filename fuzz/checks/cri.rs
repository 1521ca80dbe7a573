//! The runtime's log format against a slow reader of it that was written from the specification alone.

use jiff::Timestamp;
use scriptscope::model::LogLevel;

use super::read::{Line, read, received};

/// Lines of printed text are the same in the product's reader and in the slow one.
pub fn check(data: &[u8]) {
    // An object could be a record, which is not the question here.
    let text: Vec<u8> = data.iter().map(|b| if *b == b'{' { b'(' } else { *b }).collect();
    let found = read(0, [&text[..], b"\n"]);
    assert_eq!(found.offset, text.len() as u64 + 1);
    let lines = found.lines().expect("nothing but lines");
    assert_eq!(lines, expected(&text));
}

#[derive(Default)]
struct Slow {
    lines: Vec<Line>,
    /// Standard output's and standard error's.
    unfinished: [Option<(u64, Timestamp, Vec<u8>)>; 2],
    last_time: Option<Timestamp>,
}

fn expected(text: &[u8]) -> Vec<Line> {
    let mut slow = Slow::default();
    let mut offset = 0;
    for entry in text.split_inclusive(|b| *b == b'\n') {
        slow.entry(offset, entry.strip_suffix(b"\n").unwrap_or(entry));
        offset += entry.len() as u64;
    }
    slow.end();
    // Lines are kept to the microsecond.
    let kept = |(offset, time, level, text): Line| {
        let time = Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time);
        (offset, time, level, text)
    };
    slow.lines.into_iter().map(kept).collect()
}

impl Slow {
    fn entry(&mut self, offset: u64, entry: &[u8]) {
        if entry.is_empty() {
            return self.end();
        }
        let Some((time, stream, is_partial, content)) = fields(entry) else {
            let time = self.last_time.unwrap_or_else(received);
            return self.lines.push((offset, time, LogLevel::Stdout, lossy(entry)));
        };
        self.last_time = Some(time);
        let line = self.unfinished[stream].get_or_insert((offset, time, Vec::new()));
        line.2.extend(content);
        if !is_partial {
            self.finish(stream);
        }
    }

    fn finish(&mut self, stream: usize) {
        if let Some((offset, time, text)) = self.unfinished[stream].take() {
            let level = [LogLevel::Stdout, LogLevel::Stderr][stream];
            let text = text.strip_suffix(b"\r").unwrap_or(&text);
            self.lines.push((offset, time, level, lossy(text)));
        }
    }

    /// Nothing more comes: what is unfinished is finished, in the order it was begun.
    fn end(&mut self) {
        let mut streams = [0, 1];
        streams.sort_by_key(|n| self.unfinished[*n].as_ref().map(|line| line.0));
        for stream in streams {
            self.finish(stream);
        }
    }
}

/// `<time> <stream> <tags> <content>`.
fn fields(entry: &[u8]) -> Option<(Timestamp, usize, bool, &[u8])> {
    let mut fields = entry.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let stream = match fields.next()? {
        b"stdout" => 0,
        b"stderr" => 1,
        _ => return None,
    };
    let is_partial = match fields.next()?.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    // No time in UTC or with an offset is longer.
    let time = (time.len() < 40).then(|| time.parse().ok())??;
    Some((time, stream, is_partial, fields.next().unwrap_or_default()))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
