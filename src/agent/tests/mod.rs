//! The agent's files and decisions against a kubelet, a runtime and an operator that are played, in virtual time.

mod world;

use std::{collections::BTreeMap, fs, time::Duration};

use self::world::{Container, KEPT, Network, World};
use super::{
    batches::BATCH_BYTES,
    rounds::{BACKOFF_MAX, backoff},
    stream::MAX_HELD_FILES,
};
use crate::ingest::wire::{StreamKey, StreamState};

#[test]
fn rotation_with_late_writes_loses_nothing() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    for round in 0..8 {
        pod.print(100);
        world.round();
        pod.print_raw(b"2026-01-02T03:04:05Z stdout P begun in one file\n");
        pod.rotate();
        pod.print_late();
        pod.print_raw(format!("2026-01-02T03:04:06.{round}Z stdout F ended in the next\n").as_bytes());
        world.wait(600);
        world.round();
    }
    world.drain();
    world.check(&pod, false, "rotation");
}

#[test]
fn an_agent_that_was_away_finds_compressed_files_and_its_place_in_them() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    (0..2_000).for_each(|_| pod.print(500));
    world.drain();
    // In the middle of the file that gets compressed meanwhile.
    (0..10).for_each(|_| pod.print(100));
    for _ in 0..KEPT {
        pod.rotate();
        (0..10).for_each(|_| pod.print(100));
    }
    assert_eq!(
        pod.rotated()
            .iter()
            .filter(|p| p.extension().unwrap() == "gz")
            .count(),
        KEPT - 1
    );
    world.restart_agent();
    world.drain();
    world.check(&pod, false, "away");
}

#[test]
fn a_pod_deleted_while_nobody_listens_is_read_to_its_end() {
    let mut world = World::new();
    world.operator.unknown = true;
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.round();
    pod.print(10);
    pod.print_raw(b"2026-01-02T03:04:05Z stdout P no line end");
    pod.delete();
    for _ in 0..50 {
        world.wait(500);
        world.round();
    }
    world.operator.unknown = false;
    world.drain();
    world.check(&pod, true, "deleted");
    assert_eq!(world.node.len(), 0);
}

#[test]
fn each_restart_is_a_stream_that_ends() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    for _ in 0..4 {
        (0..5).for_each(|_| pod.print(10));
        world.wait(600);
        world.round();
        pod.restart();
        pod.print(5);
        // kubelet keeps the log of the last dead container only.
        if let Some(dead) = pod.key.restart.checked_sub(2) {
            fs::remove_file(pod.folder.join(format!("{dead}.log"))).unwrap();
        }
        world.drain();
    }
    world.check(&pod, false, "restarts");
    // The end of the stream is known after a restart of the agent, and not said again.
    world.restart_agent();
    world.drain();
    world.check(&pod, false, "agent restarted");
}

#[test]
fn what_can_not_be_read_is_a_gap_with_its_reason() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.drain();
    // Rotated out of existence while the agent was away.
    for _ in 0..=KEPT {
        pod.print(10);
        pod.rotate();
    }
    pod.print(10);
    world.restart_agent();
    world.drain();
    let stored = &world.operator.streams[&pod.key];
    assert_eq!(stored.gaps, [gap("FileRotatedAway")]);
    let printed = String::from_utf8_lossy(&pod.printed[&0]).into_owned();
    let text = world.stored(&pod.key, 0);
    assert!(text.lines().count() < printed.lines().count());
    assert_eq!(text.lines().last(), printed.lines().last());

    // Cut short by somebody.
    let line = "2026-01-02T03:04:07Z stdout F anew\n";
    fs::write(pod.path(""), line).unwrap();
    world.drain();
    assert_eq!(
        world.operator.streams[&pod.key].gaps,
        [gap("FileRotatedAway"), gap("FileTruncated")]
    );
    assert!(world.stored(&pod.key, 0).ends_with(line));
}

