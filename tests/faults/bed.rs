//! The parts of one run: an operator's ingest and store, agents, the proxy between them, and a folder for all.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    postgres::{Cluster, Stop},
    proxy::Proxy,
    testbed::{self, Process, Stored},
};

/// How long everything may take to be stored once nothing is in the way any more.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(15);
/// Size of a disk that runs full.
const SMALL_DISK: &str = "24m";

/// A disk of its own, gone with its owner.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={SMALL_DISK}"), "tmpfs"],
            at,
        )?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> io::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .arg(path)
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{program} {arguments:?} {} failed",
        path.display()
    )))
}

/// Whether small disks can be mounted and files made immutable here: as root, on a file system that can.
pub fn may_take_disks_away() -> bool {
    let Ok(folder) = tempfile::tempdir() else {
        return false;
    };
    let file = folder.path().join("file");
    let immutable = || {
        fs::write(&file, "")?;
        let mut open = File::options().append(true).open(&file)?;
        run("chattr", &["+i"], &file)?;
        let refused = open.write_all(b"x").is_err();
        run("chattr", &["-i"], &file)?;
        io::Result::Ok(refused)
    };
    Disk::mount(&folder.path().join("disk")).is_ok() && immutable().unwrap_or(false)
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Postgres clusters that nobody uses now: each run has one of its own, since it may kill it.
#[derive(Default)]
pub struct Clusters(Mutex<Vec<Cluster>>);

impl Clusters {
    async fn take(&self) -> io::Result<Cluster> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(cluster) => Ok(cluster),
            None => Ok(tokio::task::spawn_blocking(|| Cluster::start(&[])).await?),
        }
    }

    pub fn give_back(&self, cluster: Option<Cluster>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(cluster);
    }
}

/// A database, and the proxy on the way to it.
pub struct Database {
    pub cluster: Cluster,
    url: String,
    pub proxy: Proxy,
}

impl Database {
    async fn new(cluster: Cluster) -> io::Result<(Self, String)> {
        let url = tokio::task::block_in_place(|| cluster.new_database());
        let wrong = || io::Error::other("a URL without a port");
        let (head, name) = url.rsplit_once('/').ok_or_else(wrong)?;
        let (head, port) = head.rsplit_once(':').ok_or_else(wrong)?;
        let proxy = Proxy::start().await?;
        proxy.point_to(Some(SocketAddr::from((
            [127, 0, 0, 1],
            port.parse().map_err(|_| wrong())?,
        ))));
        let through = format!("{head}:{}/{name}", proxy.address.port());
        Ok((Self { cluster, url, proxy }, through))
    }

    /// Whether transactions may write, in open sessions too.
    pub fn read_only(&self, read_only: bool) {
        let value = if read_only { "on" } else { "off" };
        tokio::task::block_in_place(|| {
            let setting = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
            self.cluster.sql("postgres", &setting);
            self.cluster.sql("postgres", "SELECT pg_reload_conf()");
        });
    }

    /// Stops the server, waits, and starts it.
    pub fn restart(&self, how: Stop, pause: Duration) {
        tokio::task::block_in_place(|| {
            self.cluster.keep_running();
            self.cluster.stop(how);
            std::thread::sleep(pause);
            self.cluster.resume();
        });
    }

    /// SIGKILL of one of its processes: the server ends all others and recovers.
    pub fn kill_process(&self, choice: usize) {
        tokio::task::block_in_place(|| self.cluster.keep_running());
        let Some(id) = self.cluster.pid() else { return };
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children: Vec<i32> = children
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            // Without the one that recovers, the server gives up.
            .filter(|id| {
                let command = fs::read_to_string(format!("/proc/{id}/cmdline"));
                command.is_ok_and(|command| !command.contains("startup"))
            })
            .collect();
        if !children.is_empty() {
            let _ = kill(Pid::from_raw(children[choice % children.len()]), Signal::SIGKILL);
        }
    }
}

pub struct Bed {
    pub database: Option<Database>,
    disk: Option<Disk>,
    config: testbed::Config,
    server: Option<(Process, SocketAddr)>,
    pub agents: Vec<Option<Process>>,
    pub proxy: Proxy,
    /// Faults other than the proxy's.
    pub faults: u64,
    /// What readers have seen: script and id of a line, and its text.
    pub seen: BTreeMap<(String, String), String>,
    client: reqwest::Client,
    folder: TempDir,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.make_writable();
        self.server = None;
        self.disk = None;
    }
}

