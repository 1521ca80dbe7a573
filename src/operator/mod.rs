//! The operator: controllers of both kinds, and the wiring of ingest, store and web into one process.

mod adoption;
pub mod api_logs;
mod claims;
mod client_ca;
pub mod context;
pub mod custom_script;
mod deliveries;
mod departed;
pub mod endings;
mod farewell;
pub mod health;
mod leadership;
mod origins;
pub mod pod_index;
pub mod pods;
mod retention;
pub mod script_export;
mod script_pods;
mod servers;
mod stuck_runs;
mod watches;

use std::{
    fmt::Debug,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use futures::{Stream, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{Api, Client, Resource, api::ListParams, runtime::reflector};
use nix::sys::statvfs::statvfs;
use serde::de::DeserializeOwned;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{
    adoption::{AdoptionWatch, Adoptions},
    api_logs::{ApiLogs, Collection},
    context::Context,
    custom_script::Images,
    farewell::Notices,
    health::{Part, Readiness},
    leadership::{Candidacy, Leadership},
    pod_index::PodIndex,
    pods::PodWatch,
    script_export::ExportContext,
    script_pods::ScriptPods,
    stuck_runs::Watchman,
};
use crate::{
    api::{CustomScript, ScriptExport},
    metrics::Metrics,
    store::{self, Store, StoreError},
    web,
};

/// How long the parts have for ending once they are told to.
const SHUTDOWN: Duration = Duration::from_secs(25);
/// How often to ask for CRDs that are missing, and for the store's health.
const CRD_TICK: Duration = Duration::from_secs(2);
const HEALTH_TICK: Duration = Duration::from_secs(30);
/// Changes of pods that may wait for the controller, which takes them at once.
const BUFFER: usize = 256;

/// Options of `scriptscope operator`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The database, such as `sqlite:///var/lib/scriptscope/scriptscope.db` or `postgres://user@host:5432/database`.
    #[arg(
        long,
        env = "SCRIPTSCOPE_DATABASE_URL",
        default_value = "sqlite:///var/lib/scriptscope/scriptscope.db",
        hide_env_values = true
    )]
    pub database_url: String,
    /// Folder for finished exports.
    #[arg(long, env = "SCRIPTSCOPE_DATA_DIR", default_value = "/var/lib/scriptscope")]
    pub data_dir: PathBuf,
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Name of the operator's own pod, for events.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Watch this namespace only. Default: all.
    #[arg(long, env = "SCRIPTSCOPE_WATCH_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub watch_namespace: Option<String>,
    /// Image whose entry point is this binary; puts the runner into the pods of scripts.
    #[arg(long, env = "SCRIPTSCOPE_IMAGE")]
    pub image: String,
    /// Image that Python scripts run in unless they name one.
    #[arg(
        long,
        env = "SCRIPTSCOPE_PYTHON_IMAGE",
        default_value = "docker.io/library/python:3.13-slim"
    )]
    pub python_image: String,
    /// Image that Node scripts run in unless they name one.
    #[arg(
        long,
        env = "SCRIPTSCOPE_NODE_IMAGE",
        default_value = "docker.io/library/node:24-slim"
    )]
    pub node_image: String,
    /// Service account of the agents, in the operator's namespace.
    #[arg(
        long,
        env = "SCRIPTSCOPE_AGENT_SERVICE_ACCOUNT",
        default_value = "scriptscope-agent"
    )]
    pub agent_service_account: String,
    /// How what scripts print gets here: delivered by agents on the nodes, or, where no agent may run, followed through the
    /// API server (best effort).
    #[arg(long, env = "SCRIPTSCOPE_COLLECTION", value_enum, default_value_t)]
    pub collection: Collection,
    /// Address of the dashboard and the REST API.
    #[arg(long, env = "SCRIPTSCOPE_WEB_LISTEN", default_value = "0.0.0.0:8080")]
    pub web_listen: SocketAddr,
    /// Address of the same for clients that show a certificate instead of a token, as the command `scriptscope` does through
    /// the API server's port-forward.
    #[arg(long, env = "SCRIPTSCOPE_WEB_TLS_LISTEN", default_value = "0.0.0.0:8443")]
    pub web_tls_listen: SocketAddr,
    /// Which reverse proxy in front of the dashboard is believed.
    #[command(flatten)]
    pub proxy: web::ProxyArgs,
    /// Seconds that the store may take to answer one request of a reader.
    #[arg(
        long,
        env = "SCRIPTSCOPE_QUERY_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..=25)
    )]
    pub query_seconds: u16,
    /// Address that agents deliver to.
    #[arg(long, env = "SCRIPTSCOPE_INGEST_LISTEN", default_value = "0.0.0.0:8081")]
    pub ingest_listen: SocketAddr,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "SCRIPTSCOPE_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    pub health_listen: SocketAddr,
    /// Lease, in the operator's own namespace, by which one of several operators runs the controllers. Default: this is the
    /// only operator. Several need Postgres.
    #[arg(long, env = "SCRIPTSCOPE_LEASE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub lease: Option<String>,
    /// How long data is kept.
    #[command(flatten)]
    pub retention: retention::Args,
}

