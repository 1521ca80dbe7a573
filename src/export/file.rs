//! Exports on the operator's volume: `<data dir>/exports/<namespace>/<export>/` holds the file and, beside it, a
//! description. The description appears last, so an export that has one is complete.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use tokio::{fs, io::AsyncWriteExt};

use crate::{
    model::{Filter, ScriptKey},
    store::Store,
};

use super::{ExportError, Plan, Table, disk::Steady, format::Format, hex, writing::Pouring};

pub use super::writing::Progress;

/// Name of the description. No file of rows ends in `.json`.
const SIDECAR: &str = "export.json";
/// Room on the volume that no export takes: the store may lie there, too, and must go on.
const KEPT_FREE: u64 = 64 << 20;
/// How often the removal of a folder is tried, in which something may just be coming to its end.
const REMOVALS: u32 = 5;

/// What an export holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// UID of the `ScriptExport`, so that another one of the same name never passes for it.
    pub uid: String,
    /// Whose rows.
    pub script: ScriptKey,
    /// What rows.
    pub data: Table,
    /// First moment of the range.
    pub from: Option<Timestamp>,
    /// First moment after the range.
    pub to: Option<Timestamp>,
    /// Which rows.
    pub filter: Filter,
    /// How they are written.
    #[serde(default)]
    pub format: Format,
    /// What is said of them; empty in a description from before columns could be chosen.
    #[serde(default)]
    pub columns: Vec<String>,
    /// When it was due, if a schedule asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Name of the file.
    pub file_name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Rows, without the headings.
    pub rows: u64,
}

/// A `ScriptExport` by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// The folder of all exports.
#[derive(Clone, Debug)]
pub struct ExportFolder {
    root: PathBuf,
    kept_free: u64,
}

