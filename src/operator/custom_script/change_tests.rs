//! What a user reads about a version in its history.

use k8s_openapi::api::core::v1::EnvVar;
use serde_json::{json, value::RawValue};

use super::*;
use crate::{
    api::{NameRef, Source},
    operator::custom_script::fixtures::{attempt, files, script},
};

/// What is kept of an object.
fn kept(object: &CustomScript, files: &Files) -> DeployedSpec {
    let spec = recorded(&object.spec, Some(files)).unwrap();
    DeployedSpec {
        spec: Some(RawValue::from_string(spec).unwrap()),
        beside: Some(serde_json::to_string(&Beside::of(object, Some(files))).unwrap()),
    }
}

/// The change from one object, as version 1 in a state, to another.
fn between(state: DeploymentState, before: &CustomScript, now: &CustomScript) -> Change {
    from(&attempt(1, "a", state), &kept(before, &files()), now, &files(), 2)
}

fn from(
    before: &Deployment,
    made_of: &DeployedSpec,
    now: &CustomScript,
    files: &Files,
    version: i64,
) -> Change {
    let (spec, beside) = (
        recorded(&now.spec, Some(files)).unwrap(),
        Beside::of(now, Some(files)),
    );
    let rollback = beside.rollback(made_of);
    let begun = Beginning {
        version,
        spec: &spec,
        beside: &beside,
    };
    change(
        begun,
        Some((before, made_of)),
        rollback.as_ref().map(|rollback| (rollback, made_of)),
    )
}

fn edited(edit: impl Fn(&mut CustomScript)) -> CustomScript {
    let mut object = script();
    edit(&mut object);
    object
}

