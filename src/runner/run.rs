//! One run: a call given to a worker, everything it prints taken in, its records printed.

use std::{io, iter, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{CANCELLED, TIMEOUT},
    call::{Call, Report, Settings, failure, print_finished, print_started},
    capture::{Capture, Echoes},
    output::Output,
    span::Span,
    stop::Stop,
    worker::{EXIT_TIMEOUT, Worker, exit_text},
};
use crate::model::RunError;

/// With live logging, how long a printed line waits for others to share its record.
const LIVE_BATCH: Duration = Duration::from_millis(100);
/// How long after a run's end its pipes may stay open before somebody must still hold them.
const PIPES_END: Duration = Duration::from_millis(20);
/// The same after the worker was killed, since the processes it had started end after it.
const KILLED_PIPES_END: Duration = Duration::from_millis(300);
/// Spans that are printed with one write, at most; one is below [`MAX_DATAGRAM`](super::span::MAX_DATAGRAM).
const SPANS_AT_ONCE: usize = 16;
/// A pipe holds at most so many bytes; whatever comes beyond them was printed after the run's end.
const PIPE_BYTES: usize = 1 << 20;

/// Why a run is over.
enum End {
    Reply(bytes::Bytes),
    Exited,
    Broken(String),
    Timeout,
    TooMuchOutput,
    Undeployed,
    Cancelled,
}

#[derive(Serialize)]
struct CallHeader<'a> {
    function: &'a str,
    context: Context<'a>,
}

/// What korelogger says of the run with each line.
#[derive(Serialize)]
struct Context<'a> {
    socket: &'a str,
    traceparent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    run_id: &'a str,
    deployment_id: &'a str,
    source: &'a str,
    source_type: String,
}

#[derive(Deserialize)]
struct Reply {
    result: Option<Box<RawValue>>,
    error: Option<RunError>,
    leftover: Option<String>,
}

/// A stream of the run.
struct Stream {
    pipe: pipe::Receiver,
    is_open: bool,
    buffer: Vec<u8>,
    capture: Capture,
}

impl Stream {
    fn new(pipe: pipe::Receiver, buffer: Vec<u8>, capture: Capture) -> Self {
        Self {
            pipe,
            is_open: true,
            buffer,
            capture,
        }
    }

    /// Reads; 0 at the end of the stream. Never ready after it.
    async fn read(&mut self) -> usize {
        if !self.is_open {
            return std::future::pending().await;
        }
        self.pipe.read(&mut self.buffer).await.unwrap_or(0)
    }
}

struct Running<'a> {
    worker: &'a mut Worker,
    settings: &'a Settings,
    output: &'a Output,
    run_id: &'a str,
    cancel: &'a CancellationToken,
    stdout: Stream,
    stderr: Stream,
    echoes: Echoes,
    /// Bytes that may still be printed.
    budget: usize,
    /// With live logging, when lines that wait are due.
    flush_at: Option<Instant>,
}

/// Runs a call to its end. Also says whether the worker can take another one.
pub async fn execute(
    worker: &mut Worker,
    call: &Call,
    settings: &Settings,
    output: &Output,
    stop: &mut Stop,
) -> (Report, bool) {
    print_started(call, settings, output).await;
    let started = Instant::now();
    let (result, stdout, stderr, reusable, duration) =
        match Running::begin(worker, call, settings, output).await {
            Ok(mut running) => {
                let end = running.until_end(started + settings.timeout, stop).await;
                let duration = started.elapsed();
                let (result, reusable) = running.conclude(end).await;
                let (stdout, stderr) = running.flush_all().await;
                (result, stdout, stderr, reusable, duration)
            }
            Err(e) => {
                let error = failure(
                    "WorkerExited",
                    format!("the run could not be given to its worker: {e}"),
                );
                (Err(error), String::new(), String::new(), false, started.elapsed())
            }
        };
    let report = Report {
        run_id: call.run_id.clone(),
        result,
        stdout,
        stderr,
        duration,
    };
    print_finished(&report, settings, output).await;
    (report, reusable)
}

