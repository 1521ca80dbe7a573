//! Child processes: started, waited for, and got rid of with all that they started.
//!
//! As the first process of a pod the runner also gets every orphan, so one place waits for all children. Nothing else
//! in this process may wait for one; that is why workers are started here and not by tokio.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    path::Path,
    process::{Child, Command},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

/// Environment variable that every process of a worker inherits, by which it is found.
pub const COOKIE: &str = "SCRIPTSCOPE_RUN_WORKER";
/// How often leftovers are looked for: a process may start another while it is being killed.
const SWEEPS: usize = 5;
/// How long a killed process may take to end; only one that the kernel holds takes long.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal(Signal),
}

type Table = Arc<Mutex<HashMap<i32, watch::Sender<Option<Exit>>>>>;

/// Waits for every child of this process.
#[derive(Clone, Debug)]
pub struct Processes(Table);

/// A child and how it ended, once it has.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
}

impl Processes {
    /// Begins to wait for children, those of others that end up here included.
    pub fn start() -> io::Result<Self> {
        // The first process of a pod gets orphans anyway. Elsewhere, asking may fail without harm.
        let _ = prctl::set_child_subreaper(true);
        let mut ended = signal(SignalKind::child())?;
        let table = Table::default();
        let reaped = Arc::clone(&table);
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                reap(&reaped);
            }
        });
        Ok(Self(table))
    }

    /// Starts a child.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Process)> {
        // Held while the child is started, or it could have ended before it is known.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, exit) = watch::channel(None);
        table.insert(pid, sender);
        let pid = Pid::from_raw(pid);
        Ok((child, Process { pid, exit }))
    }
}

fn reap(table: &Table) {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal)),
            Err(Errno::EINTR) => continue,
            Ok(_) | Err(_) => return,
        };
        if let Some(waiting) = table.remove(&pid.as_raw()) {
            waiting.send_replace(Some(exit));
        }
    }
}

impl Process {
    /// How it ended; waits for that. Can be called again.
    pub async fn ended(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Code(0)),
            Err(_) => Exit::Signal(Signal::SIGKILL),
        }
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Kills its process group and waits until it has ended itself.
    pub async fn kill(&mut self) {
        self.kill_group();
        if timeout(KILL_TIMEOUT, self.ended()).await.is_err() {
            tracing::warn!(pid = self.pid.as_raw(), "A killed worker does not end.");
        }
    }

    fn kill_group(&self) {
        // The group may be gone already.
        let _ = killpg(self.pid, Signal::SIGKILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit().is_none() {
            self.kill_group();
        }
    }
}

/// Kills every process whose environment holds this cookie, wherever it has moved to. Reads /proc.
pub fn kill_all_with(cookie: &str) {
    kill_marked(&format!("{COOKIE}={cookie}"));
}

/// Kills every process that has this entry, `NAME=value`, in its environment. Reads /proc.
pub fn kill_marked(entry: &str) {
    for _ in 0..SWEEPS {
        let found = processes_with(entry.as_bytes());
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

fn processes_with(entry: &[u8]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|found| found.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| environment(*pid).split(|b| *b == 0).any(|e| e == entry))
        .map(Pid::from_raw)
        .collect()
}

/// The environment a process was started with; empty for one that has ended or is somebody else's.
fn environment(pid: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(Path::new("/proc").join(pid.to_string()).join("environ")) {
        // Bounded: an environment has at most a few MiB.
        let _ = file.take(4 << 20).read_to_end(&mut bytes);
    }
    bytes
}
