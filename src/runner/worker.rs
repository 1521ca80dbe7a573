//! One worker process. `worker/python/worker.py` and `worker/node/worker.js` say what it and the runner speak.

use std::{
    ffi::OsString,
    io::{self, PipeWriter},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    capture::Mark,
    channel::Channel,
    config::Runtime,
    function::Function,
    logs::Logs,
    output::Output,
    plain::{PlainLines, among_records},
    process::{COOKIE, Exit, Process, Processes},
    span::{LastRuns, Span},
};

/// The largest result of a run, in bytes of JSON.
pub const MAX_RESULT_BYTES: usize = 6 << 20;
/// Variables with this beginning are the runner's; the script does not see them.
const OURS: &str = "SCRIPTSCOPE_";
/// What is read of a pipe at once: as much as it holds by default.
const READ_BYTES: usize = 64 << 10;
/// Node's descriptors: frames, its channel for descriptors, korelogger's pipe.
const NODE_FDS: [i32; 3] = [3, 4, 5];
/// How long a script may take to be loaded.
const LOAD_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a process may take to end once its socket is closed.
pub const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a killed worker's last prints are waited for.
const LAST_PRINTS: Duration = Duration::from_millis(500);

/// What every worker of a script is started with.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Folder of the script.
    pub app: PathBuf,
    /// Folder that `scriptscope install` has written, with a folder a runtime.
    pub home: PathBuf,
    /// Language of the script.
    pub runtime: Runtime,
    /// Its interpreter.
    pub interpreter: PathBuf,
    /// Id of the deployment, for lines outside a run.
    pub deployment_id: String,
    /// Where prints outside a run go, and korelogger's spans.
    pub output: Output,
    /// Starts and reaps.
    pub processes: Processes,
}

/// A worker with its script loaded.
#[derive(Debug)]
pub struct Worker {
    /// The socket to it.
    pub channel: Channel,
    /// The process.
    pub process: Process,
    processes: Processes,
    /// Where korelogger sends its lines.
    pub logs: Logs,
    /// The run that its lines may name.
    pub run: LastRuns,
    /// Name of the socket for them.
    pub logs_name: String,
    /// Tells where in standard output korelogger's lines belong.
    pub mark: Mark,
    /// The pipes of the next run.
    ahead: Option<RunPipes>,
    /// The pipes of the last run, which take a while to close.
    pub ended: Option<[pipe::Receiver; 2]>,
    /// Hold what runs print.
    pub read_buffers: [Vec<u8>; 2],
    cookie: String,
    prints: Vec<JoinHandle<()>>,
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The interpreter could not be run.
    #[error("{} could not be started: {source}; the image needs {}", interpreter.display(), runtime.requirement())]
    Spawn {
        /// The interpreter.
        interpreter: PathBuf,
        /// What it runs.
        runtime: Runtime,
        /// Why.
        source: io::Error,
    },
    /// The machine refused a socket or a pipe.
    #[error("a worker could not be set up: {0}")]
    Setup(#[from] io::Error),
    /// The script can not be used; a paragraph for people.
    #[error("{0}")]
    Load(String),
}

#[derive(Serialize)]
struct Hello<'a> {
    app: &'a str,
    home: &'a str,
    socket: &'a str,
    mark: String,
    context: LineContext<'a>,
    #[serde(rename = "maxResultBytes")]
    max_result_bytes: usize,
}

#[derive(Serialize)]
struct LineContext<'a> {
    deployment_id: &'a str,
}

#[derive(Deserialize)]
struct LoadReply {
    functions: Option<Vec<Function>>,
    failed: Option<String>,
}

impl Launch {
    /// Starts a worker and loads `main.py` in it.
    pub async fn start(&self) -> Result<(Worker, Vec<Function>), StartError> {
        let mut worker = self.spawn()?;
        match self.load(&mut worker).await {
            Ok(functions) => {
                worker.prepare().await?;
                Ok((worker, functions))
            }
            Err(error) => {
                worker.end().await;
                Err(error)
            }
        }
    }

