//! From jobs that share a cluster to the file: one option, whose jobs each have their model.

use super::write::{class, job, peak_of_job};
use super::{Expected, PLAN_VERSION, PlanFile, PlannedJob, PlannedOption};
use crate::compare::Objective;
use crate::figures::ledger;
use crate::options::{Kind, error_factor};
use crate::problem::{Factors, Problem};
use crate::sharing::{Sharing, Wanted};

impl PlanFile {
    /// The file of a sharing of a cluster among the jobs that it was made for, all of them on the
    /// cluster of `problem`. Jobs that are given nothing are not in it.
    #[must_use]
    pub fn of_sharing(
        (cluster, problem): (&str, &Problem<'_>),
        (wanted, sharing): (&[Wanted<'_, '_>], &Sharing),
        objective: Objective,
        caveats: &[String],
    ) -> Self {
        let classes = problem.classes.iter();
        Self {
            schema_version: PLAN_VERSION,
            cluster: cluster.to_owned(),
            objective,
            classes: classes.map(|it| class(problem, it)).collect(),
            chosen: 0,
            options: vec![option(problem, wanted, sharing)],
            caveats: caveats.to_vec(),
        }
    }
}

fn option(problem: &Problem<'_>, wanted: &[Wanted<'_, '_>], sharing: &Sharing) -> PlannedOption {
    let ledger = ledger(
        problem,
        &sharing.uses,
        &Factors::none(problem.classes.len()),
    );
    let (mut jobs, mut names): (Vec<PlannedJob>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut kept = Vec::new();
    let (mut flop_per_s, mut peak) = (0.0, 0.0);
    for (wanted, shared) in wanted.iter().zip(&sharing.jobs) {
        let Some((plan, outcome)) = shared.plan.as_ref().zip(shared.outcome.as_ref()) else {
            continue;
        };
        let of_job = wanted.problem;
        names.push(wanted.name);
        jobs.push(job(of_job, plan, outcome, wanted.name.to_owned()));
        let factor = error_factor(of_job);
        kept.push(Expected::within_factor(outcome.tokens_per_s(), factor));
        flop_per_s += outcome.stepping_tokens_per_s() * of_job.flop_per_token();
        peak += peak_of_job(of_job, plan);
    }
    let nothing = Expected::within_factor(0.0, 1.0);
    let fastest =
        kept.iter().copied().fold(
            nothing,
            |best, rate| {
                if rate.value > best.value { rate } else { best }
            },
        );
    PlannedOption {
        number: Some(1),
        kind: Kind::Shared,
        name: match names[..] {
            [] => "no job has anything".to_owned(),
            [only] => format!("{only} alone"),
            _ => format!("{} jobs: {}", names.len(), names.join(", ")),
        },
        can_win: true,
        uses: problem
            .classes
            .iter()
            .map(|class| class.of.name.clone())
            .zip(sharing.uses.iter().copied())
            .collect(),
        tokens_per_s: kept.into_iter().fold(nothing, |sum, rate| sum + rate),
        model_tokens_per_s: fastest,
        mfu: (peak > 0.0).then(|| flop_per_s / peak),
        power_mw: ledger.power_mw,
        net_dollars_per_hour: ledger.net_dollars_per_hour,
        jobs,
    }
}
