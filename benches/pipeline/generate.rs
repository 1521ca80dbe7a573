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
