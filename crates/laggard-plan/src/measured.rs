//! Plans of classes that were measured: what runs of them cost, operation by operation, instead of
//! datasheets. The options are few, of small worlds, and each is predicted by the replay of its own
//! schedule, as it will be executed.
//!
//! Replicas are one rank wide; pipelines are tried where records tell what transfers cost.

mod costs;
mod write;

use laggard_schedule::Layout;
use laggard_simulate::{Calibration, SimulateError};
use laggard_specs::Model;
use thiserror::Error;

use crate::compare::Objective;
use crate::file::{PlanFile, PlannedOption};
use crate::options::{Group, JobPlan, Kind};
use crate::shares::{SharesError, share_out};
use crate::stages::{Chain, order_stages};
use costs::Costs;

/// Pipelines are tried up to so many stages.
const MOST_STAGES: u32 = 24;

/// What is planned, and what is known of it.
#[derive(Debug, Clone)]
pub struct Measured<'a> {
    /// Where the classes were found, for the file.
    pub source: String,
    /// The model.
    pub model: &'a Model,
    /// Tokens of a sequence.
    pub sequence_length: u32,
    /// Sequences of a micro-batch.
    pub micro_batch: u32,
    /// Bytes of an element.
    pub element_bytes: u64,
    /// How gradients are reduced, and what is recomputed; its degrees and shares do not count.
    pub layout: &'a Layout,
    /// The classes with their ranks, in the order in which they take them.
    pub classes: &'a [MeasuredClass],
    /// Micro-batches of a step.
    pub micro_batches: u32,
    /// What operations cost on each class.
    pub calibration: &'a Calibration,
    /// What the answer is best by.
    pub objective: Objective,
    /// Steps that are drawn for each option, and the seed.
    pub draws: (u32, u64),
}

/// Ranks of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredClass {
    /// Its name, as in the calibration.
    pub name: String,
    /// How many there are.
    pub ranks: u32,
    /// Its rate relative to the fastest, where it was emulated.
    pub emulated_rate: Option<f64>,
}

/// A plan, and what was left out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredPlan {
    /// The options and the answer.
    pub file: PlanFile,
    /// Options that cannot be, with the reason.
    pub left_out: Vec<(Kind, String)>,
}

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MeasuredError {
    /// Ranks that are not there.
    #[error("the plan has no ranks\nhint: give a class some with --ranks-of CLASS=N")]
    NoRanks,
    /// A class that no record has.
    #[error("no record has a class `{class}`\nhint: they have {known}")]
    UnknownClass {
        /// What was named.
        class: String,
        /// The classes that there are.
        known: String,
    },
    /// A step that would take too long to replay.
    #[error(
        "{micro_batches} micro-batches through {layers} layers are more than the {most} passes of \
         a layer that can be replayed\nhint: give a smaller --batch-tokens, or fewer ranks with \
         --ranks-of"
    )]
    TooLarge {
        /// Micro-batches of the step.
        micro_batches: u32,
        /// Layers of the model.
        layers: u64,
        /// Most passes of a layer.
        most: u64,
    },
    /// Equal shares of the batch are not whole.
    #[error(
        "{micro_batches} micro-batches cannot be shared equally by {ranks} ranks\nhint: give \
         --batch-tokens a multiple of {tokens}"
    )]
    NotShared {
        /// Micro-batches of the step.
        micro_batches: u32,
        /// Ranks.
        ranks: u32,
        /// Tokens of a micro-batch of every rank.
        tokens: u64,
    },
    /// The objective needs what is not measured.
    #[error(
        "measured classes cannot be compared by {objective}\nhint: use --objective tokens or \
         --objective time"
    )]
    Objective {
        /// Its name.
        objective: &'static str,
    },
    /// A step that cannot be predicted.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// Shares that cannot be found.
    #[error(transparent)]
    Shares(#[from] SharesError),
}

/// Plans measured classes.
///
/// # Errors
/// Classes or batches that do not fit, or a step that the calibration cannot predict.
pub fn plan_measured(measured: &Measured<'_>) -> Result<MeasuredPlan, MeasuredError> {
    check(measured)?;
    let mut maker = Maker {
        costs: Costs::new(measured),
        list: Vec::new(),
        left_out: Vec::new(),
    };
    let all: Vec<usize> = (0..measured.classes.len()).collect();
    maker.list.push(
        maker
            .costs
            .option(Kind::EqualShares, &[maker.equal(&all)])?,
    );
    if all.len() > 1 {
        maker.add(Kind::UnevenShares, |maker| Ok(vec![maker.uneven(&all)?]))?;
        maker.add(Kind::UnevenStages, |maker| {
            Ok(maker.stages()?.into_iter().collect())
        })?;
        maker.add(Kind::Pools, |maker| {
            Ok(all.iter().map(|&class| maker.equal(&[class])).collect())
        })?;
        for &class in &all {
            maker.add(Kind::Alone, |maker| Ok(vec![maker.uneven(&[class])?]))?;
        }
    }
    let Maker { list, left_out, .. } = maker;
    Ok(MeasuredPlan {
        file: write::file(measured, list),
        left_out,
    })
}

