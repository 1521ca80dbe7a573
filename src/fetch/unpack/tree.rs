//! The folder that an archive is unpacked into.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Component, Path, PathBuf},
};

use super::{BUFFER, Limits, MAX_DEPTH, MAX_PATH, UnpackError, damaged};

/// Links that may be remembered until the files are written.
const MAX_LINKS: usize = 10_000;

/// A path below the folder, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
}

/// A symbolic link, made when all files are there.
pub struct Link {
    place: Place,
    target: PathBuf,
}

impl Link {
    /// Whether it would still lead nowhere else if all that is in the archive's only folder lay one level higher.
    pub fn check_stripped(&self) -> Result<(), UnpackError> {
        let mut parts = self.place.path.components();
        parts.next();
        if stays_inside(parts.as_path(), &self.target) {
            Ok(())
        } else {
            Err(self.outside())
        }
    }

    fn outside(&self) -> UnpackError {
        UnpackError::LinkOutside {
            name: self.place.name(),
            target: shown(&self.target),
        }
    }
}

/// The folder and what may still be written there.
pub struct Tree {
    root: PathBuf,
    limits: Limits,
    entries: u64,
    bytes: u64,
    links: Vec<Link>,
    /// The folder that the last entry lay in, which is there.
    parent: PathBuf,
    buffer: Vec<u8>,
}

impl Tree {
    pub fn new(root: &Path, limits: Limits) -> Self {
        Self {
            root: root.to_owned(),
            limits,
            entries: 0,
            bytes: 0,
            links: Vec::new(),
            parent: PathBuf::new(),
            buffer: vec![0; BUFFER],
        }
    }

    /// What an archive may hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// A folder; it may be there already.
    pub fn folder(&mut self, place: &Place) -> Result<(), UnpackError> {
        let mut path = PathBuf::new();
        for part in place.path.components() {
            path.push(part);
            let full = self.root.join(&path);
            match DirBuilder::new().mode(0o755).create(&full) {
                Ok(()) => self.count(1)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let there = fs::symlink_metadata(&full).is_ok_and(|meta| meta.is_dir());
                    if !there {
                        return Err(UnpackError::Twice(place.name()));
                    }
                }
                Err(source) => return Err(write_error(place, source)),
            }
        }
        Ok(())
    }

    /// A file with everything that `content` gives; how many bytes that is.
    pub fn file(
        &mut self,
        place: &Place,
        executable: bool,
        content: &mut impl Read,
    ) -> Result<u64, UnpackError> {
        let mut file = self.create(place, if executable { 0o755 } else { 0o644 })?;
        let mut written = 0;
        loop {
            let read = match content.read(&mut self.buffer) {
                Ok(0) => return Ok(written),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            written += read as u64;
            self.bytes += read as u64;
            if self.bytes > self.limits.bytes {
                return Err(UnpackError::TooLarge(self.limits.bytes));
            }
            let chunk = self.buffer.get(..read).unwrap_or_default();
            file.write_all(chunk)
                .map_err(|source| write_error(place, source))?;
        }
    }

    /// A symbolic link, made by [`Self::finish`].
    pub fn link(&mut self, place: Place, target: &Path) -> Result<(), UnpackError> {
        self.count(1)?;
        if self.links.len() >= MAX_LINKS {
            return Err(UnpackError::TooMany(MAX_LINKS as u64));
        }
        let link = Link {
            place,
            target: target.to_owned(),
        };
        if !stays_inside(&link.place.path, target) {
            return Err(link.outside());
        }
        self.links.push(link);
        Ok(())
    }

    /// One more name of a file that was unpacked before.
    pub fn hard_link(&mut self, place: &Place, target: &Path) -> Result<(), UnpackError> {
        let nothing = || UnpackError::LinkToNothing {
            name: place.name(),
            target: shown(target),
        };
        let earlier = Place::new(target).map_err(|_| UnpackError::LinkOutside {
            name: place.name(),
            target: shown(target),
        })?;
        let from = self.root.join(earlier.ok_or_else(nothing)?.path);
        // There are no symbolic links yet, so this is one of our files.
        if !fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
            return Err(nothing());
        }
        self.count(1)?;
        self.parent_of(place)?;
        fs::hard_link(from, self.root.join(&place.path)).map_err(|source| write_error(place, source))
    }

    /// Makes the links; these.
    pub fn finish(self) -> Result<Vec<Link>, UnpackError> {
        for Link { place, target } in &self.links {
            // Its own folder must be none that a link made up: the target was checked from where it says it is.
            let mut path = self.root.clone();
            for part in place.path.parent().unwrap_or(Path::new("")).components() {
                path.push(part);
                match DirBuilder::new().mode(0o755).create(&path) {
                    Ok(()) => {}
                    Err(_) if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(UnpackError::Twice(place.name()));
                    }
                    Err(source) => return Err(write_error(place, source)),
                }
            }
            symlink(target, self.root.join(&place.path)).map_err(|source| write_error(place, source))?;
        }
        Ok(self.links)
    }

    fn create(&mut self, place: &Place, mode: u32) -> Result<File, UnpackError> {
        self.count(1)?;
        self.parent_of(place)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(self.root.join(&place.path))
            .map_err(|source| write_error(place, source))
    }

    fn parent_of(&mut self, place: &Place) -> Result<(), UnpackError> {
        let parent = place.path.parent().unwrap_or(Path::new(""));
        if parent != self.parent {
            self.folder(&Place {
                path: parent.to_owned(),
            })?;
            parent.clone_into(&mut self.parent);
        }
        Ok(())
    }

    fn count(&mut self, more: u64) -> Result<(), UnpackError> {
        self.entries += more;
        if self.entries > self.limits.entries {
            return Err(UnpackError::TooMany(self.limits.entries));
        }
        Ok(())
    }
}

impl Place {
    /// A checked path; none for the folder itself.
    pub fn new(path: &Path) -> Result<Option<Self>, UnpackError> {
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(UnpackError::Outside(shown(path)));
                }
            }
        }
        if clean.as_os_str().is_empty() {
            return Ok(None);
        }
        if clean.as_os_str().len() > MAX_PATH || clean.components().count() > MAX_DEPTH {
            return Err(UnpackError::PathTooLong(shown(path)));
        }
        Ok(Some(Self { path: clean }))
    }

    /// For messages.
    pub fn name(&self) -> String {
        shown(&self.path)
    }
}

/// Whether a link's target can only lie inside. See the head of [`super`].
fn stays_inside(place: &Path, target: &Path) -> bool {
    let mut climbs = 0;
    let mut descended = false;
    for part in target.components() {
        match part {
            Component::ParentDir if descended => return false,
            Component::ParentDir => climbs += 1,
            Component::Normal(_) => descended = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    let depth = place.components().count().saturating_sub(1);
    let named = !target.as_os_str().is_empty() && target.as_os_str().len() <= MAX_PATH;
    named && climbs <= depth
}

fn write_error(place: &Place, source: io::Error) -> UnpackError {
    match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            UnpackError::Twice(place.name())
        }
        _ => UnpackError::Write {
            name: place.name(),
            source,
        },
    }
}

/// A path for a message: its beginning, where it is long.
pub fn shown(path: &Path) -> String {
    let text = OsString::from(path).to_string_lossy().into_owned();
    let end = text.floor_char_boundary(200);
    match text.get(..end) {
        Some(head) if head.len() < text.len() => format!("{head}..."),
        _ => text,
    }
}
