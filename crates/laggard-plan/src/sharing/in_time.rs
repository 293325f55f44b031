//! One job that must end in time: what is given away meanwhile.

use super::program::Goal;
use super::{Sharer, Wanted};
use crate::figures::{Figures, figures};
use crate::number::above_zero;
use crate::options::{Kind, Options, PlanOption};
use crate::pools::PoolsError;
use crate::problem::{Factors, PlanError, Problem};

/// Just enough devices to end in time, and how good the choice of them is.
#[derive(Debug, Clone, PartialEq)]
pub struct InTime {
    /// The option.
    pub option: PlanOption,
    /// How much more the rest could earn at most, relative to the bound.
    pub gap: f64,
}

/// The option in which just enough trains for the job to end in so many days, so that the rest
/// earns most.
///
/// # Errors
/// A number of days that is none, or fewer than everything takes together.
pub fn in_time(problem: &Problem<'_>, days: f64) -> Result<InTime, PlanError> {
    above_zero("the deadline in days", days)?;
    let wanted = Wanted {
        name: &problem.training.model.name,
        problem,
        weight: 1.0,
        deadline_days: Some(days),
        fewest_devices: 0,
    };
    let too_soon = |error| match error {
        PlanError::Pools(PoolsError::Demands { share, .. }) if share > 0.0 => PlanError::TooSoon {
            model: problem.training.model.name.clone(),
            days,
            needed: days / share,
        },
        error => error,
    };
    let sharing = Sharer::new(&[wanted], Goal::Earned)
        .share()
        .map_err(too_soon)?;
    let gap = sharing.gap();
    let classes = problem.classes.iter().zip(&sharing.uses);
    let trains = classes.filter(|(_, it)| it.train + it.idle > 0);
    let names: Vec<String> = trains
        .map(|(class, it)| format!("{} {}", it.train + it.idle, class.of.name))
        .collect();
    let leases = sharing.uses.iter().any(|it| it.lease > 0);
    let mut classes = problem.classes.iter().zip(&sharing.uses);
    let serves = classes.any(|(class, it)| it.serve > class.serve);
    let rest = match (leases, serves) {
        (_, false) => "lease the rest",
        (false, true) => "serve on the rest",
        (true, true) => "lease or serve on the rest",
    };
    let mut option = PlanOption {
        kind: Kind::InTime,
        name: format!("train on just {}, {rest}", names.join(" + ")),
        jobs: sharing
            .jobs
            .into_iter()
            .filter_map(|job| job.plan)
            .collect(),
        uses: sharing.uses,
        figures: Figures::default(),
        can_win: true,
        paces: None,
    };
    option.figures = figures(problem, &option, &Factors::none(problem.classes.len()))?;
    Ok(InTime { option, gap })
}

impl Options {
    /// Adds the option that ends in time, and keeps those that end later from being the answer.
    pub fn hold_to(&mut self, days: f64, in_time: InTime) {
        self.list.push(in_time.option);
        self.list.sort_by_key(|option| option.kind);
        for option in &mut self.list {
            let is_late = option
                .figures
                .days
                .is_none_or(|it| it > days * (1.0 + 1e-9));
            option.can_win &= !is_late;
        }
    }
}
