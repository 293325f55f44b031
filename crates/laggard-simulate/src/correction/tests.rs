use super::*;
use crate::job::{Frameworks, Machine};
use crate::network::FabricOptions;
use crate::step::predict;
use crate::world::World;
use laggard_record::{Class, Clock, Host, RankPlace, SchemaVersion, Workload};
use laggard_schedule::Layout;
use laggard_specs::Tables;
use laggard_stats::Rng;
use laggard_types::ClockDomain;

const STEPS: usize = 40;

struct Fixture {
    tables: Tables,
    constants: Constants,
    software: Software,
}

/// A drawn run.
struct Run {
    manifest: Manifest,
    columns: Vec<(Rank, u32)>,
    seconds: Vec<f32>,
    step_s: Vec<f64>,
}

impl Fixture {
    fn new() -> Self {
        let frameworks = Frameworks::builtin().expect("frameworks");
        Self {
            tables: Tables::builtin().expect("tables"),
            constants: Constants::builtin().expect("constants"),
            software: frameworks.entries[0].software,
        }
    }

    fn model(&self) -> &Model {
        self.tables.model("llama3-8b").expect("a model")
    }

    fn class(&self, accelerator: &str) -> ForecastClass {
        let accelerator = self.tables.accelerator(accelerator).expect("a device");
        ForecastClass {
            name: accelerator.id.clone(),
            accelerator: accelerator.id.clone(),
            count: 64,
            devices_per_node: None,
            machine: Machine::new(accelerator, &FabricOptions::default()).expect("a machine"),
            failures_per_device_year: None,
        }
    }

    fn job(&self, layout: &str, micro_batches: u32) -> Job {
        let layout = Layout::parse(layout).expect("a layout");
        Job {
            shape: Shape::of(self.model()),
            degrees: Degrees {
                micro_batches,
                ..Degrees::of_layout(&layout, 1)
            },
            sequence_length: 4096,
            precision: Precision::Half,
            software: self.software,
        }
    }

    /// A run on classes as they really are. A rank is a little faster or slower in each step.
    fn run(&self, layout: &str, truth: &[(&ForecastClass, u64)]) -> Run {
        let job = self.job(layout, 2);
        let world = World::new((&job, self.model()), truth, &self.constants).expect("a world");
        let ranks = world.class_of_rank.len() as Rank;
        let columns: Vec<(Rank, u32)> = (0..ranks)
            .flat_map(|rank| {
                world
                    .schedule
                    .program(rank)
                    .iter()
                    .map(move |id| (rank, *id))
            })
            .collect();
        let mut rng = Rng::new(7);
        let mut seconds = Vec::new();
        for _ in 0..STEPS {
            let factors: Vec<f64> = (0..ranks).map(|_| (0.02 * rng.normal()).exp()).collect();
            seconds.extend(columns.iter().map(|&(rank, id)| {
                let operation = &world.schedule.operations[id as usize];
                (world.seconds(operation, rank) * factors[rank as usize]) as f32
            }));
        }
        let step = world.step().expect("a step").step_s;
        Run {
            manifest: self.manifest(&job, &world, truth),
            columns,
            seconds,
            step_s: (0..STEPS)
                .map(|_| step * (0.01 * rng.normal()).exp())
                .collect(),
        }
    }

    fn manifest(&self, job: &Job, world: &World, truth: &[(&ForecastClass, u64)]) -> Manifest {
        let class = |(class, _): &(&ForecastClass, u64)| Class {
            name: class.name.clone(),
            emulated: false,
            emulated_by: None,
            relative_rate: 1.0,
            rate_source: "drawn".to_owned(),
            peak: None,
        };
        let place = |class: &u16| RankPlace {
            host: 0,
            class: u32::from(*class),
            device: "drawn".to_owned(),
            cpus: Vec::new(),
            allowed_cpus: Vec::new(),
            cpu_quota: None,
            numa_node: None,
            other_load: None,
            accelerator: None,
            other_processes: None,
        };
        Manifest {
            schema_version: SchemaVersion::CURRENT,
            laggard_version: String::new(),
            created_unix_ns: 0,
            command_line: Vec::new(),
            origin: Origin::Predicted,
            hosts: vec![Host {
                name: "node".to_owned(),
                architecture: "none".to_owned(),
                processor: "none".to_owned(),
                cpus: 1,
                emulated: false,
                machine: 0,
            }],
            classes: truth.iter().map(class).collect(),
            ranks: world.class_of_rank.iter().map(place).collect(),
            clock: Clock {
                domain: ClockDomain::HostMonotonic,
                resolution_ns: 1,
                common_to_all_ranks: true,
                thread_cpu_time: false,
                basis: TimeBasis::Wall,
            },
            workload: Workload {
                model: self.model().id.clone(),
                synthetic: true,
                data_type: "bf16".to_owned(),
                parameters: self.model().parameters() as f64,
                sequence_length: job.sequence_length,
                micro_batch_sequences: job.degrees.micro_batch,
                flop_per_token_causal: None,
                flop_per_token_full: None,
                recompute_flop_per_token: 0.0,
            },
            schedule: world.schedule.clone(),
            seed: 0,
            communication: None,
            links: Vec::new(),
            caveats: Vec::new(),
            truth: Vec::new(),
        }
    }

