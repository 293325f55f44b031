//! One job that must end in time: what is given away meanwhile.

use super::program::Goal;
use super::{Sharer, Wanted};
use crate::figures::{Figures, figures};
use crate::number::above_zero;
use crate::options::{Kind, Options, PlanOption};
use crate::problem::{Factors, PlanError, Problem};

/// Just enough devices to end in time, and how good the choice of them is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InTime {
    /// The option.
    pub(super) option: PlanOption,
    /// How much more the rest could earn at most, relative to the bound.
    pub(super) gap: f64,
}

/// The option in which just enough trains for the job to end in so many days, so that the rest
/// earns most.
///
/// # Errors
/// A number of days that is none, or in which no such part was found to end.
pub(super) fn in_time(problem: &Problem<'_>, days: f64) -> Result<InTime, PlanError> {
    above_zero("the deadline in days", days)?;
    let wanted = Wanted {
        name: &problem.training.model.name,
        problem,
        weight: 1.0,
        deadline_days: Some(days),
        fewest_devices: 0,
    };
    let sharing = Sharer::new(&[wanted], Goal::Earned).share()?;
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
    /// Adds the option in which just enough trains to end in so many days, if there is one, and
    /// keeps those that end later from being the answer. Gives how much more what that option
    /// leaves could earn at most, relative to the bound.
    ///
    /// # Errors
    /// A number of days that is none, or in which no option ends.
    pub fn hold_to(&mut self, problem: &Problem<'_>, days: f64) -> Result<Option<f64>, PlanError> {
        let is_late = |option: &PlanOption| {
            let ends = option.figures.days;
            ends.is_none_or(|it| it > days * (1.0 + 1e-9))
        };
        let gap = match in_time(problem, days) {
            Ok(in_time) => {
                self.list.push(in_time.option);
                self.list.sort_by_key(|option| option.kind);
                Some(in_time.gap)
            }
            Err(error @ PlanError::Number(_)) => return Err(error),
            Err(error) => {
                let can_win = self.list.iter().filter(|option| option.can_win);
                if can_win.clone().all(is_late) {
                    let all = can_win.filter_map(|option| option.figures.days);
                    let needed = all.reduce(f64::min).ok_or(error)?;
                    let model = problem.training.model.name.clone();
                    return Err(PlanError::TooSoon {
                        model,
                        days,
                        needed,
                    });
                }
                let reason = "no lesser part of the classes that ends in time was found".to_owned();
                self.left_out.push((Kind::InTime, reason));
                None
            }
        };
        for option in &mut self.list {
            option.can_win &= !is_late(option);
        }
        Ok(gap)
    }
}

#[cfg(test)]
mod tests;