impl Bed {
    /// Starts the server and an agent.
    pub async fn start(
        pods: Vec<testbed::Pod>,
        small_disk: bool,
        backend: Backend,
        clusters: &Clusters,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let disk = small_disk.then(|| Disk::mount(&data)).transpose()?;
        fs::create_dir_all(folder.path().join("logs"))?;
        let (database, store) = match backend {
            Backend::Sqlite => (None, format!("sqlite://{}/store.db", data.display())),
            Backend::Postgres => {
                let (database, url) = Database::new(clusters.take().await?).await?;
                (Some(database), url)
            }
        };
        let mut bed = Self {
            database,
            disk,
            config: testbed::Config {
                store,
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                pods,
            },
            server: None,
            agents: Vec::new(),
            proxy: Proxy::start().await?,
            faults: 0,
            seen: BTreeMap::new(),
            client: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .map_err(io::Error::other)?,
            folder,
        };
        bed.start_server().await;
        bed.start_agent(0)?;
        Ok(bed)
    }

    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// URL of the store, with no proxy on the way.
    pub fn direct_store(&self) -> String {
        self.database
            .as_ref()
            .map_or(&self.config.store, |database| &database.url)
            .clone()
    }

    /// The cluster, when the bed is done with.
    pub fn take_cluster(&mut self) -> Option<Cluster> {
        self.database.take().map(|database| database.cluster)
    }

    fn scripts(&self) -> Vec<String> {
        let mut scripts: Vec<_> = self.config.pods.iter().map(|pod| pod.script.clone()).collect();
        scripts.dedup();
        scripts
    }

