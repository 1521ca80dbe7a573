//! How the runner is told to stop, and when it may.

use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The runner's last record holds a token that nobody else knows; whoever says it back has read that record, and so
/// can say that it is stored.
#[derive(Clone, Debug)]
pub struct LastWord {
    token: String,
    stored: CancellationToken,
}

impl LastWord {
    /// A new token.
    pub fn new() -> Self {
        Self {
            token: Uuid::new_v4().simple().to_string(),
            stored: CancellationToken::new(),
        }
    }

    /// What the last record holds.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The last record is stored, says somebody; whether that is to be believed.
    pub fn confirm(&self, token: &[u8]) -> bool {
        let knows: bool = token.ct_eq(self.token.as_bytes()).into();
        if knows {
            self.stored.cancel();
        }
        knows
    }

    /// Ready once the last record is stored.
    pub async fn stored(&self) {
        self.stored.cancelled().await;
    }
}

/// How far stopping is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    #[default]
    Serving,
    /// The pod is on its way out, and whoever does not know yet still calls it: calls are taken, connections are not kept.
    Leaving,
    /// No call is taken any more; runs in progress may end.
    Draining,
    /// Runs in progress are killed.
    Killing,
}

/// Tells everybody how far stopping is.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Phase>);

/// Knows how far stopping is.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

impl Stopper {
    /// Serving.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(Phase::default());
        (Self(sender), Stop(receiver))
    }

    /// Goes on to a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }
}

impl Stop {
    /// Whether calls should go elsewhere from now on.
    pub fn is_leaving(&self) -> bool {
        *self.0.borrow() >= Phase::Leaving
    }

    /// Whether calls are refused.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Whether runs in progress are killed.
    pub fn is_killing(&self) -> bool {
        *self.0.borrow() >= Phase::Killing
    }

    /// Ready once calls are refused.
    pub async fn draining(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Ready once runs in progress are to be killed.
    pub async fn killing(&mut self) {
        self.reached(Phase::Killing).await;
    }

    async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|p| *p >= phase).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }
}