impl<'a> Running<'a> {
    async fn begin(
        worker: &'a mut Worker,
        call: &'a Call,
        settings: &'a Settings,
        output: &'a Output,
    ) -> io::Result<Self> {
        let header = serde_json::to_vec(&CallHeader {
            function: &call.function,
            context: Context {
                socket: &worker.logs_name,
                traceparent: &call.caller.traceparent,
                tracestate: call.caller.tracestate.as_deref(),
                run_id: &call.run_id,
                deployment_id: &settings.deployment_id,
                source: &call.caller.source,
                source_type: call.caller.source_type.to_string(),
            },
        })?;
        worker.run.begin(&call.run_id);
        let arguments = call.arguments.get().as_bytes();
        let [stdout, stderr] = timeout(settings.timeout, worker.give(&header, arguments)).await??;
        Ok(Self {
            stdout: Stream::new(stdout, take_buffer(worker, 0), Capture::stdout(&worker.mark)),
            stderr: Stream::new(stderr, take_buffer(worker, 1), Capture::stderr()),
            worker,
            settings,
            output,
            run_id: &call.run_id,
            cancel: &call.cancel,
            echoes: Echoes::default(),
            budget: settings.max_output_bytes,
            flush_at: None,
        })
    }

    async fn until_end(&mut self, deadline: Instant, stop: &mut Stop) -> End {
        loop {
            let flush_at = self.flush_at;
            let fits = tokio::select! {
                biased;
                () = sleep_until(deadline) => return End::Timeout,
                () = stop.killing() => return End::Undeployed,
                () = self.cancel.cancelled() => return End::Cancelled,
                span = self.worker.logs.next() => self.print_spans([span]).await,
                frame = self.worker.channel.receive() => match frame {
                    Ok(Some(frame)) => return End::Reply(frame),
                    Ok(None) => return End::Exited,
                    Err(error) => return End::Broken(error.to_string()),
                },
                _ = self.worker.process.ended() => return self.last_reply().await,
                () = sleep_until(flush_at.unwrap_or(deadline)), if flush_at.is_some() => {
                    self.flush(false).await;
                    true
                }
                read = self.stdout.read() => self.take_stdout(read).await,
                read = self.stderr.read() => self.take_stderr(read),
            };
            if !fits {
                return End::TooMuchOutput;
            }
            self.schedule_flush();
        }
    }

    /// The worker has ended; perhaps just after its reply.
    async fn last_reply(&mut self) -> End {
        match timeout(PIPES_END, self.worker.channel.receive()).await {
            Ok(Ok(Some(frame))) => End::Reply(frame),
            _ => End::Exited,
        }
    }

    /// Prints spans, many with one write. False when the run has printed too much.
    async fn print_spans(&mut self, spans: impl IntoIterator<Item = Span>) -> bool {
        let mut lines = Vec::new();
        let mut all_fit = true;
        for span in spans {
            let fits = span.len() <= self.budget;
            self.budget = self.budget.saturating_sub(span.len());
            all_fit &= fits;
            if fits {
                if let Some(echo) = &span.echo {
                    self.echoes.expect(&echo.id, &echo.level, &echo.message);
                }
                lines.extend(self.worker.run.line(span));
            }
        }
        if !lines.is_empty() {
            self.output.stdout(lines).await;
        }
        all_fit
    }

    /// Spans that have arrived. A span is sent before its mark is written, so those of all marks read so far are here.
    async fn take_spans(&mut self) -> bool {
        let mut fits = true;
        loop {
            let logs = &mut self.worker.logs;
            let arrived: Vec<Span> = iter::from_fn(|| logs.arrived()).take(SPANS_AT_ONCE).collect();
            if arrived.is_empty() {
                return fits;
            }
            fits &= self.print_spans(arrived).await;
        }
    }

    async fn take_stdout(&mut self, read: usize) -> bool {
        let mut fits = read == 0 || self.take_spans().await;
        fits &= take(&mut self.stdout, read, &mut self.echoes, &mut self.budget);
        let spans = self.echoes.take_spans();
        fits & self.print_spans(spans).await
    }

    fn take_stderr(&mut self, read: usize) -> bool {
        take(&mut self.stderr, read, &mut self.echoes, &mut self.budget)
    }

    fn schedule_flush(&mut self) {
        if self.settings.live && self.flush_at.is_none() {
            let waiting = self.stdout.capture.has_line() || self.stderr.capture.has_line();
            self.flush_at = waiting.then(|| Instant::now() + LIVE_BATCH);
        }
    }

    async fn flush(&mut self, last: bool) {
        self.flush_at = None;
        for capture in [&mut self.stdout.capture, &mut self.stderr.capture] {
            while let Some(record) = capture.next_record(self.run_id, last) {
                self.output.stdout(record).await;
            }
        }
    }

