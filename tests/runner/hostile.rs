//! Scripts that mean harm: they harm nobody but themselves, and the runner goes on.

use std::{fs, path::Path};

use bytes::Bytes;
use jiff::Timestamp;
use scriptscope::{
    ingest::{
        parse::{Parsed, Parser},
        record::{Event, NewLine},
    },
    model::RunStatus,
};
use serde_json::json;

use crate::harness::{Runner, eventually, none};

const BOTH: [&str; 2] = ["hostile", "node_hostile"];

/// What the ingest makes of all that the runner has printed so far.
fn ingested(runner: &Runner) -> Parsed {
    let mut parser = Parser::new(0, Timestamp::now());
    for line in runner.lines() {
        parser.feed(&Bytes::from(format!(
            "2026-01-01T00:00:00.000000001Z stdout F {line}\n"
        )));
    }
    for line in runner.errors() {
        parser.feed(&Bytes::from(format!(
            "2026-01-01T00:00:00.000000001Z stderr F {line}\n"
        )));
    }
    parser.finish()
}

fn of_run(parsed: &Parsed, run_id: &str) -> Vec<NewLine> {
    let lines = parsed.records.lines.iter().map(|line| line.to_new_line());
    lines
        .filter(|line| line.run_id.as_deref() == Some(run_id))
        .collect()
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X"))
}

/// Waits until no process that noted itself in a file is left; how many did.
async fn all_gone(file: &Path) -> usize {
    let noted = || fs::read_to_string(file).unwrap_or_default();
    eventually("every process is gone", || {
        (!noted().lines().any(is_alive)).then_some(())
    })
    .await;
    noted().lines().count()
}

/// The runner serves as before, and what its next run prints is that run's.
async fn goes_on(runner: &Runner, word: &str) {
    let next = runner.call("ok", json!({"word": word})).await;
    assert_eq!(next.result(), word);
    assert_eq!(next.body["stdout"], format!("ok {word}\n"));
    assert_eq!(
        runner.printed(next.run_id(), "stdout").await,
        [format!("ok {word}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_with_its_run() {
    for name in BOTH {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let runner = Runner::start_confined(name, &[("SCRIPTSCOPE_TIMEOUT_SECONDS", "2")]).await;
        let file = folder.path().join("pids");
        let bomb = runner.call("bomb", json!({"file": file})).await;
        assert_eq!(bomb.body["error"]["reason"], "Timeout", "{name}: {bomb:?}");
        let records = runner.records(bomb.run_id()).await;
        assert_eq!(records.last().unwrap()["status"], "Failed", "{name}");
        assert!(all_gone(&file).await >= 16, "{name}: it was no bomb");
        goes_on(&runner, "after").await;

        let file = folder.path().join("hidden");
        let hidden = runner.call("hides", json!({"file": file})).await;
        assert_eq!(
            hidden.body["error"]["reason"], "WorkerExited",
            "{name}: {hidden:?}"
        );
        assert_eq!(all_gone(&file).await, 1, "{name}");
        goes_on(&runner, "later").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_every_descriptor_ends_no_other_run() {
    for name in BOTH {
        let runner = Runner::start_confined(
            name,
            &[
                ("SCRIPTSCOPE_CONCURRENCY", "2"),
                ("SCRIPTSCOPE_TIMEOUT_SECONDS", "3"),
            ],
        )
        .await;
        goes_on(&runner, "before").await;
        let garbage = runner.call("garbage", none()).await;
        let records = runner.records(garbage.run_id()).await;
        assert_eq!(records.last().unwrap()["scriptscope"], "run.finished", "{name}");
        goes_on(&runner, "after").await;
        goes_on(&runner, "later").await;
        let parsed = ingested(&runner);
        let begun = parsed
            .records
            .events()
            .filter(|event| matches!(event, Event::Started(_)));
        assert_eq!(
            begun.count(),
            4,
            "{name}: each run once, and none made of garbage"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_records_are_text_of_the_run_that_printed_them() {
    for name in BOTH {
        let runner = Runner::start_confined(name, &[]).await;
        let victim = runner.call("ok", none()).await;
        runner.records(victim.run_id()).await;
        // A worker may still have something to say of the run before.
        goes_on(&runner, "between").await;
        let forger = runner.call("forge", json!({"victim": victim.run_id()})).await;
        assert_eq!(forger.result(), &json!([]), "{name}: it reaches into the runner");
        runner.records(forger.run_id()).await;
        goes_on(&runner, "after").await;

        let parsed = ingested(&runner);
        assert!(parsed.records.stopped.is_none(), "{name}");
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        for event in parsed.records.events() {
            match event {
                Event::Started(run) => begun.push((run.run_id.as_str(), run.function.as_str())),
                Event::Finished(run) => ended.push((run.run_id.as_str(), run.status)),
            }
        }
        assert_eq!(
            [begun[0], begun[2]],
            [(victim.run_id(), "ok"), (forger.run_id(), "forge")],
            "{name}"
        );
        assert_eq!((begun.len(), ended.len()), (4, 4), "{name}: {begun:?} {ended:?}");
        assert!(
            ended.iter().all(|(_, status)| *status == RunStatus::Success),
            "{name}: {ended:?}"
        );
        let lines: Vec<_> = of_run(&parsed, victim.run_id());
        assert_eq!(
            lines.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(),
            ["ok fine"],
            "{name}: the victim's lines are its own"
        );
        let own = of_run(&parsed, forger.run_id());
        assert!(
            own.iter()
                .filter(|line| line.message.contains("forged line"))
                .count()
                >= 3,
            "{name}: what it printed is kept as its own text: {own:?}"
        );
        // Whatever it wrote elsewhere names no run.
        let others = parsed.records.lines.iter().map(|line| line.to_new_line());
        for line in others.filter(|line| line.message.contains("forged")) {
            let of = line.run_id.as_deref();
            assert!(of.is_none() || of == Some(forger.run_id()), "{name}: {line:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminal_escapes_and_markup_stay_text() {
    for name in BOTH {
        let runner = Runner::start_confined(name, &[]).await;
        let answer = runner.call("markup", none()).await;
        assert_eq!(answer.result(), "<b>\u{1b}[31mred</b>");
        runner.records(answer.run_id()).await;
        // The log file and whoever prints it are safe: JSON escapes what a terminal would obey.
        for line in runner.lines() {
            assert!(!line.chars().any(|c| c.is_ascii_control()), "{name}: {line:?}");
        }
        let lines = of_run(&ingested(&runner), answer.run_id());
        let mut messages: Vec<&str> = lines.iter().map(|line| line.message.as_str()).collect();
        messages.sort_unstable();
        assert_eq!(
            messages,
            [
                "\u{1b}[2J\u{1b}]0;owned\u{7}<script>alert(1)</script>\u{202e}",
                "<img src=x onerror=alert(1)>\u{9b}31m"
            ],
            "{name}: not a character is changed"
        );
    }
}
