//! Benchmarks on ranks of this process. How fast anything is cannot be judged here: what is judged
//! is that every sample is there, results are right, and a rank that comes late shows as late.

use super::*;
use laggard_backend::threads::ThreadOptions;
use laggard_backend::{Call, Communicator, Launch, Token};
use laggard_record::Placement;
use laggard_types::{CaveatCode, Collective, ReduceOp};
use std::sync::Mutex;

fn settings() -> SweepSettings {
    SweepSettings {
        collectives: SweepSettings::COLLECTIVES.to_vec(),
        sizes: Sizes {
            first: 4,
            last: 4096,
            factor: 8,
        },
        placements: vec![Placement::OutOfPlace, Placement::InPlace],
        data_type: DataType::F32,
        op: ReduceOp::Sum,
        calls: Repetitions::Exactly(5),
        warm_up: 1,
        products: Vec::new(),
        triad_bytes: None,
        rounds: 3,
        pair_bytes: None,
        late: None,
        timeout: Duration::from_secs(60),
    }
}

fn measured(ranks: u32, settings: &SweepSettings) -> BenchSamples {
    let hooks = SweepHooks {
        stop: &|| None,
        progress: &|_| (),
    };
    sweep_here(ranks, settings, &hooks).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_call_of_every_rank_is_there_and_right() {
    for ranks in [1, 2, 3] {
        for (data_type, op) in [
            (DataType::F32, ReduceOp::Sum),
            (DataType::Bf16, ReduceOp::Avg),
            (DataType::I32, ReduceOp::Max),
        ] {
            let settings = SweepSettings {
                data_type,
                op,
                ..settings()
            };
            let found = measured(ranks, &settings);
            // 4, 32, 256 and 2048 bytes; the smallest is too small to be divided.
            let divided = [4u64, 32, 256, 2048]
                .iter()
                .filter(|bytes| **bytes / data_type.size_bytes() as u64 >= u64::from(ranks));
            let divided = divided.count();
            // Both places of sums and of what is divided, one of broadcasts and messages.
            assert_eq!(found.collectives.len(), 2 * 4 + 3 * 2 * divided + 4 + 4);
            for point in &found.collectives {
                let case = format!("{ranks} ranks, {point:?}");
                assert!(point.wrong.iter().all(|wrong| *wrong == 0), "{case}");
                assert_eq!(point.calls.len(), ranks as usize, "{case}");
                assert!(point.calls.iter().all(|calls| calls.len() == 5), "{case}");
                let ends = point.calls.iter().flatten();
                assert!(ends.clone().all(|[begin, end]| begin <= end), "{case}");
                assert!(point.back_to_back_ns.iter().all(|ns| *ns > 0.0), "{case}");
            }
        }
    }
}

#[test]
fn kernels_and_pairs_are_measured_on_every_rank() {
    let shape = ProductShape {
        name: "small".to_owned(),
        m: 24,
        n: 40,
        k: 16,
    };
    let settings = SweepSettings {
        collectives: Vec::new(),
        products: vec![shape],
        triad_bytes: Some(100_000),
        pair_bytes: Some(1000),
        ..settings()
    };
    let found = measured(3, &settings);
    assert!(found.collectives.is_empty());
    let names: Vec<&str> = found.compute.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["small", "triad"]);
    for kernel in &found.compute {
        assert!(kernel.seconds.iter().all(|rounds| rounds.len() == 3));
        let all = kernel.seconds.iter().flatten();
        assert_eq!(all.filter(|seconds| **seconds > 0.0).count(), 9);
    }
    let pairs: Vec<_> = found
        .pairs
        .iter()
        .map(|pair| (pair.from, pair.to))
        .collect();
    assert_eq!(pairs, [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]);
    assert!(found.pairs.iter().all(|pair| pair.seconds.len() == 7));
    assert!(found.ranks.iter().all(|rank| rank.peak.is_some()));
}

#[test]
fn a_rank_that_comes_late_arrives_late_and_stays_short() {
    let settings = SweepSettings {
        collectives: vec![Collective::AllReduce],
        sizes: Sizes {
            first: 64,
            last: 64,
            factor: 2,
        },
        placements: vec![Placement::OutOfPlace],
        calls: Repetitions::Exactly(9),
        late: Some(Late {
            rank: 1,
            by: Duration::from_millis(20),
        }),
        ..settings()
    };
    let found = measured(2, &settings);
    let point = &found.collectives[0];
    // 20 ms of arithmetic may take longer on a loaded machine, and never much less; the peak that
    // it is measured by may have been taken under load.
    let late = point.calls[0].iter().zip(&point.calls[1]);
    let late = late.filter(|(early, late)| late[0] - early[0] > 1_000_000);
    assert!(late.count() >= 7, "{:?}", point.calls);
    assert!(
        found
            .caveats
            .iter()
            .any(|it| it.message.contains("rank 1 came late"))
    );
}

#[test]
fn a_signal_keeps_what_was_measured() {
    let asked = Mutex::new(0);
    let hooks = SweepHooks {
        stop: &|| {
            let mut asked = asked.lock().expect("no panic");
            *asked += 1;
            // Ranks ask in turn; rank 0 alone counts.
            (*asked > 4).then(|| Signal {
                name: "SIGINT".to_owned(),
            })
        },
        progress: &|_| (),
    };
    let found = sweep_here(2, &settings(), &hooks).unwrap_or_else(|error| panic!("{error}"));
    assert!((1..5).contains(&found.collectives.len()));
    assert!(
        found
            .caveats
            .iter()
            .any(|it| it.code == CaveatCode::NotClosed)
    );
}

