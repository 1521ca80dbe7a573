//! What to do next with a stream's files. Pure: decides from what the file system and the operator said.

use std::{collections::HashSet, time::Duration};

use super::{layout::LogName, log_file::Inode};
use crate::ingest::wire::Position;

/// The file being read, as it is now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Bytes in it; none while reading has not yet found the end of a compressed file.
    pub size: Option<u64>,
    /// How far it is committed.
    pub read: u64,
    /// It does not change any more (a compressed file).
    pub is_complete: bool,
    /// The next file has begun.
    pub has_successor: bool,
    /// The container is no more: it was restarted, or its folder is gone.
    pub is_over: bool,
    /// How long it has not grown.
    pub quiet: Duration,
}

/// How long a file must not have grown until it counts as complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settle {
    /// After its successor has begun: the runtime flushes the old file a moment after it opened the new one.
    pub rotated: Duration,
    /// After its container is no more.
    pub over: Duration,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There are bytes to read. `sealed`: a last line without a line end will not get one any more.
    Read { sealed: bool },
    /// It is shorter than what was read of it.
    Truncated,
    /// It is read; go on with the next file.
    NextFile,
    /// The stream is read; say so.
    End,
    /// That was said before.
    Ended,
    /// Nothing to do now.
    Wait,
}

/// Decides what to do with the file being read.
pub(super) fn step(facts: &Facts, settle: Settle) -> Step {
    let sealed = facts.is_complete
        || (facts.has_successor && facts.quiet >= settle.rotated)
        || (facts.is_over && facts.quiet >= settle.over);
    let unread = match facts.size {
        // The end of a stream takes one offset after its last byte.
        Some(size) if facts.is_over && !facts.has_successor && size + 1 == facts.read => return Step::Ended,
        Some(size) if size < facts.read => return Step::Truncated,
        Some(size) => size > facts.read,
        None => true,
    };
    match (unread, sealed) {
        (true, _) => Step::Read { sealed },
        (false, true) if facts.has_successor => Step::NextFile,
        (false, true) if facts.is_over => Step::End,
        (false, _) => Step::Wait,
    }
}

/// Where a committed position lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// In this file.
    In(usize),
    /// In none: that file was deleted before it was read to its end.
    Lost,
    /// No file has a first line yet.
    NotYet,
}

/// Finds the file in which a committed position lies, among the identities of a stream's files.
pub(super) fn locate(identities: &[Option<&str>], position: &Position) -> Located {
    if position.file.is_empty() {
        return match identities {
            [] => Located::NotYet,
            _ => Located::In(0),
        };
    }
    let found = identities.iter().position(|id| *id == Some(&*position.file));
    match (found, identities.first()) {
        (Some(at), _) => Located::In(at),
        (None, Some(Some(_))) => Located::Lost,
        (None, _) => Located::NotYet,
    }
}

/// A file found in a container's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: LogName,
    pub inode: Inode,
}

/// What a listing of the folder means for the files held open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Held files (by place) that have a new name.
    pub renamed: Vec<(usize, LogName)>,
    /// Files to open, in the order in which they were written. All come after those held: a file that is not held is
    /// either done with or was begun after the last listing.
    pub open: Vec<Listed>,
}

