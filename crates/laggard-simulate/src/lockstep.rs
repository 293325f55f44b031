//! What classes of accelerators reach together, and what a figure for a whole fleet says:
//! identities, no model. Four figures are kept apart: the MFU of a job while it steps, its goodput,
//! the share of the fleet that it was given, and the MFU of the fleet, their product.

mod identify;
mod waterfall;

use laggard_types::FlopPerSecond;
use serde::Serialize;

pub use identify::{
    Combination, Example, FleetAssumptions, Identification, Peak, Range, identify_mfu,
};
pub use waterfall::{Cause, FleetWaterfall, WaterfallTerm};

use crate::error::{SimulateError, in_range, positive};

/// Accelerators of one class in a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetClass {
    /// The class, such as an accelerator's id.
    pub name: String,
    /// How many.
    pub count: u32,
    /// The peak that MFU is divided by, of one accelerator.
    pub peak: FlopPerSecond,
    /// Model FLOP/s that one accelerator reaches where the class trains by itself.
    pub alone: FlopPerSecond,
}

/// A job on several classes that all get equal shares and wait for each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lockstep {
    /// MFU of the job: its model FLOP over what all its accelerators could at their own peaks.
    pub mfu: f64,
    /// The same with shares in proportion to the classes' speeds.
    pub mfu_divided: f64,
    /// Share of the fleet's own pace that equal shares lose: `1 - mfu / mfu_divided`.
    pub loss: f64,
    /// The class that sets the pace.
    pub slowest: String,
    /// MFU of each class, over its own peak, at the common pace.
    pub by_class: Vec<ClassMfu>,
}

/// The MFU of one class within a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassMfu {
    /// The class.
    pub name: String,
    /// At the common pace.
    pub mfu: f64,
    /// By itself.
    pub mfu_alone: f64,
}

/// Equal shares in lock-step: every accelerator does the work of the slowest class.
///
/// `MFU = n min(alone) / sum(n_c peak_c)`: the sum of each class's own peaks, never the count
/// times one of them.
///
/// # Errors
/// No classes, an empty one, or a rate that is not above zero and finite.
pub fn lockstep(classes: &[FleetClass]) -> Result<Lockstep, SimulateError> {
    for class in classes {
        positive("number of accelerators", f64::from(class.count))?;
        positive("peak in FLOP/s", class.peak.0)?;
        positive("training rate in FLOP/s", class.alone.0)?;
    }
    let slowest = classes
        .iter()
        .min_by(|a, b| a.alone.0.total_cmp(&b.alone.0))
        .ok_or(SimulateError::NoClasses)?;
    let pace = slowest.alone.0;
    let count: f64 = classes.iter().map(|class| f64::from(class.count)).sum();
    let (capacity, own_pace) = totals(classes);
    // Rounding alone can make the sum less than its smallest possible value.
    let own_pace = own_pace.max(count * pace);
    let mfu = count * pace / capacity;
    let mfu_divided = own_pace / capacity;
    Ok(Lockstep {
        mfu,
        mfu_divided,
        loss: 1.0 - mfu / mfu_divided,
        slowest: slowest.name.clone(),
        by_class: classes
            .iter()
            .map(|class| ClassMfu {
                name: class.name.clone(),
                mfu: pace / class.peak.0,
                mfu_alone: class.alone.0 / class.peak.0,
            })
            .collect(),
    })
}

/// Peaks of all accelerators, and what they reach by themselves.
fn totals(classes: &[FleetClass]) -> (f64, f64) {
    let sum = |rate: &dyn Fn(&FleetClass) -> f64| -> f64 {
        classes
            .iter()
            .map(|class| f64::from(class.count) * rate(class))
            .sum()
    };
    (sum(&|class| class.peak.0), sum(&|class| class.alone.0))
}

/// Refuses a share outside (0, 1].
pub(crate) fn share(name: &'static str, value: f64) -> Result<f64, SimulateError> {
    in_range(
        name,
        value,
        value > 0.0 && value <= 1.0,
        "above 0 and at most 1",
    )
}

#[cfg(test)]
mod tests;