/// Why the operator stopped.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The cluster can not be reached.
    #[error("the cluster can not be reached: {0}")]
    Kube(#[from] kube::Error),
    /// The settings of the retention contradict each other.
    #[error("{0}")]
    Retention(&'static str),
    /// The store can not be opened.
    #[error("--database-url: {0}")]
    Store(#[from] StoreError),
    /// The system said no.
    #[error("{what}: {error}")]
    Io {
        /// At what.
        what: String,
        /// What it said.
        error: io::Error,
    },
    /// TLS can not be set up.
    #[error("{0}")]
    Tls(#[from] web::TlsError),
    /// A part that runs as long as the operator has ended.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// A part of the operator panicked.
    #[error("a part of the operator failed: {0}")]
    Panic(String),
}

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Option<String>);

impl Scope {
    /// Every namespace.
    pub fn all() -> Self {
        Self(None)
    }

    /// One namespace.
    pub fn namespace(name: impl Into<String>) -> Self {
        Self(Some(name.into()))
    }

    /// The one namespace, if it is only one.
    pub fn watched(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Whether objects of this namespace are watched.
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.as_deref().is_none_or(|watched| watched == namespace)
    }

    /// The objects of this kind.
    pub fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }
}

/// Runs the operator until it is told to stop.
pub fn run(args: Args) -> Result<(), OperatorError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(io_error("starting the runtime"))?;
    runtime.block_on(async {
        let shutdown = stop_on_signals()?;
        let store = store::open(&args.database_url).await?;
        let client = Client::try_default().await?;
        serve(args, client, store, shutdown).await
    })
}

impl Args {
    fn images(&self) -> Images {
        Images {
            install: self.image.clone(),
            python: self.python_image.clone(),
            node: self.node_image.clone(),
        }
    }
}

/// Runs every part of the operator until `shutdown` is cancelled or one of them ends.
pub async fn serve(
    args: Args,
    client: Client,
    store: Arc<dyn Store>,
    shutdown: CancellationToken,
) -> Result<(), OperatorError> {
    let metrics = Metrics::new();
    let lease = (&*args.namespace, args.lease.as_deref());
    let candidacy = Candidacy::begin(&client, lease, args.pod_name.as_deref(), &metrics);
    let leadership = candidacy.leadership().clone();
    let result = run_parts(args, client, store.clone(), (metrics, leadership), shutdown).await;
    // Nothing that needs the leadership is under way any more.
    candidacy.end().await;
    store.close().await;
    result
}

