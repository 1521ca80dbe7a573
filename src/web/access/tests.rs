use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const AGENT: &str = "system:serviceaccount:scriptscope:agent";

/// An API server that answers reviews with `answer`, given the path and the body.
fn access(answer: fn(&str, &Value) -> (u16, Value)) -> (KubeAccess, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = tower::service_fn(move |request: Request<Body>| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut sent: Value = serde_json::from_slice(&body).unwrap();
            let (code, answer) = answer(&path, &sent["spec"]);
            if code < 300 {
                sent["status"] = answer;
            } else {
                sent = answer;
            }
            let response = Response::builder().status(code);
            Ok::<_, Infallible>(response.body(Body::from(sent.to_string().into_bytes())).unwrap())
        }
    });
    let client = Client::new(service, "default");
    (KubeAccess::new(client, "scriptscope", "agent"), calls)
}

fn of_user(name: &str, audiences: &[&str]) -> Value {
    json!({ "authenticated": true, "audiences": audiences, "user": { "username": name, "groups": ["g"] } })
}

#[tokio::test]
async fn a_token_is_reviewed_once_in_a_while() {
    let (access, calls) = access(|path, spec| {
        assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
        if spec["token"] == "good" {
            (201, of_user("ann", &["https://kubernetes.default.svc"]))
        } else {
            (201, json!({ "authenticated": false }))
        }
    });
    for _ in 0..3 {
        let ann = access.identify("good").await.unwrap();
        assert_eq!((&*ann.username, &*ann.groups), ("ann", &["g".to_owned()][..]));
        assert_eq!(access.identify("bad").await, Err(AccessError::Unauthenticated));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_api_server_that_fails_is_no_wrong_token() {
    let (access, calls) = access(|_, _| {
        (
            403,
            json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                    "message": "the operator may not review tokens" }),
        )
    });
    for _ in 0..2 {
        assert_eq!(access.identify("good").await, Err(AccessError::Unavailable));
    }
    // Not remembered: it may be better the next moment.
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn only_the_agent_with_a_token_for_us_is_the_agent() {
    let (access, _) = access(|_, spec| {
        assert_eq!(spec["audiences"], json!([AUDIENCE]));
        match spec["token"].as_str().unwrap() {
            "agent" => (201, of_user(AGENT, &[AUDIENCE])),
            "other" => (201, of_user("system:serviceaccount:shop:agent", &[AUDIENCE])),
            // An API server that does not know audiences.
            _ => (201, of_user(AGENT, &[])),
        }
    });
    assert_eq!(access.review_agent("agent").await.unwrap().username, AGENT);
    assert!(matches!(
        access.review_agent("other").await,
        Err(AccessError::WrongUser { .. })
    ));
    assert_eq!(
        access.review_agent("api").await,
        Err(AccessError::Unauthenticated)
    );
}

#[tokio::test]
async fn rights_are_those_of_the_user_and_remembered_each_for_itself() {
    let (access, calls) = access(|path, spec| {
        assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
        let asked = &spec["resourceAttributes"];
        assert_eq!(
            (&asked["group"], &asked["resource"]),
            (&json!("scriptscope.dev"), &json!("customscripts"))
        );
        let allowed = spec["user"] == "ann" && asked["namespace"] == "shop" && asked["subresource"] == "runs";
        (201, json!({ "allowed": allowed }))
    });
    let user = |name: &str| Identity {
        username: name.into(),
        ..Identity::default()
    };
    for _ in 0..2 {
        for (name, subresource, namespace, expected) in [
            ("ann", "runs", "shop", true),
            ("ann", "logs", "shop", false),
            ("ann", "runs", "bank", false),
            ("bob", "runs", "shop", false),
        ] {
            let permission = Permission::get(subresource, namespace, "pay");
            assert_eq!(access.allowed(&user(name), &permission).await, Ok(expected));
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn an_expired_token_or_one_for_somebody_else_lets_nobody_in() {
    // As an API server says it: why is in the status, and there is no user.
    let (access, _) = access(|_, spec| match spec["token"].as_str() {
        Some("expired") => (
            201,
            json!({ "authenticated": false, "error": "[invalid bearer token, token has expired]" }),
        ),
        // Good for the API server, but asked of another audience than it is for.
        Some("of-the-api-server") if spec["audiences"].is_array() => (
            201,
            json!({ "authenticated": false, "error": "token audiences [\"api\"] is invalid for the target audiences" }),
        ),
        // An API server that minds no audiences does not repeat the one that was asked for.
        Some("unminded") => (201, of_user(AGENT, &[])),
        Some("of-an-agent") if spec["audiences"].is_null() => (201, json!({ "authenticated": false })),
        _ => (201, of_user(AGENT, &[AUDIENCE])),
    });
    for token in ["expired", "of-an-agent"] {
        assert_eq!(
            access.identify(token).await,
            Err(AccessError::Unauthenticated),
            "{token}"
        );
    }
    for token in ["expired", "of-the-api-server", "unminded"] {
        assert_eq!(
            access.review_agent(token).await,
            Err(AccessError::Unauthenticated),
            "{token}"
        );
    }
    assert_eq!(access.review_agent("of-an-agent").await.unwrap().username, AGENT);
}
