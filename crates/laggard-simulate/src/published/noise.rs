//! How far published runs of equal inputs differ: no model can predict better than that.

use laggard_stats::median;
use serde::Serialize;

use super::{PublishedJob, RowClass};
use crate::job::Job;

/// Differences between runs that state the same model, machine, layout and batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct NoiseFloor {
    /// Which rows.
    pub class: RowClass,
    /// Groups of rows with equal inputs.
    pub groups: usize,
    /// Rows in them.
    pub rows: usize,
    /// Median over the groups of the fastest run over the slowest.
    pub median_ratio: f64,
    /// The largest of these ratios.
    pub largest_ratio: f64,
}

/// The noise floor of each class that has rows of equal inputs. Software does not count as an
/// input: most rows do not say which release of it they ran.
#[must_use]
pub fn noise_floor(jobs: &[PublishedJob]) -> Vec<NoiseFloor> {
    let of_class = |class: RowClass| {
        let rows: Vec<&PublishedJob> = jobs.iter().filter(|job| job.class == class).collect();
        let mut groups: Vec<Vec<&PublishedJob>> = Vec::new();
        for job in rows {
            match groups.iter_mut().find(|group| equal_inputs(group[0], job)) {
                Some(group) => group.push(job),
                None => groups.push(vec![job]),
            }
        }
        groups.retain(|group| group.len() > 1);
        let ratios: Vec<f64> = groups.iter().map(|group| ratio(group)).collect();
        Some(NoiseFloor {
            class,
            groups: groups.len(),
            rows: groups.iter().map(Vec::len).sum(),
            median_ratio: median(&ratios).ok()?,
            largest_ratio: ratios.iter().copied().max_by(f64::total_cmp)?,
        })
    };
    RowClass::ALL.into_iter().filter_map(of_class).collect()
}

/// The fastest run of a group over the slowest.
fn ratio(group: &[&PublishedJob]) -> f64 {
    let rates = group.iter().map(|job| job.measured_tokens_per_s);
    let (least, most) = rates.fold((f64::MAX, 0.0_f64), |(least, most), rate| {
        (least.min(rate), most.max(rate))
    });
    most / least
}

fn equal_inputs(a: &PublishedJob, b: &PublishedJob) -> bool {
    // Rows that leave something open have several candidates; equal rows have equal ones.
    let same = |(a, b): (&Job, &Job)| {
        a.shape == b.shape
            && a.degrees == b.degrees
            && a.sequence_length == b.sequence_length
            && a.precision == b.precision
    };
    a.accelerator == b.accelerator
        && a.accelerators == b.accelerators
        && a.candidates.len() == b.candidates.len()
        && a.candidates
            .iter()
            .zip(&b.candidates)
            .all(|((a, _), (b, _))| same((a, b)))
}
