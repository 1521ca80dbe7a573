//! The command at work, and a folder for it.

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
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

pub const PATIENCE: Duration = Duration::from_mins(1);
pub const MAIN: &str = r#"
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
pub fn project(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::Builder::new().prefix("hello").tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// The command at work.
pub struct Dev {
    pub child: Child,
    pub output: Arc<Mutex<String>>,
    pub site: String,
    pub functions: String,
    pub http: reqwest::Client,
    pub scratch: TempDir,
}

impl Dev {
    pub fn start(project: &Path, arguments: &[&str]) -> Self {
        Self::start_with(project, arguments, env::var_os("PATH").unwrap())
    }

    pub fn start_with(project: &Path, arguments: &[&str], path: OsString) -> Self {
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
    pub fn says_address(&mut self, before: &str) -> String {
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
    pub async fn ready(mut self) -> Self {
        let line = self
            .until(|dev| {
                dev.said()
                    .lines()
                    .find(|l| l.starts_with("curl "))
                    .map(str::to_owned)
            })
            .await;
        let url = line.split(' ').next_back().unwrap();
        url.split("/functions/")
            .next()
            .unwrap()
            .clone_into(&mut self.functions);
        self
    }

    pub fn said(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    pub async fn until<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < limit, "{}", self.said());
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn says(&self, text: &str) {
        self.until(|dev| dev.said().contains(text).then_some(())).await;
    }

    pub async fn call(&self, function: &str, arguments: Value) -> Value {
        let (status, body) = self.try_call(function, arguments).await;
        assert!(body["runId"].is_string(), "{status} {body}");
        body
    }

    pub async fn try_call(&self, function: &str, arguments: Value) -> (u16, Value) {
        let url = format!("{}/functions/{function}", self.functions);
        let answer = self.http.post(url).json(&arguments).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn api(&self, path: &str) -> Value {
        let scripts = self.get("/api/v1/scripts").await;
        let name = scripts["items"][0]["name"].as_str().unwrap().to_owned();
        self.get(&format!("/api/v1/namespaces/dev/scripts/{name}{path}"))
            .await
    }

    pub async fn get(&self, path: &str) -> Value {
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
    pub async fn rows(&self, path: &str, count: usize) -> Vec<Value> {
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

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub fn ended(mut self) -> (ExitStatus, String) {
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
    pub fn interrupted(self) -> String {
        self.signal(Signal::SIGINT);
        let scratch = self.scratch.path().to_owned();
        let (status, said) = self.ended_in(&scratch);
        assert!(status.success(), "{status} {said}");
        said
    }

    pub fn ended_in(mut self, scratch: &Path) -> (ExitStatus, String) {
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

pub fn read(pipe: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

pub fn texts(rows: &[Value], key: &str) -> Vec<String> {
    rows.iter()
        .map(|row| row[key].as_str().unwrap_or_default().to_owned())
        .collect()
}
