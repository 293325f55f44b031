//! Steps of a layout by calibrated costs.

use super::{Calibration, Places};
use crate::error::SimulateError;
use crate::graph::predict_step;
use laggard_schedule::{Operation, Schedule};
use laggard_stats::{Rng, quantile};
use laggard_types::Rank;
use serde::Serialize;
use std::cell::RefCell;

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
    /// Predicts `draws` steps of a schedule whose ranks are all of one class. Each operation's time
    /// is drawn from those that its kind took, independently.
    ///
    /// # Errors
    /// A class or kind of operation that was never seen, or a schedule that cannot be evaluated.
    pub fn predict(
        &self,
        schedule: &Schedule,
        class: &str,
        (draws, seed): (u32, u64),
    ) -> Result<CalibratedStep, SimulateError> {
        let places = Places::of(schedule);
        for operation in &schedule.operations {
            if self
                .seconds(class, operation, places.place(operation), 0.5)
                .is_none()
            {
                return Err(SimulateError::NotCalibrated {
                    operation: operation.name.clone(),
                    class: class.to_owned(),
                });
            }
        }
        let at = |operation: &Operation, quantile: f64| {
            let seconds = self.seconds(class, operation, places.place(operation), quantile);
            seconds.unwrap_or(f64::NAN)
        };
        let calm = predict_step(schedule, |_| 0, |operation, _| at(operation, 0.5))?;
        let mut steps = Vec::with_capacity(draws as usize);
        for draw in 0..draws {
            let rng = RefCell::new(Rng::for_stream(seed, draw.into()));
            let seconds = |operation: &Operation, _: Rank| {
                let quantile = rng.borrow_mut().uniform();
                at(operation, quantile)
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
}
