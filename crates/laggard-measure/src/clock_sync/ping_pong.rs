//! Two ranks compare their clocks: the pupil sends, the teacher answers with the common time.

use super::line_bounds::OffsetInterval;
use super::{SyncOptions, exchange_error};
use crate::MeasureError;
use laggard_backend::Messenger;
use laggard_types::Rank;
use std::time::{Duration, Instant};

/// Round trips of one pair, and what they say.
pub(super) struct Lesson {
    /// One per round trip.
    pub intervals: Vec<OffsetInterval>,
    /// The shortest, on the pupil's clock, nanoseconds.
    pub best_round_trip_ns: i64,
}

/// What both sides of a lesson need.
pub(super) struct Classroom<'a> {
    pub messenger: &'a dyn Messenger,
    pub clock: &'a dyn Fn() -> Result<i64, MeasureError>,
    pub options: &'a SyncOptions,
    pub deadline: Instant,
}

/// What a pupil sends.
const PING: [u8; 1] = [1];
/// What it sends when it knows enough.
const ENOUGH: [u8; 1] = [0];
/// Least and largest common time at which the teacher answered.
const ANSWER_BYTES: usize = 2 * size_of::<i64>();

/// A fit point ends early after a round trip shorter than this multiple of the pair's best, as in
/// ReproMPI's HCA3 (Hunold and Carpen-Amarie, "Hierarchical Clock Synchronization in MPI", CLUSTER
/// 2018).
const GOOD_ROUND_TRIP: f64 = 1.10;

impl Classroom<'_> {
    /// Learns from a teacher that is in [`Classroom::teach`].
    pub(super) fn learn(&self, teacher: Rank) -> Result<Lesson, MeasureError> {
        let mut lesson = Lesson {
            intervals: Vec::new(),
            best_round_trip_ns: i64::MAX,
        };
        let begin = Instant::now();
        let points = self.options.fit_points.max(2);
        for point in 0..points {
            let due = begin + self.options.window * point / (points - 1);
            let pause = due
                .min(self.deadline)
                .saturating_duration_since(Instant::now());
            if pause > Duration::ZERO {
                std::thread::sleep(pause);
            }
            self.fit_point(teacher, &mut lesson)?;
        }
        self.send(teacher, &ENOUGH)?;
        Ok(lesson)
    }

    /// Answers a pupil until it knows enough. `common_at` gives the least and largest common time
    /// of a reading of the clock.
    pub(super) fn teach(
        &self,
        pupil: Rank,
        common_at: impl Fn(i64) -> (i64, i64),
    ) -> Result<(), MeasureError> {
        loop {
            let mut ask = ENOUGH;
            self.receive(pupil, &mut ask)?;
            if ask == ENOUGH {
                return Ok(());
            }
            let (low, high) = common_at((self.clock)()?);
            let mut answer = [0; ANSWER_BYTES];
            answer[..ANSWER_BYTES / 2].copy_from_slice(&low.to_le_bytes());
            // The clock was read up to its resolution after the time that it gave.
            let high = high.saturating_add(self.options.resolution_ns);
            answer[ANSWER_BYTES / 2..].copy_from_slice(&high.to_le_bytes());
            self.send(pupil, &answer)?;
        }
    }

    fn fit_point(&self, teacher: Rank, lesson: &mut Lesson) -> Result<(), MeasureError> {
        let is_first = lesson.intervals.is_empty();
        for _ in 0..self.options.round_trips.max(1) {
            let before = (self.clock)()?;
            self.send(teacher, &PING)?;
            let mut answer = [0; ANSWER_BYTES];
            self.receive(teacher, &mut answer)?;
            let after = (self.clock)()?;
            let (low, high) = answer.split_at(ANSWER_BYTES / 2);
            let common = (number(low), number(high));
            lesson
                .intervals
                .push(self.options.interval((before, after), common));
            let round_trip = after.saturating_sub(before);
            lesson.best_round_trip_ns = lesson.best_round_trip_ns.min(round_trip);
            let good = lesson.best_round_trip_ns as f64 * GOOD_ROUND_TRIP;
            if !is_first && round_trip as f64 <= good {
                break;
            }
        }
        Ok(())
    }

    fn send(&self, to: Rank, message: &[u8]) -> Result<(), MeasureError> {
        let sent = self.messenger.send(to, message, self.deadline);
        sent.map_err(exchange_error(self.messenger))
    }

    fn receive(&self, from: Rank, message: &mut [u8]) -> Result<(), MeasureError> {
        let received = self.messenger.receive(from, message, self.deadline);
        received.map_err(exchange_error(self.messenger))
    }
}

impl SyncOptions {
    /// What a round trip says: the teacher answered, at a time between `common.0` and `common.1`,
    /// after the pupil's clock showed `raw.0` and before it showed `raw.1`.
    ///
    /// Both bounds are moved to the middle of the round trip by the largest drift, which widens
    /// them by little and makes equal delays in both directions cancel exactly.
    pub(super) fn interval(&self, raw: (i64, i64), common: (i64, i64)) -> OffsetInterval {
        let half = raw.1.saturating_sub(raw.0).max(0) / 2 + 1;
        let slack = (half as f64 * self.max_drift()).ceil() as i64 + self.resolution_ns;
        OffsetInterval {
            raw_ns: raw.0.saturating_add(raw.1.saturating_sub(raw.0) / 2),
            low_ns: common.0.saturating_sub(raw.1).saturating_sub(slack),
            high_ns: common.1.saturating_sub(raw.0).saturating_add(slack),
        }
    }
}

fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}