async fn run_parts(
    args: Args,
    client: Client,
    store: Arc<dyn Store>,
    (metrics, leadership): (Metrics, Leadership),
    shutdown: CancellationToken,
) -> Result<(), OperatorError> {
    let scope = Scope(args.watch_namespace.clone());
    let limits = args.retention.limits().map_err(OperatorError::Retention)?;
    let readiness = Readiness::default();
    let kinds = readiness.expect("custom resource definitions");
    let scripts_listed = readiness.expect("list of scripts");
    let pods_listed = readiness.expect("list of pods");
    let (scripts, script_writer) = reflector::store::<CustomScript>();
    let (pods, pod_writer) = reflector::store::<Pod>();
    let all_pods_listed = Part::default();
    let (touch, touched) = mpsc::channel(BUFFER);
    let pods = ScriptPods::new(pods);
    let adoptions = Arc::new(Adoptions::new(&args.namespace, scripts.clone()));
    let index = Arc::new(PodIndex::new(scope.clone()));
    let images = args.images();
    let exports = ExportContext::new(client.clone(), store.clone(), &args.data_dir, metrics.clone());
    let (notices, to_tell) = Notices::new(metrics.clone(), scope.clone());
    let told = (&metrics, &notices);
    let routers = servers::routers(&args, &client, &store, &index, &scripts, told, &shutdown);
    let api_logs = (args.collection == Collection::Api).then(|| ApiLogs {
        client: client.clone(),
        ingest: routers.service.clone(),
        pods: pods.clone(),
        index: index.clone(),
    });
    let context = Context::new(
        client.clone(),
        store,
        metrics,
        images,
        (pods, pods_listed.clone()),
        adoptions,
        args.pod_name.clone(),
    );
    let context = Arc::new(context.collecting(args.collection).led(leadership.clone()));

    let mut parts = Parts::new(shutdown.clone());
    let losing = leadership.clone();
    parts.spawn_until_shutdown("the leadership", async move { losing.lost().await });
    let health = health::router(context.clone(), readiness);
    parts
        .listen("the health server", args.health_listen, health)
        .await?;

    // The health server answers while this waits.
    let found = wait_for_kinds(&scope, &client);
    if shutdown.run_until_cancelled(found).await.is_none() {
        return parts.finish().await;
    }
    kinds.ready();
    let watched = Watched {
        scripts: scripts.clone(),
        scripts_listed: scripts_listed.clone(),
        pods_listed: pods_listed.clone(),
        all_pods_listed: all_pods_listed.clone(),
        pod_writer,
    };
    watch_pods(&mut parts, &context, &scope, (&index, touch), watched);
    let changes = custom_script::changes(&scope, client, script_writer, scripts_listed.clone());
    let controller = custom_script::run(
        context.clone(),
        scope.clone(),
        scripts.clone(),
        changes,
        touched,
        resyncs(context.clone(), args.data_dir.clone()),
        shutdown.clone(),
    );
    parts.spawn("the controller of CustomScript", controller);

    if let Some(api_logs) = api_logs {
        let following = api_logs.run(shutdown.clone());
        parts.spawn_led("the collection through the API", &leadership, following);
    }
    let (ingest, web) = (args.ingest_listen, args.web_listen);
    parts.listen("the ingest server", ingest, routers.ingest).await?;
    parts.listen_tls(args.web_tls_listen, routers.web.clone()).await?;
    parts.listen("the web server", web, routers.web).await?;
    let authorities = client_ca::run(context.client.clone(), routers.authorities, shutdown.clone());
    parts.spawn("the reading of authorities for clients", authorities);
    let making = script_export::run(exports, scope.clone(), shutdown.clone());
    parts.spawn_led("the controller of ScriptExport", &leadership, making);

    let telling = farewell::run(context.clone(), scripts.clone(), to_tell, shutdown.clone());
    parts.spawn("the telling of runners", telling);

    let watchman = Watchman {
        context: context.clone(),
        index,
        scripts: scripts.clone(),
        notices,
    };
    let seen = [scripts_listed, pods_listed, all_pods_listed];
    let comparing = compare(context, scope, scripts, watchman, limits, seen, shutdown.clone());
    let comparing = async move { leadership.hold(Box::pin(comparing)).await };
    parts.spawn_until_shutdown("the comparison with the store", comparing);
    parts.finish().await
}

/// What the watches of pods read and fill.
struct Watched {
    scripts: reflector::Store<CustomScript>,
    scripts_listed: Part,
    pods_listed: Part,
    all_pods_listed: Part,
    pod_writer: reflector::store::Writer<Pod>,
}