impl ExportFolder {
    /// The folder within the operator's data folder. It need not exist.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("exports"),
            kept_free: KEPT_FREE,
        }
    }

    /// The same folder, on a volume of which so many bytes are to stay free.
    #[must_use]
    pub fn keep_free(self, bytes: u64) -> Self {
        Self {
            kept_free: bytes,
            ..self
        }
    }

    /// Fails where the volume is almost full.
    fn check_room(&self) -> Result<(), ExportError> {
        let volume = statvfs(&self.root).map_err(io::Error::from)?;
        let free = volume.blocks_available().saturating_mul(volume.fragment_size());
        if free < self.kept_free {
            return Err(ExportError::Full(self.kept_free));
        }
        Ok(())
    }

    /// The folder of one export; only for names that Kubernetes allows, none of which leads out of the root.
    fn of(&self, key: &ExportKey) -> Result<PathBuf, ExportError> {
        for name in [&key.namespace, &key.name] {
            if !is_object_name(name) {
                return Err(ExportError::Name(name.chars().take(100).collect()));
            }
        }
        Ok(self.root.join(&key.namespace).join(&key.name))
    }

    /// The description and path of a complete export; none if there is no such export (yet).
    pub async fn find(&self, key: &ExportKey) -> Result<Option<(Sidecar, PathBuf)>, ExportError> {
        let folder = self.of(key)?;
        let text = match fs::read(folder.join(SIDECAR)).await {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let sidecar: Sidecar = serde_json::from_slice(&text)?;
        // Not from the description: nothing it says may lead out of the folder.
        let path = folder.join(
            sidecar
                .data
                .file_name_due(&sidecar.script.name, sidecar.due, sidecar.format),
        );
        if !is_object_name(&sidecar.script.name) {
            return Err(ExportError::Name(sidecar.script.name));
        }
        match fs::metadata(&path).await {
            Ok(data) if data.len() == sidecar.bytes => Ok(Some((sidecar, path))),
            Ok(data) => Err(ExportError::Io(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has {} bytes instead of {}", data.len(), sidecar.bytes),
            ))),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes an export from its beginning; whatever an earlier attempt left is removed first. `progress` hears of
    /// every page.
    pub async fn write(
        &self,
        key: &ExportKey,
        uid: &str,
        plan: Plan,
        format: Format,
        store: Arc<dyn Store>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Sidecar, ExportError> {
        let folder = self.of(key)?;
        if !is_object_name(&plan.script.name) {
            return Err(ExportError::Name(plan.script.name));
        }
        let mut sidecar = Sidecar {
            uid: uid.to_owned(),
            script: plan.script.clone(),
            data: plan.table(),
            from: plan.range.from,
            to: plan.range.to,
            filter: plan.filter.clone(),
            format,
            columns: plan.columns.headings().into_iter().map(str::to_owned).collect(),
            due: plan.due,
            file_name: plan.file_name(format),
            bytes: 0,
            sha256: String::new(),
            rows: 0,
        };
        let rows = Pouring::new(&store, plan, format).await?;
        self.remove(key).await?;
        fs::create_dir_all(&folder).await?;

        let file = NewFile::create(&folder, &sidecar.file_name).await?;
        let out = Steady::new(file.file.try_clone().await?.into_std().await);
        let report = |now| {
            progress(now);
            self.check_room()
        };
        let (rows, written) = rows.into(out, &report).await?;
        file.finish().await?;
        (sidecar.rows, sidecar.bytes) = (rows, written.bytes);
        sidecar.sha256 = hex(&written.sha256);

        let mut description = NewFile::create(&folder, SIDECAR).await?;
        description.file.write_all(&serde_json::to_vec(&sidecar)?).await?;
        description.finish().await?;
        for new in [&*folder, &*self.root.join(&key.namespace), &*self.root] {
            fs::File::open(new).await?.sync_all().await?;
        }
        Ok(sidecar)
    }

    /// Removes an export and whatever an attempt at it left. No error if there is none.
    pub async fn remove(&self, key: &ExportKey) -> Result<(), ExportError> {
        let folder = self.of(key)?;
        // First what makes it complete, so that half an export is never served.
        absent(fs::remove_file(folder.join(SIDECAR)).await)?;
        for _ in 1..REMOVALS {
            match fs::remove_dir_all(&folder).await {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                result => return Ok(absent(result)?),
            }
        }
        Ok(absent(fs::remove_dir_all(&folder).await)?)
    }

    /// Every export that has a folder, with the UID it was made for where it is complete.
    pub async fn list(&self) -> Result<Vec<(ExportKey, Option<String>)>, ExportError> {
        let mut found = Vec::new();
        for namespace in names_in(&self.root).await? {
            for name in names_in(&self.root.join(&namespace)).await? {
                let key = ExportKey {
                    namespace: namespace.clone(),
                    name,
                };
                // An unreadable description is that of no export.
                let uid = self.find(&key).await.ok().flatten().map(|(s, _)| s.uid);
                found.push((key, uid));
            }
        }
        Ok(found)
    }
}

/// What is gone need not be removed.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A file that has its name only once it is complete and on disk.
struct NewFile {
    file: fs::File,
    temporary: PathBuf,
    path: PathBuf,
}

impl NewFile {
    async fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let temporary = folder.join(format!(".{name}.partial"));
        Ok(Self {
            file: fs::File::create(&temporary).await?,
            temporary,
            path: folder.join(name),
        })
    }

    async fn finish(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        fs::rename(&self.temporary, &self.path).await
    }
}

/// Names of the folders in a folder; none if it does not exist.
async fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut entries = match fs::read_dir(folder).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if let (true, Ok(name)) = (entry.file_type().await?.is_dir(), entry.file_name().into_string())
            && is_object_name(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether Kubernetes allows an object to have this name (a DNS subdomain).
pub fn is_object_name(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
            && bytes.first().is_some_and(|&b| alphanumeric(b))
            && bytes.last().is_some_and(|&b| alphanumeric(b))
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_from_before_formats_is_of_a_plain_csv_file() {
        let before = r#"{"uid":"u","script":{"namespace":"shop","name":"pay"},"data":"Runs","from":null,"to":null,
            "filter":{"match":"All","conditions":[]},"fileName":"pay_runs_data.csv","bytes":9,"sha256":"ab","rows":0}"#;
        let sidecar: Sidecar = serde_json::from_str(before).unwrap();
        assert_eq!(sidecar.format, Format::default());
        let now = serde_json::to_string(&Sidecar {
            format: Format::Parquet,
            ..sidecar.clone()
        });
        let read: Sidecar = serde_json::from_str(&now.unwrap()).unwrap();
        assert_eq!(read.format, Format::Parquet);
        assert_eq!(read.script, sidecar.script);
    }

    #[test]
    fn only_names_of_kubernetes_make_a_path() {
        for name in ["a", "shop", "my-export.v1", "0"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in [
            "", ".", "..", "a..b", "../x", "a/b", "A", "-a", "a-", "a\0", "a\\b", ".a",
        ] {
            assert!(!is_object_name(name), "{name}");
        }
        let folder = ExportFolder::new(Path::new("/data"));
        let key = ExportKey {
            namespace: "..".into(),
            name: "x".into(),
        };
        assert!(matches!(folder.of(&key), Err(ExportError::Name(_))));
    }
}
