use jiff::SignedDuration;

use super::*;
use crate::cli::doctor::facts::{Agents, LeaseFact, Operator, Right, Script, ScriptPod, Server};

/// An installation as it should be: two operators on Postgres, two nodes.
fn sound() -> Facts {
    let now = "2026-11-20T12:00:00Z".parse().unwrap();
    let pod = |name: &str, leader: f64| OperatorPod {
        name: name.into(),
        ready: true,
        restarts: 0,
        last_end: None,
        health: Ok(Health {
            ready: true,
            readyz: "ok\n".into(),
            metrics: BTreeMap::from([
                ("scriptscope_store_writable".into(), 1.0),
                ("scriptscope_leader".into(), leader),
                ("scriptscope_ingest_lag_seconds".into(), 0.2),
                ("scriptscope_volume_size_bytes".into(), 100.0),
                ("scriptscope_volume_available_bytes".into(), 50.0),
            ]),
        }),
    };
    Facts {
        command: "0.1.0".into(),
        system: "scriptscope-system".into(),
        server: Ok(Server {
            version: "v1.34.1".into(),
            now,
            ahead_seconds: 1,
        }),
        kinds: Ok(vec![
            "customscripts".into(),
            "customscripts/status".into(),
            "scriptexports".into(),
        ]),
        operators: Ok(vec![Operator {
            name: "scriptscope".into(),
            wanted: 2,
            available: 2,
            version: Some("0.1.0".into()),
            image: None,
            collects_by_agent: true,
            lease: Some("scriptscope".into()),
        }]),
        operator_pods: Ok(vec![pod("one", 0.0), pod("two", 1.0)]),
        agents: Ok(vec![Agents {
            name: "scriptscope-agent".into(),
            desired: 2,
            ready: 2,
        }]),
        agent_nodes: Ok(vec!["n1".into(), "n2".into()]),
        scripts: Ok(vec![Script {
            namespace: "shop".into(),
            name: "pay".into(),
            runtime_class: "gvisor".into(),
            failed: None,
            not_stored: None,
        }]),
        script_pods: Ok(vec![ScriptPod {
            namespace: "shop".into(),
            name: "pay-1".into(),
            node: "n1".into(),
        }]),
        runtime_classes: Ok(vec!["gvisor".into()]),
        rights: vec![Right {
            what: "create pods/portforward in namespace scriptscope-system".into(),
            why: "the command's way to the operator",
            is_vital: true,
            allowed: Ok(true),
        }],
        node_leases: Ok(BTreeMap::from([(
            "n1".into(),
            now - SignedDuration::from_secs(9),
        )])),
        lease: Ok(Some(LeaseFact {
            name: "scriptscope".into(),
            holder: Some("two".into()),
            renewed: Some(now - SignedDuration::from_secs(2)),
        })),
        webhooks: Ok(vec![]),
    }
}

/// What is not as it should be after a change of a sound installation: grade, check, what was seen with what to do.
fn problems(change: impl FnOnce(&mut Facts)) -> Vec<(Grade, &'static str, String)> {
    let mut facts = sound();
    change(&mut facts);
    findings(&facts)
        .into_iter()
        .filter(|finding| finding.grade != Grade::Ok)
        .map(|finding| {
            let remedy = finding.remedy.expect("what is wrong has a remedy");
            (
                finding.grade,
                finding.check,
                format!("{} -> {remedy}", finding.saw),
            )
        })
        .collect()
}

