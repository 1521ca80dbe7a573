//! An operator's controller of exports in a process of its own, which can be killed and measured.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use kube::{Client, Config};
use scriptscope::{
    metrics::Metrics,
    operator::{
        Scope,
        script_export::{ExportContext, run},
    },
    store,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::s3_server::Process;

/// Environment variable that makes this program the operator.
const ROLE: &str = "SCRIPTSCOPE_TEST_EXPORTS";
/// So short that many exports take many turns.
const TURN: Duration = Duration::from_millis(50);

#[derive(Serialize, Deserialize)]
struct Role {
    api: SocketAddr,
    data: PathBuf,
}

/// Nothing, where no other test asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_that_other_tests_start() {
    let Ok(role) = env::var(ROLE) else { return };
    let Role { api, data } = serde_json::from_str(&role).unwrap();
    let client = Client::try_from(Config::new(format!("http://{api}").parse().unwrap())).unwrap();
    let url = format!("sqlite://{}", data.join("store.db").display());
    let store = store::open(&url).await.unwrap();
    let context = ExportContext::new(client, store, &data, Metrics::new());
    let context = context.pause(TURN).turn(TURN);
    run(context, Scope::all(), CancellationToken::new()).await;
}

/// Starts it, with the store in the folder, which nobody else has open.
pub fn start(api: SocketAddr, data: &Path) -> Process {
    let role = Role {
        api,
        data: data.to_owned(),
    };
    let process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "operator::the_operator_that_other_tests_start"])
        .env(ROLE, serde_json::to_string(&role).unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(process.unwrap())
}
