//! Getting the facts, with the caller's own rights. What can not be had says why, and the rest is looked at.

use std::{fmt::Debug, time::Duration};

use futures::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::{DaemonSet, Deployment},
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        coordination::v1::Lease,
        core::v1::Pod,
        node::v1::RuntimeClass,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams},
    client::Body,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    facts::{
        Agents, Facts, Health, LeaseFact, Looked, Operator, OperatorPod, Right, Script, ScriptPod, Server,
    },
    samples::sums,
};
use crate::{
    api::{CustomScript, GROUP, conditions, labels},
    cli::{
        CliError,
        api::{handshake, whole},
        cluster::Cluster,
        tunnel,
    },
};

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Objects of a kind that are read at most.
const MOST: u32 = 10_000;
const PART_OF: &str = "app.kubernetes.io/part-of=scriptscope";
const OPERATOR: &str = "app.kubernetes.io/part-of=scriptscope,app.kubernetes.io/component=operator";
const AGENT: &str = "app.kubernetes.io/part-of=scriptscope,app.kubernetes.io/component=agent";
/// Label of the version that an object was installed with.
const VERSION: &str = "app.kubernetes.io/version";
const NODE_LEASES: &str = "kube-node-lease";

/// Looks at everything.
pub async fn fetch(cluster: &Cluster) -> Result<Facts, CliError> {
    let client = cluster.client().await?;
    let place = cluster.place();
    let system = place.system_namespace.as_str();
    let scope = place.namespace.as_deref();
    let server = within(server(&client)).await;
    let mut facts = unknown(system, server);
    if facts.server.is_err() {
        return Ok(facts);
    }
    let (operators, pods, agents, agent_pods) = tokio::join!(
        list::<Deployment>(namespaced(&client, Some(system)), OPERATOR),
        list::<Pod>(namespaced(&client, Some(system)), OPERATOR),
        list::<DaemonSet>(namespaced(&client, Some(system)), AGENT),
        list::<Pod>(namespaced(&client, Some(system)), AGENT),
    );
    facts.operators = operators.map(|found| found.iter().map(operator).collect());
    facts.operator_pods = match pods {
        Ok(pods) => Ok(join_all(pods.iter().map(|pod| operator_pod(&client, system, pod))).await),
        Err(why) => Err(why),
    };
    facts.agents = agents.map(|found| found.iter().map(agents_of).collect());
    facts.agent_nodes = agent_pods.map(|pods| {
        let ready = pods.iter().filter(|pod| is_ready(pod));
        ready
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
            .collect()
    });
    let managed = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
    let (kinds, classes, scripts, pods, node_leases, webhooks) = tokio::join!(
        within(kinds(&client)),
        list::<RuntimeClass>(Api::all(client.clone()), ""),
        list::<CustomScript>(namespaced(&client, scope), ""),
        list::<Pod>(namespaced(&client, scope), &managed),
        list::<Lease>(namespaced(&client, Some(NODE_LEASES)), ""),
        webhooks(&client),
    );
    facts.kinds = kinds;
    facts.runtime_classes = classes.map(|found| found.iter().map(ResourceExt::name_any).collect());
    facts.scripts = scripts.map(|found| found.iter().map(script).collect());
    facts.script_pods = pods.map(|found| found.iter().filter_map(script_pod).collect());
    facts.node_leases = node_leases.map(|found| found.iter().filter_map(renewed).collect());
    facts.webhooks = webhooks;
    let lease = facts
        .operators
        .iter()
        .flatten()
        .find_map(|operator| operator.lease.clone());
    if let Some(name) = lease {
        let leases: Api<Lease> = namespaced(&client, Some(system));
        facts.lease = within(async { Ok(leases.get_opt(&name).await?.as_ref().map(lease_fact)) }).await;
    }
    facts.rights = rights(&client, system, scope.unwrap_or_default()).await;
    Ok(facts)
}

/// The pods of operators and agents.
pub async fn system_pods(client: &Client, system: &str) -> Looked<Vec<Pod>> {
    list(namespaced(client, Some(system)), PART_OF).await
}

fn unknown(system: &str, server: Looked<Server>) -> Facts {
    fn not<T>() -> Looked<T> {
        Err("the API server can not be reached".to_owned())
    }
    Facts {
        command: env!("CARGO_PKG_VERSION").to_owned(),
        system: system.to_owned(),
        server,
        kinds: not(),
        operators: not(),
        operator_pods: not(),
        agents: not(),
        agent_nodes: not(),
        scripts: not(),
        script_pods: not(),
        runtime_classes: not(),
        rights: Vec::new(),
        node_leases: not(),
        lease: Ok(None),
        webhooks: not(),
    }
}

