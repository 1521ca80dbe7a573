//! What people pack, and what nobody should.

use std::{
    fs,
    io::{Cursor, Seek, Write},
    os::unix::fs::PermissionsExt,
};

use ::tar::{Builder, EntryType, Header};
use ::zip::{ZipWriter, write::SimpleFileOptions};
use flate2::{Compression, write::GzEncoder};

use super::*;

const LIMITS: Limits = Limits {
    bytes: 10 << 20,
    entries: 500,
};

/// A folder beside which nothing may be written.
struct Sandbox {
    root: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("project")).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        Self { root }
    }

    fn unpack(&self, archive: &[u8]) -> Result<Vec<Link>, UnpackError> {
        let mut file = tempfile::tempfile_in(self.root.path()).unwrap();
        file.write_all(archive).unwrap();
        file.rewind().unwrap();
        let result = unpack(&mut file, &self.root.path().join("project"), LIMITS);
        assert_eq!(
            fs::read_dir(self.root.path()).unwrap().count(),
            2,
            "nothing beside the project"
        );
        let outside = fs::read_dir(self.root.path().join("outside")).unwrap();
        assert_eq!(outside.count(), 0, "nothing where a link led");
        result
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.path().join("project").join(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        let path = self.root.path().join("project").join(path);
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }
}

struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry whose names are what they are: the library would refuse some of them.
    fn entry(mut self, kind: EntryType, name: &str, target: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn refusal(archive: &[u8]) -> UnpackError {
    Sandbox::new().unpack(archive).map(|_| ()).unwrap_err()
}

#[test]
fn every_format_gives_the_same_files() {
    let tar = Tar::new()
        .entry(EntryType::Directory, "lib/", "", 0o700, b"")
        .file("main.py", "print(1)")
        .file("lib/util.py", "x = 1")
        .bytes();
    let zip = zipped(&[("main.py", "print(1)"), ("lib/util.py", "x = 1")]);
    for archive in [gzipped(&tar), tar, zip] {
        let sandbox = Sandbox::new();
        sandbox.unpack(&archive).unwrap();
        assert_eq!(sandbox.read("main.py"), "print(1)");
        assert_eq!(sandbox.read("lib/util.py"), "x = 1");
        assert_eq!((sandbox.mode("main.py"), sandbox.mode("lib")), (0o644, 0o755));
    }
}

#[test]
fn programs_stay_executable_and_nothing_else_of_a_mode_is_taken() {
    let tar = Tar::new()
        .entry(EntryType::Regular, "tool", "", 0o6711, b"#!/bin/sh")
        .entry(EntryType::Regular, "data", "", 0o666, b"1");
    let sandbox = Sandbox::new();
    sandbox.unpack(&tar.bytes()).unwrap();
    assert_eq!((sandbox.mode("tool"), sandbox.mode("data")), (0o755, 0o644));
}

#[test]
fn names_longer_than_a_header_are_read() {
    let long = format!("{}/{}.py", "folder".repeat(15), "name".repeat(30));
    let mut gnu = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    gnu.append_data(&mut header, &long, &b"g"[..]).unwrap();
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    let mut header = Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_path("short").unwrap();
    header.set_cksum();
    pax.append(&header, &b"p"[..]).unwrap();
    for (archive, content) in [(gnu, "g"), (pax, "p")] {
        let sandbox = Sandbox::new();
        sandbox.unpack(&archive.into_inner().unwrap()).unwrap();
        assert_eq!(sandbox.read(&long), content);
    }
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for name in ["../evil", "a/../../evil", "/evil", "a/../evil"] {
        for archive in [Tar::new().file(name, "x").bytes(), zipped(&[(name, "x")])] {
            let refused = refusal(&archive);
            assert!(
                matches!(&refused, UnpackError::Outside(n) if n == name),
                "{name}: {refused}"
            );
        }
    }
    let refused = refusal(&zipped(&[("..\\evil", "x")]));
    assert!(matches!(refused, UnpackError::Outside(_)), "{refused}");
    // Also where an extension names it.
    let mut pax = Builder::new(Vec::new());
    pax.append_pax_extensions([("path", &b"../evil"[..])]).unwrap();
    let archive = Tar(pax).file("good", "x").bytes();
    assert!(matches!(refusal(&archive), UnpackError::Outside(_)));
}

#[test]
fn links_that_lead_outside_are_refused() {
    for target in ["../outside", "/etc/passwd", "a/../../outside", "..", "a/../b", ""] {
        let refused = refusal(&Tar::new().link("way", target).file("way/file", "x").bytes());
        assert!(
            matches!(&refused, UnpackError::LinkOutside { .. }),
            "{target:?}: {refused}"
        );
    }
    for target in ["../../outside", "../a/../b", "../.."] {
        let refused = refusal(&Tar::new().link("deep/way", target).bytes());
        assert!(
            matches!(&refused, UnpackError::LinkOutside { .. }),
            "{target:?}: {refused}"
        );
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("way", "../outside", SimpleFileOptions::default())
        .unwrap();
    let refused = refusal(&zip.finish().unwrap().into_inner());
    assert!(matches!(refused, UnpackError::LinkOutside { .. }), "{refused}");
}

#[test]
fn nothing_is_written_through_a_link_and_none_is_made_below_one() {
    for archive in [
        Tar::new()
            .file("folder/a", "x")
            .link("way", "folder")
            .file("way/b", "x"),
        Tar::new().file("way/b", "x").link("way", "folder"),
        // Two links that are harmless alone: the second one would lie elsewhere than it says.
        Tar::new()
            .link("a/b/up", "../..")
            .link("a/b/up/out", "../../outside"),
        Tar::new()
            .link("a/b/up", "../..")
            .link("a/b/up/out", "../outside"),
    ] {
        let refused = refusal(&archive.bytes());
        assert!(
            matches!(refused, UnpackError::Twice(_) | UnpackError::LinkOutside { .. }),
            "{refused}"
        );
    }
}

#[test]
fn links_inside_are_made() {
    let sandbox = Sandbox::new();
    let archive = Tar::new()
        .link("bin/tool", "../lib/tool.py")
        .file("lib/tool.py", "1")
        .entry(EntryType::Link, "copy.py", "lib/tool.py", 0o644, b"");
    let links = sandbox.unpack(&archive.bytes()).unwrap();
    assert_eq!(
        (sandbox.read("bin/tool"), sandbox.read("copy.py")),
        ("1".into(), "1".into())
    );
    // One level higher it would lead out.
    assert_eq!(links.len(), 1);
    assert!(matches!(
        links[0].check_stripped(),
        Err(UnpackError::LinkOutside { .. })
    ));
}

#[test]
fn hard_links_name_earlier_files_alone() {
    let hard = |target: &str| {
        Tar::new()
            .entry(EntryType::Link, "copy", target, 0o644, b"")
            .bytes()
    };
    assert!(matches!(
        refusal(&hard("../outside")),
        UnpackError::LinkOutside { .. }
    ));
    assert!(matches!(
        refusal(&hard("/etc/passwd")),
        UnpackError::LinkOutside { .. }
    ));
    assert!(matches!(
        refusal(&hard("nothing")),
        UnpackError::LinkToNothing { .. }
    ));
}

#[test]
fn devices_and_pipes_are_refused() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
    ] {
        let refused = refusal(&Tar::new().entry(kind, "dev", "", 0o666, b"").bytes());
        assert!(matches!(refused, UnpackError::Kind { .. }), "{refused}");
    }
}

