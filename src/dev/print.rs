//! What `dev` shows in the terminal.

use std::{collections::HashMap, thread};

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cli::output::{Out, colour_of, plain, plain_lines},
    ingest::record::{NewLine, Record, RunFinished},
    model::RunError,
    operator::custom_script::display::duration,
};

/// Texts on their way to a terminal that is slow.
const QUEUE: usize = 256;
/// Runs whose functions are remembered until they end.
const MAX_RUNS: usize = 10_000;

enum Job {
    Text(String),
    Flush(oneshot::Sender<()>),
}

/// Standard output. A terminal that takes nothing holds up whoever prints, and nobody else.
#[derive(Clone, Debug)]
pub struct Printer {
    jobs: mpsc::Sender<Job>,
    paint: Paint,
}

/// Whether there are colours, and whose clock times are shown by.
#[derive(Clone, Debug)]
pub struct Paint {
    colours: bool,
    zone: TimeZone,
}

impl Printer {
    /// Starts the thread that writes.
    pub fn start() -> Self {
        let (sender, mut jobs) = mpsc::channel(QUEUE);
        let mut out = Out::default();
        let paint = Paint {
            colours: out.colours(),
            zone: TimeZone::system(),
        };
        thread::spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                match job {
                    // Nobody may read it any more; the runs are stored all the same.
                    Job::Text(text) => drop(out.text(&text)),
                    Job::Flush(done) => drop(done.send(())),
                }
            }
        });
        Self { jobs: sender, paint }
    }

    /// How to paint.
    pub fn paint(&self) -> &Paint {
        &self.paint
    }

    /// Prints lines, which must have been made harmless.
    pub async fn say(&self, text: String) {
        // An error means that the thread has ended, with the process.
        let _ = self.jobs.send(Job::Text(text)).await;
    }

    /// Prints what is known of a failure, in red.
    pub async fn problem(&self, text: &str) {
        let text = self.paint.coloured(&plain_lines(text), Some(AnsiColor::Red));
        self.say(text).await;
    }

    /// Prints what is of less interest.
    pub async fn aside(&self, text: &str) {
        let text = self
            .paint
            .coloured(&plain_lines(text), Some(AnsiColor::BrightBlack));
        self.say(text).await;
    }

    /// Waits until everything is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.jobs.send(Job::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

impl Paint {
    /// A text in a colour, where there are colours.
    pub fn coloured(&self, text: &str, colour: Option<AnsiColor>) -> String {
        match colour.filter(|_| self.colours) {
            Some(colour) => {
                let style = Style::new().fg_color(Some(colour.into()));
                format!("{style}{text}{style:#}")
            }
            None => text.to_owned(),
        }
    }

    fn time(&self, time: Timestamp) -> String {
        let clock = time
            .to_zoned(self.zone.clone())
            .strftime("%H:%M:%S%.3f")
            .to_string();
        self.coloured(&clock, Some(AnsiColor::BrightBlack))
    }

    /// A line that a script printed: when, level, message.
    fn line(&self, line: &NewLine) -> String {
        let level = line.level.as_str();
        format!(
            "{}  {}  {}",
            self.time(line.time),
            self.coloured(&format!("{level:<7}"), colour_of(level)),
            plain(&line.message)
        )
    }

    /// A run that has ended: when, status, function, version, how long, id, the error's first line.
    fn run(&self, run: &RunFinished, function: &str, version: i64) -> String {
        let status = run.status.as_str();
        let mut text = format!(
            "{}  {}  {}  v{version}  {}  {}",
            self.time(run.time),
            self.coloured(&format!("{status:<7}"), colour_of(status)),
            plain(function),
            duration(run.duration_micros),
            self.coloured(&plain(&run.run_id), Some(AnsiColor::BrightBlack)),
        );
        if let Some(error) = &run.error {
            text.push_str("  ");
            text.push_str(&self.coloured(&plain(&first_line(error)), colour_of(status)));
        }
        text
    }
}

fn first_line(error: &RunError) -> String {
    let what = error.kind.as_ref().unwrap_or(&error.reason);
    let message = error.message.lines().next().unwrap_or_default();
    format!("{what}: {message}")
}

/// Shows the records of one version in the order in which they are stored.
#[derive(Debug)]
pub struct Teller {
    version: i64,
    functions: HashMap<String, String>,
}

impl Teller {
    /// Of this version.
    pub fn new(version: i64) -> Self {
        Self {
            version,
            functions: HashMap::new(),
        }
    }

    /// The lines for these records; empty where there is nothing to show.
    pub fn tell(&mut self, records: impl IntoIterator<Item = Record>, paint: &Paint) -> String {
        let mut lines = Vec::new();
        for record in records {
            match record {
                Record::RunStarted(run) => {
                    if self.functions.len() >= MAX_RUNS {
                        self.functions.clear();
                    }
                    self.functions.insert(run.run_id, run.function);
                }
                Record::RunFinished(run) => {
                    let function = self.functions.remove(&run.run_id).unwrap_or_default();
                    lines.push(paint.run(&run, &function, self.version));
                }
                Record::Line(line) => lines.push(paint.line(&line)),
                Record::RunnerStopped(_) => {}
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogLevel, RunStatus};

    fn paint(colours: bool) -> Paint {
        Paint {
            colours,
            zone: TimeZone::UTC,
        }
    }

    fn finished() -> Record {
        Record::RunFinished(RunFinished {
            run_id: "run_1".into(),
            time: "2026-01-02T03:04:05.0061Z".parse().unwrap(),
            status: RunStatus::Failed,
            duration_micros: 12_345,
            output: None,
            output_truncated: false,
            error: Some(RunError {
                reason: "Exception".into(),
                kind: Some("ValueError".into()),
                message: "no\u{1b}[2J such account\nsecond".into(),
                traceback: None,
            }),
        })
    }

    fn started() -> Record {
        Record::RunStarted(crate::ingest::record::RunStarted {
            run_id: "run_1".into(),
            time: Timestamp::UNIX_EPOCH,
            function: "greet".into(),
            source_type: crate::model::SourceType::Api,
            source: String::new(),
            traceparent: None,
            input: None,
            input_truncated: false,
        })
    }

    #[test]
    fn a_run_is_one_line_that_does_nothing_to_a_terminal() {
        let text = Teller::new(3).tell([started(), finished()], &paint(false));
        assert_eq!(
            text,
            "03:04:05.006  Failed   greet  v3  12.3 ms  run_1  ValueError: no\\u{1b}[2J such account"
        );
    }

    #[test]
    fn a_line_has_the_colour_of_its_level() {
        let line = NewLine {
            offset: 0,
            index: 0,
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            level: LogLevel::Warning,
            run_id: None,
            message: "low\tbalance\u{7}".into(),
            attributes: None,
        };
        let mut teller = Teller::new(1);
        let mut tell = |paint: &Paint| teller.tell([Record::Line(line.clone())], paint);
        assert_eq!(tell(&paint(false)), "03:04:05.000  Warning  low\tbalance\\u{7}");
        assert!(tell(&paint(true)).contains("\u{1b}[33mWarning\u{1b}[0m"));
    }
}
