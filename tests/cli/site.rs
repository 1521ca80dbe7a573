//! A web server with rows, and the command that asks it.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    api::CustomScript,
    metrics::Metrics,
    model::{LogId, LogLevel, LogLine, Run, RunStatus, ScriptKey, SourceType},
    store::Store,
    web::{
        self, ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command};
use tokio_util::sync::CancellationToken;

use crate::rows::Rows;

/// Users by token: `shop` reads everything of its namespace, `runs-only` only its runs.
pub struct Users;

#[async_trait]
impl Access for Users {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        match token {
            "shop" | "runs-only" | "nobody" => Ok(Identity {
                username: token.to_owned(),
                ..Identity::default()
            }),
            _ => Err(AccessError::Unauthenticated),
        }
    }

    async fn allowed(&self, user: &Identity, asked: &Permission<'_>) -> Result<bool, AccessError> {
        Ok(match &*user.username {
            "shop" => asked.namespace == "shop",
            "runs-only" => (asked.namespace, asked.subresource) == ("shop", "runs"),
            _ => false,
        })
    }
}

/// There are no objects.
pub struct Objects;

impl ScriptObjects for Objects {
    fn get(&self, _: &ScriptKey) -> Option<Arc<CustomScript>> {
        None
    }

    fn list(&self, _: Option<&str>) -> Vec<ScriptKey> {
        Vec::new()
    }
}

pub const HOSTILE: &str = "=cmd \u{1b}[2J\u{9b}1mred, \"quoted\"\nsecond";

fn run(n: i64, status: RunStatus) -> Run {
    Run {
        run_id: format!("run-{n:03}"),
        status,
        reason: None,
        deployment_version: 1,
        deployment_id: "d".into(),
        response_time_micros: (status == RunStatus::Success).then_some(n * 1_500 + 1),
        function: "check".into(),
        executed_on: Timestamp::now() - SignedDuration::from_mins(n),
        finished_at: None,
        source_type: SourceType::Api,
        source: if n == 5 { HOSTILE.into() } else { "billing".into() },
        traceparent: None,
    }
}

fn line(n: i64) -> LogLine {
    LogLine {
        log_id: LogId {
            stream: 1,
            offset: 10_000 - n,
            index: 0,
        },
        level: if n % 2 == 0 {
            LogLevel::Info
        } else {
            LogLevel::Error
        },
        message: if n == 5 {
            HOSTILE.into()
        } else {
            format!("message {n}")
        },
        timestamp: Timestamp::now() - SignedDuration::from_mins(n),
        run_id: Some(format!("run-{:03}", n % 3)),
        attributes: None,
    }
}

/// A running web server.
pub struct Site {
    pub address: SocketAddr,
    pub store: Arc<dyn Store>,
    pub folder: TempDir,
    stop: CancellationToken,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    /// With 120 runs and lines of `shop/pay`, one a minute.
    pub async fn new() -> Self {
        let pay = ScriptKey::new("shop", "pay");
        let mut rows = Rows::default();
        for n in 0..120 {
            let status = RunStatus::ALL[usize::try_from(n % 3).unwrap()];
            rows.runs.push((pay.clone(), run(n, status)));
            rows.logs.push((pay.clone(), line(n)));
        }
        let folder = tempfile::tempdir().unwrap();
        let store = rows.store(&folder).await;
        let state = WebState::new(
            store.clone(),
            Arc::new(Users),
            Arc::new(Objects),
            folder.path(),
            Metrics::new(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(web::serve(listener, router(state), stop.clone()));
        for user in ["shop", "runs-only", "nobody", "stranger"] {
            std::fs::write(folder.path().join(user), format!("{user}\n")).unwrap();
        }
        Self {
            address,
            store,
            folder,
            stop,
        }
    }

    /// The command as a user, who is named by a token.
    pub fn command(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = bare();
        command
            .args(arguments)
            .args(["-n", "shop", "--server", &format!("http://{}", self.address)])
            .arg("--token-file")
            .arg(self.folder.path().join(user))
            .stdin(Stdio::null());
        command
    }

    /// What it says.
    pub async fn says(&self, user: &str, arguments: &[&str]) -> Said {
        Said::from(self.command(user, arguments).output().await.unwrap())
    }
}

/// The command without anything of the tests' surroundings.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    for name in [
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "SCRIPTSCOPE_SERVER",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").kill_on_drop(true);
    command
}

/// What a command has said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    #[track_caller]
    pub fn works(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub fn fails(self, code: i32, why: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(why), "{why}: {}", self.err);
        assert!(self.out.is_empty(), "{}", self.out);
    }
}
