//! One reconciliation, from reading to the status.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{controller::Action, events::EventType},
};

use super::{
    Error,
    adopted::{Standing, named},
    apply::{self, ApplyError, FIELD_MANAGER},
    attempt::{Situation, Step, elapsed, next_step},
    build::{Plan, build, images_in_use, version_of},
    change::{self, Beginning, Beside},
    dereference::{Dereferenced, dereference},
    failure::{self, FAIL_AFTER, Failure},
    fingerprint::Files,
    recorded,
    rollout::{
        is_called, is_left_over, is_rolled_out, is_stuck, of_version, pods_of, prepared, ready_by_version,
        ready_since, version_label,
    },
    status::{self, LISTED_DEPLOYMENTS, View},
    validate::{Inspection, Owner, Problem, inspect, owner, surroundings},
};
use crate::{
    api::{CustomScript, CustomScriptStatus, DesiredState, Phase, reasons},
    model::{self, DeploymentState, KeptSpec, ScriptKey},
    operator::context::Context,
    store::StoreError,
};

/// Pods of a failed attempt must have been ready for so long before it is taken for recovered.
pub(super) const RECOVERED_AFTER: Duration = Duration::from_secs(10);
/// How soon to look again: at what changes on its own, at a failed attempt, at a script at rest.
pub(super) const SOON: Duration = Duration::from_secs(2);
pub(super) const FAILED: Duration = Duration::from_secs(15);
pub(super) const AT_REST: Duration = Duration::from_mins(5);

/// What the rest of the status is made of.
#[derive(Default)]
pub(super) struct Outcome {
    pub failure: Option<Failure>,
    pub rolled_out: bool,
    pub gone: bool,
    pub predecessor: bool,
    pub again: Option<Duration>,
    /// How the Deployment stands that the script adopts.
    pub standing: Option<Standing>,
    /// How many pods of each version are ready, where their labels do not say it.
    pub ready: Option<BTreeMap<i64, usize>>,
}

/// A reconciliation under way.
pub(super) struct Reconciliation<'a> {
    pub context: &'a Context,
    pub object: &'a CustomScript,
    pub owner: OwnerReference,
    pub key: ScriptKey,
    pub cluster: Dereferenced,
    pub pods: Vec<Arc<Pod>>,
    /// The last attempts, newest first.
    pub deployments: Vec<model::Deployment>,
}

/// Makes the cluster, the store and the status agree with the object.
pub async fn reconcile(object: &CustomScript, context: &Context) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().ok_or(Error::NoMetadata("namespace"))?;
    let key = ScriptKey::new(namespace, object.name_any());
    let owner = object.controller_owner_ref(&()).ok_or(Error::NoMetadata("UID"))?;
    // Pods that were not listed yet would look like pods that are gone.
    context.pods_listed.wait().await;
    let result = with_store(object, context, key, owner).await;
    // Its own no is an answer; silence is not.
    if matches!(&result, Err(Error::Kube(error)) if !matches!(error, kube::Error::Api(_))) {
        context.contact.lost();
    }
    if let Err(Error::Store(error)) = &result {
        context.health.doubt().await;
        let wanted = status::status_without_store(object, &error.to_string(), Timestamp::now());
        write_status(object, context, &wanted).await?;
    }
    result
}

async fn with_store(
    object: &CustomScript,
    context: &Context,
    key: ScriptKey,
    owner: OwnerReference,
) -> Result<Action, Error> {
    let cluster = match &object.spec.workload {
        None => Box::pin(dereference(&context.client, &key, object)).await?,
        Some(_) => Dereferenced::default(),
    };
    let mut this = Reconciliation {
        deployments: context.store.deployments(&key, LISTED_DEPLOYMENTS).await?,
        cluster,
        pods: pods_of(&context.pods, &key),
        context,
        object,
        owner,
        key,
    };
    if object.spec.workload.is_none() {
        context.contact.answered(Timestamp::now());
    }
    let known_version = this.known_version();
    let outcome = match (&object.spec.workload, object.spec.desired_state) {
        (Some(workload), _) => Box::pin(this.adopt(workload, known_version)).await?,
        (None, DesiredState::Deployed) => this.deploy(known_version).await?,
        (None, DesiredState::Undeployed) => this.undeploy().await?,
    };
    let stored = context.health.get().await;
    let wanted = status::status(&View {
        object,
        deployments: &this.deployments,
        known_version,
        failure: outcome.failure,
        ready: &outcome.ready.unwrap_or_else(|| ready_by_version(&this.pods)),
        pods: this.pods.iter().filter(|pod| !is_left_over(pod)).count(),
        gone: outcome.gone,
        rolled_out: outcome.rolled_out,
        predecessor: outcome.predecessor,
        standing: outcome.standing.as_ref(),
        stored: &stored,
        collection: context.collection,
        now: Timestamp::now(),
    });
    let before = object.status.as_ref().and_then(|s| s.phase);
    if wanted.phase == Some(Phase::ReadyToDeploy) && before != wanted.phase && before.is_some() {
        let version = wanted.version.unwrap_or_default();
        let ready = wanted.conditions.first().map(|ready| ready.message.clone());
        let note = ready
            .filter(|_| outcome.standing.is_some())
            .unwrap_or_else(|| format!("version {version} was undeployed; its runs and logs stay readable"));
        this.event(EventType::Normal, reasons::UNDEPLOYED, version, note)
            .await;
    }
    write_status(object, context, &wanted).await?;
    Ok(Action::requeue(outcome.again.unwrap_or(AT_REST)))
}

