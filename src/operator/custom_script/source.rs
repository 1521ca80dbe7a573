//! What brings a script's files and packages into its pod. Pure.
//!
//! Inline files and a `ConfigMap` come by a `ConfigMap` of the version, an archive by the init step `fetch`, an image has
//! them. Packages come by the init step `dependencies`.

use k8s_openapi::{
    api::core::v1::{ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, Volume, VolumeMount},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    build::{PROJECT_DIR, Plan, RUNNER_DIR, container_security, mount, runner_path},
    fingerprint::Files,
};
use crate::{
    api::{Archive, CustomScriptSpec, Runtime},
    dependencies::{self, Manager},
    fetch,
};

/// Name of the init step that fetches an archive.
pub const FETCH: &str = "fetch";
/// Name of the init step that installs packages.
pub const DEPENDENCIES: &str = "dependencies";
/// What an unpacked archive, and the packages of a script, may take of a node's disk.
const SOURCE_LIMIT: &str = "4608Mi";
const DEPENDENCIES_LIMIT: &str = "4Gi";
/// Seconds that a rollout may go on without a pod becoming ready.
const PROGRESS_SECONDS: i32 = 60;

/// What installs the packages of a language.
fn manager(runtime: Runtime) -> Manager {
    match runtime {
        Runtime::Python => Manager::Pip,
        Runtime::Node => Manager::Npm,
    }
}

/// Where a language finds its packages. Node looks into `/node_modules` for whatever lies in `/app`.
fn packages_dir(manager: Manager) -> &'static str {
    match manager {
        Manager::Pip => "/dependencies",
        Manager::Npm => "/node_modules",
    }
}

/// How the files of a script come into its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// By a `ConfigMap` of the version.
    ConfigMap,
    /// Fetched by the pod.
    Archive(&'a Archive),
    /// In the image.
    Image(&'a str),
}

/// How the files of this script do.
pub fn delivery(spec: &CustomScriptSpec) -> Delivery<'_> {
    let source = spec.source.as_ref();
    if let Some(archive) = source.and_then(|source| source.archive.as_ref()) {
        Delivery::Archive(archive)
    } else if let Some(image) = source.and_then(|source| source.image.as_deref()) {
        Delivery::Image(image)
    } else {
        Delivery::ConfigMap
    }
}

/// What installs packages, where the script asks for some or may do so: what is in an archive shows only in the pod. An
/// image brings its packages.
fn installs(spec: &CustomScriptSpec, files: &Files) -> Option<Manager> {
    let manager = manager(spec.runtime?);
    let may = match delivery(spec) {
        Delivery::ConfigMap => files.has(manager.manifest()),
        Delivery::Archive(_) => true,
        Delivery::Image(_) => false,
    };
    may.then_some(manager)
}

/// The image that the script runs in.
pub fn image(plan: Plan<'_>) -> String {
    let spec = &plan.object.spec;
    match delivery(spec) {
        Delivery::Image(image) => image.to_owned(),
        _ => spec
            .runtime_image
            .clone()
            .unwrap_or_else(|| plan.images.of(spec.runtime).to_owned()),
    }
}

/// The volumes of files and packages. `source` is the name of the version's `ConfigMap`.
pub fn volumes(plan: Plan<'_>, source: &str) -> Vec<Volume> {
    let spec = &plan.object.spec;
    let files = match delivery(spec) {
        Delivery::ConfigMap => Some(Volume {
            name: "source".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: source.to_owned(),
                default_mode: Some(0o444),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }),
        Delivery::Archive(_) => Some(limited("source", SOURCE_LIMIT)),
        Delivery::Image(_) => None,
    };
    let packages = installs(spec, plan.files).map(|_| limited(DEPENDENCIES, DEPENDENCIES_LIMIT));
    files.into_iter().chain(packages).collect()
}

