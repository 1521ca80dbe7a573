use super::*;
use crate::{
    ingest::record::{NewLine, Record},
    model::{RunStatus, SourceType},
};

const SCRIPT: &[u8] = include_bytes!("../../../tests/fixtures/logs/script.log");
const PRETTY: &str = include_str!("../../../tests/fixtures/logs/span_pretty.json");

fn received() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// [`super::Parsed`] with the records one by one.
struct Parsed {
    records: Vec<Record>,
    carry: Vec<u8>,
    offset: u64,
    newest: Option<Timestamp>,
}

fn parse(bytes: &[u8]) -> Parsed {
    parse_chunks(&[bytes])
}

/// Each chunk by a parser of its own, as after a restart.
fn parse_chunks(chunks: &[&[u8]]) -> Parsed {
    let (mut all, mut carry, mut offset, mut newest) = (Vec::new(), Vec::new(), 0, None);
    for chunk in chunks {
        let mut parser = Parser::resume(&carry, offset, received()).unwrap();
        parser.feed(&Bytes::copy_from_slice(chunk));
        let parsed = parser.finish();
        all.extend(parsed.records);
        (carry, offset, newest) = (parsed.carry, parsed.offset, newest.max(parsed.newest));
    }
    Parsed {
        records: all,
        carry,
        offset,
        newest,
    }
}

fn line(record: &Record) -> &NewLine {
    match record {
        Record::Line(line) => line,
        other => panic!("not a line: {other:?}"),
    }
}

fn messages(parsed: &Parsed) -> Vec<&str> {
    parsed.records.iter().map(|r| &*line(r).message).collect()
}

/// The text as a runtime would log it, a millisecond a line.
fn logged(text: &str) -> Vec<u8> {
    let lines = text.lines().enumerate();
    let logged: Vec<String> = lines
        .map(|(number, line)| format!("2025-05-14T06:07:28.{number:03}Z stdout F {line}\n"))
        .collect();
    logged.concat().into_bytes()
}

