//! Options of the runner. The operator sets them as environment variables of the script's container.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, ValueEnum};

use super::{RunnerError, call::Settings, records::PayloadRule, runs::Limits};

/// Seconds beyond a script's timeout that its pod is given for ending its runs and for having their records stored.
pub const STOP_SECONDS: u64 = 30;
/// So many seconds before it would be killed, the runner ends by itself.
const MARGIN_SECONDS: u64 = 5;

/// What is kept of the results of asynchronous calls, however long they are to be kept: so many, and so many bytes. A
/// result has 6 MiB at most.
const RESULTS: usize = 1_000;
const RESULT_BYTES: usize = 16 << 20;

/// Options of `scriptscope runner`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Folder of the script, with main.py or main.js at its root.
    #[arg(long, env = "SCRIPTSCOPE_APP", default_value = "/app")]
    pub app: PathBuf,
    /// Folder that `scriptscope install` has written. Default: where this binary is.
    #[arg(long, env = "SCRIPTSCOPE_HOME")]
    pub home: Option<PathBuf>,
    /// Address of the endpoint.
    #[arg(long, env = "SCRIPTSCOPE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Id of the deployment.
    #[arg(long, env = "SCRIPTSCOPE_DEPLOYMENT_ID", default_value = "")]
    pub deployment_id: String,
    /// Version of the deployment.
    #[arg(long, env = "SCRIPTSCOPE_VERSION", default_value_t = 1)]
    pub version: i64,
    /// Seconds that a run may take.
    #[arg(long, env = "SCRIPTSCOPE_TIMEOUT_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout_seconds: u64,
    /// Runs at once, each in a worker process of its own.
    #[arg(long, env = "SCRIPTSCOPE_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub concurrency: u8,
    /// When prints are recorded. korelogger's lines always are at once.
    #[arg(
        long,
        env = "SCRIPTSCOPE_LOGGING",
        value_enum,
        ignore_case = true,
        default_value_t
    )]
    pub logging: Logging,
    /// Record the arguments of runs.
    #[arg(long, env = "SCRIPTSCOPE_CAPTURE_INPUT", action = ArgAction::Set, default_value_t = true)]
    pub capture_input: bool,
    /// Record the results of runs.
    #[arg(long, env = "SCRIPTSCOPE_CAPTURE_OUTPUT", action = ArgAction::Set, default_value_t = true)]
    pub capture_output: bool,
    /// Bytes of JSON above which arguments and results are not recorded.
    #[arg(long, env = "SCRIPTSCOPE_CAPTURE_MAX_BYTES", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub capture_max_bytes: u32,
    /// Bytes that a run may print before it is ended.
    #[arg(long, env = "SCRIPTSCOPE_MAX_OUTPUT_BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub max_output_bytes: u32,
    /// Seconds that runs in progress have once the runner is told to stop. Default: as long as a run may take.
    #[arg(long, env = "SCRIPTSCOPE_GRACE_SECONDS")]
    pub grace_seconds: Option<u64>,
    /// Seconds from the stop signal until the runner ends although nobody has said that its records are stored. Default:
    /// 25 more than a run may take.
    #[arg(long, env = "SCRIPTSCOPE_LINGER_SECONDS")]
    pub linger_seconds: Option<u64>,
    /// Seconds that a call may wait for a free worker.
    #[arg(long, env = "SCRIPTSCOPE_QUEUE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub queue_seconds: u64,
    /// Language of the script.
    #[arg(long, env = "SCRIPTSCOPE_RUNTIME", value_enum, default_value_t)]
    pub runtime: Runtime,
    /// The Python interpreter; found on PATH if it is a bare name.
    #[arg(long, env = "SCRIPTSCOPE_PYTHON", default_value = "python3")]
    pub python: PathBuf,
    /// Node; found on PATH if it is a bare name.
    #[arg(long, env = "SCRIPTSCOPE_NODE", default_value = "node")]
    pub node: PathBuf,
    /// File with the hashes of the API keys that callers need, as `scriptscope api-keys` writes it. Default: no key is needed.
    #[arg(long, env = "SCRIPTSCOPE_API_KEYS")]
    pub api_keys: Option<PathBuf>,
    /// Address of this pod, as the others of the script know it.
    #[arg(long, env = "SCRIPTSCOPE_POD_IP")]
    pub pod_ip: Option<IpAddr>,
    /// Names or addresses of all pods of the script, which listen on the same port as this one.
    #[arg(long, env = "SCRIPTSCOPE_PEERS", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Seconds for which the results of asynchronous calls are kept.
    #[arg(long, env = "SCRIPTSCOPE_RESULT_SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub result_seconds: u64,
    /// File for the reason when the script can not be used. Default: Kubernetes' own, if it is there.
    #[arg(long, env = "SCRIPTSCOPE_TERMINATION_LOG")]
    pub termination_log: Option<PathBuf>,
    /// Stop when standard input ends. Whoever holds its other end sends no calls after that.
    #[arg(long, hide = true)]
    pub attended: bool,
}

