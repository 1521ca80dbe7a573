//! Every input that the fuzz targets keep, on the stable toolchain: what must hold of them holds. `make fuzz` looks for
//! new ones.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Shown where the check fails.
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is empty");
}

#[test]
fn entries_of_the_runtime() {
    replay("cri", checks::cri::check);
}

#[test]
fn records_of_a_stream() {
    replay("records", checks::records::check);
}

#[test]
fn filters() {
    replay("filter", checks::filter::check);
}
