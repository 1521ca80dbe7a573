//! Exported files, opened with pandas and `DuckDB`.

use std::{path::Path, process::Command};

use serde_json::Value;

/// Fails where pandas or `DuckDB` reads other rows than these, the REST API's, out of the files.
pub fn read_back(rows: &Value, files: &[impl AsRef<Path>]) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("rows.json");
    std::fs::write(&path, rows.to_string()).unwrap();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exports/read_back"))
        .arg(&path)
        .args(files.iter().map(AsRef::as_ref))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
