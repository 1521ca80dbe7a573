//! What must hold for any input: run by the fuzz targets on new inputs, and by `tests/fuzz_corpus.rs` on those kept.

pub mod cri;
pub mod filter;
mod read;
pub mod records;
