//! The runner's own output. One thread writes, each record with one write, so that no two are ever mixed; a reader that
//! is slow holds everybody up instead of filling memory.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    thread,
};

use tokio::sync::{mpsc, oneshot};

/// Records on their way, at most; each has up to about 1 MiB.
const QUEUE: usize = 16;

#[derive(Debug)]
enum Job {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// Where records are printed. Clones print to the same place.
#[derive(Clone, Debug)]
pub struct Output(mpsc::Sender<Job>);

impl Output {
    /// Starts the thread that writes. The receiver gets an error when standard output can not be written any more:
    /// then nothing could be recorded, and the runner has to end.
    pub fn start() -> io::Result<(Self, oneshot::Receiver<io::Error>)> {
        // Not `io::Stdout`, whose buffer cuts writes at line ends.
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (sender, mut jobs) = mpsc::channel(QUEUE);
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
            }
        })?;
        Ok((Self(sender), is_broken))
    }

    /// Prints a whole line to standard output; waits while too much is on its way.
    pub async fn stdout(&self, line: Vec<u8>) {
        // An error means that the thread has ended, which its receiver knows.
        let _ = self.0.send(Job::Stdout(line)).await;
    }

    /// Prints a whole line to standard error.
    pub async fn stderr(&self, line: Vec<u8>) {
        let _ = self.0.send(Job::Stderr(line)).await;
    }

    /// Waits until everything printed so far is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.send(Job::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}
