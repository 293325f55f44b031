//! Which training framework runs a plan's jobs as they are, and what the others would need.

use serde::Serialize;

use crate::file::{PlannedJob, PlannedOption, PlannedParts};
use crate::options::Kind;

/// A framework that trains, or laggard itself, which rehearses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framework {
    /// `laggard run`.
    Laggard,
    /// NVIDIA's Megatron-LM.
    MegatronLm,
    /// FlagScale's heterogeneous mode.
    FlagScale,
    /// PyTorch's torchtitan.
    Torchtitan,
    /// DeepSpeed with its pipeline module.
    DeepSpeed,
    /// HexiScale, of Llama-2 models.
    HexiScale,
}

/// What is unusual about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    /// Replicas have different numbers of micro-batches.
    UnevenShares,
    /// Stages have different numbers of layers, by the class that they are on.
    UnevenStages,
    /// Pools meet every so many steps.
    LooseCoupling,
}

/// Whether a framework runs something.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// As it is; by which option, where one is needed.
    Runs(&'static str),
    /// Not without this.
    Needs(&'static str),
}

/// What a framework makes of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Executable {
    /// The framework.
    pub framework: Framework,
    /// Whether it runs all jobs of the plan as they are.
    pub as_it_is: bool,
    /// The options by which it does, or what it would need or cannot do.
    pub how: Vec<&'static str>,
    /// Where that is said.
    pub source: &'static str,
}

/// A row of the table.
struct Row {
    framework: Framework,
    shares: Verdict,
    stages: Verdict,
    loose: Verdict,
    source: &'static str,
}

const OUTER: &str = "an outer optimizer over the pools";

/// The table. Sources are documents and code as they were in August 2026.
const TABLE: [Row; 6] = [
    Row {
        framework: Framework::Laggard,
        shares: Verdict::Runs("run --plan"),
        stages: Verdict::Runs("run --plan"),
        loose: Verdict::Needs("the meeting of the pools: it runs each by itself"),
        source: "laggard run --help",
    },
    Row {
        framework: Framework::MegatronLm,
        shares: Verdict::Needs(
            "a number of micro-batches for each data-parallel rank, and gradients weighted by it",
        ),
        stages: Verdict::Runs("--pipeline-model-parallel-layout (experimental)"),
        loose: Verdict::Needs(OUTER),
        source: "Megatron-LM: megatron/core/num_microbatches_calculator.py; docs/user-guide/\
                 features/pipeline_parallel_layout.md",
    },
    Row {
        framework: Framework::FlagScale,
        shares: Verdict::Needs("replicas by class: its meshes are parts of the pipeline"),
        stages: Verdict::Runs("hetero_process_meshes, hetero_pipeline_layer_split"),
        loose: Verdict::Needs(OUTER),
        source: "FlagScale: examples/llama3/conf/train/8b_hetero.yaml",
    },
    Row {
        framework: Framework::Torchtitan,
        shares: Verdict::Needs(
            "a local batch for each data-parallel rank, and gradients weighted by it",
        ),
        stages: Verdict::Runs("parallelism.module_fqns_per_model_part"),
        loose: Verdict::Runs("fault_tolerance.semi_sync_method=diloco (torchft; no pipeline)"),
        source: "torchtitan: torchtitan/distributed/pipeline_parallel.py; docs/torchft.md",
    },
    Row {
        framework: Framework::DeepSpeed,
        shares: Verdict::Needs(
            "gradient_accumulation_steps for each rank, and gradients weighted by it",
        ),
        stages: Verdict::Needs("a PipelineModule that is cut by a list of layers"),
        loose: Verdict::Needs(OUTER),
        source: "DeepSpeed: deepspeed/runtime/pipe/module.py, partition_method; \
                 deepspeed/runtime/config.py",
    },
    Row {
        framework: Framework::HexiScale,
        shares: Verdict::Runs("--global_bsz_size of each pipeline (Llama-2 models)"),
        stages: Verdict::Runs("--layer_partitions (Llama-2 models)"),
        loose: Verdict::Needs(OUTER),
        source: "github.com/Relaxed-System-Lab/HexiScale, README",
    },
];

impl Framework {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Laggard => "laggard run",
            Self::MegatronLm => "Megatron-LM",
            Self::FlagScale => "FlagScale",
            Self::Torchtitan => "torchtitan",
            Self::DeepSpeed => "DeepSpeed",
            Self::HexiScale => "HexiScale",
        }
    }
}

/// What each framework makes of an option's jobs, laggard first. Layouts of equal shares and even
/// stages run everywhere; that a job is on several classes alone asks nothing of a framework.
#[must_use]
pub fn executable(option: &PlannedOption) -> Vec<Executable> {
    let mut demands: Vec<Demand> = option.jobs.iter().filter_map(demand).collect();
    if option.kind == Kind::LooselyCoupled {
        demands.push(Demand::LooseCoupling);
    }
    demands.sort_unstable();
    demands.dedup();
    let unrehearsed = option.jobs.iter().find_map(PlannedJob::unrehearsed);
    let mut list: Vec<Executable> = TABLE.iter().map(|row| row.of(&demands)).collect();
    let of_laggard = list
        .iter_mut()
        .find(|it| it.framework == Framework::Laggard);
    if let (Some(laggard), Some(why)) = (of_laggard, unrehearsed) {
        laggard.as_it_is = false;
        laggard.how = vec![why];
    }
    list
}