async fn write_status(
    object: &CustomScript,
    context: &Context,
    wanted: &CustomScriptStatus,
) -> Result<(), Error> {
    let Some(body) = status::patch(object, wanted)? else {
        return Ok(());
    };
    let namespace = object.namespace().ok_or(Error::NoMetadata("namespace"))?;
    let scripts = Api::<CustomScript>::namespaced(context.client.clone(), &namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match scripts
        .patch_status(&object.name_any(), &parameters, &Patch::Apply(body))
        .await
    {
        Ok(_) => Ok(()),
        // Deleted in the meantime.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Reconciliation<'_> {
    fn known_version(&self) -> i64 {
        let told = self.object.status.as_ref().and_then(|s| s.version);
        let live = self.cluster.deployment.as_ref();
        let live = live.filter(|live| owner(Some(&live.metadata), self.object) == Owner::Us);
        told.max(live.and_then(version_of)).unwrap_or(0)
    }

    async fn deploy(&mut self, known_version: i64) -> Result<Outcome, Error> {
        let inspection = inspect(self.object, &self.cluster);
        if inspection.predecessor {
            return Ok(Outcome {
                predecessor: true,
                again: Some(SOON),
                ..Outcome::default()
            });
        }
        let attempt = self.attempt(known_version, &inspection).await?;
        let version = attempt.version;
        let state = attempt.state;
        // The surroundings say nothing about pods that run already.
        let ready_to_build = match inspection.files {
            Ok(files) if state == DeploymentState::Deployed => Ok(files),
            Ok(files) => surroundings(self.object, &self.cluster).map(|()| files),
            Err(problem) => Err(problem),
        };
        let (live, mut failure) = match ready_to_build {
            Err(problem) => (None, Some(Failure::from(&problem))),
            Ok(files) => {
                let images = images_in_use(self.cluster.deployment.as_ref(), &attempt, &self.context.images);
                let objects = build(Plan {
                    object: self.object,
                    owner: &self.owner,
                    files: &files,
                    attempt: &attempt,
                    images: &images,
                });
                let applied = Box::pin(apply::apply(
                    &self.context.client,
                    &self.key,
                    self.object,
                    &objects,
                    &self.cluster,
                ));
                match applied.await {
                    Ok(live) => (Some(live), None),
                    Err(ApplyError::Refused(refusal)) => (None, Some(refusal)),
                    Err(ApplyError::Kube(error)) if self.out_of_time(&attempt) => {
                        let message = format!("the API server does not take the objects: {error}");
                        (None, Some(Failure::new(reasons::REJECTED, message)))
                    }
                    Err(ApplyError::Kube(error)) => return Err(error.into()),
                }
            }
        };
        let of_version = of_version(&self.pods, version);
        let ready = of_version.iter().any(|pod| ready_since(pod).is_some());
        match state {
            DeploymentState::Deploying if failure.is_none() && ready => {
                if !self.has_taken_over(version, live.as_ref()) {
                    return Ok(Outcome {
                        again: Some(SOON),
                        ..Outcome::default()
                    });
                }
                self.succeed(&attempt).await?;
            }
            DeploymentState::Deploying => {
                let waited = self.waited(&attempt);
                let found =
                    failure.or_else(|| failure::find(live.as_ref(), of_version.iter().copied(), waited));
                match found {
                    Some(found) => self.fail(&attempt, &found).await?,
                    None => {
                        return Ok(Outcome {
                            again: Some(FAIL_AFTER.saturating_sub(waited).max(SOON)),
                            ..Outcome::default()
                        });
                    }
                }
                failure = None;
            }
            DeploymentState::Deployed if failure.is_none() && !ready => {
                failure = Some(failure::cause(live.as_ref(), of_version.iter().copied()));
            }
            _ => {}
        }
        self.finish(live.as_ref(), failure).await
    }

    async fn finish(
        &mut self,
        live: Option<&Deployment>,
        failure: Option<Failure>,
    ) -> Result<Outcome, Error> {
        let failed = self
            .deployments
            .first()
            .is_some_and(|latest| latest.state == DeploymentState::Failed);
        let rolled_out = !failed && live.is_some_and(is_rolled_out);
        if let Some(live) = live.filter(|_| rolled_out) {
            apply::remove_old_sources(&self.context.client, &self.key, self.object, live).await?;
        }
        let again = match (failed || failure.is_some(), rolled_out) {
            (true, _) => FAILED,
            (false, true) => AT_REST,
            (false, false) => SOON,
        };
        Ok(Outcome {
            failure,
            rolled_out,
            again: Some(again),
            ..Outcome::default()
        })
    }

    /// The attempt to go on with, begun now if it is due.
    async fn attempt(
        &mut self,
        known_version: i64,
        inspection: &Inspection,
    ) -> Result<model::Deployment, Error> {
        let status = self.object.status.as_ref();
        let undeployed = status.filter(|s| s.phase == Some(Phase::ReadyToDeploy));
        let latest = self.deployments.first();
        let step = next_step(Situation {
            latest,
            fingerprint: &inspection.fingerprint,
            known_version,
            undeployed_version: undeployed.and_then(|s| s.version),
            recovered: latest.is_some_and(|latest| self.has_recovered(latest, inspection)),
        });
        match (step, latest) {
            (Step::Keep, Some(latest)) => {
                let latest = latest.clone();
                // Begun, perhaps, by an operator that ended before it had kept this.
                if latest.state == DeploymentState::Deploying && !latest.spec_kept {
                    self.keep_spec(latest.version, inspection).await?;
                    self.reread().await?;
                }
                return Ok(latest);
            }
            (
                Step::Begin {
                    abandon: Some(version),
                },
                _,
            ) => {
                let reason = "a newer deployment was asked for before this one had ended";
                self.set_state(version, DeploymentState::Replaced, Some(reason))
                    .await?;
            }
            _ => {}
        }
        let spec = recorded::recorded(&self.object.spec, inspection.files.as_ref().ok())?;
        let author = recorded::author(self.object);
        let files = inspection.files.as_ref().ok();
        self.begin(&inspection.fingerprint, known_version, spec, author, files)
            .await
    }

    /// Begins the next version, and keeps what it is made of and who asked for it.
    pub(super) async fn begin(
        &mut self,
        fingerprint: &str,
        known_version: i64,
        spec: String,
        author: Option<&str>,
        files: Option<&Files>,
    ) -> Result<model::Deployment, Error> {
        let store = &self.context.store;
        let begun = store
            .begin_deployment(&self.key, fingerprint, known_version, Timestamp::now())
            .await?;
        self.keep(begun.version, spec, author, files).await?;
        self.reread().await?;
        tracing::info!(script = %self.key, version = begun.version, "A deployment begins.");
        let note = format!("version {} is being deployed", begun.version);
        self.event(EventType::Normal, reasons::DEPLOYING, begun.version, note)
            .await;
        Ok(begun)
    }

    /// Keeps what a version is made of.
    async fn keep_spec(&self, version: i64, inspection: &Inspection) -> Result<(), Error> {
        let files = inspection.files.as_ref().ok();
        let spec = recorded::recorded(&self.object.spec, files)?;
        self.keep(version, spec, recorded::author(self.object), files)
            .await
    }

    /// Keeps a version's spec, JSON, who asked for it, and what it changes compared with the version before.
    async fn keep(
        &self,
        version: i64,
        spec: String,
        author: Option<&str>,
        files: Option<&Files>,
    ) -> Result<(), Error> {
        let beside = Beside::of(self.object, files);
        let before = match self.deployments.iter().find(|known| known.version < version) {
            Some(before) => Some((before, self.made_of(before.version).await?)),
            None => None,
        };
        let rollback = before.as_ref().and_then(|(_, before)| beside.rollback(before));
        let rollback = match rollback {
            Some(rollback) => Some((self.made_of(rollback.to).await?, rollback)),
            None => None,
        };
        let change = change::change(
            Beginning {
                version,
                spec: &spec,
                beside: &beside,
            },
            before.as_ref().map(|(attempt, made_of)| (*attempt, made_of)),
            rollback.as_ref().map(|(target, rollback)| (rollback, target)),
        );
        let kept = KeptSpec {
            spec,
            changed_by: author.map(str::to_owned),
            change,
            beside: serde_json::to_string(&beside)?,
        };
        Ok(self.context.store.keep_spec(&self.key, version, &kept).await?)
    }

    async fn made_of(&self, version: i64) -> Result<model::DeployedSpec, StoreError> {
        let found = self.context.store.deployed_spec(&self.key, version).await?;
        Ok(found.unwrap_or_default())
    }

    /// Whether what made the attempt fail is gone.
    fn has_recovered(&self, failed: &model::Deployment, inspection: &Inspection) -> bool {
        let reason = Failure::parse(failed.reason.as_deref().unwrap_or_default()).reason;
        if Problem::is_of_surroundings(&reason) {
            return inspection.files.is_ok() && surroundings(self.object, &self.cluster).is_ok();
        }
        let now = Timestamp::now();
        of_version(&self.pods, failed.version)
            .iter()
            .filter_map(|pod| ready_since(pod))
            .any(|since| {
                Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= RECOVERED_AFTER)
            })
    }

    fn out_of_time(&self, attempt: &model::Deployment) -> bool {
        attempt.state == DeploymentState::Deploying && self.waited(attempt) >= FAIL_AFTER
    }

    fn waited(&self, attempt: &model::Deployment) -> Duration {
        let first_pod = of_version(&self.pods, attempt.version)
            .iter()
            .filter_map(|pod| pod.metadata.creation_timestamp.as_ref())
            .map(|time| time.0)
            .min();
        let (started, regained) = (self.context.started, self.context.contact.regained());
        let now = Timestamp::now();
        let prepared = prepared(of_version(&self.pods, attempt.version), now);
        elapsed(attempt, first_pod, prepared, started, regained, now)
    }

    /// Whether calls go to this version, which has a ready pod: no other one is called any more, or the rollout has got
    /// stuck half way.
    fn has_taken_over(&self, version: i64, live: Option<&Deployment>) -> bool {
        let now = Timestamp::now();
        let mut others = self.pods.iter().filter(|pod| version_label(pod) != Some(version));
        !others.any(|pod| is_called(pod, now)) || live.is_some_and(is_stuck)
    }

    pub(super) async fn succeed(&mut self, attempt: &model::Deployment) -> Result<(), Error> {
        self.set_state(attempt.version, DeploymentState::Deployed, None)
            .await?;
        let version = attempt.version;
        tracing::info!(script = %self.key, version, "A deployment serves.");
        let note = match &self.object.spec.workload {
            None => format!("version {version} serves at {}", status::endpoint(self.object)),
            Some(workload) => format!(
                "version {version} runs in {}",
                named(&workload.deployment_ref.name)
            ),
        };
        self.event(EventType::Normal, reasons::DEPLOYED, version, note)
            .await;
        Ok(())
    }

    pub(super) async fn fail(&mut self, attempt: &model::Deployment, failure: &Failure) -> Result<(), Error> {
        let version = attempt.version;
        self.set_state(version, DeploymentState::Failed, Some(&failure.to_string()))
            .await?;
        tracing::warn!(script = %self.key, version, %failure, "A deployment failed.");
        let note = format!("version {version}: {failure}");
        self.event(EventType::Warning, reasons::DEPLOYMENT_FAILED, version, note)
            .await;
        Ok(())
    }

    async fn undeploy(&mut self) -> Result<Outcome, Error> {
        let open: Vec<i64> = self
            .deployments
            .iter()
            .filter(|deployment| !deployment.state.is_ended())
            .map(|deployment| deployment.version)
            .collect();
        for version in open {
            self.set_state(version, DeploymentState::Undeployed, None).await?;
        }
        let left = self.pods.iter().filter(|pod| !is_left_over(pod)).count();
        let done = apply::undeploy(&self.context.client, &self.key, self.object, &self.cluster, left).await?;
        Ok(Outcome {
            gone: done,
            again: Some(if done { AT_REST } else { SOON }),
            ..Outcome::default()
        })
    }

    pub(super) async fn set_state(
        &mut self,
        version: i64,
        state: DeploymentState,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.context
            .store
            .set_deployment_state(&self.key, version, state, reason, Timestamp::now())
            .await?;
        self.reread().await
    }

    async fn reread(&mut self) -> Result<(), StoreError> {
        self.deployments = self
            .context
            .store
            .deployments(&self.key, LISTED_DEPLOYMENTS)
            .await?;
        Ok(())
    }

    async fn event(&self, type_: EventType, reason: &str, version: i64, note: String) {
        let about = self.object.object_ref(&());
        let action = format!("DeployVersion{version}");
        self.context.event(&about, type_, reason, action, note).await;
    }
}
