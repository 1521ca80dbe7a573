//! When the files of a schedule are due, and which exports make them. Pure.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{Resource, ResourceExt};

use crate::api::{ExportPhase, ScheduledExport, ScriptExport, ScriptExportSpec};

use super::{
    plan::refuse,
    status::{Refusal, is_finished},
};

/// Says when an export was due, on those that a schedule has made.
pub const DUE: &str = "scriptscope.dev/due";
/// Files kept where nothing is said.
const HISTORY: usize = 10;
/// Exports kept that made no file, for a look at why.
const FAILURES: usize = 3;
/// Longest name of an export with a schedule: those that it makes add the time to it.
const NAME: usize = 230;

/// When a file was due, if a schedule asked for it.
pub fn due_of(export: &ScriptExport) -> Option<Timestamp> {
    export.annotations().get(DUE)?.parse().ok()
}

/// The times of a schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// That of a spec; none of an export that is made once.
    pub fn of(name: &str, spec: &ScriptExportSpec) -> Result<Option<Self>, Refusal> {
        let Some(schedule) = &spec.schedule else {
            return Ok(None);
        };
        if name.len() > NAME {
            return Err(refuse(
                "InvalidSchedule",
                &format!(
                    "metadata.name has more than {NAME} characters, to which spec.schedule adds the time"
                ),
            ));
        }
        if spec.ttl_after_finished.is_some() {
            return Err(refuse(
                "InvalidTtl",
                "spec.ttlAfterFinished is for an export that is made once: with spec.schedule, historyLimit says how many files \
                 are kept",
            ));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(schedule).map_err(|error| {
            refuse(
                "InvalidSchedule",
                &format!(
                    "spec.schedule: {error}; it needs minute, hour, day of month, month and day of week, such as \"0 6 * * 1\""
                ),
            )
        })?;
        let zone = spec.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(zone).map_err(|_| {
            refuse(
                "InvalidTimeZone",
                &format!("spec.timeZone: {zone:?} is not a time zone; it can be one such as Europe/Berlin"),
            )
        })?;
        Ok(Some(Self { cron, zone }))
    }

    /// The last time that is not after `now`.
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        let time = self.cron.find_previous_occurrence(&now, true).ok()?;
        Some(time.timestamp())
    }

    /// The first time after `now`; none for a day that never comes.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        let time = self.cron.find_next_occurrence(&now, false).ok()?;
        Some(time.timestamp())
    }

    /// The one time for which a file is to be begun now: the last, if it is after `since`. Of several that were missed
    /// only that.
    pub fn missed(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        self.last(now).filter(|due| *due > since)
    }
}

