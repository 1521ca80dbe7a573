//! The number of pods where the spec leaves a choice. Pure.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::{
        ContainerResourceMetricSource, CrossVersionObjectReference, HorizontalPodAutoscaler,
        HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    },
};

use super::{
    apply::FIELD_MANAGER,
    build::{Plan, meta, script_name},
};
use crate::api::{Replicas, labels};

/// The autoscaler of a script, if its spec leaves a choice.
pub fn autoscaler(plan: Plan<'_>) -> Option<HorizontalPodAutoscaler> {
    let replicas = &plan.object.spec.replicas;
    let max = replicas.scaled_to()?;
    let name = script_name(plan).to_owned();
    // Of the script's container alone: what stands beside it uses next to nothing.
    let metric = MetricSpec {
        type_: "ContainerResource".to_owned(),
        container_resource: Some(ContainerResourceMetricSource {
            container: labels::CONTAINER.to_owned(),
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(replicas.target_cpu_utilization),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    };
    Some(HorizontalPodAutoscaler {
        metadata: meta(plan, name.clone()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name,
            },
            min_replicas: Some(replicas.min),
            max_replicas: max,
            metrics: Some(vec![metric]),
            ..HorizontalPodAutoscalerSpec::default()
        }),
        ..HorizontalPodAutoscaler::default()
    })
}

/// How many pods the Deployment has to be given before its number is left to the autoscaler; none if it is already. A
/// field that nobody owns any more falls back to one pod, and a Deployment with none is never scaled.
pub fn hand_over(live: Option<&Deployment>, replicas: &Replicas) -> Option<i32> {
    let max = replicas.scaled_to()?;
    let Some(live) = live else {
        return Some(replicas.min);
    };
    let current = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if current > 0 && !is_ours(live) {
        return None;
    }
    Some(current.clamp(replicas.min, max))
}

/// Whether the number of pods is the controller's.
fn is_ours(live: &Deployment) -> bool {
    let entries = live.metadata.managed_fields.iter().flatten();
    let mut ours = entries.filter(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    });
    ours.any(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0["f:spec"].get("f:replicas").is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn replicas(min: i32, max: Option<i32>) -> Replicas {
        Replicas {
            min,
            max,
            ..Replicas::default()
        }
    }

    fn live(replicas: i32, manager: &str, operation: &str) -> Deployment {
        let fields: Value = json!({ "f:spec": { "f:replicas": {}, "f:template": {} } });
        serde_json::from_value(json!({
            "metadata": { "managedFields": [
                { "manager": "scriptscope", "operation": "Apply", "fieldsV1": { "f:spec": { "f:template": {} } } },
                { "manager": manager, "operation": operation, "fieldsV1": fields },
            ] },
            "spec": { "replicas": replicas, "selector": {}, "template": {} }
        }))
        .unwrap()
    }

    #[test]
    fn a_fixed_number_is_handed_over_to_nobody() {
        assert_eq!(hand_over(None, &replicas(3, None)), None);
        assert_eq!(hand_over(None, &replicas(3, Some(3))), None);
    }

    #[test]
    fn the_number_of_pods_never_falls_when_the_autoscaler_takes_over() {
        let wanted = replicas(2, Some(6));
        assert_eq!(hand_over(None, &wanted), Some(2));
        assert_eq!(
            hand_over(Some(&live(4, "scriptscope", "Apply")), &wanted),
            Some(4)
        );
        assert_eq!(
            hand_over(Some(&live(1, "scriptscope", "Apply")), &wanted),
            Some(2)
        );
        assert_eq!(
            hand_over(Some(&live(9, "scriptscope", "Apply")), &wanted),
            Some(6)
        );
        let scaled = live(5, "kube-controller-manager", "Update");
        assert_eq!(hand_over(Some(&scaled), &wanted), None, "it has taken over");
    }

    #[test]
    fn a_script_that_was_undeployed_gets_pods_again() {
        let undeployed = live(0, "scriptscope", "Update");
        assert_eq!(hand_over(Some(&undeployed), &replicas(2, Some(6))), Some(2));
    }
}
