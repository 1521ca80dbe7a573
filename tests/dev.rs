//! `scriptscope dev`: the real command, called over HTTP, its folder edited, its terminal read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(60);
const MAIN: &str = r#"
import time
import korelogger

def greet(name: str):
    korelogger.info("greeting " + name)
    print("printed\x1b[2J for", name)
    return "hello, " + name

def fail():
    raise ValueError("no such account\nsecond line")

def nap(seconds: float):
    print("before the nap", flush=True)
    time.sleep(seconds)
    print("after the nap")
    return seconds
"#;

/// A folder with a script.
fn project(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::Builder::new().prefix("hello").tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The command at work.
struct Dev {
    child: Child,
    output: Arc<Mutex<String>>,
    site: String,
    functions: String,
    http: reqwest::Client,
    scratch: TempDir,
}

impl Dev {
    fn start(project: &Path, arguments: &[&str]) -> Self {
        Self::start_with(project, arguments, env::var_os("PATH").unwrap())
    }

    fn start_with(project: &Path, arguments: &[&str], path: OsString) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_scriptscope"))
            .arg("dev")
            .arg(project)
            .args(["--port=0", "--function-port=0"])
            .args(arguments)
            .env("PATH", path)
            .env("TMPDIR", scratch.path())
            .env("XDG_CACHE_HOME", scratch.path().join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let errors = child.stderr.take().unwrap();
        read(child.stdout.take().unwrap(), &output);
        read(errors, &output);
        let mut dev = Self {
            child,
            output,
            site: String::new(),
            functions: String::new(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            scratch,
        };
        dev.site = dev.says_address("Dashboard: ");
        dev
    }

    /// The address in the line that begins so.
    fn says_address(&mut self, before: &str) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            let found = self
                .said()
                .lines()
                .find_map(|line| Some(line.strip_prefix(before)?.to_owned()));
            if let Some(found) = found {
                return found.trim_end_matches('/').to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < limit, "{}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until version 1 is ready.
    async fn ready(mut self) -> Self {
        let line = self
            .until(|dev| {
                dev.said()
                    .lines()
                    .find(|l| l.starts_with("curl "))
                    .map(str::to_owned)
            })
            .await;
        let url = line.split(' ').next_back().unwrap();
        self.functions = url.split("/functions/").next().unwrap().to_owned();
        self
    }

    fn said(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < limit, "{}", self.said());
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn says(&self, text: &str) {
        self.until(|dev| dev.said().contains(text).then_some(())).await;
    }

    async fn call(&self, function: &str, arguments: Value) -> Value {
        let (status, body) = self.try_call(function, arguments).await;
        assert!(body["runId"].is_string(), "{status} {body}");
        body
    }

    async fn try_call(&self, function: &str, arguments: Value) -> (u16, Value) {
        let url = format!("{}/functions/{function}", self.functions);
        let answer = self.http.post(url).json(&arguments).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn api(&self, path: &str) -> Value {
        let scripts = self.get("/api/v1/scripts").await;
        let name = scripts["items"][0]["name"].as_str().unwrap().to_owned();
        self.get(&format!("/api/v1/namespaces/dev/scripts/{name}{path}"))
            .await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self
            .http
            .get(format!("{}{path}", self.site))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// Rows, once they are as many as this.
    async fn rows(&self, path: &str, count: usize) -> Vec<Value> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let rows = self.api(path).await["items"].as_array().unwrap().clone();
            if rows.len() >= count && rows.iter().all(|row| row["status"] != "In Progress") {
                return rows;
            }
            assert!(Instant::now() < limit, "{rows:?} {}", self.said());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn ended(mut self) -> (ExitStatus, String) {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Both readers end with the process.
                while Arc::strong_count(&self.output) > 1 && Instant::now() < limit {
                    thread::sleep(Duration::from_millis(5));
                }
                return (status, self.said());
            }
            assert!(Instant::now() < limit, "{}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ctrl-C, and the end of it; nothing is left behind.
    fn interrupted(self) -> String {
        self.signal(Signal::SIGINT);
        let scratch = self.scratch.path().to_owned();
        let (status, said) = self.ended_in(&scratch);
        assert!(status.success(), "{status} {said}");
        said
    }

    fn ended_in(mut self, scratch: &Path) -> (ExitStatus, String) {
        let kept = std::mem::replace(&mut self.scratch, tempfile::tempdir().unwrap());
        let ended = self.ended();
        let left: Vec<PathBuf> = fs::read_dir(scratch)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let left: Vec<_> = left.iter().filter(|path| !path.ends_with("cache")).collect();
        assert!(left.is_empty(), "{left:?}");
        drop(kept);
        ended
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(pipe: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            output.lock().unwrap().push_str(&format!("{line}\n"));
        }
    });
}

fn texts(rows: &[Value], key: &str) -> Vec<String> {
    rows.iter()
        .map(|row| row[key].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_run_is_answered_shown_and_stored() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Dev::start(folder.path(), &["--env", "PLACE=here"]).ready().await;
    let answer = dev.call("greet", json!({"name": "ada"})).await;
    assert_eq!(
        (&answer["status"], &answer["result"]),
        (&json!("Success"), &json!("hello, ada"))
    );
    let failed = dev.call("fail", json!({})).await;

    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "function"), ["fail", "greet"]);
    assert_eq!(runs[1]["runId"], answer["runId"]);
    let lines = dev.rows("/logs", 2).await;
    assert_eq!(
        texts(&lines, "message"),
        ["printed\u{1b}[2J for ada", "greeting ada"]
    );
    assert_eq!(texts(&lines, "level"), ["Stdout", "Info"]);
    let figures = dev.api("").await;
    assert_eq!(
        (&figures["phase"], &figures["version"]),
        (&json!("Deployed"), &json!(1))
    );

    let run_id = failed["runId"].as_str().unwrap();
    dev.says(run_id).await;
    let said = dev.interrupted();
    assert!(said.contains("  Info     greeting ada\n"), "{said}");
    assert!(said.contains("  Stdout   printed\\u{1b}[2J for ada\n"), "{said}");
    assert!(said.contains("  Success  greet  v1  "), "{said}");
    let line = said.lines().find(|line| line.contains(run_id)).unwrap();
    assert!(
        line.contains("  Failed   fail  v1  ") && line.ends_with("  ValueError: no such account"),
        "{line}"
    );
    // No terminal, no colours; and what the script prints moves no cursor.
    assert!(!said.contains('\u{1b}'), "{said}");
    assert!(
        said.contains(r#"curl --json '{"name":"name"}' http://127.0.0.1:"#),
        "{said}"
    );
}

#[tokio::test]
async fn a_save_is_the_next_version_and_a_broken_one_takes_nothing_away() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Dev::start(folder.path(), &[]).ready().await;
    let main = folder.path().join("main.py");
    fs::write(&main, MAIN.replace("hello, ", "hi, ")).unwrap();
    dev.says("Version 2 is ready").await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hi, ada"
    );

    // In a folder that is new, too.
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("lib/words.py"), "def oops(:").unwrap();
    fs::write(&main, format!("from lib import words\n{MAIN}")).unwrap();
    dev.says("version 2 still serves").await;
    dev.says("SyntaxError in lib/words.py, line 1").await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hi, ada"
    );

    fs::write(folder.path().join("lib/words.py"), "WORD = 'hey, '").unwrap();
    let served = |versions: &Value| {
        let items = versions["items"].as_array().unwrap().clone();
        items
            .iter()
            .find(|item| item["state"] == "Deployed" && item["version"].as_i64() > Some(2))
            .cloned()
    };
    let limit = Instant::now() + PATIENCE;
    while served(&dev.api("/deployments").await).is_none() {
        assert!(Instant::now() < limit, "{}", dev.said());
        sleep(Duration::from_millis(10)).await;
    }
    let items = dev.api("/deployments").await["items"].as_array().unwrap().clone();
    let failed = items.iter().find(|item| item["state"] == "Failed").unwrap();
    assert!(
        failed["reason"].as_str().unwrap().contains("SyntaxError"),
        "{failed}"
    );
    let numbers: Vec<i64> = items
        .iter()
        .rev()
        .map(|item| item["version"].as_i64().unwrap())
        .collect();
    assert_eq!(
        numbers,
        (1..=i64::try_from(numbers.len()).unwrap()).collect::<Vec<_>>()
    );
    dev.call("greet", json!({"name": "ada"})).await;
    let runs = dev.rows("/runs", 3).await;
    let versions: Vec<&Value> = runs.iter().map(|run| &run["deploymentVersion"]).collect();
    assert!(
        versions[0].as_i64() > Some(2) && versions[1..] == [&json!(2), &json!(2)],
        "{versions:?}"
    );
    // Neither was anything written into the author's folder, nor is it what editors leave there a save.
    let before = dev.api("/deployments").await["items"].as_array().unwrap().len();
    fs::write(folder.path().join(".main.py.swp"), "x").unwrap();
    fs::write(&main, fs::read_to_string(&main).unwrap()).unwrap();
    let names: Vec<OsString> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    dev.call("greet", json!({"name": "ada"})).await;
    assert_eq!(
        dev.api("/deployments").await["items"].as_array().unwrap().len(),
        before
    );
    dev.interrupted();
}

#[tokio::test]
async fn a_script_that_is_broken_from_the_start_is_served_once_it_is_mended() {
    let folder = project(&[("main.js", "exports.greet = (")]);
    let mut dev = Dev::start(folder.path(), &[]);
    dev.says("Version 1 can not be used; it is tried again with the next save.")
        .await;
    fs::write(
        folder.path().join("main.js"),
        "exports.greet = ({ name }) => `hello, ${name}`;",
    )
    .unwrap();
    dev = dev.ready().await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hello, ada"
    );
    dev.interrupted();
}