#[test]
fn a_signal_ends_probes_of_pairs_too() {
    let asked = Mutex::new(0);
    let hooks = SweepHooks {
        stop: &|| {
            let mut asked = asked.lock().expect("no panic");
            *asked += 1;
            (*asked > 5).then(|| Signal {
                name: "SIGINT".to_owned(),
            })
        },
        progress: &|_| (),
    };
    let settings = SweepSettings {
        collectives: Vec::new(),
        pair_bytes: Some(4),
        ..settings()
    };
    let found = sweep_here(4, &settings, &hooks).unwrap_or_else(|error| panic!("{error}"));
    // Of 12; on one machine, one pair is probed at a time.
    assert!(found.pairs.len() < 12, "{}", found.pairs.len());
    let mut codes = found.caveats.iter().map(|it| it.code);
    assert!(codes.any(|code| code == CaveatCode::NotClosed));
}

/// Refuses the calls of one rank, or falsifies the results of all.
struct Spoilt {
    inner: Box<dyn Communicator>,
    loses: bool,
}

impl Communicator for Spoilt {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn size(&self) -> u32 {
        self.inner.size()
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        match call {
            Call::AllReduce { send, recv, .. } if !self.loses => {
                // What is not the sum.
                let op = ReduceOp::Min;
                self.inner
                    .enqueue(Call::AllReduce { send, recv, op }, launch)
            }
            Call::AllReduce { .. } if self.rank() == 1 => Err(BackendError::Invalid {
                rank: 1,
                call: "all_reduce".to_owned(),
                why: "it is spoilt".to_owned(),
            }),
            other => self.inner.enqueue(other, launch),
        }
    }

    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        self.inner.split(color, key)
    }
}

fn spoilt(loses: bool) -> Result<BenchSamples, MeasureError> {
    let all = worlds(2, &ThreadOptions::default()).unwrap().into_iter();
    let all: Vec<World> = all
        .map(|world| World {
            data: Box::new(Spoilt {
                inner: world.data,
                loses,
            }),
            ..world
        })
        .collect();
    let settings = SweepSettings {
        collectives: vec![Collective::AllReduce],
        ..settings()
    };
    let hooks = SweepHooks {
        stop: &|| None,
        progress: &|_| (),
    };
    sweep_on(&all, &by_threads(), &settings, &hooks)
}

#[test]
fn wrong_results_are_counted() {
    let found = spoilt(false).unwrap_or_else(|error| panic!("{error}"));
    let largest = found.collectives.last().expect("points");
    assert!(
        largest.wrong.iter().all(|wrong| *wrong > 100),
        "{:?}",
        largest.wrong
    );
}

#[test]
fn a_rank_that_fails_ends_all_others_and_is_named() {
    let error = spoilt(true).expect_err("a rank cannot go on");
    let words = error.to_string();
    assert!(
        words.starts_with("rank 1, all_reduce of 4 bytes, out of place: "),
        "{words}"
    );
    assert!(words.contains("it is spoilt"), "{words}");
}

/// Settings are refused, for a reason and with a hint.
fn refused(settings: SweepSettings, expect: &str) {
    let hooks = SweepHooks {
        stop: &|| None,
        progress: &|_| (),
    };
    let words = match sweep_here(1, &settings, &hooks) {
        Ok(_) => panic!("not refused: {expect}"),
        Err(error) => error.to_string(),
    };
    assert!(
        words.contains(expect) && words.contains("hint: "),
        "{words}"
    );
}

#[test]
fn settings_that_measure_nothing_are_refused() {
    let check = refused;
    let sizes = |first, last, factor| SweepSettings {
        sizes: Sizes {
            first,
            last,
            factor,
        },
        ..settings()
    };
    check(sizes(0, 8, 2), "no size is in it");
    check(sizes(16, 8, 2), "no size is in it");
    check(sizes(8, 16, 1), "would never end");
    let calls = Repetitions::Exactly(0);
    check(
        SweepSettings {
            calls,
            ..settings()
        },
        "nothing would be timed",
    );
    let late = Some(Late {
        rank: 1,
        by: Duration::from_micros(1),
    });
    check(
        SweepSettings { late, ..settings() },
        "there is no such rank",
    );
    let collectives = vec![Collective::Gather];
    check(
        SweepSettings {
            collectives,
            ..settings()
        },
        "nothing measures it",
    );
}

#[test]
fn what_no_memory_holds_is_refused() {
    let check = refused;
    let product = |m, n, k| SweepSettings {
        products: vec![ProductShape {
            name: "large".to_owned(),
            m,
            n,
            k,
        }],
        ..settings()
    };
    check(product(1 << 32, 1 << 32, 1 << 32), "no memory holds it");
    check(product(1, u64::MAX, 2), "no memory holds it");
    for pair_bytes in [0, u64::MAX] {
        let settings = SweepSettings {
            pair_bytes: Some(pair_bytes),
            ..settings()
        };
        check(settings, "a message");
    }
    let triad_bytes = Some(u64::MAX);
    check(
        SweepSettings {
            triad_bytes,
            ..settings()
        },
        "the triad",
    );
}
