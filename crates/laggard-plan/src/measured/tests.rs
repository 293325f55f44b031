use super::*;
use laggard_schedule::{Operation, OperationKind, Schedule, generate};
use laggard_simulate::{Observation, Places};
use laggard_specs::{Tables, model_work};
use laggard_stats::Rng;

const LENGTH: u32 = 64;
const ELEMENT_BYTES: u64 = 4;

fn model() -> Model {
    let tables = Tables::builtin().expect("tables");
    Model {
        layers: 6,
        ..tables.model("tiny").expect("a model").clone()
    }
}

fn schedule(layout: &Layout) -> Schedule {
    let work = model_work(&model(), (1, LENGTH), ELEMENT_BYTES);
    generate(layout, &work).expect("a schedule")
}

/// What an operation costs on a device of a relative rate.
fn cost(operation: &Operation, rate: f64) -> f64 {
    match operation.kind {
        OperationKind::Compute if operation.flop > 0.0 => operation.flop * 1e-9 / rate,
        OperationKind::Compute => operation.bytes as f64 * 1e-9 / rate,
        OperationKind::Host => 1e-5,
        _ => 1e-6 + operation.bytes as f64 * 1e-11,
    }
}

/// What runs of some layouts on classes of these rates tell.
fn calibration(layouts: &[&str], rates: &[f64]) -> Calibration {
    let names = ["a", "b", "c", "d"];
    let schedules: Vec<Schedule> = layouts
        .iter()
        .map(|text| schedule(&Layout::parse(text).expect("a layout")))
        .collect();
    let mut seen = Vec::new();
    for schedule in &schedules {
        let places = Places::of(schedule);
        for (class, rate) in names.iter().zip(rates) {
            seen.extend(schedule.operations.iter().map(|operation| Observation {
                class,
                operation,
                place: places.place(operation),
                seconds: cost(operation, *rate),
                ratios: &[],
            }));
        }
    }
    Calibration::fit(&seen)
}

fn classes(ranks: &[u32]) -> Vec<MeasuredClass> {
    let class = |(name, &ranks): (&&str, &u32)| MeasuredClass {
        name: (*name).to_owned(),
        ranks,
        emulated_rate: None,
    };
    ["a", "b", "c", "d"].iter().zip(ranks).map(class).collect()
}

/// A problem on classes of these ranks, with micro-batches for each rank.
fn check<T>(
    (layouts, rates): (&[&str], &[f64]),
    (ranks, each): (&[u32], u32),
    then: impl FnOnce(&Measured<'_>) -> T,
) -> T {
    let (model, classes) = (model(), classes(ranks));
    let calibration = calibration(layouts, rates);
    then(&Measured {
        source: "a test".to_owned(),
        model: &model,
        sequence_length: LENGTH,
        micro_batch: 1,
        element_bytes: ELEMENT_BYTES,
        layout: &Layout::data_parallel(1, 1),
        classes: &classes,
        micro_batches: each * ranks.iter().sum::<u32>(),
        calibration: &calibration,
        objective: Objective::Time,
        draws: (3, 1),
    })
}

fn of_kind(plan: &MeasuredPlan, kind: Kind) -> &PlannedOption {
    let mut options = plan.file.options.iter();
    options.find(|it| it.kind == kind).expect("an option")
}

#[test]
fn shares_by_speed_are_the_best_of_all_splits() {
    let mut rng = Rng::for_stream(1, 0);
    for _ in 0..20 {
        let rates = [1.0, 0.3 + 0.7 * rng.uniform()];
        let each = 1 + rng.below(8) as u32;
        check((&["dp2"], &rates), (&[1, 1], each), |measured| {
            let plan = plan_measured(measured).expect("a plan");
            let costs = Costs::new(measured);
            let calm = |first: u32| {
                let group = |class: usize, micro_batches: u32| Group {
                    class,
                    replicas: 1,
                    micro_batches,
                };
                let groups = vec![group(0, first), group(1, 2 * each - first)];
                costs.calm_s(&costs.replicas(groups)).expect("a step")
            };
            let best = (1..2 * each).map(calm).fold(f64::INFINITY, f64::min);
            let uneven = of_kind(&plan, Kind::UnevenShares);
            let found = uneven.jobs[0].expected.step_s.value;
            assert!(
                found <= best * (1.0 + 1e-9),
                "{rates:?} {each}: {found} {best}"
            );
            let equal = of_kind(&plan, Kind::EqualShares);
            assert!(found <= equal.jobs[0].expected.step_s.value * (1.0 + 1e-9));
        });
    }
}

#[test]
fn each_option_is_what_it_says_and_the_best_is_chosen() {
    check((&["dp2", "pp2"], &[1.0, 0.5]), (&[2, 2], 6), |measured| {
        let plan = plan_measured(measured).expect("a plan");
        assert_eq!(plan.left_out, []);
        let kinds: Vec<Kind> = plan.file.options.iter().map(|it| it.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::EqualShares,
                Kind::UnevenShares,
                Kind::UnevenStages,
                Kind::Pools,
                Kind::Alone,
                Kind::Alone
            ]
        );
        let text = plan.file.to_json().expect("text");
        assert_eq!(PlanFile::parse(&text), Ok(plan.file.clone()));
        let equal = of_kind(&plan, Kind::EqualShares);
        assert_eq!(equal.jobs[0].micro_batches(), [6, 6, 6, 6]);
        // The fast wait half of the time that they would compute twice.
        let times = &equal.jobs[0].expected.classes;
        let half = times["b"].kernels_s / 2.0;
        assert!(
            (times["a"].kernels_s / half - 1.0).abs() < 0.02,
            "{times:?}"
        );
        assert!(times["a"].waiting_s > 0.9 * half && times["b"].waiting_s < 0.1 * half);
        let uneven = of_kind(&plan, Kind::UnevenShares);
        assert_eq!(uneven.jobs[0].micro_batches(), [8, 8, 4, 4]);
        let gain = uneven.tokens_per_s.value / equal.tokens_per_s.value;
        assert!((gain / 1.5 - 1.0).abs() < 0.02, "{gain}");
        let stages = of_kind(&plan, Kind::UnevenStages);
        let layout = stages.jobs[0].layout();
        assert_eq!(layout.stage_layers.iter().sum::<u32>(), 6);
        let pools = of_kind(&plan, Kind::Pools);
        assert_eq!(pools.jobs.len(), 2);
        assert!(pools.jobs.iter().all(|job| job.micro_batches() == [6, 6]));
        let best = plan.file.option(None).expect("the answer");
        let most = |rate: f64, it: &PlannedOption| rate.max(it.model_tokens_per_s.value);
        let most = plan.file.options.iter().fold(0.0, most);
        assert!(best.model_tokens_per_s.value >= most);
    });
}

