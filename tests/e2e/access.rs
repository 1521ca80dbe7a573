//! Who may read what; and what the operator says of itself.

use std::time::Duration;

use serde_json::json;

use crate::harness::{SYSTEM, Script, apply, eventually, http, kubectl, rest, rest_as};

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_what_rbac_grants_and_nothing_else() {
    let mine = Script::new("mine", "open").await;
    let other = Script::new("other", "shut").await;
    let main = "def f():\n    print('hello')\n    return 1\n";
    mine.deploy(main, json!({})).await;
    other.deploy(main, json!({})).await;
    let run = mine.call("f", json!({})).await.run_id().to_owned();
    let theirs = other.call("f", json!({})).await.run_id().to_owned();
    mine.ended_run(&run).await;
    other.ended_run(&theirs).await;

    let binding = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": mine.namespace}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "reader", "namespace": mine.namespace},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
         "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": mine.namespace}]}]});
    apply(&binding).await.unwrap();
    let token = kubectl(&["-n", &mine.namespace, "create", "token", "reader"]).await;
    let token = Some(token.trim());
    // The aggregation of roles takes the controller manager a moment.
    eventually("the view role reaches runs", Duration::from_secs(20), || async {
        let (status, text) = rest_as(token, &format!("{}/runs", mine.path())).await;
        if status == 200 { Ok(()) } else { Err(text) }
    })
    .await;

    for rest_of_path in ["/runs", "/logs", "/runs.csv", "/logs.csv", "/figures", ""] {
        let (status, text) = rest_as(token, &format!("{}{rest_of_path}", mine.path())).await;
        assert_eq!(status, 200, "{rest_of_path}: {text}");
        let (status, text) = rest_as(token, &format!("{}{rest_of_path}", other.path())).await;
        assert_eq!(status, 403, "{rest_of_path}: {text}");
        assert!(
            !text.contains("hello") && text.contains("customscripts/"),
            "{text}"
        );
        assert_eq!(
            rest_as(None, &format!("{}{rest_of_path}", mine.path())).await.0,
            401
        );
        assert_eq!(
            rest_as(Some("nonsense"), &format!("{}{rest_of_path}", mine.path()))
                .await
                .0,
            401
        );
    }
    assert_eq!(
        rest_as(token, &format!("{}/runs/{theirs}", other.path())).await.0,
        403
    );
    let (_, list) = rest_as(token, "/api/v1/scripts").await;
    assert!(
        list.contains(&mine.namespace) && !list.contains(&other.namespace),
        "{list}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_pods_token_delivers_nothing() {
    // A token for the API server is not one for the ingest, whoever's it is.
    let ip = kubectl(&[
        "-n",
        SYSTEM,
        "get",
        "service",
        "scriptscope-ingest",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])
    .await;
    let url = format!("http://{ip}:8081/ingest/v1/streams");
    let body = json!({"node": "x", "streams": []});
    let wrong = kubectl(&["-n", "default", "create", "token", "default"]).await;
    let audience = kubectl(&[
        "-n",
        "default",
        "create",
        "token",
        "default",
        "--audience",
        "scriptscope-ingest",
    ])
    .await;
    for (what, token) in [
        ("no", None),
        ("an API server", Some(wrong)),
        ("another account's", Some(audience)),
    ] {
        let mut request = http().post(&url).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token.trim());
        }
        let status = request.send().await.unwrap().status();
        assert!(status == 401 || status == 403, "{what} token: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_reports_its_metrics_and_serves_its_page() {
    let script = Script::new("metrics", "counted").await;
    script.deploy("def f():\n    return 1\n", json!({})).await;
    let run = script.call("f", json!({})).await.run_id().to_owned();
    script.ended_run(&run).await;
    let ip = kubectl(&[
        "-n",
        SYSTEM,
        "get",
        "service",
        "scriptscope-metrics",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ])
    .await;
    let wanted = format!(
        r#"scriptscope_runs_total{{namespace="{}",script="counted",status="Success"}} 1"#,
        script.namespace
    );
    eventually("the run is counted", Duration::from_secs(10), || async {
        let text = http()
            .get(format!("http://{ip}:9090/metrics"))
            .send()
            .await
            .map_err(|e| e.to_string())?;
        let text = text.text().await.map_err(|e| e.to_string())?;
        if text.contains(&wanted) { Ok(()) } else { Err(text) }
    })
    .await;

    let (status, page) = rest_as(None, "/").await;
    assert_eq!(status, 200);
    assert!(
        page.contains("ScriptScope") && !page.contains("<script>"),
        "{page}"
    );
    let listed = rest(&format!("/api/v1/scripts?namespace={}", script.namespace))
        .await
        .unwrap();
    assert_eq!(listed["items"][0]["name"], "counted", "{listed}");
}
