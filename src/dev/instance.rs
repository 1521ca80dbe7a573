//! One runner process.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    pump::Pump,
    sandbox::{Process, Sandbox},
    shared::{Settings, Shared},
};
use crate::{
    api::labels,
    ingest::wire::StreamKey,
    runner::{Function, Runtime, STORED_PATH, kill_marked},
    store::PodRecord,
};

/// How often a runner is asked whether it is ready.
const POLL: Duration = Duration::from_millis(10);
/// How long a runner's last prints may take to be stored once it has ended.
const LAST_PRINTS: Duration = Duration::from_secs(10);
/// Variables with this beginning are the runner's options; it is given its own.
const OURS: &str = "SCRIPTSCOPE_";
/// The variable by which a runner's processes are found.
const MARK: &str = "_SCRIPTSCOPE_DEV_RUNNER";

/// What a version runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// A folder of the version's own.
    pub folder: PathBuf,
    /// The copy of the project.
    pub app: PathBuf,
    /// Where its packages are, if it asks for some.
    pub packages: Option<PathBuf>,
}

/// A runner.
pub struct Instance {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    stdin: Option<ChildStdin>,
    pump: JoinHandle<String>,
    token: mpsc::Receiver<String>,
    reason: PathBuf,
    /// What all its processes have in their environment.
    mark: String,
    /// Where it runs, if not as it is, and the name that it has there.
    container: Option<(Sandbox, String)>,
}

/// What a runner does.
#[derive(Debug)]
pub enum Event {
    /// It has ended.
    Exited(Option<ExitStatus>),
    /// Its last record is stored, and it waits to be told so.
    LastRecordStored {
        /// What it waits for.
        token: String,
    },
}

/// How a runner ended.
#[derive(Debug)]
pub struct Ended {
    /// As its parent sees it.
    pub status: Option<ExitStatus>,
    /// Its last words.
    pub reason: String,
}

#[derive(Deserialize)]
struct Listing {
    functions: Vec<Function>,
}

