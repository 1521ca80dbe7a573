//! End-to-end tests on a real Kubernetes with gVisor. `make test` starts the cluster, installs the chart and runs them;
//! each works in a namespace of its own.

mod access;
mod adopted;
mod calling;
mod chart;
mod cli;
mod crds;
mod crowd;
mod deployment;
mod doctor;
mod examples;
mod export;
mod export_files;
mod exports_many;
mod harness;
mod history;
mod hostile;
mod node;
#[path = "../common/read_back.rs"]
mod read_back;
mod restart;
mod rollout;
mod runs;
#[path = "../exports/s3_server.rs"]
#[allow(dead_code)] // shared with the tests of exports
mod s3_server;
mod sources;
