//! Ranks that are processes and meet by the variables of a launcher, as torchrun sets them.

use crate::fakes;
use crate::ranks::Ranks;
use laggard_backend::conformance::CHECKS;
use laggard_backend::control::{MeetingPoint, part_of};
use laggard_backend::{Abort, Messenger};
use laggard_cuda::{CudaError, Nccl, NcclOptions};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(120);

/// Set in processes that are to have an old NCCL.
pub(crate) const OLD: &str = "LAGGARD_TEST_OLD_NCCL";

/// Runs a test's body in so many processes at the same time, each with both stand-ins and its own
/// variables besides.
pub(crate) fn in_processes(
    test: &str,
    ranks: u32,
    own: impl Fn(u32) -> Vec<(&'static str, &'static str)> + Sync,
    body: fn(),
) {
    if std::env::var_os("RANK").is_some() {
        return fakes::in_child(test, &[], body);
    }
    // Held as torchrun's store holds its port: ranks meet on one of the next.
    let store = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = store.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let size = ranks.to_string();
    std::thread::scope(|scope| {
        for rank in 0..ranks {
            let (own, port, size, folder) = (&own, &port, &size, folder.path());
            scope.spawn(move || {
                let rank_text = rank.to_string();
                let mut variables = vec![
                    ("RANK", rank_text.as_str()),
                    ("WORLD_SIZE", size),
                    ("MASTER_ADDR", "127.0.0.1"),
                    ("MASTER_PORT", port),
                    ("TORCHELASTIC_USE_AGENT_STORE", "True"),
                    ("TORCHELASTIC_RUN_ID", test),
                    ("LAGGARD_FAKE_NCCL", folder.to_str().unwrap()),
                ];
                variables.extend(own(rank));
                fakes::in_child(test, &variables, body);
            });
        }
    });
    let left = folder.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "files of communicators are left");
}

/// Meets the other processes.
fn meet() -> Arc<dyn Messenger> {
    let meeting = MeetingPoint::from_variables(|name| std::env::var(name).ok());
    let meeting = meeting.unwrap().expect("a launcher's variables");
    meeting.meet("here", LONG, &Abort::default()).unwrap()
}

/// The suite over worlds of every size, of which some ranks are not in the smaller ones.
pub(crate) fn conform() {
    let all = meet();
    let options = NcclOptions {
        check_calls: true,
        ..NcclOptions::default()
    };
    let ranks = Ranks::new(options);
    for size in 2..=all.size() {
        for check in CHECKS.iter().filter(|check| check.least_ranks <= size) {
            let is_in = all.rank() < size;
            let members = if is_in { 0..size } else { size..all.size() };
            let deadline = Instant::now() + LONG;
            let part = part_of(&*all, members, "here", &Abort::default(), deadline).unwrap();
            if !is_in {
                continue;
            }
            let outcome = ranks.one(part.rank(), part, &|candidate, options| {
                let world = candidate.join(options).unwrap().into_world();
                (check.body)(&world)
            });
            outcome.unwrap_or_else(|violation| {
                panic!("{} over {size} processes: {violation}", check.name)
            });
        }
    }
}

/// One of three processes has an old library.
pub(crate) fn versions() {
    let all = meet();
    let is_old = std::env::var_os(OLD).is_some();
    let mut ranks = Ranks::new(NcclOptions::default());
    ranks.nccls = vec![Nccl::load(&fakes::surroundings(is_old)).unwrap()];
    let rank = all.rank();
    let end = ranks.one(rank, all, &|candidate, options| {
        candidate.join(options).map(|_| ())
    });
    let Err(CudaError::NcclVersions { versions }) = end else {
        panic!("{end:?}");
    };
    let expect = "2.18.5 on rank 2 (host here), 2.30.7 on 2 ranks, the first 0 (host here)";
    assert_eq!(versions, expect);
}
