//! What could lie behind a company-wide MFU whose definition is not published.

use laggard_types::FlopPerSecond;
use serde::Serialize;

use super::share;
use crate::error::{SimulateError, in_range, positive};
use crate::job::Machine;

/// What every result says.
const STATEMENT: &str = "not identifiable from public data";

/// Values from `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

/// A peak that a figure may have been divided by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Peak {
    /// Precision and sparsity, such as `dense bf16`.
    pub name: String,
    /// Of one accelerator.
    pub rate: FlopPerSecond,
}

/// What is taken for possible. Each range is an assumption that the caller states.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FleetAssumptions {
    /// MFU of the jobs while they step, over `reference`, canonical causal.
    pub job_mfu: Range,
    /// What failures leave of the jobs' time.
    pub goodput: Range,
    /// Share of the fleet that trains at all.
    pub allocated_share: Range,
    /// The peak that `job_mfu` is over: dense bf16 as a rule.
    pub reference: Peak,
    /// Peaks that the figure may have been divided by.
    pub peaks: Vec<Peak>,
    /// Ways of counting FLOP, by name, and what they print over the canonical count.
    pub conventions: Vec<(String, f64)>,
}

/// For one peak and convention, what each of the others can be for the figure to come out, when
/// the rest is anywhere in its range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Combination {
    /// The peak of the denominator.
    pub peak: String,
    /// How FLOP are counted.
    pub convention: String,
    /// MFU of the jobs over the reference peak, canonical causal.
    pub job_mfu: Range,
    /// What failures leave.
    pub goodput: Range,
    /// Share of the fleet that trains.
    pub allocated_share: Range,
}

/// One set of values that gives the figure exactly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// What it stands for.
    pub name: &'static str,
    /// The peak of the denominator.
    pub peak: String,
    /// How FLOP are counted.
    pub convention: String,
    /// MFU of the jobs over the reference peak, canonical causal.
    pub job_mfu: f64,
    /// What failures leave.
    pub goodput: f64,
    /// Share of the fleet that trains.
    pub allocated_share: f64,
}

/// What could give a figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Identification {
    /// The figure, a share of a peak.
    pub figure: f64,
    /// That public data do not decide.
    pub statement: &'static str,
    /// What was taken for possible.
    pub assumed: FleetAssumptions,
    /// Every peak and convention with which the figure is possible.
    pub combinations: Vec<Combination>,
    /// Up to three that differ in the cause they blame: the denominator, the allocation, and
    /// jobs that run badly.
    pub examples: Vec<Example>,
}

/// The combinations of job MFU, goodput, allocated share, peak and convention that give a
/// company-wide figure.
///
/// # Errors
/// A figure or range outside (0, 1], a range upside down, or a peak or convention that is not
/// above zero.
pub fn identify_mfu(
    figure: f64,
    assumptions: &FleetAssumptions,
) -> Result<Identification, SimulateError> {
    share("figure", figure)?;
    assumptions.check()?;
    let mut combinations = Vec::new();
    for peak in &assumptions.peaks {
        for (convention, counted) in &assumptions.conventions {
            let product = figure * peak.rate.0 / assumptions.reference.rate.0 / counted;
            if let Some([job_mfu, goodput, allocated_share]) = assumptions.solve(product) {
                combinations.push(Combination {
                    peak: peak.name.clone(),
                    convention: convention.clone(),
                    job_mfu,
                    goodput,
                    allocated_share,
                });
            }
        }
    }
    Ok(Identification {
        figure,
        statement: STATEMENT,
        assumed: assumptions.clone(),
        examples: examples(figure, assumptions, &combinations),
        combinations,
    })
}

impl Range {
    /// A range of shares.
    #[must_use]
    pub const fn new(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    fn check(self, name: &'static str) -> Result<(), SimulateError> {
        share(name, self.low)?;
        share(name, self.high)?;
        in_range(
            name,
            self.low,
            self.low <= self.high,
            "no more than the end of its range",
        )?;
        Ok(())
    }
}

impl FleetAssumptions {
    /// What is usually possible, over the peaks of a machine. All of it is assumed, and wide: most
    /// published runs reach 20 to 50 % of the dense peak in half precision (`laggard validate`
    /// prints them), and what failures leave and how much of a fleet trains is rarely published.
    #[must_use]
    pub fn usual(machine: &Machine) -> Self {
        let peak = |name: &str, rate: f64| Peak {
            name: name.to_owned(),
            rate: FlopPerSecond(rate),
        };
        let dense_half = || peak("dense bf16", machine.half_peak);
        Self {
            job_mfu: Range::new(0.20, 0.50),
            goodput: Range::new(0.60, 1.0),
            allocated_share: Range::new(0.20, 1.0),
            reference: dense_half(),
            peaks: vec![
                dense_half(),
                peak("dense fp8", machine.fp8_peak),
                // Two of four weights are zero: twice the dense rate.
                peak("sparse fp8", 2.0 * machine.fp8_peak),
            ],
            conventions: vec![("causal".to_owned(), 1.0)],
        }
    }