#[test]
fn an_operator_restored_from_a_backup_gets_everything_again() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    (0..5).for_each(|_| pod.print(10));
    world.drain();
    let backup = world.operator.streams.clone();
    for _ in 0..2 {
        (0..5).for_each(|_| pod.print(10));
        pod.rotate();
        (0..5).for_each(|_| pod.print(10));
        world.drain();
    }
    world.operator.streams = backup;
    pod.print(10);
    world.drain();
    world.check(&pod, false, "restored");
}

#[test]
fn a_write_long_after_rotation_is_told_of() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    pod.rotate();
    pod.print(10);
    world.drain();
    pod.print_late();
    world.round();
    pod.print(10);
    world.drain();
    assert_eq!(
        world.operator.streams[&pod.key].gaps,
        [gap("WrittenAfterRotation")]
    );
    assert_eq!(world.stored(&pod.key, 0).lines().count(), 3);
}

#[test]
fn a_pod_of_no_script_is_let_go() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.node.look(world.now);
    let questions = world.node.questions(world.now);
    assert_eq!(questions, [pod.key.clone()]);
    world
        .node
        .answered(&questions, vec![StreamState::Ignore], world.now);
    world.wait(30_000);
    world.node.look(world.now);
    assert!(world.node.questions(world.now).is_empty());
    // Its Deployment may have been adopted since.
    world.wait(31_000);
    world.drain();
    world.check(&pod, false, "adopted");
}

#[test]
fn batches_are_bounded_and_streams_take_turns() {
    let mut world = World::new();
    let mut pods: Vec<_> = (0..12)
        .map(|n| Container::start(world.logs.path(), &format!("p{n}")))
        .collect();
    for pod in &mut pods {
        (0..3_000).for_each(|_| pod.print(900));
    }
    world.round();
    let mut shares: BTreeMap<StreamKey, usize> = BTreeMap::new();
    for _ in 0..3 {
        let batch = world.node.batch(world.now).unwrap();
        assert!(batch.bytes.len() <= BATCH_BYTES, "{}", batch.bytes.len());
        for header in &batch.headers {
            *shares.entry(header.stream.clone()).or_default() += header.length as usize;
        }
        let results = world.operator.append(&batch);
        world.node.delivered(&batch.headers, &results, world.now);
    }
    assert_eq!(shares.len(), pods.len(), "every stream had its turn: {shares:?}");
    world.drain();
    for pod in &pods {
        world.check(pod, false, "turns");
    }
}

#[test]
fn a_busy_stream_does_not_keep_the_others_waiting() {
    let mut world = World::new();
    let mut busy = Container::start(world.logs.path(), "busy");
    (0..2_000).for_each(|_| busy.print(15_000));
    let mut quiet: Vec<_> = (0..100)
        .map(|n| Container::start(world.logs.path(), &format!("q{n}")))
        .collect();
    world.round();
    for pod in &mut quiet {
        pod.print(100);
    }
    world.wait(20);
    world.round();
    for pod in &quiet {
        world.check(pod, false, "after one batch");
    }
    assert!(world.node.backlog() > 10 << 20, "there is more of the busy one");
    world.drain();
    world.check(&busy, false, "busy");
}

#[test]
fn files_that_rotate_faster_than_they_settle_leave_no_gap() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    // Files are there for less time than there is between two listings.
    let _told = world.node.watch().unwrap();
    world.round();
    for _ in 0..3 * MAX_HELD_FILES {
        pod.print(50);
        world.wait(10);
        world.round();
        pod.rotate();
    }
    pod.print(50);
    world.drain();
    world.check(&pod, false, "fast");
}

#[test]
fn a_gap_says_how_many_bytes_and_is_told_once() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.drain();
    world.network = Network::LosesRequests;
    for _ in 0..MAX_HELD_FILES + 5 {
        pod.print(5_000);
        world.wait(600);
        world.round();
        pod.rotate();
    }
    pod.print(10);
    // The gap is stored; nobody hears of it.
    world.network = Network::LosesAnswers;
    world.round();
    world.drain();
    let stored = &world.operator.streams[&pod.key];
    let [(reason, lost)] = &stored.gaps[..] else {
        panic!("{:?}", stored.gaps)
    };
    assert_eq!(reason, "FileRotatedAway");
    let printed = pod.printed[&0].len() as u64;
    assert!(*lost > 5_000);
    assert_eq!(stored.bytes.len() as u64 + lost, printed);
    assert_eq!(stored.position.offset, printed);
}

