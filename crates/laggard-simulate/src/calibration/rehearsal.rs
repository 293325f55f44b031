//! Steps of a layout by calibrated costs.

use super::{Calibration, Places};
use crate::error::SimulateError;
use crate::graph::{StepPrediction, predict_step};
use laggard_schedule::{Operation, Schedule};
use laggard_stats::{Rng, quantile};
use laggard_types::Rank;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Steps of a layout, predicted by costs that were measured on others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CalibratedStep {
    /// The step with every operation as it usually is, seconds.
    pub calm_s: f64,
    /// Median of the steps that were drawn: operations vary, and ranks wait for each other.
    pub median_s: f64,
    /// One drawn step in twenty is shorter.
    pub low_s: f64,
    /// One drawn step in twenty is longer.
    pub high_s: f64,
}

impl Calibration {
    /// Most layers that the micro-batches of a step pass through where steps are drawn: each pass
    /// is replayed hundreds of times.
    pub const MOST_PASSES: u64 = 1 << 18;

    /// A step of a schedule in which the operations that `counts` holds for take as long as they
    /// usually do on their rank's class, and the others no time.
    ///
    /// # Errors
    /// A class or kind of operation that was never seen, or a schedule that cannot be evaluated.
    pub fn usual_step<'c>(
        &self,
        schedule: &Schedule,
        class_of_rank: impl Fn(Rank) -> &'c str,
        counts: impl Fn(&Operation) -> bool,
    ) -> Result<StepPrediction, SimulateError> {
        let places = Places::of(schedule);
        self.check(schedule, &places, &class_of_rank)?;
        let number = |rank: Rank| {
            let class = class_of_rank(rank);
            let known = self.classes.iter().position(|it| it.class == class);
            known.unwrap_or(self.classes.len()) as u64
        };
        let seconds = |operation: &Operation, rank: Rank| match counts(operation) {
            true => self.drawn(operation, &places, class_of_rank(rank), 0.5),
            false => 0.0,
        };
        predict_step(schedule, number, seconds)
    }

    /// Predicts `draws` steps of a schedule on ranks of given classes. Each operation's time is
    /// drawn from those that its kind took on the class, independently.
    ///
    /// # Errors
    /// A class or kind of operation that was never seen, or a schedule that cannot be evaluated.
    pub fn predict<'c>(
        &self,
        schedule: &Schedule,
        class_of_rank: impl Fn(Rank) -> &'c str,
        (draws, seed): (u32, u64),
    ) -> Result<CalibratedStep, SimulateError> {
        let calm = self.usual_step(schedule, &class_of_rank, |_| true)?;
        let places = Places::of(schedule);
        let mut steps = Vec::with_capacity(draws as usize);
        for draw in 0..draws {
            let rng = RefCell::new(Rng::for_stream(seed, draw.into()));
            let seconds = |operation: &Operation, rank: Rank| {
                let quantile = rng.borrow_mut().uniform();
                self.drawn(operation, &places, class_of_rank(rank), quantile)
            };
            steps.push(predict_step(schedule, u64::from, seconds)?.step_s);
        }
        let of_drawn = |share: f64| quantile(&steps, share).unwrap_or(calm.step_s);
        Ok(CalibratedStep {
            calm_s: calm.step_s,
            median_s: of_drawn(0.5),
            low_s: of_drawn(0.05),
            high_s: of_drawn(0.95),
        })
    }

    /// Refuses a schedule of which something was never seen.
    fn check<'c>(
        &self,
        schedule: &Schedule,
        places: &Places,
        class_of_rank: &impl Fn(Rank) -> &'c str,
    ) -> Result<(), SimulateError> {
        let mut known = BTreeSet::new();
        for rank in 0..schedule.world_size() as Rank {
            let class = class_of_rank(rank);
            if !known.insert((class, schedule.program_of_rank[rank as usize])) {
                continue;
            }
            for &id in schedule.program(rank) {
                let operation = &schedule.operations[id as usize];
                let seconds = self.seconds(class, operation, places.place(operation), 0.5);
                if seconds.is_none() {
                    return Err(SimulateError::NotCalibrated {
                        operation: operation.name.clone(),
                        class: class.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// What an operation takes, of a kind that was seen.
    fn drawn(&self, operation: &Operation, places: &Places, class: &str, quantile: f64) -> f64 {
        let seconds = self.seconds(class, operation, places.place(operation), quantile);
        seconds.unwrap_or(f64::NAN)
    }
}
