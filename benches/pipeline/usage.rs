//! What a process has used so far, from procfs.

use std::fs;

/// Clock ticks in a second; Linux has shown processes no other number for decades.
const TICKS: f64 = 100.0;

/// User and system time of a process, seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    seconds(pid, 11)
}

/// The same of its children that have ended and were waited for.
pub fn ended_children_cpu_seconds(pid: u32) -> f64 {
    seconds(pid, 13)
}

/// The sum of two fields of a process that follow each other.
fn seconds(pid: u32, field: usize) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in brackets may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[field].parse::<f64>().unwrap() + fields[field + 1].parse::<f64>().unwrap()) / TICKS
}

/// The largest resident memory of a process, bytes.
pub fn max_rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
