//! Changes in the folders of logs, as the kernel tells of them.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};

/// So many reads of the queue in a row; a busy writer fills it again meanwhile.
const MAX_READS: usize = 64;

/// What a watched folder is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The folder of all logs.
    Root,
    /// A pod's, by its name.
    Pod(String),
    /// A container's: the name of its pod's folder, and its own.
    Container(String, String),
}

/// What has happened since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Events were lost: anything may have changed.
    pub everything: bool,
    /// Folders of pods in which something appeared, was renamed or went.
    pub pods: HashSet<String>,
    /// Containers that wrote: pod's folder, container.
    pub written: HashSet<(String, String)>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        !self.everything && self.pods.is_empty() && self.written.is_empty()
    }
}

/// Watched folders.
pub(super) struct Watch {
    inotify: Inotify,
    places: HashMap<WatchDescriptor, (Place, PathBuf)>,
    watched: HashMap<PathBuf, WatchDescriptor>,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            places: HashMap::new(),
            watched: HashMap::new(),
        })
    }

    /// A descriptor that is readable when there are changes.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// Watches a folder from now on; one that is gone is none of our business.
    pub fn add(&mut self, path: &Path, place: Place) -> io::Result<()> {
        if self.watched.contains_key(path) {
            return Ok(());
        }
        let mut flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if matches!(place, Place::Container(..)) {
            flags |= AddWatchFlags::IN_MODIFY;
        }
        match self.inotify.add_watch(path, flags) {
            Ok(descriptor) => {
                self.places.insert(descriptor, (place, path.to_owned()));
                self.watched.insert(path.to_owned(), descriptor);
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Watches a folder no longer.
    pub fn remove(&mut self, path: &Path) {
        if let Some(descriptor) = self.watched.remove(path) {
            self.places.remove(&descriptor);
            // It fails where the folder is gone, which is as well.
            let _ = self.inotify.rm_watch(descriptor);
        }
    }

    /// What has changed since the last call.
    pub fn changes(&mut self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        for _ in 0..MAX_READS {
            match self.inotify.read_events() {
                Ok(events) => events
                    .into_iter()
                    .for_each(|event| self.note(event, &mut changes)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(changes)
    }

    fn note(&mut self, event: InotifyEvent, changes: &mut Changes) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            changes.everything = true;
            return;
        }
        let Some((place, path)) = self.places.get(&event.wd) else {
            return;
        };
        let written = event.mask.contains(AddWatchFlags::IN_MODIFY);
        match place {
            Place::Root => match event.name.and_then(|name| name.into_string().ok()) {
                Some(name) => _ = changes.pods.insert(name),
                None => changes.everything = true,
            },
            Place::Container(pod, container) if written => {
                changes.written.insert((pod.clone(), container.clone()));
            }
            Place::Pod(pod) | Place::Container(pod, _) => _ = changes.pods.insert(pod.clone()),
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            if self.watched.get(path) == Some(&event.wd) {
                self.watched.remove(path);
            }
            self.places.remove(&event.wd);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn changes_name_the_pod_and_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new().unwrap();
        watch.add(folder.path(), Place::Root).unwrap();
        assert!(watch.changes().unwrap().is_empty());

        let pod = folder.path().join("ns_pod_uid");
        let container = pod.join("script");
        fs::create_dir_all(&container).unwrap();
        assert_eq!(
            watch.changes().unwrap().pods,
            HashSet::from(["ns_pod_uid".into()])
        );

        watch.add(&pod, Place::Pod("ns_pod_uid".into())).unwrap();
        let place = Place::Container("ns_pod_uid".into(), "script".into());
        watch.add(&container, place).unwrap();
        let file = container.join("0.log");
        fs::write(&file, "line\n").unwrap();
        let changes = watch.changes().unwrap();
        assert_eq!(changes.pods, HashSet::from(["ns_pod_uid".into()]));
        assert_eq!(
            changes.written,
            HashSet::from([("ns_pod_uid".into(), "script".into())])
        );

        // The same name again is another folder, to be watched anew.
        fs::remove_dir_all(&pod).unwrap();
        assert!(!watch.changes().unwrap().pods.is_empty());
        assert_eq!(watch.watched.len(), 1);
        watch
            .add(Path::new("/no/such/folder"), Place::Pod("x".into()))
            .unwrap();
    }
}
