//! Waits for saves.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep, timeout_at},
};

use super::project::Project;

/// Nothing must have happened for so long: editors write in several steps, and people save several files.
const QUIET: Duration = Duration::from_millis(80);
/// However much goes on, it is looked at after so long.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked at where the kernel does not tell of changes.
const POLL: Duration = Duration::from_millis(500);

/// Watches the folders of a project.
pub struct Watcher {
    project: Project,
    kernel: Option<Kernel>,
}

struct Kernel {
    inotify: Inotify,
    readable: AsyncFd<OwnedFd>,
    folders: HashMap<WatchDescriptor, PathBuf>,
}

impl Watcher {
    /// Begins to watch.
    pub fn new(project: &Project) -> Self {
        let kernel = Kernel::new().inspect_err(|error| {
            tracing::warn!(%error, "The kernel does not tell of saves; looking for them all the time.");
        });
        let mut watcher = Self {
            project: project.clone(),
            kernel: kernel.ok(),
        };
        watcher.add_folders();
        watcher
    }

    /// Ready when something in the project may have changed, and no more does for the moment. Nothing is lost between
    /// two calls.
    pub async fn changed(&mut self) {
        let Some(kernel) = &mut self.kernel else {
            return sleep(POLL).await;
        };
        while !kernel.told(&self.project).await {}
        let latest = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, kernel.told(&self.project)).await.is_err() {
                break;
            }
        }
        self.add_folders();
    }

    fn add_folders(&mut self) {
        let Some(kernel) = &mut self.kernel else { return };
        let added = match self.project.folders() {
            Ok(folders) => folders.into_iter().try_for_each(|folder| kernel.add(folder)),
            // It changes right now; whatever changes next is told.
            Err(_) => Ok(()),
        };
        if let Err(error) = added {
            tracing::warn!(
                %error,
                "The kernel does not tell of saves (is fs.inotify.max_user_watches large enough?); looking for them all the time."
            );
            self.kernel = None;
        }
    }
}

impl Kernel {
    #[expect(
        deprecated,
        reason = "its successor is unsafe where the descriptor may be closed too early; this one is owned"
    )]
    fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self {
            readable: AsyncFd::with_interest(inotify.as_fd().try_clone_to_owned()?, Interest::READABLE)?,
            inotify,
            folders: HashMap::new(),
        })
    }

    /// Watching a folder again changes nothing.
    fn add(&mut self, folder: PathBuf) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(&folder, flags) {
            Ok(descriptor) => {
                self.folders.insert(descriptor, folder);
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for news; whether any of it counts.
    async fn told(&mut self, project: &Project) -> bool {
        let Ok(mut ready) = self.readable.readable().await else {
            return true;
        };
        ready.clear_ready();
        let mut counts = false;
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.folders.remove(&event.wd);
                }
                counts |= match (self.folders.get(&event.wd), &event.name) {
                    (Some(folder), Some(name)) => !project.ignores(folder, &name.to_string_lossy()),
                    // Events were lost, or a folder has gone.
                    _ => true,
                };
            }
        }
        counts
    }
}
