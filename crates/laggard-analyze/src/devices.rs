//! What accelerators told of themselves while the job ran.

use laggard_record::DeviceReading;
use laggard_stats::median;
use laggard_types::{ClockReason, Gauge};
use std::ops::RangeInclusive;

/// Readings below which nobody can tell whether a device is steady: two in each half.
const FEWEST_READINGS: usize = 4;

/// How far medians of temperature over the first and the second half of what was measured may be
/// apart, in degrees. A reading has a resolution of one, and the load of steps is not even.
const STEADY_TEMPERATURE_C: f64 = 3.0;

/// Times on the samples' clock, nanoseconds.
pub(crate) type Window = RangeInclusive<i64>;

/// Readings of all ranks' accelerators.
pub(crate) struct Devices {
    /// In order of time.
    of_rank: Vec<Vec<DeviceReading>>,
}

/// Whether an accelerator was steady.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Steadiness {
    /// Neither clock nor temperature is visible.
    NotVisible,
    /// What moved, in words.
    NotSteady(String),
    /// What was read too rarely to tell, in words.
    TooFew(String),
    Steady,
}

impl Devices {
    pub(crate) fn new(ranks: usize, rows: &[DeviceReading]) -> Self {
        let mut of_rank = vec![Vec::new(); ranks];
        for row in rows {
            // The record's reader has checked ranks.
            of_rank[row.rank as usize].push(*row);
        }
        for rows in &mut of_rank {
            rows.sort_by_key(|row| row.at_ns);
        }
        Self { of_rank }
    }

    /// Whether a rank's accelerator told anything.
    pub(crate) fn is_visible(&self, rank: usize) -> bool {
        !self.of_rank[rank].is_empty()
    }

    /// What a gauge showed in a window, in order of time.
    fn shown(&self, rank: usize, gauge: Gauge, window: &Window) -> Vec<f64> {
        let within = self.of_rank[rank].iter();
        let within = within.filter(|row| window.contains(&row.at_ns));
        let values = within.filter_map(|row| row.state.get(gauge));
        values.map(|value| value as f64).collect()
    }

    /// The median of a gauge in a window; `None` where it was not visible.
    pub(crate) fn median(&self, rank: usize, gauge: Gauge, window: &Window) -> Option<f64> {
        median(&self.shown(rank, gauge, window)).ok()
    }

    /// Share of the readings in a window that name a reason for slow clocks.
    pub(crate) fn share_with(
        &self,
        rank: usize,
        reason: ClockReason,
        window: &Window,
    ) -> Option<f64> {
        let masks = self.of_rank[rank].iter();
        let masks = masks.filter(|row| window.contains(&row.at_ns));
        let masks: Vec<i64> = masks
            .filter_map(|row| row.state.get(Gauge::ClockReasons))
            .collect();
        let has = |mask: &&i64| ClockReason::of_mask(mask.cast_unsigned()).contains(&reason);
        let with = masks.iter().filter(has).count();
        (!masks.is_empty()).then(|| with as f64 / masks.len() as f64)
    }

    /// Every reason for slow clocks that a rank's accelerator has named.
    pub(crate) fn reasons(&self, rank: usize) -> Vec<ClockReason> {
        let masks = self.of_rank[rank].iter();
        let masks = masks.filter_map(|row| row.state.get(Gauge::ClockReasons));
        let all = masks.fold(0, |all, mask| all | mask.cast_unsigned());
        ClockReason::of_mask(all)
    }

    /// What a gauge showed in a window, or where it was not read there, last before: some are read
    /// every few seconds.
    fn known(&self, rank: usize, gauge: Gauge, window: &Window) -> Vec<f64> {
        let shown = self.shown(rank, gauge, window);
        match shown.is_empty() {
            true => Vec::from_iter(self.before(rank, gauge, window)),
            false => shown,
        }
    }

    /// What a gauge showed last before a window.
    fn before(&self, rank: usize, gauge: Gauge, window: &Window) -> Option<f64> {
        let until_ns = window.start().checked_sub(1)?;
        self.last(rank, gauge, until_ns).map(|value| value as f64)
    }

    /// The largest value of a gauge that is known of a window.
    pub(crate) fn most(&self, rank: usize, gauge: Gauge, window: &Window) -> Option<f64> {
        self.known(rank, gauge, window).into_iter().reduce(f64::max)
    }

    /// The smallest.
    pub(crate) fn least(&self, rank: usize, gauge: Gauge, window: &Window) -> Option<f64> {
        self.known(rank, gauge, window).into_iter().reduce(f64::min)
    }

    /// The last until a time.
    pub(crate) fn last(&self, rank: usize, gauge: Gauge, until_ns: i64) -> Option<i64> {
        let rows = self.of_rank[rank].iter().rev();
        let mut until = rows.filter(|row| row.at_ns <= until_ns);
        until.find_map(|row| row.state.get(gauge))
    }

    /// Whether a gauge showed anything during the run.
    pub(crate) fn shows(&self, rank: usize, gauge: Gauge) -> bool {
        self.last(rank, gauge, i64::MAX).is_some()
    }

    /// How far a counter went up in a window, from what it showed last before that; `None` where it
    /// was not visible twice.
    pub(crate) fn growth(&self, rank: usize, gauge: Gauge, window: &Window) -> Option<f64> {
        let before = self.before(rank, gauge, window).into_iter();
        let values: Vec<f64> = before.chain(self.shown(rank, gauge, window)).collect();
        let [first, .., last] = values[..] else {
            return None;
        };
        // One that was reset meanwhile has grown by what it shows.
        Some(if last >= first { last - first } else { last })
    }

