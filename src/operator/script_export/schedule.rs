//! When the files of a schedule are due. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::ScriptExport;

/// Says when an export was due, on those that a schedule has made.
pub const DUE: &str = "scriptscope.dev/due";

/// When a file was due, if a schedule asked for it.
pub fn due_of(export: &ScriptExport) -> Option<Timestamp> {
    export.annotations().get(DUE)?.parse().ok()
}
