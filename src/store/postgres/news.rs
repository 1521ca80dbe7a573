//! Telling other replicas which scripts have changed, and hearing it from them.
//!
//! Said after the commit and for many commits at once: a NOTIFY within the transaction would let only one commit
//! happen at a time in the whole database.

use std::{
    collections::BTreeSet,
    mem,
    sync::{PoisonError, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgListener;
use tokio::{sync::watch, time::sleep};

use super::Inner;
use crate::{model::ScriptKey, store::StoreError};

const CHANNEL: &str = "scriptscope_changes";
/// How long changes are gathered before they are told.
const PAUSE: Duration = Duration::from_millis(250);
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Postgres takes less than 8,000 bytes a notification.
const MOST_BYTES: usize = 7_900;

#[derive(Serialize, Deserialize)]
struct News {
    from: String,
    scripts: Vec<ScriptKey>,
}

/// A listener, already listening.
pub async fn listener(store: &Inner) -> Result<PgListener, StoreError> {
    let mut listener = PgListener::connect_with(&store.readers).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Notes what other replicas say, until the store is gone.
pub async fn hear(store: Weak<Inner>, mut listener: PgListener, mut stored: watch::Receiver<u64>) {
    loop {
        let heard = tokio::select! {
            heard = listener.try_recv() => heard,
            () = ended(&mut stored) => return,
        };
        let Some(store) = store.upgrade().filter(|store| !store.readers.is_closed()) else {
            return;
        };
        match heard {
            Ok(Some(notification)) => match serde_json::from_str::<News>(notification.payload()) {
                Ok(news) if news.from != store.id => {
                    news.scripts.iter().for_each(|script| store.changes.note(script));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "A notification of another replica is not understood."),
            },
            // The connection was lost, and what was said meanwhile: everything may have changed.
            Ok(None) => match store.scripts(None).await {
                Ok(scripts) => scripts.iter().for_each(|script| store.changes.note(script)),
                Err(error) => tracing::warn!(%error, "The scripts could not be listed."),
            },
            Err(error) => {
                tracing::warn!(%error, "Other replicas can not be heard.");
                drop(store);
                sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

/// Waits until the store is gone.
async fn ended(stored: &mut watch::Receiver<u64>) {
    while stored.changed().await.is_ok() {}
}

/// Tells other replicas what has changed here, until the store is gone.
pub async fn tell(store: Weak<Inner>, mut stored: watch::Receiver<u64>) {
    while stored.changed().await.is_ok() {
        sleep(PAUSE).await;
        let Some(store) = store.upgrade().filter(|store| !store.readers.is_closed()) else {
            return;
        };
        let scripts = mem::take(&mut *store.untold.lock().unwrap_or_else(PoisonError::into_inner));
        if scripts.is_empty() {
            continue;
        }
        let told = sqlx::query("SELECT pg_notify($1, news) FROM unnest($2::text[]) AS news")
            .bind(CHANNEL)
            .bind(payloads(&store.id, scripts.clone()))
            .execute(&store.pool)
            .await;
        if let Err(error) = told {
            tracing::warn!(%error, "Other replicas could not be told what has changed; it is tried again.");
            store
                .untold
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(scripts);
            store.stored.send_modify(|n| *n += 1);
        }
    }
}

/// The news as notifications, each short enough.
fn payloads(from: &str, scripts: BTreeSet<ScriptKey>) -> Vec<String> {
    // A key is two names of at most 253 bytes each.
    let at_once = MOST_BYTES / 600;
    let scripts: Vec<ScriptKey> = scripts.into_iter().collect();
    scripts
        .chunks(at_once)
        .filter_map(|scripts| {
            let scripts = scripts.to_vec();
            serde_json::to_string(&News {
                from: from.to_owned(),
                scripts,
            })
            .ok()
        })
        .collect()
}
