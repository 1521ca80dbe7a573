//! API keys, from the mounted Secret to the run's source.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::Runner;

const FIRST: &str = "the-first-key-is-long-enough";
const SECOND: &str = "the-second-key-is-long-enough";

/// `scriptscope api-keys`; ended when dropped.
struct Sidecar(Child);

impl Sidecar {
    fn start(from: &Path, to: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_scriptscope"))
            .arg("api-keys")
            .env("SCRIPTSCOPE_API_KEYS_FROM", from)
            .env("SCRIPTSCOPE_API_KEYS", to)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_need_a_key_and_are_known_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, hashes) = (folder.path().join("secret"), folder.path().join("keys.json"));
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("partner"), format!("{FIRST}\n")).unwrap();
    let _sidecar = Sidecar::start(&secret, &hashes);
    let path = hashes.to_str().unwrap().to_owned();
    let runner = Runner::start("plain", &[("SCRIPTSCOPE_API_KEYS", &path)]).await;

    for (headers, code) in [
        (&[][..], "ApiKeyMissing"),
        (&[("x-scriptscope-source", "billing")], "ApiKeyMissing"),
        (&[("x-api-key", "the-wrong-key-is-long-enough")], "ApiKeyInvalid"),
        (
            &[("authorization", "Bearer the-wrong-key-is-long-enough")],
            "ApiKeyInvalid",
        ),
    ] {
        let answer = runner.call_with("later", r#"{"value": 1}"#, headers).await;
        assert_eq!(
            (answer.status, &answer.body["error"]["code"]),
            (401, &json!(code))
        );
        for path in ["/functions", "/runs/none"] {
            let (status, _, found) = runner.ask("GET", path, headers).await;
            assert_eq!(
                (status, &found["www-authenticate"]),
                (401, &"Bearer".parse().unwrap()),
                "{path}"
            );
        }
    }
    assert_eq!(runner.get("/livez").await, 200);
    let large = vec![b'x'; 7 << 20];
    assert_eq!(
        runner.call_with("later", large, &[]).await.status,
        401,
        "the answer is read whatever was sent"
    );

    let bearer = format!("Bearer {FIRST}");
    for (headers, source, source_type) in [
        (&[("x-api-key", FIRST)][..], "partner", "API"),
        (&[("authorization", bearer.as_str())], "partner", "API"),
        (
            &[("x-api-key", FIRST), ("x-scriptscope-source", "billing")],
            "billing",
            "Tool",
        ),
        (
            &[("x-api-key", FIRST), ("x-scriptscope-source-type", "Test")],
            "partner",
            "Test",
        ),
    ] {
        let answer = runner.call_with("later", r#"{"value": 1}"#, headers).await;
        answer.result();
        let started = &runner.records(answer.run_id()).await[0];
        assert_eq!(
            (&started["source"], &started["source_type"]),
            (&json!(source), &json!(source_type))
        );
    }

    // Another key takes the first one's place while the runner goes on; then there is none.
    fs::write(secret.join("partner"), SECOND).unwrap();
    assert_eq!(answered(&runner, SECOND, "").await, 200);
    assert_eq!(answered(&runner, FIRST, "ApiKeyInvalid").await, 401);
    fs::remove_file(secret.join("partner")).unwrap();
    assert_eq!(answered(&runner, SECOND, "NoApiKeys").await, 401);
    assert_eq!(runner.get("/readyz").await, 200, "it still says why it refuses");
    let told = [runner.lines(), runner.errors()].concat().join("\n");
    assert!(!told.contains(FIRST) && !told.contains(SECOND));
    fs::write(secret.join("partner"), FIRST).unwrap();
    assert_eq!(answered(&runner, FIRST, "").await, 200);
    let text = fs::read_to_string(&hashes).unwrap();
    assert!(!text.contains(FIRST) && !text.contains(SECOND), "{text}");
    assert_eq!(fs::metadata(&hashes).unwrap().permissions().mode() & 0o111, 0);
}

/// Calls with a key until the answer has this code; its status.
async fn answered(runner: &Runner, key: &str, code: &str) -> u16 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = runner
            .call_with("later", r#"{"value": 1}"#, &[("x-api-key", key)])
            .await;
        if answer.body["error"]["code"].as_str().unwrap_or_default() == code {
            return answer.status;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