#[test]
fn a_stream_forgotten_and_known_again_goes_on_where_it_stood() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    // Seen as they come: of files that come and go between two listings nobody can say how many there were.
    let _told = world.node.watch().unwrap();
    pod.print(10);
    world.drain();
    pod.rotate();
    pod.print(10);
    world.wait(600);
    world.operator.unknown = true;
    // The first file is read and let go, and the answer to the second is that nobody knows the stream.
    world.round();
    for _ in 0..=KEPT {
        pod.rotate();
        pod.print(10);
        world.wait(100);
        world.round();
    }
    world.operator.unknown = false;
    world.drain();
    world.check(&pod, false, "known again");
}

#[test]
fn a_file_rotated_and_compressed_between_two_looks_keeps_its_place() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    // The file is open, and nobody has said yet where to begin.
    world.operator.unknown = true;
    world.round();
    pod.print(10);
    pod.rotate();
    pod.print(10);
    pod.rotate();
    pod.print(10);
    world.wait(600);
    world.round();
    world.operator.unknown = false;
    world.drain();
    world.check(&pod, false, "place");
}

#[test]
fn a_deleted_pod_is_read_on_from_where_its_stream_stands() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.drain();
    world.operator.unknown = true;
    world.restart_agent();
    world.round();
    for _ in 0..2 {
        pod.print(10);
        pod.rotate();
        pod.print(10);
        world.wait(600);
        world.round();
    }
    pod.delete();
    world.wait(600);
    world.round();
    world.operator.unknown = false;
    world.drain();
    world.check(&pod, true, "deleted");
}

#[test]
fn empty_files_do_not_hide_what_comes_after_them() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.drain();
    for _ in 0..=KEPT {
        pod.rotate();
    }
    pod.print(10);
    world.restart_agent();
    world.drain();
    assert_eq!(world.operator.streams[&pod.key].gaps, [gap("FileRotatedAway")]);
    assert!(world.stored(&pod.key, 0).ends_with("a-2-xxxxxxxxxx\n"));
}

#[test]
fn many_compressed_files_are_read_a_few_at_a_time() {
    let mut world = World::new();
    let mut pods: Vec<_> = (0..40)
        .map(|n| Container::start(world.logs.path(), &format!("p{n}")))
        .collect();
    for pod in &mut pods {
        (0..20).for_each(|_| pod.print(5_000));
        pod.rotate();
        pod.print(10);
        pod.rotate();
        pod.print(10);
    }
    world.drain();
    for pod in &pods {
        world.check(pod, false, "compressed");
    }
}

#[test]
fn a_container_that_printed_nothing_has_an_end_too() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    world.wait(600);
    world.round();
    pod.restart();
    world.drain();
    assert_eq!(world.stored(&pod.key, 0), "\n");
    world.restart_agent();
    world.drain();
    assert_eq!(world.stored(&pod.key, 0), "\n", "its end is said once");
    assert_eq!(world.stored(&pod.key, 1), "");
}

#[test]
fn what_is_given_up_unread_is_told() {
    let mut world = World::new();
    world.operator.unknown = true;
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.round();
    pod.delete();
    world.wait(1_000);
    world.round();
    assert!(world.node.given_up().is_empty());
    world.wait(16 * 60_000);
    world.round();
    assert_eq!(world.node.given_up(), [pod.key.clone()]);
    world.node.told_given_up(1);
    assert!(world.node.given_up().is_empty());
    assert_eq!(world.node.len(), 0);
}

