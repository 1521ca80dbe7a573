//! A Postgres cluster of the test program's own: made in a temporary folder, gone when the program ends, however it
//! ends.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that can not start it has failed

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Stops the cluster and removes its folder (argument 1) when it is told to end, as it is when its parent dies.
const GUARDIAN: &str = r#"
cd /
end() {
  pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
  while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
  rm -rf "$1"
  exit 0
}
trap 'end "$1"' TERM INT HUP
echo ready
while :; do sleep 1000 & wait $!; done
"#;

/// How to stop a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Connections are cut, transactions rolled back, everything written.
    Fast,
    /// As after a crash: the next start recovers.
    Immediate,
}

/// A running cluster.
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    databases: AtomicU32,
}

impl Cluster {
    /// The cluster that all tests of this program share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// Makes and starts a cluster with further settings (`name=value`).
    pub fn start(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("scriptscope-postgres-")
            .tempdir()
            .unwrap()
            .keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            run(Command::new("chown").arg("nobody").arg(&folder));
        }
        guard(&folder);
        let data = folder.join("data");
        let mut initdb = unprivileged(&program("initdb"));
        initdb
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .arg("-D")
            .arg(&data);
        run(&mut initdb);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut text = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nmax_connections = 300\n",
            folder.display()
        );
        for setting in settings {
            text.push_str(setting);
            text.push('\n');
        }
        let file = data.join("postgresql.auto.conf");
        fs::write(&file, text).unwrap();
        let cluster = Self {
            folder,
            port,
            databases: AtomicU32::new(0),
        };
        cluster.resume();
        cluster
    }

    /// Starts it again after a stop.
    pub fn resume(&self) {
        run(self
            .control("start")
            .arg("-w")
            .arg("-l")
            .arg(self.folder.join("log")));
    }

    /// Stops it.
    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self.control("stop").args(["-w", "-m", mode]));
    }

    /// Number of the server's main process, for those who want to kill it; none where it has ended.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    /// Starts it again where it has ended: killed in a bad moment, the main process gives up.
    pub fn keep_running(&self) {
        if self.pid().is_none() {
            self.resume();
        }
    }

    /// Waits until it takes connections, started again if need be.
    pub fn recover(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let is_ready = || {
            let mut ask = unprivileged(&program("pg_isready"));
            ask.arg("--quiet")
                .args(["-p", &self.port.to_string()])
                .arg("-h")
                .arg(&self.folder);
            ask.status().is_ok_and(|status| status.success())
        };
        self.keep_running();
        while !is_ready() {
            assert!(Instant::now() < deadline, "Postgres does not come back");
            std::thread::sleep(Duration::from_millis(50));
            self.keep_running();
        }
    }

    /// The URL of a new, empty database.
    pub fn new_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs a statement in a database, given by its name; what it prints.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let mut psql = unprivileged(&program("psql"));
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
        ])
        .args(["-p", &self.port.to_string(), "-d", database, "-c", statement])
        .arg("-h")
        .arg(&self.folder);
        run(&mut psql)
    }

    /// Dumps a database, given by its name, into a file.
    pub fn dump(&self, database: &str) -> PathBuf {
        let file = self.folder.join(format!("{database}.dump"));
        let mut dump = unprivileged(&program("pg_dump"));
        dump.args(["--format=custom", "-U", "postgres", "-p", &self.port.to_string()])
            .arg("-h")
            .arg(&self.folder)
            .arg("-f")
            .arg(&file)
            .arg(database);
        run(&mut dump);
        file
    }

    /// Puts a dump in the place of what a database has.
    pub fn restore(&self, database: &str, file: &Path) {
        let mut restore = unprivileged(&program("pg_restore"));
        restore
            .args(["--clean", "--if-exists", "--exit-on-error", "-U", "postgres"])
            .args(["-p", &self.port.to_string(), "-d", database])
            .arg("-h")
            .arg(&self.folder)
            .arg(file);
        run(&mut restore);
    }

    fn control(&self, verb: &str) -> Command {
        let mut command = unprivileged(&program("pg_ctl"));
        command
            .arg(verb)
            .arg("-s")
            .arg("-D")
            .arg(self.folder.join("data"));
        command
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// A program of the newest Postgres that is installed.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((
                path.file_name()?.to_str()?.parse().ok()?,
                path.join("bin").join(name),
            ))
        })
        .collect();
    found.sort();
    let (_, path) = found.pop().expect("Postgres is not installed: make deps-test");
    path
}

/// A command as a user as whom Postgres is willing to run.
fn unprivileged(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// What a command prints; it must succeed. Its output goes through files: a server that it starts keeps them open.
fn run(command: &mut Command) -> String {
    let mut output = tempfile::tempfile().unwrap();
    let mut errors = tempfile::tempfile().unwrap();
    let status = command
        .stdout(output.try_clone().unwrap())
        .stderr(errors.try_clone().unwrap())
        .status()
        .unwrap();
    let read = |file: &mut fs::File| {
        use std::io::{Read, Seek};
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    let (output, errors) = (read(&mut output), read(&mut errors));
    assert!(status.success(), "{command:?}: {status}\n{output}\n{errors}");
    output
}

/// Starts the guardian of a folder, from a thread that lives as long as the program: the signal at a parent's death is
/// sent when the thread that started the child ends.
fn guard(folder: &Path) {
    let folder = folder.to_owned();
    let (ready, wait) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if is_root() {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        }
        let mut child = command
            .args(["--", "sh", "-c", GUARDIAN, "sh"])
            .arg(&folder)
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.take().unwrap()),
            &mut line,
        )
        .unwrap();
        ready.send(()).unwrap();
        let _ = child.wait();
    });
    wait.recv().unwrap();
}