#[test]
fn equal_classes_keep_equal_shares() {
    check((&["dp2"], &[1.0, 1.0]), (&[1, 1], 4), |measured| {
        let plan = plan_measured(measured).expect("a plan");
        assert_eq!(
            plan.file.option(None).expect("the answer").kind,
            Kind::EqualShares
        );
    });
}

#[test]
fn what_no_record_tells_is_left_out_with_the_reason() {
    check((&["dp2"], &[1.0, 0.5]), (&[2, 2], 4), |measured| {
        let plan = plan_measured(measured).expect("a plan");
        let [(Kind::UnevenStages, why)] = &plan.left_out[..] else {
            panic!("{:?}", plan.left_out);
        };
        assert!(why.contains("calibrate on a run that has it"), "{why}");
    });
    // A class of its own cannot have fewer micro-batches than ranks.
    check((&["dp2"], &[1.0, 0.5]), (&[1, 3], 1), |measured| {
        let plan = plan_measured(measured).expect("a plan");
        let is_equal = |it: &PlannedOption| it.kind == Kind::EqualShares;
        assert!(plan.file.options.iter().any(is_equal));
    });
}

#[test]
fn what_cannot_be_planned_says_why() {
    let refused = |change: &dyn Fn(&mut Measured<'_>), expect: &str| {
        check((&["dp2"], &[1.0, 0.5]), (&[1, 1], 2), |measured| {
            let mut wrong = measured.clone();
            change(&mut wrong);
            let error = plan_measured(&wrong).expect_err(expect).to_string();
            assert!(
                error.contains(expect) && error.contains("\nhint: "),
                "{error}"
            );
        });
    };
    refused(&|it| it.classes = &[], "the plan has no ranks");
    refused(
        &|it| it.micro_batches = 3,
        "--batch-tokens a multiple of 128",
    );
    refused(
        &|it| it.micro_batches = 0,
        "0 micro-batches cannot be shared",
    );
    refused(&|it| it.objective = Objective::Mfu, "--objective tokens");
    let others = classes(&[1, 1, 1]);
    check((&["dp2"], &[1.0, 0.5]), (&[1, 1], 3), |measured| {
        let wrong = Measured {
            classes: &others,
            ..measured.clone()
        };
        let error = plan_measured(&wrong)
            .expect_err("an unknown class")
            .to_string();
        assert!(error.contains("no record has a class `c`"), "{error}");
        assert!(error.contains("they have a, b"), "{error}");
    });
}
