//! Writing to the terminal: columns, colours, and text that can do nothing to it.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, BufWriter, Stdout, Write},
};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::export::csv::inert;

/// Standard output, and whether it takes colours: a terminal does, unless `NO_COLOR` is set.
pub struct Out {
    stdout: BufWriter<Stdout>,
    colours: bool,
}

impl Default for Out {
    fn default() -> Self {
        Self {
            colours: anstream::AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            stdout: BufWriter::new(io::stdout()),
        }
    }
}

impl Out {
    /// Whether colours are wanted.
    pub fn colours(&self) -> bool {
        self.colours
    }

    /// JSON over many lines.
    pub fn json(&mut self, value: &Value) -> Result<(), io::Error> {
        self.text(&json_text(value))
    }

    /// A text and a line end, handed over at once.
    pub fn text(&mut self, text: &str) -> Result<(), io::Error> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")?;
        self.stdout.flush()
    }

    /// Bytes as they are, which may be kept for a moment.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), io::Error> {
        self.stdout.write_all(bytes)
    }

    /// Hands over what is kept.
    pub fn flush(&mut self) -> Result<(), io::Error> {
        self.stdout.flush()
    }
}

/// JSON for people and programs, in which nothing moves a terminal's cursor.
fn json_text(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\n' && is_dangerous(c) {
            // Only within strings, and all of them below U+FFFF.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text on one line that a terminal shows and does not obey.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' => safe.push(c),
            c if is_dangerous(c) => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// The same, over as many lines as it has.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// A cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            style: Style::new(),
        }
    }

    /// With a colour.
    #[must_use]
    pub fn coloured(mut self, colour: Option<AnsiColor>) -> Self {
        self.style = self.style.fg_color(colour.map(Into::into));
        self
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Rows under headings.
#[derive(Debug)]
pub struct Columns {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Columns {
    /// Without rows yet.
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        self.rows.push(row.into_iter().collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Columns as wide as their widest cell, three spaces between them; headings in capitals.
    pub fn text(&self, headings: bool, colours: bool) -> String {
        let heading = || {
            self.headings
                .iter()
                .map(|h| Cell::new(h.to_uppercase()))
                .collect()
        };
        let mut rows: Vec<Vec<Cell>> = headings.then(heading).into_iter().collect();
        rows.extend(self.rows.iter().map(|row| row.iter().map(shown).collect()));
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.width()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            let mut gap = 0;
            for (cell, width) in row.iter().zip(&widths) {
                line.extend(std::iter::repeat_n(' ', gap));
                if colours && cell.style != Style::new() {
                    let _ = write!(line, "{}{}{:#}", cell.style, cell.text, cell.style);
                } else {
                    line.push_str(&cell.text);
                }
                gap = width - cell.text.width() + 3;
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// RFC 4180, with cells that no spreadsheet takes for formulas.
    pub fn csv(&self, headings: bool) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::new());
        if headings {
            writer.write_record(&self.headings)?;
        }
        for row in &self.rows {
            writer.write_record(row.iter().map(|cell| inert(&cell.text).into_owned()))?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }
}

/// A cell as a terminal shows it.
fn shown(cell: &Cell) -> Cell {
    Cell {
        text: plain(&cell.text).replace('\t', " "),
        style: cell.style,
    }
}

/// The colour of a state of a run or a deployment, or of a log level.
pub fn colour_of(word: &str) -> Option<AnsiColor> {
    match word {
        "Success" | "Deployed" => Some(AnsiColor::Green),
        "Failed" | "Error" | "DeploymentFailed" => Some(AnsiColor::Red),
        "In Progress" | "Deploying" | "Info" => Some(AnsiColor::Cyan),
        "Warning" | "Stderr" => Some(AnsiColor::Yellow),
        "Debug" | "Replaced" | "Undeployed" | "ReadyToDeploy" => Some(AnsiColor::BrightBlack),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns {
        let mut columns = Columns::new(&["Run ID", "Status"]);
        columns.push([
            Cell::from("r1"),
            Cell::from("Failed").coloured(colour_of("Failed")),
        ]);
        columns.push([Cell::from("a-long-one"), Cell::from("=1+1")]);
        columns
    }

    #[test]
    fn columns_line_up_and_colours_take_no_room() {
        assert_eq!(
            columns().text(true, false),
            "RUN ID       STATUS\nr1           Failed\na-long-one   =1+1\n"
        );
        assert_eq!(
            columns().text(false, true),
            "r1           \u{1b}[31mFailed\u{1b}[0m\na-long-one   =1+1\n"
        );
        let mut wide = Columns::new(&["A", "B"]);
        wide.push([Cell::from("漢字"), Cell::from("x")]);
        assert_eq!(wide.text(true, false), "A      B\n漢字   x\n");
    }

    #[test]
    fn csv_is_that_of_the_exports() {
        let text = String::from_utf8(columns().csv(true).unwrap()).unwrap();
        assert_eq!(text, "Run ID,Status\r\nr1,Failed\r\na-long-one,'=1+1\r\n");
    }

    #[test]
    fn what_a_script_prints_moves_no_cursor() {
        assert_eq!(plain("\u{1b}[2J\u{9b}x\u{202e}y"), "\\u{1b}[2J\\u{9b}x\\u{202e}y");
        assert_eq!(plain_lines("a\nb\r"), "a\nb\\r");
        let json = json_text(&serde_json::json!({"m": "\u{1b}\u{9b}\n"}));
        assert!(json.chars().all(|c| c == '\n' || !c.is_control()), "{json}");
        let back: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["m"], "\u{1b}\u{9b}\n");
        let mut columns = Columns::new(&["A"]);
        columns.push([Cell::from("a\nb\u{7}")]);
        assert_eq!(columns.text(false, false), "a\\nb\\u{7}\n");
    }
}