#[tokio::test]
async fn calls_never_fail_while_versions_change() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Arc::new(Dev::start(folder.path(), &["--concurrency=2"]).ready().await);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|caller| {
            let (dev, stop) = (Arc::clone(&dev), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let (status, body) = dev.try_call("nap", json!({"seconds": 0.02})).await;
                    assert_eq!(status, 200, "{caller}: {body}");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for version in 2..=4 {
        fs::write(folder.path().join("main.py"), format!("{MAIN}\n# {version}\n")).unwrap();
        dev.says(&format!("Version {version} is ready")).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.unwrap();
    }
    let rows = dev.rows("/runs?limit=1000", calls).await;
    assert_eq!(rows.len(), calls);
    assert!(rows.iter().all(|run| run["status"] == "Success"));
    Arc::into_inner(dev).unwrap().interrupted();
}

#[tokio::test]
async fn a_database_goes_on_counting_and_no_run_stays_in_progress() {
    let folder = project(&[("main.py", MAIN)]);
    let kept = tempfile::tempdir().unwrap();
    let database = kept.path().join("runs.db");
    let arguments = ["--db", database.to_str().unwrap()];
    let dev = Dev::start(folder.path(), &arguments).ready().await;
    dev.call("greet", json!({"name": "ada"})).await;
    dev.interrupted();

    let dev = Dev::start(folder.path(), &arguments).ready().await;
    dev.says("Version 2 is ready").await;
    let url = format!("{}/functions/nap?mode=async", dev.functions);
    let body = json!({"seconds": 60});
    assert_eq!(dev.http.post(url).json(&body).send().await.unwrap().status(), 202);
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().len() < 2 {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    dev.signal(Signal::SIGKILL);
    dev.ended();

    let dev = Dev::start(folder.path(), &arguments).ready().await;
    dev.says("Version 3 is ready").await;
    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "reason"), ["LostContact", ""]);
    let deployments = dev.api("/deployments").await;
    let states = texts(deployments["items"].as_array().unwrap(), "state");
    assert_eq!(states, ["Deployed", "Undeployed", "Undeployed"]);
    dev.interrupted();
}

