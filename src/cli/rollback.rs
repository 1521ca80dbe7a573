//! `rollback`: back to what an earlier version ran. The user changes the object, with the user's own rights; the operator
//! takes the next number for it, as for any change.

use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{Verbs, api::script_path, args::Place, error::CliError, output::Out, rows::text};
use crate::{
    api::{CustomScript, labels},
    operator::custom_script::{change::Rollback, recorded::version_members},
};

/// The name of this command as a manager of fields.
const FIELD_MANAGER: &str = "scriptscope-rollback";

/// Arguments of `rollback`.
#[derive(clap::Args, Clone, Debug)]
pub struct RollbackArgs {
    /// The script.
    pub script: String,
    /// The version to go back to; scriptscope versions lists them.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..))]
    pub to: i64,
    /// Only say what would change.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    place: Place,
}

/// Goes back.
pub async fn rollback(args: RollbackArgs) -> Result<(), CliError> {
    let verbs = Verbs::new(args.place).await?;
    let path = script_path(&verbs.namespace, &args.script);
    let latest = verbs
        .api
        .json(&format!("{path}/deployments"), &[("limit", "1".to_owned())])
        .await?;
    let latest = latest["items"][0]["version"].as_i64().unwrap_or_default();
    if args.to == latest {
        return Err(CliError::Failed(format!(
            "--to {}: this is the current version; nothing was changed",
            args.to
        )));
    }
    let wanted = verbs
        .api
        .json(&format!("{path}/deployments/{}", args.to), &[])
        .await?;
    let Some(wanted) = wanted["spec"].as_object() else {
        return Err(CliError::Failed(format!(
            "--to {}: what this version ran was not kept, since an older operator deployed it; nothing was changed",
            args.to
        )));
    };
    let client = verbs.cluster.client().await?;
    let kind = ApiResource::erase::<CustomScript>(&());
    let scripts: Api<DynamicObject> = Api::namespaced_with(client, &verbs.namespace, &kind);
    let object = scripts.get(&args.script).await?;
    if let Some(deployment) = adopted(&object.data["spec"]) {
        return Err(CliError::Failed(not_ours(
            &args.script,
            deployment,
            &verbs.namespace,
            wanted,
        )));
    }
    let current = object.data["spec"].as_object().cloned().unwrap_or_default();
    let undeployed = text(&object.data["spec"], "desiredState") == "Undeployed";
    let Some(spec) = patch_to(version_members(current), wanted) else {
        return Err(CliError::Failed(format!(
            "--to {}: the script's spec is already that of this version; nothing was changed",
            args.to
        )));
    };
    let names = spec
        .keys()
        .map(|name| format!("spec.{name}"))
        .collect::<Vec<_>>()
        .join(", ");
    // Should somebody else change the object in between, nothing is overwritten.
    let note = note(&verbs, args.to, latest).await?;
    let metadata =
        json!({"resourceVersion": object.resource_version(), "annotations": {labels::ROLLBACK: note}});
    let change = json!({"metadata": metadata, "spec": spec});
    let parameters = PatchParams {
        dry_run: args.dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match scripts
        .patch(&args.script, &parameters, &Patch::Merge(change))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_conflict() => Err(CliError::Failed(format!(
            "{} was changed by somebody else in this moment; look at it and try again",
            args.script
        ))),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let mut out = Out::default();
            if args.dry_run {
                out.text(&format!(
                    "{} would go back to version {}: {names}",
                    args.script, args.to
                ))?;
            } else {
                out.text(&format!(
                    "{} goes back to version {} as the next version, which is above {latest}: {names} changed",
                    args.script, args.to
                ))?;
            }
            if undeployed {
                anstream::eprintln!(
                    "it is undeployed, and so is this version until spec.desiredState is Deployed"
                );
            }
            Ok(())
        }
    }
}

/// What the history says of this: managed fields have no user's name, so it is written down here, as the operator knows it.
async fn note(verbs: &Verbs, to: i64, from: i64) -> Result<String, CliError> {
    let who = verbs.api.json("/api/v1/whoami", &[]).await?;
    let by = Some(text(&who, "username")).filter(|name| !name.is_empty());
    let rollback = Rollback {
        to,
        from,
        by: by.map(str::to_owned),
    };
    serde_json::to_string(&rollback).map_err(|error| CliError::Failed(error.to_string()))
}

/// The Deployment that a script adopts, if it does.
pub fn adopted(spec: &Value) -> Option<&str> {
    spec["workload"]["deploymentRef"]["name"].as_str()
}

/// Who can go back where a Deployment is adopted, and how.
fn not_ours(script: &str, deployment: &str, namespace: &str, wanted: &Map<String, Value>) -> String {
    let revision = wanted.get("revision").and_then(Value::as_u64);
    let to = revision.map_or_else(String::new, |revision| format!(" --to-revision={revision}"));
    format!(
        "{script} adopts Deployment {deployment}, which ScriptScope never changes; go back with kubectl -n {namespace} rollout \
         undo deployment/{deployment}{to}, and that is the next version; nothing was changed"
    )
}

/// The merge patch that makes the one of the other; none where they are the same.
fn patch_to(from: Map<String, Value>, to: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for (name, value) in to {
        match (from.get(name), value) {
            (Some(before), _) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                if let Some(inner) = patch_to(before.clone(), after) {
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for (name, _) in from {
        if !to.contains_key(&name) {
            patch.insert(name, Value::Null);
        }
    }
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(from: &Value, to: &Value) -> Option<Value> {
        patch_to(from.as_object().unwrap().clone(), to.as_object().unwrap()).map(Value::Object)
    }

    #[test]
    fn an_adopted_deployment_is_taken_back_by_who_owns_it() {
        let spec = json!({"workload": {"deploymentRef": {"name": "web"}}});
        assert_eq!(adopted(&spec), Some("web"));
        assert_eq!(adopted(&json!({"runtime": "python"})), None);
        let wanted = json!({"revision": 4});
        let message = not_ours("shop", "web", "prod", wanted.as_object().unwrap());
        assert!(
            message.contains("kubectl -n prod rollout undo deployment/web --to-revision=4,"),
            "{message}"
        );
    }

    #[test]
    fn the_patch_removes_what_the_old_version_had_not() {
        let now = json!({"runtime": "python", "env": [{"name": "A", "value": "2"}], "resources": {"limits": {"cpu": "1"}},
            "source": {"inline": {"main.py": "new", "helper.py": "x"}}});
        let then = json!({"runtime": "python", "timeoutSeconds": 5, "env": [{"name": "A", "value": "1"}],
            "source": {"inline": {"main.py": "old"}}});
        assert_eq!(
            patch(&now, &then).unwrap(),
            json!({"timeoutSeconds": 5, "env": [{"name": "A", "value": "1"}], "resources": null,
                "source": {"inline": {"main.py": "old", "helper.py": null}}})
        );
        let by_name = json!({"source": {"configMapRef": {"name": "c"}}});
        let inline = json!({"source": {"inline": {"main.py": "old"}}});
        assert_eq!(
            patch(&by_name, &inline).unwrap(),
            json!({"source": {"inline": {"main.py": "old"}, "configMapRef": null}})
        );
        assert_eq!(patch(&now, &now), None);
    }
}
