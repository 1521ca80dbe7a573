//! Ends the deployments of scripts whose object is gone. Their pods go with the object; runs and logs stay, and the
//! version numbers go on when a script of that name comes again.

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio_util::sync::CancellationToken;

use super::{Scope, context::Context};
use crate::{
    api::CustomScript,
    model::{DeploymentState, ScriptKey},
    store::StoreError,
};

/// How often to look.
const TICK: Duration = Duration::from_secs(30);
/// Deployments looked at per script; earlier ones have ended long ago.
const DEPLOYMENTS: usize = 10;

/// Runs until it is told to stop. `scripts` must have seen the whole cluster once.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    scripts: Store<CustomScript>,
    shutdown: CancellationToken,
) {
    let mut done = HashSet::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = sweep(&context, &scope, &scripts, &mut done).await {
            tracing::warn!(%error, "Deployments of deleted scripts could not be ended.");
        }
    }
}

async fn sweep(
    context: &Context,
    scope: &Scope,
    scripts: &Store<CustomScript>,
    done: &mut HashSet<ScriptKey>,
) -> Result<(), StoreError> {
    for key in context.store.scripts(scope.watched()).await? {
        if scripts
            .get(&ObjectRef::new(&key.name).within(&key.namespace))
            .is_some()
        {
            done.remove(&key);
            continue;
        }
        if done.contains(&key) {
            continue;
        }
        for deployment in context.store.deployments(&key, DEPLOYMENTS).await? {
            if !deployment.state.is_ended() {
                let (version, state) = (deployment.version, DeploymentState::Undeployed);
                let reason = Some("the CustomScript was deleted");
                let now = Timestamp::now();
                context
                    .store
                    .set_deployment_state(&key, version, state, reason, now)
                    .await?;
                tracing::info!(script = %key, version, "The script was deleted; its deployment has ended.");
            }
        }
        done.insert(key);
    }
    Ok(())
}
