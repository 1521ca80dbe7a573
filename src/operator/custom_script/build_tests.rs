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
    };
    let live = built(&script(), &images()).deployment;
    let same = attempt(3, "a", DeploymentState::Deployed);
    assert_eq!(images_in_use(Some(&live), &same, &new), images());
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
