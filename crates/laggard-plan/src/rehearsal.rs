//! A plan against its rehearsal: what was predicted, beside what was measured.

use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

use crate::file::{Expected, PlanFile, PlanFileError, PlannedJob, PlannedOption};
use crate::options::Kind;

/// Version of the format of [`Rehearsal`].
const REHEARSAL_VERSION: u32 = 1;

/// What a job did when it was run as planned.
#[derive(Debug, Clone, PartialEq)]
pub struct RehearsedJob {
    /// Median length of a step, seconds; the interval is that of the mean, in proportion.
    pub step_s: Expected,
    /// Seconds of a step in which kernels ran, mean over the ranks of each class.
    pub kernels_s: BTreeMap<String, f64>,
}

/// What was predicted of a rehearsal, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Rehearsal {
    /// Version of this format.
    pub schema_version: u32,
    /// The option that was rehearsed.
    pub option: String,
    /// One row for each figure.
    pub rows: Vec<RehearsalRow>,
    /// How much more tokens a second than with equal shares, where those were run too.
    pub gain: Option<Gain>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RehearsalRow {
    /// The job.
    pub job: String,
    /// The class, of what differs between classes.
    pub class: Option<String>,
    /// The figure's name, with its unit.
    pub name: &'static str,
    /// What was predicted, with its interval where it has one.
    pub predicted: Expected,
    /// What was measured, with its interval where it has one.
    pub measured: Expected,
    /// Predicted over measured, less 1; absent where nothing was measured.
    pub error: Option<f64>,
}

/// Tokens per second over those with equal shares, less 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Gain {
    /// By the plan.
    pub predicted: f64,
    /// By both runs, as far as the intervals of their steps leave it open.
    pub measured: Expected,
    /// Predicted less measured, in points of a hundredth of the tokens with equal shares.
    pub points_off: f64,
}

impl RehearsedJob {
    /// What a job did, by the median and the mean length of its steps, the latter with its
    /// interval, and by the seconds of a step in which each rank's kernels ran.
    #[must_use]
    pub fn new(job: &PlannedJob, (median, mean): (f64, Expected), kernels: &[f64]) -> Self {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (class, seconds) in job.class_of_rank().into_iter().zip(kernels) {
            let sum = sums.entry(class).or_default();
            *sum = (sum.0 + seconds, sum.1 + 1.0);
        }
        let mean_of = |(class, (sum, count)): (&str, (f64, f64))| (class.to_owned(), sum / count);
        Self {
            step_s: Expected {
                value: median,
                low: median * mean.low / mean.value,
                high: median * mean.high / mean.value,
            },
            kernels_s: sums.into_iter().map(mean_of).collect(),
        }
    }
}

impl Rehearsal {
    /// Holds the jobs of an option against their runs, in order of the option's jobs. `equal` are
    /// those of equal shares, where they were run.
    ///
    /// # Errors
    /// If there is no such option, or there are other numbers of runs than of jobs.
    pub fn new(
        plan: &PlanFile,
        number: Option<usize>,
        jobs: &[RehearsedJob],
        equal: Option<&[RehearsedJob]>,
    ) -> Result<Self, PlanFileError> {
        let option = plan.option(number)?;
        option.check_runs(jobs.len())?;
        let rows = option.jobs.iter().zip(jobs).flat_map(rows);
        let gain = match equal {
            Some(equal) => Some(gain(plan, option, jobs, equal)?),
            None => None,
        };
        Ok(Self {
            schema_version: REHEARSAL_VERSION,
            option: option.name.clone(),
            rows: rows.collect(),
            gain,
        })
    }
}

impl PlanFile {
    /// The option in which all classes have equal shares.
    ///
    /// # Errors
    /// If the plan has none.
    pub fn equal_shares(&self) -> Result<&PlannedOption, PlanFileError> {
        let mut options = self.options.iter();
        let equal = options.find(|option| option.kind == Kind::EqualShares);
        equal.ok_or_else(|| PlanFileError::Contradiction {
            place: "options".to_owned(),
            why: "none of them is of equal shares".to_owned(),
        })
    }
}

impl PlannedOption {
    /// Refuses other numbers of runs than there are jobs.
    ///
    /// # Errors
    /// If there are fewer or more.
    pub fn check_runs(&self, runs: usize) -> Result<(), PlanFileError> {
        match self.jobs.len() == runs {
            true => Ok(()),
            false => Err(PlanFileError::OtherRuns {
                option: self.name.clone(),
                jobs: self.jobs.len(),
                runs,
            }),
        }
    }
}

