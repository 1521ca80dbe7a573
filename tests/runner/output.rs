//! Whose line it is, when it shows, and that it counts once.

use serde_json::{Value, json};

use crate::harness::{Runner, counted, eventually, none, texts};

fn pair(level: &str, message: &str) -> (String, String) {
    (level.into(), message.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_runs_hold_their_own_lines_only() {
    let runner = Runner::start("talk", &[("SCRIPTSCOPE_CONCURRENCY", "2")]).await;
    let arguments = |word: &str| json!({"word": word, "lines": 60});
    let (alpha, beta) = tokio::join!(
        runner.call("mixes", arguments("alpha")),
        runner.call("mixes", arguments("beta"))
    );
    for (answer, word) in [(alpha, "alpha"), (beta, "beta")] {
        assert_eq!(answer.result(), word);
        let (mut printed, mut failed) = (Vec::new(), Vec::new());
        for i in 0..60 {
            printed.push(format!("{word} {i}"));
            if i % 10 == 0 {
                printed.push(format!("{word} child {i}"));
                failed.push(format!("{word} error {i}"));
            }
        }
        assert_eq!(runner.printed(answer.run_id(), "stdout").await, printed);
        assert_eq!(runner.printed(answer.run_id(), "stderr").await, failed);
        let logged: Vec<_> = (0..60)
            .map(|i| pair("INFO", &format!("{word} log {i}")))
            .collect();
        assert_eq!(runner.logged(Some(answer.run_id())).await, logged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn korelogger_shows_at_once_and_prints_when_the_run_ends() {
    let runner = Runner::start("talk", &[]).await;
    let call = runner.calls("nap", &json!({"seconds": 1}));
    let span = eventually("the line is there", || {
        runner
            .objects()
            .into_iter()
            .find(|o| o["attributes"]["log.message"] == "logged before the nap")
    })
    .await;
    assert!(!call.is_finished(), "the run still sleeps");
    assert!(
        !runner.objects().iter().any(|o| o["scriptscope"] == "run.output"),
        "prints wait"
    );
    let (_, body) = call.await.unwrap();
    assert_eq!(
        body["stdout"],
        "printed before the nap\nWARNING :: logged before the nap\nprinted after the nap\n"
    );
    let run_id = body["runId"].as_str().unwrap();
    let printed = runner.printed(run_id, "stdout").await;
    assert_eq!(
        printed,
        ["printed before the nap", "printed after the nap"],
        "pairs count once"
    );

    let records = runner.records(run_id).await;
    let started = &records[0];
    assert_eq!(span["name"], "gvisor_warning_log");
    assert_eq!(span["kind"], "SpanKind.INTERNAL");
    let attributes = &span["attributes"];
    for (name, value) in [
        ("run_id", json!(run_id)),
        ("deployment_id", json!("deploy-1")),
        ("source", json!("anonymous")),
        ("source_type", json!("API")),
        ("traceparent", started["traceparent"].clone()),
        ("log.trace_id", started["traceparent"].clone()),
        ("log.level", json!("WARNING")),
        ("shop", json!(17)),
        ("tags", json!(["a"])),
        ("odd", json!("{1}")),
        ("user.run_id", json!("mine")),
    ] {
        assert_eq!(attributes[name], value, "{name}");
    }
    let trace = started["traceparent"]
        .as_str()
        .unwrap()
        .split('-')
        .nth(1)
        .unwrap();
    assert_eq!(span["context"]["trace_id"], format!("0x{trace}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_prints_show_while_the_run_goes_on() {
    let runner = Runner::start("talk", &[("SCRIPTSCOPE_LOGGING", "Live")]).await;
    let call = runner.calls("nap", &json!({"seconds": 1}));
    let record = eventually("the print is there", || {
        runner
            .objects()
            .into_iter()
            .find(|o| o["scriptscope"] == "run.output")
    })
    .await;
    assert!(!call.is_finished(), "the run still sleeps");
    assert_eq!(texts(&record), ["printed before the nap"]);
    let (_, body) = call.await.unwrap();
    let printed = runner.printed(body["runId"].as_str().unwrap(), "stdout").await;
    assert_eq!(printed, ["printed before the nap", "printed after the nap"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_korelogger_s_own_echo_is_left_out() {
    let runner = Runner::start("talk", &[]).await;
    let answer = runner.call("pairs", none()).await;
    assert_eq!(answer.result(), "", "a redirected standard output stays clean");
    assert_eq!(
        answer.body["stdout"],
        "INFO :: same\nINFO :: same\npartERROR :: two\nlines\n and rest\nDEBUG :: redirected\n"
    );
    assert_eq!(
        runner.printed(answer.run_id(), "stdout").await,
        ["INFO :: same", "part and rest"]
    );
    let logged = [
        pair("INFO", "same"),
        pair("ERROR", "two\nlines"),
        pair("DEBUG", "redirected"),
    ];
    assert_eq!(runner.logged(Some(answer.run_id())).await, logged);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_and_processes_log_into_their_run() {
    let runner = Runner::start("talk", &[]).await;
    let answer = runner.call("many", json!({"threads": 8, "lines": 100})).await;
    answer.result();
    let printed = counted(runner.printed(answer.run_id(), "stdout").await);
    assert_eq!(printed.len(), 800);
    assert!(
        printed
            .iter()
            .all(|(line, count)| line.starts_with("print t") && *count == 1),
        "{printed:?}"
    );
    let logged = counted(runner.logged(Some(answer.run_id())).await);
    assert_eq!((logged.len(), logged.values().sum::<usize>()), (800, 800));
    let echoes = answer.body["stdout"]
        .as_str()
        .unwrap()
        .matches("INFO :: t")
        .count();
    assert_eq!(echoes, 800);

    let answer = runner.call("children", none()).await;
    assert_eq!(answer.result(), "printed by it\n", "a child's output stays clean");
    let expected = [pair("INFO", "from a subprocess"), pair("INFO", "from a fork")];
    assert_eq!(runner.logged(Some(answer.run_id())).await, expected);

    let answer = runner.call("handler", none()).await;
    assert_eq!(
        runner.logged(Some(answer.run_id())).await,
        [pair("ERROR", "on fire: 7")]
    );

    let ids = runner
        .objects()
        .into_iter()
        .filter_map(|o| Some(o["attributes"]["log.meta.logid"].as_str()?.to_owned()));
    assert!(counted(ids).values().all(|count| *count == 1), "ids are unique");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_logged_breaks_the_run() {
    let runner = Runner::start("talk", &[]).await;
    let answer = runner.call("odd", none()).await;
    assert_eq!(answer.result(), true);
    let mut logged = runner.logged(Some(answer.run_id())).await;
    // What is too long for one write goes ahead.
    logged.sort_by_key(|(_, text)| text.len());
    let [half, number, bad, long] = &logged[..] else {
        panic!("{logged:?}")
    };
    assert_eq!(
        [half, number],
        [&pair("INFO", "half ?"), &pair("INFO", "%d ('not a number',)")]
    );
    assert!(bad.1.contains("Bad"), "{bad:?}");
    assert!(long.1.ends_with("[cut]") && long.1.starts_with('\0'));

    let long = runner.call("long_line", none()).await;
    let printed = runner.printed(long.run_id(), "stdout").await;
    assert_eq!(printed.len(), 1);
    assert!(printed[0].ends_with("[cut: a line of 300000 bytes]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loading_prints_belongs_to_no_run() {
    let runner = Runner::start("talk", &[]).await;
    eventually("loading has printed", || {
        runner.lines().contains(&"loaded".to_owned()).then_some(())
    })
    .await;
    eventually("on both streams", || {
        runner.errors().contains(&"loaded, too".to_owned()).then_some(())
    })
    .await;
    assert_eq!(runner.logged(None).await, [pair("INFO", "logged while loading")]);
    let outputs = runner
        .objects()
        .into_iter()
        .filter(|o| o["scriptscope"] == "run.output");
    assert_eq!(outputs.collect::<Vec<Value>>(), [Value::Null; 0]);
}