/// When prints are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Logging {
    /// When the run ends.
    #[default]
    #[value(name = "AfterCompletion")]
    AfterCompletion,
    /// As they are printed.
    #[value(name = "Live")]
    Live,
}

/// Language of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// Python 3.10 or newer.
    #[default]
    Python,
    /// Node 20 or newer.
    Node,
}

impl Runtime {
    /// Its name, and that of its folder among the runner's files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// File at a script's root whose functions can be called.
    pub fn entry_point(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::Node => "main.js",
        }
    }

    /// File of its worker.
    pub(super) fn worker_file(self) -> &'static str {
        match self {
            Self::Python => "worker.py",
            Self::Node => "worker.js",
        }
    }

    /// What an image must hold.
    pub(super) fn requirement(self) -> &'static str {
        match self {
            Self::Python => "Python 3.10 or newer",
            Self::Node => "Node 20 or newer",
        }
    }
}

impl Args {
    /// What is the same for all runs.
    pub(super) fn settings(&self) -> Settings {
        let rule = |keep| PayloadRule {
            keep,
            max_bytes: self.capture_max_bytes as usize,
        };
        Settings {
            deployment_id: self.deployment_id.clone(),
            version: self.version,
            timeout: self.timeout(),
            live: self.logging == Logging::Live,
            input: rule(self.capture_input),
            output: rule(self.capture_output),
            max_output_bytes: self.max_output_bytes as usize,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// How many workers there are.
    pub(super) fn concurrency(&self) -> usize {
        usize::from(self.concurrency)
    }

    /// How long runs may go on after a stop signal.
    pub(super) fn grace(&self) -> Duration {
        self.grace_seconds
            .map_or_else(|| self.timeout(), Duration::from_secs)
    }

    /// How long after a stop signal the runner waits at most for the word that its records are stored.
    pub(super) fn linger(&self) -> Duration {
        let default = self.timeout_seconds + STOP_SECONDS - MARGIN_SECONDS;
        Duration::from_secs(self.linger_seconds.unwrap_or(default))
    }

    /// How long a call may wait for a worker.
    pub(super) fn queue_timeout(&self) -> Duration {
        Duration::from_secs(self.queue_seconds)
    }

    /// What is kept of runs that have ended.
    pub(super) fn kept(&self) -> Limits {
        Limits {
            age: Duration::from_secs(self.result_seconds),
            number: RESULTS,
            bytes: RESULT_BYTES,
        }
    }

    /// What runs the script.
    pub(super) fn interpreter(&self) -> &Path {
        match self.runtime {
            Runtime::Python => &self.python,
            Runtime::Node => &self.node,
        }
    }

    /// The folder that `scriptscope install` has written.
    pub(super) fn worker_home(&self) -> Result<PathBuf, RunnerError> {
        let binary = std::env::current_exe().map_err(RunnerError::Start)?;
        let home = self
            .home
            .as_deref()
            .or_else(|| binary.parent())
            .unwrap_or(Path::new("/"));
        let home = std::path::absolute(home).map_err(RunnerError::Start)?;
        let worker = home.join(self.runtime.name()).join(self.runtime.worker_file());
        if worker.is_file() {
            Ok(home)
        } else {
            Err(RunnerError::Home(worker.display().to_string()))
        }
    }
}
