//! What a run of many hosts asks of a shared file system: each file that is made or opened costs a
//! round trip to one metadata server, for all hosts together. Linux tells what happens in a
//! directory (inotify); on other systems these tests skip.

#![cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "counting needs inotify")
)]

use crate::several_hosts::{Cluster, HostOfRanks, gather};
use laggard_record::{ClosingStatus, Record, RecordWriter, is_shared, remove_part};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOSTS: u32 = 64;
const TABLES: u32 = 3;
/// After how many seconds a writer flushes of its own accord: the first times, and all others.
const OWN_FLUSH_SECONDS: [u64; 4] = [1, 2, 4, 5];

/// What happened to files in the record's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    created: u32,
    opened: u32,
    /// Flushes of each host that writers may have added to those asked for, in a slow test.
    late: u32,
}

/// Runs all hosts, which flush so often, and closes the record. Without `staging` all hosts write
/// to the record; with it each has a scratch directory, which is gathered.
#[cfg(target_os = "linux")]
fn run(ranks: u32, flushes: u32, staging: bool) -> Counts {
    let dir = tempfile::tempdir().expect("temporary directory");
    let record = dir.path().join("record");
    std::fs::create_dir(&record).expect("a directory");
    let mut watch = linux::Watch::new(&record);
    let cluster = Cluster {
        hosts: HOSTS,
        ranks,
    };
    let begin = Instant::now();
    let writers = writers(cluster, &dir, &record, staging);
    for table in ["samples", "steps", "telemetry", "device_telemetry"] {
        watch.add(&record.join(table));
    }
    let mut hosts: Vec<HostOfRanks> = (0..)
        .zip(writers)
        .map(|(host, writer)| HostOfRanks::new(cluster, host, writer))
        .collect();
    for flush in 0..flushes {
        hosts.iter_mut().for_each(|host| host.run(flush..flush + 1));
        watch.collect();
    }
    let mut writers = hosts.into_iter().map(|host| host.end().0);
    let root = writers.next().expect("a root");
    let closed: Vec<_> = writers.map(RecordWriter::close_part).collect();
    if staging {
        for part in 1..HOSTS {
            let scratch = scratch(&dir, part);
            gather(&scratch, part, &record);
            remove_part(&scratch, part).expect("removed");
        }
    }
    root.close_with_parts(ClosingStatus::Finished, flushes, closed)
        .expect("closed");
    watch.collect();
    let late = own_flushes(begin.elapsed());
    let read = Record::open(&record).expect("a record");
    let reading = read.samples(|_| {}).expect("samples");
    let expect = u64::from(cluster.world() * flushes * 3);
    assert_eq!((reading.rows, reading.caveats), (expect, vec![]));
    Counts {
        created: watch.created,
        opened: watch.opened,
        late,
    }
}

/// How often a writer that is so old has flushed of its own accord at most.
fn own_flushes(age: Duration) -> u32 {
    let [first, second, third, usual] = OWN_FLUSH_SECONDS;
    let others = std::iter::repeat(usual);
    let pauses = [first, second, third].into_iter().chain(others);
    let times = pauses.scan(0, |time, pause| {
        *time += pause;
        Some(*time)
    });
    times.take_while(|time| *time <= age.as_secs()).count() as u32
}

fn writers(cluster: Cluster, dir: &TempDir, record: &Path, staging: bool) -> Vec<RecordWriter> {
    let manifest = cluster.manifest();
    let root = if staging {
        RecordWriter::create_staged(record, &scratch(dir, 0), &manifest)
    } else {
        RecordWriter::create(record, &manifest)
    };
    let root = root.expect("a new record");
    let nonce = root.nonce().expect("a marker").to_owned();
    let join = |part| {
        let place = if staging {
            scratch(dir, part)
        } else {
            assert!(is_shared(record, &nonce));
            record.to_owned()
        };
        RecordWriter::join(&place, &manifest, part).expect("a part")
    };
    let joined: Vec<RecordWriter> = (1..HOSTS).map(join).collect();
    std::iter::once(root).chain(joined).collect()
}

fn scratch(dir: &TempDir, part: u32) -> std::path::PathBuf {
    dir.path().join(format!("scratch-{part}"))
}

#[test]
#[cfg(target_os = "linux")]
fn hosts_and_flushes_make_files_and_ranks_do_not() {
    const FLUSHES: u32 = 3;
    // Manifest, marker and closing; histograms once per host, opened again at each flush.
    let once = 3 + HOSTS;
    let created = once + HOSTS * TABLES * FLUSHES;
    // Each other host reads the manifest.
    let opened = created + HOSTS * (FLUSHES - 1) + (HOSTS - 1);
    for ranks in [1, 8] {
        let counts = run(ranks, FLUSHES, false);
        let late = counts.late * HOSTS;
        let fits = |count: u32, expect: u32, slack: u32| (expect..=expect + slack).contains(&count);
        assert!(
            fits(counts.created, created, late * TABLES),
            "{ranks} ranks: {counts:?}, not {created}"
        );
        assert!(
            fits(counts.opened, opened, late * (TABLES + 1)),
            "{ranks} ranks: {counts:?}, not {opened}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn staged_parts_make_as_many_files_however_often_they_flush() {
    // Manifest, marker and closing; a file per table, and histograms, of each host.
    let expect = 3 + HOSTS * (TABLES + 1);
    for (ranks, flushes) in [(1, 2), (8, 4)] {
        let counts = run(ranks, flushes, true);
        assert_eq!(
            (counts.created, counts.opened),
            (expect, expect),
            "{ranks} ranks, {flushes} flushes"
        );
    }
}

#[test]
#[cfg(not(target_os = "linux"))]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn counting_needs_linux() {
    eprintln!("skipped: this system does not tell which files are made");
}

#[cfg(target_os = "linux")]
mod linux {
    use nix::errno::Errno;
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    use std::path::Path;

    /// Counts what happens to files in some directories.
    pub(super) struct Watch {
        inotify: Inotify,
        pub(super) created: u32,
        pub(super) opened: u32,
    }

    impl Watch {
        pub(super) fn new(dir: &Path) -> Self {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
            let mut watch = Self {
                inotify,
                created: 0,
                opened: 0,
            };
            watch.add(dir);
            watch
        }

        pub(super) fn add(&mut self, dir: &Path) {
            let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_OPEN;
            self.inotify.add_watch(dir, events).expect("a watch");
        }

        /// Takes in what happened; must be called before the system's queue is full.
        pub(super) fn collect(&mut self) {
            loop {
                let events = match self.inotify.read_events() {
                    Ok(events) => events,
                    Err(Errno::EAGAIN) => return,
                    Err(error) => panic!("inotify: {error}"),
                };
                for event in events {
                    let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                    assert!(!lost, "events were lost");
                    if event.mask.contains(AddWatchFlags::IN_ISDIR) {
                        continue;
                    }
                    self.created += u32::from(event.mask.contains(AddWatchFlags::IN_CREATE));
                    self.opened += u32::from(event.mask.contains(AddWatchFlags::IN_OPEN));
                }
            }
        }
    }
}
