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
    time::{Duration, Instant},
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
/// How long leftovers are looked for: a process may start others while it is being killed.
const SWEEPING: Duration = Duration::from_secs(10);
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

    /// Kills every process whose environment holds this cookie, wherever it has moved to, and every orphan that has no
    /// cookie any more. Goes on until there is none: they may multiply while they are killed. Reads /proc.
    pub async fn kill_all_with(&self, cookie: &str) {
        let deadline = Instant::now() + SWEEPING;
        loop {
            let found = self.leftovers(cookie);
            for pid in &found {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if found.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    processes = found.len(),
                    "Processes that a worker has left do not end."
                );
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn leftovers(&self, cookie: &str) -> Vec<Pid> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let entry = format!("{COOKIE}={cookie}");
        // Held, so that no worker is met before it is known.
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = |pid: i32| {
            if pid == own || table.contains_key(&pid) {
                return false;
            }
            let environment = environment(pid);
            let mut entries = environment.split(|byte| *byte == 0);
            let marked = entries.find(|entry| entry.starts_with(COOKIE.as_bytes()));
            match marked {
                Some(found) => found == entry.as_bytes() && parent(pid).is_some(),
                // Whoever clears its environment to get away is an orphan, and all orphans come here.
                None => parent(pid) == Some(own),
            }
        };
        all().filter(|pid| is_left(*pid)).map(Pid::from_raw).collect()
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

/// Kills every process that has this entry, `NAME=value`, in its environment, wherever it has moved to; looks again until
/// there is none. Reads /proc, and blocks.
pub fn kill_marked(entry: &str) {
    let deadline = Instant::now() + SWEEPING;
    let is_marked = |pid: &i32| {
        parent(*pid).is_some()
            && environment(*pid)
                .split(|byte| *byte == 0)
                .any(|e| e == entry.as_bytes())
    };
    while Instant::now() < deadline {
        let found: Vec<i32> = all().filter(is_marked).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Every process there is, from /proc.
fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|found| found.file_name().to_str()?.parse().ok())
}

/// The parent of a process, if that has not ended.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
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