    fn spawn(&self) -> Result<Worker, StartError> {
        // A result's envelope, and an error's traceback in JSON, take less than this beside the result.
        let (mut channel, theirs) = Channel::pair(MAX_RESULT_BYTES + (1 << 20))?;
        let cookie = Uuid::now_v7().simple().to_string();
        let logs_name = format!("scriptscope-{cookie}");
        let (stdout, stdout_writer) = io::pipe()?;
        let (stderr, stderr_writer) = io::pipe()?;
        let mut command = Command::new(&self.interpreter);
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with(OURS)))
            .env("PYTHONPATH", self.search_path("PYTHONPATH", Runtime::Python))
            .env("NODE_PATH", self.search_path("NODE_PATH", Runtime::Node))
            .env(COOKIE, &cookie)
            .stdout(stdout_writer)
            .stderr(stderr_writer)
            .process_group(0);
        let worker = self.runtime_home().join(self.runtime.worker_file());
        let log_pipe = match self.runtime {
            Runtime::Python => {
                command.arg("-u").arg(worker).stdin(Stdio::from(theirs));
                None
            }
            Runtime::Node => {
                let (log_pipe, log_writer) = io::pipe()?;
                let [_, handles_fd, _] = NODE_FDS;
                command
                    .arg(worker)
                    .env("NODE_CHANNEL_FD", handles_fd.to_string())
                    .stdin(Stdio::null());
                pass(&mut command, [theirs, channel.add_handles()?, log_writer.into()])?;
                Some(log_pipe)
            }
        };
        let logs = Logs::new(&logs_name, log_pipe)?;
        let (_, process) = self
            .processes
            .spawn(&mut command)
            .map_err(|source| StartError::Spawn {
                interpreter: self.interpreter.clone(),
                runtime: self.runtime,
                source,
            })?;
        let prints = [(OwnedFd::from(stdout), false), (OwnedFd::from(stderr), true)]
            .into_iter()
            .map(|(fd, is_stderr)| {
                let pipe = pipe::Receiver::from_owned_fd(fd)?;
                Ok(tokio::spawn(print_plain(pipe, self.output.clone(), is_stderr)))
            })
            .collect::<io::Result<_>>()?;
        Ok(Worker {
            channel,
            process,
            processes: self.processes.clone(),
            logs,
            run: LastRuns::default(),
            logs_name,
            mark: Mark::new(),
            ahead: None,
            ended: None,
            read_buffers: [vec![0; READ_BYTES], vec![0; READ_BYTES]],
            cookie,
            prints,
        })
    }

    /// Folder of the worker's file and of korelogger.
    fn runtime_home(&self) -> PathBuf {
        self.home.join(self.runtime.name())
    }

    /// For processes that a run starts, in whatever language: our korelogger comes last.
    fn search_path(&self, variable: &str, runtime: Runtime) -> OsString {
        let mut path = std::env::var_os(variable).unwrap_or_default();
        if !path.is_empty() {
            path.push(":");
        }
        path.push(self.home.join(runtime.name()));
        path
    }

    async fn load(&self, worker: &mut Worker) -> Result<Vec<Function>, StartError> {
        let home = self.runtime_home();
        let hello = Hello {
            app: &self.app.to_string_lossy(),
            home: &home.to_string_lossy(),
            socket: &worker.logs_name,
            mark: worker.mark.prefix(),
            context: LineContext {
                deployment_id: &self.deployment_id,
            },
            max_result_bytes: MAX_RESULT_BYTES,
        };
        let hello = serde_json::to_vec(&hello).map_err(io::Error::from)?;
        // A worker that ends at once breaks the socket; how it ended tells more than that.
        let _ = worker.channel.send(&hello).await;
        let deadline = Instant::now() + LOAD_TIMEOUT;
        let entry = self.runtime.entry_point();
        let reply = loop {
            tokio::select! {
                biased;
                span = worker.logs.next() => print_span(span, &worker.run, &self.output).await,
                frame = worker.channel.receive() => break frame,
                () = sleep_until(deadline) => {
                    let seconds = LOAD_TIMEOUT.as_secs();
                    return Err(StartError::Load(format!("{entry} was not loaded within {seconds} s")));
                }
            }
        };
        while let Some(span) = worker.logs.arrived() {
            print_span(span, &worker.run, &self.output).await;
        }
        let Some(frame) = reply.ok().flatten() else {
            // The socket closes a little before the process is gone.
            let exit = timeout(EXIT_TIMEOUT, worker.process.ended()).await.ok();
            let how = exit.map_or_else(|| "closed its connection".into(), exit_text);
            return Err(StartError::Load(format!(
                "Loading {entry} ended the worker process: it {how}"
            )));
        };
        let reply: LoadReply = serde_json::from_slice(&frame).map_err(io::Error::from)?;
        reply
            .functions
            .ok_or_else(|| StartError::Load(reply.failed.unwrap_or_default()))
    }
}

