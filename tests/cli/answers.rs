//! Reading: tables, JSON, CSV, and what is said when it can not be done.

use serde_json::Value;

use crate::site::{Said, Site, bare};

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_shown_as_a_table_as_json_and_as_csv() {
    let site = Site::new().await;
    let table = site.says("shop", &["runs", "pay", "--limit", "4"]).await;
    assert!(table.err.contains("4 shown"), "{}", table.err);
    let table = table.works();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("RUN ID    STATUS               DEPLOYMENT VERSION"),
        "{table}"
    );
    assert!(lines[1].starts_with("run-000   In Progress"), "{table}");
    assert!(
        lines[2].starts_with("run-001   Success              1                    1.50 ms"),
        "{table}"
    );
    assert_eq!(lines.len(), 5);
    let bare = site
        .says("shop", &["runs", "pay", "--limit=4", "--no-headers"])
        .await
        .works();
    assert_eq!(bare.lines().count(), 4);

    let json = site
        .says("shop", &["runs", "pay", "-o", "json", "--limit", "1500"])
        .await
        .works();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 120);
    assert_eq!(json["more"], false);

    // The table of the command and the file of the operator are one and the same.
    let ended = [
        "--filter",
        "Status=Failed,Success",
        "--to",
        "2100-01-01T00:00:00Z",
    ];
    let listed: Vec<&str> = [&["runs", "pay", "-o", "csv", "--limit", "500"][..], &ended[..]].concat();
    let exported: Vec<&str> = [&["export", "pay", "runs"][..], &ended[..]].concat();
    let listed = site.says("shop", &listed).await.works();
    assert_eq!(listed, site.says("shop", &exported).await.works());
    assert_eq!(listed.lines().filter(|line| line.contains("run-")).count(), 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose() {
    let site = Site::new().await;
    let ids = async |arguments: &[&str]| {
        let all = [&["runs", "pay", "--no-headers", "--limit", "500"], arguments].concat();
        let text = site.says("shop", &all).await.works();
        let ids: Vec<String> = text.lines().map(|line| line[..7].to_owned()).collect();
        ids
    };
    assert_eq!(ids(&["--filter", "Status=Failed"]).await.len(), 40);
    let slow = ["--filter", "Response Time>=150", "--filter", "Status=Success"];
    assert_eq!(
        ids(&slow).await,
        [
            "run-100", "run-103", "run-106", "run-109", "run-112", "run-115", "run-118"
        ]
    );
    let any = [
        "--filter",
        "runId=run-007",
        "--filter",
        "runId=run-008",
        "--match",
        "any",
    ];
    assert_eq!(ids(&any).await, ["run-007", "run-008"]);
    assert_eq!(ids(&["--last", "10m", "--filter", "source~BILL"]).await.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_with_its_logs() {
    let site = Site::new().await;
    let text = site.says("shop", &["run", "pay", "run-001"]).await.works();
    for part in [
        "Run ID               run-001",
        "Status               Success",
        "Input\n{\n  \"n\": 1.0\n}",
        "message 1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = site
        .says("shop", &["run", "pay", "run-001", "-o", "json"])
        .await
        .works();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["function"], "check");
    let said = site.says("runs-only", &["run", "pay", "run-001"]).await;
    assert!(said.err.contains("customscripts/logs"), "{}", said.err);
    assert!(!said.works().contains("message 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_oldest_first_and_move_no_cursor() {
    let site = Site::new().await;
    let text = site.says("shop", &["logs", "pay", "--limit", "6"]).await.works();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(
        lines[0].contains("   Error     run-002   =cmd \\u{1b}[2J\\u{9b}1mred"),
        "{text}"
    );
    assert!(lines[5].ends_with("Info      run-000   message 0"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}']));
    let errors = site
        .says(
            "shop",
            &[
                "logs", "pay", "--level", "error", "--run", "run-001", "--limit", "500",
            ],
        )
        .await;
    assert_eq!(errors.works().lines().count(), 20);
    let found = site
        .says("shop", &["logs", "pay", "--search", "MESSAGE 77"])
        .await
        .works();
    assert_eq!(found.lines().count(), 1);
    let json = site.says("shop", &["logs", "pay", "-o", "json"]).await.works();
    assert!(!json.contains(['\u{1b}', '\u{9b}']));
    let none = site.says("shop", &["logs", "pay", "--search", "nowhere"]).await;
    assert!(none.err.contains("no lines of pay"));
    assert_eq!(none.works(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_shown_for_life_or_a_range() {
    let site = Site::new().await;
    let all = site.says("shop", &["stats"]).await.works();
    let row: Vec<&str> = all.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["shop", "pay", "Deleted", "120", "40", "40"], "{all}");
    assert!(all.contains("50.00%"), "{all}");
    let one = site.says("shop", &["stats", "pay"]).await.works();
    assert!(one.lines().nth(1).unwrap().starts_with("all       120"), "{one}");
    let failed = site
        .says("shop", &["stats", "pay", "--filter", "Status=Failed"])
        .await;
    assert!(failed.err.contains("to now"), "{}", failed.err);
    assert!(failed.works().contains("100.00%"));
    let csv = site.says("shop", &["stats", "pay", "-o", "csv"]).await.works();
    assert!(csv.starts_with("Version,Runs,Succeeded,Failed,"), "{csv}");
    let odd = site.says("shop", &["stats", "--last", "1d"]).await;
    odd.fails(2, "need a script");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_appears_when_it_is_whole() {
    let site = Site::new().await;
    let file = site.folder.path().join("logs.csv");
    let said = site
        .says(
            "shop",
            &["export", "pay", "logs", "--out", file.to_str().unwrap()],
        )
        .await;
    assert!(said.err.contains("logs.csv: "), "{}", said.err);
    said.works();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("Log ID,Log Level,Log Message,Timestamp\r\n"));
    assert!(text.contains("'=cmd"), "{text}");
    let said = site
        .says("shop", &["export", "pay", "logs", "--out", "/nonexistent/x.csv"])
        .await;
    said.fails(1, "--out /nonexistent/x.csv");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_is_told_with_what_to_do() {
    let site = Site::new().await;
    for (user, arguments, code, why) in [
        ("shop", &["runs", "pay", "--last", "7"][..], 2, "--last: "),
        (
            "shop",
            &["runs", "pay", "--filter", "Colour=red"],
            2,
            "there are: Run ID",
        ),
        ("shop", &["runs", "pay", "--limit", "0"], 2, "1 to 100000"),
        (
            "shop",
            &["runs", "pay", "--last", "1d", "--from", "2026-01-01T00:00:00Z"],
            2,
            "cannot be used with",
        ),
        ("shop", &["logs", "pay", "--level", "loud"], 2, "Stdout, Stderr"),
        (
            "shop",
            &["runs", "nope"],
            1,
            "there is no script nope in namespace shop",
        ),
        ("shop", &["run", "pay", "nope"], 1, "has no run nope"),
        ("shop", &["runs", "../x"], 2, "this is not the name of a script"),
        (
            "nobody",
            &["runs", "pay"],
            1,
            "nobody needs get on customscripts/runs in namespace shop",
        ),
        ("runs-only", &["logs", "pay"], 1, "customscripts/logs"),
        ("stranger", &["runs", "pay"], 1, "the token is not valid"),
        ("missing", &["runs", "pay"], 1, "--token-file"),
    ] {
        site.says(user, arguments).await.fails(code, why);
    }
    let gone = bare()
        .args([
            "runs",
            "pay",
            "-n",
            "shop",
            "--server",
            "http://127.0.0.1:1",
            "--token-file",
        ])
        .arg(site.folder.path().join("shop"))
        .output()
        .await
        .unwrap();
    Said::from(gone).fails(1, "can not be reached");
    let far = bare()
        .args([
            "runs",
            "pay",
            "-n",
            "x",
            "--server",
            "http://10.0.0.1",
            "--token-file",
            "/dev/null",
        ])
        .output()
        .await
        .unwrap();
    Said::from(far).fails(2, "in the clear");
    let lost = bare().args(["runs", "pay"]).output().await.unwrap();
    Said::from(lost).fails(1, "kubeconfig");
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_those_who_want_them() {
    let site = Site::new().await;
    let text = async |set: &str, value: &str| {
        let output = site
            .command("shop", &["runs", "pay"])
            .env(set, value)
            .output()
            .await
            .unwrap();
        Said::from(output).works()
    };
    assert!(text("CLICOLOR_FORCE", "1").await.contains("\u{1b}[31mFailed"));
    assert!(!text("NO_COLOR", "1").await.contains('\u{1b}'));
    assert!(!text("TERM", "xterm").await.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_and_kubectl_finds_it() {
    for (shell, part) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef scriptscope"),
        ("fish", "complete -c scriptscope"),
    ] {
        let said = bare().args(["completion", shell]).output().await.unwrap();
        let text = Said::from(said).works();
        assert!(text.contains(part) && text.contains("no-headers"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-scriptscope");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_scriptscope"), &plugin).unwrap();
    let said = tokio::process::Command::new(&plugin)
        .args(["runs", "--help"])
        .output()
        .await
        .unwrap();
    let help = Said::from(said).works();
    assert!(help.contains("Usage: kubectl scriptscope runs"), "{help}");
}
