//! What the parts of `dev` share.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::{calls::Calls, print::Printer, project::Project, sandbox::Sandbox};
use crate::{
    ingest::{
        AgentAuthenticator, AgentIdentity, AuthError, CommitListener, Ingest, PodDirectory, PodKnowledge,
        wire::StreamKey,
    },
    model::ScriptKey,
    runner::Runtime,
    store::{Gap, PodRecord, Store},
};

/// The namespace under which scripts on this machine are kept.
pub const NAMESPACE: &str = "dev";

/// What runners are started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Language of the script.
    pub runtime: Runtime,
    /// What runs it.
    pub interpreter: OsString,
    /// Seconds that a run may take.
    pub timeout: u64,
    /// Runs at once.
    pub concurrency: u8,
    /// Further variables of the script.
    pub environment: Vec<(String, String)>,
    /// Where runners are to run, if not as they are.
    pub sandbox: Option<Sandbox>,
}

/// What the parts share.
pub struct Shared {
    /// The author's folder.
    pub project: Project,
    /// Whose runs they are.
    pub script: ScriptKey,
    /// What runners are started with.
    pub settings: Settings,
    /// A folder that goes with this process.
    pub scratch: PathBuf,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The way into it.
    pub ingest: Arc<Ingest>,
    /// Told what is committed.
    pub farewells: Arc<Farewells>,
    /// Who takes calls.
    pub calls: Arc<Calls>,
    /// The terminal.
    pub printer: Printer,
    /// Asks runners how they stand.
    pub http: reqwest::Client,
    /// What every runner is to do, at least.
    pub order: watch::Sender<Order>,
    /// Those who look after runners.
    pub supervisors: TaskTracker,
}

/// What a runner is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Take calls.
    #[default]
    Serve,
    /// Take no more, let runs end and end itself.
    Drain,
    /// End runs in progress now.
    Cut,
    /// End at once.
    Kill,
}

/// Tells each runner that waits for it that its last record is stored.
#[derive(Debug, Default)]
pub struct Farewells(Mutex<HashMap<String, mpsc::Sender<String>>>);

impl Farewells {
    /// Where the token of the last record of the runner in this pod (UID) will come.
    pub fn expect(&self, pod: &str) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(1);
        self.waiting().insert(pod.to_owned(), sender);
        receiver
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitListener for Farewells {
    fn runner_stopped(&self, pod: &PodRecord, token: &str) {
        if let Some(waiting) = self.waiting().remove(&pod.uid) {
            // Whoever has ended since waits no more.
            let _ = waiting.try_send(token.to_owned());
        }
    }

    fn gap_recorded(&self, _: &PodRecord, _: &Gap) {}

    fn given_up(&self, _: &StreamKey) {}
}

/// Nobody ships anything here but this process itself.
pub struct NoAgents;

#[async_trait]
impl AgentAuthenticator for NoAgents {
    async fn authenticate(&self, _: &str) -> Result<AgentIdentity, AuthError> {
        Err(AuthError::Rejected("there are no agents here".to_owned()))
    }
}

impl PodDirectory for NoAgents {
    fn knows(&self, _: &str, _: &str) -> PodKnowledge {
        PodKnowledge::NotAScript
    }
}
