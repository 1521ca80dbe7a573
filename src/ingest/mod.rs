//! From the bytes of a pod's log to records in the store; the only place that understands what a pod prints.

pub mod parse;
pub mod record;
pub mod wire;
