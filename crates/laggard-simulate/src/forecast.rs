//! What a training job does on a cluster of one or several classes, from the step of each class by
//! itself to the share of the fleet's peak that is left, each cause as its own term.
//!
//! All ranks have equal shares of the work and wait for each other. Each class is predicted as if
//! the whole world were of it; the one that takes longest sets the pace of all.

use laggard_specs::{Cluster, Pool, Tables};
use laggard_types::{BytesPerSecond, FlopPerSecond, Seconds};
use serde::Serialize;

use crate::compute::Constants;
use crate::error::{SimulateError, positive};
use crate::goodput::{Goodput, SparePool, Surroundings, spares_for, time_between_failures};
use crate::job::{Job, Machine};
use crate::lockstep::{Cause, FleetClass, FleetWaterfall, Lockstep, lockstep, share};
use crate::network::FabricOptions;
use crate::step::{StepTime, predict};

/// Accelerators of one class, as a cluster has them.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastClass {
    /// Id of the pool.
    pub name: String,
    /// Id of the accelerator.
    pub accelerator: String,
    /// How many there are.
    pub count: u64,
    /// How many of them are in one host; `None` where that is not known.
    pub devices_per_node: Option<u64>,
    /// What they are.
    pub machine: Machine,
    /// Failures that end a job, per device and year.
    pub failures_per_device_year: Option<f64>,
}

/// One class by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassForecast {
    /// Id of the pool.
    pub name: String,
    /// Id of the accelerator.
    pub accelerator: String,
    /// Ranks of the job that are of this class.
    pub ranks: u64,
    /// Dense peak of one accelerator in half precision, FLOP/s.
    pub peak_flop_per_s: f64,
    /// The step, were all ranks of this class.
    pub step: StepTime,
    /// MFU, were all ranks of this class.
    pub mfu_alone: f64,
}

/// A job on a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Ranks of the job.
    pub ranks: u64,
    /// Accelerators of the cluster.
    pub devices: u64,
    /// Each class by itself.
    pub classes: Vec<ClassForecast>,
    /// All of them in lock-step, without what the ranks' own differences cost.
    pub lockstep: Lockstep,
    /// Length of the step, seconds.
    pub step_s: f64,
    /// Tokens per second while it steps.
    pub tokens_per_s: f64,
    /// Mean time between failures of the job, seconds; `None` where a class has no rate.
    pub mtbf_s: Option<f64>,
    /// What failures leave.
    pub goodput: Option<Goodput>,
    /// What the first-order formula has for the interval between checkpoints, seconds; `None` where
    /// it does not hold or no rate is known.
    pub first_order_interval_s: Option<f64>,
    /// From the MFU of kernels to that of the fleet.
    pub waterfall: FleetWaterfall,
}

/// What spare nodes are for a job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spares {
    /// Nodes that the job needs.
    pub needed: u32,
    /// Nodes that it leaves over.
    pub there: u32,
    /// Share of the time with fewer healthy nodes than needed.
    pub share_short: f64,
    /// The fewest spare nodes with which that is at most [`RARELY`].
    pub enough: u32,
    /// What failures and missing nodes leave of the time.
    pub goodput: Goodput,
}

/// Share of the time that a job may lack nodes: a goal, not a measurement.
pub const RARELY: f64 = 0.01;

impl Forecast {
    /// What the accelerators that the job leaves over do for it as spares, if a failed node is back
    /// after `repair`; `None` where nobody knows how often accelerators fail.
    ///
    /// # Errors
    /// A time that is not finite or below zero, or no devices of a node.
    pub fn spares(
        &self,
        node_devices: u64,
        repair: Seconds,
    ) -> Result<Option<Spares>, SimulateError> {
        let (Some(mtbf_s), Some(goodput)) = (self.mtbf_s, self.goodput) else {
            return Ok(None);
        };
        positive("devices of a node", node_devices as f64)?;
        let nodes = |devices: u64| u32::try_from(devices).unwrap_or(u32::MAX);
        let needed = nodes(self.ranks.div_ceil(node_devices));
        let pool = SparePool {
            needed,
            spares: nodes(self.devices / node_devices).saturating_sub(needed),
            node_mtbf: Seconds(mtbf_s * f64::from(needed)),
            repair,
        };
        let share_short = pool.share_short()?;
        Ok(Some(Spares {
            needed,
            there: pool.spares,
            share_short,
            enough: spares_for(pool, RARELY)?,
            goodput: goodput.waiting(share_short)?,
        }))
    }

