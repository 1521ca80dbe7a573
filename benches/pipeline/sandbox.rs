//! What a call costs in a gVisor sandbox beyond the function's own time, and what a korelogger line costs a function there.
//!
//! All of it runs in namespaces of its own, so that nothing of the sandbox's network is left behind. Needs root, `unshare`,
//! `ip` and runsc, which is taken from `PATH` or from what `make cluster-build` has built.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    report::{Baseline, Report, Scale},
    usage,
};

const BINARY: &str = env!("CARGO_BIN_EXE_scriptscope");
/// Says that this process is the one in the namespaces.
const INSIDE: &str = "SCRIPTSCOPE_BENCH_INSIDE";
/// What `runsc do` gives the sandbox.
const URL: &str = "http://192.168.10.2:8080";
/// Lines that one run logs.
const LINES: usize = 200;

const PYTHON: &str = r#"
import os
import time

import korelogger


def nothing():
    began = time.perf_counter()
    return (time.perf_counter() - began) * 1e6


def logs(lines):
    began = time.perf_counter()
    for number in range(lines):
        korelogger.info("the balance was asked for", customer=number)
    return (time.perf_counter() - began) / lines * 1e6


def writes(lines):
    line = b"x" * 699 + b"\n"
    began = time.perf_counter()
    for _ in range(lines):
        os.write(1, line)
    return (time.perf_counter() - began) / lines * 1e6
"#;

const NODE: &str = r#"
const fs = require("node:fs");
const korelogger = require("korelogger");

function timed(times, work) {
  const began = performance.now();
  for (let number = 0; number < times; number++) work(number);
  return ((performance.now() - began) / times) * 1e3;
}

exports.nothing = () => timed(1, () => {});
exports.logs = ({ lines }) => timed(lines, (customer) => korelogger.info("the balance was asked for", { customer }));
const line = "x".repeat(699) + "\n";
exports.writes = ({ lines }) => timed(lines, () => fs.writeSync(1, line));
"#;

/// Milliseconds of a call of a Python function beyond the function's own time, median; against a request to the same
/// runner that runs nothing.
pub fn overhead_python(scale: Scale) {
    inside("runner_overhead_p50", || {
        overhead(scale, "runner_overhead_p50", "python");
    });
}

/// The same in Node.
pub fn overhead_node(scale: Scale) {
    inside("runner_overhead_p50_node", || {
        overhead(scale, "runner_overhead_p50_node", "node");
    });
}

/// Microseconds of a call of korelogger in Python, median; against writing 700 bytes to the run's standard output.
pub fn korelogger_python(scale: Scale) {
    inside("korelogger_call", || {
        korelogger(scale, "korelogger_call", "python");
    });
}

/// The same in Node.
pub fn korelogger_node(scale: Scale) {
    inside("korelogger_call_node", || {
        korelogger(scale, "korelogger_call_node", "node");
    });
}

/// Runs the benchmark of this name in namespaces of its own.
fn inside(name: &str, run: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return run();
    }
    if runsc().is_none() {
        eprintln!("{name}: left out, since there is no runsc; `make cluster-build` builds one");
        return;
    }
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(env::current_exe().unwrap())
        .arg(name)
        .env(INSIDE, "1")
        .status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("{name}: failed ({status:?}); it needs root, and unshare of util-linux");
    }
}

fn runsc() -> Option<PathBuf> {
    let built = PathBuf::from(env::var_os("HOME")?).join(".cache/scriptscope");
    let built = fs::read_dir(built).into_iter().flatten().flatten();
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths)
        .chain(built.map(|entry| entry.path()))
        .map(|folder| folder.join("runsc"))
        .find(|path| path.is_file())
}

