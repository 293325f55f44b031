//! Reading the file back: what does not fit each other is refused with its place.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{JOB_NAMES, is_job_name, label};
use super::{
    Expected, PLAN_VERSION, PlanFile, PlanFileError, PlannedJob, PlannedOption, PlannedParts,
};

/// Ranks of a job; layouts list their replicas.
const MOST_RANKS: u64 = 1 << 24;

impl PlanFile {
    /// Reads a plan.
    ///
    /// # Errors
    /// For what is not a plan of this version, or contradicts itself.
    pub fn parse(text: &str) -> Result<Self, PlanFileError> {
        let unreadable = |error: serde_json::Error| PlanFileError::Unreadable {
            why: error.to_string(),
        };
        let value: serde_json::Value = serde_json::from_str(text).map_err(unreadable)?;
        let version = value.get("schema_version").and_then(|it| it.as_u64());
        if let Some(found) = version.filter(|found| *found != u64::from(PLAN_VERSION)) {
            return Err(PlanFileError::Version { found });
        }
        // Once more from the text, for the line of what is wrong.
        let plan: Self = serde_json::from_str(text).map_err(unreadable)?;
        plan.check()?;
        Ok(plan)
    }

    /// The file's text.
    ///
    /// # Errors
    /// If a number is none, which the format cannot hold.
    pub fn to_json(&self) -> Result<String, PlanFileError> {
        self.check()?;
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n")
            .map_err(|error| PlanFileError::Unreadable {
                why: error.to_string(),
            })
    }

    fn check(&self) -> Result<(), PlanFileError> {
        let mut counts = BTreeMap::new();
        for class in &self.classes {
            let rate = class.emulated_rate.unwrap_or(1.0);
            refuse_unless(rate > 0.0 && rate <= 1.0, &class.name, || {
                format!("a rate of {rate} is not above 0 and at most 1")
            })?;
            let first = counts.insert(class.name.as_str(), class.count).is_none();
            refuse_unless(first, &class.name, || {
                "two classes have this name".to_owned()
            })?;
        }
        let options = self.options.len();
        refuse_unless(self.chosen < options, "chosen", || {
            format!("option {} of {options} cannot be", self.chosen)
        })?;
        for option in &self.options {
            check_option(option, &counts)?;
        }
        Ok(())
    }
}

fn refuse_unless(
    holds: bool,
    place: &str,
    why: impl FnOnce() -> String,
) -> Result<(), PlanFileError> {
    match holds {
        true => Ok(()),
        false => Err(PlanFileError::Contradiction {
            place: place.to_owned(),
            why: why(),
        }),
    }
}

fn check_option(option: &PlannedOption, counts: &BTreeMap<&str, u64>) -> Result<(), PlanFileError> {
    let place = format!("option `{}`", option.name);
    for (class, it) in &option.uses {
        let used = it.all();
        let count = counts.get(class.as_str()).copied();
        refuse_unless(used.is_some() && used == count, &place, || match count {
            Some(count) => format!("its uses of {class} do not sum to the {count} that there are"),
            None => format!("the plan has no class {class}"),
        })?;
    }
    let mut names = BTreeSet::new();
    let mut work: BTreeMap<&str, u64> = BTreeMap::new();
    for job in &option.jobs {
        let place = format!("{place}, {}", job.name);
        refuse_unless(is_job_name(&job.name), &place, || {
            format!("a job's name {JOB_NAMES}")
        })?;
        refuse_unless(names.insert(label(&job.name)), &place, || {
            "two jobs have this name, or one that a scheduler cannot tell from it".to_owned()
        })?;
        check_job(job, &place)?;
        for (class, devices) in job.devices() {
            *work.entry(class).or_default() += devices;
        }
    }
    for (class, devices) in work {
        let train = option.uses.get(class).map_or(0, |it| it.train);
        refuse_unless(devices == train, &place, || {
            format!("its jobs have {devices} devices of {class}, its uses {train}")
        })?;
    }
    let figures = [option.tokens_per_s, option.model_tokens_per_s];
    figures.iter().try_for_each(|it| check_expected(it, &place))
}

fn check_job(job: &PlannedJob, place: &str) -> Result<(), PlanFileError> {
    let degrees = &job.degrees;
    let all = [
        degrees.tensor,
        degrees.context,
        degrees.pipeline,
        degrees.data,
        degrees.expert,
        degrees.virtual_stages,
        degrees.micro_batch,
        degrees.micro_batches,
        job.sequence_length,
    ];
    let ranks = all[..4].iter().try_fold(1_u64, |product, degree| {
        product.checked_mul((*degree).into())
    });
    let fits = ranks.is_some_and(|ranks| ranks <= MOST_RANKS);
    refuse_unless(fits && !all.contains(&0), place, || {
        "a degree, micro-batch or sequence length is zero or absurdly large".to_owned()
    })?;
    match &job.parts {
        PlannedParts::Replicas(groups) => {
            let there = groups.iter().map(|it| it.replicas);
            let replicas = there.clone().try_fold(0_u64, u64::checked_add);
            let named = u64::from(degrees.data);
            refuse_unless(replicas == Some(named), place, || {
                format!("its groups do not sum to the {named} replicas of its layout")
            })?;
        }
        PlannedParts::Stages(stages) => {
            let (given, needed) = (stages.len(), degrees.pipeline);
            let simple = degrees.virtual_stages == 1;
            refuse_unless(given == needed as usize && simple, place, || {
                format!("{given} stages for a pipeline of {needed}, or pieces of stages")
            })?;
        }
    }
    let pieces = job.piece_layers.len();
    let fits = match &job.parts {
        PlannedParts::Replicas(_) => {
            let all = u64::from(degrees.pipeline) * u64::from(degrees.virtual_stages);
            pieces == 0 || pieces as u64 == all
        }
        PlannedParts::Stages(_) => pieces == 0,
    };
    refuse_unless(fits, place, || {
        format!("{pieces} numbers of layers for the pieces of its pipeline")
    })?;
    let batches: u64 = job.micro_batches().iter().map(|&it| u64::from(it)).sum();
    let sequences = batches.checked_mul(degrees.micro_batch.into());
    refuse_unless(sequences == Some(job.global_batch_sequences), place, || {
        format!(
            "its micro-batches do not sum to {} sequences",
            job.global_batch_sequences
        )
    })?;
    check_expected(&job.expected.step_s, place)?;
    check_expected(&job.expected.tokens_per_s, place)
}

fn check_expected(expected: &Expected, place: &str) -> Result<(), PlanFileError> {
    let Expected { value, low, high } = *expected;
    let ordered = 0.0 <= low && low <= value && value <= high && high.is_finite();
    refuse_unless(ordered, place, || {
        format!("the prediction {value} is not between {low} and {high}")
    })
}
