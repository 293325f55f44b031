use super::*;
use crate::options::tests::Fixture;
use crate::problem::{Factors, Problem, Terms};
use laggard_specs::{Model, memory_of_stage};
use proptest::prelude::*;
use std::sync::LazyLock;

/// A small cluster of up to three classes at up to three sites.
#[derive(Debug, Clone)]
struct Case {
    /// Devices of each class with the site at which they are.
    classes: Vec<(u64, usize)>,
    /// Bytes per second and seconds of the links from site to site, where there is one.
    links: [Option<(f64, f64)>; 3],
    /// Whether layers are so large that memory binds.
    is_large: bool,
    layers: u64,
    batch: u64,
    /// Failures of a device and year.
    failures: f64,
}

const KINDS: [&str; 3] = ["h100-sxm5-80gb", "a100-sxm4-40gb", "b200-sxm"];
const SITES: [&str; 3] = ["east", "west", "north"];
const ENDS: [[usize; 2]; 3] = [[0, 1], [1, 2], [0, 2]];

impl Case {
    fn text(&self) -> String {
        let mut text = "id = \"some\"\n".to_owned();
        for site in SITES {
            text += &format!("[[site]]\nid = \"{site}\"\n");
        }
        for ([a, b], link) in ENDS.iter().zip(&self.links) {
            if let Some((bytes_per_s, latency_s)) = link {
                text += &format!(
                    "[[link]]\nfrom = \"{}\"\nto = \"{}\"\nbandwidth_bytes_per_s = \
                     {bytes_per_s:e}\nlatency_s = {latency_s:e}\n",
                    SITES[*a], SITES[*b]
                );
            }
        }
        for (kind, (count, site)) in KINDS.iter().zip(&self.classes) {
            text += &format!(
                "[[pool]]\nid = \"{kind}\"\nsite = \"{}\"\naccelerator = \"{kind}\"\n\
                 count = {count}\ndevices_per_node = 4\nfailures_per_device_year = {}\n",
                SITES[*site], self.failures
            );
        }
        text
    }

