//! The runner's own output: each record with one write, so that no two are ever mixed; a reader that is slow holds
//! everybody up instead of filling memory.
//!
//! A thread writes, since a write may have to wait. What fits into a pipe that has room is written at once instead: in a
//! sandbox, waking the thread takes longer than a short run.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};

/// Records on their way, at most; each has up to about 1 MiB.
const QUEUE: usize = 16;
/// What a pipe takes whole, and without waiting, where it says that it can be written to (`PIPE_BUF`, pipe(7)), bytes.
const PIPE_ROOM: usize = 4096;

#[derive(Debug)]
enum Job {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// Where records are printed. Clones print to the same place.
#[derive(Clone, Debug)]
pub struct Output {
    jobs: mpsc::Sender<Job>,
    /// Jobs that the thread has not ended. Nothing may overtake them.
    waiting: Arc<AtomicUsize>,
    /// Standard output, where it is a pipe.
    pipe: Option<Arc<File>>,
}

impl Output {
    /// Starts the thread that writes. The receiver gets an error when standard output can not be written any more:
    /// then nothing could be recorded, and the runner has to end.
    pub fn start() -> io::Result<(Self, oneshot::Receiver<io::Error>)> {
        // Not `io::Stdout`, whose buffer cuts writes at line ends.
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (sender, mut jobs) = mpsc::channel(QUEUE);
        let is_pipe = stdout.metadata()?.file_type().is_fifo();
        let output = Self {
            jobs: sender,
            waiting: Arc::clone(&waiting),
            pipe: is_pipe.then(|| stdout.try_clone().map(Arc::new)).transpose()?,
        };
        let (broken, is_broken) = oneshot::channel();
        thread::Builder::new().name("output".into()).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                let result = match job {
                    Job::Stdout(bytes) => stdout.write_all(&bytes),
                    // Nobody may read standard error, and no record is there.
                    Job::Stderr(bytes) => stderr.write_all(&bytes).or(Ok(())),
                    Job::Flush(done) => {
                        let _ = done.send(());
                        Ok(())
                    }
                };
                if let Err(error) = result {
                    let _ = broken.send(error);
                    return;
                }
                waiting.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok((output, is_broken))
    }

    /// Prints a whole line to standard output; waits while too much is on its way.
    pub async fn stdout(&self, line: Vec<u8>) {
        if !self.write_now(&line) {
            self.send(Job::Stdout(line)).await;
        }
    }

    /// Prints a whole line to standard error.
    pub async fn stderr(&self, line: Vec<u8>) {
        self.send(Job::Stderr(line)).await;
    }

    /// Waits until everything printed so far is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.send(Job::Flush(done)).await {
            let _ = written.await;
        }
    }

    /// Writes a line; false where that might have to wait.
    fn write_now(&self, line: &[u8]) -> bool {
        let Some(pipe) = self.pipe.as_deref() else {
            return false;
        };
        if line.len() > PIPE_ROOM || self.waiting.load(Ordering::Acquire) > 0 {
            return false;
        }
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
        let is_ready = poll(&mut polled, PollTimeout::ZERO) == Ok(1)
            && polled.iter().all(|p| p.revents() == Some(PollFlags::POLLOUT));
        // The thread finds any error again, and reports it.
        let mut pipe = pipe;
        is_ready && pipe.write(line).is_ok_and(|written| written == line.len())
    }

    /// False when the thread has ended, which its receiver knows.
    async fn send(&self, job: Job) -> bool {
        let Ok(place) = self.jobs.reserve().await else {
            return false;
        };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        place.send(job);
        true
    }
}
