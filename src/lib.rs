//! `ScriptScope`: run-level and log-level analytics for custom scripts on Kubernetes.
//!
//! Data flows one way: kubelet's log file, [`agent`], [`ingest`], [`store`], [`query`], [`web`].
//! `docs/architecture.md` has the map.

pub mod agent;
pub mod api;
pub mod cli;
mod connections;
pub mod dependencies;
pub mod dev;
pub mod export;
pub mod failures;
pub mod fetch;
pub mod ingest;
mod key_proof;
mod loopback;
pub mod metrics;
pub mod model;
pub mod operator;
pub mod query;
pub mod runner;
pub mod segment;
pub mod store;
pub mod telemetry;
mod termination;
pub mod web;