    fn compare(
        &self,
        run: &Run,
        classes: &[Option<&ForecastClass>],
    ) -> Result<RunComparison, SimulateError> {
        let measured = MeasuredRun {
            manifest: &run.manifest,
            columns: &run.columns,
            seconds: &run.seconds,
            step_s: &run.step_s,
        };
        let against = Expectation {
            model: self.model(),
            classes,
            precision: Precision::Half,
            software: self.software,
            constants: &self.constants,
        };
        compare_run(&measured, &against, 1)
    }
}

fn really(class: &ForecastClass, truth: &Corrections) -> ForecastClass {
    ForecastClass {
        machine: class.machine.corrected(truth).expect("a machine"),
        ..class.clone()
    }
}

#[track_caller]
fn finds(correction: &Correction, truth: f64) {
    let Correction::Measured(ratio) = correction else {
        panic!("{correction:?}");
    };
    assert!(
        ratio.low <= truth && truth <= ratio.high,
        "{ratio:?} {truth}"
    );
    assert!(
        (ratio.value / truth - 1.0).abs() < 0.01,
        "{ratio:?} {truth}"
    );
    assert!(
        ratio.low < ratio.high && ratio.high / ratio.low < 1.05,
        "{ratio:?}"
    );
    assert_eq!(ratio.steps, STEPS);
}

const TRUTH: Corrections = Corrections {
    products: 1.25,
    memory_bound: 1.4,
    links: 1.7,
};

#[test]
fn factors_are_found_again_and_predict_another_layout() {
    let fixture = Fixture::new();
    let table = fixture.class("h100");
    let truth = really(&table, &TRUTH);
    let run = fixture.run("dp4,tp2,zero1,sp", &[(&truth, 8)]);
    let found = fixture
        .compare(&run, &[Some(&table)])
        .expect("a comparison");
    let [class] = &found.classes[..] else {
        panic!("{found:?}");
    };
    finds(&class.products, TRUTH.products);
    finds(&class.memory_bound, TRUTH.memory_bound);
    finds(&class.links, TRUTH.links);
    let own = found.own_step.expect("its own step");
    assert!(own.default_error < -0.15, "{own:?}");
    assert!(own.corrected_error.abs() < 0.01, "{own:?}");

    let corrected = table
        .machine
        .corrected(&class.corrections())
        .expect("a machine");
    for layout in ["dp2,tp4,pp2,sp", "dp16,zero3"] {
        let job = fixture.job(layout, 4);
        let step = |machine: &Machine| predict(&job, machine, &fixture.constants).total_s;
        let (before, after) = (step(&table.machine), step(&corrected));
        let really = step(&truth.machine);
        assert!(
            (after / really - 1.0).abs() < 0.01,
            "{layout}: {after} {really}"
        );
        assert!(before / really < 0.85, "{layout}: {before} {really}");
    }
}

