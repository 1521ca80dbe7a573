//! Versions and deployments.

use std::{collections::BTreeSet, sync::Arc};

use scriptscope::model::{Change, DeploymentState, KeptSpec};

use crate::support::{Backend, at, pod, script};

pub async fn versions_only_go_up(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    assert_eq!(
        store.begin_deployment(&a, "one", 0, at(0)).await.unwrap().version,
        1
    );
    assert_eq!(
        store.begin_deployment(&a, "two", 0, at(1)).await.unwrap().version,
        2
    );
    // The object knows of more than the store: the store was restored from a copy.
    assert_eq!(
        store.begin_deployment(&a, "two", 7, at(2)).await.unwrap().version,
        8
    );
    // A pod of a version that the store forgot.
    store.register_pod(&pod(&a, "u", 11)).await.unwrap();
    assert_eq!(
        store.begin_deployment(&a, "two", 0, at(3)).await.unwrap().version,
        12
    );
    assert_eq!(
        store
            .begin_deployment(&script("b"), "one", 0, at(4))
            .await
            .unwrap()
            .version,
        1
    );
    store.close().await;
    drop(store);
    let store = backend.open().await;
    assert_eq!(
        store
            .begin_deployment(&a, "three", 0, at(5))
            .await
            .unwrap()
            .version,
        13
    );
    let versions: Vec<i64> = store
        .deployments(&a, 3)
        .await
        .unwrap()
        .into_iter()
        .map(|d| d.version)
        .collect();
    assert_eq!(versions, [13, 12, 8]);
}

pub async fn a_deployment_is_begun_once(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let first = store.begin_deployment(&a, "same", 0, at(0)).await.unwrap();
    assert_eq!(store.begin_deployment(&a, "same", 1, at(9)).await.unwrap(), first);
    assert!(
        first.deployment_id.starts_with("deploy_"),
        "{}",
        first.deployment_id
    );
    store
        .set_deployment_state(&a, 1, DeploymentState::Failed, Some("no image"), at(10))
        .await
        .unwrap();
    let again = store.begin_deployment(&a, "same", 1, at(11)).await.unwrap();
    assert_eq!(again.version, 2);
    assert_ne!(again.deployment_id, first.deployment_id);
    let failed = &store.deployments(&a, 9).await.unwrap()[1];
    assert_eq!(
        (failed.reason.as_deref(), failed.ended_at),
        (Some("no image"), Some(at(10)))
    );
}

pub async fn a_later_deployment_replaces_earlier_ones(backend: &impl Backend) {
    use DeploymentState::{Deployed, Deploying, Failed, Replaced, Undeployed};
    let store = backend.open().await;
    let a = script("a");
    for fingerprint in ["1", "2", "3"] {
        store.begin_deployment(&a, fingerprint, 0, at(0)).await.unwrap();
    }
    let states = async || -> Vec<DeploymentState> {
        let all = store.deployments(&a, 9).await.unwrap();
        all.into_iter().map(|d| d.state).collect()
    };
    let set = async |version, state, time| {
        store
            .set_deployment_state(&a, version, state, None, at(time))
            .await
            .unwrap();
    };
    set(1, Deployed, 1).await;
    set(2, Failed, 2).await;
    assert_eq!(states().await, [Deploying, Failed, Deployed]);
    set(3, Deployed, 3).await;
    set(3, Deployed, 4).await;
    assert_eq!(states().await, [Deployed, Failed, Replaced]);
    let newest = store.deployments(&a, 1).await.unwrap().remove(0);
    assert_eq!((newest.deployed_at, newest.ended_at), (Some(at(3)), None));
    // What has ended stays as it is.
    set(1, Deployed, 5).await;
    set(3, Undeployed, 6).await;
    assert_eq!(states().await, [Undeployed, Failed, Replaced]);
}