/// The export that makes the file of one time. Its name says which, so that it is made once.
pub fn export_of(parent: &ScriptExport, due: Timestamp) -> ScriptExport {
    let name = format!("{}-{}", parent.name_any(), due.strftime("%Y%m%dt%H%Mz"));
    let spec = ScriptExportSpec {
        schedule: None,
        time_zone: None,
        history_limit: None,
        suspend: false,
        cancelled: false,
        ..parent.spec.clone()
    };
    let mut export = ScriptExport::new(&name, spec);
    let owner = OwnerReference {
        block_owner_deletion: None,
        ..parent.controller_owner_ref(&()).unwrap_or_default()
    };
    export.metadata = ObjectMeta {
        name: Some(name),
        namespace: parent.namespace(),
        labels: parent.metadata.labels.clone(),
        annotations: Some([(DUE.to_owned(), due.to_string())].into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    export
}

/// UID of the export whose schedule has made this one.
pub fn owner_uid(export: &ScriptExport) -> Option<&str> {
    let owners = export.owner_references().iter();
    let mut ours = owners.filter(|o| o.controller == Some(true) && o.kind == ScriptExport::kind(&()));
    due_of(export)?;
    ours.next().map(|owner| owner.uid.as_str())
}

/// The exports of a schedule: those that are kept, newest first, and the names of those that are not.
pub fn history<'a>(
    exports: impl Iterator<Item = &'a ScriptExport>,
    limit: Option<i32>,
) -> (Vec<ScheduledExport>, Vec<String>) {
    let limit = limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(HISTORY);
    let mut all: Vec<_> = exports
        .filter_map(|export| due_of(export).map(|due| (due, export)))
        .collect();
    all.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
    let (mut files, mut failures) = (0, 0);
    let (mut kept, mut over) = (Vec::new(), Vec::new());
    for (due, export) in all {
        let status = export.status.as_ref();
        let phase = status.and_then(|s| s.phase).unwrap_or(ExportPhase::Pending);
        let stays = match phase {
            ExportPhase::Succeeded => {
                files += 1;
                files <= limit
            }
            _ if !is_finished(status) => true,
            _ => {
                failures += 1;
                failures <= FAILURES.min(limit)
            }
        };
        if !stays {
            over.push(export.name_any());
            continue;
        }
        kept.push(ScheduledExport {
            name: export.name_any(),
            time: Time(due),
            phase,
            message: status.and_then(|s| s.message.clone()),
            artifact: status.and_then(|s| s.artifact.clone()),
        });
    }
    (kept, over)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn spec(schedule: &str, zone: &str) -> ScriptExportSpec {
        serde_json::from_value(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Runs", "schedule": schedule, "timeZone": zone,
        }))
        .unwrap()
    }

    fn schedule(text: &str, zone: &str) -> Schedule {
        Schedule::of("weekly", &spec(text, zone)).unwrap().unwrap()
    }

    #[test]
    fn times_are_those_of_the_zone() {
        let monday = schedule("0 6 * * 1", "UTC");
        assert_eq!(
            monday.next(at("2026-11-21T00:00:00Z")),
            Some(at("2026-11-23T06:00:00Z"))
        );
        assert_eq!(
            monday.next(at("2026-11-23T06:00:00Z")),
            Some(at("2026-11-30T06:00:00Z"))
        );
        assert_eq!(
            monday.last(at("2026-11-23T06:00:00.5Z")),
            Some(at("2026-11-23T06:00:00Z"))
        );
        assert_eq!(
            monday.last(at("2026-11-23T05:59:59Z")),
            Some(at("2026-11-16T06:00:00Z"))
        );
        let berlin = schedule("0 6 * * *", "Europe/Berlin");
        assert_eq!(
            berlin.next(at("2026-07-01T00:00:00Z")),
            Some(at("2026-07-01T04:00:00Z"))
        );
        assert_eq!(
            berlin.next(at("2026-12-01T00:00:00Z")),
            Some(at("2026-12-01T05:00:00Z"))
        );
    }

    /// Every time from one moment to another, found forwards; backwards they are the same.
    fn times(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let (mut now, mut found) = (at(from), Vec::new());
        while let Some(next) = schedule.next(now).filter(|next| *next <= at(to)) {
            assert_eq!(schedule.last(next), Some(next));
            assert_eq!(schedule.missed(now, next), Some(next));
            found.push(next.to_string());
            now = next;
        }
        found
    }

    #[test]
    fn an_hour_that_is_left_out_and_one_that_comes_twice_have_one_file_a_day() {
        let berlin = schedule("30 2 * * *", "Europe/Berlin");
        // On 29 March 2026 the clock goes from 2:00 to 3:00: the file is made at 3:00.
        assert_eq!(
            times(&berlin, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z"
            ]
        );
        // On 25 October 2026 it goes from 3:00 back to 2:00.
        assert_eq!(
            times(&berlin, "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z"),
            [
                "2026-10-24T00:30:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-26T01:30:00Z"
            ]
        );
        // What is made each hour is made each hour, also in the one that comes twice.
        let hourly = schedule("0 * * * *", "Europe/Berlin");
        assert_eq!(
            times(&hourly, "2026-10-24T22:30:00Z", "2026-10-25T03:00:00Z").len(),
            5
        );
        assert_eq!(
            times(&hourly, "2026-03-28T22:30:00Z", "2026-03-29T03:00:00Z").len(),
            5
        );
    }

    #[test]
    fn what_was_missed_is_caught_up_once() {
        let hourly = schedule("0 * * * *", "UTC");
        let now = at("2026-11-23T10:17:00Z");
        assert_eq!(
            hourly.missed(at("2026-11-20T10:00:00Z"), now),
            Some(at("2026-11-23T10:00:00Z"))
        );
        assert_eq!(hourly.missed(at("2026-11-23T10:00:00Z"), now), None);
    }

    #[test]
    fn a_schedule_that_can_not_be_is_refused_with_its_field() {
        let refusal = |spec: &ScriptExportSpec| Schedule::of("weekly", spec).unwrap_err();
        for text in ["", "0 6 * *", "0 0 6 * * 1", "61 * * * *", "every day"] {
            let refusal = refusal(&spec(text, "UTC"));
            assert_eq!(refusal.reason, "InvalidSchedule", "{text}");
            assert!(refusal.message.starts_with("spec.schedule: "), "{refusal:?}");
        }
        let zone = refusal(&spec("0 6 * * 1", "Europe/Nowhere"));
        assert!(
            zone.message.starts_with("spec.timeZone: \"Europe/Nowhere\""),
            "{zone:?}"
        );
        let mut ttl = spec("0 6 * * 1", "UTC");
        ttl.ttl_after_finished = Some("7d".into());
        assert_eq!(refusal(&ttl).reason, "InvalidTtl");
        assert!(Schedule::of(&"x".repeat(240), &spec("0 6 * * 1", "UTC")).is_err());
        assert_eq!(
            schedule("0 0 30 2 *", "UTC").next(at("2026-01-01T00:00:00Z")),
            None
        );
    }

    #[test]
    fn files_and_failures_are_kept_each_up_to_their_number() {
        use ExportPhase::{Failed, Running, Succeeded};

        let mut parent = ScriptExport::new("weekly", spec("0 * * * *", "UTC"));
        parent.metadata.uid = Some("u-1".into());
        parent.metadata.namespace = Some("shop".into());
        let of = |hour: usize, phase: Option<ExportPhase>| {
            let mut export = export_of(&parent, at(&format!("2026-11-23T{hour:02}:00:00Z")));
            export.status = Some(crate::api::ScriptExportStatus {
                phase,
                ..Default::default()
            });
            export
        };
        let mut all: Vec<_> = (0..4).map(|hour| of(hour, Some(Succeeded))).collect();
        all.extend((4..9).map(|hour| of(hour, Some(Failed))));
        all.push(of(9, Some(Running)));
        let (kept, over) = history(all.iter(), Some(3));
        let names: Vec<&str> = kept.iter().map(|h| &*h.name).collect();
        assert_eq!(names[0], "weekly-20261123t0900z");
        assert_eq!(names.len(), 1 + 3 + 3);
        assert_eq!(
            over,
            [
                "weekly-20261123t0500z",
                "weekly-20261123t0400z",
                "weekly-20261123t0000z"
            ]
        );
        assert_eq!(owner_uid(&all[0]), Some("u-1"));
        assert_eq!(all[0].spec.schedule, None);
        assert_eq!(due_of(&all[3]), Some(at("2026-11-23T03:00:00Z")));
        assert_eq!(owner_uid(&parent), None);
    }
}
