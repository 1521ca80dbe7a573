//! Files in S3. A file is sent in parts while it is written, and is there once its last part is, or not at all.

mod client;
mod error;
mod target;

use std::{
    io::{self, Write},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, future, stream};
use tokio::sync::mpsc;

use crate::store::Store;

use client::{Header, Part};
pub use client::{S3Http, S3Keys, S3Object};
pub use error::S3Error;
pub use target::S3Target;

use super::{
    ExportError, Plan,
    format::Format,
    hex,
    writing::{Pouring, Progress, Sink},
};

/// Bytes of a part; all have the same, since some servers want that.
const PART: usize = 8 << 20;
/// Parts there can be.
const PARTS: usize = 10_000;
/// Parts on their way at once. One more is being filled and two wait.
const PARTS_AT_ONCE: usize = 2;
/// Objects larger than that can not be copied by their server in one request, and say less of themselves.
const COPIED: u64 = 5 << 30;

/// What an object is said to be of, and holds.
const EXPORT: &str = "x-amz-meta-scriptscope-export";
const SHA256: &str = "x-amz-meta-sha256";
const ROWS: &str = "x-amz-meta-rows";

/// A file in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Rows, without the headings.
    pub rows: u64,
}

/// Writes an export from its beginning; uploads that an earlier attempt left are ended first. One that is there already
/// is left as it is. After an error, and if it is dropped, [`S3Object::abort_own`] is up to the caller.
pub async fn write(
    object: &S3Object,
    uid: &str,
    plan: Plan,
    format: Format,
    store: Arc<dyn Store>,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Stored, ExportError> {
    if let Some(stored) = object.existing(uid).await? {
        return Ok(stored);
    }
    object.clear().await?;
    let rows = Pouring::new(&store, plan, format).await?;
    let (sender, parts) = mpsc::channel(1);
    let out = Parts {
        sender,
        part: Vec::new(),
    };
    let report = |now| {
        progress(now);
        Ok(())
    };
    let basis = [
        ("content-type", format.media_type().to_owned()),
        (EXPORT, uid.to_owned()),
    ];
    let pour = rows.into(out, &report);
    let upload = async { Ok(upload(object, parts, &basis).await?) };
    let ((rows, written), uploaded) = future::try_join(pour, upload).await?;
    let stored = Stored {
        bytes: written.bytes,
        sha256: hex(&written.sha256),
        rows,
    };
    let mut headers = basis.to_vec();
    headers.push((SHA256, stored.sha256.clone()));
    headers.push((ROWS, stored.rows.to_string()));
    match uploaded {
        Uploaded::Whole(whole) => object.put(whole, &headers).await?,
        Uploaded::Parts(tags) => {
            object.finish(&tags, uid).await?;
            // Its upload began before its checksum was known. What it lacks without it is in the status.
            if stored.bytes <= COPIED
                && let Err(error) = object.describe(&headers).await
            {
                tracing::warn!(%error, "The metadata of an export in S3 could not be completed.");
            }
        }
    }
    Ok(stored)
}

/// What is sent before a file is known to be whole.
enum Uploaded {
    /// Nothing: it is small enough for one request.
    Whole(Part),
    /// Everything; here is what the server calls each part.
    Parts(Vec<String>),
}

async fn upload(
    object: &S3Object,
    mut parts: mpsc::Receiver<Part>,
    headers: &[Header],
) -> Result<Uploaded, S3Error> {
    let first = parts.recv().await.unwrap_or_else(|| Part::new(Vec::new()));
    let Some(second) = parts.recv().await else {
        return Ok(Uploaded::Whole(first));
    };
    object.begin(headers).await?;
    let rest = stream::poll_fn(move |context| parts.poll_recv(context));
    let sent = stream::iter([first, second])
        .chain(rest)
        .enumerate()
        .map(|(index, part)| async move {
            let number = u16::try_from(index + 1).ok().filter(|n| usize::from(*n) <= PARTS);
            let number = number.ok_or(S3Error::TooLarge((PART * PARTS) as u64))?;
            object.part(number, part).await
        })
        .buffered(PARTS_AT_ONCE);
    Ok(Uploaded::Parts(sent.try_collect().await?))
}

impl S3Object {
    /// The object, if an earlier attempt has made it; an error if something else has its name.
    async fn existing(&self, uid: &str) -> Result<Option<Stored>, S3Error> {
        let Some(head) = self.head().await? else {
            return Ok(None);
        };
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        if header(EXPORT) != Some(uid) {
            return Err(S3Error::Taken(self.url()));
        }
        let number = |name: &str| header(name).and_then(|text| text.parse().ok());
        let stored = || {
            Some(Stored {
                bytes: number("content-length")?,
                sha256: header(SHA256)?.to_owned(),
                rows: number(ROWS)?,
            })
        };
        // Without a checksum: it is written over.
        Ok(stored())
    }

    /// Makes the object of its parts; that may have happened where the answer was lost.
    async fn finish(&self, tags: &[String], uid: &str) -> Result<(), S3Error> {
        match self.complete(tags).await {
            Err(S3Error::NoUpload) => match self.head().await? {
                Some(head) if head.headers.get(EXPORT).is_some_and(|value| value == uid) => Ok(()),
                _ => Err(S3Error::NoUpload),
            },
            result => result,
        }
    }

    /// Ends what earlier attempts left, where the credentials allow to look for it. The first request whose answer says why
    /// it is refused, before anything is read.
    async fn clear(&self) -> Result<(), S3Error> {
        match self.abort_all().await {
            Err(S3Error::Denied { code, .. }) if code == "AccessDenied" => {
                tracing::info!("The credentials of an export do not allow to look for unfinished uploads.");
                Ok(())
            }
            Err(error @ S3Error::Refused { .. }) => {
                tracing::info!(%error, "Unfinished uploads of an export could not be looked for.");
                Ok(())
            }
            result => result,
        }
    }

    /// Ends what has begun, and removes the object if it is of this export.
    pub async fn withdraw(&self, uid: &str) -> Result<(), S3Error> {
        // What is begun ends first; the rest is asked at once, so that a server that is far away is asked but twice in turn.
        self.abort_own().await?;
        let ((), head) = future::try_join(self.clear(), self.head()).await?;
        match head {
            Some(head) if head.headers.get(EXPORT).is_some_and(|value| value == uid) => self.delete().await,
            _ => Ok(()),
        }
    }
}

/// Gathers bytes into parts. Blocking, where the network is slower.
struct Parts {
    sender: mpsc::Sender<Part>,
    part: Vec<u8>,
}

impl Parts {
    fn send(&mut self) -> io::Result<()> {
        let part = Part::new(std::mem::take(&mut self.part));
        self.sender
            .blocking_send(part)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == PART {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Parts {
    fn close(mut self) -> io::Result<()> {
        if self.part.is_empty() { Ok(()) } else { self.send() }
    }
}
