//! What runs a script, as its author and its cluster's administrator see it.

use kube::Resource;

use super::*;
use crate::{
    model::DeploymentState,
    operator::custom_script::fixtures::{attempt, files, script},
};

fn images() -> Images {
    Images {
        install: "scriptscope:1".into(),
        python: "python:3.13".into(),
        node: "node:24".into(),
    }
}

fn built(object: &CustomScript, images: &Images) -> Objects {
    build(Plan {
        object,
        owner: &object.controller_owner_ref(&()).unwrap(),
        files: &files(),
        attempt: &attempt(3, "a", DeploymentState::Deploying),
        images,
    })
}

fn pod_of(objects: &Objects) -> PodSpec {
    objects.deployment.spec.clone().unwrap().template.spec.unwrap()
}

fn variables(objects: &Objects) -> BTreeMap<String, String> {
    let env = pod_of(objects).containers[0].env.clone().unwrap();
    env.into_iter()
        .map(|e| (e.name, e.value.unwrap_or_default()))
        .collect()
}

#[test]
fn everything_is_named_labelled_and_owned() {
    let objects = built(&script(), &images());
    let map = objects.source.as_ref().unwrap();
    let source = map.metadata.name.clone().unwrap();
    assert!(source.starts_with("qbalance-source-"), "{source}");
    for meta in [
        &map.metadata,
        &objects.service.metadata,
        &objects.peers.metadata,
        &objects.deployment.metadata,
    ] {
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.uid.as_str(), owner.controller), ("uid-1", Some(true)));
        assert_eq!(meta.labels.as_ref().unwrap()[labels::SCRIPT], "qbalance");
        assert_eq!(meta.namespace.as_deref(), Some("shop"));
    }
    assert_eq!(map.immutable, Some(true));
    assert_eq!(map.data, Some(files().text));
    let volume = pod_of(&objects).volumes.unwrap()[1].config_map.clone().unwrap();
    assert_eq!(volume.name, source);
}

#[test]
fn the_selector_stays_while_the_pods_name_their_version() {
    let spec = built(&script(), &images()).deployment.spec.unwrap();
    let selector = spec.selector.match_labels.unwrap();
    assert_eq!(
        selector,
        [(labels::SCRIPT.to_owned(), "qbalance".to_owned())].into()
    );
    let pod = spec.template.metadata.unwrap().labels.unwrap();
    assert_eq!(pod[labels::VERSION], "3");
    assert_eq!(pod[labels::DEPLOYMENT_ID], "deploy-3");
}

#[test]
fn the_runner_gets_its_settings_and_nobody_else_sets_them() {
    let mut object = script();
    object.spec.env = [("MODE", "fast"), ("SCRIPTSCOPE_VERSION", "99")]
        .map(|(name, value)| EnvVar {
            name: name.into(),
            value: Some(value.into()),
            ..EnvVar::default()
        })
        .into();
    object.spec.timeout_seconds = 7;
    object.spec.capture.output = false;
    let objects = built(&object, &images());
    let env = variables(&objects);
    let expected = [
        ("MODE", "fast"),
        ("SCRIPTSCOPE_VERSION", "3"),
        ("SCRIPTSCOPE_DEPLOYMENT_ID", "deploy-3"),
        ("SCRIPTSCOPE_TIMEOUT_SECONDS", "7"),
        ("SCRIPTSCOPE_CONCURRENCY", "1"),
        ("SCRIPTSCOPE_LOGGING", "AfterCompletion"),
        ("SCRIPTSCOPE_CAPTURE_INPUT", "true"),
        ("SCRIPTSCOPE_CAPTURE_OUTPUT", "false"),
        ("SCRIPTSCOPE_CAPTURE_MAX_BYTES", "262144"),
        ("SCRIPTSCOPE_POD_IP", ""),
        ("SCRIPTSCOPE_PEERS", &objects.peers.metadata.name.clone().unwrap()),
    ];
    assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(pod_of(&objects).termination_grace_period_seconds, Some(37));
}

#[test]
fn pods_are_restricted_and_have_no_token_unless_an_account_is_named() {
    let pod = pod_of(&built(&script(), &images()));
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert_eq!(pod.enable_service_links, Some(false));
    assert_eq!(pod.runtime_class_name.as_deref(), Some("gvisor"));
    let security = pod.security_context.unwrap();
    assert_eq!(
        (security.run_as_non_root, security.run_as_user),
        (Some(true), Some(USER))
    );
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        assert_eq!(
            container.security_context,
            Some(container_security()),
            "{}",
            container.name
        );
    }

    let mut object = script();
    object.spec.service_account_name = Some("billing".into());
    object.spec.runtime_class_name = String::new();
    let pod = pod_of(&built(&object, &images()));
    assert_eq!(pod.automount_service_account_token, Some(true));
    assert_eq!(pod.runtime_class_name, None);
}

#[test]
fn the_script_can_write_to_tmp_alone() {
    let pod = pod_of(&built(&script(), &images()));
    let writable: Vec<_> = pod.containers[0]
        .volume_mounts
        .iter()
        .flatten()
        .filter(|m| m.read_only != Some(true))
        .map(|m| m.mount_path.as_str())
        .collect();
    assert_eq!(writable, ["/tmp"]);
}

