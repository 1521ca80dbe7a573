//! Log lines as Parquet segments: writing and scanning; no SQL, no Kubernetes.

/// A segment that can not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Parquet's own word.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow's own word.
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    /// A column is missing or of another type.
    #[error("column {0} is missing or has another type")]
    Column(&'static str),
}
