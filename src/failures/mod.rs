//! Failed runs grouped by what failed. Pure.

mod frame;
mod groups;
mod message;

pub use frame::Frame;
pub use groups::{FailedRun, FailureGroup, Failures, Grouping};
