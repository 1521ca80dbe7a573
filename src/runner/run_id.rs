//! Ids of runs. The last eight digits name the runner that made the id, so that whoever is asked for a run knows whom to
//! ask; the rest is the time, a counter and what a UUID of version 7 has of chance.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use uuid::Uuid;

const PREFIX: &str = "run_";

/// Names a runner among those of its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerTag(u32);

impl RunnerTag {
    /// The tag of the runner with this address; without one it has no others beside it.
    pub fn of(address: Option<IpAddr>) -> Self {
        let digest = Sha256::digest(address.map_or_else(String::new, |ip| ip.to_string()));
        let [a, b, c, d] = digest.first_chunk().copied().unwrap_or_default();
        Self(u32::from_be_bytes([a, b, c, d]))
    }

    /// A new id.
    pub fn new_run_id(self) -> String {
        // The low 32 bits are chance alone, the counter lies above them.
        let unique = Uuid::now_v7().as_u128() >> 32 << 32;
        format!("{PREFIX}{:032x}", unique | u128::from(self.0))
    }

    /// The tag in an id; none if it is no id of a run.
    pub fn in_run_id(run_id: &str) -> Option<Self> {
        let digits = run_id.strip_prefix(PREFIX)?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digits.len() != 32 || !digits.bytes().all(is_hex) {
            return None;
        }
        u32::from_str_radix(digits.get(24..)?, 16).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_names_its_runner_and_no_two_are_alike() {
        let tag = |ip: &str| RunnerTag::of(Some(ip.parse().unwrap()));
        let (one, other) = (tag("10.0.0.7"), tag("10.0.0.8"));
        let ids: HashSet<String> = (0..10_000).map(|_| one.new_run_id()).collect();
        assert_eq!(ids.len(), 10_000);
        for id in &ids {
            assert_eq!((id.len(), RunnerTag::in_run_id(id)), (36, Some(one)));
            let uuid: Uuid = id.strip_prefix("run_").unwrap().parse().unwrap();
            assert_eq!(uuid.get_version_num(), 7);
        }
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_no_id_has_no_runner() {
        for text in [
            "",
            "run_",
            "run_0",
            &"x".repeat(36),
            &format!("run_{}", "A".repeat(32)),
            &format!("run_{}", "é".repeat(16)),
        ] {
            assert_eq!(RunnerTag::in_run_id(text), None, "{text}");
        }
    }
}
