//! Joins the pieces into which the runtime cuts long lines.

use std::borrow::Cow;

use jiff::Timestamp;

use super::cri::{CriLine, Output};

/// The longest line kept, in bytes; the rest of a longer one is counted and left out.
pub(super) const MAX_LINE: usize = 2 << 20;

/// A printed line.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Offset of its first piece.
    pub offset: u64,
    /// Time of its first piece.
    pub time: Timestamp,
    pub output: Output,
    pub text: Cow<'a, [u8]>,
    /// Bytes left out at its end.
    pub cut: u64,
}

/// The beginning of a line whose end has not come yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfinished {
    pub offset: u64,
    pub time: Timestamp,
    pub text: Vec<u8>,
    pub cut: u64,
}

impl Unfinished {
    fn push(&mut self, piece: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.text.len()).min(piece.len());
        self.text.extend_from_slice(&piece[..room]);
        self.cut += (piece.len() - room) as u64;
    }

    fn into_whole(self, output: Output) -> Whole<'static> {
        Whole {
            offset: self.offset,
            time: self.time,
            output,
            text: Cow::Owned(self.text),
            cut: self.cut,
        }
    }
}

/// The unfinished lines of both outputs, which come interleaved in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assembler {
    pub stdout: Option<Unfinished>,
    pub stderr: Option<Unfinished>,
}

impl Assembler {
    /// Takes a runtime's entry that begins at `offset`; gives the line that it completes.
    pub fn push<'a>(&mut self, offset: u64, entry: &CriLine<'a>) -> Option<Whole<'a>> {
        let slot = match entry.output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        if slot.is_none() && !entry.partial {
            let kept = entry.content.len().min(MAX_LINE);
            return Some(Whole {
                offset,
                time: entry.time,
                output: entry.output,
                text: Cow::Borrowed(&entry.content[..kept]),
                cut: (entry.content.len() - kept) as u64,
            });
        }
        slot.get_or_insert_with(|| Unfinished {
            offset,
            time: entry.time,
            text: Vec::new(),
            cut: 0,
        })
        .push(entry.content);
        if entry.partial {
            return None;
        }
        slot.take().map(|line| line.into_whole(entry.output))
    }

    /// Gives up waiting: the unfinished lines as they are, in order.
    pub fn flush(&mut self) -> impl Iterator<Item = Whole<'static>> + use<> {
        let stdout = self.stdout.take().map(|line| line.into_whole(Output::Stdout));
        let stderr = self.stderr.take().map(|line| line.into_whole(Output::Stderr));
        let stderr_first = matches!((&stdout, &stderr), (Some(out), Some(err)) if err.offset < out.offset);
        let lines = if stderr_first {
            [stderr, stdout]
        } else {
            [stdout, stderr]
        };
        lines.into_iter().flatten()
    }
}
