//! Starts the runner, calls it, reads what it prints.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// A user that has no files and no rights.
const NOBODY: u32 = 65_534;
/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The folder that `scriptscope install` has written, once for all tests.
pub static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let home = tempfile::tempdir().unwrap();
    let installed = Command::new(env!("CARGO_BIN_EXE_scriptscope"))
        .args(["install", "--to"])
        .arg(home.path())
        .status()
        .unwrap();
    assert!(installed.success());
    home
});

/// A running runner; killed when dropped.
pub struct Runner {
    child: Child,
    url: String,
    lines: Lines,
    errors: Lines,
    http: reqwest::Client,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// The answer to a call.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: bool,
    pub body: Value,
}

impl Answer {
    pub fn run_id(&self) -> &str {
        self.body["runId"]
            .as_str()
            .unwrap_or_else(|| panic!("no run: {self:?}"))
    }

    pub fn result(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["status"], "Success", "{self:?}");
        &self.body["result"]
    }

    pub fn message(&self) -> &str {
        self.body["error"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {self:?}"))
    }
}

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/scripts")
        .join(name)
}

/// Whether a folder holds a Node script.
fn is_node(app: &Path) -> bool {
    app.join("main.js").exists()
}

fn command(app: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    command
        .arg("runner")
        .env("SCRIPTSCOPE_APP", app)
        .env("SCRIPTSCOPE_HOME", HOME.path())
        .env("SCRIPTSCOPE_LISTEN", "127.0.0.1:0")
        .env("SCRIPTSCOPE_LOG", "scriptscope=debug")
        .env("SCRIPTSCOPE_DEPLOYMENT_ID", "deploy-1")
        .env("SCRIPTSCOPE_VERSION", "3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env(
            "SCRIPTSCOPE_RUNTIME",
            if is_node(app) { "node" } else { "python" },
        )
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn collect(stream: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let collected = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            collected
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&line).into_owned());
        }
    });
    lines
}

/// Asks until there is an answer.
pub async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client whose calls end, so that a test never hangs on an answer.
fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE * 2).build().unwrap()
}