impl Instance {
    /// Starts a runner as the container of `pod` that was restarted so many times before.
    pub async fn start(shared: &Shared, pod: &PodRecord, place: &Place, restart: u32) -> io::Result<Self> {
        let address = somewhere();
        let words = place.folder.join("words");
        fs::create_dir_all(&words)?;
        let reason = words.join(restart.to_string());
        let key = StreamKey {
            namespace: pod.script.namespace.clone(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            container: labels::CONTAINER.to_owned(),
            restart,
        };
        shared
            .ingest
            .states(&super::pump::reader(), std::slice::from_ref(&key))
            .await
            .map_err(io::Error::other)?;
        let token = shared.farewells.expect(&pod.uid);
        let binary = std::env::current_exe()?;
        let arguments = arguments(shared, place, pod, address, &reason);
        let mut environment = environment(&shared.settings, place.packages.as_deref());
        let mark = Uuid::now_v7().simple().to_string();
        environment.push((MARK.into(), mark.clone().into()));
        let mut container = None;
        let mut command = match &shared.settings.sandbox {
            None => {
                let mut command = Command::new(&binary);
                command.args(&arguments).env_clear().envs(environment);
                command
            }
            Some(sandbox) => {
                let id = Uuid::now_v7().simple().to_string();
                let process = Process {
                    arguments: std::iter::once(binary.as_os_str())
                        .chain(arguments.iter().map(OsString::as_os_str))
                        .collect(),
                    environment: &environment,
                    folder: &place.app,
                    readable: [&*binary, &*shared.scratch, &*shared.project.folder]
                        .into_iter()
                        .chain(place.packages.as_deref())
                        .collect(),
                    writable: &words,
                };
                let mut command = Command::new(sandbox.program());
                command.args(sandbox.prepare(&id, &place.folder.join(&id), &process)?);
                container = Some((sandbox.clone(), id));
                command
            }
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process, which ends runners in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pump = Pump::new(
            Arc::clone(&shared.ingest),
            shared.printer.clone(),
            key,
            pod.version,
        );
        let missing = || io::Error::other("a pipe is missing");
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        Ok(Self {
            address,
            stdin: child.stdin.take(),
            child,
            pump: tokio::spawn(pump.run(stdout, stderr)),
            token,
            reason,
            mark: format!("{MARK}={mark}"),
            container,
        })
    }

    /// What it does next.
    pub async fn event(&mut self) -> Event {
        tokio::select! {
            status = self.child.wait() => Event::Exited(status.ok()),
            Some(token) = self.token.recv() => Event::LastRecordStored { token },
        }
    }

    /// Lets runs in progress end, then the runner.
    pub fn drain(&mut self) {
        self.stdin = None;
    }

    /// Ends runs in progress.
    pub fn cut(&mut self) {
        self.drain();
        match &self.container {
            None => self.signal(Signal::SIGTERM),
            Some((sandbox, id)) => {
                let mut command = Command::new(sandbox.program());
                let command = command
                    .args(sandbox.terminate(id))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                if let Err(error) = command.stdin(Stdio::null()).spawn() {
                    tracing::warn!(%error, "A sandbox could not be told to end.");
                }
            }
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.drain();
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // Without an id it has ended.
        if let Some(id) = self.child.id() {
            let _ = killpg(Pid::from_raw(id.cast_signed()), signal);
        }
    }

    /// Stores what is left once the process has ended.
    pub async fn conclude(mut self, status: Option<ExitStatus>) -> Ended {
        // Whatever it has left behind, such as the workers of one that was killed.
        let mark = std::mem::take(&mut self.mark);
        let _ = tokio::task::spawn_blocking(move || kill_marked(&mark)).await;
        let last = if let Ok(last) = timeout(LAST_PRINTS, &mut self.pump).await {
            last.unwrap_or_default()
        } else {
            self.pump.abort();
            String::new()
        };
        // It tells by a file why the script can not be used.
        let reason = fs::read_to_string(&self.reason).unwrap_or(last);
        Ended { status, reason }
    }
}

/// Waits until the runner at `address` takes calls; its functions.
pub async fn ready(http: &reqwest::Client, address: SocketAddr) -> Vec<Function> {
    loop {
        let asked = http.get(format!("http://{address}/readyz")).send().await;
        if asked.is_ok_and(|answer| answer.status().is_success()) {
            let listed = http.get(format!("http://{address}/functions")).send().await;
            if let Ok(listed) = listed
                && let Ok(listing) = listed.json::<Listing>().await
            {
                return listing.functions;
            }
        }
        sleep(POLL).await;
    }
}

/// Tells a runner that its last record is stored.
pub async fn tell_stored(http: &reqwest::Client, address: SocketAddr, token: String) {
    let told = http
        .post(format!("http://{address}{STORED_PATH}"))
        .body(token)
        .send()
        .await;
    if let Err(error) = told {
        tracing::debug!(%error, "A runner could not be told that its last record is stored.");
    }
}

/// An address of this machine alone which nobody guesses: a page of another site could send calls to one that it knows.
fn somewhere() -> SocketAddr {
    let [second, third, fourth, .., high, low] = Uuid::new_v4().into_bytes();
    let port = 20_000 + u16::from_be_bytes([high, low]) % 40_000;
    SocketAddr::from((Ipv4Addr::new(127, second, third, fourth.clamp(1, 254)), port))
}

fn arguments(
    shared: &Shared,
    place: &Place,
    pod: &PodRecord,
    address: SocketAddr,
    reason: &Path,
) -> Vec<OsString> {
    let settings = &shared.settings;
    let mut arguments: Vec<OsString> = ["--log=warn", "runner", "--attended", "--app"]
        .map(Into::into)
        .into();
    arguments.push(place.app.clone().into());
    arguments.extend(["--home".into(), shared.scratch.join(HOME).into()]);
    arguments.extend(["--termination-log".into(), reason.into()]);
    let interpreter = match settings.runtime {
        Runtime::Python => "--python",
        Runtime::Node => "--node",
    };
    arguments.extend([interpreter.into(), settings.interpreter.clone()]);
    let rest = [
        format!("--runtime={}", settings.runtime.name()),
        format!("--timeout-seconds={}", settings.timeout),
        format!("--concurrency={}", settings.concurrency),
        format!("--listen={address}"),
        format!("--deployment-id={}", pod.deployment_id),
        format!("--version={}", pod.version),
    ];
    arguments.extend(rest.map(Into::into));
    arguments
}

/// This process's environment without what is the runner's, and what the author adds. The script's packages come before
/// whatever else there is.
fn environment(settings: &Settings, packages: Option<&Path>) -> Vec<(OsString, OsString)> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os()
        .filter(|(name, _)| !name.to_string_lossy().starts_with(OURS))
        .collect();
    let given = settings.environment.iter();
    variables.extend(given.map(|(name, value)| (name.into(), value.into())));
    if let Some(packages) = packages.filter(|_| settings.runtime == Runtime::Python) {
        let path = variables.entry(PYTHON_PATH.into()).or_default();
        let rest = std::mem::replace(path, packages.into());
        if !rest.is_empty() {
            path.push(":");
            path.push(rest);
        }
    }
    variables.into_iter().collect()
}

/// Where Python looks for packages.
const PYTHON_PATH: &str = "PYTHONPATH";
/// Folder of the workers, in that of this process.
pub const HOME: &str = "home";
