//! `scriptscope dev`: the real command, called over HTTP, its folder edited, its terminal read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod endings;
mod harness;
mod runs;
mod saves;
mod surroundings;
