//! A file whose bytes go to the disk while the next ones are made.
//!
//! Left to the system, most of a large file would be in memory at its end, and the sync that makes it certain would take as
//! long as all before; whoever else syncs meanwhile, as ingest does at each commit, would wait for it, too.

use std::{
    fs::File,
    io::{self, Write},
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
};

use super::writing::Sink;

/// Bytes between two syncs, if the one before is done.
const STRETCH: usize = 16 << 20;

/// A file that is synced as it grows. Its owner syncs it once more at its end.
pub struct Steady {
    file: File,
    written: usize,
    /// None before the first sync.
    syncs: Option<Syncs>,
}

struct Syncs {
    due: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Steady {
    /// Writes to `file`, from where it is.
    pub fn new(file: File) -> Self {
        Self {
            file,
            written: 0,
            syncs: None,
        }
    }

    /// Has what is written go to the disk, unless that is under way. An earlier failure shows here.
    fn sync(&mut self) -> io::Result<()> {
        let syncs = match self.syncs.take() {
            Some(syncs) => syncs,
            None => Syncs::begin(self.file.try_clone()?)?,
        };
        match syncs.due.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {
                self.syncs = Some(syncs);
                Ok(())
            }
            Err(TrySendError::Disconnected(())) => syncs.end(),
        }
    }
}

impl Syncs {
    fn begin(file: File) -> io::Result<Self> {
        let (due, asked) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("export-sync".to_owned())
            .spawn(move || {
                while asked.recv().is_ok() {
                    file.sync_data()?;
                }
                Ok(())
            })?;
        Ok(Self { due, thread })
    }

    fn end(self) -> io::Result<()> {
        drop(self.due);
        let lost = || io::Error::other("the thread that syncs the file is lost");
        self.thread.join().map_err(|_| lost())?
    }
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written;
        if self.written >= STRETCH {
            self.written = 0;
            self.sync()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for Steady {
    fn close(mut self) -> io::Result<()> {
        self.syncs.take().map_or(Ok(()), Syncs::end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn what_is_written_is_in_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let mut steady = Steady::new(file.try_clone().unwrap());
        let piece: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for _ in 0..40 {
            steady.write_all(&piece).unwrap();
        }
        steady.close().unwrap();
        let mut back = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut back).unwrap();
        assert!(back.len() == 40 << 20 && back.chunks(1 << 20).all(|chunk| chunk == piece));
    }

    #[test]
    fn a_disk_that_fails_is_heard_of() {
        // Nothing can be synced there.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut steady = Steady::new(full);
        assert!(steady.write_all(&[0; 100]).is_err());
        let null = File::options().write(true).open("/dev/null").unwrap();
        let mut steady = Steady::new(null);
        let failed = (0..1_000).find_map(|_| steady.write_all(&vec![0; STRETCH]).err());
        assert!(failed.is_some() || steady.close().is_err());
    }
}