#[test]
fn an_upgraded_operator_leaves_running_pods_alone() {
    let new = Images {
        install: "scriptscope:2".into(),
        python: "python:3.14".into(),
        node: "node:26".into(),
    };
    let live = built(&script(), &images()).deployment;
    let same = attempt(3, "a", DeploymentState::Deployed);
    let in_use = images_in_use(Some(&live), &same, &new);
    assert_eq!(in_use.install, images().install);
    assert_eq!(in_use.of(script().spec.runtime), images().python);
    let next = attempt(4, "b", DeploymentState::Deploying);
    assert_eq!(images_in_use(Some(&live), &next, &new), new);
    assert_eq!(images_in_use(None, &same, &new), new);
    assert_eq!(version_of(&live), Some(3));
}

#[test]
fn the_image_of_the_spec_wins_over_the_operators() {
    let mut object = script();
    object.spec.runtime_image = Some("own:1".into());
    let pod = pod_of(&built(&object, &images()));
    assert_eq!(pod.containers[0].image.as_deref(), Some("own:1"));
    assert_eq!(
        pod.init_containers.unwrap()[0].image.as_deref(),
        Some("scriptscope:1")
    );
}

#[test]
fn a_node_script_runs_in_the_node_image_by_the_node_worker() {
    let mut object = script();
    assert!(!variables(&built(&object, &images())).contains_key("SCRIPTSCOPE_RUNTIME"));
    object.spec.runtime = Some(Runtime::Node);
    let objects = built(&object, &images());
    assert_eq!(pod_of(&objects).containers[0].image.as_deref(), Some("node:24"));
    assert_eq!(variables(&objects)["SCRIPTSCOPE_RUNTIME"], "node");
    let same = attempt(3, "a", DeploymentState::Deployed);
    let new = Images {
        node: "node:26".into(),
        ..images()
    };
    let in_use = images_in_use(Some(&objects.deployment), &same, &new);
    assert_eq!(in_use.of(object.spec.runtime), "node:24");
}

#[test]
fn a_service_of_no_address_names_every_pod_and_takes_nobodys_name() {
    let mut object = script();
    object.metadata.name = Some("x".repeat(52));
    let peers = built(&object, &images()).peers;
    let name = peers.metadata.name.unwrap();
    assert_eq!(name.len(), 63, "{name}");
    let spec = peers.spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
    assert_eq!(spec.publish_not_ready_addresses, Some(true));
}

#[test]
fn an_autoscaler_is_there_only_where_the_spec_leaves_a_choice() {
    let mut object = script();
    object.spec.replicas.min = 2;
    let fixed = built(&object, &images());
    assert_eq!(
        (fixed.deployment.spec.unwrap().replicas, fixed.autoscaler),
        (Some(2), None)
    );
    object.spec.replicas.max = Some(5);
    let scaled = built(&object, &images());
    assert_eq!(
        scaled.deployment.spec.unwrap().replicas,
        None,
        "the number is not ours"
    );
    let autoscaler = scaled.autoscaler.unwrap();
    assert_eq!(autoscaler.metadata.owner_references.unwrap()[0].uid, "uid-1");
    let spec = autoscaler.spec.unwrap();
    assert_eq!((spec.min_replicas, spec.max_replicas), (Some(2), 5));
    assert_eq!(
        (
            spec.scale_target_ref.kind.as_str(),
            spec.scale_target_ref.name.as_str()
        ),
        ("Deployment", "qbalance")
    );
    let metric = spec.metrics.unwrap()[0].container_resource.clone().unwrap();
    assert_eq!(
        (metric.container.as_str(), metric.target.average_utilization),
        ("script", Some(75))
    );
}

#[test]
fn no_container_of_the_script_sees_an_api_key() {
    let without = pod_of(&built(&script(), &images()));
    assert_eq!(
        (
            without.init_containers.unwrap().len(),
            without.volumes.unwrap().len()
        ),
        (1, 3)
    );
    let mut object = script();
    object.spec.endpoint =
        Some(serde_json::from_value(serde_json::json!({ "apiKeysSecretRef": { "name": "keys" } })).unwrap());
    let pod = pod_of(&built(&object, &images()));
    let volumes = pod.volumes.unwrap();
    let secrets: Vec<_> = volumes
        .iter()
        .filter(|v| v.secret.is_some())
        .map(|v| v.name.as_str())
        .collect();
    assert_eq!(secrets, ["api-keys"]);
    assert_eq!(
        volumes
            .iter()
            .find_map(|v| v.secret.as_ref())
            .unwrap()
            .secret_name
            .as_deref(),
        Some("keys")
    );
    let mounts = |container: &Container| -> Vec<(String, Option<bool>)> {
        let mounts = container.volume_mounts.clone().unwrap();
        mounts.into_iter().map(|m| (m.name, m.read_only)).collect()
    };
    let script = mounts(&pod.containers[0]);
    assert!(script.iter().all(|(name, _)| name != "api-keys"), "{script:?}");
    assert!(script.contains(&("api-key-hashes".into(), Some(true))));
    let sidecar = pod.init_containers.unwrap().pop().unwrap();
    assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"));
    assert_eq!(sidecar.security_context, Some(container_security()));
    assert!(mounts(&sidecar).contains(&("api-keys".into(), Some(true))));
    let variable = |container: &Container| {
        let env = container.env.clone().unwrap();
        env.into_iter()
            .find(|e| e.name == "SCRIPTSCOPE_API_KEYS")
            .unwrap()
            .value
    };
    assert_eq!(variable(&sidecar), variable(&pod.containers[0]));
}