/// In one sentence: who runs it, and what the nearest others would need.
#[must_use]
pub fn in_words(list: &[Executable]) -> String {
    let names = |as_it_is: bool| {
        let them = list.iter().filter(|it| it.as_it_is == as_it_is);
        let names: Vec<&str> = them.map(|it| it.framework.name()).collect();
        names.join(", ")
    };
    let megatron = list
        .iter()
        .find(|it| it.framework == Framework::MegatronLm && !it.as_it_is);
    let needs = megatron.map(|it| format!("; Megatron-LM would need {}", it.how.join(" and ")));
    match (names(true), names(false)) {
        (all, none) if none.is_empty() => format!("runs as it is in {all}"),
        (none, others) if none.is_empty() => {
            format!(
                "runs as it is in none of {others}{}",
                needs.unwrap_or_default()
            )
        }
        (some, others) => {
            format!(
                "runs as it is in {some}; not in {others}{}",
                needs.unwrap_or_default()
            )
        }
    }
}

fn demand(job: &PlannedJob) -> Option<Demand> {
    match &job.parts {
        PlannedParts::Replicas(groups) => {
            let mut shares = groups.windows(2);
            let differ = shares.any(|pair| pair[0].micro_batches != pair[1].micro_batches);
            differ.then_some(Demand::UnevenShares)
        }
        PlannedParts::Stages(stages) => {
            let differ = stages
                .windows(2)
                .any(|pair| pair[0].layers != pair[1].layers);
            differ.then_some(Demand::UnevenStages)
        }
    }
}

impl Row {
    fn of(&self, demands: &[Demand]) -> Executable {
        let verdict = |demand: &Demand| match demand {
            Demand::UnevenShares => self.shares,
            Demand::UnevenStages => self.stages,
            Demand::LooseCoupling => self.loose,
        };
        let verdicts: Vec<Verdict> = demands.iter().map(verdict).collect();
        let as_it_is = verdicts.iter().all(|it| matches!(it, Verdict::Runs(_)));
        let how = verdicts.iter().filter_map(|it| match (as_it_is, it) {
            (true, Verdict::Runs(how)) | (false, Verdict::Needs(how)) => Some(*how),
            _ => None,
        });
        Executable {
            framework: self.framework,
            as_it_is,
            how: how.collect(),
            source: self.source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{degrees, job, plan, replicas, stages};
    use super::*;
    use crate::file::PlannedParts;
    use laggard_specs::Recompute;

    /// Who runs a job of such parts as it is.
    fn runs(kind: Kind, parts: PlannedParts) -> Vec<&'static str> {
        let of = job("job", degrees(2, 1, 2), parts);
        let mut plan = plan(&[("a", 8, 8, 8), ("b", 8, 8, 8)], vec![of]);
        plan.options[0].kind = kind;
        let list = executable(&plan.options[0]);
        // Who does not is told what it would need, and where that is said.
        for it in &list {
            assert!(it.as_it_is || !it.how.is_empty(), "{it:?}");
            assert!(!it.source.is_empty(), "{it:?}");
        }
        let names = list.iter().filter(|it| it.as_it_is);
        names.map(|it| it.framework.name()).collect()
    }

    #[test]
    fn plans_run_where_they_can() {
        let all = TABLE.map(|row| row.framework.name());
        let even = replicas(&[("a", 1, 4), ("b", 1, 4)]);
        assert_eq!(runs(Kind::EqualShares, even.clone()), all);
        assert_eq!(runs(Kind::UnevenStages, stages(&[("a", 4), ("b", 4)])), all);
        let shares = replicas(&[("a", 1, 4), ("b", 1, 3)]);
        let expect = ["laggard run", "HexiScale"];
        assert_eq!(runs(Kind::UnevenShares, shares), expect);
        let found = runs(Kind::UnevenStages, stages(&[("a", 5), ("b", 3)]));
        let expect = [
            "laggard run",
            "Megatron-LM",
            "FlagScale",
            "torchtitan",
            "HexiScale",
        ];
        assert_eq!(found, expect);
        assert_eq!(runs(Kind::LooselyCoupled, even), ["torchtitan"]);
    }

    #[test]
    fn what_laggard_does_not_run_is_not_listed_as_run_by_it() {
        let mut of = job("job", degrees(1, 1, 1), replicas(&[("a", 1, 4)]));
        of.degrees.recompute = Recompute::Attention;
        let plan = plan(&[("a", 8, 8, 8)], vec![of]);
        let list = executable(&plan.options[0]);
        assert!(!list[0].as_it_is, "{list:?}");
        assert!(list[0].how[0].contains("attention alone"), "{list:?}");
        assert!(list[1..].iter().all(|it| it.as_it_is), "{list:?}");
    }

    #[test]
    fn words_name_who_and_what_megatron_would_need() {
        let of = job(
            "job",
            degrees(2, 1, 1),
            replicas(&[("a", 1, 4), ("b", 1, 3)]),
        );
        let plan = plan(&[("a", 8, 8, 8), ("b", 8, 8, 8)], vec![of]);
        let words = in_words(&executable(&plan.options[0]));
        assert!(words.starts_with("runs as it is in laggard run, HexiScale; not in Megatron-LM,"));
        assert!(
            words.contains("Megatron-LM would need a number of micro-batches"),
            "{words}"
        );
    }
}
