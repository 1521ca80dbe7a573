//! Names in kubelet's log folder: `<namespace>_<pod>_<uid>/<container>/<restart>.log[.<rotated at>[.gz]]`.

use std::fmt;

/// Whose logs a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFolder {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
}

/// Reads the name of a pod's folder.
pub(super) fn pod_folder(name: &str) -> Option<PodFolder> {
    // None of the three can have an underscore in it.
    let mut parts = name.split('_');
    let folder = PodFolder {
        namespace: parts.next()?.to_owned(),
        pod: parts.next()?.to_owned(),
        uid: parts.next()?.to_owned(),
    };
    let whole = parts.next().is_none()
        && [&folder.namespace, &folder.pod, &folder.uid]
            .iter()
            .all(|p| !p.is_empty());
    whole.then_some(folder)
}

/// The name of a log file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LogName {
    pub restart: u32,
    /// When kubelet rotated it, in a form that sorts by time; none for the file being written.
    pub rotated: Option<String>,
    pub compressed: bool,
}

impl LogName {
    pub fn parse(name: &str) -> Option<Self> {
        let (restart, rest) = name.split_once(".log")?;
        let restart = restart.parse().ok()?;
        if rest.is_empty() {
            return Some(Self {
                restart,
                rotated: None,
                compressed: false,
            });
        }
        let rotated = rest.strip_prefix('.')?;
        let (rotated, compressed) = match rotated.strip_suffix(".gz") {
            Some(rotated) => (rotated, true),
            None => (rotated, false),
        };
        // Anything else, such as `.tmp`, is still being written by kubelet.
        let is_time = !rotated.is_empty() && rotated.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        is_time.then(|| Self {
            restart,
            rotated: Some(rotated.to_owned()),
            compressed,
        })
    }

    /// Rotated files oldest first, then the one being written.
    pub fn order(&self) -> (bool, &str, bool) {
        (
            self.rotated.is_none(),
            self.rotated.as_deref().unwrap_or_default(),
            self.compressed,
        )
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.log", self.restart)?;
        if let Some(rotated) = &self.rotated {
            write!(f, ".{rotated}")?;
        }
        f.write_str(if self.compressed { ".gz" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_their_pod() {
        let folder = pod_folder("shop_qbalance-7f-x2_0b1c-uid").unwrap();
        assert_eq!(
            (&*folder.namespace, &*folder.pod, &*folder.uid),
            ("shop", "qbalance-7f-x2", "0b1c-uid")
        );
        for name in ["shop", "shop_pod", "a_b_c_d", "__", "a__c"] {
            assert_eq!(pod_folder(name), None, "{name}");
        }
    }

    #[test]
    fn files_sort_in_the_order_they_were_written() {
        let mut names: Vec<_> = ["0.log", "0.log.20260103-000000", "0.log.20260102-235959.gz"]
            .map(|n| LogName::parse(n).unwrap())
            .into();
        names.sort_by(|a, b| a.order().cmp(&b.order()));
        let rotated: Vec<_> = names.iter().map(|n| n.rotated.as_deref()).collect();
        assert_eq!(rotated, [Some("20260102-235959"), Some("20260103-000000"), None]);
        for name in [
            "x.log",
            "0.log.20260102-235959.tmp",
            "0.log.",
            "0.logs",
            "0",
            "-1.log",
            "0.log.gz",
        ] {
            assert_eq!(LogName::parse(name), None, "{name}");
        }
    }
}
