//! Log files as kubelet's runtime writes them.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use jiff::Timestamp;

use crate::testbed::Pod;

/// Bytes of a plain line's message.
pub const PLAIN_MESSAGE: usize = 124;

/// Pods `p0`, `p1`, ... of one script.
pub fn pods(count: usize, script: &str) -> Vec<Pod> {
    let pod = |n| Pod {
        uid: format!("00000000-0000-4000-8000-{n:012}"),
        script: script.to_owned(),
    };
    (0..count).map(pod).collect()
}

/// Writes `lines` plain lines with 64 bits of random each, a microsecond apart, spread over the pods' files.
pub fn plain(logs: &Path, pods: &[Pod], lines: usize) {
    let mut random = fastrand::Rng::with_seed(1);
    let began = Timestamp::now().as_nanosecond() - lines as i128 * 1_000;
    for (n, pod) in pods.iter().enumerate() {
        let mut file = create(logs, pod);
        for k in (n..lines).step_by(pods.len()) {
            let time = Timestamp::from_nanosecond(began + k as i128 * 1_000).unwrap();
            let message = plain_message(k, random.u64(..));
            writeln!(file, "{time:.9} stdout F {message}").unwrap();
        }
        file.flush().unwrap();
    }
}

/// Bytes of a span's JSON.
pub const SPAN_BYTES: usize = 700;

/// Writes `spans` spans as korelogger prints them without a runner: on one line, and the line's echo after it.
pub fn spans(logs: &Path, pods: &[Pod], spans: usize) {
    let mut random = fastrand::Rng::with_seed(2);
    let began = Timestamp::now().as_nanosecond() - spans as i128 * 2_000;
    for (n, pod) in pods.iter().enumerate() {
        let mut file = create(logs, pod);
        for k in (n..spans).step_by(pods.len()) {
            let time = Timestamp::from_nanosecond(began + k as i128 * 2_000).unwrap();
            let (span, echo) = span(k, time, random.u64(..));
            writeln!(file, "{time:.9} stdout F {span}").unwrap();
            writeln!(file, "{time:.9} stdout F {echo}").unwrap();
        }
        file.flush().unwrap();
    }
}

/// A span and its echo. A run logs ten lines.
fn span(n: usize, time: Timestamp, random: u64) -> (String, String) {
    let run = n / 10;
    let trace = format!("{:032x}", u128::from(run as u64) * 0x9e37_79b9_7f4a_7c15);
    let message = format!("balance {random:016x} of account {} was read", n % 1_000);
    let mut span = format!(
        r#"{{"name":"gvisor_info_log","context":{{"trace_id":"0x{trace}","span_id":"0x{random:016x}","trace_state":"[]"}},"kind":"SpanKind.INTERNAL","parent_id":null,"start_time":"{time:.6}","end_time":"{time:.6}","status":{{"status_code":"UNSET"}},"attributes":{{"run_id":"run_{run}","log.message":"{message}","log.level":"INFO","log.meta.msg":"{message}","log.meta.pid":"41","log.meta.logid":"{n:024x}","shop":""#
    );
    let end = r#""},"events":[],"links":[],"resource":{"attributes":{"service.name":"gvisor-py-normal","service.instance.id":"pod"},"schema_url":""}}"#;
    let padding = SPAN_BYTES.saturating_sub(span.len() + end.len());
    span.extend(std::iter::repeat_n('s', padding));
    span.push_str(end);
    (span, format!("INFO :: {message}"))
}

/// A line as a service prints it.
pub fn plain_message(n: usize, random: u64) -> String {
    let mut text = format!(
        "request {random:016x} of customer {} was answered with status 200 after {} ms; balance is in the cache",
        n % 1_000,
        n % 97
    );
    let padding = PLAIN_MESSAGE.saturating_sub(text.len());
    text.extend(std::iter::repeat_n('.', padding));
    text
}

/// The first log file of a pod.
pub fn create(logs: &Path, pod: &Pod) -> BufWriter<File> {
    let folder = logs.join(pod.folder());
    fs::create_dir_all(&folder).unwrap();
    BufWriter::with_capacity(1 << 20, File::create(folder.join("0.log")).unwrap())
}