#[test]
fn nothing_is_lost_or_twice_whatever_happens() {
    // More for a soak.
    let seeds = std::env::var("SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut pods: Vec<_> = (0..3)
            .map(|n| Container::start(world.logs.path(), &format!("p{n}")))
            .collect();
        let mut gone = Vec::new();
        // Something exists only in the agent's open files.
        let mut agent_must_live = false;
        for _ in 0..120 {
            let place = random.usize(..pods.len());
            let pod = &mut pods[place];
            match random.u8(..20) {
                0..8 => (0..random.usize(1..30)).for_each(|_| pod.print(random.usize(..3_000))),
                8..10 => {
                    // An empty file is not rotated.
                    pod.print(20);
                    pod.rotate();
                    if random.u8(..3) == 0 {
                        // Twice between two looks; by now the first is compressed.
                        (0..random.usize(1..4)).for_each(|_| pod.print(random.usize(..9_000)));
                        pod.rotate();
                    }
                    agent_must_live |= pod.rotations > 1;
                    for _ in 0..random.usize(..4) {
                        pod.print_late();
                    }
                    (0..random.usize(..3)).for_each(|_| pod.print(20));
                    world.wait(550);
                    world.round();
                }
                10 => {
                    world.wait(550);
                    world.round();
                    pod.restart();
                }
                11 if pods.len() > 1 => {
                    world.wait(550);
                    world.round();
                    let pod = pods.swap_remove(place);
                    pod.delete();
                    gone.push(pod);
                    agent_must_live = true;
                }
                12 => {
                    if agent_must_live {
                        world.drain();
                        agent_must_live = false;
                    }
                    world.restart_agent();
                }
                13 => world.network = Network::LosesAnswers,
                14 => world.network = Network::LosesRequests,
                15 => world.network = Network::Works,
                _ => {}
            }
            world.wait(random.u64(..400));
            if random.bool() {
                world.round();
            }
        }
        world.drain();
        let hint = format!("seed {seed}");
        for pod in &pods {
            world.check(pod, false, &hint);
        }
        for pod in &gone {
            world.check(pod, true, &hint);
        }
    }
}

#[test]
fn a_file_compressed_between_two_looks_keeps_its_place() {
    let mut world = World::new();
    world.operator.unknown = true;
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.round();
    for _ in 0..2 {
        pod.rotate();
        pod.print(10);
    }
    world.wait(600);
    world.round();
    // Only now is it said where to begin, so the files are put in order again.
    world.operator.unknown = false;
    world.drain();
    world.check(&pod, false, "compressed");
}

#[test]
fn a_file_opened_empty_and_compressed_between_two_looks_is_read_once() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    world.drain();
    for _ in 0..2 {
        pod.print(10);
        pod.rotate();
    }
    pod.print(10);
    world.drain();
    world.check(&pod, false, "compressed");
}

#[test]
fn files_removed_unseen_between_two_looks_are_a_gap() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.drain();
    for _ in 0..KEPT + 2 {
        pod.print(10);
        pod.rotate();
    }
    pod.print(10);
    world.drain();
    let gaps = &world.operator.streams[&pod.key].gaps;
    assert_eq!(
        gaps.iter().map(|(reason, _)| &**reason).collect::<Vec<_>>(),
        ["FileRotatedAway"]
    );
    let (stored, printed) = (world.stored(&pod.key, 0), &pod.printed[&0]);
    assert!(stored.len() < printed.len());
    assert!(
        printed.ends_with(
            stored
                .lines()
                .last()
                .map(|l| format!("{l}\n"))
                .unwrap()
                .as_bytes()
        )
    );
}

#[test]
fn waiting_grows_to_five_seconds() {
    assert_eq!(backoff(1, 1.0), Duration::from_millis(100));
    assert_eq!(backoff(3, 1.0), Duration::from_millis(400));
    assert_eq!(backoff(3, 0.0), Duration::from_millis(200));
    assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
}

/// A gap of which nobody knows how many bytes it has.
fn gap(reason: &str) -> (String, u64) {
    (reason.to_owned(), 0)
}