impl Runner {
    /// A runner that is ready.
    pub async fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_in(&script(name), environment).await
    }

    /// One for the script in a folder.
    pub async fn start_in(app: &Path, environment: &[(&str, &str)]) -> Self {
        Self::begin_with(command(app, environment)).await
    }

    /// The same under a user of no rights, as in a pod: one that runs as root could reach everything.
    #[allow(dead_code)] // only some of the tests ask for it
    pub async fn start_confined(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = command(&script(name), environment);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            // Where that user can read them, wherever the tree lies.
            let app = HOME.path().join("scripts").join(name);
            fs::create_dir_all(&app).unwrap();
            for file in fs::read_dir(script(name)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), app.join(file.file_name())).unwrap();
            }
            fs::set_permissions(HOME.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let mut confined = Command::new(HOME.path().join("scriptscope"));
            let variables = command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?)));
            confined
                .arg("runner")
                .envs(variables)
                .env("SCRIPTSCOPE_APP", &app)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .uid(NOBODY)
                .gid(NOBODY);
            command = confined;
        }
        Self::begin_with(command).await
    }

    async fn begin_with(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = collect(child.stdout.take().unwrap());
        let errors = collect(child.stderr.take().unwrap());
        let address = eventually("the runner listens", || {
            let errors = errors.lock().unwrap();
            let line = errors.iter().find(|l| l.contains("Listening."))?;
            Some(line.split("address=").nth(1)?.trim().to_owned())
        })
        .await;
        let runner = Self {
            child,
            url: format!("http://{address}"),
            lines,
            errors,
            http: client(),
        };
        runner.answers("/readyz", 200).await;
        runner
    }

    #[allow(dead_code)] // the tests of the command ask for it
    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> u16 {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        response.status().as_u16()
    }

    /// Waits until a path answers with this status.
    pub async fn answers(&self, path: &str, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        while self.get(path).await != status {
            assert!(
                Instant::now() < deadline,
                "{path} never answers {status}: {:?}",
                self.errors()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Says that the record with this token is stored, as the operator does.
    pub async fn tell_stored(&self, token: &str) -> u16 {
        let request = self.http.post(format!("{}/internal/stored", self.url));
        let response = request.body(token.to_owned()).send().await.unwrap();
        response.status().as_u16()
    }

    pub async fn functions(&self) -> Value {
        let response = self
            .http
            .get(format!("{}/functions", self.url))
            .send()
            .await
            .unwrap();
        response.json().await.unwrap()
    }

    pub async fn call(&self, function: &str, arguments: Value) -> Answer {
        self.call_with(function, arguments.to_string(), &[]).await
    }

    pub async fn call_with(
        &self,
        function: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = self
            .http
            .post(format!("{}/functions/{function}", self.url))
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            retry_after: response.headers().contains_key("retry-after"),
            body: response.json().await.unwrap(),
        }
    }

    /// Any request; its answer with a body of JSON.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value, HeaderMap) {
        let method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error} in {text}"));
        (status, body, headers)
    }

    /// Calls without waiting for the end; the run's id.
    pub async fn begin(&self, function: &str, arguments: &Value) -> String {
        let url = format!("{}/functions/{function}?mode=async", self.url);
        let response = self.http.post(url).json(arguments).send().await.unwrap();
        assert_eq!(response.status(), 202);
        let location = text(&json!(response.headers()["location"].to_str().unwrap()));
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["status"], &body["statusUrl"]),
            (&json!("In Progress"), &json!(location))
        );
        assert_eq!(location, format!("/runs/{}", body["runId"].as_str().unwrap()));
        text(&body["runId"])
    }

    /// Address, such as `127.0.0.1:4711`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// A call in the background.
    pub fn calls(&self, function: &'static str, arguments: &Value) -> tokio::task::JoinHandle<(u16, Value)> {
        let request = self
            .http
            .post(format!("{}/functions/{function}", self.url))
            .json(arguments);
        tokio::spawn(async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.json().await.unwrap())
        })
    }

    /// Lines of its standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Lines of its standard error so far.
    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }

    /// Objects that it has printed so far, whatever their kind, but for its first word.
    pub fn objects(&self) -> Vec<Value> {
        let lines = self.lines();
        let Some((first, rest)) = lines.split_first() else {
            return Vec::new();
        };
        assert!(is_first_word(first), "{first}");
        rest.iter()
            .filter(|l| l.starts_with('{'))
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    /// The records of a run, in order, once it has finished.
    pub async fn records(&self, run_id: &str) -> Vec<Value> {
        eventually("the run is recorded", || {
            let all: Vec<_> = self.objects().into_iter().filter(|r| of_run(r, run_id)).collect();
            let finished = all.iter().any(|r| r["scriptscope"] == "run.finished");
            finished.then_some(all)
        })
        .await
    }

    /// The texts that a run has printed to a stream.
    pub async fn printed(&self, run_id: &str, stream: &str) -> Vec<String> {
        let records = self.records(run_id).await;
        let outputs = records
            .iter()
            .filter(|r| r["scriptscope"] == "run.output" && r["stream"] == stream);
        outputs.flat_map(texts).collect()
    }

    /// Levels and texts of the korelogger lines of a run, once it has finished, or of none.
    pub async fn logged(&self, run_id: Option<&str>) -> Vec<(String, String)> {
        if let Some(run_id) = run_id {
            self.records(run_id).await;
        }
        let attributes = self.objects().into_iter().map(|mut o| o["attributes"].take());
        attributes
            .filter(|a| a.is_object() && a["run_id"].as_str() == run_id)
            .map(|a| (text(&a["log.level"]), text(&a["log.message"])))
            .collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub async fn exit(mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the runner ends", || child.try_wait().unwrap()).await
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a line says that all that follows went through the runner.
fn is_first_word(line: &str) -> bool {
    line.starts_with(r#"{"scriptscope":"runner.started","#)
}

/// Runs a runner that can not serve: its exit code, standard output after its first word, standard error, termination
/// message.
pub fn fails_to_start(app: &Path, environment: &[(&str, &str)]) -> (Option<i32>, String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let message = folder.path().join("termination-log");
    let output = command(app, environment)
        .env("SCRIPTSCOPE_TERMINATION_LOG", &message)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let message = std::fs::read_to_string(message).unwrap_or_default();
    let stdout = text(&output.stdout);
    let (first, rest) = stdout.split_once('\n').unwrap_or_default();
    assert!(is_first_word(first), "{stdout}");
    (
        output.status.code(),
        rest.to_owned(),
        text(&output.stderr),
        message,
    )
}

pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

/// The texts of an output record.
pub fn texts(record: &Value) -> Vec<String> {
    record["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| text(&line[1]))
        .collect()
}

fn of_run(record: &Value, run_id: &str) -> bool {
    record["run_id"] == run_id || record["attributes"]["run_id"] == run_id
}

/// How often each text occurs.
pub fn counted<T: Ord>(texts: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    counts
}

pub fn none() -> Value {
    json!({})
}