#[tokio::test]
async fn ctrl_c_lets_runs_end_and_loses_no_line() {
    let folder = project(&[("main.py", MAIN)]);
    let kept = tempfile::tempdir().unwrap();
    let database = kept.path().join("runs.db");
    let arguments = ["--db", database.to_str().unwrap()];
    let dev = Dev::start(folder.path(), &arguments).ready().await;
    let url = format!("{}/functions/nap", dev.functions);
    let http = dev.http.clone();
    let call = tokio::spawn(async move {
        http.post(url)
            .json(&json!({"seconds": 0.7}))
            .send()
            .await
            .unwrap()
            .status()
    });
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    let said = dev.interrupted();
    assert_eq!(call.await.unwrap(), 200);
    assert!(said.contains("after the nap"), "{said}");

    let dev = Dev::start(folder.path(), &arguments).ready().await;
    assert_eq!(dev.rows("/runs", 1).await[0]["status"], "Success");
    assert_eq!(
        texts(&dev.rows("/logs", 2).await, "message"),
        ["after the nap", "before the nap"]
    );

    // Twice, and what runs is cut with its reason.
    let url = format!("{}/functions/nap?mode=async", dev.functions);
    assert_eq!(
        dev.http
            .post(url)
            .json(&json!({"seconds": 60}))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    let limit = Instant::now() + PATIENCE;
    while dev.api("/runs").await["items"].as_array().unwrap().len() < 2 {
        assert!(Instant::now() < limit);
        sleep(Duration::from_millis(5)).await;
    }
    dev.signal(Signal::SIGINT);
    dev.says("Ctrl-C again").await;
    dev.signal(Signal::SIGINT);
    let scratch = dev.scratch.path().to_owned();
    let (status, said) = dev.ended_in(&scratch);
    assert_eq!(status.code(), Some(130), "{said}");
    let dev = Dev::start(folder.path(), &arguments).ready().await;
    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "reason"), ["Undeployed", ""]);
    dev.interrupted();
}