#[test]
fn each_class_of_a_mixed_run_is_told_by_its_own_ranks() {
    let fixture = Fixture::new();
    let (fast, slow) = (fixture.class("h100"), fixture.class("a100-sxm4-80gb"));
    let slower = Corrections {
        products: 1.1,
        ..Corrections::default()
    };
    let (really_fast, really_slow) = (really(&fast, &TRUTH), really(&slow, &slower));
    let run = fixture.run("dp4,tp2", &[(&really_fast, 4), (&really_slow, 4)]);
    let found = fixture
        .compare(&run, &[Some(&fast), Some(&slow)])
        .expect("a comparison");
    finds(&found.classes[0].products, TRUTH.products);
    finds(&found.classes[1].products, slower.products);
    finds(&found.classes[1].memory_bound, slower.memory_bound);
    // Tensor-parallel groups are of one class, gradients are reduced over both.
    finds(&found.classes[0].links, TRUTH.links);
    assert!(found.own_step.is_some());
    let alone = fixture
        .compare(&run, &[None, Some(&slow)])
        .expect("a comparison");
    assert_eq!(alone.classes, found.classes[1..]);
    assert_eq!(alone.own_step, None);
}

#[test]
fn what_a_record_cannot_tell_stays_at_its_default() {
    let fixture = Fixture::new();
    let table = fixture.class("h100");
    let truth = really(&table, &TRUTH);
    let untold = |run: &Run| {
        let found = fixture.compare(run, &[Some(&table)]).expect("a comparison");
        let class = &found.classes[0];
        finds(&class.products, TRUTH.products);
        assert!(matches!(class.links, Correction::Default { .. }));
        let corrections = class.corrections();
        let links = Corrections::default().links;
        assert_eq!(
            corrections,
            Corrections {
                links,
                ..corrections
            }
        );
        found.caveats.len()
    };
    assert_eq!(untold(&fixture.run("dp1", &[(&truth, 1)])), 1);
    let mut shared = fixture.run("dp4", &[(&truth, 4)]);
    shared.manifest.clock.basis = TimeBasis::Virtual;
    assert_eq!(untold(&shared), 2);
}

/// In single precision, by the units of half precision: a machine of twice the peak and memory rate
/// by its datasheet is twice as far off.
#[test]
fn single_precision_is_held_against_its_own_peak() {
    let fixture = Fixture::new();
    let mut class = fixture.class("h100");
    class.machine.single_peak = Some(class.machine.half_peak);
    let mut run = fixture.run("dp2", &[(&class, 2)]);
    run.manifest.workload.data_type = "f32".to_owned();
    let caveat = Caveat::new(CaveatCode::SyntheticJob, "linear");
    run.manifest.caveats.push(caveat);
    let products = |class: &ForecastClass| {
        let found = fixture.compare(&run, &[Some(class)]).expect("a comparison");
        assert_eq!(found.caveats.len(), 3);
        found.classes[0].products.factor()
    };
    let mut twice = class.clone();
    twice.machine.half_peak *= 2.0;
    twice.machine.single_peak = Some(twice.machine.half_peak);
    twice.machine.memory_bandwidth *= 2.0;
    let ratio = products(&twice) / products(&class);
    assert!((ratio / 2.0 - 1.0).abs() < 1e-6, "{ratio}");
}

#[test]
fn records_that_say_nothing_of_the_forecast_are_refused() {
    let fixture = Fixture::new();
    let class = fixture.class("h100");
    type Change = fn(&mut Run);
    let cases: [(Change, &str); 6] = [
        (
            |run| run.manifest.schedule.origin = ScheduleOrigin::Trace,
            "no layout",
        ),
        (|run| run.manifest.workload.parameters *= 1.01, "parameters"),
        (|run| run.manifest.classes[0].emulated = true, "emulated"),
        (
            |run| run.manifest.workload.data_type = "fp8".to_owned(),
            "half precision",
        ),
        (
            |run| run.manifest.workload.data_type = "f32".to_owned(),
            "other units",
        ),
        (
            |run| run.manifest.workload.data_type = "unknown".to_owned(),
            "unknown",
        ),
    ];
    for (change, says) in cases {
        let mut run = fixture.run("dp2", &[(&class, 2)]);
        change(&mut run);
        let error = fixture.compare(&run, &[Some(&class)]).expect_err(says);
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("hint: "), "{text}");
    }
}

#[test]
fn corrections_that_are_none_are_refused() {
    let machine = Fixture::new().class("h100").machine;
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let links = Corrections {
            links: bad,
            ..Corrections::default()
        };
        let error = machine.corrected(&links).expect_err("a refusal");
        assert!(error.to_string().contains("links"), "{error}");
    }
    let same = machine
        .corrected(&Corrections::default())
        .expect("a machine");
    assert_eq!(same, machine);
}
