//! The whole parser: however a stream is cut into batches, it says the same.

use std::collections::BTreeSet;

use scriptscope::ingest::record::Record;

use super::read::{Read, read};

/// Time of the runtime's entries; the parser of times is another target's matter.
const TIME: &str = "2025-05-14T06:07:27.238927123Z";
/// What the parser remembers is kept with every stream in the store.
const MAX_CARRY: usize = 8 << 10;

/// An input is a seed for the cuts, then lines whose first byte says how the runtime wrote them: `o` and `e` for a line
/// of standard output and error, `O` and `E` for an unfinished one; any other byte is the first of an entry as it is.
pub fn check(data: &[u8]) {
    let Some((&seed, text)) = data.split_first() else {
        return;
    };
    let stream = stream(text);
    let whole = read(7, [&stream[..]]);
    let expected = whole.described();
    same(
        &expected,
        &whole,
        &read(7, stream.split_inclusive(|b| *b == b'\n')),
    );
    same(&expected, &whole, &read(7, cut(&stream, seed)));
    // Nothing is remembered that was not printed; escapes and framing take a little more.
    assert!(whole.carry.len() <= 2 * stream.len() + MAX_CARRY);
    // A line's id is made of these.
    let mut ids = BTreeSet::new();
    for record in &whole.records {
        if let Record::Line(line) = record {
            assert!((7..whole.offset).contains(&line.offset), "{line:?}");
            assert!(ids.insert((line.offset, line.index)), "{line:?} has another's id");
        }
    }
}

fn same(expected: &[String], whole: &Read, pieces: &Read) {
    assert_eq!(expected, pieces.described());
    assert_eq!(
        (&whole.carry, whole.offset, whole.newest),
        (&pieces.carry, pieces.offset, pieces.newest)
    );
}

fn stream(text: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let form = match line[0] {
            b'o' => "stdout F",
            b'O' => "stdout P",
            b'e' => "stderr F",
            b'E' => "stderr P",
            _ => {
                stream.extend(line);
                continue;
            }
        };
        stream.extend(format!("{TIME} {form} ").bytes());
        stream.extend(&line[1..]);
    }
    stream
}

/// Pieces of one to four entries.
fn cut(stream: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut random = u32::from(seed) | 0x100;
    let mut rest = stream;
    std::iter::from_fn(move || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let entries = 1 + (random & 3) as usize;
        let ends = rest.iter().enumerate().filter(|(_, b)| **b == b'\n');
        let end = ends.map(|(at, _)| at + 1).nth(entries - 1).unwrap_or(rest.len());
        let (piece, left) = rest.split_at(end);
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}