/// Begins to watch the pods of managed scripts and of adopted Deployments.
fn watch_pods(
    parts: &mut Parts,
    context: &Arc<Context>,
    scope: &Scope,
    (index, touch): (&Arc<PodIndex>, mpsc::Sender<custom_script::ScriptRef>),
    watched: Watched,
) {
    let claimed = Part::default();
    let adoption = AdoptionWatch {
        client: context.client.clone(),
        store: context.store.clone(),
        index: index.clone(),
        pods: context.pods.clone(),
        adoptions: context.adoptions.clone(),
        scripts_listed: watched.scripts_listed.clone(),
        claimed: claimed.clone(),
        touch: touch.clone(),
        contact: context.contact.clone(),
    };
    let shutdown = parts.shutdown.clone();
    parts.spawn("the watch of adopted Deployments", adoption.run(shutdown.clone()));
    let watch = PodWatch {
        client: context.client.clone(),
        store: context.store.clone(),
        index: index.clone(),
        pods: context.pods.clone(),
        scripts: watched.scripts,
        scripts_listed: watched.scripts_listed,
        pods_listed: watched.pods_listed,
        claimed,
        all_listed: watched.all_pods_listed,
        touch,
        contact: context.contact.clone(),
    };
    let watch = watch.run(scope.clone(), watched.pod_writer, shutdown);
    parts.spawn("the watch of pods", watch);
}

/// What compares the store with the cluster, and so must have seen all of it.
async fn compare(
    context: Arc<Context>,
    scope: Scope,
    scripts: reflector::Store<CustomScript>,
    watchman: Watchman,
    limits: retention::Limits,
    seen: [Part; 3],
    shutdown: CancellationToken,
) {
    for part in seen {
        part.wait().await;
    }
    tokio::join!(
        custom_script::figures::run(context.clone(), scripts.clone(), shutdown.clone()),
        watchman.run(shutdown.clone()),
        departed::run(context.clone(), scope.clone(), scripts.clone(), shutdown.clone()),
        retention::run(context, scope, scripts, limits, shutdown.clone()),
    );
}

/// The parts of the process. When one ends, all do.
struct Parts {
    tasks: JoinSet<Result<&'static str, OperatorError>>,
    shutdown: CancellationToken,
}

impl Parts {
    fn new(shutdown: CancellationToken) -> Self {
        Self {
            tasks: JoinSet::new(),
            shutdown,
        }
    }

    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            part.await;
            Ok(name)
        });
    }

    /// A part that need not be told of the shutdown.
    fn spawn_until_shutdown(&mut self, name: &'static str, part: impl Future + Send + 'static) {
        let stop = self.shutdown.clone();
        self.spawn(name, async move {
            stop.run_until_cancelled(part).await;
        });
    }

    /// A part that begins when this process leads.
    fn spawn_led(
        &mut self,
        name: &'static str,
        leadership: &Leadership,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        let (stop, leadership) = (self.shutdown.clone(), leadership.clone());
        self.spawn(name, async move {
            if stop.run_until_cancelled(leadership.gained()).await.is_some() {
                leadership.hold(part).await;
            }
        });
    }

    /// Serves `router` until the shutdown; requests under way are finished.
    async fn listen(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        router: Router,
    ) -> Result<(), OperatorError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(io_error(&format!("listening on {address} for {name}")))?;
        self.spawn(name, web::serve(listener, router, self.shutdown.clone()));
        Ok(())
    }

    /// The web server for clients with certificates.
    async fn listen_tls(&mut self, address: SocketAddr, router: Router) -> Result<(), OperatorError> {
        let name = "the web server with TLS";
        let tls = web::Tls::new()?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(io_error(&format!("listening on {address} for {name}")))?;
        self.spawn(name, web::serve_tls(listener, tls, router, self.shutdown.clone()));
        Ok(())
    }

    /// Waits for the shutdown or for a part to end, then for the others.
    async fn finish(mut self) -> Result<(), OperatorError> {
        let mut result = Ok(());
        let mut deadline = None;
        loop {
            let next = async {
                tokio::select! {
                    next = self.tasks.join_next() => Some(next),
                    () = self.shutdown.cancelled(), if deadline.is_none() => None,
                    () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => Some(None),
                }
            };
            match next.await {
                None => deadline = Some(Instant::now() + SHUTDOWN),
                Some(None) => break,
                Some(Some(ended)) => {
                    let stopping = self.shutdown.is_cancelled();
                    let ended = ended.unwrap_or_else(|error| Err(OperatorError::Panic(error.to_string())));
                    match ended {
                        Ok(_) if stopping => {}
                        Ok(name) => result = Err(OperatorError::Ended(name)),
                        Err(error) if result.is_ok() => result = Err(error),
                        Err(error) => tracing::error!(%error, "Another part of the operator failed."),
                    }
                    self.shutdown.cancel();
                }
            }
        }
        self.tasks.shutdown().await;
        tracing::info!("The operator has stopped.");
        result
    }
}

