//! Tells people why a container of a script's pod can not do its work, where Kubernetes looks and where they do.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
};

/// Exit code of a container whose script can not be used as it is (`EX_CONFIG`): trying again does not help.
pub const EXIT_UNUSABLE: i32 = 78;
/// What kubelet reads of a termination message.
pub const MAX_MESSAGE: usize = 4096;
/// Where kubelet looks for the reason.
const KUBERNETES_LOG: &str = "/dev/termination-log";

/// Writes the reason, its end cut off where it is too long. `log` is the file that kubelet reads, if it is another one.
pub fn tell(log: Option<PathBuf>, reason: &str) {
    let reason = head(reason);
    let mut options = fs::OpenOptions::new();
    options.write(true).truncate(true);
    options.create(log.is_some());
    // Outside Kubernetes there is none.
    if let Ok(mut file) = options.open(log.unwrap_or_else(|| KUBERNETES_LOG.into())) {
        let _ = file.write_all(reason.as_bytes());
    }
    let _ = writeln!(io::stderr(), "{reason}");
}

fn head(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_MESSAGE))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(head("short"), "short");
        let long = "ä".repeat(MAX_MESSAGE);
        assert_eq!(head(&format!("x{long}")).len(), MAX_MESSAGE - 1);
    }
}
