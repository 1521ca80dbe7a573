//! `logs -f` and the stream behind it: each line once, whatever comes late, breaks off or is merged.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    ingest::{
        record::{NewLine, Record},
        wire::{Position, StreamKey},
    },
    model::{LogLevel, ScriptKey},
    store::{Append, AppendOutcome, PodRecord},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::site::{Said, Site};

const PATIENCE: Duration = Duration::from_secs(30);

/// A pod of `shop/pay` that prints.
pub struct Printer<'a> {
    site: &'a Site,
    stream: i64,
    offset: u64,
}

impl<'a> Printer<'a> {
    pub async fn new(site: &'a Site, pod: &str) -> Self {
        let record = PodRecord {
            uid: pod.into(),
            name: pod.into(),
            container: "script".into(),
            script: ScriptKey::new("shop", "pay"),
            version: 1,
            deployment_id: "d".into(),
        };
        site.store.register_pod(&record).await.unwrap();
        let key = StreamKey {
            namespace: "shop".into(),
            pod: pod.into(),
            pod_uid: pod.into(),
            container: "script".into(),
            restart: 0,
        };
        let opened = site.store.open_streams(&[key]).await.unwrap().remove(0).unwrap();
        Self {
            site,
            stream: opened.id,
            offset: 0,
        }
    }

    /// Prints lines, each with its age in seconds.
    pub async fn print(&mut self, lines: &[(&str, i64)]) {
        let begin = self.offset;
        let mut records = Vec::new();
        for (message, age) in lines {
            records.push(Record::Line(NewLine {
                offset: self.offset,
                index: 0,
                time: Timestamp::now() - SignedDuration::from_secs(*age),
                level: LogLevel::Info,
                run_id: None,
                message: (*message).into(),
                attributes: None,
            }));
            self.offset += 100;
        }
        let append = Append {
            stream: self.stream,
            expected_offset: begin,
            position: Position {
                offset: self.offset,
                ..Position::default()
            },
            carry: Vec::new(),
            records: records.into(),
            gap: None,
            last_word: None,
        };
        let outcomes = self.site.store.append(vec![append]).await.unwrap();
        assert!(matches!(outcomes[0], AppendOutcome::Committed(_)), "{outcomes:?}");
    }
}

/// A reader of the stream.
struct Reader {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
    last: Option<String>,
}

impl Reader {
    async fn open(site: &Site, query: &str, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let head = format!(
            "GET /api/v1/namespaces/shop/scripts/pay/logs/stream?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer shop\r\n{last}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        // Where it begins is certain only then: what is printed from here on comes.
        let status = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        assert_eq!(status.as_deref(), Some("HTTP/1.1 200 OK"));
        Self { lines, last: None }
    }

    /// The messages of the next event that has some.
    async fn next(&mut self) -> Vec<String> {
        timeout(PATIENCE, async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the stream goes on");
                if let Some(id) = line.strip_prefix("id: ") {
                    self.last = Some(id.to_owned());
                }
                if let Some(data) = line.strip_prefix("data: ") {
                    let data: Value = serde_json::from_str(data).unwrap();
                    let items = data["items"]
                        .as_array()
                        .unwrap_or_else(|| panic!("{data}"))
                        .clone();
                    if !items.is_empty() {
                        return items
                            .iter()
                            .map(|i| i["message"].as_str().unwrap().to_owned())
                            .collect();
                    }
                }
            }
        })
        .await
        .expect("an event comes")
    }

    /// Messages until there are so many.
    async fn take(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.next().await);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_once_also_late_ones_and_after_a_break() {
    let site = Site::new().await;
    let mut one = Printer::new(&site, "one").await;
    let mut reader = Reader::open(&site, "tail=2", None).await;
    assert_eq!(reader.next().await, ["message 1", "message 0"]);
    one.print(&[("a", 0), ("b", 0)]).await;
    assert_eq!(reader.take(2).await, ["a", "b"]);
    // Printed an hour ago, stored now.
    one.print(&[("late", 3_600)]).await;
    assert_eq!(reader.next().await, ["late"]);
    let last = reader.last.clone().unwrap();
    drop(reader);
    let mut two = Printer::new(&site, "two").await;
    two.print(&[("c", 10)]).await;
    one.print(&[("d", 5), ("e", 7_200)]).await;
    for _ in 0..2 {
        // The same id twice: the same lines twice, none else.
        let mut reader = Reader::open(&site, "tail=2", Some(&last)).await;
        assert_eq!(reader.take(3).await, ["e", "c", "d"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_comes_in_pieces_and_whole() {
    let site = Site::new().await;
    let mut printer = Printer::new(&site, "one").await;
    let reader = Reader::open(&site, "tail=1", None).await;
    let begin = {
        let mut reader = reader;
        reader.next().await;
        reader.last.unwrap()
    };
    let names: Vec<String> = (0..1_700).map(|n| format!("line {n:04}")).collect();
    for chunk in names.chunks(300) {
        let lines: Vec<(&str, i64)> = chunk.iter().map(|name| (name.as_str(), 0)).collect();
        printer.print(&lines).await;
    }
    let mut all = Vec::new();
    let mut last = begin;
    // One event a connection.
    while all.len() < names.len() {
        let mut reader = Reader::open(&site, "tail=1", Some(&last)).await;
        let some = reader.next().await;
        assert!(some.len() <= 500, "{}", some.len());
        all.extend(some);
        last = reader.last.unwrap();
    }
    assert_eq!(all, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_rights_are_those_of_the_list() {
    let site = Site::new().await;
    let mut printer = Printer::new(&site, "one").await;
    let mut reader = Reader::open(&site, "search=NEEDLE", None).await;
    printer.print(&[("hay", 0), ("a needle", 0), ("hay", 0)]).await;
    assert_eq!(reader.next().await, ["a needle"]);
    let answer = async |token: &str, query: &str, head: &str| {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        let request = format!(
            "GET /api/v1/namespaces/shop/scripts/pay/logs/stream?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{head}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        text
    };
    for (token, query, head, status, part) in [
        ("runs-only", "", "", "403", "customscripts/logs"),
        ("stranger", "", "", "401", "token"),
        ("shop", "status=Failed", "", "400", "status"),
        ("shop", "limit=5", "", "400", "limit"),
        ("shop", "tail=100000", "", "400", "tail"),
        ("shop", "", "Last-Event-ID: garbage\r\n", "400", "begin again"),
    ] {
        let text = answer(token, query, head).await;
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains(part),
            "{query}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_follows() {
    let site = Site::new().await;
    let mut printer = Printer::new(&site, "one").await;
    let mut command = site.command("shop", &["logs", "pay", "-f", "--tail", "1", "-o", "json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(next().await, "message 0");
    printer.print(&[("live", 0)]).await;
    assert_eq!(next().await, "live");
    printer.print(&[("again", 0)]).await;
    assert_eq!(next().await, "again");
    child.kill().await.unwrap();
    let said = site.says("nobody", &["logs", "pay", "-f"]).await;
    said.fails(1, "customscripts/logs");
    let output = site
        .command("shop", &["logs", "nope", "-f"])
        .output()
        .await
        .unwrap();
    Said::from(output).fails(1, "there is no script nope");
}
