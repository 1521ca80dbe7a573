//! A pod of a script as kubelet and the runtime treat it, and what it has printed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use fastrand::Rng;
use flate2::{Compression, write::GzEncoder};
use jiff::{SignedDuration, Timestamp};
use scriptscope::model::{LogLevel, RunStatus};

use crate::testbed;

/// The most bytes of a line in one entry of the runtime.
pub const ENTRY: usize = 16 << 10;

/// A line as it must be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub level: LogLevel,
    pub message: String,
    pub run_id: Option<String>,
}

/// What one container printed between two restarts, in the order of the lines' beginnings.
#[derive(Default)]
pub struct Printed {
    pub lines: Vec<Line>,
}

/// Which of the two outputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// A line of which not all entries are written.
struct Pending {
    /// Place of its line in what is printed.
    place: usize,
    written: Vec<u8>,
    rest: Vec<u8>,
}

/// What kubelet is told to do with logs, and how the pod behaves.
#[derive(Clone, Copy)]
pub struct Habits {
    /// Files kept of a container, with the one being written.
    pub files: usize,
    /// Only short lines of one entry each.
    pub simple: bool,
    /// The node's clock jumps.
    pub clock_steps: bool,
}

pub struct Pod {
    pub bed: testbed::Pod,
    pub printed: Vec<Printed>,
    pub runs: BTreeMap<String, RunStatus>,
    pub rotations: u32,
    habits: Habits,
    folder: PathBuf,
    file: File,
    pending: [Option<Pending>; 2],
    clock: Timestamp,
    sequence: u64,
    open_runs: Vec<String>,
}

impl Pod {
    pub fn start(logs: &Path, bed: testbed::Pod, habits: Habits) -> io::Result<Self> {
        let folder = logs.join(bed.folder());
        fs::create_dir_all(&folder)?;
        Ok(Self {
            file: File::create(folder.join("0.log"))?,
            bed,
            printed: vec![Printed::default()],
            runs: BTreeMap::new(),
            rotations: 0,
            habits,
            folder,
            pending: [None, None],
            clock: Timestamp::now(),
            sequence: 0,
            open_runs: Vec::new(),
        })
    }

    /// How many times its container was restarted.
    pub fn restarts(&self) -> usize {
        self.printed.len() - 1
    }

