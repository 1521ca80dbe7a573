//! Schedules: an export for each time that is due.

use jiff::{SignedDuration, Timestamp, ToSpan, tz::TimeZone};
use scriptscope::{
    metrics::Metrics,
    operator::{
        Scope,
        script_export::{ExportContext, run},
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    ROWS,
    cluster::{Cluster, EVERYWHERE, export},
    store,
};

/// A schedule that is due once a day, some hours ago, so that nothing is due while a test runs.
fn daily() -> (String, Timestamp) {
    let due = Timestamp::now() - SignedDuration::from_hours(6);
    let due = due.to_zoned(TimeZone::UTC).round(jiff::Unit::Hour).unwrap();
    (format!("0 {} * * *", due.hour()), due.timestamp())
}

fn scheduled(name: &str, schedule: &str, more: &Value) -> Value {
    let mut spec =
        json!({"scriptRef": {"name": "pay"}, "data": "Runs", "schedule": schedule, "range": {"last": "1d"}});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let mut object = export(name, &spec, Value::Null);
    // Three days of which none has a file.
    let created = Timestamp::now() - SignedDuration::from_hours(72);
    object["metadata"]["creationTimestamp"] = json!(created.to_string());
    object
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // one story
async fn a_schedule_makes_what_is_due_once_and_keeps_so_many() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop");
    let (schedule, due) = daily();
    let mut objects = vec![
        scheduled("weekly", &schedule, &json!({"historyLimit": 2})),
        scheduled("later", &schedule, &json!({"suspend": true})),
        scheduled("wrong", "every day", &json!({})),
        scheduled("ended", &schedule, &json!({"cancelled": true})),
    ];
    // Two of before, and one of which the file came, but not the word.
    for days in [2, 3] {
        let time = due - (24 * days).hours();
        let name = format!("weekly-{}", time.strftime("%Y%m%dt%H%Mz"));
        let mut before = export(
            &name,
            &json!({"scriptRef": {"name": "pay"}, "data": "Runs"}),
            json!({"phase": "Succeeded", "completedAt": time.to_string()}),
        );
        before["metadata"]["annotations"] = json!({"scriptscope.dev/due": time.to_string()});
        before["metadata"]["ownerReferences"] = json!([{"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
            "name": "weekly", "uid": "uid-weekly", "controller": true}]);
        objects.push(before);
    }
    let cluster = Cluster::new(EVERYWHERE, objects);
    let store = store(&data).await;
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store.clone(), data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
    cluster
        .until("the file in the history", |c| {
            c.status("weekly")["history"][0]["phase"] == "Succeeded"
                && c.status("weekly")["history"].as_array().unwrap().len() == 2
        })
        .await;
    cluster
        .until("all are told", |c| {
            ["later", "wrong", "ended"]
                .iter()
                .all(|name| !c.status(name)["phase"].is_null())
        })
        .await;

    let name = format!("weekly-{}", due.strftime("%Y%m%dt%H%Mz"));
    let file = format!("pay_runs_data_{}.csv", due.strftime("%Y-%m-%dT%H%MZ"));
    let status = cluster.status("weekly");
    assert_eq!(status["phase"], "Scheduled", "{status}");
    let time = |field: &str| status[field].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(time("lastScheduleTime"), due);
    assert_eq!(time("nextScheduleTime"), due + 24.hours());
    assert_eq!(status["artifact"]["fileName"], file.as_str());
    assert_eq!(
        status["artifact"]["url"],
        format!("/api/v1/namespaces/shop/exports/{name}/file")
    );
    assert_eq!(status["history"][0]["name"], name.as_str());
    assert_eq!(status["history"][0]["artifact"]["fileName"], file.as_str());
    assert!(folder.join(&name).join(&file).exists());
    // The rows of this test are of one hour ago, and so after it was due.
    let made = cluster.objects.lock().unwrap()[&name].clone();
    assert_eq!(made["status"]["artifact"]["rows"], 0);
    assert!(made["spec"]["schedule"].is_null(), "{made}");
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "uid-weekly");
    // Of all that was missed one was made, and the oldest of three is over the limit.
    assert_eq!(
        cluster
            .objects
            .lock()
            .unwrap()
            .keys()
            .filter(|name| name.starts_with("weekly-"))
            .count(),
        2
    );

    let later = cluster.status("later");
    assert_eq!(
        (&later["phase"], &later["nextScheduleTime"]),
        (&json!("Suspended"), &Value::Null)
    );
    let wrong = cluster.status("wrong");
    assert_eq!(wrong["conditions"][1]["reason"], "InvalidSchedule", "{wrong}");
    assert!(wrong["message"].as_str().unwrap().starts_with("spec.schedule: "));
    assert_eq!(cluster.status("ended")["phase"], "Cancelled");

    // What was wrong can be mended, and what was put off is caught up once.
    let hourly = schedule.clone();
    cluster.edit("wrong", |spec| spec["schedule"] = json!(hourly));
    cluster.edit("later", |spec| spec["suspend"] = json!(false));
    cluster
        .until("both have a file", |c| {
            ["later", "wrong"]
                .iter()
                .all(|name| c.status(name)["history"][0]["phase"] == "Succeeded")
        })
        .await;
    shutdown.cancel();
    controller.await.unwrap();

    // An operator that comes back makes nothing twice.
    let before = cluster.objects.lock().unwrap().len();
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
    let all = json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
    let last = export("last", &all, Value::Null);
    cluster
        .objects
        .lock()
        .unwrap()
        .insert("last".into(), last.clone());
    cluster.notify("ADDED", &last);
    cluster
        .until("another export", |c| c.status("last")["phase"] == "Succeeded")
        .await;
    assert_eq!(cluster.status("last")["artifact"]["rows"], ROWS);
    assert_eq!(cluster.objects.lock().unwrap().len(), before + 1);
    shutdown.cancel();
    controller.await.unwrap();
}