    /// The class that sets the pace: of those with ranks in the job, the one of the longest step.
    #[must_use]
    pub fn pace(&self) -> Option<&ClassForecast> {
        let there = self.classes.iter().filter(|class| class.ranks > 0);
        there.max_by(|a, b| a.step.total_s.total_cmp(&b.step.total_s))
    }
}

impl ForecastClass {
    /// The classes of a cluster, in its order.
    ///
    /// # Errors
    /// An accelerator that is in no table, or without the rates that a prediction needs.
    pub fn of_cluster(cluster: &Cluster, tables: &Tables) -> Result<Vec<Self>, SimulateError> {
        cluster
            .pools
            .iter()
            .map(|pool| Self::of_pool(pool, tables))
            .collect()
    }

    /// The class of a pool.
    ///
    /// # Errors
    /// An accelerator that is in no table, or without the rates that a prediction needs.
    pub fn of_pool(pool: &Pool, tables: &Tables) -> Result<Self, SimulateError> {
        let accelerator = tables.accelerator(&pool.accelerator)?;
        let rank_count = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok());
        let options = FabricOptions {
            domain_ranks: rank_count(pool.scale_up_domain_devices),
            scale_out_bandwidth: pool.network_bytes_per_s_per_device.map(BytesPerSecond),
            pod_ranks: rank_count(pool.pod_devices),
            oversubscription: pool.oversubscription,
            ..FabricOptions::default()
        };
        Ok(Self {
            name: pool.id.clone(),
            accelerator: accelerator.id.clone(),
            count: pool.count,
            devices_per_node: pool.devices_per_node,
            machine: Machine::new(accelerator, &options)?,
            failures_per_device_year: pool.failures_per_device_year,
        })
    }
}

/// Predicts a job on the accelerators of several classes. `model_flop_per_token` is what MFU
/// counts. Where the job has fewer ranks than there are accelerators, those of the largest class
/// are left over.
///
/// # Errors
/// No classes, fewer accelerators than ranks, or times that are none.
pub fn forecast(
    job: &Job,
    model_flop_per_token: f64,
    classes: &[ForecastClass],
    around: Surroundings,
    constants: &Constants,
) -> Result<Forecast, SimulateError> {
    let ranks = job.degrees.ranks();
    let devices: u64 = classes.iter().map(|class| class.count).sum();
    let used = used_of_each(classes, ranks)?;
    let flop_per_rank = model_flop_per_token * job.tokens_per_step() / ranks as f64;
    let mut list = Vec::new();
    for (class, &ranks) in classes.iter().zip(&used) {
        let step = predict(job, &class.machine, constants);
        list.push(ClassForecast {
            name: class.name.clone(),
            accelerator: class.accelerator.clone(),
            ranks,
            peak_flop_per_s: class.machine.half_peak,
            step,
            mfu_alone: flop_per_rank / step.total_s / class.machine.half_peak,
        });
    }
    let taken = |time: fn(&StepTime) -> f64| fleet(&list, flop_per_rank, time);
    let together = lockstep(&taken(without_jitter))?;
    let step_s = slowest(&list, |step| step.total_s);
    let rates = classes.iter().map(|class| class.failures_per_device_year);
    let mtbf = time_between_failures(rates.zip(used.iter().copied()));
    let goodput = mtbf.map(|mtbf| around.goodput(mtbf)).transpose()?;
    let first_order = mtbf
        .map(|mtbf| around.first_order_interval(mtbf))
        .transpose()?;
    let apart = |time| lockstep(&taken(time)).map(|it| it.mfu_divided);
    let (compute, with_links, with_bubble) = (
        apart(compute)?,
        apart(|step| without_jitter(step) - step.bubble_s)?,
        apart(without_jitter)?,
    );
    let peak = |counts: &mut dyn Iterator<Item = u64>| -> f64 {
        let of = |(class, count): (&ForecastClass, u64)| class.machine.half_peak * count as f64;
        classes.iter().zip(counts).map(of).sum()
    };
    let all = peak(&mut classes.iter().map(|class| class.count));
    let factors = [
        (Cause::Communication, with_links / compute),
        (Cause::Bubble, with_bubble / with_links),
        (Cause::FastClassesWait, together.mfu / with_bubble),
        (Cause::Jitter, slowest(&list, without_jitter) / step_s),
        (Cause::Failures, goodput.map_or(1.0, |it| it.useful)),
        (Cause::Allocation, peak(&mut used.iter().copied()) / all),
    ];
    Ok(Forecast {
        ranks,
        devices,
        classes: list,
        lockstep: together,
        step_s,
        tokens_per_s: job.tokens_per_step() / step_s,
        mtbf_s: mtbf.map(|mtbf| mtbf.0),
        goodput,
        first_order_interval_s: first_order.flatten().map(|interval| interval.0),
        waterfall: FleetWaterfall::new(compute, &factors)?,
    })
}