    /// The file being written.
    pub fn current(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.restarts()))
    }

    /// Whether the next rotation removes a file.
    pub fn is_full(&self) -> bool {
        self.rotations as usize + 2 > self.habits.files
    }

    // --- printing

    fn tick(&mut self, random: &mut Rng) -> Timestamp {
        let step = if self.habits.clock_steps && random.u8(..20) == 0 {
            SignedDuration::from_secs(random.i64(-90_000..90_000))
        } else {
            SignedDuration::from_nanos(random.i64(1..3_000_000))
        };
        self.clock = self.clock.checked_add(step).unwrap_or(self.clock);
        self.clock
    }

    fn entry(&mut self, output: Output, partial: bool, text: &[u8], random: &mut Rng) -> io::Result<()> {
        let time = self.tick(random);
        let output = match output {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        };
        let tag = if partial { 'P' } else { 'F' };
        let mut entry = format!("{time:.9} {output} {tag} ").into_bytes();
        entry.extend_from_slice(text);
        entry.push(b'\n');
        if random.u8(..8) == 0 {
            // A reader may look in between.
            let (head, tail) = entry.split_at(random.usize(..entry.len()));
            self.file.write_all(head)?;
            return self.file.write_all(tail);
        }
        self.file.write_all(&entry)
    }

    fn expect(&mut self, level: LogLevel, message: String, run_id: Option<&str>) -> usize {
        let run_id = run_id.map(str::to_owned);
        let lines = &mut self.printed.last_mut().expect("a container").lines;
        lines.push(Line {
            level,
            message,
            run_id,
        });
        lines.len() - 1
    }

    /// Begins a line of text; short ones are complete at once.
    fn begin(&mut self, output: Output, text: Vec<u8>, random: &mut Rng) -> io::Result<()> {
        self.finish(output, random)?;
        let level = match output {
            Output::Stdout => LogLevel::Stdout,
            Output::Stderr => LogLevel::Stderr,
        };
        let place = self.expect(level, String::new(), None);
        self.pending[output as usize] = Some(Pending {
            place,
            written: Vec::new(),
            rest: text,
        });
        self.go_on(output, random)
    }

    /// Writes the next entry of the line that is under way.
    fn go_on(&mut self, output: Output, random: &mut Rng) -> io::Result<()> {
        let Some(mut line) = self.pending[output as usize].take() else {
            return Ok(());
        };
        let count = match line.rest.len() {
            length if length >= ENTRY => ENTRY,
            // Short lines come in pieces too, where the container writes them so slowly that the runtime flushes.
            length if length > 1 && !self.habits.simple && random.u8(..30) == 0 => random.usize(1..length),
            length => length,
        };
        let rest = line.rest.split_off(count);
        // Runtimes differ in whether a full entry ends the line or an empty one behind it does.
        let partial = !rest.is_empty() || (count == ENTRY && random.bool());
        let piece = std::mem::replace(&mut line.rest, rest);
        self.entry(output, partial, &piece, random)?;
        line.written.extend_from_slice(&piece);
        self.settle(&line);
        if partial {
            self.pending[output as usize] = Some(line);
        }
        Ok(())
    }

    /// What is written of a line is what must be stored should nothing follow.
    fn settle(&mut self, line: &Pending) {
        let text = line.written.strip_suffix(b"\r").unwrap_or(&line.written);
        let lines = &mut self.printed.last_mut().expect("a container").lines;
        lines[line.place].message = String::from_utf8_lossy(text).into_owned();
    }

    fn finish(&mut self, output: Output, random: &mut Rng) -> io::Result<()> {
        while self.pending[output as usize].is_some() {
            self.go_on(output, random)?;
        }
        Ok(())
    }

    /// Completes every line.
    pub fn complete(&mut self, random: &mut Rng) -> io::Result<()> {
        self.finish(Output::Stdout, random)?;
        self.finish(Output::Stderr, random)
    }

    /// Prints something.
    pub fn print(&mut self, random: &mut Rng) -> io::Result<()> {
        if !self.habits.simple {
            for output in [Output::Stdout, Output::Stderr] {
                if self.pending[output as usize].is_some() && random.bool() {
                    self.go_on(output, random)?;
                }
            }
            match random.u8(..20) {
                0..3 => return self.run(random),
                3 => return self.span(random, false),
                4 => return self.span(random, true),
                _ => {}
            }
        }
        let output = if random.u8(..4) == 0 {
            Output::Stderr
        } else {
            Output::Stdout
        };
        let text = self.text(output, random);
        self.begin(output, text, random)
    }

    /// `<pod> <output> <sequence> <checksum> <payload>`, or what is too short for that.
    fn text(&mut self, output: Output, random: &mut Rng) -> Vec<u8> {
        self.sequence += 1;
        let length = match random.u16(..1_000) {
            _ if self.habits.simple => random.usize(1..120),
            0..60 => return Vec::new(),
            60..90 => return vec![random.u8(b'a'..=b'z')],
            90..120 => random.usize(ENTRY - 1..=ENTRY + 1),
            120..130 => random.usize(ENTRY..100_000),
            130 => 1 << 20,
            131..250 => random.usize(200..3_000),
            _ => random.usize(1..200),
        };
        let is_text = self.habits.simple || random.bool();
        let payload: Vec<u8> = if is_text {
            (0..length).map(|_| random.u8(b'0'..=b'z')).collect()
        } else {
            // Anything but a line end: invalid UTF-8, NUL, carriage returns.
            std::iter::repeat_with(|| random.u8(..))
                .filter(|b| *b != b'\n')
                .take(length)
                .collect()
        };
        let mut sum = flate2::Crc::new();
        sum.update(&payload);
        let output = if output == Output::Stdout { "out" } else { "err" };
        let mut text = format!("{} {output} {} {:08x} ", self.bed.uid, self.sequence, sum.sum()).into_bytes();
        text.extend(payload);
        if (90..120).contains(&length) || random.u8(..10) == 0 {
            text.push(b'\r');
        }
        if matches!(length, 16_383..=16_385) {
            // The whole line has that length, not its payload.
            text.truncate(length);
        }
        text
    }

    /// A line on standard output that is complete at once.
    fn object(&mut self, text: &str, random: &mut Rng) -> io::Result<()> {
        self.finish(Output::Stdout, random)?;
        self.entry(Output::Stdout, false, text.as_bytes(), random)
    }

    /// A record of the runner: a run begins, prints or ends.
    fn run(&mut self, random: &mut Rng) -> io::Result<()> {
        let time = self.clock;
        if self.open_runs.is_empty() || random.u8(..3) == 0 {
            self.sequence += 1;
            let id = format!("run-{}-{}", self.bed.uid, self.sequence);
            self.object(
                &format!(
                    r#"{{"scriptscope":"run.started","time":"{time}","run_id":"{id}","deployment_id":"d","version":1,"function":"check","source":"billing","source_type":"API","input":{{"n":{}}}}}"#,
                    self.sequence
                ),
                random,
            )?;
            self.runs.insert(id.clone(), RunStatus::InProgress);
            self.open_runs.push(id);
            return Ok(());
        }
        let at = random.usize(..self.open_runs.len());
        if random.bool() {
            let id = self.open_runs[at].clone();
            let (stream, level) = if random.bool() {
                ("stdout", LogLevel::Stdout)
            } else {
                ("stderr", LogLevel::Stderr)
            };
            self.finish(Output::Stdout, random)?;
            let mut lines = Vec::new();
            for n in 0..random.usize(1..20) {
                self.sequence += 1;
                let text = format!("{id} printed {n} as {}", self.sequence);
                lines.push(format!(r#"["{time}","{text}"]"#));
                self.expect(level, text, Some(&id));
            }
            return self.object(
                &format!(
                    r#"{{"scriptscope":"run.output","run_id":"{id}","stream":"{stream}","lines":[{}]}}"#,
                    lines.join(",")
                ),
                random,
            );
        }
        let id = self.open_runs.swap_remove(at);
        let (status, name, error) = if random.u8(..4) == 0 {
            let error = r#"{"reason":"Exception","type":"ValueError","message":"no"}"#;
            (RunStatus::Failed, "Failed", error)
        } else {
            (RunStatus::Success, "Success", "null")
        };
        let took = random.u32(1..1_000_000);
        self.object(
            &format!(
                r#"{{"scriptscope":"run.finished","time":"{time}","run_id":"{id}","status":"{name}","duration_us":{took},"output":null,"error":{error}}}"#
            ),
            random,
        )?;
        self.runs.insert(id, status);
        Ok(())
    }

    /// A span of korelogger with the echo that it prints beside.
    fn span(&mut self, random: &mut Rng, pretty: bool) -> io::Result<()> {
        self.sequence += 1;
        self.finish(Output::Stdout, random)?;
        let message = format!("{} logs {}", self.bed.uid, self.sequence);
        let run_id = self.open_runs.last().cloned();
        let run = run_id
            .as_ref()
            .map_or(String::new(), |id| format!(r#""run_id":"{id}","#));
        let span = format!(
            r#"{{"name":"gvisor_warning_log","start_time":"{}","attributes":{{{run}"log.message":"{message}","log.level":"WARNING","log.meta.pid":"41"}}}}"#,
            self.clock
        );
        self.expect(LogLevel::Warning, message.clone(), run_id.as_deref());
        if pretty {
            let value: serde_json::Value = serde_json::from_str(&span).expect("a span");
            let text = serde_json::to_string_pretty(&value).expect("a span");
            for (n, line) in text.lines().enumerate() {
                self.entry(Output::Stdout, false, line.as_bytes(), random)?;
                if n % 3 == 1 && random.u8(..3) == 0 {
                    let text = self.text(Output::Stderr, random);
                    self.begin(Output::Stderr, text, random)?;
                }
            }
        } else {
            self.object(&span, random)?;
        }
        self.object(&format!("WARNING :: {message}"), random)
    }

    // --- kubelet

    /// Rotated files of the container, oldest first.
    fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{}.log.", self.restarts());
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// Removes what is too old, compresses what was rotated before, renames; the runtime opens a new file a moment later.
    pub fn rotate(&mut self, random: &mut Rng) -> io::Result<()> {
        // kubelet rotates what has grown.
        if self.file.metadata()?.len() == 0 {
            return Ok(());
        }
        let rotated = self.rotated()?;
        // With the file being rotated now and the one to be begun.
        let excess = (rotated.len() + 2).saturating_sub(self.habits.files);
        for (n, path) in rotated.iter().enumerate() {
            if n < excess {
                fs::remove_file(path)?;
            } else if path.extension().is_none_or(|e| e != "gz") {
                compress(path)?;
            }
        }
        self.rotations += 1;
        let name = format!("{}.20260102-{:06}", self.current().display(), self.rotations);
        fs::rename(self.current(), name)?;
        // The runtime does not know yet.
        for _ in 0..random.usize(..3) {
            self.print(random)?;
        }
        self.file = File::create(self.current())?;
        Ok(())
    }

    /// The container dies, in the middle of a line maybe, and is started again.
    pub fn restart(&mut self) -> io::Result<()> {
        self.pending = [None, None];
        self.open_runs.clear();
        self.printed.push(Printed::default());
        self.rotations = 0;
        self.file = File::create(self.current())?;
        Ok(())
    }

    /// The pod is no more, and kubelet removes its logs.
    pub fn delete(&mut self) -> io::Result<()> {
        self.pending = [None, None];
        let pod = self.folder.parent().unwrap_or(&self.folder);
        fs::remove_dir_all(pod)
    }

    /// Lines printed so far.
    pub fn lines(&self) -> usize {
        self.printed.iter().map(|printed| printed.lines.len()).sum()
    }

    /// Runs that began so far.
    pub fn begun(&self) -> usize {
        self.runs.len()
    }

    /// Runs that ended so far.
    pub fn ended(&self) -> usize {
        let ended = self.runs.values().filter(|s| **s != RunStatus::InProgress);
        ended.count()
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
    let mut encoder = GzEncoder::new(File::create(&unfinished)?, Compression::fast());
    encoder.write_all(&fs::read(path)?)?;
    encoder.finish()?;
    fs::rename(&unfinished, format!("{}.gz", path.display()))?;
    fs::remove_file(path)
}
