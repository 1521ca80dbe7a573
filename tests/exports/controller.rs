//! The controller: what becomes of each object.

use scriptscope::{
    export::{Table, file::ExportFolder, format::Format},
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
    bed::until,
    cluster::{Cluster, EVERYWHERE, IN_SHOP, export},
    key, plan, store,
};

#[tokio::test]
#[allow(clippy::too_many_lines)] // one story
async fn each_export_is_made_once_and_goes_with_its_object() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop");
    std::fs::create_dir_all(folder.join("orphan")).unwrap();
    // Made for an object that was deleted and created again meanwhile.
    let plan = plan(Table::Runs);
    let store = store(&data).await;
    ExportFolder::new(data.path())
        .write(
            &key("done"),
            "uid-before",
            plan,
            Format::default(),
            store.clone(),
            &|_| {},
        )
        .await
        .unwrap();
    let pay = json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
    let with = |more: Value| {
        let mut spec = pay.clone();
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        spec
    };
    let condition = |column: &str, value: &str| json!({"filters": [{"column": column, "operator": "Equals", "values": [value]}]});
    let objects = vec![
        export("all", &pay, Value::Null),
        export("contended", &pay, Value::Null),
        export("none", &with(condition("Source", "nobody")), Value::Null),
        export("wrong", &with(condition("Status", "Great")), Value::Null),
        export(
            "unknown",
            &json!({"scriptRef": {"name": "nope"}, "data": "Logs"}),
            Value::Null,
        ),
        export("done", &pay, json!({"phase": "Succeeded"})),
        export(
            "broken-off",
            &pay,
            json!({"phase": "Running", "startedAt": "2020-01-01T00:00:00Z"}),
        ),
        json!({"metadata": {"name": "unreadable", "namespace": "shop", "uid": "u"}, "spec": {"data": "Cats"}}),
    ];
    let cluster = Cluster::new(EVERYWHERE, objects);
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
    cluster
        .until("six ends, six events", |c| c.events.lock().unwrap().len() == 6)
        .await;

    for name in ["all", "contended"] {
        let status = cluster.status(name);
        assert_eq!(status["artifact"]["rows"], ROWS, "{status}");
        assert_eq!(status["artifact"]["fileName"], "pay_runs_data.csv");
        assert_eq!(
            status["artifact"]["url"],
            format!("/api/v1/namespaces/shop/exports/{name}/file")
        );
        let file = folder.join(name).join("pay_runs_data.csv");
        assert_eq!(
            std::fs::metadata(file).unwrap().len(),
            status["artifact"]["bytes"]
        );
    }
    assert_eq!(cluster.phases("all"), ["Pending", "Running", "Succeeded"]);
    assert_eq!(cluster.status("none")["artifact"]["rows"], 0);
    let header = std::fs::read_to_string(folder.join("none/pay_runs_data.csv")).unwrap();
    assert!(header.starts_with("Run ID,Status,") && header.lines().count() == 1);
    for (name, reason, part) in [
        ("wrong", "InvalidFilter", "spec.filters: Status: \"Great\""),
        ("unknown", "ScriptNotFound", "no CustomScript nope"),
    ] {
        let status = cluster.status(name);
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["conditions"][1]["type"], "Failed");
        assert_eq!(status["conditions"][1]["reason"], reason);
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
        assert!(!folder.join(name).exists());
    }
    // Its range is still the one of its first attempt, by now far in the past.
    let again = cluster.status("broken-off");
    assert_eq!(
        (&again["phase"], &again["startedAt"]),
        (&json!("Succeeded"), &json!("2020-01-01T00:00:00Z"))
    );
    assert_eq!(cluster.phases("done"), Vec::<String>::new());
    assert!(!folder.join("orphan").exists() && !folder.join("done").exists());

    let gone = cluster.objects.lock().unwrap().remove("all").unwrap();
    cluster.notify("DELETED", &gone);
    // Events are taken in order: once the next one has its effect, this one has had its.
    let next = export("next", &pay, Value::Null);
    cluster
        .objects
        .lock()
        .unwrap()
        .insert("next".into(), next.clone());
    cluster.notify("ADDED", &next);
    cluster
        .until("the next export", |c| {
            c.phases("next").last().is_some_and(|p| p == "Succeeded")
        })
        .await;
    assert!(!folder.join("all").exists() && folder.join("next").exists());

    shutdown.cancel();
    controller.await.unwrap();
}