/// What the mix of classes alone does to an MFU that the slowest class has by itself: an identity,
/// without any model of a step. `rates` are training rates of the classes relative to each other;
/// without them, rates are in proportion to peaks.
///
/// # Errors
/// No classes, or an MFU or rates that are not above zero.
pub fn mix_alone(
    classes: &[ForecastClass],
    mfu: f64,
    rates: Option<&[f64]>,
) -> Result<Lockstep, SimulateError> {
    share("MFU of the slowest class by itself", mfu)?;
    let peaks = || classes.iter().map(|class| class.machine.half_peak);
    let rates: Vec<f64> = match rates {
        Some(rates) => rates.to_vec(),
        None => peaks().collect(),
    };
    let slowest = rates.iter().zip(peaks()).min_by(|a, b| a.0.total_cmp(b.0));
    let (rate, peak) = slowest.ok_or(SimulateError::NoClasses)?;
    let of = |(class, own): (&ForecastClass, &f64)| FleetClass {
        name: class.name.clone(),
        count: class.count as u32,
        peak: FlopPerSecond(class.machine.half_peak),
        alone: FlopPerSecond(mfu * peak * own / rate),
    };
    let list: Vec<FleetClass> = classes.iter().zip(&rates).map(of).collect();
    lockstep(&list)
}

/// How many of each class the job has.
fn used_of_each(classes: &[ForecastClass], ranks: u64) -> Result<Vec<u64>, SimulateError> {
    let mut used: Vec<u64> = classes.iter().map(|class| class.count).collect();
    let devices: u64 = used.iter().sum();
    let Some(mut idle) = devices.checked_sub(ranks) else {
        return Err(SimulateError::TooFewDevices { devices, ranks });
    };
    while idle > 0 {
        let Some(largest) = used.iter_mut().max() else {
            return Err(SimulateError::NoClasses);
        };
        let fewer = idle.min(*largest);
        *largest -= fewer;
        idle -= fewer;
    }
    Ok(used)
}

/// The classes at the pace that `time` gives each by itself.
fn fleet(
    classes: &[ClassForecast],
    flop_per_rank: f64,
    time: fn(&StepTime) -> f64,
) -> Vec<FleetClass> {
    let of = |class: &ClassForecast| FleetClass {
        name: class.name.clone(),
        count: class.ranks as u32,
        peak: FlopPerSecond(class.peak_flop_per_s),
        alone: FlopPerSecond(flop_per_rank / time(&class.step)),
    };
    classes
        .iter()
        .filter(|class| class.ranks > 0)
        .map(of)
        .collect()
}

fn slowest(classes: &[ClassForecast], time: fn(&StepTime) -> f64) -> f64 {
    let there = classes.iter().filter(|class| class.ranks > 0);
    there.map(|class| time(&class.step)).fold(0.0, f64::max)
}

fn without_jitter(step: &StepTime) -> f64 {
    step.total_s - step.jitter_s
}

/// Kernels and the host alone.
fn compute(step: &StepTime) -> f64 {
    without_jitter(step) - step.bubble_s - step.communication_s()
}

#[cfg(test)]
mod tests;
