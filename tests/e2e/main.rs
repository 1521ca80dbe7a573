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
mod exports_many;
mod harness;
mod history;
mod hostile;
mod node;
mod restart;
mod rollout;
mod runs;
mod sources;
