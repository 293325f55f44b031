//! What faults and classes make ranks do. Work is counted where a rank gives it to its device: that
//! a device takes its time for it, the tests of `laggard-backend` show.

use super::*;
use crate::ClassShare;
use laggard_backend::{Buffer, Device, DeviceDescription, QueueId, TaggedStamp};
use laggard_record::Emulation;
use laggard_types::{Caveat, CaveatCode, DataType};
use std::sync::Mutex;

/// A device that remembers what it was given.
struct Counting {
    whole: Arc<dyn Device>,
    /// Operation and scale of the work.
    tasks: Mutex<Vec<(u64, f64)>>,
}

impl Device for Counting {
    fn description(&self) -> DeviceDescription {
        self.whole.description()
    }

    fn allocate(&self, data_type: DataType, len: usize) -> Result<Buffer, BackendError> {
        self.whole.allocate(data_type, len)
    }

    fn create_queue(&self, name: &str) -> Result<QueueId, BackendError> {
        self.whole.create_queue(name)
    }

    fn enqueue(&self, task: &Task, launch: Launch<'_>) -> Result<Token, BackendError> {
        let given = (launch.tag, task.work_scale);
        self.tasks.lock().unwrap().push(given);
        self.whole.enqueue(task, launch)
    }

    fn poll(&self, token: Token) -> Result<bool, BackendError> {
        self.whole.poll(token)
    }

    fn wait(&self, token: Token, deadline: Duration) -> Result<(), BackendError> {
        self.whole.wait(token, deadline)
    }

    fn drain(&self, queue: QueueId, into: &mut Vec<TaggedStamp>) -> Result<(), BackendError> {
        self.whole.drain(queue, into)
    }

    fn at_work(&self) -> Vec<u64> {
        self.whole.at_work()
    }

    fn abort(&self, reason: &str) {
        self.whole.abort(reason);
    }
}

/// Runs two ranks; holds the scale of all their work against `expect` of rank, phase and step.
#[track_caller]
fn check(settings: &Settings, expect: impl Fn(Rank, Phase, usize) -> f64) -> Record {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        record: dir.path().join("record"),
        ..settings.clone()
    };
    let job = Job::new(&settings).unwrap();
    let mut counters = Vec::new();
    let count = |mut world: World| {
        let counting = Arc::new(Counting {
            whole: Arc::clone(&world.device),
            tasks: Mutex::default(),
        });
        counters.push(Arc::clone(&counting));
        world.device = counting;
        world
    };
    let worlds = worlds(2, &ThreadOptions::default()).unwrap();
    let worlds = worlds.into_iter().map(count).collect();
    run_in(&job, worlds, by_threads(), &QUIET).unwrap();
    for (rank, counting) in (0..).zip(&counters) {
        let mut by_operation: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (operation, scale) in counting.tasks.lock().unwrap().iter() {
            by_operation.entry(*operation).or_default().push(*scale);
        }
        let mut phases = BTreeSet::new();
        for (operation, scales) in by_operation {
            let operation = &job.schedule.operations[operation as usize];
            phases.insert(operation.phase.name());
            let steps = 0..settings.steps as usize;
            let expect: Vec<f64> = steps
                .map(|step| expect(rank, operation.phase, step))
                .collect();
            assert_eq!(scales, expect, "rank {rank}: {}", operation.name);
        }
        assert!(phases.len() >= 3, "rank {rank}: {phases:?}");
    }
    Record::open(&settings.record).unwrap()
}

#[test]
fn a_class_of_half_the_rate_does_twice_the_arithmetic() {
    let class = |name: &str, relative_rate| ClassShare {
        name: name.to_owned(),
        ranks: 1,
        relative_rate,
        source: "a test".to_owned(),
        emulation: Emulation::ExtraArithmetic,
    };
    let settings = Settings {
        classes: vec![class("fast", 1.0), class("slow", 0.5)],
        ..testing::settings(2, 4)
    };
    let record = check(&settings, |rank, _, _| f64::from(rank + 1));
    let manifest = &record.manifest;
    let peaks: Vec<f64> = manifest
        .classes
        .iter()
        .filter_map(|it| it.peak.as_ref())
        .map(|it| it.flop_per_s)
        .collect();
    assert!((peaks[0] / peaks[1] - 2.0).abs() < 1e-9);
    assert!(manifest.classes.iter().all(|class| class.emulated));
    assert_eq!(manifest.ranks[1].class, 1);
    let means = manifest.classes.iter().map(|class| class.emulated_by);
    assert!(means.eq([Some(Emulation::ExtraArithmetic); 2]));
}

#[test]
fn a_class_that_is_confined_does_its_own_work_alone() {
    let class = |name: &str, relative_rate, multiprocessors| ClassShare {
        name: name.to_owned(),
        ranks: 1,
        relative_rate,
        source: "measured".to_owned(),
        emulation: Emulation::GreenContext {
            multiprocessors,
            of: 132,
        },
    };
    let doubt = Caveat::new(CaveatCode::TimeSliced, "time-sliced, not a proof");
    let settings = Settings {
        classes: vec![class("fast", 1.0, 88), class("slow", 0.6, 44)],
        doubts: vec![doubt.clone()],
        ..testing::settings(2, 4)
    };
    let record = check(&settings, |_, _, _| 1.0);
    let classes = &record.manifest.classes;
    let peak = |at: usize| classes[at].peak.as_ref().unwrap();
    // Of what it has, not of what it came to.
    assert!((peak(0).flop_per_s / peak(1).flop_per_s - 2.0).abs() < 1e-9);
    assert!(
        peak(1)
            .source
            .ends_with("times its part: green context of 44 of 132 SMs")
    );
    assert_eq!((classes[1].relative_rate, classes[1].emulated), (0.6, true));
    assert!(record.manifest.caveats.contains(&doubt));
}

#[test]
fn faults_are_more_work_where_they_are_put() {
    let check = |spec: &str, expect: &dyn Fn(Phase, usize) -> f64| {
        let settings = with_fault(testing::settings(2, 8), spec);
        let on_rank = |rank, phase, step| match rank {
            1 => expect(phase, step),
            _ => 1.0,
        };
        let record = check(&settings, on_rank);
        assert_eq!(record.injected_faults().len(), 1);
    };
    check("slow-rank:1:3", &|_, _| 3.0);
    check("slow-backward:1:2", &|phase, _| match phase {
        Phase::Backward => 2.0,
        _ => 1.0,
    });
    check("slow-rank:1:3+from=5", &|_, step| match step {
        0..5 => 1.0,
        _ => 3.0,
    });
    check("pause:1:1@1", &|_, _| 1.0);
}

/// How much longer is a matter of the rate that was measured; here the other rank is the measure.
#[test]
fn a_pause_is_computed_in_the_input_of_its_rank() {
    let pause = ran(
        &with_fault(testing::settings(2, 12), "pause:1:30@1"),
        &QUIET,
    );
    let input = |rank| pause.cpu(rank, Phase::Input);
    assert!(input(1) > 5.0 * input(0), "{} {}", input(1), input(0));
    for phase in [Phase::Forward, Phase::Backward] {
        assert!(pause.cpu(1, phase) < input(1), "{phase:?}");
    }
}