    /// Reads what the run has still printed; says whether both pipes came to their end.
    async fn drain(&mut self, patience: Duration) -> bool {
        let limit = Instant::now() + patience;
        let mut taken = 0;
        while (self.stdout.is_open || self.stderr.is_open) && taken < 2 * PIPE_BYTES {
            tokio::select! {
                biased;
                read = self.stdout.read() => {
                    self.take_stdout(read).await;
                    taken += read;
                }
                read = self.stderr.read() => {
                    self.take_stderr(read);
                    taken += read;
                }
                () = sleep_until(limit) => break,
            }
        }
        self.take_spans().await;
        !self.stdout.is_open && !self.stderr.is_open
    }

    /// The run's result, and whether its worker can go on.
    async fn conclude(&mut self, end: End) -> (Result<Box<RawValue>, RunError>, bool) {
        if let End::Reply(frame) = end {
            let ended = self.drain(PIPES_END).await;
            return match serde_json::from_slice::<Reply>(&frame) {
                Ok(reply) => {
                    let reusable = ended && reply.leftover.is_none();
                    (reply.result(), reusable)
                }
                Err(error) => {
                    let message = format!("the worker's answer can not be read: {error}");
                    (Err(failure("WorkerExited", message)), false)
                }
            };
        }
        if matches!(end, End::TooMuchOutput) {
            self.budget = 0;
        }
        // Read first: a worker that was not killed by us ends in its own way.
        let exit = match end {
            End::Exited => timeout(EXIT_TIMEOUT, self.worker.process.ended()).await.ok(),
            _ => None,
        };
        self.worker.process.kill().await;
        self.drain(KILLED_PIPES_END).await;
        (Err(self.error(&end, exit.map(exit_text))), false)
    }

    fn error(&self, end: &End, exit: Option<String>) -> RunError {
        let settings = self.settings;
        match end {
            End::Timeout => {
                let seconds = settings.timeout.as_secs();
                failure(
                    TIMEOUT,
                    format!("the function ran longer than {seconds} s and was ended"),
                )
            }
            End::TooMuchOutput => {
                let limit = bytes_text(settings.max_output_bytes);
                let message = format!(
                    "the run printed more than {limit} and was ended; what it printed until then is kept"
                );
                failure("OutputLimitExceeded", message)
            }
            End::Undeployed => {
                let message = "the pod was stopped, and the run did not end within the time left to it";
                failure("Undeployed", message.into())
            }
            End::Cancelled => failure(CANCELLED, "the run was cancelled".into()),
            End::Broken(why) => failure("WorkerExited", format!("the worker broke its connection: {why}")),
            End::Exited | End::Reply(_) => {
                let how = exit.unwrap_or_else(|| "closed its connection".into());
                failure(
                    "WorkerExited",
                    format!("the worker process {how} before the function returned"),
                )
            }
        }
    }

    /// Prints the output records that are left; the streams' beginnings.
    async fn flush_all(mut self) -> (String, String) {
        let now = Timestamp::now();
        self.stdout.capture.end(now, &mut self.budget);
        self.flush(true).await;
        self.worker.read_buffers = [self.stdout.buffer, self.stderr.buffer];
        self.worker.ended = Some([self.stdout.pipe, self.stderr.pipe]);
        (self.stdout.capture.into_head(), self.stderr.capture.into_head())
    }
}

/// A buffer of the worker's, so that no run has to make new ones.
fn take_buffer(worker: &mut Worker, index: usize) -> Vec<u8> {
    worker
        .read_buffers
        .get_mut(index)
        .map(std::mem::take)
        .unwrap_or_default()
}

/// Takes in what was read of a stream; false when that is too much.
fn take(stream: &mut Stream, read: usize, echoes: &mut Echoes, budget: &mut usize) -> bool {
    if read == 0 {
        stream.is_open = false;
        return true;
    }
    let chunk = stream.buffer.get(..read).unwrap_or_default();
    stream.capture.push(chunk, Timestamp::now(), echoes, budget)
}

impl Reply {
    fn result(self) -> Result<Box<RawValue>, RunError> {
        match (self.error, self.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => Ok(result),
            // JSON's null reads as no value.
            (None, None) => {
                RawValue::from_string("null".into()).map_err(|e| failure("WorkerExited", e.to_string()))
            }
        }
    }
}

fn bytes_text(bytes: usize) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}
