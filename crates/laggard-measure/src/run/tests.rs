//! Whole runs: what is in the record, what faults and classes do to the work, and how runs end.

mod faults;

use super::*;
use crate::testing;
use laggard_backend::{BackendError, Call, Communicator, Launch, Task, Token};
use laggard_record::{ClosingStatus, Record, RecordError, StepWork};
use laggard_schedule::{Layout, OperationKind, Phase, Recompute, Zero};
use laggard_stats::Rng;
use laggard_types::Rank;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

const QUIET: Hooks<'static> = Hooks {
    stop: &|| None,
    flush: &|| false,
    progress: &|_| {},
};

/// A record in a directory that lives as long as it.
struct Ran {
    record: Record,
    summary: Summary,
    _dir: tempfile::TempDir,
}

fn ran(settings: &Settings, hooks: &Hooks<'_>) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        record: dir.path().join("record"),
        ..settings.clone()
    };
    let summary = run(&settings, hooks).unwrap();
    Ran {
        record: Record::open(&settings.record).unwrap(),
        summary,
        _dir: dir,
    }
}

impl Ran {
    /// How often each (rank, step, operation) was recorded.
    fn counts(&self) -> BTreeMap<(i32, i32, i32), u32> {
        let mut counts = BTreeMap::new();
        let mut count = |key| *counts.entry(key).or_default() += 1;
        self.record
            .samples(|batch| {
                for index in 0..batch.rank.len() {
                    count((batch.rank[index], batch.step[index], batch.operation[index]));
                }
            })
            .unwrap();
        counts
    }

    /// CPU seconds of a rank in operations of a phase, in the step that took least.
    fn cpu(&self, rank: Rank, phase: Phase) -> f64 {
        let schedule = &self.record.manifest.schedule;
        let mut by_step: BTreeMap<i32, f64> = BTreeMap::new();
        self.record
            .samples(|batch| {
                for index in 0..batch.rank.len() {
                    let operation = &schedule.operations[batch.operation[index] as usize];
                    if batch.rank[index] == rank as i32 && operation.phase == phase {
                        let spent = batch.cpu_end_ns[index] - batch.cpu_start_ns[index];
                        *by_step.entry(batch.step[index]).or_default() += spent as f64 * 1e-9;
                    }
                }
            })
            .unwrap();
        by_step.into_values().fold(f64::INFINITY, f64::min)
    }

    fn steps(&self) -> Vec<StepWork> {
        self.record.steps().unwrap().rows
    }

    /// Every operation of every rank's program, once in every completed step, and nothing else.
    fn assert_complete(&self) {
        let schedule = &self.record.manifest.schedule;
        let steps = self.summary.closing.steps_completed as i32;
        let ranks = schedule.world_size() as Rank;
        let mut expect = BTreeMap::new();
        for rank in 0..ranks {
            for operation in schedule.program(rank) {
                for step in 0..steps {
                    expect.insert((rank as i32, step, *operation as i32), 1);
                }
            }
        }
        assert_eq!(self.counts(), expect);
        assert_eq!(self.steps().len(), (steps * ranks as i32) as usize);
        assert_eq!(self.record.closing.as_ref(), Some(&self.summary.closing));
    }
}

fn with_fault(settings: Settings, spec: &str) -> Settings {
    Settings {
        faults: vec![spec.parse().unwrap()],
        ..settings
    }
}

#[test]
fn every_operation_of_the_schedule_is_recorded_once() {
    let mut settings = testing::settings(3, 7);
    settings.layout.micro_batches = vec![1, 3, 2];
    let ran = ran(&settings, &QUIET);
    ran.assert_complete();
    assert_eq!(ran.summary.closing.status, ClosingStatus::Finished);
    assert_eq!(ran.summary.closing.steps_completed, 7);
    for work in ran.steps() {
        let sequences = 2 * i64::from(settings.layout.micro_batches[work.rank as usize]);
        assert_eq!(
            (work.tokens, work.tokens_squared),
            (sequences * 12, sequences * 144)
        );
    }
}