#[test]
fn bombs_are_stopped_at_the_limit() {
    let zeros = "\0".repeat(11 << 20);
    let tar = Tar::new().file("bomb", &zeros).bytes();
    for archive in [gzipped(&tar), zipped(&[("bomb", &zeros)])] {
        assert!(archive.len() < 1 << 20, "{}", archive.len());
        assert!(matches!(refusal(&archive), UnpackError::TooLarge(limit) if limit == LIMITS.bytes));
    }
    // Attributes of an entry would be held in memory.
    let long = Tar::new().entry(EntryType::GNULongName, "x", "", 0o644, &vec![b'a'; 1 << 20]);
    assert!(matches!(
        refusal(&gzipped(&long.bytes())),
        UnpackError::Damaged(_)
    ));
}

#[test]
fn a_hundred_thousand_files_are_too_many() {
    let many = (0..100_000).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), ""));
    assert!(
        matches!(refusal(&gzipped(&many.bytes())), UnpackError::TooMany(limit) if limit == LIMITS.entries)
    );
    let names: Vec<String> = (0..=LIMITS.entries).map(|n| format!("f{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(matches!(refusal(&zipped(&files)), UnpackError::TooMany(_)));
    // Folders count, also those that only a path names.
    let deep = (0..20).fold(Tar::new(), |tar, n| {
        tar.file(&format!("{n}/{}x", "d/".repeat(40)), "")
    });
    assert!(matches!(refusal(&deep.bytes()), UnpackError::TooMany(_)));
    let mut deeper = Builder::new(Vec::new());
    let path = format!("{}x", "d/".repeat(MAX_DEPTH));
    deeper.append_pax_extensions([("path", path.as_bytes())]).unwrap();
    let archive = Tar(deeper).file("x", "").bytes();
    assert!(matches!(refusal(&archive), UnpackError::PathTooLong(_)));
}

#[test]
fn archives_that_are_cut_off_are_refused_wherever_that_is() {
    let content = "x".repeat(3_000);
    let tar = Tar::new().file("a", &content).file("b", &content).bytes();
    for (archive, ends) in [
        (&tar, vec![600, 1_000, 3_900, 5_000]),
        (&gzipped(&tar), vec![20, 60]),
        (&zipped(&[("a", &content), ("b", &content)]), vec![40, 100]),
    ] {
        for end in ends {
            let refused = refusal(&archive[..end]);
            assert!(matches!(refused, UnpackError::Damaged(_)), "{end}: {refused}");
        }
    }
}

#[test]
fn what_is_no_archive_is_named_so() {
    for bytes in [&b""[..], b"<html>not found</html>", &[7; 1_000], b"\x89PNG\r\n"] {
        assert!(matches!(refusal(bytes), UnpackError::NotAnArchive));
    }
    assert!(refusal(b"\x1f\x8b broken").to_string().contains("damaged"));
}

#[test]
fn a_path_that_is_a_file_and_a_folder_is_refused() {
    for archive in [
        Tar::new().file("a", "1").file("a", "2"),
        Tar::new().file("a", "1").file("a/b", "2"),
        Tar::new().file("a/b", "1").file("a", "2"),
        Tar::new().file("a", "1").link("a", "b"),
    ] {
        let refused = refusal(&archive.bytes());
        assert!(matches!(refused, UnpackError::Twice(_)), "{refused}");
    }
}
