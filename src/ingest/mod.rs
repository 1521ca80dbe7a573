//! From the bytes of a pod's log to records in the store; the only place that understands what a pod prints.

mod access;
mod batch;
mod checkpoints;
pub mod lines;
pub mod parse;
pub mod record;
mod service;
pub mod wire;

pub use access::{AgentAuthenticator, AgentIdentity, AuthError, CommitListener, PodDirectory, PodKnowledge};
pub(crate) use service::IngestError;
pub use service::{Ingest, router};
