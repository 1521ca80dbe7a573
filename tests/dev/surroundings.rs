//! What a script finds around it: packages, variables, a sandbox.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::harness::{Dev, MAIN, project};

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