/// Cancelled at the first SIGTERM or SIGINT.
fn stop_on_signals() -> Result<CancellationToken, OperatorError> {
    let token = CancellationToken::new();
    let wait = |kind| signal(kind).map_err(io_error("waiting for signals"));
    let (mut terminate, mut interrupt) = (wait(SignalKind::terminate())?, wait(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Told to stop.");
        stop.cancel();
    });
    Ok(token)
}

/// Waits until the API server knows both kinds.
async fn wait_for_kinds(scope: &Scope, client: &Client) {
    wait_for_kind::<CustomScript>(scope, client).await;
    wait_for_kind::<ScriptExport>(scope, client).await;
}

async fn wait_for_kind<K>(scope: &Scope, client: &Client)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api = scope.api::<K>(client.clone());
    let one = ListParams::default().limit(1);
    let mut said = false;
    while let Err(error) = api.list_metadata(&one).await {
        if !said {
            tracing::warn!(kind = %K::kind(&()), %error, "Waiting for the API server to serve the kind; are the custom resource definitions installed?");
            said = true;
        }
        tokio::time::sleep(CRD_TICK).await;
    }
}

/// Yields whenever every script is to be looked at.
fn resyncs(context: Arc<Context>, data_dir: PathBuf) -> impl Stream<Item = ()> + Send + 'static {
    let leadership = context.leadership.clone();
    let gained = stream::once(async move { leadership.gained().await });
    stream::select(gained, health_changes(context, data_dir))
}

/// Yields whenever the store begins or ceases to be writable; notes that and the volume's free space for the metrics.
fn health_changes(context: Arc<Context>, data_dir: PathBuf) -> impl Stream<Item = ()> + Send + 'static {
    let tick = tokio::time::interval(HEALTH_TICK);
    let begin = (context, data_dir, tick, true);
    stream::unfold(begin, async |(context, data_dir, mut tick, before)| {
        loop {
            tick.tick().await;
            if let Ok(volume) = statvfs(&data_dir) {
                let fragment = volume.fragment_size();
                let available = volume.blocks_available().saturating_mul(fragment);
                let size = volume.blocks().saturating_mul(fragment);
                context.metrics.volume(available, size);
            }
            let now = context.health.get().await.is_ok();
            context.metrics.writable(now);
            if now != before {
                return Some(((), (context, data_dir, tick, now)));
            }
        }
    })
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> OperatorError {
    let what = what.to_owned();
    move |error| OperatorError::Io { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn when_a_part_ends_all_do_and_its_name_is_told() {
        let mut parts = Parts::new(CancellationToken::new());
        let stop = parts.shutdown.clone();
        parts.spawn("the first", async {});
        parts.spawn("the second", stop.cancelled_owned());
        let error = parts.finish().await.unwrap_err();
        assert_eq!(error.to_string(), "the first has ended unexpectedly");
    }

    #[tokio::test]
    async fn a_shutdown_is_no_error() {
        let mut parts = Parts::new(CancellationToken::new());
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        parts.listen("a server", address, Router::new()).await.unwrap();
        parts.shutdown.cancel();
        assert!(parts.finish().await.is_ok());
    }

    #[test]
    fn one_namespace_or_all_are_watched() {
        assert!(Scope::all().contains("shop"));
        assert!(Scope::namespace("shop").contains("shop"));
        assert!(!Scope::namespace("shop").contains("other"));
    }
}
