//! Writing down which texts segments may have.

use super::{Inner, segments};
use crate::store::{
    StoreError,
    text_index::{Indexing, Worker},
};

impl Indexing for Inner {
    async fn index_once(&self, worker: &Worker) -> Result<bool, StoreError> {
        let mut reader = self.readers.acquire().await?;
        let next: Option<i64> = sqlx::query_scalar("SELECT min(segment_id) FROM log_segments_to_index")
            .fetch_one(&mut *reader)
            .await?;
        let Some(segment_id) = next else {
            return Ok(false);
        };
        let body = segments::body(&mut reader, segment_id).await?;
        drop(reader);
        let grams = match body {
            Some(body) => worker.grams(body).await?,
            // It has gone meanwhile.
            None => Vec::new(),
        };
        self.writer
            .write(move |connection| {
                Box::pin(async move { segments::index(connection, segment_id, &grams).await })
            })
            .await?;
        Ok(true)
    }

    fn is_closed(&self) -> bool {
        self.readers.is_closed()
    }
}