/// What an answer says, or why there is none in time.
async fn within<T>(ask: impl Future<Output = Result<T, CliError>>) -> Looked<T> {
    match timeout(PATIENCE, ask).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn namespaced<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn list<K: Clone + DeserializeOwned + Debug>(api: Api<K>, labels: &str) -> Looked<Vec<K>> {
    let parameters = ListParams::default().labels(labels).limit(MOST);
    within(async { Ok(api.list(&parameters).await?.items) }).await
}

/// Version and clock of the API server, both of one answer.
async fn server(client: &Client) -> Result<Server, CliError> {
    let request = Request::get("/version")
        .body(Body::empty())
        .map_err(|error| CliError::Failed(error.to_string()))?;
    let answer = client.send(request).await?;
    let here = Timestamp::now();
    let date = answer
        .headers()
        .get(header::DATE)
        .and_then(|date| date.to_str().ok());
    let now = date
        .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
        .map_or(here, |date| date.timestamp());
    let status = answer.status();
    let body = whole(answer).await?;
    if status != StatusCode::OK {
        return Err(CliError::Failed(format!(
            "the API server's answer is {status}: {}",
            String::from_utf8_lossy(&body)
        )));
    }
    let version: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(Server {
        version: version["gitVersion"]
            .as_str()
            .unwrap_or("of no version")
            .to_owned(),
        now,
        ahead_seconds: here.as_second() - now.as_second(),
    })
}

/// What everybody who is logged in may ask.
async fn kinds(client: &Client) -> Result<Vec<String>, CliError> {
    match client
        .list_api_group_resources(&format!("{GROUP}/v1alpha1"))
        .await
    {
        Ok(found) => Ok(found.resources.into_iter().map(|kind| kind.name).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn operator(deployment: &Deployment) -> Operator {
    let container = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref())
        .and_then(|spec| spec.containers.first());
    let env = |name: &str| {
        let mut all = container
            .iter()
            .flat_map(|container| container.env.iter().flatten());
        all.find(|one| one.name == name).and_then(|one| one.value.clone())
    };
    Operator {
        name: deployment.name_any(),
        wanted: deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1),
        available: deployment
            .status
            .as_ref()
            .and_then(|status| status.available_replicas)
            .unwrap_or_default(),
        version: deployment.labels().get(VERSION).cloned(),
        image: container.and_then(|container| container.image.clone()),
        collects_by_agent: env("SCRIPTSCOPE_COLLECTION").as_deref() != Some("api"),
        lease: env("SCRIPTSCOPE_LEASE"),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn operator_pod(client: &Client, system: &str, pod: &Pod) -> OperatorPod {
    let container = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref()?.first());
    let end = container
        .and_then(|container| container.last_state.as_ref()?.terminated.as_ref())
        .map(|end| {
            let reason = end.reason.as_deref().unwrap_or("no reason");
            format!("{reason} (exit code {})", end.exit_code)
        });
    let waits = container
        .and_then(|container| container.state.as_ref()?.waiting.as_ref())
        .and_then(|waiting| waiting.reason.clone());
    let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    let name = pod.name_any();
    let health = match (waits, runs) {
        (Some(reason), _) => Err(reason),
        (None, false) => Err("it does not run yet".to_owned()),
        (None, true) => match health_of(client, system, pod).await {
            Ok((status, readyz, metrics)) => Ok(Health {
                ready: status == StatusCode::OK,
                readyz,
                metrics: sums(&metrics),
            }),
            Err(why) => Err(why),
        },
    };
    OperatorPod {
        name,
        ready: is_ready(pod),
        restarts: container.map_or(0, |container| container.restart_count),
        last_end: end,
        health,
    }
}

/// What a pod of the operator says at `/readyz` and `/metrics`, through the API server's port-forward.
pub async fn health_of(client: &Client, system: &str, pod: &Pod) -> Looked<(StatusCode, String, String)> {
    within(async {
        let port = tunnel::port_of(pod, "health").unwrap_or(9090);
        let stream = tunnel::forward(client, system, &pod.name_any(), port).await?;
        let mut sender = handshake(stream).await?;
        let mut get = async |path: &str| -> Result<(StatusCode, String), CliError> {
            let request = Request::get(path)
                .header(header::HOST, "localhost")
                .body(Full::default())
                .map_err(|error| CliError::Failed(error.to_string()))?;
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Ok((
                status,
                String::from_utf8_lossy(&whole(answer).await?).into_owned(),
            ))
        };
        let (status, readyz) = get("/readyz").await?;
        let (_, metrics) = get("/metrics").await?;
        Ok((status, readyz, metrics))
    })
    .await
}

fn agents_of(set: &DaemonSet) -> Agents {
    let status = set.status.as_ref();
    Agents {
        name: set.name_any(),
        desired: status.map_or(0, |status| status.desired_number_scheduled),
        ready: status.map_or(0, |status| status.number_ready),
    }
}

fn script(object: &CustomScript) -> Script {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let not = |type_: &str| {
        let found = conditions
            .clone()
            .find(|c| c.type_ == type_ && c.status == "False")?;
        Some(format!("{}: {}", found.reason, found.message))
    };
    let failed = object
        .status
        .as_ref()
        .is_some_and(|status| status.phase == Some(crate::api::Phase::DeploymentFailed));
    Script {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        runtime_class: match object.spec.workload {
            Some(_) => String::new(),
            None => object.spec.runtime_class_name.clone(),
        },
        failed: failed.then(|| not(conditions::READY).unwrap_or_default()),
        not_stored: not(conditions::STORED),
    }
}

fn script_pod(pod: &Pod) -> Option<ScriptPod> {
    let phase = pod.status.as_ref()?.phase.as_deref()?;
    if !matches!(phase, "Pending" | "Running") {
        return None;
    }
    Some(ScriptPod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        node: pod.spec.as_ref()?.node_name.clone()?,
    })
}

fn renewed(lease: &Lease) -> Option<(String, Timestamp)> {
    Some((lease.name_any(), lease.spec.as_ref()?.renew_time.as_ref()?.0))
}

fn lease_fact(lease: &Lease) -> LeaseFact {
    let spec = lease.spec.as_ref();
    LeaseFact {
        name: lease.name_any(),
        holder: spec.and_then(|spec| spec.holder_identity.clone()),
        renewed: renewed(lease).map(|(_, time)| time),
    }
}

/// Webhooks whose rules name the kinds' group.
async fn webhooks(client: &Client) -> Looked<Vec<String>> {
    let (validating, mutating) = tokio::join!(
        list::<ValidatingWebhookConfiguration>(Api::all(client.clone()), ""),
        list::<MutatingWebhookConfiguration>(Api::all(client.clone()), ""),
    );
    let mut found = Vec::new();
    let ours =
        |groups: Option<&Vec<String>>| groups.is_some_and(|groups| groups.iter().any(|group| group == GROUP));
    for hook in validating?.iter().flat_map(|all| all.webhooks.iter().flatten()) {
        let mut rules = hook.rules.iter().flatten();
        found.extend(
            rules
                .any(|rule| ours(rule.api_groups.as_ref()))
                .then(|| hook.name.clone()),
        );
    }
    for hook in mutating?.iter().flat_map(|all| all.webhooks.iter().flatten()) {
        let mut rules = hook.rules.iter().flatten();
        found.extend(
            rules
                .any(|rule| ours(rule.api_groups.as_ref()))
                .then(|| hook.name.clone()),
        );
    }
    Ok(found)
}

/// Rights that the verbs need; a namespace that is empty means all.
async fn rights(client: &Client, system: &str, namespace: &str) -> Vec<Right> {
    let pods = |verb, sub| ("", "pods", sub, verb, system);
    let scripts = |verb, sub| (GROUP, "customscripts", sub, verb, namespace);
    let needed = [
        (
            pods("list", ""),
            "with which the command finds the operator",
            true,
        ),
        (
            pods("create", "portforward"),
            "the command's way to the operator",
            true,
        ),
        (scripts("get", "runs"), "which shows runs", false),
        (scripts("get", "logs"), "which shows what scripts print", false),
        (
            scripts("list", ""),
            "which doctor and kubectl list scripts with",
            false,
        ),
        (
            ("", "pods", "proxy", "create", namespace),
            "the way of scriptscope invoke to a script",
            false,
        ),
    ];
    let asked = needed.map(
        |((group, resource, subresource, verb, namespace), why, is_vital)| async move {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        group: some(group),
                        resource: some(resource),
                        subresource: some(subresource),
                        verb: some(verb),
                        namespace: some(namespace),
                        ..ResourceAttributes::default()
                    }),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
            let allowed = within(async {
                let answer = reviews.create(&PostParams::default(), &review).await?;
                Ok(answer.status.is_some_and(|status| status.allowed))
            });
            let slash = if subresource.is_empty() { "" } else { "/" };
            let place = match namespace {
                "" => "in every namespace".to_owned(),
                namespace => format!("in namespace {namespace}"),
            };
            Right {
                what: format!("{verb} {resource}{slash}{subresource} {place}"),
                why,
                is_vital,
                allowed: allowed.await,
            }
        },
    );
    join_all(asked).await
}