    /// What the programs said.
    pub fn diary(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!(
                "-- {name}\n{}",
                lines[lines.len().saturating_sub(30)..].join("\n")
            )
        };
        format!("{}\n{}", tail("server"), tail("agent"))
    }

    fn diary_file(&self, name: &str) -> io::Result<File> {
        File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(name))
    }

    // --- the server

    /// Starts the server unless it runs; says whether it runs now.
    pub async fn start_server(&mut self) -> bool {
        if self.server.is_some() {
            return true;
        }
        let mut command = testbed::server_command(&self.config);
        if let Ok(file) = self.diary_file("server") {
            command.stderr(file);
        }
        let started = tokio::task::spawn_blocking(move || {
            let mut process = Process(command.spawn().ok()?);
            let address = testbed::address_of(&mut process.0)?;
            Some((process, address))
        });
        self.server = started.await.ok().flatten();
        self.proxy
            .point_to(self.server.as_ref().map(|(_, address)| *address));
        self.server.is_some()
    }

    /// SIGKILL. At times a reader has looked just before.
    pub async fn kill_server(&mut self, look: bool) {
        if look {
            self.look().await;
        }
        self.proxy.point_to(None);
        if self.server.take().is_some() {
            self.faults += 1;
        }
    }

    pub fn signal_server(&self, signal: Signal) {
        if let Some((process, _)) = &self.server {
            send(process, signal);
        }
    }

    /// Remembers what a reader sees now.
    async fn look(&mut self) {
        for script in self.scripts() {
            let Some(Value::Array(lines)) = self.get(&format!("lines/{script}")).await else {
                continue;
            };
            for line in lines {
                if let (Some(id), Some(text)) = (line["logId"].as_str(), line["message"].as_str()) {
                    self.seen.insert((script.clone(), id.to_owned()), text.to_owned());
                }
            }
        }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let (_, address) = self.server.as_ref()?;
        let request = self.client.get(format!("http://{address}/{path}"));
        let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// Waits until each script has stored as many lines and ended runs; says what is stored in the end.
    pub async fn wait_for(&self, expected: &BTreeMap<String, Stored>) -> BTreeMap<String, Stored> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut stored = BTreeMap::new();
            for script in expected.keys() {
                let found = self.get(&format!("stored/{script}")).await;
                let found = found.and_then(|value| serde_json::from_value(value).ok());
                stored.insert(script.clone(), found.unwrap_or_default());
            }
            let all = expected.iter().all(|(script, wanted)| {
                let found: Stored = stored[script];
                found.lines >= wanted.lines && found.ended >= wanted.ended && found.begun >= wanted.begun
            });
            if all || Instant::now() > deadline {
                return stored;
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until a line is among the newest of a script.
    pub async fn wait_for_line(&self, script: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let has = |lines: Value| {
            lines
                .as_array()
                .is_some_and(|all| all.iter().any(|line| line["message"] == text))
        };
        while !self.get(&format!("lines/{script}")).await.is_some_and(has) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }

    // --- agents

    pub fn start_agent(&mut self, at: usize) -> io::Result<()> {
        while self.agents.len() <= at {
            self.agents.push(None);
        }
        if self.agents[at].is_none() {
            let diary = self.diary_file("agent")?;
            let mut command = testbed::agent_command(self.proxy.address, &self.logs(), self.folder.path());
            command.env("SCRIPTSCOPE_POLL_MILLIS", "10").env("NO_COLOR", "1");
            command.stdout(diary.try_clone()?).stderr(diary);
            self.agents[at] = Some(Process(command.spawn()?));
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill_agent(&mut self, at: usize) {
        if self.agents.get_mut(at).and_then(Option::take).is_some() {
            self.faults += 1;
        }
    }

    pub fn signal_agent(&self, at: usize, signal: Signal) {
        if let Some(Some(process)) = self.agents.get(at) {
            send(process, signal);
        }
    }

    pub fn agent_id(&self) -> Option<u32> {
        self.agents.first()?.as_ref().map(|process| process.0.id())
    }

    /// Tells all agents to stop, and waits until they have.
    pub async fn stop_agents(&mut self) {
        for agent in self.agents.iter().flatten() {
            send(agent, Signal::SIGTERM);
        }
        let deadline = Instant::now() + PATIENCE;
        for mut agent in self.agents.drain(..).flatten() {
            while matches!(agent.0.try_wait(), Ok(None)) {
                assert!(Instant::now() < deadline, "an agent does not stop");
                sleep(LOOK).await;
            }
        }
    }

    // --- the disk

    /// Takes all the space that is left, but for `slack` bytes.
    pub fn fill_disk(&mut self, slack: u64) {
        let filler = self.data().join("filler");
        if let Ok(mut file) = File::create(&filler) {
            let block = vec![0_u8; 64 << 10];
            while file.write_all(&block).is_ok() {}
            let length = file.metadata().map_or(0, |m| m.len());
            let _ = file.set_len(length.saturating_sub(slack));
            self.faults += 1;
        }
    }

    pub fn free_disk(&self) {
        let _ = fs::remove_file(self.data().join("filler"));
    }

    /// The database's files can not be written any more, not even by who has them open.
    pub fn make_read_only(&mut self) {
        self.faults += 1;
        if let Some(database) = &self.database {
            return database.read_only(true);
        }
        for name in ["store.db", "store.db-wal"] {
            let _ = run("chattr", &["+i"], &self.data().join(name));
        }
    }

    pub fn make_writable(&self) {
        for name in ["store.db", "store.db-wal"] {
            let path = self.data().join(name);
            if path.exists() {
                let _ = run("chattr", &["-i"], &path);
            }
        }
    }

    // --- the end

    /// Nothing is in the way any more.
    pub async fn heal(&mut self) -> io::Result<()> {
        self.free_disk();
        self.make_writable();
        if let Some(database) = &self.database {
            self.faults += database.proxy.heal();
            tokio::task::block_in_place(|| database.cluster.recover());
        }
        self.signal_server(Signal::SIGCONT);
        for at in 0..self.agents.len() {
            self.signal_agent(at, Signal::SIGCONT);
        }
        self.faults += self.proxy.heal();
        let deadline = Instant::now() + PATIENCE;
        while !self.start_server().await {
            if Instant::now() > deadline {
                return Err(io::Error::other("the server does not start any more"));
            }
        }
        self.start_agent(0)
    }

    /// Ends the server, by SIGKILL: there is no better moment to test that what it said is true.
    pub async fn end(&mut self) {
        self.stop_agents().await;
        self.look().await;
        self.server = None;
    }
}

fn send(process: &Process, signal: Signal) {
    if let Ok(id) = i32::try_from(process.0.id()) {
        let _ = kill(Pid::from_raw(id), signal);
    }
}