fn check(measured: &Measured<'_>) -> Result<(), MeasuredError> {
    if !matches!(measured.objective, Objective::Tokens | Objective::Time) {
        return Err(MeasuredError::Objective {
            objective: measured.objective.name(),
        });
    }
    let known = || {
        measured
            .calibration
            .classes
            .iter()
            .map(|it| it.class.as_str())
    };
    for class in measured.classes {
        if !known().any(|name| name == class.name) {
            return Err(MeasuredError::UnknownClass {
                class: class.name.clone(),
                known: known().collect::<Vec<_>>().join(", "),
            });
        }
    }
    if measured.classes.is_empty() || measured.classes.iter().any(|it| it.ranks == 0) {
        return Err(MeasuredError::NoRanks);
    }
    let (micro_batches, layers) = (measured.micro_batches, measured.model.layers);
    let most = Calibration::MOST_PASSES;
    if u64::from(micro_batches).saturating_mul(layers) > most {
        return Err(MeasuredError::TooLarge {
            micro_batches,
            layers,
            most,
        });
    }
    let ranks = measured.ranks();
    if measured.micro_batches == 0 || !measured.micro_batches.is_multiple_of(ranks) {
        let sequences = u64::from(measured.micro_batch) * u64::from(ranks);
        return Err(MeasuredError::NotShared {
            micro_batches: measured.micro_batches,
            ranks,
            tokens: sequences * u64::from(measured.sequence_length),
        });
    }
    Ok(())
}

impl Measured<'_> {
    /// Ranks of all classes.
    fn ranks(&self) -> u32 {
        let ranks = self.classes.iter().map(|class| class.ranks);
        ranks.fold(0, u32::saturating_add)
    }
}

struct Maker<'m> {
    costs: Costs<'m>,
    list: Vec<PlannedOption>,
    left_out: Vec<(Kind, String)>,
}

impl Maker<'_> {
    /// Adds an option, or why it cannot be.
    fn add(
        &mut self,
        kind: Kind,
        jobs: impl FnOnce(&Self) -> Result<Vec<JobPlan>, MeasuredError>,
    ) -> Result<(), MeasuredError> {
        let option = jobs(self).and_then(|jobs| match jobs.is_empty() {
            true => Ok(None),
            false => Ok(Some(self.costs.option(kind, &jobs)?)),
        });
        let why = match option {
            Ok(Some(option)) => {
                self.list.push(option);
                return Ok(());
            }
            Ok(None) => {
                "no pipeline divides the ranks of every class, the layers and the batch".to_owned()
            }
            Err(MeasuredError::Simulate(SimulateError::NotCalibrated { operation, .. })) => {
                format!("no record tells what `{operation}` costs: calibrate on a run that has it")
            }
            Err(MeasuredError::Simulate(SimulateError::Layout(error))) => first_line(&error),
            Err(MeasuredError::Shares(error)) => first_line(&error),
            Err(error) => return Err(error),
        };
        self.left_out.push((kind, why));
        Ok(())
    }

    /// Every rank of some classes a replica with as many micro-batches as any other.
    fn equal(&self, classes: &[usize]) -> JobPlan {
        let measured = self.costs.measured;
        let group = |&class: &usize| Group {
            class,
            replicas: measured.classes[class].ranks.into(),
            micro_batches: measured.micro_batches / measured.ranks(),
        };
        self.costs.replicas(classes.iter().map(group).collect())
    }

    /// Every rank of some classes a replica, with micro-batches by speed.
    fn uneven(&self, classes: &[usize]) -> Result<JobPlan, MeasuredError> {
        let workers = classes.iter().map(|&class| self.costs.worker(class));
        let workers = workers.collect::<Result<Vec<_>, _>>()?;
        let shares = share_out(&workers, self.costs.measured.micro_batches.into())?;
        let groups = classes
            .iter()
            .zip(&shares.of_worker)
            .flat_map(|(&class, groups)| {
                let group = move |&(replicas, count): &(u64, u64)| Group {
                    class,
                    replicas,
                    micro_batches: count as u32,
                };
                groups.iter().map(group)
            });
        Ok(self.costs.replicas(groups.collect()))
    }

    /// The fastest of the pipelines that have as many stages of a class in every replica.
    fn stages(&self) -> Result<Option<JobPlan>, SimulateError> {
        let measured = self.costs.measured;
        let all = measured.ranks();
        let layers = measured.model.layers as usize;
        let divides = |replicas: &u32| {
            let classes = measured.classes.iter();
            let mut counts = classes.map(|it| it.ranks).chain([measured.micro_batches]);
            counts.all(|count| count.is_multiple_of(*replicas))
        };
        let is_short = |replicas: &u32| all / replicas <= MOST_STAGES;
        let mut best: Option<(f64, JobPlan)> = None;
        for replicas in (1..=all).filter(divides).filter(is_short) {
            let pace = self.costs.pace()?;
            let chain = Chain {
                layers,
                micro_batches: (measured.micro_batches / replicas).into(),
                seconds: &|stage, range| pace.seconds(stage.class, range),
                after: &|_, _| 0.0,
                fits: &|_, _| true,
                below: f64::INFINITY,
                layer: &|_| 0.0,
                joints: None,
            };
            let counts = measured
                .classes
                .iter()
                .map(|it| (it.ranks / replicas) as usize);
            let Ok(cut) = order_stages(&chain, &counts.collect::<Vec<_>>()) else {
                continue;
            };
            let stages = cut
                .stages
                .into_iter()
                .map(|(class, range)| (class, range.len()));
            let plan = self.costs.pipeline(replicas, stages.collect());
            let seconds = self.costs.calm_s(&plan)?;
            if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                best = Some((seconds, plan));
            }
        }
        Ok(best.map(|(_, plan)| plan))
    }
}

/// The reason without its hint.
fn first_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