/// A layout of at most so many ranks, and a model for it.
fn random_layout(rng: &mut Rng, most: u64) -> Settings {
    loop {
        let mut pick = |choices: &[u32]| choices[rng.below(choices.len())];
        let mut settings = testing::settings(1, 2);
        let mut layout = Layout {
            data_parallel: pick(&[1, 2, 3, 4]),
            tensor_parallel: pick(&[1, 1, 2]),
            pipeline_parallel: pick(&[1, 2, 4]),
            virtual_stages: pick(&[1, 1, 2]),
            context_parallel: pick(&[1, 1, 2]),
            expert_parallel: pick(&[1, 1, 2]),
            bucket_bytes: u64::from(pick(&[1000, 3000, 100_000])),
            ..Layout::data_parallel(1, 1)
        };
        layout.sequence_parallel = layout.tensor_parallel > 1 && pick(&[0, 1]) == 1;
        layout.zero = match pick(&[0, 1, 2, 3]) {
            0 => Zero::None,
            1 => Zero::Optimizer,
            2 => Zero::Gradients,
            _ => Zero::Parameters,
        };
        if pick(&[0, 1]) == 1 {
            layout.recompute = Recompute::Layers;
            layout.recompute_layers = Some(pick(&[0, 1, 2])).filter(|layers| *layers > 0);
        }
        let shares: Vec<u32> = (0..layout.data_parallel)
            .map(|_| pick(&[1, 2, 4]))
            .collect();
        layout.micro_batches = match pick(&[0, 1]) {
            0 => shares,
            _ => vec![shares[0]; shares.len()],
        };
        if layout.expert_parallel > 1 {
            settings.model = testing::tiny_mixture();
        }
        settings.model.layers = 8;
        if layout.world_size() <= most && layout.check(layout.world_size() as u32).is_ok() {
            settings.layout = layout;
            return settings;
        }
    }
}

#[test]
fn every_operation_of_random_layouts_is_recorded_once() {
    let mut rng = Rng::new(4);
    let (mut sizes, mut forms) = (Vec::new(), BTreeSet::new());
    for _ in 0..16 {
        let settings = random_layout(&mut rng, 64);
        sizes.push(settings.ranks());
        forms.insert(settings.layout.to_string());
        ran(&settings, &QUIET).assert_complete();
    }
    assert!(sizes.iter().any(|ranks| *ranks >= 32), "{sizes:?}");
    assert!(forms.len() > 12, "{forms:?}");
}

#[test]
fn more_ranks_than_processors_run_on_a_virtual_clock() {
    let processors = crate::processors::available().unwrap().len() as u32;
    let crowd = ran(&testing::settings(processors * 2 + 1, 5), &QUIET);
    crowd.assert_complete();
    assert_eq!(crowd.summary.basis, TimeBasis::Virtual);
    assert!(
        crowd
            .record
            .manifest
            .ranks
            .iter()
            .all(|place| place.cpus.is_empty())
    );
    if processors == 0 {
        return;
    }
    let alone = ran(&testing::settings(processors, 5), &QUIET);
    assert_eq!(alone.record.manifest.clock.basis, TimeBasis::Wall);
    let places = &alone.record.manifest.ranks;
    let mut cpus: Vec<u32> = places.iter().flat_map(|place| place.cpus.clone()).collect();
    cpus.dedup();
    assert_eq!(
        cpus.len() as u32,
        processors,
        "each rank has a processor of its own"
    );
}

#[test]
fn ragged_sequences_are_computed_and_recorded() {
    let settings = with_fault(testing::settings(2, 20), "ragged:0.5");
    let ran = ran(&settings, &QUIET);
    ran.assert_complete();
    let steps = ran.steps();
    for work in &steps {
        let length = work.tokens / 2;
        assert!(work.tokens_squared == 2 * length * length && (8..=48).contains(&length));
    }
    assert!(steps.iter().any(|work| work.tokens != steps[0].tokens));
}

#[test]
fn a_stop_ends_all_ranks_with_the_same_step() {
    let settings = testing::settings(3, 1_000_000);
    let seen = Cell::new(0);
    let stop = || {
        (seen.get() > 0).then(|| Signal {
            name: "SIGTERM".to_owned(),
        })
    };
    let hooks = Hooks {
        stop: &stop,
        flush: &|| true,
        progress: &|steps| seen.set(steps),
    };
    let ran = ran(&settings, &hooks);
    ran.assert_complete();
    let closing = &ran.summary.closing;
    assert_eq!(
        closing.status,
        ClosingStatus::Interrupted {
            signal: "SIGTERM".to_owned()
        }
    );
    assert!(closing.steps_completed > 0 && closing.steps_completed < 1_000_000);
}

