//! From a save to the version that takes calls.

use std::{
    io,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::sleep};
use uuid::Uuid;

use super::{
    hints,
    instance::Place,
    packages,
    project::{Project, ProjectError},
    shared::Shared,
    site::OneScript,
    versions::{Ready, Version},
};
use crate::{
    api::Phase,
    cli::output::plain,
    model::{Deployment, DeploymentState},
    operator::custom_script::display::duration,
    runner::Runtime,
    store::StoreError,
};

/// How long until a project that could not be read is read again; it may have changed just then.
const AGAIN: Duration = Duration::from_millis(200);
/// So many attempts later it did not, and people are told.
const PASSING: u32 = 5;

/// Why nothing can be deployed any more.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The store.
    #[error("the database can not be written: {0}")]
    Store(#[from] StoreError),
    /// The folder of this process.
    #[error("the temporary folder can not be used: {0}")]
    Scratch(#[from] io::Error),
}

/// Deploys what is saved.
pub struct Deployer {
    shared: Arc<Shared>,
    object: Arc<OneScript>,
    /// Where functions are called.
    url: String,
    current: Option<Version>,
    /// Of what was deployed last, whether it served or not.
    fingerprint: Option<String>,
    /// The lines that were shown last.
    shown: Vec<String>,
}

impl Deployer {
    /// Nothing is deployed yet.
    pub fn new(shared: Arc<Shared>, object: Arc<OneScript>, url: String) -> Self {
        Self {
            shared,
            object,
            url,
            current: None,
            fingerprint: None,
            shown: Vec::new(),
        }
    }

    /// Deploys now, and again with each save that changes something.
    pub async fn run(mut self, saved: Option<Arc<Notify>>) -> Result<(), DeployError> {
        let Some(saved) = saved else {
            self.deploy(&Notify::new()).await?;
            return std::future::pending().await;
        };
        loop {
            self.deploy(&saved).await?;
            while !self.has_changed().await {
                saved.notified().await;
            }
        }
    }

    /// Whether the project differs from what was deployed last.
    async fn has_changed(&self) -> bool {
        let project = self.shared.project.clone();
        let now = tokio::task::spawn_blocking(move || project.fingerprint()).await;
        // What can not be read just now has changed.
        !matches!((now, &self.fingerprint), (Ok(Ok(now)), Some(known)) if now == *known)
    }

    /// One attempt, which takes the next version number.
    async fn deploy(&mut self, saved: &Notify) -> Result<(), DeployError> {
        let began = Instant::now();
        let shared = Arc::clone(&self.shared);
        let place = self.copy().await?;
        // Every attempt is a new one, also of what was deployed before.
        let attempt = Uuid::now_v7().to_string();
        let deployment = shared
            .store
            .begin_deployment(&shared.script, &attempt, 0, Timestamp::now())
            .await?;
        self.say_phase(Phase::Deploying, &deployment);
        if self.current.is_none() {
            shared.calls.set_problem(None);
        }
        let attempt = self.attempt(&deployment, place);
        let (version, ready) = match attempt.await? {
            Ok(started) => started,
            Err(reason) => return self.failed(&deployment, &reason).await,
        };
        let outcome = tokio::select! {
            ready = ready => ready.unwrap_or_else(|_| Err("its runner was ended".to_owned())),
            () = self.overtaken(saved) => Err("a later save came before it was ready".to_owned()),
        };
        match outcome {
            Ok(ready) => self.took_over(&deployment, version, ready, began).await,
            Err(reason) => {
                tokio::spawn(version.end());
                self.failed(&deployment, &reason).await
            }
        }
    }

    /// Ready when there is something newer than what is being deployed.
    async fn overtaken(&self, saved: &Notify) {
        loop {
            saved.notified().await;
            if self.has_changed().await {
                return;
            }
        }
    }

    /// A copy of the project as it is now.
    async fn copy(&mut self) -> Result<Place, DeployError> {
        for attempt in 0_u32.. {
            let folder = self.shared.scratch.join(Uuid::now_v7().simple().to_string());
            let (project, app) = (self.shared.project.clone(), folder.join("app"));
            let copied = tokio::task::spawn_blocking(move || copy(&project, app)).await;
            match copied.map_err(io::Error::other)? {
                Ok((app, fingerprint)) => {
                    self.fingerprint = Some(fingerprint);
                    return Ok(Place {
                        folder,
                        app,
                        packages: None,
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "The project could not be copied.");
                    let _ = tokio::fs::remove_dir_all(&folder).await;
                    if matches!(error, ProjectError::TooLarge(_)) {
                        return Err(io::Error::other(error.to_string()).into());
                    }
                    if attempt == PASSING {
                        self.shared
                            .printer
                            .problem(&format!("{error}; trying again."))
                            .await;
                    }
                    sleep(AGAIN).await;
                }
            }
        }
        Err(io::Error::other("the project can not be copied").into())
    }

    /// Installs packages and starts a runner; why not, where the script is at fault.
    #[allow(clippy::type_complexity)] // what `Version::start` gives, or a reason
    async fn attempt(
        &self,
        deployment: &Deployment,
        mut place: Place,
    ) -> Result<Result<(Version, tokio::sync::oneshot::Receiver<Result<Ready, String>>), String>, DeployError>
    {
        match packages::prepare(&self.shared).await {
            Ok(None) => {}
            Ok(Some(packages)) => {
                if self.shared.settings.runtime == Runtime::Node {
                    // Where Node looks after the project's own.
                    symlink(&packages, place.folder.join("node_modules"))?;
                }
                place.packages = Some(packages);
            }
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(Version::start(&self.shared, deployment, place)))
    }

    async fn took_over(
        &mut self,
        deployment: &Deployment,
        version: Version,
        ready: Ready,
        began: Instant,
    ) -> Result<(), DeployError> {
        let shared = Arc::clone(&self.shared);
        let before = shared.calls.switch(ready.target);
        let (state, now) = (DeploymentState::Deployed, Timestamp::now());
        shared
            .store
            .set_deployment_state(&shared.script, deployment.version, state, None, now)
            .await?;
        self.say_phase(Phase::Deployed, deployment);
        if let Some(old) = self.current.replace(version) {
            tokio::spawn(async move {
                if let Some(target) = before {
                    target.idle().await;
                }
                old.end().await;
            });
        }
        let took = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
        let text = format!("Version {} is ready ({}).", deployment.version, duration(took));
        shared.printer.aside(&text).await;
        let lines: Vec<String> = ready
            .functions
            .iter()
            .map(|function| hints::curl(function, &self.url))
            .collect();
        if lines.is_empty() {
            let entry = shared.project.runtime.entry_point();
            shared
                .printer
                .problem(&format!("{entry} has no function that can be called."))
                .await;
        }
        if lines != self.shown {
            shared.printer.say(lines.join("\n")).await;
            self.shown = lines;
        }
        Ok(())
    }

    async fn failed(&self, deployment: &Deployment, reason: &str) -> Result<(), DeployError> {
        let shared = &self.shared;
        let (version, state) = (deployment.version, DeploymentState::Failed);
        shared
            .store
            .set_deployment_state(&shared.script, version, state, Some(reason), Timestamp::now())
            .await?;
        self.say_phase(Phase::DeploymentFailed, deployment);
        let then = match &self.current {
            Some(current) => format!("version {} still serves", current.number),
            None => "it is tried again with the next save".to_owned(),
        };
        shared
            .printer
            .problem(&format!("Version {version} can not be used; {then}.\n{reason}"))
            .await;
        if self.current.is_none() {
            shared.calls.set_problem(Some(plain(reason).into_owned()));
        }
        Ok(())
    }

    fn say_phase(&self, phase: Phase, deployment: &Deployment) {
        let url = self.url.clone();
        self.object.update(|status| {
            status.phase = Some(phase);
            status.version = Some(deployment.version);
            status.deployment_id = Some(deployment.deployment_id.clone());
            status.endpoint = Some(url);
        });
    }
}

/// Copies the project; the copy, and a hash of what is in it.
fn copy(project: &Project, app: PathBuf) -> Result<(PathBuf, String), ProjectError> {
    project.copy(&app)?;
    let fingerprint = project.at(&app).fingerprint()?;
    Ok((app, fingerprint))
}
