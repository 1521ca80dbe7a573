//! `scriptscope dev DIR`: a script's author's loop without a cluster.
//!
//! The runner, the ingest, the store and the web server are those of the cluster; here they are one process and its
//! runners. [`deploy`] makes versions of what is saved, [`versions`] looks after their runners, [`pump`] stores what
//! these print, [`calls`] gives calls to the version that serves, [`site`] is the dashboard's door.

mod calls;
mod deploy;
mod environment;
mod framing;
mod hints;
mod instance;
mod interpreter;
mod packages;
mod print;
mod project;
mod pump;
mod recovery;
mod sandbox;
mod shared;
mod site;
mod versions;
mod watch;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch as channel},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    calls::Calls,
    deploy::{DeployError, Deployer},
    environment::EnvironmentError,
    print::Printer,
    project::{Project, ProjectError},
    sandbox::{NoSandbox, Sandbox},
    shared::{Farewells, NAMESPACE, NoAgents, Order, Settings, Shared},
    site::{OneScript, Owner},
    watch::Watcher,
};
use crate::{
    cli::output::plain_lines,
    ingest::Ingest,
    loopback,
    metrics::Metrics,
    model::ScriptKey,
    runner::{InstallError, Runtime, install_workers},
    store::{self, StoreError},
    web::{self, WebState},
};