#[track_caller]
fn only(grade: Grade, check: &str, says: &[&str], change: impl FnOnce(&mut Facts)) {
    let found = problems(change);
    let [(is, of, text)] = &found[..] else {
        panic!("not one problem: {found:#?}");
    };
    assert_eq!((*is, *of), (grade, check), "{text}");
    for word in says {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_sound_installation_has_no_problem() {
    assert!(problems(|_| {}).is_empty(), "{:#?}", problems(|_| {}));
    let all = findings(&sound());
    assert!(all.len() > 15, "{all:#?}");
}

#[test]
fn each_fault_is_named_alone_with_its_remedy() {
    use Grade::{Fail, Warn};

    only(
        Fail,
        "runtime-class",
        &["RuntimeClass gvisor", "shop/pay", "docs/install.md"],
        |facts| {
            facts.runtime_classes = Ok(vec![]);
        },
    );
    only(
        Fail,
        "runtime-class",
        &["RuntimeClass kata", "shop/pay"],
        |facts| {
            facts.scripts.as_mut().unwrap()[0].runtime_class = "kata".into();
        },
    );
    only(
        Fail,
        "agent-nodes",
        &["node n1", "shop/pay-1", "agent.tolerations"],
        |facts| {
            facts.agent_nodes = Ok(vec!["n2".into()]);
        },
    );
    only(Warn, "agents", &["ready on 1 of 2 nodes"], |facts| {
        facts.agents.as_mut().unwrap()[0].ready = 1;
    });
    only(
        Fail,
        "agents",
        &["wanted on no node", "agent.nodeSelector"],
        |facts| {
            facts.agents.as_mut().unwrap()[0].desired = 0;
        },
    );
    only(Fail, "definitions", &["scriptexports", "crds.enabled"], |facts| {
        facts.kinds = Ok(vec!["customscripts".into()]);
    });
    only(
        Warn,
        "version",
        &["operator is 0.0.9", "command 0.1.0"],
        |facts| {
            facts.operators.as_mut().unwrap()[0].version = Some("0.0.9".into());
        },
    );
    only(
        Fail,
        "rights",
        &["you may not create pods/portforward", "scriptscope-cli"],
        |facts| {
            facts.rights[0].allowed = Ok(false);
        },
    );
    only(Warn, "clock", &["30 s behind", "NTP"], |facts| {
        facts.server.as_mut().unwrap().ahead_seconds = -30;
    });
    only(
        Warn,
        "node-clocks",
        &["node n1", "at least 60 s ahead"],
        |facts| {
            let now = facts.server.as_ref().unwrap().now;
            let ahead = now + SignedDuration::from_secs(60);
            facts.node_leases.as_mut().unwrap().insert("n1".into(), ahead);
        },
    );
    only(Fail, "lease", &["two has not renewed", "90 s"], |facts| {
        let now = facts.server.as_ref().unwrap().now;
        facts.lease.as_mut().unwrap().as_mut().unwrap().renewed = Some(now - SignedDuration::from_secs(90));
    });
    only(Fail, "scripts", &["shop/pay", "StoreFailed"], |facts| {
        facts.scripts.as_mut().unwrap()[0].not_stored = Some("StoreFailed: disk full".into());
    });
    only(Warn, "webhooks", &["check.example.com"], |facts| {
        facts.webhooks = Ok(vec!["check.example.com".into()]);
    });
    only(
        Warn,
        "webhooks",
        &["not looked at: forbidden", "administrator"],
        |facts| {
            facts.webhooks = Err("forbidden".into());
        },
    );
}

#[test]
fn what_the_operators_say_of_themselves_is_judged() {
    use Grade::{Fail, Warn};

    fn metric(facts: &mut Facts, name: &str, value: f64) {
        let pod = &mut facts.operator_pods.as_mut().unwrap()[0];
        let health = pod.health.as_mut().unwrap();
        health.metrics.insert(format!("scriptscope_{name}"), value);
    }
    for (name, value, grade, check) in [
        ("store_writable", 0.0, Fail, "store"),
        ("ingest_lag_seconds", 45.0, Warn, "ingest-lag"),
        ("ingest_errors_total", 3.0, Warn, "ingest-errors"),
        ("log_gaps_total", 1.0, Warn, "log-gaps"),
        ("reconcile_errors_total", 7.0, Warn, "reconcile-errors"),
        ("volume_available_bytes", 10.0, Warn, "volume"),
        ("volume_available_bytes", 2.0, Fail, "volume"),
    ] {
        only(grade, check, &["docs/runbooks.md"], |facts| {
            metric(facts, name, value);
        });
    }
    only(Fail, "leader", &["scriptscopenoleader"], |facts| {
        for pod in facts.operator_pods.as_mut().unwrap() {
            pod.health
                .as_mut()
                .unwrap()
                .metrics
                .insert("scriptscope_leader".into(), 0.0);
        }
    });
    only(
        Fail,
        "readiness",
        &["one: not ready yet: list of pods"],
        |facts| {
            let health = facts.operator_pods.as_mut().unwrap()[0].health.as_mut().unwrap();
            (health.ready, health.readyz) = (false, "not ready yet: list of pods\n".into());
        },
    );
    only(Warn, "restarts", &["restarted 4 times", "OOMKilled"], |facts| {
        let pod = &mut facts.operator_pods.as_mut().unwrap()[0];
        (pod.restarts, pod.last_end) = (4, Some("OOMKilled (exit code 137)".into()));
    });
}

#[test]
fn without_an_operator_or_an_api_server_the_rest_is_not_made_up() {
    let found = problems(|facts| facts.server = Err("connection refused".into()));
    assert_eq!(found.len(), 1);
    assert!(found[0].2.contains("connection refused") && found[0].2.contains("kubeconfig"));
    let found = problems(|facts| {
        facts.operators = Ok(vec![]);
        facts.operator_pods = Ok(vec![]);
        facts.agents = Ok(vec![]);
        facts.agent_nodes = Ok(vec![]);
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].2.contains("--system-namespace"), "{found:#?}");
}
