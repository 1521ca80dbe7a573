//! The runner as its callers and the readers of its output know it: the real binary with a real Python and a real Node.
#![allow(clippy::unwrap_used, clippy::expect_used)] // the helpers of tests are tests, too

#[path = "runner/asynchronous.rs"]
mod asynchronous;
#[path = "runner/calls.rs"]
mod calls;
#[path = "runner/examples.rs"]
mod examples;
#[path = "runner/harness.rs"]
mod harness;
#[path = "runner/hostile.rs"]
mod hostile;
#[path = "runner/keys.rs"]
mod keys;
#[path = "runner/lifecycle.rs"]
mod lifecycle;
#[path = "runner/limits.rs"]
mod limits;
#[path = "runner/node.rs"]
mod node;
#[path = "runner/outcomes.rs"]
mod outcomes;
#[path = "runner/output.rs"]
mod output;
