//! Log lines by the million, appended to a store as the ingest does it, with messages that are all different.

use std::sync::Arc;

use jiff::Timestamp;
use scriptscope::{
    ingest::{
        record::{NewLine, Record},
        wire::{Position, StreamKey},
    },
    model::{LogLevel, ScriptKey},
    store::{Append, PodRecord, Store},
};

use crate::generate;

/// Lines of one append.
const LINES: usize = 65_536;
/// About how many bytes a line takes in the pod's file.
const LINE_BYTES: u64 = 170;

/// Which lines there are.
pub struct Lines {
    pub script: ScriptKey,
    /// The version of the pod that printed them.
    pub version: i64,
    pub count: usize,
    /// Microseconds from one to the next; the last one is now.
    pub step: i64,
    /// Of each line.
    pub level: fn(usize) -> LogLevel,
}

/// Appends the lines. Gives ids that stand in one line each, from old to new.
pub async fn fill(store: &Arc<dyn Store>, lines: &Lines) -> Vec<String> {
    let stream = stream(store, lines).await;
    let mut random = fastrand::Rng::with_seed(1);
    let begin = Timestamp::now().as_microsecond() - lines.count as i64 * lines.step;
    let mut ids = Vec::new();
    for first in (0..lines.count).step_by(LINES) {
        let last = (first + LINES).min(lines.count);
        let mut records = Vec::with_capacity(last - first);
        for n in first..last {
            let id = random.u64(..);
            if n % 7_919 == 0 {
                ids.push(format!("{id:016x}"));
            }
            records.push(Record::Line(NewLine {
                offset: n as u64 * LINE_BYTES,
                index: 0,
                time: Timestamp::from_microsecond(begin + n as i64 * lines.step).unwrap(),
                level: (lines.level)(n),
                run_id: None,
                message: generate::plain_message(n, id),
                attributes: None,
            }));
        }
        let append = Append {
            stream,
            expected_offset: first as u64 * LINE_BYTES,
            position: Position {
                offset: last as u64 * LINE_BYTES,
                file: "f".to_owned(),
                file_start: 0,
            },
            carry: Vec::new(),
            records: records.into(),
            gap: None,
            last_word: None,
        };
        store.append(vec![append]).await.unwrap();
    }
    ids
}

/// The stream of a pod of its own.
async fn stream(store: &Arc<dyn Store>, lines: &Lines) -> i64 {
    let pod = PodRecord {
        uid: "u".to_owned(),
        name: "pod".to_owned(),
        container: "script".to_owned(),
        script: lines.script.clone(),
        version: lines.version,
        deployment_id: "d".to_owned(),
    };
    store.register_pod(&pod).await.unwrap();
    let key = StreamKey {
        namespace: pod.script.namespace,
        pod: pod.name,
        pod_uid: pod.uid,
        container: pod.container,
        restart: 0,
    };
    store.open_streams(&[key]).await.unwrap().remove(0).unwrap().id
}
