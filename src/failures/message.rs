//! What is the same in messages that differ only in their values. Pure.

/// Characters of a message that tell errors apart.
const LONGEST: usize = 1_000;
/// Digits that an id in hexadecimal has at least.
const HEX_DIGITS: usize = 8;

/// A message without its values: numbers, ids in hexadecimal, UUIDs and what stands in quotes are replaced.
pub fn normalised(message: &str) -> String {
    let text: Vec<char> = message.chars().take(LONGEST).collect();
    let mut out = String::with_capacity(text.len());
    // Quotes that have no partner in the rest of the text.
    let mut unpaired = Vec::new();
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        let begins = at == 0 || !text[at - 1].is_alphanumeric();
        if matches!(c, '\'' | '"' | '`') && begins && !unpaired.contains(&c) {
            if let Some(end) = closing(&text, at) {
                out.extend([c, '…', c]);
                at = end + 1;
                continue;
            }
            unpaired.push(c);
        }
        if let Some(end) = uuid(&text, at).filter(|_| begins) {
            out.push_str("<uuid>");
            at = end;
        } else if c.is_ascii_alphanumeric() {
            let end = end_of(&text, at, |c| c.is_ascii_alphanumeric());
            at = word(&text, at, end, &mut out);
        } else {
            if !c.is_whitespace() {
                out.push(c);
            } else if !out.is_empty() && !out.ends_with(' ') {
                out.push(' ');
            }
            at += 1;
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// The place of the quote that closes the one at `open`: no letter follows it, as in "can't".
fn closing(text: &[char], open: usize) -> Option<usize> {
    let ends = |at: &usize| {
        text[*at] == text[open]
            && text[at - 1] != '\\'
            && !text.get(at + 1).is_some_and(|c| c.is_alphanumeric())
    };
    (open + 1..text.len()).find(ends)
}

fn end_of(text: &[char], from: usize, holds: impl Fn(char) -> bool) -> usize {
    text[from..]
        .iter()
        .position(|c| !holds(*c))
        .map_or(text.len(), |n| from + n)
}

/// Where a UUID ends that begins at a place.
fn uuid(text: &[char], at: usize) -> Option<usize> {
    const SHAPE: &[u8] = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    let end = at + SHAPE.len();
    let fits = text
        .get(at..end)?
        .iter()
        .zip(SHAPE)
        .all(|(c, shape)| match shape {
            b'x' => c.is_ascii_hexdigit(),
            _ => *c == '-',
        });
    (fits && !text.get(end).is_some_and(|c| c.is_alphanumeric())).then_some(end)
}

/// Writes the word from `at` to `end`, and says where to go on: a number may reach beyond it.
fn word(text: &[char], at: usize, end: usize, out: &mut String) -> usize {
    let word = &text[at..end];
    if let ['0', 'x' | 'X', digits @ ..] = word
        && !digits.is_empty()
        && digits.iter().all(char::is_ascii_hexdigit)
    {
        out.push_str("<hex>");
        return end;
    }
    let has = |holds: fn(&char) -> bool| word.iter().any(holds);
    if word.len() >= HEX_DIGITS
        && word.iter().all(char::is_ascii_hexdigit)
        && has(char::is_ascii_digit)
        && has(char::is_ascii_alphabetic)
    {
        out.push_str("<hex>");
        return end;
    }
    let mut at = at;
    while at < end {
        if text[at].is_ascii_digit() {
            out.push_str("<n>");
            at = number(text, at);
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    at
}

/// Where the number ends that begins at a place, with its decimals and groups of digits.
fn number(text: &[char], at: usize) -> usize {
    let digits = |from| end_of(text, from, |c| c.is_ascii_digit());
    let mut end = digits(at);
    while matches!(text.get(end), Some('.' | ',')) && text.get(end + 1).is_some_and(char::is_ascii_digit) {
        end = digits(end + 1);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_left_out_and_words_stay() {
        for (message, expected) in [
            ("division by zero", "division by zero"),
            ("order 90017 has -3 lines", "order <n> has -<n> lines"),
            ("1,234.50 EUR are 12.5 % more", "<n> EUR are <n> % more"),
            ("took 30s, v2 of order42x7", "took <n>s, v<n> of order<n>x<n>"),
            ("'abc'", "'…'"),
            ("no key \"a b\" in `x`", "no key \"…\" in `…`"),
            (
                "can't open 'it\\'s': users' data isn't there",
                "can't open '…': users' data isn't there",
            ),
            ("unbalanced 'quote", "unbalanced 'quote"),
            ("at 0x7f3Ab2 or 0x", "at <hex> or <n>x"),
            (
                "commit deadbeef1 of facade and 1234567890",
                "commit <hex> of facade and <n>",
            ),
            ("run_0199ab34cd failed", "run_<hex> failed"),
            ("id 0af76519-16cd-43dd-8448-eb211c80319c!", "id <uuid>!"),
            ("  many \n\t lines\n", "many lines"),
            ("Größe 3 übersteigt 4", "Größe <n> übersteigt <n>"),
            ("", ""),
        ] {
            assert_eq!(normalised(message), expected, "{message}");
        }
    }

    #[test]
    fn a_message_that_was_normalised_stays_as_it_is() {
        for message in [
            "order 9 of 'x' 0x1f",
            "a \"b\" 0af76519-16cd-43dd-8448-eb211c80319c",
        ] {
            let once = normalised(message);
            assert_eq!(normalised(&once), once);
        }
    }

    #[test]
    fn long_messages_of_many_quotes_take_no_long_time() {
        let text = normalised(&" 'a".repeat(100_000));
        assert!(text.chars().count() <= LONGEST);
        assert!(text.starts_with("'a 'a"));
    }
}
