//! What goes wrong. Each nemesis torments a bed while pods print, and leaves it to be healed.

use std::{
    fs::{self, File},
    io,
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::{sync::watch, time::sleep};

use crate::{
    bed::{Backend, Bed},
    pod::Habits,
    postgres::Stop,
    proxy::{Direction, Fault},
};

/// Files that kubelet keeps of a container unless told otherwise.
const FILES: usize = 5;
/// So many that a reader which stops for a while finds all.
const MANY_FILES: usize = 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nemesis {
    AgentKilled,
    OperatorKilled,
    BothKilled,
    WireCut,
    SlowServer,
    DiskFull,
    ReadOnlyDatabase,
    ClockSteps,
    ReaderStopped,
    ReaderStoppedTooLong,
    TwoAgents,
    PodDeleted,
    PostgresRestarted,
    PostgresKilled,
    CommitCut,
}

/// When a pod's log is rotated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Now and then, so rarely that nothing unread is ever removed.
    Rare,
    /// Every 100 ms.
    Fast,
}

impl Nemesis {
    pub const ALL: [Self; 15] = [
        Self::AgentKilled,
        Self::OperatorKilled,
        Self::BothKilled,
        Self::WireCut,
        Self::SlowServer,
        Self::DiskFull,
        Self::ReadOnlyDatabase,
        Self::ClockSteps,
        Self::ReaderStopped,
        Self::ReaderStoppedTooLong,
        Self::TwoAgents,
        Self::PodDeleted,
        Self::PostgresRestarted,
        Self::PostgresKilled,
        Self::CommitCut,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::AgentKilled => "agent_killed",
            Self::OperatorKilled => "operator_killed",
            Self::BothKilled => "both_killed",
            Self::WireCut => "wire_cut",
            Self::SlowServer => "slow_server",
            Self::DiskFull => "disk_full",
            Self::ReadOnlyDatabase => "read_only_database",
            Self::ClockSteps => "clock_steps",
            Self::ReaderStopped => "reader_stopped",
            Self::ReaderStoppedTooLong => "reader_stopped_too_long",
            Self::TwoAgents => "two_agents",
            Self::PodDeleted => "pod_deleted",
            Self::PostgresRestarted => "postgres_restarted",
            Self::PostgresKilled => "postgres_killed",
            Self::CommitCut => "commit_cut",
        }
    }

    pub fn suits(self, backend: Backend) -> bool {
        match self {
            Self::DiskFull => backend == Backend::Sqlite,
            Self::PostgresRestarted | Self::PostgresKilled | Self::CommitCut => backend == Backend::Postgres,
            _ => true,
        }
    }

    pub fn needs_disks(self) -> bool {
        matches!(self, Self::DiskFull | Self::ReadOnlyDatabase)
    }

    pub fn small_disk(self) -> bool {
        self == Self::DiskFull
    }

    /// Whether lines may be lost, each loss with a gap record.
    pub fn may_lose(self) -> bool {
        self == Self::ReaderStoppedTooLong
    }

    /// Whether pods end while others print on.
    pub fn deletes_pods(self) -> bool {
        self == Self::PodDeleted
    }

    pub fn habits(self) -> Habits {
        Habits {
            files: if self == Self::ReaderStopped {
                MANY_FILES
            } else {
                FILES
            },
            simple: self.may_lose(),
            clock_steps: self == Self::ClockSteps,
        }
    }

    pub fn rotation(self) -> Rotation {
        match self {
            Self::ReaderStopped | Self::ReaderStoppedTooLong => Rotation::Fast,
            _ => Rotation::Rare,
        }
    }

    /// Goes on until `done`; what it broke may be left broken.
    pub async fn torment(
        self,
        bed: &mut Bed,
        random: &mut Rng,
        done: &mut watch::Receiver<bool>,
    ) -> io::Result<()> {
        if self == Self::TwoAgents {
            bed.start_agent(1)?;
            bed.faults += 1;
        }
        if self.rotation() == Rotation::Fast {
            // The pods are followed first.
            sleep(Duration::from_millis(300)).await;
        }
        loop {
            tokio::select! {
                _ = done.wait_for(|done| *done) => return Ok(()),
                () = pause(random, 5, 60) => {}
            }
            self.once(bed, random).await?;
        }
    }

    async fn once(self, bed: &mut Bed, random: &mut Rng) -> io::Result<()> {
        match self {
            Self::AgentKilled => kill_agent(bed, random, 0).await?,
            Self::OperatorKilled => kill_server(bed, random).await,
            Self::BothKilled => {
                bed.kill_agent(0);
                kill_server(bed, random).await;
                bed.start_agent(0)?;
            }
            Self::WireCut => cut_wire(bed, random),
            Self::SlowServer => slow_down(bed, random).await,
            Self::DiskFull => {
                bed.fill_disk(random.u64(..200_000));
                pause(random, 20, 250).await;
                if random.u8(..4) == 0 {
                    // One that comes back to a full disk.
                    kill_server(bed, random).await;
                }
                bed.free_disk();
                bed.start_server().await;
            }
            Self::ReadOnlyDatabase => {
                bed.make_read_only();
                pause(random, 20, 250).await;
                if random.u8(..4) == 0 {
                    kill_server(bed, random).await;
                }
                if let Some(database) = &bed.database {
                    database.read_only(false);
                }
                bed.make_writable();
                bed.start_server().await;
            }
            Self::ClockSteps => {
                bed.faults += 1;
                step_file_times(bed, random)?;
                if random.u8(..3) == 0 {
                    kill_agent(bed, random, 0).await?;
                }
            }
            Self::ReaderStopped => stop_agent(bed, random, 300).await,
            Self::ReaderStoppedTooLong => stop_agent(bed, random, 1_500).await,
            Self::TwoAgents => {
                let at = random.usize(..2);
                kill_agent(bed, random, at).await?;
            }
            Self::PodDeleted => {
                bed.faults += 1;
                let fault = Fault::Delay(Duration::from_millis(random.u64(1..100)));
                bed.proxy.inject(direction(random), fault);
            }
            Self::PostgresRestarted | Self::PostgresKilled | Self::CommitCut => self.database(bed, random),
        }
        Ok(())
    }
}