fn env(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

fn annotated(name: &str, value: &str) -> CustomScript {
    edited(|object| object.metadata.annotations = Some([(name.to_owned(), value.to_owned())].into()))
}

#[test]
fn changed_fields_are_named_and_their_values_are_not() {
    let before = edited(|object| object.spec.env = vec![env("RATE", "1"), env("TOKEN", "s3cret")]);
    let now = edited(|object| {
        object.spec.env = vec![env("RATE", "2"), env("TOKEN", "other-s3cret"), env("NEW", "3")];
        object.spec.timeout_seconds = 5;
        object.spec.resources = serde_json::from_value(json!({"limits": {"memory": "1Gi"}})).unwrap();
        let inline = [("main.py", "def check(a): return 2"), ("helper.py", "x")];
        object.spec.source = Some(Source {
            inline: Some(
                inline
                    .map(|(name, text)| (name.to_owned(), text.to_owned()))
                    .into(),
            ),
            ..Source::default()
        });
    });
    let change = between(DeploymentState::Deployed, &before, &now);
    assert_eq!(change.cause, "spec changed");
    assert_eq!(
        change.fields,
        [
            "env.NEW",
            "env.RATE",
            "env.TOKEN",
            "resources.limits.memory",
            "source.inline.helper.py",
            "source.inline.main.py",
            "timeoutSeconds"
        ]
    );
    assert_eq!(change.more_fields, 0);
    let json = serde_json::to_string(&change).unwrap();
    assert!(!json.contains("s3cret") && !json.contains("return 2"), "{json}");
}

#[test]
fn long_lists_of_fields_are_cut() {
    let now = edited(|object| object.spec.env = (0..13).map(|n| env(&format!("E{n:02}"), "")).collect());
    let change = between(DeploymentState::Deployed, &script(), &now);
    assert_eq!((change.fields.len(), change.more_fields), (8, 5));
    let long = edited(|object| object.spec.env = vec![env(&"X".repeat(250), "")]);
    let change = between(DeploymentState::Deployed, &script(), &long);
    assert_eq!(change.fields[0].chars().count(), LONGEST + 1);
}

#[test]
fn a_version_says_why_it_is_there() {
    use DeploymentState::{Deployed, Failed, Undeployed};
    let cause = |state, now: &CustomScript| between(state, &script(), now).cause;
    assert_eq!(cause(Undeployed, &script()), "deployed again");
    assert_eq!(cause(Failed, &script()), "tried again");
    let redeploy = annotated(labels::REDEPLOY, "2");
    assert_eq!(cause(Deployed, &redeploy), "redeploy requested");
    let anew = edited(|object| object.metadata.uid = Some("uid-2".into()));
    assert_eq!(cause(Deployed, &anew), "created anew");
    let keys = edited(|object| {
        let keys = NameRef { name: "keys".into() };
        object.spec.endpoint = Some(Endpoint {
            api_keys_secret_ref: Some(keys),
        });
    });
    let change = between(Deployed, &script(), &keys);
    assert_eq!(change.fields, ["endpoint.apiKeysSecretRef.name"]);
}

#[test]
fn the_first_version_and_those_whose_past_is_lost_say_so() {
    let spec = recorded(&script().spec, None).unwrap();
    let beside = Beside::of(&script(), None);
    let begun = |version| Beginning {
        version,
        spec: &spec,
        beside: &beside,
    };
    assert_eq!(change(begun(1), None, None).cause, "first deployment");
    assert!(change(begun(4), None, None).cause.starts_with("not known"));
    let before = attempt(3, "a", DeploymentState::Replaced);
    let older = DeployedSpec::default();
    assert!(
        change(begun(4), Some((&before, &older)), None)
            .cause
            .starts_with("not known")
    );
    // The database was put back to a copy of before version 4.
    let restored = change(begun(7), Some((&before, &kept(&script(), &files()))), None);
    assert_eq!(
        restored.cause,
        "begun anew: the store has forgotten versions 4 to 6"
    );
    assert!(restored.fields.is_empty());
}

#[test]
fn a_rollback_is_told_from_a_later_change_and_from_a_false_claim() {
    let note = r#"{"to":1,"from":1,"by":"alice"}"#;
    let back = annotated(labels::ROLLBACK, note);
    let change = between(DeploymentState::Deployed, &script(), &back);
    assert_eq!(change.cause, "rollback to 1");
    assert_eq!(change.claimed_by.as_deref(), Some("alice"));
    // The annotation stays; what comes after is somebody else's.
    let later = edited(|object| {
        object.metadata.annotations = back.metadata.annotations.clone();
        object.spec.timeout_seconds = 5;
    });
    let change = between(DeploymentState::Deployed, &back, &later);
    assert_eq!((change.cause.as_str(), change.claimed_by), ("spec changed", None));
    // What runs is not what version 1 ran.
    let change = between(DeploymentState::Deployed, &script(), &later);
    assert_eq!((change.cause.as_str(), change.claimed_by), ("spec changed", None));
    let nonsense = annotated(labels::ROLLBACK, "{");
    let change = between(DeploymentState::Undeployed, &script(), &nonsense);
    assert_eq!(change.cause, "deployed again");
}

#[test]
fn files_that_are_no_text_are_a_change_of_what_refers_to_them() {
    let object = edited(|object| {
        object.spec.source = Some(Source {
            config_map_ref: Some(NameRef { name: "code".into() }),
            ..Source::default()
        });
    });
    let binary = |byte: u8| Files {
        binary: [("a.bin".to_owned(), k8s_openapi::ByteString(vec![byte]))].into(),
        ..files()
    };
    let made_of = kept(&object, &binary(1));
    let before = attempt(1, "a", DeploymentState::Deployed);
    let change = from(&before, &made_of, &object, &binary(2), 2);
    assert_eq!(
        (change.cause.as_str(), &change.fields[..]),
        ("spec changed", &["source.configMapRef".to_owned()][..])
    );
}

#[test]
fn fields_that_an_upgrade_brought_are_no_change() {
    let mut made_of = kept(&script(), &files());
    let mut old: Map<String, Value> = serde_json::from_str(made_of.spec.as_ref().unwrap().get()).unwrap();
    assert!(old.remove("capture").is_some());
    made_of.spec = Some(RawValue::from_string(serde_json::to_string(&old).unwrap()).unwrap());
    let before = attempt(1, "a", DeploymentState::Deployed);
    let now = annotated(labels::REDEPLOY, "1");
    let change = from(&before, &made_of, &now, &files(), 2);
    assert_eq!(
        (change.cause.as_str(), change.fields.len()),
        ("redeploy requested", 0)
    );
}
