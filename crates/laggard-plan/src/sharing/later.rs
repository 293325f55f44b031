//! Deadlines that can be kept together, where those that are wanted cannot.

use super::Sharer;

/// Deadlines so many times as late help no more than these: something else is in the way.
const LATEST: f64 = 1e6;
/// How far the least factor that deadlines must be later by is narrowed down.
const NARROW: f64 = 1.005;

impl Sharer<'_, '_> {
    /// Deadlines that can be kept, all of them later by one factor, in words; `None` where there
    /// are none or no such factor was found.
    pub(super) fn later(&mut self) -> Option<String> {
        let wanted = self.wanted.clone();
        if wanted.iter().all(|job| job.deadline_days.is_none()) {
            return None;
        }
        let mut can_be = |factor: f64| {
            for (job, wanted) in self.wanted.iter_mut().zip(&wanted) {
                job.deadline_days = wanted.deadline_days.map(|days| days * factor);
            }
            self.share().is_ok()
        };
        let mut high = 2.0;
        while !can_be(high) {
            high *= 2.0;
            if high > LATEST {
                return None;
            }
        }
        let mut low = high / 2.0;
        while high > low * NARROW {
            let middle = (low * high).sqrt();
            match can_be(middle) {
                true => high = middle,
                false => low = middle,
            }
        }
        let with = wanted.iter().filter_map(|job| {
            let days = job.deadline_days? * high;
            Some(format!("deadline_days = {} of {}", upwards(days), job.name))
        });
        let with: Vec<String> = with.collect();
        Some(format!("these can be kept: {}", with.join(", ")))
    }
}

/// Three digits, rounded upwards.
fn upwards(days: f64) -> String {
    let digits = (2.0 - days.log10().floor()).max(0.0);
    let unit = 10_f64.powf(digits);
    format!("{:.*}", digits as usize, (days * unit).ceil() / unit)
}