fn rows((job, run): (&PlannedJob, &RehearsedJob)) -> Vec<RehearsalRow> {
    let step = &job.expected.step_s;
    let row = |class: Option<&str>, name, predicted: Expected, measured: Expected| RehearsalRow {
        job: job.name.clone(),
        class: class.map(str::to_owned),
        name,
        predicted,
        measured,
        error: (measured.value > 0.0).then(|| predicted.value / measured.value - 1.0),
    };
    let mut rows = vec![
        row(None, "step [s]", *step, run.step_s),
        row(None, "tokens/s", job.expected.tokens_per_s, rate(job, run)),
    ];
    for (class, measured) in &run.kernels_s {
        let Some(time) = job.expected.classes.get(class) else {
            continue;
        };
        let exactly = |value: f64| Expected::within_factor(value, 1.0);
        let rest = |step: f64, kernels: f64| exactly((step - kernels).max(0.0));
        let class = Some(class.as_str());
        rows.push(row(
            class,
            "kernels [s]",
            exactly(time.kernels_s),
            exactly(*measured),
        ));
        rows.push(row(
            class,
            "waiting and exposed transfers [s]",
            rest(step.value, time.kernels_s),
            rest(run.step_s.value, *measured),
        ));
    }
    rows
}

/// Tokens per second of a run.
fn rate(job: &PlannedJob, run: &RehearsedJob) -> Expected {
    let tokens = job.step_tokens();
    Expected {
        value: tokens / run.step_s.value,
        low: tokens / run.step_s.high,
        high: tokens / run.step_s.low,
    }
}

fn gain(
    plan: &PlanFile,
    option: &PlannedOption,
    jobs: &[RehearsedJob],
    equal: &[RehearsedJob],
) -> Result<Gain, PlanFileError> {
    let shares = plan.equal_shares()?;
    shares.check_runs(equal.len())?;
    let all = |option: &PlannedOption, runs: &[RehearsedJob]| {
        let rates = option
            .jobs
            .iter()
            .zip(runs)
            .map(|(job, run)| rate(job, run));
        rates.fold(Expected::within_factor(0.0, 1.0), |sum, rate| sum + rate)
    };
    let (a, b) = (all(shares, equal), all(option, jobs));
    let measured = Expected {
        value: b.value / a.value - 1.0,
        low: b.low / a.high - 1.0,
        high: b.high / a.low - 1.0,
    };
    let stepping = |option: &PlannedOption| -> f64 {
        let rates = option
            .jobs
            .iter()
            .map(|job| job.expected.tokens_per_s.value);
        rates.sum()
    };
    let predicted = stepping(option) / stepping(shares) - 1.0;
    Ok(Gain {
        predicted,
        measured,
        points_off: 100.0 * (predicted - measured.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::plan;

    fn run(job: &PlannedJob, slower: f64) -> RehearsedJob {
        let step = job.expected.step_s.value * slower;
        let kernels = |(class, time): (&String, &crate::options::ClassTime)| {
            (class.clone(), time.kernels_s * slower)
        };
        RehearsedJob {
            step_s: Expected::within_factor(step, 1.01),
            kernels_s: job.expected.classes.iter().map(kernels).collect(),
        }
    }

    fn runs(option: &PlannedOption, slower: f64) -> Vec<RehearsedJob> {
        option.jobs.iter().map(|job| run(job, slower)).collect()
    }

    #[test]
    fn errors_and_gains_are_those_that_were_put_in() {
        let (plan, _) = plan();
        for option in plan.options.iter().filter(|it| !it.jobs.is_empty()) {
            let made = runs(option, 1.25);
            let equal = runs(plan.equal_shares().expect("equal shares"), 1.0);
            let found = Rehearsal::new(&plan, option.number, &made, Some(&equal));
            let found = found.expect("a comparison");
            for row in &found.rows {
                let expect = if row.name == "tokens/s" { 1.25 } else { 0.8 };
                let error = row.error.unwrap_or(expect - 1.0);
                assert!((error + 1.0 - expect).abs() < 1e-9, "{row:?}");
            }
            let gain = found.gain.expect("a gain");
            let expect = (1.0 + gain.predicted) / 1.25 - 1.0;
            assert!((gain.measured.value - expect).abs() < 1e-9, "{gain:?}");
            let points = 100.0 * (gain.predicted - expect);
            assert!((gain.points_off - points).abs() < 1e-9, "{gain:?}");
            assert!(gain.measured.low < expect && expect < gain.measured.high);
        }
    }

    #[test]
    fn other_numbers_of_runs_are_refused() {
        let (plan, _) = plan();
        let error = Rehearsal::new(&plan, None, &[], None).expect_err("no runs");
        assert!(error.to_string().contains("records: 0"), "{error}");
    }
}
