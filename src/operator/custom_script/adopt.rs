//! What a reconciliation does about an adopted Deployment: it looks, and changes nothing but the store and the status.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{Api, Client, api::ListParams, core::Selector};

use super::{
    Error,
    adopted::{self, Identity, Standing},
    attempt::{Situation, Step, elapsed, next_step},
    failure::Failure,
    reconcile::{AT_REST, FAILED, Outcome, RECOVERED_AFTER, Reconciliation, SOON},
    recorded,
    rollout::{is_left_over, is_rolled_out, is_stuck, ready_since},
};
use crate::{
    api::{DesiredState, Workload, conditions, reasons},
    model::{self, DeploymentState},
    operator::{adoption::Target, claims::Place},
};

/// What the cluster has of an adopted Deployment.
struct Found {
    deployment: Deployment,
    /// Its replica sets.
    sets: Vec<ReplicaSet>,
}

impl Found {
    async fn read(client: &Client, place: &Place) -> Result<Option<Self>, kube::Error> {
        let deployments = Api::<Deployment>::namespaced(client.clone(), &place.namespace);
        let Some(deployment) = deployments.get_opt(&place.deployment).await? else {
            return Ok(None);
        };
        let sets = Api::<ReplicaSet>::namespaced(client.clone(), &place.namespace);
        let selector = ListParams::default().labels(&selector(&deployment));
        let mut sets = sets.list(&selector).await?.items;
        sets.retain(|set| adopted::is_of(set, &deployment.metadata));
        Ok(Some(Self { deployment, sets }))
    }
}

fn selector(deployment: &Deployment) -> String {
    let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone());
    let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
    selector.unwrap_or_default().to_string()
}

