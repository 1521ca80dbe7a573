//! Advisory locks: what keeps replicas from changing the same script's runs and figures at once.

use sqlx::PgConnection;

use crate::store::StoreError;

/// Keys are a kind in the highest 16 bits and the number of a script.
const SCRIPT: i64 = 0x5343 << 48;
const MERGING: i64 = 0x534d << 48;

/// Waits for the right to change runs and figures of these scripts, held until the transaction ends. They must be in
/// ascending order: two transactions that need the same ones then never wait for each other.
pub async fn scripts(connection: &mut PgConnection, scripts: &[i64]) -> Result<(), StoreError> {
    if scripts.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = scripts.iter().map(|script| SCRIPT | script).collect();
    sqlx::query("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key")
        .bind(keys)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the right to merge segments of a script until the transaction ends, unless another replica has it.
pub async fn try_merging(connection: &mut PgConnection, script_id: i64) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(MERGING | script_id)
        .fetch_one(connection)
        .await?)
}
