//! What to make of the facts. Nothing here asks anybody.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::facts::{Facts, Health, Looked, OperatorPod};

/// How well it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It works, but something wants a look; or it could not be looked at.
    Warn,
    /// Something does not work.
    Fail,
}

impl Grade {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// What became of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name.
    pub check: &'static str,
    /// How well it is.
    pub grade: Grade,
    /// What was seen.
    pub saw: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

fn ok(check: &'static str, saw: impl Into<String>) -> Finding {
    Finding {
        check,
        grade: Grade::Ok,
        saw: saw.into(),
        remedy: None,
    }
}

fn warn(check: &'static str, saw: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        check,
        grade: Grade::Warn,
        saw: saw.into(),
        remedy: Some(remedy.into()),
    }
}

fn fail(check: &'static str, saw: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        grade: Grade::Fail,
        ..warn(check, saw, remedy)
    }
}

/// What the looked-at thing says, or that it could not be looked at.
fn judged<T>(
    check: &'static str,
    looked: &Looked<T>,
    judge: impl FnOnce(&T) -> Vec<Finding>,
) -> Vec<Finding> {
    match looked {
        Ok(found) => judge(found),
        Err(why) => vec![warn(
            check,
            format!("not looked at: {why}"),
            "run doctor as somebody who may, such as a cluster administrator",
        )],
    }
}

/// Clocks of two machines differ by more than what a Lease's age and a second's rounding explain.
const SKEW_SECONDS: i64 = 5;
/// Kubelets renew their Leases every ten seconds and are given up after forty.
const NODE_LEASE_SECONDS: i64 = 40;
/// Operators renew theirs every two seconds and give up after ten.
const LEASE_SECONDS: i64 = 20;
const LAG_SECONDS: f64 = 30.0;
/// Shares of the volume that are free.
const LOW: f64 = 0.15;
const FULL: f64 = 0.05;
/// How many names are told.
const NAMES: usize = 5;

/// Names, not too many.
fn some<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let more = names.len().saturating_sub(NAMES);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 {
        format!("{shown} and {more} more")
    } else {
        shown
    }
}

/// Every check, in the order in which they build on each other.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let server = match &facts.server {
        Ok(server) => server,
        Err(why) => {
            return vec![fail(
                "api-server",
                why.clone(),
                "check the kubeconfig (kubectl cluster-info) and the network; --context and --kubeconfig name others",
            )];
        }
    };
    let mut all = vec![ok("api-server", format!("Kubernetes {}", server.version))];
    all.push(own_clock(server.ahead_seconds));
    all.extend(judged("definitions", &facts.kinds, |kinds| definitions(kinds)));
    all.extend(rights(facts));
    all.extend(operator(facts));
    all.extend(judged("operator-pods", &facts.operator_pods, |pods| {
        operator_pods(pods, &facts.system)
    }));
    all.extend(pipeline(facts.operator_pods.as_deref().unwrap_or_default()));
    all.extend(lease(facts));
    all.extend(runtime_classes(facts));
    all.extend(agents(facts));
    all.extend(judged("scripts", &facts.scripts, |_| scripts(facts)));
    all.extend(node_clocks(facts));
    all.extend(judged("webhooks", &facts.webhooks, |hooks| webhooks(hooks)));
    all
}

fn own_clock(ahead: i64) -> Finding {
    if ahead.abs() > SKEW_SECONDS {
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        return warn(
            "clock",
            format!("this machine's clock is {} s {way} the API server's", ahead.abs()),
            "synchronise both clocks (NTP); ranges such as --last 15m are those of this machine",
        );
    }
    ok("clock", "this machine and the API server agree on the time")
}

fn definitions(kinds: &[String]) -> Vec<Finding> {
    let missing: Vec<&str> = ["customscripts", "scriptexports"]
        .into_iter()
        .filter(|kind| !kinds.iter().any(|known| known == kind))
        .collect();
    if missing.is_empty() {
        return vec![ok(
            "definitions",
            "customscripts and scriptexports are served as scriptscope.dev/v1alpha1",
        )];
    }
    vec![fail(
        "definitions",
        format!("not served as scriptscope.dev/v1alpha1: {}", missing.join(", ")),
        "install the definitions: helm upgrade --install with crds.enabled=true, or kubectl apply --server-side -f crds/",
    )]
}

fn rights(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    for right in &facts.rights {
        match &right.allowed {
            Ok(true) => {}
            Ok(false) => {
                let saw = format!("you may not {}, {}", right.what, right.why);
                let remedy = "ask for the ClusterRole scriptscope-viewer or scriptscope-editor, or in the operator's namespace \
                    the Role scriptscope-cli (docs/cli.md)";
                all.push(if right.is_vital {
                    fail("rights", saw, remedy)
                } else {
                    warn("rights", saw, remedy)
                });
            }
            Err(why) => all.push(warn(
                "rights",
                format!("whether you may {}: {why}", right.what),
                "the API server refuses to say; ask who administers the cluster",
            )),
        }
    }
    if all.is_empty() {
        all.push(ok("rights", "you may do what the command needs"));
    }
    all
}