/// A runner in a sandbox with one of the scripts above.
struct Sandbox {
    child: Child,
    runtime: Runtime,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Sandbox {
    fn start(language: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (home, app) = (folder.path().join("home"), folder.path().join("app"));
        fs::create_dir(&app).unwrap();
        fs::write(app.join("main.py"), PYTHON).unwrap();
        fs::write(app.join("main.js"), NODE).unwrap();
        let installed = Command::new(BINARY).args(["install", "--to"]).arg(&home).status();
        assert!(installed.unwrap().success());
        network(folder.path());
        let mut child = Command::new(runsc().unwrap())
            .args(["--ignore-cgroups", "--platform=systrap", "--network=sandbox"])
            .arg(format!("--root={}", folder.path().join("runsc").display()))
            .args(["do", "--quiet", BINARY, "runner"])
            .env("SCRIPTSCOPE_APP", app)
            .env("SCRIPTSCOPE_HOME", home)
            .env("SCRIPTSCOPE_RUNTIME", language)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // As a runtime does: the records are taken away.
        let records = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || records.split(b'\n').count());
        let sandbox = Self {
            child,
            runtime: Runtime::new().unwrap(),
            client: reqwest::Client::builder()
                .tcp_nodelay(true)
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_mins(1);
        while !sandbox.is_ready() {
            assert!(Instant::now() < deadline, "the runner does not become ready");
            thread::sleep(Duration::from_millis(50));
        }
        sandbox
    }

    fn is_ready(&self) -> bool {
        let answer = async { self.client.get(format!("{URL}/readyz")).send().await };
        let answer = self.runtime.block_on(answer);
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The time of a request that runs nothing.
    fn round_trip(&self) -> Duration {
        let began = Instant::now();
        self.runtime.block_on(async {
            let answer = self.client.get(format!("{URL}/livez")).send().await;
            answer.unwrap().bytes().await.unwrap();
        });
        began.elapsed()
    }

    /// The time of a call, and what the function has measured, microseconds.
    fn call(&self, function: &str, arguments: &Value) -> (Duration, f64) {
        let began = Instant::now();
        let body = self.runtime.block_on(async {
            let call = self.client.post(format!("{URL}/functions/{function}"));
            let answer = call.json(arguments).send().await.unwrap();
            answer.bytes().await.unwrap()
        });
        let taken = began.elapsed();
        let body: Value = serde_json::from_slice(&body).unwrap();
        (taken, body["result"].as_f64().unwrap_or_else(|| panic!("{body}")))
    }

    /// The median of what a function that is given a number of lines measures.
    fn median_of(&self, function: &str, runs: usize) -> f64 {
        let arguments = json!({"lines": LINES});
        median((0..runs).map(|_| self.call(function, &arguments).1))
    }

    /// Processor seconds and largest resident memory, bytes, of all that the sandbox consists of.
    fn used(&self) -> (f64, u64) {
        // All processes in here but this one are the sandbox's, the child among them.
        assert!(Path::new(&format!("/proc/{}", self.child.id())).exists());
        let pids: Vec<u32> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id())
            .collect();
        let cpu_seconds = pids.iter().map(|pid| usage::cpu_seconds(*pid)).sum();
        let max_rss_bytes = pids.iter().map(|pid| usage::max_rss_bytes(*pid)).sum();
        (cpu_seconds, max_rss_bytes)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network with a way out, which `runsc do` connects the sandbox to.
fn network(folder: &Path) {
    let script = "
        mount -t tmpfs none /run
        ip link set lo up
        ip link add eth0 type veth peer name eth1
        ip addr add 192.0.2.2/24 dev eth0
        ip link set eth1 up
        ip link set eth0 up
        ip route add default via 192.0.2.1";
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .status();
    assert!(status.unwrap().success(), "no network for the sandbox");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn overhead(scale: Scale, name: &'static str, language: &str) {
    let calls = scale.of(3_000, 200);
    let sandbox = Sandbox::start(language);
    let none = json!({});
    for _ in 0..calls / 10 {
        sandbox.call("nothing", &none);
    }
    let (mut beyond, mut round_trips) = (Vec::new(), Vec::new());
    for _ in 0..calls {
        let (taken, own) = sandbox.call("nothing", &none);
        beyond.push(taken.as_secs_f64() * 1e3 - own / 1e3);
        round_trips.push(sandbox.round_trip().as_secs_f64() * 1e3);
    }
    let baseline = Baseline {
        name: "http_round_trip_in_gvisor",
        value: median(round_trips.into_iter()),
    };
    let (cpu_seconds, max_rss_bytes) = sandbox.used();
    Report {
        name,
        value: median(beyond.into_iter()),
        unit: "ms",
        baseline,
        ratio: 0.0,
        cpu_seconds,
        max_rss_bytes,
        n: calls,
    }
    .print();
}

fn korelogger(scale: Scale, name: &'static str, language: &str) {
    let runs = scale.of(50, 5);
    let sandbox = Sandbox::start(language);
    sandbox.median_of("logs", runs / 5);
    let value = sandbox.median_of("logs", runs);
    let baseline = Baseline {
        name: "write_of_700_bytes_in_gvisor",
        value: sandbox.median_of("writes", runs),
    };
    let (cpu_seconds, max_rss_bytes) = sandbox.used();
    Report {
        name,
        value,
        unit: "us",
        baseline,
        ratio: 0.0,
        cpu_seconds,
        max_rss_bytes,
        n: runs * LINES,
    }
    .print();
}