    /// What it is checked with: costs, and the devices of each class.
    fn with(&self, check: impl FnOnce(&Costs<'_>, &[u64])) {
        // Reading the tables takes longer than most cases.
        static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);
        let fixture = &*FIXTURE;
        let name = if self.is_large {
            "llama3-70b"
        } else {
            "qwen3-0.6b"
        };
        let sequences = 4096 * self.batch;
        let training = fixture.training(name, sequences);
        let model = Model {
            layers: self.layers,
            ..training.model.clone()
        };
        let mut training = fixture.training(name, sequences);
        training.model = &model;
        let cluster = fixture.cluster(&self.text());
        let problem = fixture.problem(&cluster, training, &Terms::default());
        let problem: Problem<'_> = problem.expect("a problem");
        let costs = Costs::new(&problem, &Factors::none(self.classes.len()));
        let counts: Vec<u64> = self.classes.iter().map(|it| it.0).collect();
        check(&costs, &counts);
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let link = || proptest::option::weighted(0.8, (1e8..1e12_f64, 1e-6..0.1_f64));
    (
        proptest::collection::vec((1_u64..5, 0_usize..3), 2..4),
        (any::<bool>(), [link(), link(), link()]),
        (any::<bool>(), 2_u64..7, 1_u64..40, 0.01..300.0_f64),
    )
        .prop_map(
            |(mut classes, (at_one, links), (is_large, layers, batch, failures))| {
                if at_one {
                    classes.iter_mut().for_each(|it| it.1 = 0);
                }
                Case {
                    classes,
                    links,
                    is_large,
                    layers,
                    batch,
                    failures,
                }
            },
        )
}

/// All lists of so many numbers from 1 on with a sum.
fn parts(sum: usize, count: usize) -> Vec<Vec<usize>> {
    if count == 1 {
        return vec![vec![sum]];
    }
    let with = |first: usize| {
        let rest = parts(sum - first, count - 1).into_iter();
        rest.map(move |rest| [&[first][..], &rest].concat())
    };
    (1..=sum + 1 - count).flat_map(with).collect()
}

/// All orders of so many stages of each class.
fn orders(left: &mut Vec<usize>) -> Vec<Vec<usize>> {
    if left.iter().all(|count| *count == 0) {
        return vec![Vec::new()];
    }
    let mut orders_of = Vec::new();
    for class in 0..left.len() {
        if left[class] > 0 {
            left[class] -= 1;
            let rest = orders(left).into_iter();
            orders_of.extend(rest.map(|rest| [&[class][..], &rest].concat()));
            left[class] += 1;
        }
    }
    orders_of
}

/// What is tried: every width, size of micro-batches, number of replicas and of stages.
fn every_division(costs: &Costs<'_>, counts: &[u64]) -> Vec<(Degrees, Vec<usize>)> {
    let (problem, mut all) = (costs.problem, Vec::new());
    let most = problem.most_sequences() as u64;
    for tensor in [1, 2, 4] {
        for data in 1..=5 {
            let made = |count: &u64| (count / (u64::from(tensor) * data)) as usize;
            let made: Vec<usize> = counts.iter().map(made).collect();
            let mut stages = vec![vec![]];
            for &most in &made {
                let with = |so_far: &Vec<usize>| {
                    let so_far = so_far.clone();
                    (1..=most).map(move |count| [&so_far[..], &[count]].concat())
                };
                stages = stages.iter().flat_map(with).collect();
            }
            for stages in stages {
                for micro_batch in [1, 2, 4] {
                    for recompute in [Recompute::None, Recompute::Layers] {
                        let pipeline = stages.iter().sum::<usize>() as u32;
                        let micro_batches = most / (u64::from(micro_batch) * data);
                        if micro_batches == 0 || u64::from(pipeline) > problem.training.model.layers
                        {
                            continue;
                        }
                        let plain = degrees(
                            (tensor, micro_batch, data as u32),
                            (pipeline, micro_batches as u32),
                        );
                        all.push((Degrees { recompute, ..plain }, stages.clone()));
                    }
                }
            }
        }
    }
    all
}

/// The pipelines of a division: stages stand together site by site, and fit.
fn every_cut(costs: &Costs<'_>, degrees: &Degrees, stages: &[usize]) -> Vec<Vec<(usize, usize)>> {
    let problem = costs.problem;
    let site = |class: usize| problem.classes[class].site;
    let (model, count) = (problem.training.model, stages.iter().sum::<usize>());
    let layout = problem.demand().memory_layout(degrees);
    let fits = |(at, &(class, layers)): (usize, &(usize, usize))| {
        let even = Model {
            layers: (layers * count) as u64,
            ..model.clone()
        };
        let need = memory_of_stage(&even, &layout, at as u64);
        let memory = problem.classes[class].of.machine.memory_bytes;
        need.is_ok_and(|need| need.total().0 as f64 <= 0.92 * memory)
    };
    let mut cuts = Vec::new();
    for order in orders(&mut stages.to_vec()) {
        let mut runs: Vec<usize> = order.iter().map(|&class| site(class)).collect();
        let sites: BTreeSet<usize> = runs.iter().copied().collect();
        runs.dedup();
        if runs.len() > sites.len() {
            continue;
        }
        for layers in parts(model.layers as usize, count) {
            let cut: Vec<(usize, usize)> = order.iter().copied().zip(layers).collect();
            if cut.iter().enumerate().all(fits) {
                cuts.push(cut);
            }
        }
    }
    cuts
}

/// The most of all pipelines, by the outcome of each; no bound of a division is passed.
fn check(case: &Case) {
    case.with(|costs, counts| {
        let mut most = 0.0_f64;
        for (degrees, stages) in every_division(costs, counts) {
            let paces = setting::paces(costs, &degrees, |_| true);
            let setting = Setting::of(costs, &degrees, (&stages, &paces));
            // What its failures leave does not depend on the cut.
            let devices: Vec<u64> = (0..stages.len())
                .map(|class| u64::from(degrees.tensor * degrees.data) * stages[class] as u64)
                .collect();
            let useful = costs.useful(&devices).unwrap_or(0.0);
            let rate = |stages: Vec<(usize, usize)>| {
                let outcome = setting.outcome(&MixedPipeline { stages });
                useful * outcome.stepping_tokens_per_s()
            };
            let best = every_cut(costs, &degrees, &stages).into_iter().map(rate);
            let best = best.fold(0.0, f64::max);
            let bound = setting.most_tokens_per_s();
            assert!(
                best <= bound,
                "{best} {bound} {degrees:?} {stages:?} {case:?}"
            );
            most = most.max(best);
            // Some orders are not all, but what is found of them is there.
            let some = setting.cuts_of(0.0, 0);
            let found = some.list.into_iter().map(rate).fold(0.0, f64::max);
            assert!(
                found <= best * (1.0 + 1e-9),
                "{found} {best} {stages:?} {case:?}"
            );
            if some.are_best_of_all {
                assert!(
                    found >= best * (1.0 - 1e-9),
                    "{found} {best} {stages:?} {case:?}"
                );
            }
        }
        let found = super::best(costs, counts, 0.0);
        let of = |job: &JobPlan| costs.outcome(job).expect("an outcome").tokens_per_s();
        let rate = found.job.as_ref().map_or(0.0, of);
        assert!(
            (rate - most).abs() <= 1e-9 * most,
            "{rate} of {most}: {case:?}"
        );
        assert_eq!(found.job.is_some(), most > 0.0);
        assert!(found.most_tokens_per_s <= 0.0, "{case:?}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No pipeline of the space is better than the one that is found.
    #[test]
    fn the_best_pipeline_of_all_is_found(case in cases()) {
        check(&case);
    }
}

#[test]
fn divisions_are_all_tried_where_they_are_few() {
    for (count, all) in [(3, true), (48, false)] {
        let case = Case {
            classes: vec![(count, 0); 3],
            links: [None; 3],
            is_large: false,
            layers: 24,
            batch: 64,
            failures: 0.01,
        };
        case.with(|costs, counts| {
            let found = super::best(costs, counts, 0.0);
            assert!(found.job.is_some());
            assert_eq!(found.has_all_divisions, all, "{count}");
        });
    }
}
