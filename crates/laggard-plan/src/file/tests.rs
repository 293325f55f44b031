use super::*;
use crate::compare::rank;
use crate::options::options;
use crate::options::tests::{Fixture, MIXED};
use crate::problem::Terms;

/// The plan of two classes, and its text.
pub(crate) fn plan() -> (PlanFile, String) {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(MIXED);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let problem = problem.expect("a problem");
    let found = options(&problem).expect("options");
    let ranking = rank(&found.list, Objective::Tokens).expect("a ranking");
    let numbers: Vec<Option<usize>> = (1..=found.list.len()).map(Some).collect();
    let plan = PlanFile::new(
        &problem,
        &Answer {
            cluster: "mixed",
            options: &found.list,
            numbers: &numbers,
            chosen: ranking.order[0],
            objective: Objective::Tokens,
            caveats: &["one".to_owned()],
        },
    );
    let text = plan.to_json().expect("text");
    (plan, text)
}

fn of_kind(plan: &PlanFile, kind: Kind) -> &PlannedOption {
    let mut options = plan.options.iter();
    options.find(|it| it.kind == kind).expect("an option")
}

#[test]
fn what_is_written_is_read_back() {
    let (plan, text) = plan();
    assert_eq!(PlanFile::parse(&text), Ok(plan.clone()));
    assert_eq!(plan.option(None), Ok(&plan.options[plan.chosen]));
    assert_eq!(plan.option(Some(1)), Ok(&plan.options[0]));
    let refused = plan.option(Some(99)).expect_err("no such option");
    assert!(refused.to_string().contains("its options are 1, 2"));
}

#[test]
fn ranks_have_the_class_of_their_replica_or_stage() {
    let (plan, _) = plan();
    for kind in [Kind::EqualShares, Kind::UnevenShares, Kind::UnevenStages] {
        let option = of_kind(&plan, kind);
        for job in &option.jobs {
            let layout = job.layout();
            layout.check(job.ranks() as u32).expect("a layout");
            let class_of_rank = job.class_of_rank();
            for (class, devices) in job.devices() {
                let count = class_of_rank.iter().filter(|it| **it == class).count();
                assert_eq!(count as u64, devices, "{kind:?} {class}");
            }
            for (rank, class) in class_of_rank.iter().enumerate() {
                let at = layout.coordinates(rank as Rank);
                let same = |other: &usize| {
                    let other = layout.coordinates(*other as Rank);
                    match &job.parts {
                        PlannedParts::Replicas(_) => other.data == at.data,
                        PlannedParts::Stages(_) => other.pipeline == at.pipeline,
                    }
                };
                let peers = (0..class_of_rank.len()).filter(same);
                assert!(
                    peers
                        .into_iter()
                        .all(|other| class_of_rank[other] == *class)
                );
            }
            let weights: f64 = match &job.parts {
                PlannedParts::Replicas(groups) => groups
                    .iter()
                    .map(|it| it.replicas as f64 * it.gradient_weight)
                    .sum(),
                PlannedParts::Stages(_) => 1.0,
            };
            assert!((weights - 1.0).abs() < 1e-12, "{weights}");
        }
    }
    let uneven = &of_kind(&plan, Kind::UnevenShares).jobs[0];
    let shares = uneven.micro_batches();
    assert!(shares.iter().min() < shares.iter().max(), "{shares:?}");
    let stages = &of_kind(&plan, Kind::UnevenStages).jobs[0];
    let layers: u32 = stages.layout().stage_layers.iter().sum();
    assert_eq!(layers, 32);
}

/// Layers that do not divide evenly are executed in the pieces that the step was predicted with.
#[test]
fn pieces_are_those_of_the_prediction() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(MIXED);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let problem = problem.expect("a problem");
    let found = options(&problem).expect("options").list;
    let equal = found.iter().find(|it| it.kind == Kind::EqualShares);
    let equal = equal.expect("equal shares");
    let pieces = |pipeline: u32, virtual_stages: u32| {
        let mut plan = equal.jobs[0].clone();
        (plan.degrees.pipeline, plan.degrees.virtual_stages) = (pipeline, virtual_stages);
        let outcome = &equal.figures.outcomes[0];
        let job = write::job(&problem, &plan, outcome, job_name(1));
        (
            job.layout().layers_of_pieces(32),
            job.unrehearsed().is_some(),
        )
    };
    assert_eq!(pieces(5, 1), (Ok(vec![6, 6, 7, 7, 6]), false));
    assert_eq!(pieces(4, 2), (Ok(vec![4; 8]), false));
    // The first piece has the embedding alone.
    assert!(matches!(pieces(2, 17), (Err(_), true)));
}

#[test]
fn what_cannot_be_rehearsed_says_why() {
    let (plan, _) = plan();
    let mut job = plan.options[0].jobs[0].clone();
    assert_eq!(job.unrehearsed(), None);
    job.degrees.recompute = Recompute::Layers;
    assert_eq!(job.unrehearsed(), None);
    job.degrees.recompute = Recompute::Attention;
    assert!(
        job.unrehearsed()
            .is_some_and(|why| why.contains("attention"))
    );
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let (plan, text) = plan();
    let check = |change: &dyn Fn(&mut PlanFile), expect: &str| {
        let mut wrong = plan.clone();
        change(&mut wrong);
        let text = serde_json::to_string(&wrong).expect("text");
        let error = PlanFile::parse(&text).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
        assert!(error.contains("\nhint: "), "{error}");
    };
    check(&|it| it.schema_version = 9, "has format version 9");
    check(&|it| it.chosen = 99, "chosen: option 99");
    check(
        &|it| it.classes[0].name = "fast".to_owned(),
        "two classes have this name",
    );
    check(
        &|it| it.classes[0].emulated_rate = Some(1.5),
        "a rate of 1.5",
    );
    check(
        &|it| it.classes[0].name = "other".to_owned(),
        "the plan has no class slow",
    );
    check(&|it| it.classes[0].count += 1, "do not sum to the 65");
    check(
        &|it| it.options[0].jobs[0].degrees.data += 1,
        "do not sum to the",
    );
    check(&|it| it.options[0].jobs[0].degrees.tensor = 0, "zero or");
    check(
        &|it| it.options[0].jobs[0].global_batch_sequences += 1,
        "its micro-batches do not sum",
    );
    check(
        &|it| it.options[0].jobs[0].name = "../up".to_owned(),
        "a job's name",
    );
    check(
        &|it| it.options[0].jobs[0].piece_layers = vec![1; 3],
        "3 numbers of layers",
    );
    check(
        &|it| {
            let mut other = it.options[0].jobs[0].clone();
            other.name = "JOB_1".to_owned();
            it.options[0].jobs.push(other);
        },
        "two jobs have this name",
    );
    check(
        &|it| it.options[0].tokens_per_s.low = f64::MAX,
        "is not between",
    );
    let unknown = text.replacen("\"cluster\"", "\"claster\"", 1);
    let error = PlanFile::parse(&unknown).expect_err("a slip").to_string();
    assert!(
        error.contains("claster") && error.contains("line 3"),
        "{error}"
    );
    assert!(PlanFile::parse("{").is_err());
    assert!(PlanFile::parse("").is_err());
    let mut nothing = plan.clone();
    nothing.options[0].tokens_per_s.value = f64::NAN;
    assert!(nothing.to_json().is_err(), "NaN is no number");
}
