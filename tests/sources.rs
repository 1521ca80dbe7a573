//! The init steps of a script's pod, started as a pod starts them: `scriptscope fetch` against a real HTTP server,
//! `scriptscope dependencies` with a real pip and npm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::{
    convert::Infallible,
    fs,
    io::{Cursor, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::get,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

/// Exit code of a step that trying again does not help.
const UNUSABLE: i32 = 78;

fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let digits: Vec<String> = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// What a server has.
fn project() -> Vec<u8> {
    zipped(&[("main.py", "import lib.rates"), ("lib/rates.py", "EUR = 1")])
}

struct Server {
    url: String,
    /// How often `/flaky` was asked for.
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let broken = || async {
            let pieces = [Ok(vec![0_u8; 1_000]), Err(std::io::Error::other("broken"))];
            Body::from_stream(futures::stream::iter(pieces)).into_response()
        };
        let app = Router::new()
            .route("/project.zip", get(|| async { project() }))
            .route(
                "/nested",
                get(|| async { zipped(&[("balance-1/main.py", ""), ("balance-1/a", "")]) }),
            )
            .route(
                "/other",
                get(|| async { zipped(&[("app.py", ""), ("README.md", "")]) }),
            )
            .route(
                "/slip",
                get(|| async { zipped(&[("main.py", ""), ("../main.py", "")]) }),
            )
            .route("/broken", get(broken))
            .route(
                "/flaky",
                get(move || async move {
                    match count.fetch_add(1, Ordering::SeqCst) {
                        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                        1 => broken().await,
                        _ => project().into_response(),
                    }
                }),
            )
            .route(
                "/huge",
                get(|| async {
                    let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(vec![0_u8; 1 << 20]));
                    let length = [(header::CONTENT_LENGTH, "1000000001")];
                    (length, Body::from_stream(endless)).into_response()
                }),
            )
            .route(
                "/moved",
                get(|| async { Redirect::temporary("/project.zip?signature=secret") }),
            )
            .route("/loop", get(|| async { Redirect::temporary("/loop") }))
            .route(
                "/metadata",
                get(|| async { Redirect::temporary("http://169.254.169.254/latest/") }),
            )
            .route(
                "/file",
                get(|| async { Redirect::temporary("file:///etc/passwd") }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }
}

/// How a step ended: its exit code, what it left in the pod's status, what it printed.
#[derive(Debug)]
struct Ended {
    code: i32,
    reason: String,
    output: String,
}

fn step(args: &[&str], more: impl FnOnce(&mut Command)) -> Ended {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scriptscope"));
    command.args(args).arg("--termination-log").arg(log.path());
    command.stdin(Stdio::null());
    more(&mut command);
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        reason: fs::read_to_string(log.path()).unwrap(),
        output: String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
    }
}

/// Fetches into a folder that an earlier try has left something in.
async fn fetch(url: String, sha256: String) -> (TempDir, Ended) {
    let work = tempfile::tempdir().unwrap();
    let ended = tokio::task::spawn_blocking({
        let to = work.path().join("app");
        let scratch = work.path().join("tmp");
        move || {
            fs::create_dir_all(to.join("left")).unwrap();
            fs::create_dir(&scratch).unwrap();
            let (to, scratch) = (to.to_str().unwrap(), scratch.to_str().unwrap());
            let args = ["fetch", "--url", &url, "--sha256", &sha256, "--to", to];
            step(
                &[&args[..], &["--entry", "main.py", "--scratch", scratch]].concat(),
                |_| {},
            )
        }
    })
    .await
    .unwrap();
    (work, ended)
}