    fn check(&self) -> Result<(), SimulateError> {
        self.job_mfu.check("MFU of the jobs")?;
        self.goodput.check("goodput")?;
        self.allocated_share.check("allocated share")?;
        for peak in self.peaks.iter().chain([&self.reference]) {
            positive("peak in FLOP/s", peak.rate.0)?;
        }
        for (_, counted) in &self.conventions {
            positive("factor of a convention", *counted)?;
        }
        Ok(())
    }

    fn ranges(&self) -> [Range; 3] {
        [self.job_mfu, self.goodput, self.allocated_share]
    }

    /// What each of the three can be when their product is given; `None` if nothing can.
    fn solve(&self, product: f64) -> Option<[Range; 3]> {
        let ranges = self.ranges();
        let lows: f64 = ranges.iter().map(|range| range.low).product();
        let highs: f64 = ranges.iter().map(|range| range.high).product();
        if product < lows || product > highs {
            return None;
        }
        Some(ranges.map(|range| Range {
            low: range.low.max(product * range.high / highs),
            high: range.high.min(product * range.low / lows),
        }))
    }

    /// The factor from the product of the three to a figure.
    fn to_figure(&self, combination: &Combination) -> f64 {
        let rate = self.peaks.iter().find(|peak| peak.name == combination.peak);
        let counted = self
            .conventions
            .iter()
            .find(|(name, _)| *name == combination.convention);
        let rate = rate.map_or(self.reference.rate.0, |peak| peak.rate.0);
        counted.map_or(1.0, |(_, counted)| *counted) * self.reference.rate.0 / rate
    }
}

/// Examples that put the cause at three different places, where the ranges allow.
fn examples(
    figure: f64,
    assumptions: &FleetAssumptions,
    combinations: &[Combination],
) -> Vec<Example> {
    // The last of the three is solved for; the others are taken in this order and direction.
    let example = |name, combination: &Combination, order: [(usize, bool); 3]| {
        let product = figure / assumptions.to_figure(combination);
        let mut ranges = assumptions.ranges();
        for (which, highest) in order {
            let narrowed = FleetAssumptions {
                job_mfu: ranges[0],
                goodput: ranges[1],
                allocated_share: ranges[2],
                ..assumptions.clone()
            };
            let possible = narrowed.solve(product).unwrap_or(ranges)[which];
            let value = if highest { possible.high } else { possible.low };
            ranges[which] = Range::new(value, value);
        }
        Example {
            name,
            peak: combination.peak.clone(),
            convention: combination.convention.clone(),
            job_mfu: ranges[0].low,
            goodput: ranges[1].low,
            allocated_share: ranges[2].low,
        }
    };
    const JOB: usize = 0;
    const GOODPUT: usize = 1;
    const ALLOCATED: usize = 2;
    let factor = |combination: &&Combination| assumptions.to_figure(combination);
    let by_factor = |a: &&Combination, b: &&Combination| factor(a).total_cmp(&factor(b));
    let largest_peak = combinations.iter().min_by(by_factor);
    let plain = combinations.iter().min_by(|a, b| {
        let off = |combination| factor(combination).ln().abs();
        off(a).total_cmp(&off(b))
    });
    let mut found = Vec::new();
    if let Some(combination) = largest_peak {
        let order = [(ALLOCATED, true), (GOODPUT, true), (JOB, true)];
        found.push(example(
            "a large denominator, a busy fleet",
            combination,
            order,
        ));
    }
    if let Some(combination) = plain {
        let order = [(JOB, true), (GOODPUT, true), (ALLOCATED, true)];
        found.push(example(
            "good jobs on a small part of the fleet",
            combination,
            order,
        ));
        let order = [(JOB, false), (GOODPUT, false), (ALLOCATED, true)];
        found.push(example(
            "slow and failing jobs on much of the fleet",
            combination,
            order,
        ));
    }
    found
}
