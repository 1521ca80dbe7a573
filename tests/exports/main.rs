//! Exports: the files, and the controller that makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod bed;
mod cancel;
mod cluster;
mod controller;
mod faults;
mod files;
mod kill;
mod many;
mod operator;
mod read_back;
#[path = "../common/read_back.rs"]
mod read_back_with;
#[path = "../common/rows.rs"]
mod rows;
mod s3;
mod s3_server;
mod schedule;
mod site;

use std::{path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rows::Rows;
use scriptscope::{
    export::{Plan, Table, file::ExportKey},
    model::{Filter, Run, RunStatus, ScriptKey, SourceType, TimeRange},
    store::Store,
};
use tempfile::TempDir;

const ROWS: i64 = 1_234;

async fn store(folder: &TempDir) -> Arc<dyn Store> {
    store_of("billing", folder).await
}

/// The same rows, of 10 MiB: two parts.
async fn large_store(folder: &TempDir) -> Arc<dyn Store> {
    store_of(&"billing ".repeat(1_030), folder).await
}

async fn store_of(source: &str, folder: &TempDir) -> Arc<dyn Store> {
    let runs = (0..ROWS).map(|n| {
        let run = Run {
            run_id: format!("run-{n}"),
            status: RunStatus::Success,
            reason: None,
            deployment_version: 1,
            deployment_id: "d".into(),
            response_time_micros: Some(n),
            function: "check".into(),
            // Many at one moment: the key goes on with the id.
            executed_on: Timestamp::from_second(1_700_000_000 + n / 400).unwrap()
                + (Timestamp::now().duration_since(Timestamp::from_second(1_700_000_000).unwrap())
                    - SignedDuration::from_hours(1)),
            finished_at: None,
            source_type: SourceType::Api,
            source: source.into(),
            traceparent: None,
        };
        (ScriptKey::new("shop", "pay"), run)
    });
    let rows = Rows {
        runs: runs.collect(),
        ..Rows::default()
    };
    rows.store(folder).await
}

fn key(name: &str) -> ExportKey {
    ExportKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn plan(table: Table) -> Plan {
    Plan::new(
        ScriptKey::new("shop", "pay"),
        table,
        TimeRange::ALL,
        Filter::default(),
    )
}
