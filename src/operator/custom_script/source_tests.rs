//! How files and packages come into a pod, as its author and its cluster's administrator see it.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::Resource;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::CustomScript,
    model::DeploymentState,
    operator::custom_script::{
        build::{Images, Objects, build},
        fixtures::{attempt, files, script},
    },
};

fn from(source: Value) -> CustomScript {
    let mut object = script();
    object.spec.source = Some(serde_json::from_value(source).unwrap());
    object
}

fn archive() -> CustomScript {
    from(json!({ "archive": { "url": "http://files.shop.svc/balance.zip", "sha256": "ab".repeat(32) } }))
}

fn objects(object: &CustomScript, files: &Files) -> Objects {
    build(Plan {
        object,
        owner: &object.controller_owner_ref(&()).unwrap(),
        files,
        attempt: &attempt(3, "a", DeploymentState::Deploying),
        images: &Images {
            install: "scriptscope:1".into(),
            python: "python:3.13".into(),
            node: "node:24".into(),
        },
    })
}

fn pod(objects: &Objects) -> PodSpec {
    objects.deployment.spec.clone().unwrap().template.spec.unwrap()
}

fn steps_of(pod: &PodSpec) -> Vec<&str> {
    pod.init_containers
        .iter()
        .flatten()
        .map(|c| c.name.as_str())
        .collect()
}

fn step_of<'a>(pod: &'a PodSpec, name: &str) -> &'a Container {
    pod.init_containers
        .iter()
        .flatten()
        .find(|c| c.name == name)
        .unwrap()
}

fn mounted(container: &Container) -> Vec<(&str, &str, bool)> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|m| (m.name.as_str(), m.mount_path.as_str(), m.read_only == Some(true)))
        .collect()
}

fn variable(container: &Container, name: &str) -> Option<String> {
    let variables = container.env.iter().flatten();
    variables.filter(|v| v.name == name).find_map(|v| v.value.clone())
}

#[test]
fn an_archive_is_fetched_by_the_pod_and_its_packages_are_looked_for() {
    let objects = objects(&archive(), &Files::default());
    assert_eq!(objects.source, None);
    let pod = pod(&objects);
    assert_eq!(steps_of(&pod), ["install", FETCH, DEPENDENCIES]);
    let fetch = step_of(&pod, FETCH);
    assert_eq!(fetch.image.as_deref(), Some("scriptscope:1"));
    assert_eq!(
        fetch.args.as_ref().unwrap().join(" "),
        format!(
            "fetch --url http://files.shop.svc/balance.zip --sha256 {} --to /app --entry main.py",
            "ab".repeat(32)
        )
    );
    assert_eq!(mounted(fetch)[0], ("source", "/app", false));
    let install = step_of(&pod, DEPENDENCIES);
    assert_eq!(install.image.as_deref(), Some("python:3.13"));
    assert!(mounted(install).contains(&("source", "/app", true)));
    let script = &pod.containers[0];
    assert!(mounted(script).contains(&("source", "/app", true)));
    assert!(mounted(script).contains(&("dependencies", "/dependencies", true)));
    assert_eq!(variable(script, "PYTHONPATH").as_deref(), Some("/dependencies"));
    // What is unpacked and installed has a bound, and so has the time for it.
    for name in ["source", DEPENDENCIES] {
        let volume = pod.volumes.iter().flatten().find(|v| v.name == name).unwrap();
        assert!(volume.empty_dir.as_ref().unwrap().size_limit.is_some(), "{name}");
    }
    let spec = objects.deployment.spec.unwrap();
    assert_eq!(spec.progress_deadline_seconds, Some(60 + 600 + 600));
}

#[test]
fn packages_of_files_at_hand_are_installed_only_where_some_are_asked_for() {
    let object = script();
    assert_eq!(steps_of(&pod(&objects(&object, &files()))), ["install"]);
    let mut with_packages = files();
    with_packages
        .text
        .insert("requirements.txt".into(), "requests".into());
    let objects = objects(&object, &with_packages);
    assert!(objects.source.is_some());
    assert_eq!(steps_of(&pod(&objects)), ["install", DEPENDENCIES]);
}

#[test]
fn the_steps_see_the_scripts_variables_and_are_as_restricted_as_the_script() {
    let mut object = archive();
    let env: Vec<EnvVar> = serde_json::from_value(json!([
        { "name": "PIP_INDEX_URL", "value": "http://index.shop.svc/simple" },
        { "name": "PYTHONPATH", "value": "/app/lib" },
    ]))
    .unwrap();
    object.spec.env = env;
    object.spec.env_from = serde_json::from_value(json!([{ "secretRef": { "name": "index" } }])).unwrap();
    object.spec.runtime_image = Some("own:1".into());
    let pod = pod(&objects(&object, &Files::default()));
    for name in [FETCH, DEPENDENCIES] {
        let step = step_of(&pod, name);
        assert_eq!(
            variable(step, "PIP_INDEX_URL").as_deref(),
            Some("http://index.shop.svc/simple")
        );
        assert_eq!(step.env_from.as_ref().unwrap().len(), 1);
        assert_eq!(step.security_context, pod.containers[0].security_context);
        assert_eq!(step.resources, object.spec.resources);
    }
    assert_eq!(step_of(&pod, DEPENDENCIES).image.as_deref(), Some("own:1"));
    let path = variable(&pod.containers[0], "PYTHONPATH");
    assert_eq!(path.as_deref(), Some("/dependencies:/app/lib"));
}

#[test]
fn an_image_holds_the_script_and_its_packages() {
    let object = from(json!({ "image": "shop/balance:1" }));
    let objects = objects(&object, &Files::default());
    assert_eq!(objects.source, None);
    let pod = pod(&objects);
    assert_eq!(steps_of(&pod), ["install"]);
    let script = &pod.containers[0];
    assert_eq!(script.image.as_deref(), Some("shop/balance:1"));
    assert!(
        mounted(script)
            .iter()
            .all(|(_, path, _)| !path.starts_with("/app"))
    );
    assert_eq!(script.working_dir.as_deref(), Some("/app"));
}