#[tokio::test]
async fn other_sites_are_not_let_in() {
    let folder = project(&[("main.py", MAIN)]);
    let dev = Dev::start(folder.path(), &[]).ready().await;
    for (place, path) in [
        (&dev.site, "/api/v1/scripts"),
        (&dev.site, "/"),
        (&dev.functions, "/functions"),
    ] {
        for (name, value) in [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            let asked = dev.http.get(format!("{place}{path}")).headers(headers);
            assert_eq!(
                asked.send().await.unwrap().status(),
                403,
                "{place}{path} {name}: {value}"
            );
        }
        assert_eq!(
            dev.http
                .get(format!("{place}{path}"))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let internal = dev
        .http
        .post(format!("{}/internal/stored", dev.functions))
        .body("x");
    assert_eq!(internal.send().await.unwrap().status(), 404);
    dev.interrupted();
}

#[tokio::test]
async fn a_runner_that_ends_by_itself_is_started_again() {
    let text = format!(
        "{MAIN}\nimport os, signal\ndef end():\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(60)\n"
    );
    let folder = project(&[("main.py", &text)]);
    let dev = Dev::start(folder.path(), &[]).ready().await;
    let (status, _) = dev.try_call("end", json!({})).await;
    assert_eq!(status, 502);
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hello, ada"
    );
    let runs = dev.rows("/runs", 2).await;
    assert_eq!(texts(&runs, "reason"), ["", "LostContact"]);
    dev.interrupted();
}

#[tokio::test]
async fn packages_are_installed_once() {
    let folder = project(&[
        (
            "main.py",
            "import words\ndef greet():\n    return words.GREETING\n",
        ),
        ("requirements.txt", "./wheels/words\n"),
    ]);
    let package = folder.path().join("wheels/words");
    fs::create_dir_all(&package).unwrap();
    let wheel = wheel(&folder.path().join("wheels"));
    fs::write(
        folder.path().join("requirements.txt"),
        format!("./wheels/{wheel}\n"),
    )
    .unwrap();
    let dev = Dev::start(folder.path(), &[]).ready().await;
    assert_eq!(
        dev.call("greet", json!({})).await["result"],
        "hello from a package"
    );
    fs::write(folder.path().join("more.py"), "").unwrap();
    dev.says("Version 2 is ready").await;
    let said = dev.interrupted();
    assert_eq!(said.matches("Installing requirements.txt.").count(), 1, "{said}");
}

/// Makes a package of one file; its name.
fn wheel(folder: &Path) -> &'static str {
    const NAME: &str = "words-1.0-py3-none-any.whl";
    let made = Command::new("python3")
        .current_dir(folder)
        .args(["-c", r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as w:
    w.writestr("words.py", "GREETING = 'hello from a package'")
    w.writestr("words-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: words\nVersion: 1.0\n")
    w.writestr("words-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    w.writestr("words-1.0.dist-info/RECORD", "words.py,,\nwords-1.0.dist-info/METADATA,,\nwords-1.0.dist-info/WHEEL,,\nwords-1.0.dist-info/RECORD,,\n")
"#, NAME])
        .status();
    assert!(made.unwrap().success());
    NAME
}

#[tokio::test]
async fn the_environment_is_the_scripts() {
    let folder = project(&[(
        "main.py",
        "import os\ndef show():\n    return [os.environ[n] for n in 'ABC']\n",
    )]);
    let file = folder.path().join(".env");
    fs::write(&file, "A=1\nexport B='two words'\nC=file\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    let dev = Dev::start(folder.path(), &["--env-file", &file, "--env", "C=option"])
        .ready()
        .await;
    assert_eq!(
        dev.call("show", json!({})).await["result"],
        json!(["1", "two words", "option"])
    );
    dev.interrupted();
}

/// PATH with gVisor's command: as it is, or where the test cluster has built it.
fn path_with_runsc() -> Option<OsString> {
    let path = env::var_os("PATH")?;
    let has = |folder: &Path| folder.join("runsc").is_file();
    if env::split_paths(&path).any(|folder| has(&folder)) {
        return Some(path);
    }
    let cache = env::var_os("SCRIPTSCOPE_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/scriptscope")))?;
    let built = fs::read_dir(cache)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|folder| has(folder))?;
    env::join_paths(env::split_paths(&path).chain([built])).ok()
}

#[tokio::test]
async fn a_sandboxed_script_is_the_same_to_its_caller_and_can_change_nothing() {
    let Some(path) = path_with_runsc() else {
        eprintln!("skipped: runsc is neither on PATH nor built (make cluster-build)");
        return;
    };
    let text = format!(
        "{MAIN}\nimport os\ndef kernel():\n    return os.uname().version\ndef write(path):\n    open(path, 'w').write('x')\n"
    );
    let folder = project(&[("main.py", &text)]);
    let target = folder.path().join("written");
    let dev = Dev::start_with(folder.path(), &["--sandbox"], path).ready().await;
    assert_eq!(
        dev.call("greet", json!({"name": "ada"})).await["result"],
        "hello, ada"
    );
    let kernel = dev.call("kernel", json!({})).await;
    let here = fs::read_to_string("/proc/sys/kernel/version").unwrap();
    assert_ne!(kernel["result"].as_str().unwrap(), here.trim());
    assert_eq!(
        dev.call("write", json!({"path": target})).await["status"],
        "Failed"
    );
    assert_eq!(
        dev.call("write", json!({"path": "/tmp/its-own"})).await["status"],
        "Success"
    );
    assert!(!target.exists());

    fs::write(folder.path().join("main.py"), "def oops(:").unwrap();
    dev.says("SyntaxError in main.py, line 1").await;
    dev.says("version 1 still serves").await;
    let url = format!("{}/functions/nap?mode=async", dev.functions);
    assert_eq!(
        dev.http
            .post(url)
            .json(&json!({"seconds": 0.5}))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    let said = dev.interrupted();
    assert!(said.contains("after the nap"), "{said}");
}

#[test]
fn what_can_not_be_done_is_said() {
    let fails = |folder: &Path, arguments: &[&str], path: &str, why: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_scriptscope"))
            .arg("dev")
            .arg(folder)
            .args(arguments)
            .env("PATH", path)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(why), "{error}");
    };
    let empty = tempfile::tempdir().unwrap();
    fails(empty.path(), &[], "/usr/bin", "neither main.py nor main.js");
    let folder = project(&[("main.py", MAIN)]);
    fails(
        folder.path(),
        &["--sandbox"],
        "/nonexistent",
        "runsc, which is not on PATH; install it",
    );
    fails(
        folder.path(),
        &["--env", "nothing"],
        "/usr/bin",
        "--env: expected KEY=VALUE",
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(
        folder.path(),
        &["--port", &port],
        "/usr/bin",
        &format!("--port {port}: "),
    );
}
