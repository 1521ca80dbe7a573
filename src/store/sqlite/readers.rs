//! Connections that only read, each for one snapshot at a time.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

use crate::store::StoreError;

/// How long a reader waits for a lock, as while the write-ahead log is made anew.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that nobody needed for so long is closed when another comes back.
const IDLE: Duration = Duration::from_mins(1);

/// As many connections at once as there are places; who comes later waits.
pub struct Readers(Arc<Inner>);

struct Inner {
    path: PathBuf,
    places: Arc<Semaphore>,
    /// Those that nobody uses, with the time they came back; the latest is last.
    idle: Mutex<Vec<(Instant, Connection)>>,
    closed: AtomicBool,
}

/// A connection, and the place it takes. Dropped, it is given back.
pub struct Reader {
    /// None only while it is given back.
    connection: Option<Connection>,
    readers: Arc<Inner>,
    _place: OwnedSemaphorePermit,
}

impl Readers {
    /// So many for the file at `path`, each opened once it is needed.
    pub fn new(path: &Path, places: u32) -> Self {
        Self(Arc::new(Inner {
            path: path.to_owned(),
            places: Arc::new(Semaphore::new(places as usize)),
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// One of them, once there is a place.
    pub async fn reader(&self) -> Result<Reader, StoreError> {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let readers = Arc::clone(&self.0);
        let known = readers.idle().pop();
        let connection = if let Some((_, connection)) = known {
            connection
        } else {
            let readers = Arc::clone(&readers);
            let lost = |_| StoreError::Unusable("a database connection could not be opened".to_owned());
            task::spawn_blocking(move || open(&readers.path))
                .await
                .map_err(lost)??
        };
        Ok(Reader {
            connection: Some(connection),
            readers,
            _place: place,
        })
    }

    /// Closes what nobody uses; the others are closed as they come back.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.places.close();
        self.0.idle().clear();
    }
}

impl Inner {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// The connection.
    pub fn connection(&self) -> Result<&Connection, StoreError> {
        self.connection.as_ref().ok_or_else(|| {
            StoreError::Unusable("a database connection was given back before its time".to_owned())
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        // What could stop it must not stop the next; one that can not be used again is closed.
        let is_clean = connection.progress_handler(0, None::<fn() -> bool>).is_ok()
            && (connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok());
        if !is_clean {
            return;
        }
        let now = Instant::now();
        let mut idle = self.readers.idle();
        if self.readers.closed.load(Ordering::SeqCst) {
            return;
        }
        idle.retain(|(since, _)| now.duration_since(*since) < IDLE);
        idle.push((now, connection));
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}