#[test]
fn every_kind_of_line_becomes_what_it_says() {
    let parsed = parse(SCRIPT);
    let mut records = parsed.records.iter();
    let mut next = || records.next().unwrap();

    assert_eq!(line(next()).message, "starting");
    let stderr = line(next());
    assert_eq!((stderr.level, stderr.run_id.as_deref()), (LogLevel::Stderr, None));
    let Record::RunStarted(started) = next() else {
        panic!("a run starts here")
    };
    assert_eq!(
        (
            &*started.run_id,
            &*started.function,
            &*started.source,
            started.source_type
        ),
        ("run_12345", "check", "billing", SourceType::Api)
    );
    assert_eq!(started.input.as_ref().unwrap().get(), r#"{"account":17}"#);
    let span = line(next());
    assert_eq!(
        (
            span.level,
            &*span.message,
            span.run_id.as_deref(),
            span.attributes.as_deref()
        ),
        (
            LogLevel::Warning,
            "low balance",
            Some("run_12345"),
            Some(r#"{"log.meta.pid":"41"}"#)
        )
    );
    assert_eq!(span.time, "2025-05-14T06:07:27.238927Z".parse().unwrap());
    // One echo belongs to the span; the script printed the same words a second time.
    assert_eq!(line(next()).message, "WARNING :: low balance");
    assert_eq!(line(next()).message, "an error in two pieces");
    let joined = line(next());
    assert_eq!(joined.message, "a long line in three pieces");
    assert_eq!(joined.time, "2025-05-14T06:07:27.3Z".parse().unwrap());
    let first_piece = memchr::memmem::find(SCRIPT, b"2025-05-14T06:07:27.3+").unwrap();
    assert_eq!(joined.offset, first_piece as u64);
    for (index, text) in [(0, "one"), (1, "two")] {
        let output = line(next());
        assert_eq!(
            (output.index, &*output.message, output.level),
            (index, text, LogLevel::Stdout)
        );
        assert_eq!(output.run_id.as_deref(), Some("run_12345"));
    }
    let untimed = line(next());
    assert_eq!((untimed.level, &*untimed.message), (LogLevel::Stderr, "three"));
    assert_eq!(untimed.time, "2025-05-14T06:07:28Z".parse().unwrap());
    let corrupt = line(next());
    assert_eq!(corrupt.message, "this line is no runtime's");
    assert_eq!(corrupt.time, "2025-05-14T06:07:28Z".parse().unwrap());
    let Record::RunFinished(good) = next() else {
        panic!("a run ends here")
    };
    assert_eq!((good.status, good.duration_micros), (RunStatus::Success, 12345));
    assert_eq!(good.output.as_ref().unwrap().get(), "null");
    let Record::RunFinished(bad) = next() else {
        panic!("a run ends here")
    };
    let error = bad.error.as_ref().unwrap();
    assert_eq!(
        (&*error.reason, error.kind.as_deref(), &*error.message),
        ("Exception", Some("ValueError"), "no such account")
    );
    // runner.stopped is silent; a record with a wrong field is kept to be seen.
    assert!(line(next()).message.contains("Great"));
    let rest: Vec<_> = records.map(|r| (line(r).level, &*line(r).message)).collect();
    assert_eq!(rest.len(), 5);
    assert_eq!(
        rest[..2],
        [(LogLevel::Stdout, "{"), (LogLevel::Stdout, "  not json")]
    );
    assert!(rest[2].0 == LogLevel::Stderr && rest[2].1.contains("run_4"));
    assert_eq!(rest[3..], [(LogLevel::Stdout, ""), (LogLevel::Stdout, "last")]);
    assert_eq!(parsed.newest, Some("2025-05-14T06:07:28.7Z".parse().unwrap()));
    assert_eq!(parsed.offset, SCRIPT.len() as u64);
}

#[test]
fn chunks_change_nothing() {
    let mut input = SCRIPT.to_vec();
    input.extend(logged(&format!(
        "{PRETTY}INFO :: Balance checked\n{{\n  \"a\": 1\nplain\n{{\n  \"b\""
    )));
    let whole = parse(&input);
    let cuts: Vec<usize> = memchr::memchr_iter(b'\n', &input).map(|at| at + 1).collect();
    for cut in &cuts {
        let halves = parse_chunks(&[&input[..*cut], &input[*cut..]]);
        assert_eq!(
            format!("{:?}", whole.records),
            format!("{:?}", halves.records),
            "{cut}"
        );
        assert_eq!((&whole.carry, whole.offset), (&halves.carry, halves.offset));
    }
    let lines: Vec<&[u8]> = input.split_inclusive(|b| *b == b'\n').collect();
    let one_by_one = parse_chunks(&lines);
    assert_eq!(
        format!("{:?}", whole.records),
        format!("{:?}", one_by_one.records)
    );
}

#[test]
fn a_pretty_printed_span_is_one_line() {
    let parsed = parse(&logged(&format!(
        "before\n{PRETTY}INFO :: Balance checked\nafter\n"
    )));
    assert_eq!(messages(&parsed), ["before", "Balance checked", "after"]);
    let span = line(&parsed.records[1]);
    assert_eq!(
        (span.level, span.run_id.as_deref()),
        (LogLevel::Info, Some("run_12345"))
    );
    assert_eq!(
        span.offset,
        "2025-05-14T06:07:28.000Z stdout F before\n".len() as u64
    );
    assert!(
        span.attributes
            .as_ref()
            .unwrap()
            .contains(r#""log.meta.logid":"4d1f""#)
    );
}

#[test]
fn lines_that_only_look_like_a_span_are_given_back() {
    let config = "{\n  \"a\": 1\n}\n";
    assert_eq!(messages(&parse(&logged(config))), ["{", "  \"a\": 1", "}"]);
    let interrupted = "{\n  \"a\": 1,\nError: no\n}\n";
    let parsed = parse(&logged(interrupted));
    assert_eq!(messages(&parsed), ["{", "  \"a\": 1,", "Error: no", "}"]);
    let offsets: Vec<u64> = parsed.records.iter().map(|r| line(r).offset).collect();
    assert!(offsets.is_sorted() && offsets[0] == 0 && offsets[1] > 0);
    // Two objects, the first without an end; and one that is too long.
    let twice = format!("{{\n  \"a\": 1\n{PRETTY}");
    assert_eq!(
        messages(&parse(&logged(&twice))),
        ["{", "  \"a\": 1", "Balance checked"]
    );
    let long = format!("{{\n{}}}\n", "  \"k\": 1,\n".repeat(500));
    assert_eq!(parse(&logged(&long)).records.len(), 502);
    // A record in between is still a record.
    let record = "{\n  \"a\": 1\n{\"scriptscope\":\"runner.stopped\"}\n";
    assert_eq!(messages(&parse(&logged(record))), ["{", "  \"a\": 1"]);
}

#[test]
fn the_end_of_a_container_ends_its_lines() {
    let unfinished = b"2025-05-14T06:07:28Z stdout P no newline\n2025-05-14T06:07:28Z stderr P nor here\n";
    let before = parse(unfinished);
    assert!(before.records.is_empty() && !before.carry.is_empty());
    let parsed = parse_chunks(&[unfinished, b"\n"]);
    assert_eq!(messages(&parsed), ["no newline", "nor here"]);
    assert_eq!(line(&parsed.records[1]).level, LogLevel::Stderr);
    let held = parse_chunks(&[&logged("{\n  \"a\": 1"), b"\n"]);
    assert_eq!(messages(&held), ["{", "  \"a\": 1"]);
}

#[test]
fn lost_bytes_end_what_was_before_them() {
    let mut parser = Parser::resume(b"", 0, received()).unwrap();
    parser.feed(&Bytes::from_static(b"2025-05-14T06:07:28Z stdout P half\n"));
    parser.skip_to(1000);
    parser.feed(&Bytes::from_static(b"2025-05-14T06:07:29Z stdout F whole\n"));
    let records: Vec<Record> = parser.finish().records.into_iter().collect();
    let lines: Vec<_> = records
        .iter()
        .map(|r| (line(r).offset, &*line(r).message))
        .collect();
    assert_eq!(lines, [(0, "half"), (1000, "whole")]);
}

#[test]
fn a_line_without_end_is_cut_where_memory_ends() {
    let piece = [
        &b"2025-05-14T06:07:28Z stdout P "[..],
        &vec![b'x'; 1 << 20],
        b"\n",
    ]
    .concat();
    let last = b"2025-05-14T06:07:28Z stdout F end\n2025-05-14T06:07:28Z stdout F next\n";
    let parsed = parse_chunks(&[&piece, &piece, &piece, last]);
    let [long, next] = &parsed.records[..] else {
        panic!("two lines")
    };
    let message = &line(long).message;
    assert!(message.ends_with("x [cut: 1048579 bytes]"));
    assert!(message.len() < assemble::MAX_LINE + 40);
    assert_eq!(line(next).message, "next");
    assert!(parse_chunks(&[&piece[..]; 5]).carry.len() < assemble::MAX_LINE + 100);
}

#[test]
fn hostile_json_costs_only_its_own_line() {
    let deep = "[".repeat(10_000);
    let closed = format!("{deep}{}", "]".repeat(10_000));
    let hostile = [
        format!(r#"{{"scriptscope":"run.started","run_id":{deep}"#),
        format!(r#"{{"scriptscope":{closed}}}"#),
        format!(r#"{{"log.message":{closed},"attributes":{{}}}}"#),
        r#"{"scriptscope":"run.started","time":"2025-05-14T06:07:27Z","run_id":"","function":"f"}"#.to_owned(),
        r#"{"scriptscope":"run.finished","time":"2025-05-14T06:07:27Z","run_id":"r","status":"Success","duration_us":-1}"#.to_owned(),
        r#"{"scriptscope":"run.output","run_id":"r","stream":"stdin","lines":[]}"#.to_owned(),
        r#"{"scriptscope":"run.vanished"}"#.to_owned(),
        r#"{"scriptscope":7}"#.to_owned(),
        r#"{"attributes":{"log.message":7,"log.level":"INFO"}}"#.to_owned(),
    ];
    for text in hostile {
        let parsed = parse(&logged(&format!("{text}\nnext")));
        assert_eq!(messages(&parsed), [&*text, "next"]);
    }
    // A run whose payload nobody could read is still a run.
    let run = format!(
        r#"{{"scriptscope":"run.started","time":"2025-05-14T06:07:27Z","run_id":"{}","function":"a\u0000b","input":{closed}}}"#,
        "r".repeat(500)
    );
    let parsed = parse(&logged(&run));
    let [Record::RunStarted(run)] = &parsed.records[..] else {
        panic!("one run")
    };
    assert!(run.input.as_ref().unwrap().get().contains("cut"));
    assert_eq!((run.run_id.len(), &*run.function), (128, "a\u{FFFD}b"));
}

#[test]
fn times_that_make_no_sense_give_way_to_the_runtimes() {
    let span = |time: &str| {
        format!(r#"{{"name":"gvisor_error_log","start_time":"{time}","attributes":{{"log.message":"m"}}}}"#)
    };
    let printed: Timestamp = "2025-05-14T06:07:28Z".parse().unwrap();
    for time in ["9999-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "soon"] {
        let parsed = parse(&logged(&span(time)));
        assert_eq!(line(&parsed.records[0]).time, printed, "{time}");
        assert_eq!(line(&parsed.records[0]).level, LogLevel::Error);
    }
}

#[test]
fn text_is_kept_as_it_was_printed() {
    let odd = b"2025-05-14T06:07:28Z stdout F a\0b\xffc\r\n2025-05-14T06:07:28Z stdout F   x  \n";
    assert_eq!(messages(&parse(odd)), ["a\0b\u{FFFD}c", "  x  "]);
}

#[test]
fn no_bytes_make_it_panic_or_depend_on_chunks() {
    let mut random = fastrand::Rng::with_seed(42);
    let seed = [SCRIPT, &logged(PRETTY)].concat();
    for round in 0..400 {
        let mut input = seed.clone();
        for _ in 0..random.usize(1..40) {
            let at = random.usize(..input.len());
            match random.u8(..4) {
                0 => input[at] = random.u8(..),
                1 => drop(input.drain(at..(at + random.usize(..30)).min(input.len()))),
                2 => input.insert(at, random.choice(*b"\n\0{}[]\"\\\xff P").unwrap()),
                _ => {
                    let piece = input[at..(at + random.usize(..200)).min(input.len())].to_vec();
                    let to = random.usize(..input.len());
                    input.splice(to..to, piece);
                }
            }
        }
        let whole = parse(&input);
        let cuts: Vec<usize> = memchr::memchr_iter(b'\n', &input).map(|at| at + 1).collect();
        let cut = cuts[random.usize(..cuts.len())];
        let halves = parse_chunks(&[&input[..cut], &input[cut..]]);
        assert_eq!(
            format!("{:?}{:?}", whole.records, whole.carry),
            format!("{:?}{:?}", halves.records, halves.carry),
            "round {round}"
        );
    }
}

#[test]
fn output_without_a_run_belongs_to_none_and_is_never_a_record_itself() {
    let forged = r#"{\"scriptscope\":\"run.started\",\"run_id\":\"x\"}"#;
    let record = format!(
        r#"{{"scriptscope":"run.output","stream":"stdout","lines":[["2025-05-14T06:07:27Z","{forged}"]]}}"#
    );
    let parsed = parse(&logged(&record));
    assert_eq!(
        messages(&parsed),
        [r#"{"scriptscope":"run.started","run_id":"x"}"#]
    );
    assert_eq!(line(&parsed.records[0]).run_id, None);
    assert_eq!(line(&parsed.records[0]).level, LogLevel::Stdout);
}

#[test]
fn where_a_runner_writes_no_print_is_taken_for_an_echo() {
    let span = r#"{"name":"gvisor_info_log","attributes":{"log.message":"ready","log.level":"INFO"}}"#;
    let printed = format!("{span}\nINFO :: ready\n");
    assert_eq!(messages(&parse(&logged(&printed))), ["ready"]);
    let runner = r#"{"scriptscope":"runner.started","time":"2025-05-14T06:07:27Z"}"#;
    let relayed = logged(&format!("{runner}\n{printed}"));
    assert_eq!(messages(&parse(&relayed)), ["ready", "INFO :: ready"]);
    // That is remembered.
    let first = memchr::memchr(b'\n', &relayed).unwrap() + 1;
    let cut = parse_chunks(&[&relayed[..first], &relayed[first..]]);
    assert_eq!(messages(&cut), ["ready", "INFO :: ready"]);
}

fn spanned(message: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"name":"gvisor_error_log","attributes":{{"log.message":{message},"log.level":"ERROR"}}}}"#)
}

#[test]
fn an_echo_of_several_lines_is_one_line_with_its_span() {
    let span = spanned("boom\n  at x\n\n{\nlast\n");
    let echo = "ERROR :: boom\n  at x\n\n{\nlast\n";
    let printed = logged(&format!("{span}\n{echo}\nafter\n"));
    assert_eq!(messages(&parse(&printed)), ["boom\n  at x\n\n{\nlast", "after"]);
    // Wherever the stream is cut.
    for (at, _) in printed.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let cut = parse_chunks(&[&printed[..=at], &printed[at + 1..]]);
        assert_eq!(messages(&cut).len(), 2, "{at}");
    }
    // As Windows ends lines.
    let printed = logged(&format!("{}\nERROR :: a\r\nb\r\n", spanned("a\r\nb")));
    assert_eq!(messages(&parse(&printed)).len(), 1);
}

#[test]
fn what_only_begins_like_an_echo_is_the_scripts_own() {
    let span = spanned("boom\nat x");
    let other = logged(&format!("{span}\nERROR :: boom\nat y\n"));
    assert_eq!(messages(&parse(&other)), ["boom\nat x", "ERROR :: boom", "at y"]);
    // The echo still comes.
    let later = logged(&format!("{span}\nERROR :: boom\nERROR :: boom\nat x\nat x\n"));
    assert_eq!(messages(&parse(&later)), ["boom\nat x", "ERROR :: boom", "at x"]);
    // It never ends: by a record, another span, the end of the stream.
    let record = r#"{"scriptscope":"run.finished","time":"2025-05-14T06:07:28Z","run_id":"r","status":"Success","duration_us":1}"#;
    let parsed = parse(&logged(&format!("{span}\nERROR :: boom\n{record}\n")));
    assert!(
        matches!(&parsed.records[..], [Record::Line(_), Record::Line(own), Record::RunFinished(_)]
        if own.message == "ERROR :: boom")
    );
    let mut ended = logged(&format!("{span}\nERROR :: boom\n"));
    ended.push(b'\n');
    assert_eq!(messages(&parse(&ended)), ["boom\nat x", "ERROR :: boom"]);
    // What stands in a file until then is not taken for stored.
    let mut parser = Parser::new(0, received());
    let open = logged(&format!("{span}\nERROR :: boom\n"));
    parser.feed(&Bytes::from(open.clone()));
    let first = memchr::memchr(b'\n', &open).unwrap() as u64 + 1;
    assert_eq!(unfinished_from(&parser.finish().carry).unwrap(), Some(first));
}

#[test]
fn the_longest_messages_are_not_held_back() {
    let long = "x\n".repeat(300);
    let printed = logged(&format!("{}\nERROR :: {long}", spanned(long.trim_end())));
    assert_eq!(messages(&parse(&printed)).len(), 301);
}

#[test]
fn what_a_span_says_beyond_its_message_is_kept() {
    let span = |attributes: &str| {
        let text = format!(r#"{{"name":"gvisor_debug_log","attributes":{{{attributes}}},"kind":7}}"#);
        let parsed = parse(&logged(&text));
        let [Record::Line(line)] = &parsed.records[..] else {
            panic!("one line")
        };
        line.clone()
    };
    let odd =
        span(r#""a b":[1, {"c":null}],"log.message":"x\u0000\"y\n","run_id":"r\u00001","\u0064":"\u0000""#);
    assert_eq!((odd.level, &*odd.message), (LogLevel::Debug, "x\0\"y"));
    assert_eq!(odd.run_id.as_deref(), Some("r\u{FFFD}1"));
    let attributes = odd.attributes.unwrap();
    assert_eq!(attributes, r#"{"a b":[1, {"c":null}],"\u0064":"\u0000"}"#);
    // An empty id is none; what is nested too deeply is left out, and costs the line nothing.
    let none = span(r#""log.message":"m","run_id":"""#);
    assert_eq!(
        (none.run_id, none.attributes.as_deref()),
        (None, Some(r#"{"run_id":""}"#))
    );
    let deep = format!(r#""log.message":"m","d":{}{}"#, "[".repeat(120), "]".repeat(120));
    assert_eq!(span(&deep).attributes, None);
    assert_eq!(span(r#""log.message":"m""#).attributes, None);
}

#[test]
fn a_span_with_bytes_that_are_no_text_is_still_a_span() {
    let mut printed = logged(r#"{"name":"gvisor_info_log","attributes":{"log.message":"a?b","k":"\ud83d"}}"#);
    let at = memchr::memchr(b'?', &printed).unwrap();
    printed[at] = 0xff;
    let parsed = parse(&printed);
    assert_eq!(messages(&parsed), ["a\u{FFFD}b"]);
    assert_eq!(
        line(&parsed.records[0]).attributes.as_deref(),
        Some(r#"{"k":"\ufffd"}"#)
    );
}

#[test]
fn a_runner_that_stops_says_its_token_beside_the_records() {
    let stopped = |token: &str| {
        let text =
            format!("{{\"scriptscope\":\"runner.stopped\",\"time\":\"2025-05-14T06:07:28Z\"{token}}}\n");
        let mut parser = Parser::new(0, received());
        parser.feed(&Bytes::from(logged(&text)));
        let parsed = parser.finish();
        assert_eq!(parsed.records.lines.len(), 0, "{text}");
        parsed.records.stopped.map(|stopped| stopped.token)
    };
    assert_eq!(stopped(",\"token\":\"0123abcd\"").as_deref(), Some("0123abcd"));
    assert_eq!(stopped("").as_deref(), Some(""));
}

/// What the SDK of OpenTelemetry prints; `tests/fixtures/otel/make.py` says how the files were made.
#[test]
fn what_the_real_console_exporter_prints_is_read() {
    let pretty = include_str!("../../../tests/fixtures/otel/spans.pretty.log");
    let one_line = include_str!("../../../tests/fixtures/otel/spans.line.log");
    assert!(pretty.lines().count() > 100 && one_line.lines().count() < 20);
    for text in [pretty, one_line] {
        let parsed = parse(&logged(text));
        let lines: Vec<&NewLine> = parsed.records.iter().map(line).collect();
        let (in_run, others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|l| l.run_id.is_some());
        let found: Vec<_> = in_run.iter().map(|l| (l.level, &*l.message)).collect();
        assert_eq!(
            found,
            [
                (LogLevel::Info, "Balance checked"),
                (LogLevel::Debug, "quotes \" and \\ and a } and a {"),
                (LogLevel::Warning, "caf\u{e9} \u{1f600}\ttab"),
                (LogLevel::Error, "two\nlines"),
            ]
        );
        for (number, line) in in_run.iter().enumerate() {
            assert_eq!(line.run_id.as_deref(), Some("run_12345"));
            let time = format!("2025-05-14T06:07:27.{}Z", 238_927 + 1000 * number);
            assert_eq!(line.time, time.parse().unwrap());
            let attributes: serde_json::Value =
                serde_json::from_str(line.attributes.as_deref().unwrap()).unwrap();
            assert_eq!(attributes["log.meta.logid"], format!("4d1f{number}"));
        }
        let more: serde_json::Value = serde_json::from_str(in_run[1].attributes.as_deref().unwrap()).unwrap();
        assert_eq!(
            (&more["tags"], &more["ratio"], &more["ok"], &more["count"]),
            (&["a", "b"].into(), &0.5.into(), &true.into(), &3.into())
        );
        // No echo is stored, of one line or several. A span that is no log line is what the script has printed.
        let texts: Vec<_> = others.iter().map(|l| &*l.message).collect();
        assert_eq!((texts[0], texts[texts.len() - 1]), ("before", "after"));
        assert!(
            texts
                .iter()
                .all(|text| !text.contains(" :: ") && *text != "lines"),
            "{texts:?}"
        );
        assert!(texts.iter().any(|text| text.contains("\"request\"")), "{texts:?}");
    }
}