#[tokio::test]
async fn an_operator_of_one_namespace_makes_its_exports_and_leaves_the_files_of_others() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports");
    for place in ["shop/orphan", "other/of-before"] {
        std::fs::create_dir_all(folder.join(place)).unwrap();
    }
    let pay = json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
    let cluster = Cluster::new(IN_SHOP, vec![export("all", &pay, Value::Null)]);
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store(&data).await, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::namespace("shop"), shutdown.clone()));
    cluster
        .until("the end of the export", |c| c.events.lock().unwrap().len() == 1)
        .await;
    assert_eq!(cluster.status("all")["phase"], "Succeeded");
    shutdown.cancel();
    controller.await.unwrap();
    assert!(!folder.join("shop/orphan").exists());
    assert!(folder.join("other/of-before").exists());
}

#[tokio::test]
async fn a_cancelled_export_leaves_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop");
    let pay = json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
    let mut never = pay.clone();
    never["cancelled"] = json!(true);
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export("late", &pay, Value::Null),
            export("never", &never, Value::Null),
            export("done", &pay, Value::Null),
        ],
    );
    *cluster.held.lock().unwrap() = Some("late".to_owned());
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store(&data).await, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
    // Its file is complete, and nobody knows.
    until("the file", || folder.join("late/export.json").exists()).await;
    cluster.edit("late", |spec| spec["cancelled"] = json!(true));
    cluster
        .until("three ends", |c| c.events.lock().unwrap().len() == 3)
        .await;
    for name in ["late", "never"] {
        let status = cluster.status(name);
        assert_eq!(status["phase"], "Cancelled", "{status}");
        assert_eq!(status["conditions"][2]["type"], "Cancelled");
        assert_eq!(status["conditions"][2]["status"], "True");
        assert!(status["artifact"].is_null() && !status["completedAt"].is_null());
        assert!(!folder.join(name).exists());
    }
    // Too late: it has its file, and keeps it.
    cluster.edit("done", |spec| spec["cancelled"] = json!(true));
    cluster.edit("done", |spec| spec["ttlAfterFinished"] = json!("1s"));
    cluster
        .until("the end of its time", |c| {
            !c.objects.lock().unwrap().contains_key("done")
        })
        .await;
    assert_eq!(cluster.phases("done").last().unwrap(), "Succeeded");
    until("the removal of the file", || !folder.join("done").exists()).await;
    shutdown.cancel();
    controller.await.unwrap();
}

#[tokio::test]
async fn exports_go_when_their_time_is_over() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop");
    let store = store(&data).await;
    let exports = ExportFolder::new(data.path());
    let spec = |ttl: &str| json!({"scriptRef": {"name": "pay"}, "data": "Runs", "ttlAfterFinished": ttl});
    let ended = json!({"phase": "Succeeded", "completedAt": "2026-01-01T00:00:00Z"});
    for name in ["over", "kept"] {
        exports
            .write(
                &key(name),
                &format!("uid-{name}"),
                plan(Table::Runs),
                Format::default(),
                store.clone(),
                &|_| {},
            )
            .await
            .unwrap();
    }
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export("over", &spec("1d"), ended.clone()),
            export("kept", &spec("9999w"), ended),
        ],
    );
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
    cluster
        .until("the deletion", |c| {
            !c.objects.lock().unwrap().contains_key("over")
        })
        .await;
    until("the removal of the file", || !folder.join("over").exists()).await;
    assert!(folder.join("kept/pay_runs_data.csv").exists());
    assert!(cluster.objects.lock().unwrap().contains_key("kept"));
    shutdown.cancel();
    controller.await.unwrap();
}