/// Compares a listing with the files held open. `done` has the rotation times of files that were read.
pub(super) fn compare(held: &[(Inode, LogName)], listed: &[Listed], done: &HashSet<String>) -> Changes {
    let mut changes = Changes::default();
    for file in listed {
        let place = held.iter().position(|(inode, _)| *inode == file.inode);
        if let Some(place) = place {
            if held[place].1 != file.name {
                changes.renamed.push((place, file.name.clone()));
            }
            continue;
        }
        // kubelet compresses into a new file; the one held has the same bytes.
        let is_copy =
            file.name.rotated.is_some() && held.iter().any(|(_, name)| name.rotated == file.name.rotated);
        let is_done = file.name.rotated.as_ref().is_some_and(|time| done.contains(time));
        if !is_copy && !is_done {
            changes.open.push(file.clone());
        }
    }
    changes.open.sort_by(|a, b| a.name.order().cmp(&b.name.order()));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Settle = Settle {
        rotated: Duration::from_millis(500),
        over: Duration::from_secs(2),
    };
    const WRITTEN: Facts = Facts {
        size: Some(100),
        read: 100,
        is_complete: false,
        has_successor: false,
        is_over: false,
        quiet: Duration::from_mins(1),
    };

    #[test]
    fn a_file_is_left_only_when_its_successor_has_begun_and_it_is_quiet() {
        assert_eq!(step(&WRITTEN, SETTLE), Step::Wait);
        let rotated = Facts {
            has_successor: true,
            ..WRITTEN
        };
        assert_eq!(step(&rotated, SETTLE), Step::NextFile);
        let late = Duration::from_millis(499);
        assert_eq!(
            step(
                &Facts {
                    quiet: late,
                    ..rotated
                },
                SETTLE
            ),
            Step::Wait
        );
        let unread = Facts {
            size: Some(101),
            ..rotated
        };
        assert_eq!(step(&unread, SETTLE), Step::Read { sealed: true });
        assert_eq!(
            step(
                &Facts {
                    quiet: late,
                    ..unread
                },
                SETTLE
            ),
            Step::Read { sealed: false }
        );
        // A compressed file does not grow; only reading finds its end.
        let gzip = Facts {
            size: None,
            is_complete: true,
            quiet: Duration::ZERO,
            ..rotated
        };
        assert_eq!(step(&gzip, SETTLE), Step::Read { sealed: true });
        assert_eq!(
            step(
                &Facts {
                    size: Some(100),
                    ..gzip
                },
                SETTLE
            ),
            Step::NextFile
        );
    }

    #[test]
    fn a_stream_ends_once_with_its_container() {
        let over = Facts {
            is_over: true,
            ..WRITTEN
        };
        assert_eq!(step(&over, SETTLE), Step::End);
        assert_eq!(
            step(
                &Facts {
                    quiet: Duration::from_secs(1),
                    ..over
                },
                SETTLE
            ),
            Step::Wait
        );
        assert_eq!(
            step(&Facts { read: 99, ..over }, SETTLE),
            Step::Read { sealed: true }
        );
        assert_eq!(step(&Facts { read: 101, ..over }, SETTLE), Step::Ended);
        assert_eq!(step(&Facts { read: 101, ..WRITTEN }, SETTLE), Step::Truncated);
        assert_eq!(step(&Facts { read: 102, ..over }, SETTLE), Step::Truncated);
    }

    #[test]
    fn a_position_is_found_by_identity() {
        let at = |file: &str| Position {
            file: file.into(),
            ..Position::default()
        };
        let files = [Some("a"), Some("b"), None];
        assert_eq!(locate(&files, &at("")), Located::In(0));
        assert_eq!(locate(&files, &at("b")), Located::In(1));
        assert_eq!(locate(&files, &at("x")), Located::Lost);
        assert_eq!(locate(&[None], &at("x")), Located::NotYet);
        assert_eq!(locate(&[], &at("")), Located::NotYet);
    }

    fn name(text: &str) -> LogName {
        LogName::parse(text).unwrap()
    }

    fn listed(names: &[(&str, u64)]) -> Vec<Listed> {
        let file = |(text, inode): &(&str, u64)| Listed {
            name: name(text),
            inode: (0, *inode),
        };
        names.iter().map(file).collect()
    }

    #[test]
    fn rotation_and_compression_of_a_held_file_are_recognised() {
        let held = [((0, 1), name("0.log"))];
        let rotated = compare(&held, &listed(&[("0.log", 2), ("0.log.5", 1)]), &HashSet::new());
        assert_eq!(rotated.renamed, [(0, name("0.log.5"))]);
        assert_eq!(rotated.open, listed(&[("0.log", 2)]));

        let held = [((0, 1), name("0.log.5")), ((0, 2), name("0.log"))];
        let done = HashSet::from(["4".to_owned()]);
        let compressed = compare(
            &held,
            &listed(&[("0.log.4.gz", 7), ("0.log.5.gz", 8), ("0.log", 2)]),
            &done,
        );
        assert_eq!(compressed, Changes::default());
    }

    #[test]
    fn files_that_were_missed_are_opened_in_order() {
        let held = [((0, 1), name("0.log"))];
        let found = listed(&[("0.log", 9), ("0.log.7", 8), ("0.log.6.gz", 7), ("0.log.5", 1)]);
        let changes = compare(&held, &found, &HashSet::new());
        assert_eq!(changes.renamed, [(0, name("0.log.5"))]);
        assert_eq!(
            changes.open,
            listed(&[("0.log.6.gz", 7), ("0.log.7", 8), ("0.log", 9)])
        );
    }
}