fn operator(facts: &Facts) -> Vec<Finding> {
    judged("operator", &facts.operators, |operators| {
        if operators.is_empty() {
            return vec![fail(
                "operator",
                format!("there is no operator in namespace {}", facts.system),
                "install the chart, or name its namespace with --system-namespace",
            )];
        }
        let mut all = Vec::new();
        for operator in operators {
            let (name, wanted, available) = (&operator.name, operator.wanted, operator.available);
            let saw = format!("Deployment {name} has {available} of {wanted} replicas available");
            all.push(if available >= wanted && wanted > 0 {
                ok("operator", saw)
            } else if available > 0 {
                warn("operator", saw, pods_remedy(&facts.system, "operator"))
            } else {
                fail("operator", saw, pods_remedy(&facts.system, "operator"))
            });
            all.push(match &operator.version {
                Some(version) if *version == facts.command => {
                    ok("version", format!("operator and command are {version}"))
                }
                Some(version) => warn(
                    "version",
                    format!("the operator is {version}, this command {}", facts.command),
                    "use the command of the operator's version; others may not understand each other",
                ),
                None => warn(
                    "version",
                    format!("Deployment {name} does not say its version"),
                    "install it with the chart, which labels it app.kubernetes.io/version",
                ),
            });
        }
        all
    })
}

fn pods_remedy(system: &str, component: &str) -> String {
    format!("see kubectl -n {system} describe pods -l app.kubernetes.io/component={component} and their logs")
}

fn operator_pods(pods: &[OperatorPod], system: &str) -> Vec<Finding> {
    let mut all = Vec::new();
    for pod in pods {
        let name = &pod.name;
        match &pod.health {
            Ok(health) if health.ready => all.push(ok("readiness", format!("{name}: {}", health.readyz.trim()))),
            Ok(health) => all.push(fail(
                "readiness",
                format!("{name}: {}", health.readyz.trim()),
                "the text names the part; docs/operations.md#health says what each needs",
            )),
            Err(why) if pod.ready => all.push(warn(
                "readiness",
                format!("{name} could not be asked: {why}"),
                "the right to create pods/portforward in the operator's namespace is needed (Role scriptscope-cli)",
            )),
            Err(why) => all.push(fail(
                "readiness",
                format!("{name} is not ready: {why}"),
                pods_remedy(system, "operator"),
            )),
        }
        if let Some(end) = pod.last_end.as_ref().filter(|_| pod.restarts > 0) {
            all.push(warn(
                "restarts",
                format!(
                    "{name} was restarted {} times, the last time for {end}",
                    pod.restarts
                ),
                format!(
                    "see kubectl -n {system} logs {name} --previous; for OOMKilled raise operator.resources"
                ),
            ));
        }
    }
    all
}

/// What the operators' metrics say of ingest and store.
fn pipeline(pods: &[OperatorPod]) -> Vec<Finding> {
    let healths: Vec<&Health> = pods.iter().filter_map(|pod| pod.health.as_ref().ok()).collect();
    if healths.is_empty() {
        return Vec::new();
    }
    let values = |name: &str| -> Vec<f64> {
        healths
            .iter()
            .filter_map(|health| health.metrics.get(name).copied())
            .collect()
    };
    let most = |name: &str| values(name).into_iter().fold(0.0, f64::max);
    let sum = |name: &str| values(name).into_iter().sum::<f64>();
    let mut all = Vec::new();

    let writable = values("scriptscope_store_writable");
    all.push(if writable.contains(&0.0) {
        fail(
            "store",
            "the store can not be written",
            "docs/runbooks.md#scriptscopestorenotwritable; scripts go on, and what they print waits in the kubelet's files",
        )
    } else {
        ok("store", "the store can be written")
    });
    all.extend(volume(
        most("scriptscope_volume_size_bytes"),
        &values("scriptscope_volume_available_bytes"),
    ));
    let lag = most("scriptscope_ingest_lag_seconds");
    all.push(if lag > LAG_SECONDS {
        warn(
            "ingest-lag",
            format!("lines are stored {lag:.0} s after they are printed"),
            "docs/runbooks.md#scriptscopeingestlag",
        )
    } else {
        ok(
            "ingest-lag",
            format!("the last lines were stored {lag:.1} s after they were printed"),
        )
    });
    for (check, metric, what, remedy) in [
        (
            "ingest-errors",
            "scriptscope_ingest_errors_total",
            "batches were refused by the store since the operator started; they come again",
            "docs/runbooks.md#scriptscopeingestrefused",
        ),
        (
            "log-gaps",
            "scriptscope_log_gaps_total",
            "stretches of log could not be read since the operator started",
            "docs/runbooks.md#scriptscopeloggaps; the dashboard shows where they were",
        ),
        (
            "reconcile-errors",
            "scriptscope_reconcile_errors_total",
            "reconciliations failed since the operator started",
            "docs/runbooks.md#scriptscopereconcileerrors, and the operator's log",
        ),
    ] {
        let count = sum(metric);
        all.push(if count > 0.0 {
            warn(check, format!("{count:.0} {what}"), remedy)
        } else {
            ok(check, "none since the operator started")
        });
    }
    let leaders = sum("scriptscope_leader");
    let asked_all = healths.len() == pods.len();
    all.push(if leaders >= 1.0 {
        ok("leader", "one operator runs the controllers")
    } else if asked_all {
        fail(
            "leader",
            "no operator runs the controllers",
            "docs/runbooks.md#scriptscopenoleader; after a node is lost it takes up to 17 s",
        )
    } else {
        warn(
            "leader",
            "none of the operators that answer runs the controllers",
            "run doctor again",
        )
    });
    all
}