pub async fn scripts_are_listed_in_order(backend: &impl Backend) {
    use scriptscope::model::ScriptKey;
    let store = backend.open().await;
    for (namespace, name) in [("b", "x"), ("a", "z"), ("a", "y")] {
        let key = ScriptKey::new(namespace, name);
        store
            .register_pod(&pod(&key, &format!("{namespace}{name}"), 1))
            .await
            .unwrap();
    }
    let names = |scripts: Vec<ScriptKey>| scripts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(store.scripts(None).await.unwrap()), ["a/y", "a/z", "b/x"]);
    assert_eq!(names(store.scripts(Some("b")).await.unwrap()), ["b/x"]);
    assert!(store.scripts(Some("c")).await.unwrap().is_empty());
}

pub async fn what_made_a_version_is_kept_once(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    for fingerprint in ["one", "two"] {
        store.begin_deployment(&a, fingerprint, 0, at(0)).await.unwrap();
    }
    let long = format!("{{\"source\":\"{}\"}}", "x".repeat(10_000));
    let kept = KeptSpec {
        spec: long.clone(),
        changed_by: Some("kubectl-edit".into()),
        change: Change {
            cause: "rollback to 3".into(),
            fields: vec!["env.RATE".into()],
            more_fields: 5,
            claimed_by: Some("alice\0".into()),
        },
        beside: "{\"uid\":\"u\"}".into(),
    };
    let later = KeptSpec {
        spec: "{}".into(),
        ..KeptSpec::default()
    };
    store.keep_spec(&a, 1, &kept).await.unwrap();
    store.keep_spec(&a, 1, &later).await.unwrap();
    store.keep_spec(&a, 7, &later).await.unwrap();
    store.keep_spec(&script("b"), 1, &later).await.unwrap();
    let first = store.deployed_spec(&a, 1).await.unwrap().unwrap();
    assert_eq!(first.spec.unwrap().get(), long);
    assert_eq!(first.beside.as_deref(), Some("{\"uid\":\"u\"}"));
    let second = store.deployed_spec(&a, 2).await.unwrap().unwrap();
    assert!(second.spec.is_none() && second.beside.is_none());
    assert!(store.deployed_spec(&a, 7).await.unwrap().is_none());
    assert!(store.deployed_spec(&script("b"), 1).await.unwrap().is_none());
    let [second, first] = &store.deployments(&a, 9).await.unwrap()[..] else {
        panic!("two versions");
    };
    assert_eq!(
        (first.spec_kept, first.changed_by.as_deref()),
        (true, Some("kubectl-edit"))
    );
    assert_eq!(first.change, Some(kept.change));
    assert_eq!(
        (second.spec_kept, &second.changed_by, &second.change),
        (false, &None, &None)
    );
}

pub async fn concurrent_edits_never_get_the_same_number(backend: &impl Backend) {
    let store = backend.open().await;
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let edit = format!("edit {n}");
                store
                    .begin_deployment(&script("a"), &edit, 0, at(0))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut begun = BTreeSet::new();
    for task in tasks {
        begun.insert(task.await.unwrap().version);
    }
    assert_eq!(begun, (1..=20).collect());
}

pub async fn an_undeploy_takes_no_number_and_a_failed_attempt_keeps_its_own(backend: &impl Backend) {
    let store = backend.open().await;
    let a = script("a");
    let begin = async |fingerprint: &str, known: i64| {
        let begun = store.begin_deployment(&a, fingerprint, known, at(0)).await;
        begun.unwrap().version
    };
    let set = async |version, state| {
        let set = store.set_deployment_state(&a, version, state, None, at(1)).await;
        set.unwrap();
    };
    assert_eq!(begin("one", 0).await, 1);
    set(1, DeploymentState::Failed).await;
    assert_eq!(begin("mended", 1).await, 2);
    set(2, DeploymentState::Deployed).await;
    set(2, DeploymentState::Undeployed).await;
    assert_eq!(store.deployments(&a, 9).await.unwrap().len(), 2);
    assert_eq!(begin("mended", 2).await, 3);
    // The object was deleted and created under the same name: its status knows of nothing, and what runs has another hash.
    assert_eq!(begin("created anew", 0).await, 4);
    let states = store.deployments(&a, 9).await.unwrap();
    assert_eq!(states.last().unwrap().state, DeploymentState::Failed);
}