    /// Whether clock and temperature were steady in a window. `clock` is how far medians of the
    /// clock over its halves may be apart, as a share.
    pub(crate) fn steadiness(&self, rank: usize, window: &Window, clock: f64) -> Steadiness {
        let gauges = [
            (Gauge::SmClock, "clock"),
            (Gauge::Temperature, "temperature"),
        ];
        let mut found = Steadiness::NotVisible;
        for (gauge, name) in gauges {
            let values = self.shown(rank, gauge, window);
            if !self.shows(rank, gauge) {
                continue;
            }
            if values.len() < FEWEST_READINGS {
                if !matches!(found, Steadiness::TooFew(_)) {
                    let count = values.len();
                    found = Steadiness::TooFew(format!("its {name} was read {count} times"));
                }
                continue;
            }
            let (first, second) = values.split_at(values.len() / 2);
            let (Ok(before), Ok(after)) = (median(first), median(second)) else {
                continue;
            };
            let (limit, unit) = match gauge {
                Gauge::SmClock => (clock * before, "MHz"),
                _ => (STEADY_TEMPERATURE_C, "C"),
            };
            if (after - before).abs() > limit {
                let words = format!("its {name} went from {before:.0} to {after:.0} {unit}");
                return Steadiness::NotSteady(words);
            }
            if found == Steadiness::NotVisible {
                found = Steadiness::Steady;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_types::DeviceState;

    /// Readings of one rank, one a second, of one gauge.
    fn readings(gauge: Gauge, values: &[Option<i64>]) -> Devices {
        let row = |(at, value): (i64, &Option<i64>)| {
            let mut state = DeviceState::default();
            state.set(gauge, *value);
            DeviceReading {
                rank: 0,
                at_ns: at * 1_000_000_000,
                state,
            }
        };
        let rows: Vec<_> = (0..).zip(values).map(row).collect();
        Devices::new(1, &rows)
    }

    const ALL: Window = 0..=i64::MAX;

    #[test]
    fn counters_grow_or_begin_again() {
        let growth = |values: &[Option<i64>]| {
            readings(Gauge::PcieReplays, values).growth(0, Gauge::PcieReplays, &ALL)
        };
        assert_eq!(growth(&[Some(5), None, Some(12)]), Some(7.0));
        assert_eq!(growth(&[Some(5), Some(2)]), Some(2.0));
        assert_eq!(growth(&[Some(5), None]), None);
        assert_eq!(growth(&[None, None]), None);
        let devices = readings(
            Gauge::PcieReplays,
            &[Some(1), Some(5), None, Some(6), Some(9)],
        );
        let within = |window: Window| devices.growth(0, Gauge::PcieReplays, &window);
        assert_eq!(within(2_500_000_000..=3_500_000_000), Some(1.0));
        assert_eq!(within(0..=1_000_000_000), Some(4.0));
        assert_eq!(within(0..=500_000_000), None);
    }

    #[test]
    fn what_is_read_rarely_counts_until_it_is_read_again() {
        let devices = readings(
            Gauge::NvlinksUp,
            &[Some(18), None, Some(17), None, Some(16)],
        );
        let within = |window: Window| {
            let of = (0, Gauge::NvlinksUp);
            [
                devices.least(of.0, of.1, &window),
                devices.most(of.0, of.1, &window),
            ]
        };
        assert_eq!(within(2_500_000_000..=3_500_000_000), [Some(17.0); 2]);
        assert_eq!(within(1_000_000_000..=3_500_000_000), [Some(17.0); 2]);
        assert_eq!(within(0..=2_500_000_000), [Some(17.0), Some(18.0)]);
        assert_eq!(within(-5..=-1), [None; 2]);
    }

    #[test]
    fn reasons_count_where_they_are_visible() {
        let devices = readings(Gauge::ClockReasons, &[Some(4), None, Some(5), Some(1)]);
        let share = |window: Window| devices.share_with(0, ClockReason::PowerCap, &window);
        assert_eq!(share(ALL), Some(2.0 / 3.0));
        assert_eq!(share(1_500_000_000..=9_000_000_000), Some(0.5));
        assert_eq!(share(1_000_000_000..=1_000_000_000), None);
        assert_eq!(
            devices.reasons(0),
            [ClockReason::Idle, ClockReason::PowerCap]
        );
    }

    #[test]
    fn a_device_is_steady_if_halves_are_alike() {
        let check = |gauge, values: &[i64], expect: Steadiness| {
            let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
            let found = readings(gauge, &values).steadiness(0, &ALL, 0.02);
            assert_eq!(found, expect, "{values:?}");
        };
        let moved = |words: &str| Steadiness::NotSteady(words.to_owned());
        check(Gauge::Temperature, &[60, 61, 62, 63], Steadiness::Steady);
        let words = "its temperature went from 52 to 66 C";
        check(Gauge::Temperature, &[50, 53, 64, 67], moved(words));
        check(
            Gauge::SmClock,
            &[1980, 1965, 1950, 1965],
            Steadiness::Steady,
        );
        let words = "its clock went from 1980 to 1500 MHz";
        check(Gauge::SmClock, &[1980, 1980, 1500, 1500], moved(words));
        let words = "its clock was read 3 times".to_owned();
        check(Gauge::SmClock, &[1980; 3], Steadiness::TooFew(words));
        let hidden = readings(Gauge::Power, &[Some(1); 9]);
        assert_eq!(hidden.steadiness(0, &ALL, 0.02), Steadiness::NotVisible);
    }
}