impl Reconciliation<'_> {
    /// Looks at the Deployment, begins a version where its template is new, and says how it stands.
    pub(super) async fn adopt(&mut self, workload: &Workload, known_version: i64) -> Result<Outcome, Error> {
        let place = Place {
            namespace: self.key.namespace.clone(),
            deployment: workload.deployment_ref.name.clone(),
        };
        self.pods = self.context.pods.of_deployment(&place);
        let found = Found::read(&self.context.client, &place).await?;
        self.context.contact.answered(Timestamp::now());
        let standing = self.standing(&place, found.as_ref());
        let adoptions = &self.context.adoptions;
        match (&standing, &found) {
            (Standing::Refused(_), _) => adoptions.leave(&self.key),
            (_, Some(found)) => {
                let selector = selector(&found.deployment);
                adoptions.follow(&self.key, Target { place, selector });
            }
            // Pods that it had may still be ending.
            (_, None) => {}
        }
        let name = adopted::named(&workload.deployment_ref.name);
        match (standing, found) {
            (Standing::Wanted, Some(found)) => self.observe(workload, &found, known_version).await,
            (Standing::Refused(failure), _) => {
                self.end_all(&failure.message).await?;
                Ok(stands(Standing::Refused(failure), true, FAILED))
            }
            (Standing::Missing, _) => {
                self.end_all(&format!("{name} was deleted")).await?;
                Ok(stands(Standing::Missing, self.left() == 0, AT_REST))
            }
            (Standing::AtZero, Some(found)) => {
                self.end_all(&format!("{name} was scaled to zero")).await?;
                let gone = self.left() == 0 && adopted::pods(&found.deployment) == 0;
                Ok(stands(Standing::AtZero, gone, if gone { AT_REST } else { SOON }))
            }
            (Standing::Unsettled, _) => Ok(stands(Standing::Unsettled, false, SOON)),
            (standing, _) => Ok(stands(standing, true, AT_REST)),
        }
    }

    fn standing(&self, place: &Place, found: Option<&Found>) -> Standing {
        if self.object.spec.desired_state == DesiredState::Undeployed {
            return Standing::Paused;
        }
        let claims = self.context.adoptions.claims();
        if let Some(holder) = claims.holder(place).filter(|holder| **holder != self.key) {
            let message = format!(
                "spec.workload.deploymentRef.name: CustomScript {} adopts Deployment {} already; delete that one, or name another \
                 Deployment",
                holder.name, place.deployment
            );
            return Standing::Refused(Failure::new(reasons::WORKLOAD_TAKEN, message));
        }
        let Some(found) = found else {
            return Standing::Missing;
        };
        if let Some(refusal) = adopted::refusal(&found.deployment, &self.context.adoptions.own_namespace) {
            return Standing::Refused(refusal);
        }
        if !adopted::is_settled(&found.deployment) {
            return Standing::Unsettled;
        }
        if adopted::is_at_zero(&found.deployment) {
            return Standing::AtZero;
        }
        if found.sets.is_empty() {
            return Standing::Unsettled;
        }
        Standing::Wanted
    }

    fn left(&self) -> usize {
        self.pods.iter().filter(|pod| !is_left_over(pod)).count()
    }

    /// Ends the versions that have not ended.
    async fn end_all(&mut self, reason: &str) -> Result<(), Error> {
        let open: Vec<i64> = self
            .deployments
            .iter()
            .filter(|deployment| !deployment.state.is_ended())
            .map(|deployment| deployment.version)
            .collect();
        for version in open {
            self.set_state(version, DeploymentState::Undeployed, Some(reason))
                .await?;
        }
        Ok(())
    }

    async fn observe(
        &mut self,
        workload: &Workload,
        found: &Found,
        known_version: i64,
    ) -> Result<Outcome, Error> {
        let identity = Identity::new(&self.object.metadata, workload, &found.deployment.metadata);
        let due: Vec<&ReplicaSet> = identity.due(&found.sets, self.deployments.first());
        let Some((current, earlier)) = due.split_last() else {
            return Ok(stands(Standing::Unsettled, false, SOON));
        };
        for set in earlier {
            let begun = self
                .version_of(workload, &identity, set, found, known_version)
                .await?;
            if begun.state == DeploymentState::Deploying && adopted::ready(set) > 0 {
                self.succeed(&begun).await?;
            }
        }
        let attempt = self
            .version_of(workload, &identity, current, found, known_version)
            .await?;
        let mut outcome = self.progress(workload, found, current, &attempt).await?;
        let versions = identity.versions(&found.sets, &self.deployments);
        let mut ready: BTreeMap<i64, usize> = BTreeMap::new();
        for set in &found.sets {
            let version = set.metadata.uid.as_ref().and_then(|uid| versions.get(uid));
            if let Some(version) = version {
                *ready.entry(*version).or_default() += adopted::ready(set);
            }
        }
        outcome.standing = Some(Standing::Wanted);
        outcome.ready = Some(ready);
        Ok(outcome)
    }

    /// The attempt of a template, begun now if it is due.
    async fn version_of(
        &mut self,
        workload: &Workload,
        identity: &Identity,
        set: &ReplicaSet,
        found: &Found,
        known_version: i64,
    ) -> Result<model::Deployment, Error> {
        let fingerprint = identity.fingerprint(adopted::revision(set).unwrap_or_default());
        let latest = self.deployments.first();
        let step = next_step(Situation {
            latest,
            fingerprint: &fingerprint,
            known_version,
            undeployed_version: self.down_version(),
            recovered: latest.is_some_and(|_| self.recovered(workload, set, found)),
        });
        match (step, latest) {
            (Step::Keep, Some(latest)) => return Ok(latest.clone()),
            (
                Step::Begin {
                    abandon: Some(version),
                },
                _,
            ) => {
                let reason = "the pod template changed again before this version was ready";
                self.set_state(version, DeploymentState::Replaced, Some(reason))
                    .await?;
            }
            _ => {}
        }
        let (spec, author) = (
            serde_json::to_string(&adopted::recorded(workload, set))?,
            recorded::author_of(&found.deployment.metadata),
        );
        let begun = self
            .begin(&fingerprint, known_version, spec, author.as_deref(), None)
            .await?;
        self.context.adoptions.begun();
        Ok(begun)
    }

    /// The version whose pods were taken down by whoever owns the Deployment, as the status says.
    fn down_version(&self) -> Option<i64> {
        let status = self.object.status.as_ref()?;
        let ready = status.conditions.iter().find(|c| c.type_ == conditions::READY)?;
        let is_down = [reasons::WORKLOAD_AT_ZERO, reasons::WORKLOAD_MISSING].contains(&ready.reason.as_str());
        status.version.filter(|_| is_down)
    }

    /// Whether the pods of a failed attempt came up after all.
    fn recovered(&self, workload: &Workload, set: &ReplicaSet, found: &Found) -> bool {
        if adopted::container(workload, set).is_err()
            || others_serve(set, found)
            || is_stuck(&found.deployment)
        {
            return false;
        }
        let now = Timestamp::now();
        let pods = adopted::pods_of(set, self.pods.iter().map(AsRef::as_ref));
        pods.into_iter().filter_map(ready_since).any(|since| {
            Duration::try_from(now.duration_since(since)).is_ok_and(|age| age >= RECOVERED_AFTER)
        })
    }

    async fn progress(
        &mut self,
        workload: &Workload,
        found: &Found,
        set: &ReplicaSet,
        attempt: &model::Deployment,
    ) -> Result<Outcome, Error> {
        let all: Vec<Arc<Pod>> = self.pods.clone();
        let pods = adopted::pods_of(set, all.iter().map(AsRef::as_ref));
        let mut failure = adopted::container(workload, set).err();
        let is_ready = adopted::ready(set) > 0;
        match attempt.state {
            DeploymentState::Deploying if failure.is_none() && is_ready && !others_serve(set, found) => {
                self.succeed(attempt).await?;
            }
            DeploymentState::Deploying => {
                let waited = self.waited_for(attempt, &pods);
                let why = failure
                    .take()
                    .or_else(|| adopted::rollout_failure(&found.deployment, pods.iter().copied(), waited));
                match why {
                    Some(why) => self.fail(attempt, &why).await?,
                    None => {
                        return Ok(Outcome {
                            again: Some(SOON),
                            ..Outcome::default()
                        });
                    }
                }
            }
            DeploymentState::Deployed if failure.is_none() && !is_ready => {
                failure = Some(adopted::cause(&found.deployment, pods.iter().copied()));
            }
            _ => {}
        }
        let failed = self
            .deployments
            .first()
            .is_some_and(|latest| latest.state == DeploymentState::Failed);
        let rolled_out = !failed && is_rolled_out(&found.deployment);
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

    fn waited_for(&self, attempt: &model::Deployment, pods: &[&Pod]) -> Duration {
        let made = pods
            .iter()
            .filter_map(|pod| pod.metadata.creation_timestamp.as_ref());
        elapsed(
            attempt,
            made.map(|time| time.0).min(),
            None,
            self.context.started,
            self.context.contact.regained(),
            Timestamp::now(),
        )
    }
}

fn stands(standing: Standing, gone: bool, again: Duration) -> Outcome {
    Outcome {
        standing: Some(standing),
        gone,
        again: Some(again),
        ..Outcome::default()
    }
}

/// Whether pods of other templates are ready.
fn others_serve(set: &ReplicaSet, found: &Found) -> bool {
    let others = found
        .sets
        .iter()
        .filter(|other| other.metadata.uid != set.metadata.uid);
    others.map(adopted::ready).sum::<usize>() > 0
}