fn volume(size: f64, available: &[f64]) -> Option<Finding> {
    let free = available.iter().copied().fold(f64::INFINITY, f64::min);
    if size <= 0.0 || !free.is_finite() {
        return None;
    }
    let share = free / size;
    let saw = format!("{:.0} % of the operator's volume is free", share * 100.0);
    let remedy = "make the volume larger, or keep less (docs/retention.md); docs/runbooks.md#scriptscopestorenearlyfull";
    Some(if share < FULL {
        fail("volume", saw, remedy)
    } else if share < LOW {
        warn("volume", saw, remedy)
    } else {
        ok("volume", saw)
    })
}

fn lease(facts: &Facts) -> Vec<Finding> {
    let (Ok(server), Ok(operators)) = (&facts.server, &facts.operators) else {
        return Vec::new();
    };
    if operators.iter().all(|operator| operator.lease.is_none()) {
        return Vec::new();
    }
    judged("lease", &facts.lease, |lease| {
        let Some(lease) = lease else {
            return vec![fail(
                "lease",
                "there is no Lease, so no operator leads",
                "see the operator's log; it needs the right to create leases in its namespace",
            )];
        };
        let holder = lease.holder.as_deref().filter(|holder| !holder.is_empty());
        let age = lease
            .renewed
            .map(|renewed| server.now.as_second() - renewed.as_second());
        vec![match (holder, age) {
            (Some(holder), Some(age)) if age <= LEASE_SECONDS => ok(
                "lease",
                format!("{holder} renewed {} {} s ago", lease.name, age.max(0)),
            ),
            (Some(holder), Some(age)) => fail(
                "lease",
                format!("{holder} has not renewed {} for {age} s", lease.name),
                "docs/runbooks.md#scriptscopenoleader",
            ),
            _ => warn(
                "lease",
                format!("{} has no holder at the moment", lease.name),
                "another operator takes it within seconds; run doctor again",
            ),
        }]
    })
}

fn runtime_classes(facts: &Facts) -> Vec<Finding> {
    judged("runtime-class", &facts.runtime_classes, |classes| {
        let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::from([(GVISOR, Vec::new())]);
        for script in facts
            .scripts
            .iter()
            .flatten()
            .filter(|script| !script.runtime_class.is_empty())
        {
            let users = wanted.entry(&script.runtime_class).or_default();
            users.push(format!("{}/{}", script.namespace, script.name));
        }
        wanted
            .into_iter()
            .map(|(class, users)| {
                if classes.iter().any(|known| known == class) {
                    return ok("runtime-class", format!("RuntimeClass {class} is there"));
                }
                let remedy = format!(
                    "install it on the nodes and make the RuntimeClass {class} (docs/install.md), or name another in \
                     spec.runtimeClassName"
                );
                if users.is_empty() {
                    let saw = format!("there is no RuntimeClass {class}, which scripts use unless they name another");
                    return fail("runtime-class", saw, remedy);
                }
                let users = some(users.iter().map(String::as_str));
                fail(
                    "runtime-class",
                    format!("there is no RuntimeClass {class}, which is used by {users}"),
                    remedy,
                )
            })
            .collect()
    })
}

/// The `RuntimeClass` of scripts that name none.
const GVISOR: &str = "gvisor";

