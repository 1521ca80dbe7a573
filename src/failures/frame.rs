//! Where in the script's own files an error was raised, from the traceback that its language prints. Pure.

use serde::Serialize;

/// Folders and names of files that are not the script's: the languages' own, and installed packages.
const FOREIGN: [&str; 9] = [
    "/site-packages/",
    "/dist-packages/",
    "/node_modules/",
    "/lib/python",
    "/dependencies/",
    "/scriptscope/",
    "node:",
    "<",
    "internal/",
];

/// A place in a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// File, within the project where that is known.
    pub file: String,
    /// Line of the file, from 1.
    pub line: u32,
    /// Function, where it has a name.
    pub function: Option<String>,
}

impl Frame {
    /// The frame nearest to where the error was raised that lies in a file of the script's own.
    pub fn of(traceback: &str) -> Option<Self> {
        let own = |frame: &Frame| !FOREIGN.iter().any(|part| is_in(&frame.file, part));
        // Python's innermost frame is the last, JavaScript's the first.
        let python = traceback.lines().rev().filter_map(python);
        let mut frame = python.chain(traceback.lines().filter_map(javascript)).find(own)?;
        if let Some(within) = frame.file.strip_prefix("/app/") {
            frame.file = within.to_owned();
        }
        Some(frame)
    }
}

fn is_in(file: &str, part: &str) -> bool {
    if part.starts_with('/') {
        file.contains(part)
    } else {
        file.starts_with(part)
    }
}

/// `  File "/app/main.py", line 41, in charge`
fn python(line: &str) -> Option<Frame> {
    let rest = line
        .trim_start_matches([' ', '|', '+', '-'])
        .strip_prefix("File \"")?;
    let (file, rest) = rest.split_once("\", line ")?;
    let (number, function) = match rest.split_once(", in ") {
        Some((number, function)) => (number, Some(function.trim())),
        None => (rest, None),
    };
    Some(Frame {
        file: file.to_owned(),
        line: number.trim().parse().ok()?,
        function: function.filter(|name| *name != "<module>").map(str::to_owned),
    })
}

/// `    at charge (/app/main.js:41:7)`, or without a name `    at /app/main.js:41:7`
fn javascript(line: &str) -> Option<Frame> {
    let rest = line.trim().strip_prefix("at ")?;
    let (function, place) = match rest.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (")) {
        Some((function, place)) => (Some(function), place),
        None => (None, rest.strip_prefix("async ").unwrap_or(rest)),
    };
    let (place, _column) = place.rsplit_once(':')?;
    let (file, number) = place.rsplit_once(':')?;
    let function = function.map(|name| name.strip_prefix("async ").unwrap_or(name));
    Some(Frame {
        file: file.strip_prefix("file://").unwrap_or(file).to_owned(),
        line: number.parse().ok()?,
        function: function
            .filter(|name| *name != "<anonymous>" && !name.is_empty())
            .map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(file: &str, line: u32, function: Option<&str>) -> Frame {
        Frame {
            file: file.to_owned(),
            line,
            function: function.map(str::to_owned),
        }
    }

    #[test]
    fn python_s_frame_is_the_last_of_the_script_s_own() {
        let chained = "Traceback (most recent call last):\n  File \"/app/main.py\", line 3, in first\n    x\nKeyError: 'a'\n\n\
            During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  \
            File \"/app/main.py\", line 9, in charge\n    price(1)\n  File \"/app/lib/rates.py\", line 41, in price\n    \
            httpx.get(url)\n  File \"/dependencies/httpx/_api.py\", line 195, in get\n    ...\n  \
            File \"/usr/local/lib/python3.13/ssl.py\", line 7, in wrap\n  File \"<frozen importlib>\", line 1, in f\nssl.SSLError: no";
        assert_eq!(Frame::of(chained), Some(frame("lib/rates.py", 41, Some("price"))));
        let syntax = "Traceback (most recent call last):\n  File \"/srv/main.py\", line 2\n    x = (\nSyntaxError: '(' was never closed";
        assert_eq!(Frame::of(syntax), Some(frame("/srv/main.py", 2, None)));
        let group = "  + Exception Group Traceback (most recent call last):\n  |   File \"/app/main.py\", line 5, in <module>\n";
        assert_eq!(Frame::of(group), Some(frame("main.py", 5, None)));
    }

    #[test]
    fn javascript_s_frame_is_the_first_of_the_script_s_own() {
        let stack = "TypeError: x is not a function\n    at parse (/app/node_modules/qs/lib.js:7:1)\n    \
            at node:internal/process:95:5\n    at async Object.charge [as fn] (file:///app/main.js:41:9)\n    at /app/other.js:1:2";
        assert_eq!(
            Frame::of(stack),
            Some(frame("main.js", 41, Some("Object.charge [as fn]")))
        );
        assert_eq!(
            Frame::of("Error\n    at async /app/a (b).mjs:4:2"),
            Some(frame("a (b).mjs", 4, None))
        );
    }

    #[test]
    fn text_without_a_frame_of_the_script_has_none() {
        for text in [
            "",
            "at once: nothing",
            "[cut]\n  File \"/app/main.py\", line many, in x",
            "  File \"/usr/lib/python3/dist-packages/yaml.py\", line 1, in load",
            "    at Function.executeUserCode (node:vm:12:3)",
        ] {
            assert_eq!(Frame::of(text), None, "{text}");
        }
    }
}
