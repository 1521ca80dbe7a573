//! Keeps one schedule: makes an export for each time that is due, and deletes those that are over its limit.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use tokio::sync::watch;

use crate::{
    api::{ScriptExport, ScriptExportStatus},
    export::file::ExportKey,
};

use super::{
    ExportContext, FIELD_MANAGER,
    announce::{AnnounceError, Announcer},
    plan::{plan, target},
    schedule::{Schedule, due_of, export_of, history},
    status::{Refusal, Scheduled, is_finished},
};

/// Time between a time that is due and its file: what was printed before is stored by then.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);
/// Time between two looks at the clock, which may be set meanwhile, and two attempts at what failed.
const LOOK: Duration = Duration::from_mins(1);
/// Pause after somebody else has written.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of a schedule.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The export that has it.
    pub parent: Option<(ExportKey, ScriptExport)>,
    /// Those that it has made, by name.
    pub exports: BTreeMap<String, ScriptExport>,
}

/// Keeps a schedule until its export is gone.
pub async fn keep(context: ExportContext, mut views: watch::Receiver<View>) {
    let mut keeper: Option<Keeper> = None;
    loop {
        let view = views.borrow_and_update().clone();
        let Some((key, parent)) = view.parent else { return };
        let keeper = keeper.get_or_insert_with(|| Keeper {
            announcer: Announcer::new(context.client.clone(), key.clone(), &parent),
            api: Api::namespaced(context.client.clone(), &key.namespace),
            last: None,
            key,
        });
        let wait = match keeper.look(&parent, &view.exports).await {
            Ok(wait) => wait,
            Err(StepError::Announce(AnnounceError::Gone)) => return,
            Err(StepError::Announce(AnnounceError::Changed)) => PAUSE,
            Err(error) => {
                tracing::warn!(namespace = keeper.key.namespace, export = keeper.key.name, %error,
                    "A schedule could not be kept; trying again.");
                LOOK
            }
        };
        tokio::select! {
            changed = views.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Announce(#[from] AnnounceError),
    #[error(transparent)]
    Api(#[from] kube::Error),
}

struct Keeper {
    key: ExportKey,
    announcer: Announcer,
    api: Api<ScriptExport>,
    /// The last time for which an export was made.
    last: Option<Timestamp>,
}

impl Keeper {
    /// Does what is due now; says when to look again.
    async fn look(
        &mut self,
        parent: &ScriptExport,
        exports: &BTreeMap<String, ScriptExport>,
    ) -> Result<Duration, StepError> {
        let now = Timestamp::now();
        let spec = &parent.spec;
        let schedule = usable(&self.key, parent, now);
        let told = parent.status.as_ref().and_then(last_told);
        let newest = exports.values().filter_map(due_of).max();
        self.last = self.last.max(told).max(newest);
        if spec.cancelled {
            for running in exports
                .values()
                .filter(|export| !is_finished(export.status.as_ref()))
            {
                self.delete(&running.name_any()).await?;
            }
        } else if let Ok(schedule) = &schedule {
            // One at a time: what is due meanwhile is made after it, the last of it.
            let is_idle = exports.values().all(|export| is_finished(export.status.as_ref()));
            let created = parent.creation_timestamp().map(|time| time.0);
            let since = self.last.max(created).unwrap_or(now);
            if is_idle
                && !spec.suspend
                && let Some(due) = schedule.missed(since, now - SETTLE)
            {
                self.create(&export_of(parent, due)).await?;
                self.last = Some(due);
            }
        }
        let (kept, over) = history(exports.values(), spec.history_limit);
        for name in over {
            self.delete(&name).await?;
        }
        let next = schedule.as_ref().ok().and_then(|schedule| schedule.next(now));
        let newest = exports.values().max_by_key(|export| due_of(export));
        let scheduled = Scheduled {
            refusal: schedule.as_ref().err(),
            cancelled: spec.cancelled,
            suspended: spec.suspend,
            last: self.last,
            next: next.filter(|_| !spec.cancelled && !spec.suspend),
            history: kept,
            progress: newest.and_then(|export| export.status.as_ref()?.progress.clone()),
        };
        self.announcer.tell_schedule(parent, &scheduled).await?;
        let until = next.map(|next| (next + SETTLE).duration_since(Timestamp::now()));
        // A time that is due but not settled: soon.
        let settling =
            (now - SETTLE..=now).contains(&schedule.ok().and_then(|s| s.last(now)).unwrap_or(Timestamp::MIN));
        Ok(match until {
            _ if settling => Duration::from_secs(1),
            Some(until) => until.try_into().unwrap_or(PAUSE).min(LOOK),
            None => LOOK,
        })
    }

    async fn create(&self, export: &ScriptExport) -> Result<(), StepError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match self.api.create(&params, export).await {
            Ok(_) => Ok(()),
            // It was made, and not told.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), StepError> {
        match self.api.delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn last_told(status: &ScriptExportStatus) -> Option<Timestamp> {
    status.last_schedule_time.as_ref().map(|time| time.0)
}

/// The schedule, if files can be made at its times: what is wrong with the spec is told at once, not when one is due.
fn usable(key: &ExportKey, parent: &ScriptExport, now: Timestamp) -> Result<Schedule, Refusal> {
    let spec = &parent.spec;
    let schedule = Schedule::of(&key.name, spec)?.ok_or_else(|| Refusal {
        reason: "InvalidSchedule",
        message: "spec.schedule is missing".to_owned(),
    })?;
    plan(&key.namespace, spec, now, Some(now))?;
    super::plan::format(spec)?;
    target(spec)?;
    Ok(schedule)
}