/// Where the script finds them.
pub fn mounts(plan: Plan<'_>) -> Vec<VolumeMount> {
    let spec = &plan.object.spec;
    let image = matches!(delivery(spec), Delivery::Image(_));
    let files = (!image).then(|| mount("source", PROJECT_DIR, true));
    let packages = installs(spec, plan.files).map(|manager| mount(DEPENDENCIES, packages_dir(manager), true));
    files.into_iter().chain(packages).collect()
}

/// The steps before the script starts, after the one that installs the runner.
pub fn steps(plan: Plan<'_>) -> Vec<Container> {
    let spec = &plan.object.spec;
    let fetch = match delivery(spec) {
        Delivery::Archive(archive) => spec.runtime.map(|runtime| fetch_step(plan, archive, runtime)),
        _ => None,
    };
    let install = installs(spec, plan.files).map(|manager| install_step(plan, manager));
    fetch.into_iter().chain(install).collect()
}

/// Seconds that a rollout may go on without a pod becoming ready, with what its steps may take.
pub fn progress_seconds(plan: Plan<'_>) -> i32 {
    let limits = steps(plan).into_iter().map(|step| match step.name.as_str() {
        FETCH => fetch::TIME_LIMIT,
        _ => dependencies::TIME_LIMIT,
    });
    let seconds: u64 = limits.map(|limit| limit.as_secs()).sum();
    PROGRESS_SECONDS.saturating_add(seconds.try_into().unwrap_or(i32::MAX))
}

/// Adds where Python finds the packages; a path of the script's own comes after them.
pub fn add_path(plan: Plan<'_>, env: &mut Vec<EnvVar>) {
    if installs(&plan.object.spec, plan.files) != Some(Manager::Pip) {
        return;
    }
    let ours = packages_dir(Manager::Pip);
    match env.iter_mut().find(|variable| variable.name == "PYTHONPATH") {
        Some(theirs) => {
            // One from elsewhere stays as it is.
            if let Some(path) = &mut theirs.value {
                *path = format!("{ours}:{path}");
            }
        }
        None => env.push(EnvVar {
            name: "PYTHONPATH".to_owned(),
            value: Some(ours.to_owned()),
            ..EnvVar::default()
        }),
    }
}

fn fetch_step(plan: Plan<'_>, archive: &Archive, runtime: Runtime) -> Container {
    let args = [
        "fetch",
        "--url",
        &archive.url,
        "--sha256",
        &archive.sha256,
        "--to",
        PROJECT_DIR,
        "--entry",
        runtime.entry_point(),
    ];
    Container {
        image: Some(plan.images.install.clone()),
        args: Some(args.map(str::to_owned).into()),
        volume_mounts: Some(vec![
            mount("source", PROJECT_DIR, false),
            mount("tmp", "/tmp", false),
        ]),
        ..step(plan, FETCH)
    }
}

fn install_step(plan: Plan<'_>, manager: Manager) -> Container {
    let to = packages_dir(manager);
    let args = [
        DEPENDENCIES,
        "--manager",
        manager.name(),
        "--app",
        PROJECT_DIR,
        "--to",
        to,
    ];
    Container {
        image: Some(image(plan)),
        command: Some(vec![runner_path()]),
        args: Some(args.map(str::to_owned).into()),
        working_dir: Some("/tmp".to_owned()),
        volume_mounts: Some(vec![
            mount("runner", RUNNER_DIR, true),
            mount("source", PROJECT_DIR, true),
            mount(DEPENDENCIES, to, false),
            mount("tmp", "/tmp", false),
        ]),
        ..step(plan, DEPENDENCIES)
    }
}

/// What the steps have in common. They see the script's variables: those of a proxy, of a package index.
fn step(plan: Plan<'_>, name: &str) -> Container {
    let spec = &plan.object.spec;
    Container {
        name: name.to_owned(),
        env: Some(spec.env.clone()).filter(|env| !env.is_empty()),
        env_from: Some(spec.env_from.clone()).filter(|sources| !sources.is_empty()),
        resources: spec.resources.clone(),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn limited(name: &str, size: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(size.to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