impl Nemesis {
    fn database(self, bed: &mut Bed, random: &mut Rng) {
        let Some(database) = &bed.database else { return };
        let time = Duration::from_millis(random.u64(..100));
        match self {
            Self::CommitCut if random.u8(..4) == 0 => {
                // Anything but a commit, too.
                let fault = Fault::Cut(random.usize(..2_000));
                return database.proxy.inject(direction(random), fault);
            }
            Self::CommitCut => {
                return database
                    .proxy
                    .inject(Direction::Request, Fault::CutAfter(b"COMMIT"));
            }
            Self::PostgresKilled if random.bool() => database.kill_process(random.usize(..)),
            Self::PostgresKilled => database.restart(Stop::Immediate, time),
            _ => database.restart(Stop::Fast, time),
        }
        bed.faults += 1;
    }
}

async fn pause(random: &mut Rng, from: u64, to: u64) {
    sleep(Duration::from_micros(random.u64(from * 1_000..to * 1_000))).await;
}

async fn kill_agent(bed: &mut Bed, random: &mut Rng, at: usize) -> io::Result<()> {
    bed.kill_agent(at);
    if random.bool() {
        pause(random, 0, 100).await;
    }
    bed.start_agent(at)
}

async fn kill_server(bed: &mut Bed, random: &mut Rng) {
    bed.kill_server(random.u8(..3) == 0).await;
    if random.bool() {
        pause(random, 0, 100).await;
    }
    bed.start_server().await;
}

fn direction(random: &mut Rng) -> Direction {
    if random.bool() {
        Direction::Request
    } else {
        Direction::Answer
    }
}

fn cut_wire(bed: &mut Bed, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        let (direction, fault) = match random.u8(..6) {
            0 => (Direction::Request, Fault::Cut(random.usize(..4_000))),
            // What was answered is lost, whole or in part.
            1 => (Direction::Answer, Fault::Cut(0)),
            2 => (Direction::Answer, Fault::Cut(random.usize(..300))),
            3 => (direction(random), Fault::HalfClose),
            4 => (
                direction(random),
                Fault::Delay(Duration::from_millis(random.u64(..80))),
            ),
            // What was asked is done all the same.
            _ => (Direction::Request, Fault::CutAfter(b"")),
        };
        bed.proxy.inject(direction, fault);
    }
}

async fn slow_down(bed: &mut Bed, random: &mut Rng) {
    match random.u8(..3) {
        0 => {
            bed.proxy.stall(true);
            pause(random, 20, 250).await;
            bed.proxy.stall(false);
        }
        1 => {
            bed.signal_server(Signal::SIGSTOP);
            pause(random, 20, 250).await;
            bed.signal_server(Signal::SIGCONT);
        }
        _ => {
            for _ in 0..random.usize(1..6) {
                let delay = Duration::from_millis(random.u64(1..60));
                bed.proxy.inject(direction(random), Fault::Delay(delay));
            }
        }
    }
    bed.faults += 1;
}

/// Stops the agent for up to so many milliseconds, for at least half of them.
async fn stop_agent(bed: &mut Bed, random: &mut Rng, millis: u64) {
    bed.signal_agent(0, Signal::SIGSTOP);
    pause(random, millis / 2, millis).await;
    bed.signal_agent(0, Signal::SIGCONT);
    bed.faults += 1;
    pause(random, 50, 200).await;
}

/// The times of log files are those of a clock that was somewhere else.
fn step_file_times(bed: &Bed, random: &mut Rng) -> io::Result<()> {
    let days = Duration::from_secs(random.u64(1..300_000));
    let now = SystemTime::now();
    let time = if random.bool() { now + days } else { now - days };
    for pod in fs::read_dir(bed.logs())? {
        for container in fs::read_dir(pod?.path())? {
            for file in fs::read_dir(container?.path())? {
                // Renamed meanwhile, maybe.
                if let Ok(file) = File::options().append(true).open(file?.path()) {
                    file.set_modified(time)?;
                }
            }
        }
    }
    Ok(())
}
