//! Lines of the log format of the container runtime interface: `<time> <stdout|stderr> <P|F> <content>`.

use jiff::Timestamp;

use super::time::Clock;

/// Which of a process's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// One line as the runtime wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CriLine<'a> {
    pub time: Timestamp,
    pub output: Output,
    /// `P`: the printed line goes on in the next entry of this output.
    pub partial: bool,
    pub content: &'a [u8],
}

/// Reads a line without its line end. None if it is not what a runtime writes.
pub(super) fn parse<'a>(line: &'a [u8], clock: &mut Clock) -> Option<CriLine<'a>> {
    // No time is longer than 35 bytes, so garbage is recognised at once.
    let space = memchr::memchr(b' ', line.get(..line.len().min(40))?)?;
    let (time, rest) = (&line[..space], &line[space + 1..]);
    let (output, rest) = match rest.split_at_checked(7)? {
        (b"stdout ", rest) => (Output::Stdout, rest),
        (b"stderr ", rest) => (Output::Stderr, rest),
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is complete. An empty line may lack the space.
    let (tags, content) = match memchr::memchr(b' ', rest) {
        Some(space) => (&rest[..space], &rest[space + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    let partial = match tags {
        b"F" => false,
        b"P" => true,
        _ if tags.starts_with(b"F:") => false,
        _ if tags.starts_with(b"P:") => true,
        _ => return None,
    };
    Some(CriLine {
        time: clock.parse(time)?,
        output,
        partial,
        content,
    })
}

/// Whether the first line's text begins as a JSON object does.
pub(super) fn is_object(lines: &[u8]) -> bool {
    let head = &lines[..lines.len().min(64)];
    memchr::memmem::find(head, b" F {").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Option<CriLine<'_>> {
        super::parse(line, &mut Clock::default())
    }

    #[test]
    fn runtimes_lines_are_read() {
        let line = parse(b"2026-01-02T03:04:05.123456789Z stderr P half a line").unwrap();
        assert_eq!(line.time, "2026-01-02T03:04:05.123456789Z".parse().unwrap());
        assert_eq!(
            (line.output, line.partial, line.content),
            (Output::Stderr, true, &b"half a line"[..])
        );
        // A zone, trimmed zeros, spaces in front, nothing at all.
        let content = |line: &'static [u8]| parse(line).unwrap().content;
        assert_eq!(content(b"2026-01-02T03:04:05.1+02:00 stdout F   x "), b"  x ");
        assert_eq!(content(b"2026-01-02T03:04:05Z stdout F "), b"");
        assert_eq!(content(b"2026-01-02T03:04:05Z stdout F"), b"");
        assert_eq!(content(b"2026-01-02T03:04:05Z stdout F:x y"), b"y");
    }

    #[test]
    fn anything_else_is_not() {
        for line in [
            &b""[..],
            b" ",
            b"hello world",
            b"2026-01-02T03:04:05Z stdin F x",
            b"2026-01-02T03:04:05Z stdout X x",
            b"2026-01-02T03:04:05Z stdout",
            b"2026-01-02T03:04 stdout F x",
            b"\0\0\0\0 stdout F x",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