fn agents(facts: &Facts) -> Vec<Finding> {
    let by_agent = facts
        .operators
        .iter()
        .flatten()
        .any(|operator| operator.collects_by_agent);
    if !by_agent {
        return match &facts.operators {
            Ok(operators) if !operators.is_empty() => vec![warn(
                "agents",
                "logs are followed through the API server (collection=api), which is best effort",
                "use collection=agent where the nodes allow it",
            )],
            _ => Vec::new(),
        };
    }
    let mut all = judged("agents", &facts.agents, |sets| {
        if sets.is_empty() {
            return vec![fail(
                "agents",
                format!("there is no DaemonSet of the agent in namespace {}", facts.system),
                "helm upgrade brings it back; without it nothing that scripts print is stored",
            )];
        }
        sets.iter()
            .map(|set| {
                let saw = format!("DaemonSet {} is ready on {} of {} nodes", set.name, set.ready, set.desired);
                if set.desired == 0 {
                    fail(
                        "agents",
                        format!("DaemonSet {} is wanted on no node", set.name),
                        "look at agent.nodeSelector and agent.affinity: each node that runs scripts needs one",
                    )
                } else if set.ready < set.desired {
                    warn("agents", saw, pods_remedy(&facts.system, "agent"))
                } else {
                    ok("agents", saw)
                }
            })
            .collect()
    });
    all.extend(judged("agent-nodes", &facts.script_pods, |pods| {
        judged("agent-nodes", &facts.agent_nodes, |nodes| {
            let mut without: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for pod in pods.iter().filter(|pod| !nodes.contains(&pod.node)) {
                let on = without.entry(&pod.node).or_default();
                on.push(format!("{}/{}", pod.namespace, pod.name));
            }
            if without.is_empty() {
                let nodes: BTreeSet<&str> = pods.iter().map(|pod| &*pod.node).collect();
                let saw = format!("each of the {} nodes with pods of scripts has an agent that is ready", nodes.len());
                return vec![ok("agent-nodes", saw)];
            }
            without
                .into_iter()
                .map(|(node, pods)| {
                    fail(
                        "agent-nodes",
                        format!(
                            "node {node} has no agent that is ready, but pods of scripts: {}",
                            some(pods.iter().map(String::as_str))
                        ),
                        "their lines wait in the kubelet's files and are lost when the pods go; see agent.tolerations, \
                         agent.nodeSelector and the agent's events",
                    )
                })
                .collect()
        })
    }));
    all
}

fn scripts(facts: &Facts) -> Vec<Finding> {
    let scripts: Vec<_> = facts.scripts.iter().flatten().collect();
    let mut all = Vec::new();
    for script in &scripts {
        let name = format!("{}/{}", script.namespace, script.name);
        if let Some(why) = &script.not_stored {
            all.push(fail(
                "scripts",
                format!("what {name} prints is not stored: {why}"),
                format!(
                    "kubectl -n {} describe customscript {}",
                    script.namespace, script.name
                ),
            ));
        }
        if let Some(why) = &script.failed {
            all.push(warn(
                "scripts",
                format!("the deployment of {name} failed: {why}"),
                format!("scriptscope versions {} -n {}", script.name, script.namespace),
            ));
        }
    }
    if all.is_empty() {
        all.push(ok(
            "scripts",
            format!("{} scripts, none in trouble", scripts.len()),
        ));
    }
    all
}

fn node_clocks(facts: &Facts) -> Vec<Finding> {
    let Ok(server) = &facts.server else {
        return Vec::new();
    };
    judged("node-clocks", &facts.node_leases, |leases| {
        let mut all = Vec::new();
        for (node, renewed) in leases {
            let ahead = renewed.as_second() - server.now.as_second();
            if ahead > SKEW_SECONDS {
                all.push(warn(
                    "node-clocks",
                    format!("the clock of node {node} is at least {ahead} s ahead of the API server's"),
                    "synchronise the node's clock (NTP); times of runs and lines are the node's",
                ));
            } else if ahead < -NODE_LEASE_SECONDS {
                all.push(warn(
                    "node-clocks",
                    format!(
                        "node {node} renewed its Lease {} s ago: its clock is behind, or its kubelet is gone",
                        -ahead
                    ),
                    format!("see kubectl describe node {node}; synchronise its clock (NTP)"),
                ));
            }
        }
        if all.is_empty() {
            all.push(ok(
                "node-clocks",
                format!("no skew of the {} nodes that can be told", leases.len()),
            ));
        }
        all
    })
}

fn webhooks(hooks: &[String]) -> Vec<Finding> {
    if hooks.is_empty() {
        return vec![ok("webhooks", "none stands between users and the two kinds")];
    }
    vec![warn(
        "webhooks",
        format!(
            "webhooks are called for the two kinds: {}",
            some(hooks.iter().map(String::as_str))
        ),
        "ScriptScope brings none; whoever installed them can refuse or delay changes of scripts",
    )]
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
