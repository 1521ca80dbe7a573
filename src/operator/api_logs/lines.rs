//! Lines of a response, read so that waiting for one can be given up and taken up again.

use std::io;

use futures::{AsyncBufRead, AsyncBufReadExt};
use jiff::Timestamp;

use super::resume::Line;

/// A longer line comes in pieces.
const MAX_LINE_BYTES: usize = 256 << 10;

/// The lines of a response.
pub(super) struct Lines<R> {
    reader: R,
    part: Vec<u8>,
    last: Option<Timestamp>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            part: Vec::new(),
            last: None,
        }
    }

    /// The next line; none at the end. A last line without a line end is one too. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return Ok((!self.part.is_empty()).then(|| self.take()));
            }
            let room = MAX_LINE_BYTES - self.part.len();
            let bytes = &bytes[..bytes.len().min(room)];
            let (count, ended) = match memchr::memchr(b'\n', bytes) {
                Some(end) => (end, 1),
                None => (bytes.len(), 0),
            };
            self.part.extend_from_slice(&bytes[..count]);
            self.reader.consume_unpin(count + ended);
            if ended > 0 || self.part.len() >= MAX_LINE_BYTES {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = Line::parse(&self.part, self.last);
        self.part.clear();
        self.last = Some(line.time);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_bounded_and_end_with_the_response() {
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        let text =
            format!("2026-01-02T03:04:05Z one\n\n2026-01-02T03:04:06Z {long}\n2026-01-02T03:04:07Z last");
        let mut lines = Lines::new(text.as_bytes());
        let mut lengths = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            lengths.push((line.time.as_second() % 60, line.text.len()));
        }
        assert_eq!(
            lengths,
            [(5, 3), (5, 0), (6, MAX_LINE_BYTES - 21), (6, 31), (7, 4)]
        );
    }
}
