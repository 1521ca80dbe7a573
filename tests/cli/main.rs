//! What a user gets at a terminal: the real command against the real web server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod answers;
mod calls;
#[path = "../runner/harness.rs"]
#[allow(dead_code)]
mod harness;
mod history;
mod proofs;
#[path = "../common/rows.rs"]
mod rows;
mod site;
mod stream;