/// Ports where none are asked for and these are free.
const PORTS: [u16; 2] = [4780, 4781];
/// How long runs in progress have once Ctrl-C was pressed.
const GRACE: Duration = Duration::from_secs(5);
/// How long connections may go on after the last run has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long runners that were killed may take.
const KILLED: Duration = Duration::from_secs(5);
/// The exit code of a command that Ctrl-C has ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Options of `scriptscope dev`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Folder of the script, with main.py or main.js at its root.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Language of the script. Default: by whether there is a main.py or a main.js.
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    /// Port of the dashboard and the REST API on this machine. Default: 4780, or any that is free.
    #[arg(long)]
    port: Option<u16>,
    /// Port on which functions are called. Default: 4781, or any that is free.
    #[arg(long, value_name = "PORT")]
    function_port: Option<u16>,
    /// Keep runs, logs and version numbers in this SQLite file. Default: they go when the command ends.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// An environment variable of the script; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// A file with lines KEY=VALUE; --env wins over it.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Seconds that a run may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Runs at once, each in a worker process of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// Go on with what is there now, whatever is saved.
    #[arg(long)]
    no_reload: bool,
    /// Open the dashboard in the browser.
    #[arg(long)]
    open: bool,
    /// Run the script in gVisor, as the cluster does; needs runsc.
    #[arg(long)]
    sandbox: bool,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Sandbox(#[from] NoSandbox),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Deploy(#[from] DeployError),
    #[error("{option} {port}: {source}; choose another one, or 0 for any that is free")]
    Port {
        option: &'static str,
        port: u16,
        source: io::Error,
    },
    #[error("--db: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Setup(#[from] io::Error),
    #[error("the HTTP client could not be set up: {0}")]
    Client(#[from] reqwest::Error),
    #[error("the script's object could not be made: {0}")]
    Object(#[from] serde_json::Error),
}

/// Serves until told to stop.
pub fn run(args: &Args) -> ExitCode {
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DevError::from)
        .and_then(|runtime| {
            let done = runtime.block_on(serve(args));
            runtime.shutdown_background();
            done
        });
    done.unwrap_or_else(|error| {
        let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        anstream::eprintln!("{red}error:{red:#} {}", plain_lines(&error.to_string()));
        ExitCode::FAILURE
    })
}

async fn serve(args: &Args) -> Result<ExitCode, DevError> {
    let mut signals = Signals::new()?;
    let scratch = tempfile::Builder::new().prefix("scriptscope-dev-").tempdir()?;
    let site = listen("--port", args.port, PORTS[0]).await?;
    let functions = listen("--function-port", args.function_port, PORTS[1]).await?;
    let ports = [site.local_addr()?.port(), functions.local_addr()?.port()];
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let shared = Arc::new(shared(args, &scratch, ports[1]).await?);
    install_workers(&shared.scratch.join(instance::HOME))?;
    recovery::end_leftovers(&*shared.store, &shared.script).await?;

    let object = Arc::new(OneScript::new(&shared.script, shared.project.runtime)?);
    let closing = CancellationToken::new();
    let state = WebState::new(
        Arc::clone(&shared.store),
        Arc::new(Owner),
        Arc::clone(&object) as Arc<dyn web::ScriptObjects>,
        &shared.scratch,
        Metrics::new(),
    );
    let state = state.until(closing.clone());
    let servers = TaskTracker::new();
    servers.spawn(web::serve(site, site::router(state, ports[0]), closing.clone()));
    let router = calls::router(Arc::clone(&shared.calls));
    servers.spawn(web::serve(functions, router, closing.clone()));
    servers.close();
    welcome(&shared, &url(ports[0])).await;
    if args.open {
        loopback::open(&url(ports[0]));
    }

    let saved = (!args.no_reload).then(|| watch_project(&shared.project));
    let deployer = Deployer::new(Arc::clone(&shared), object, url(ports[1]));
    let outcome = tokio::select! {
        Err(error) = deployer.run(saved) => Err(error),
        () = signals.next() => Ok(()),
    };
    let code = end(&shared, &mut signals).await;
    closing.cancel();
    // Whoever holds a connection open without a word is left.
    let _ = timeout(LAST_ANSWERS, servers.wait()).await;
    recovery::end_deployments(&*shared.store, &shared.script, "scriptscope dev ended").await?;
    shared.store.close().await;
    shared.printer.flush().await;
    outcome?;
    scratch.close()?;
    Ok(code)
}

/// Whoever waits for a save is told.
fn watch_project(project: &Project) -> Arc<Notify> {
    let saved = Arc::new(Notify::new());
    let (mut watcher, told) = (Watcher::new(project), Arc::clone(&saved));
    tokio::spawn(async move {
        loop {
            watcher.changed().await;
            told.notify_one();
        }
    });
    saved
}

async fn shared(args: &Args, scratch: &TempDir, function_port: u16) -> Result<Shared, DevError> {
    let database = args.db.as_deref().map(std::path::absolute).transpose()?;
    let folder = scratch.path().to_owned();
    let project = Project::find(&args.folder, args.runtime, database.as_deref())?;
    let settings = Settings {
        runtime: project.runtime,
        interpreter: interpreter::find(project.runtime, &project.folder).await,
        timeout: args.timeout,
        concurrency: args.concurrency,
        environment: environment::variables(&args.env, &args.env_file)?,
        sandbox: args.sandbox.then(|| Sandbox::find(&folder)).transpose()?,
    };
    let store = open_store(database.as_deref(), &folder).await?;
    let farewells = Arc::new(Farewells::default());
    let ingest = Ingest::new(
        Arc::clone(&store),
        Arc::new(NoAgents),
        Arc::new(NoAgents),
        Metrics::new(),
    );
    Ok(Shared {
        script: ScriptKey::new(NAMESPACE, &*project.name),
        project,
        settings,
        scratch: folder,
        store,
        ingest: Arc::new(ingest.with_listener(Arc::clone(&farewells) as Arc<_>)),
        farewells,
        calls: Arc::new(Calls::new(function_port)),
        printer: Printer::start(),
        // Its calls go to this machine alone.
        http: reqwest::Client::builder().no_proxy().build()?,
        order: channel::Sender::new(Order::Serve),
        supervisors: TaskTracker::new(),
    })
}

async fn open_store(database: Option<&Path>, scratch: &Path) -> Result<Arc<dyn store::Store>, StoreError> {
    let path = database.map_or_else(|| scratch.join("store.db"), Path::to_owned);
    Ok(Arc::new(store::sqlite::SqliteStore::open(&path).await?))
}

/// Listens on this machine's own address: on the port that is asked for, or else on the usual one if it is free.
async fn listen(option: &'static str, asked: Option<u16>, usual: u16) -> Result<TcpListener, DevError> {
    let bind = |port: u16| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let port = asked.unwrap_or(usual);
    let listener = match bind(port).await {
        Err(_) if asked.is_none() => bind(0).await,
        result => result,
    };
    listener.map_err(|source| DevError::Port { option, port, source })
}

async fn welcome(shared: &Shared, dashboard: &str) {
    let project = &shared.project;
    let sandbox = shared.settings.sandbox.as_ref().map_or("", |_| ", in gVisor");
    let text = format!(
        "{} ({}{sandbox}): {}",
        project.name,
        project.runtime.name(),
        project.folder.display()
    );
    shared.printer.say(plain_lines(&text)).await;
    shared.printer.say(format!("Dashboard: {dashboard}/")).await;
}

/// Ends runners: their runs may end within [`GRACE`], are then cut, and at a second signal everything ends at once.
async fn end(shared: &Shared, signals: &mut Signals) -> ExitCode {
    shared.calls.close();
    shared.supervisors.close();
    shared.order.send_replace(Order::Drain);
    let all = shared.supervisors.wait();
    tokio::pin!(all);
    let quick = tokio::select! {
        () = &mut all => return ExitCode::SUCCESS,
        () = sleep(Duration::from_millis(300)) => false,
        () = signals.next() => true,
    };
    if !quick {
        let text = format!(
            "Ending: runs in progress have {} s; Ctrl-C again ends them at once.",
            GRACE.as_secs()
        );
        shared.printer.aside(&text).await;
        tokio::select! {
            () = &mut all => return ExitCode::SUCCESS,
            () = sleep(GRACE) => {
                shared.order.send_replace(Order::Cut);
                tokio::select! {
                    () = &mut all => return ExitCode::SUCCESS,
                    () = signals.next() => {}
                }
            }
            () = signals.next() => {}
        }
    }
    shared.order.send_replace(Order::Kill);
    let _ = timeout(KILLED, all).await;
    ExitCode::from(INTERRUPTED)
}

/// Ctrl-C, a request to end, and the end of the terminal.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