#[test]
fn a_record_that_cannot_be_written_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record");
    let settings = Settings {
        record: record.clone(),
        ..testing::settings(2, 1_000_000)
    };
    let remove = |_| drop(fs::remove_dir_all(&record));
    let hooks = Hooks {
        stop: &|| None,
        flush: &|| true,
        progress: &remove,
    };
    assert!(matches!(
        run(&settings, &hooks),
        Err(MeasureError::Record(RecordError::Io { .. }))
    ));

    fs::create_dir_all(&record).unwrap();
    fs::write(record.join("thesis.txt"), "precious").unwrap();
    let error = run(&settings, &QUIET).unwrap_err();
    assert!(matches!(
        error,
        MeasureError::Record(RecordError::ForeignDirectory { .. })
    ));
}

/// What a broken rank does instead of its reductions.
#[derive(Clone, Copy)]
enum Fate {
    Panics,
    StaysAway,
}

/// A communicator that breaks at its so-manieth call.
struct Broken {
    whole: Box<dyn Communicator>,
    device: Arc<dyn laggard_backend::Device>,
    fate: Fate,
    calls_left: AtomicU32,
}

impl Communicator for Broken {
    fn rank(&self) -> Rank {
        self.whole.rank()
    }

    fn size(&self) -> u32 {
        self.whole.size()
    }

    fn enqueue(&self, call: Call, launch: Launch<'_>) -> Result<Token, BackendError> {
        let left = self.calls_left.load(Ordering::Relaxed);
        self.calls_left
            .store(left.saturating_sub(1), Ordering::Relaxed);
        match (left, self.fate) {
            (0, Fate::Panics) => panic!("rank {} lost its nerve", self.rank()),
            (0, Fate::StaysAway) => {
                let nothing = Task {
                    kernels: [].into(),
                    work_scale: 1.0,
                    extra_flop: 0,
                };
                self.device.enqueue(&nothing, launch)
            }
            _ => self.whole.enqueue(call, launch),
        }
    }

    fn split(
        &self,
        color: Option<u32>,
        key: i64,
    ) -> Result<Option<Box<dyn Communicator>>, BackendError> {
        self.whole.split(color, key)
    }
}

/// Runs with a rank 1 that breaks after 5 reductions, and returns the error and the record.
fn broken(fate: Fate, timeout: Duration) -> (MeasureError, Record, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = testing::settings(3, 1_000_000);
    settings.timeout = timeout;
    settings.record = dir.path().join("record");
    let job = Job::new(&settings).unwrap();
    let options = ThreadOptions {
        timeout,
        ..ThreadOptions::default()
    };
    let mut worlds = worlds(3, &options).unwrap();
    let World {
        control,
        data,
        device,
        messenger,
    } = worlds.remove(1);
    let calls_left = AtomicU32::new(5);
    let broken = Broken {
        whole: data,
        device: Arc::clone(&device),
        fate,
        calls_left,
    };
    worlds.insert(
        1,
        World {
            control,
            data: Box::new(broken),
            device,
            messenger,
        },
    );
    let error = run_in(&job, worlds, by_threads(), &QUIET).unwrap_err();
    (error, Record::open(&settings.record).unwrap(), dir)
}

#[test]
fn a_rank_that_panics_ends_all() {
    let (error, record, _dir) = broken(Fate::Panics, Duration::from_secs(60));
    assert_eq!(error.to_string(), "rank 1 panicked: rank 1 lost its nerve");
    let why = error.to_string();
    let closing = record.closing.as_ref().unwrap();
    assert_eq!(closing.status, ClosingStatus::Failed { why });
}

#[test]
fn a_rank_that_stays_away_is_named() {
    let (error, record, _dir) = broken(Fate::StaysAway, Duration::from_secs(5));
    let MeasureError::Operation {
        ref operation,
        ref source,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(operation.starts_with("bucket"), "{operation}");
    let BackendError::Timeout { missing, .. } = &**source else {
        panic!("{error}")
    };
    assert_eq!(missing, &[1]);
    assert!(
        error
            .to_string()
            .contains("hint: if steps are meant to be this long"),
        "{error}"
    );
    let closing = record.closing.as_ref().unwrap();
    assert!(matches!(closing.status, ClosingStatus::Failed { .. }));
    let collective = |operation: &laggard_schedule::Operation| {
        matches!(operation.kind, OperationKind::Collective(_))
    };
    let per_step = record
        .manifest
        .schedule
        .operations
        .iter()
        .filter(|it| collective(it))
        .count();
    assert_eq!(closing.steps_completed, 5 / per_step as u32);
}
