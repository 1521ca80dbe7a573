//! Which of several operators runs the controllers: the one whose name is in a Lease, as Kubernetes' own components do it.
//!
//! Nobody compares clocks of two machines: a holder is gone when its Lease has not changed for as long as it said, by the
//! clock of whoever looks, and one that can not renew gives up well before that.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long a Lease that does not change is its holder's.
const DURATION: Duration = Duration::from_secs(15);
/// How long a holder that could not renew it goes on. The rest of [`DURATION`] is for what it has under way.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at and renewed.
const TICK: Duration = Duration::from_secs(2);
/// Longest time for one request; several fit into [`RENEW_WITHIN`].
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether this process runs the controllers. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Leadership {
    gained: CancellationToken,
    lost: CancellationToken,
}

impl Leadership {
    /// Of the only operator there is: it leads for good.
    pub fn alone() -> Self {
        let this = Self::default();
        this.gained.cancel();
        this
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.gained.is_cancelled() && !self.lost.is_cancelled()
    }

    /// Waits until it leads for the first time.
    pub async fn gained(&self) {
        self.gained.cancelled().await;
    }

    /// Waits until it leads no more. It never does again: the process is to end.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Runs `work` from when it leads until it leads no more.
    pub async fn hold<F: Future>(&self, work: F) -> Option<F::Output> {
        self.gained().await;
        self.lost.run_until_cancelled(work).await
    }
}

/// This process's candidacy while it runs. The only operator there is needs none, and leads.
pub struct Candidacy {
    leadership: Leadership,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Candidacy {
    /// Stands for the leadership by the Lease `name` in `namespace`, if there is to be one; `identity` must be of no other process
    /// that lives.
    pub fn begin(
        client: &Client,
        (namespace, name): (&str, Option<&str>),
        identity: Option<&str>,
        metrics: &Metrics,
    ) -> Self {
        let stop = CancellationToken::new();
        let Some(name) = name else {
            metrics.leads(true);
            return Self {
                leadership: Leadership::alone(),
                stop,
                task: None,
            };
        };
        let leadership = Leadership::default();
        let identity = identity.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
        let election = Election {
            api: Api::namespaced(client.clone(), namespace),
            name: name.to_owned(),
            view: View::new(identity),
            leadership: leadership.clone(),
            metrics: metrics.clone(),
        };
        Self {
            leadership,
            task: Some(tokio::spawn(election.run(stop.clone()))),
            stop,
        }
    }

    /// Whether this process leads.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Gives the leadership away. Nothing that needs it may be under way any more.
    pub async fn end(self) {
        self.stop.cancel();
        if let Some(task) = self.task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "The election broke down.");
        }
    }
}

/// The Lease, and this process's part in it.
struct Election {
    api: Api<Lease>,
    name: String,
    view: View,
    leadership: Leadership,
    metrics: Metrics,
}

impl Election {
    /// Stands for it and, once it leads, goes on until it leads no more or `stop`; then gives it away, so that nobody has to wait.
    async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let began = Instant::now();
            let outcome = tokio::time::timeout(TIMEOUT, self.attempt(began)).await;
            match outcome.unwrap_or(Err(AttemptError::Timeout)) {
                Ok(true) if !self.leadership.leads() => {
                    tracing::info!(
                        lease = self.name,
                        "This operator runs the controllers from now on."
                    );
                    self.leadership.gained.cancel();
                    self.metrics.leads(true);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "The lease could not be read or renewed.");
                }
            }
            if self.leadership.leads() && !self.view.holds(Instant::now()) {
                tracing::error!(
                    lease = self.name,
                    "The lease is lost; another operator may run the controllers."
                );
                self.leadership.lost.cancel();
                self.metrics.leads(false);
                return;
            }
        }
        if self.leadership.leads() {
            self.leadership.lost.cancel();
            self.metrics.leads(false);
            if !matches!(tokio::time::timeout(TIMEOUT, self.give_away()).await, Ok(Ok(()))) {
                tracing::warn!(
                    lease = self.name,
                    "The lease could not be given away; the next operator waits until it ends."
                );
            }
        }
    }

    /// Looks at the Lease and takes or renews it where that is right; says whether it is ours now.
    async fn attempt(&mut self, now: Instant) -> Result<bool, AttemptError> {
        let found = self.api.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let Some(wanted) = self.view.next(spec, now, Timestamp::now()) else {
            self.view.held = None;
            return Ok(false);
        };
        match self.write(found, wanted).await {
            Ok(()) => {
                self.view.held = Some(now);
                Ok(true)
            }
            // Somebody was faster; the next look says who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it only if it is still as it was found.
    async fn write(&self, found: Option<Lease>, spec: LeaseSpec) -> kube::Result<()> {
        let post = PostParams::default();
        if let Some(mut lease) = found {
            lease.spec = Some(spec);
            self.api.replace(&self.name, &post, &lease).await?;
        } else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            let spec = Some(spec);
            self.api.create(&post, &Lease { metadata, spec }).await?;
        }
        Ok(())
    }

    async fn give_away(&self) -> kube::Result<()> {
        let found = self.api.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.clone());
        match spec {
            Some(spec) if spec.holder_identity.as_deref() == Some(&*self.view.identity) => {
                let holder_identity = None;
                self.write(
                    found,
                    LeaseSpec {
                        holder_identity,
                        ..spec
                    },
                )
                .await
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
}

/// What this process knows of the Lease.
#[derive(Debug)]
struct View {
    identity: String,
    /// Holder and time of renewal as last seen, and since when they are so by our own clock.
    seen: Option<((String, Option<MicroTime>), Instant)>,
    /// When the last renewal of ours began that succeeded, while it is ours.
    held: Option<Instant>,
}

impl View {
    fn new(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            seen: None,
            held: None,
        }
    }

    /// Whether it is ours without a doubt.
    fn holds(&self, now: Instant) -> bool {
        self.held
            .is_some_and(|since| now.duration_since(since) < RENEW_WITHIN)
    }

    /// What to write into a Lease that was found so, if anything; `now` by two clocks, of which the second is for people.
    fn next(&mut self, found: Option<&LeaseSpec>, now: Instant, clock: Timestamp) -> Option<LeaseSpec> {
        let empty = LeaseSpec::default();
        let found = found.unwrap_or(&empty);
        let holder = found.holder_identity.clone().unwrap_or_default();
        let state = (holder, found.renew_time.clone());
        let since = match &self.seen {
            Some((seen, since)) if *seen == state => *since,
            _ => now,
        };
        let (holder, _) = &state;
        let ours = *holder == self.identity;
        let lasts = found
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(DURATION, Duration::from_secs);
        let free = holder.is_empty() || now.duration_since(since) > lasts;
        self.seen = Some((state, since));
        (ours || free).then(|| LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: found
                .acquire_time
                .clone()
                .filter(|_| ours)
                .or(Some(MicroTime(clock))),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(found.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            ..LeaseSpec::default()
        })
    }
}

#[cfg(test)]
#[path = "leadership_tests.rs"]
mod tests;