/// Names below a folder, files alone.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(folder).unwrap().to_owned();
                found.push(path.into_os_string().into_string().unwrap());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_fetched_checked_and_unpacked() {
    let server = Server::start().await;
    for path in ["project.zip", "moved", "flaky"] {
        let (work, ended) = fetch(format!("{}/{path}", server.url), sha256(&project())).await;
        assert_eq!((ended.code, ended.reason.as_str()), (0, ""), "{path}: {ended:?}");
        // All of the earlier try is gone, and so is the archive.
        assert_eq!(
            files(&work.path().join("app")),
            ["lib/rates.py", "main.py"],
            "{path}"
        );
        assert_eq!(fs::read_dir(work.path().join("app")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(work.path().join("tmp")).unwrap().count(), 0);
        assert!(!ended.output.contains("secret"), "{ended:?}");
    }
    assert_eq!(
        server.asked.load(Ordering::SeqCst),
        3,
        "a 503 and a broken answer are tried again"
    );

    let nested = zipped(&[("balance-1/main.py", ""), ("balance-1/a", "")]);
    let (work, ended) = fetch(format!("{}/nested", server.url), sha256(&nested)).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        files(&work.path().join("app")),
        ["a", "main.py"],
        "the only folder is left out"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_can_not_be_used_says_why() {
    let server = Server::start().await;
    let other = zipped(&[("app.py", ""), ("README.md", "")]);
    let slip = zipped(&[("main.py", ""), ("../main.py", "")]);
    let wrong = "0".repeat(64);
    let found = sha256(&project());
    for (path, sum, reasons) in [
        (
            "project.zip?token=secret",
            &wrong,
            vec!["has the SHA-256", &found, &wrong, "spec.source.archive.sha256"],
        ),
        ("nothing", &wrong, vec!["was answered 404"]),
        ("huge", &wrong, vec!["has more than 1000000000 bytes"]),
        ("loop", &wrong, vec!["redirected more than 5 times"]),
        (
            "metadata",
            &wrong,
            vec!["169.254.169.254", "no archive may come from"],
        ),
        ("file", &wrong, vec!["was answered 404"]),
        (
            "other",
            &sha256(&other),
            vec!["has no file main.py", "README.md, app.py"],
        ),
        (
            "slip",
            &sha256(&slip),
            vec!["\"../main.py\"", "outside the project's folder"],
        ),
    ] {
        let (work, ended) = fetch(format!("{}/{path}", server.url), sum.clone()).await;
        assert_eq!(ended.code, UNUSABLE, "{path}: {ended:?}");
        for reason in reasons {
            assert!(ended.reason.contains(reason), "{path}: {}", ended.reason);
        }
        assert!(
            ended.reason.starts_with("spec.source.archive: "),
            "{}",
            ended.reason
        );
        assert!(
            !ended.reason.contains("secret") && !ended.output.contains("secret"),
            "{ended:?}"
        );
        let usable = work.path().join("app/main.py").exists();
        assert!(!usable, "{path}: nothing may be there that looks like the script");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_services_are_not_asked() {
    for host in ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"] {
        let (_, ended) = fetch(format!("http://{host}/a.zip"), "0".repeat(64)).await;
        assert_eq!(ended.code, UNUSABLE);
        assert!(ended.reason.contains("metadata"), "{}", ended.reason);
    }
}

/// A script's folder, and one for its packages.
struct Project {
    work: TempDir,
}

impl Project {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let work = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = work.path().join("app").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir(work.path().join("tmp")).unwrap();
        Self { work }
    }

    fn path(&self, name: &str) -> String {
        self.work.path().join(name).to_str().unwrap().to_owned()
    }

    fn install(&self, manager: &str, more: &[&str]) -> Ended {
        let (app, to, scratch) = (self.path("app"), self.path("to"), self.path("tmp"));
        let args = [
            "dependencies",
            "--manager",
            manager,
            "--app",
            &app,
            "--to",
            &to,
            "--scratch",
            &scratch,
        ];
        step(&[&args[..], more].concat(), |command| {
            command.env("PIP_NO_INDEX", "1").env("npm_config_offline", "true");
        })
    }

    /// What a program prints with the packages.
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program)
            .args(args)
            .env("PYTHONPATH", self.path("to"))
            .current_dir(self.path("app"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The smallest wheel.
fn wheel() -> Vec<u8> {
    let info = "greeting-1.0.dist-info";
    zipped(&[
        ("greeting.py", "WORD = 'hello'\n"),
        (
            &format!("{info}/METADATA"),
            "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        ),
        (
            &format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        (
            &format!("{info}/RECORD"),
            &format!("greeting.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
        ),
    ])
}

const WHEEL: &str = "wheels/greeting-1.0-py3-none-any.whl";

#[test]
fn python_packages_are_installed_from_where_the_file_says() {
    let project = Project::new(&[
        ("requirements.txt", format!("./{WHEEL}\n").as_bytes()),
        (WHEEL, &wheel()),
    ]);
    // Twice: a step that is begun anew finds what the first one has left.
    for _ in 0..2 {
        let ended = project.install("pip", &[]);
        assert_eq!(ended.code, 0, "python3 needs pip (python3-pip): {ended:?}");
        assert!(
            ended.output.contains("greeting-1.0"),
            "its log is pip's: {ended:?}"
        );
    }
    assert_eq!(
        project.run("python3", &["-c", "import greeting; print(greeting.WORD)"]),
        "hello\n"
    );
    let nothing = Project::new(&[("main.py", b"")]);
    assert_eq!(nothing.install("pip", &[]).code, 0, "no file, nothing to do");
}

#[test]
fn packages_that_do_not_exist_are_named_by_pips_last_lines() {
    let project = Project::new(&[("requirements.txt", b"no-such-package-anywhere==1.0\n")]);
    let ended = project.install("pip", &[]);
    assert_eq!(ended.code, UNUSABLE, "{ended:?}");
    assert!(
        ended
            .reason
            .starts_with("requirements.txt could not be installed, pip ended with exit status: 1:\n"),
        "{}",
        ended.reason
    );
    assert!(
        ended
            .reason
            .trim_end()
            .ends_with("No matching distribution found for no-such-package-anywhere==1.0"),
        "{}",
        ended.reason
    );
}

#[test]
fn an_image_without_pip_or_python_says_what_to_do() {
    let project = Project::new(&[("requirements.txt", b"requests\n")]);
    let venv = project.path("venv");
    let made = Command::new("python3")
        .args(["-m", "venv", "--without-pip", &venv])
        .status()
        .unwrap();
    assert!(made.success());
    for (python, missing) in [
        (
            format!("{venv}/bin/python3"),
            "the image has no pip (ModuleNotFoundError",
        ),
        (
            "/nowhere/python3".to_owned(),
            "the image has no /nowhere/python3 (No such file",
        ),
    ] {
        let ended = project.install("pip", &["--python", &python]);
        assert_eq!(ended.code, UNUSABLE, "{ended:?}");
        assert!(ended.reason.contains(missing), "{}", ended.reason);
        assert!(ended.reason.contains("spec.runtimeImage"), "{}", ended.reason);
    }
}

#[test]
fn an_installation_that_hangs_is_ended_with_all_that_it_started() {
    let project = Project::new(&[("requirements.txt", b"x\n")]);
    let python = project.path("python");
    // The first call asks whether there is a pip.
    fs::write(
        &python,
        "#!/bin/sh\n[ \"$1\" = -c ] && exit 0\necho resolving\nsleep 600 &\nsleep 600\n",
    )
    .unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let began = std::time::Instant::now();
    let ended = project.install("pip", &["--python", &python, "--timeout-seconds", "1"]);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    assert_eq!(ended.code, UNUSABLE);
    assert_eq!(
        ended.reason,
        "requirements.txt was not installed within 1 s; the last that pip said:\nresolving"
    );
}

#[test]
fn node_packages_are_found_by_require_and_by_import() {
    if Command::new("npm").arg("--version").output().is_err() {
        eprintln!("There is no npm here; nothing was tested.");
        return;
    }
    let package =
        br#"{"name": "balance", "type": "module", "dependencies": {"greeting": "file:./lib/greeting"}}"#;
    let project = Project::new(&[
        ("package.json", package),
        (
            "lib/greeting/package.json",
            br#"{"name": "greeting", "version": "1.0.0"}"#,
        ),
        ("lib/greeting/index.js", b"exports.word = 'hello';"),
        ("main.mjs", b"import { word } from 'greeting'; console.log(word);"),
        ("main.cjs", b"console.log(require('greeting').word);"),
    ]);
    let ended = project.install("npm", &[]);
    assert_eq!(ended.code, 0, "{ended:?}");
    // As the pod mounts it: beside the script's folder.
    symlink(project.path("to"), project.path("node_modules")).unwrap();
    for main in ["main.mjs", "main.cjs"] {
        assert_eq!(project.run("node", &[main]), "hello\n", "{main}");
    }

    let project = Project::new(&[(
        "package.json",
        br#"{"dependencies": {"no-such-package-anywhere": "1"}}"#,
    )]);
    let ended = project.install("npm", &[]);
    assert_eq!(ended.code, UNUSABLE);
    assert!(
        ended.reason.contains("npm ended with") && ended.reason.contains("ENOTCACHED"),
        "{}",
        ended.reason
    );
}
