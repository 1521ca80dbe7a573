//! Writing down which texts segments may have, each by one replica.

use super::{Inner, segments};
use crate::store::{
    StoreError,
    text_index::{Indexing, Worker},
};

impl Indexing for Inner {
    async fn index_once(&self, worker: &Worker) -> Result<bool, StoreError> {
        let mut transaction = self.readers.begin().await?;
        // Those that other replicas are busy with are locked.
        let next: Option<i64> = sqlx::query_scalar(
            "DELETE FROM log_segments_to_index WHERE segment_id = (SELECT segment_id FROM log_segments_to_index \
             ORDER BY segment_id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING segment_id",
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(segment_id) = next else {
            return Ok(false);
        };
        if let Some(body) = segments::body(&mut transaction, segment_id).await? {
            let grams = worker.grams(body).await?;
            segments::index(&mut transaction, segment_id, &grams).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    fn is_closed(&self) -> bool {
        self.readers.is_closed()
    }
}