impl Worker {
    /// Closes the pipes of the last run and makes those of the next one, so that no call has to wait for it. A Node worker gets them now, which takes it about
    /// as long as a short run does; Python takes them with the call.
    pub async fn prepare(&mut self) -> io::Result<()> {
        self.ended = None;
        if self.ahead.is_none() {
            let (readers, writers) = run_pipes()?;
            let sent = self
                .channel
                .send_handles(&writers.each_ref().map(AsFd::as_fd))
                .await?;
            self.ahead = Some(RunPipes {
                readers,
                writers: (!sent).then_some(writers),
            });
        }
        Ok(())
    }

    /// Gives it a call; the reading ends of the run's standard output and error. Whatever outlives a run can not print into
    /// another one, whose pipes it does not have, and the end of these says that nothing does.
    pub async fn give(&mut self, header: &[u8], arguments: &[u8]) -> io::Result<[pipe::Receiver; 2]> {
        self.prepare().await?;
        let pipes = self.ahead.take().ok_or(io::ErrorKind::NotConnected)?;
        let writers = pipes
            .writers
            .as_ref()
            .map(|ends| ends.each_ref().map(AsFd::as_fd));
        let writers = writers.as_ref().map_or(&[][..], |ends| ends);
        self.channel.send_with(header, arguments, writers).await?;
        Ok(pipes.readers)
    }

    /// Ends the process and everything that it has started, and prints what they still had to say.
    pub async fn end(mut self) {
        self.process.kill().await;
        self.processes.kill_all_with(&self.cookie).await;
        for print in &mut self.prints {
            if timeout(LAST_PRINTS, &mut *print).await.is_err() {
                print.abort();
            }
        }
    }
}

/// A run's standard output and error, and their writing ends unless the worker has them.
#[derive(Debug)]
struct RunPipes {
    readers: [pipe::Receiver; 2],
    writers: Option<[PipeWriter; 2]>,
}

fn run_pipes() -> io::Result<([pipe::Receiver; 2], [PipeWriter; 2])> {
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let readers = [
        pipe::Receiver::from_owned_fd(stdout.into())?,
        pipe::Receiver::from_owned_fd(stderr.into())?,
    ];
    Ok((readers, [stdout_writer, stderr_writer]))
}

/// Prints a korelogger line that comes between two runs.
pub async fn print_span(span: Span, run: &LastRuns, output: &Output) {
    output.stdout(run.line(span)).await;
}

/// Gives a process these descriptors under [`NODE_FDS`].
fn pass(command: &mut Command, fds: [OwnedFd; NODE_FDS.len()]) -> Result<(), StartError> {
    let mappings = fds.into_iter().zip(NODE_FDS);
    let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    let collision = |error: FdMappingCollision| StartError::Setup(io::Error::other(error));
    command.fd_mappings(mappings.collect()).map_err(collision)?;
    Ok(())
}

/// What a worker prints outside runs: lines of the script that belong to no run.
async fn print_plain(mut pipe: pipe::Receiver, output: Output, is_stderr: bool) {
    let mut lines = PlainLines::default();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        let whole = match read {
            0 => lines.end(),
            _ => lines.push(buffer.get(..read).unwrap_or_default()),
        };
        match whole {
            Some(lines) if is_stderr => output.stderr(lines).await,
            Some(lines) => output.stdout(among_records(lines, Timestamp::now())).await,
            None => {}
        }
        if read == 0 {
            return;
        }
    }
}

/// How a process ended, for people.
pub fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(nix::sys::signal::Signal::SIGKILL) => {
            "was killed by SIGKILL, probably out of memory".into()
        }
        Exit::Signal(signal) => format!("was killed by {signal}"),
    }
}
