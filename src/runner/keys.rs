//! The API keys that callers need, where the script asks for them.
//!
//! The script's processes have the runner's user and see its files, so none of these may hold a key. A container beside
//! the script's reads the Secret and writes the hashes of its keys for the runner ([`super::hash_keys`]).

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::refusal::Refusal;

/// Header in which a caller shows its key.
pub const API_KEY: &str = "x-api-key";
/// How often to look whether the file has changed, at most.
const LOOK: Duration = Duration::from_secs(1);

/// The file between both: names of keys, and the SHA-256 of each in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashedKeys {
    /// By name.
    pub keys: BTreeMap<String, String>,
}

/// The keys that are valid.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    looked: Option<Instant>,
    version: Option<Version>,
    keys: Option<Arc<Vec<Key>>>,
}

/// Tells one content of the file from another.
type Version = (u64, i64, i64, u64);

#[derive(Debug)]
struct Key {
    name: String,
    sha256: [u8; 32],
}

impl Keys {
    /// The keys in a file, which may not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            cached: Mutex::default(),
        }
    }

    /// Whether the keys are known.
    pub fn are_known(&self) -> bool {
        self.current().is_some()
    }

    /// The name of the key that a caller shows.
    pub fn check(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let keys = self
            .current()
            .ok_or_else(|| Refusal::not_ready("the API keys are not known yet; try again soon"))?;
        if keys.is_empty() {
            return Err(Refusal::no_keys());
        }
        let mut shown = shown(headers).peekable();
        if shown.peek().is_none() {
            return Err(Refusal::no_key());
        }
        shown
            .find_map(|key| name_of(&keys, key))
            .ok_or_else(Refusal::wrong_key)
    }

    /// The keys as the file has them now, or a second ago. What can not be read leaves them as they were.
    fn current(&self) -> Option<Arc<Vec<Key>>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = cached.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if !is_fresh || cached.keys.is_none() {
            cached.looked = Some(Instant::now());
            let result = self.refresh(&mut cached);
            if let Err(error) = result
                && cached.keys.is_some()
            {
                tracing::warn!(%error, "The API keys can not be read again; those known stay valid.");
            }
        }
        cached.keys.clone()
    }

    fn refresh(&self, cached: &mut Cached) -> io::Result<()> {
        let version = version(&fs::metadata(&self.path)?);
        if cached.version == Some(version) {
            return Ok(());
        }
        let file: HashedKeys = serde_json::from_slice(&fs::read(&self.path)?)?;
        let keys: Vec<Key> = file
            .keys
            .into_iter()
            .filter_map(|(name, digits)| {
                Some(Key {
                    name,
                    sha256: from_hex(&digits)?,
                })
            })
            .collect();
        tracing::debug!(keys = keys.len(), "The API keys were read.");
        cached.keys = Some(Arc::new(keys));
        cached.version = Some(version);
        Ok(())
    }
}

fn version(file: &Metadata) -> Version {
    (file.ino(), file.mtime(), file.mtime_nsec(), file.len())
}

/// The keys in the headers.
fn shown(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let own = headers.get(API_KEY).map(HeaderValue::as_bytes);
    own.into_iter()
        .chain(bearer)
        .map(<[u8]>::trim_ascii)
        .filter(|key| !key.is_empty())
}

/// Compares with every key, each in the same time whatever it is.
fn name_of(keys: &[Key], shown: &[u8]) -> Option<String> {
    let digest: [u8; 32] = Sha256::digest(shown).into();
    keys.iter().fold(None, |found, key| {
        let same: bool = key.sha256.ct_eq(&digest).into();
        if same { Some(key.name.clone()) } else { found }
    })
}

/// The hash of a key as the file has it.
pub fn hashed(key: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(key)
        .iter()
        .fold(String::new(), |mut digits, byte| {
            let _ = write!(digits, "{byte:02x}");
            digits
        })
}

fn from_hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn file(keys: &[(&str, &str)]) -> (tempfile::TempDir, Keys) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = keys
            .iter()
            .map(|(name, key)| ((*name).to_owned(), hashed(key.as_bytes())));
        let file = HashedKeys { keys: keys.collect() };
        fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        let keys = Keys::new(path);
        (folder, keys)
    }

    #[test]
    fn a_key_is_known_by_its_name_in_either_header() {
        let (_folder, keys) = file(&[
            ("billing", "first-key-of-all-keys"),
            ("crm", "second-key-of-all-keys"),
        ]);
        for (pairs, name) in [
            (&[("x-api-key", "first-key-of-all-keys")][..], "billing"),
            (&[("authorization", "Bearer second-key-of-all-keys")], "crm"),
            (&[("authorization", "bearer  second-key-of-all-keys ")], "crm"),
            (
                &[
                    ("x-api-key", "none"),
                    ("authorization", "Bearer first-key-of-all-keys"),
                ],
                "billing",
            ),
        ] {
            assert_eq!(keys.check(&headers(pairs)).unwrap(), name, "{pairs:?}");
        }
        for (pairs, code) in [
            (&[][..], "ApiKeyMissing"),
            (&[("authorization", "Bearer ")], "ApiKeyMissing"),
            (
                &[("authorization", "Basic first-key-of-all-keys")],
                "ApiKeyMissing",
            ),
            (&[("x-api-key", "first-key-of-all-key")], "ApiKeyInvalid"),
            (&[("x-api-key", "First-key-of-all-keys")], "ApiKeyInvalid"),
        ] {
            let refusal = keys.check(&headers(pairs)).unwrap_err();
            assert_eq!((refusal.code, refusal.status.as_u16()), (code, 401), "{pairs:?}");
            assert!(!refusal.message.contains("first"), "{}", refusal.message);
        }
    }

    #[test]
    fn without_keys_nobody_is_let_in() {
        let (_folder, none) = file(&[]);
        assert!(none.are_known());
        assert_eq!(none.check(&headers(&[])).unwrap_err().code, "NoApiKeys");
        let missing = Keys::new("/no/such/file".into());
        assert!(!missing.are_known());
        let refusal = missing.check(&headers(&[("x-api-key", "x")])).unwrap_err();
        assert_eq!(refusal.status.as_u16(), 503);
    }
}
