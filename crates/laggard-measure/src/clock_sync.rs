//! How the clocks of ranks relate, with bounds that hold whatever the delays of messages were.
//!
//! As in ReproMPI's HCA3 (Hunold and Carpen-Amarie, "Hierarchical Clock Synchronization in MPI",
//! CLUSTER 2018): rank 0's clock is the common one; in a logarithmic number of rounds, ranks that
//! know the common time teach others by round trips of messages. Each round trip confines the
//! offset to an interval; all lines of offset over time that pass through all intervals are kept.
//! What a teacher does not know adds to what its pupils do not know. Ranks of one machine share a
//! clock, so that one of them learns for all.
//!
//! A short lesson at the begin tells the offset well and the drift badly; a second one at the end
//! confines the whole time between them. The bounds assume that a clock's rate changes by no more
//! than [`SyncOptions::wander_ppm`]. Knows messages and a clock to read; nothing of steps, and of
//! records only the type of a segment.

mod line_bounds;
mod ping_pong;
#[cfg(test)]
mod tests;
mod tree;

use crate::MeasureError;
use laggard_backend::{BackendError, Messenger, messenger};
use laggard_record::Alignment;
use line_bounds::{Line, LineBounds, OffsetInterval};
use ping_pong::{Classroom, Lesson};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::{Duration, Instant};
use tree::hand_down;

/// How clocks are compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SyncOptions {
    /// How often a lesson measures the offset; at least 2 are used.
    pub fit_points: u32,
    /// Time from the first fit point to the last: the longer, the better known is the drift.
    pub window: Duration,
    /// Most round trips at one fit point; at least 1 is used.
    pub round_trips: u32,
    /// Whether each rank has a clock of its own, also on one machine.
    pub every_rank: bool,
    /// How far this rank's readings of the clock may lie before the time that they are from.
    pub resolution_ns: i64,
    /// The largest drift between two clocks, millionths.
    pub max_drift_ppm: f64,
    /// The most that the drift between two clocks changes while it is extrapolated or
    /// interpolated, millionths.
    pub wander_ppm: f64,
}

/// Linux lets itself be slewed by 500 ppm either way (adjtimex(2)), so two clocks by twice that.
const MAX_DRIFT_PPM: f64 = 1000.0;
/// A computer's quartz changes by about this per kelvin, and by a few of it in a day (Mills,
/// "Computer Network Time Synchronization", CRC Press 2006, chapter on computer clock modelling).
const WANDER_PPM: f64 = 1.0;
const MILLIONTH: f64 = 1e-6;

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            fit_points: 10,
            window: Duration::from_millis(50),
            round_trips: 30,
            every_rank: false,
            resolution_ns: 1,
            max_drift_ppm: MAX_DRIFT_PPM,
            wander_ppm: WANDER_PPM,
        }
    }
}

impl SyncOptions {
    fn max_drift(&self) -> f64 {
        self.max_drift_ppm * MILLIONTH
    }
}

/// From what an alignment was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Method {
    /// Every rank reads the same clock.
    SharedClock,
    /// Round trips before the first step.
    Begin,
    /// Round trips before the first step and after the last.
    BeginAndEnd,
}

impl Method {
    /// The name that records carry.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SharedClock => "shared_clock",
            Self::Begin => "hca3_begin",
            Self::BeginAndEnd => "hca3_begin_end",
        }
    }
}

/// What a rank knows of the common time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sync {
    /// From what it was found; the same on all ranks.
    pub method: Method,
    /// Round trips of the rank that learned, so far.
    pub round_trips: u32,
    /// The shortest of them, nanoseconds; `None` without any.
    pub best_round_trip_ns: Option<i64>,
    /// By how much the clock missed a straight line within its bounds, nanoseconds: its rate
    /// changed by more than [`SyncOptions::wander_ppm`], and bounds are only sure if it changed
    /// once and for good. `None` where a line fits.
    pub missed_by_ns: Option<i64>,
    /// Time that all comparisons took on this rank.
    pub elapsed: Duration,
    bounds: LineBounds,
    /// First and last round trip that the bounds are from, raw nanoseconds.
    measured: (i64, i64),
    /// Change of the drift that bounds allow for.
    wander: f64,
    /// What bounds allow for beside that, because no line fits.
    bend_ns: i64,
}

/// `common = raw + offset_ns + drift_ppm * 1e-6 * (raw - from_ns)`, for one rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Model {
    /// Raw time at which the offset holds, nanoseconds.
    pub from_ns: i64,
    /// Common time minus raw time there, nanoseconds.
    pub offset_ns: i64,
    /// How much faster the common clock runs, millionths.
    pub drift_ppm: f64,
    /// The common time is wrong by at most this at `from_ns`, nanoseconds.
    pub bound_ns: i64,
    /// And by at most this much more per second before and after.
    pub bound_growth_ns_per_s: f64,
    /// The largest bound in the times that the model was asked for, nanoseconds.
    pub worst_bound_ns: i64,
}

/// One nanosecond for the rounding of a raw time, and one for that of a common time.
const ROUNDING_NS: i64 = 2;

impl Sync {
    /// The line with the least bound over the given raw times of this rank.
    pub(crate) fn model(&self, covered: Range<i64>) -> Model {
        let line = self.bounds.middle_line(covered.start, covered.end);
        let at = |raw_ns| self.bound_at(line, raw_ns);
        let [begin, end] = [covered.start, covered.end].map(at);
        // Between the ends, only the allowance for wander can be larger than at the ends.
        let middle = self.measured.0.midpoint(self.measured.1);
        let inner = middle.clamp(covered.start, covered.end.max(covered.start));
        let lines = |raw_ns| self.bounds.error_at(line, raw_ns);
        let inside = lines(covered.start).max(lines(covered.end)) + self.allowance_at(inner);
        let growth = self.bounds.drift_error(line) + self.wander;
        Model {
            from_ns: line.from_ns,
            offset_ns: line.offset_ns,
            drift_ppm: line.drift / MILLIONTH,
            bound_ns: begin,
            bound_growth_ns_per_s: growth * 1e9,
            worst_bound_ns: begin.max(end).max(rounded_bound(inside)),
        }
    }

    /// What a line can be wrong by at a raw time, all told.
    fn bound_at(&self, line: Line, raw_ns: i64) -> i64 {
        rounded_bound(self.bounds.error_at(line, raw_ns) + self.allowance_at(raw_ns))
    }

    /// What the clock may do beside running as a line. A line through both ends of a time in which
    /// the drift changes by `wander` is left by at most `wander` times the distance to either end.
    fn allowance_at(&self, raw_ns: i64) -> f64 {
        let (first, last) = self.measured;
        let distance = raw_ns.abs_diff(first).min(raw_ns.abs_diff(last));
        self.wander * distance as f64 + self.bend_ns as f64
    }

    /// Least and largest common time of a reading of this rank's clock.
    fn common_at(&self, raw_ns: i64) -> (i64, i64) {
        let offset = self.bounds.interval_at(raw_ns);
        let allowance = self.allowance_at(raw_ns).ceil() as i64;
        (
            raw_ns
                .saturating_add(offset.low_ns)
                .saturating_sub(allowance),
            raw_ns
                .saturating_add(offset.high_ns)
                .saturating_add(allowance),
        )
    }

    /// Of a rank that reads the common clock itself.
    fn exact(method: Method) -> Self {
        Self {
            method,
            round_trips: 0,
            best_round_trip_ns: None,
            missed_by_ns: None,
            elapsed: Duration::ZERO,
            bounds: LineBounds::exact(),
            measured: (0, 0),
            wander: 0.0,
            bend_ns: 0,
        }
    }

    /// From the first lesson.
    fn learned(lesson: &Lesson, options: &SyncOptions) -> Option<Self> {
        let wander = options.wander_ppm * MILLIONTH;
        let intervals = with_wander(&lesson.intervals, wander);
        let first = intervals.first()?;
        let every = LineBounds::near(*first, options.max_drift());
        let narrowed = every.narrowed(&intervals);
        Some(Self {
            method: Method::Begin,
            round_trips: lesson.intervals.len() as u32,
            best_round_trip_ns: Some(lesson.best_round_trip_ns),
            missed_by_ns: narrowed.widened_ns,
            elapsed: Duration::ZERO,
            bounds: narrowed.bounds,
            measured: span(&intervals)?,
            wander,
            bend_ns: narrowed.widened_ns.unwrap_or(0),
        })
    }

    /// From this and a later lesson.
    fn relearned(&self, lesson: &Lesson, options: &SyncOptions) -> Option<Self> {
        let intervals = with_wander(&lesson.intervals, self.wander);
        let narrowed = self.bounds.narrowed(&intervals);
        let (bounds, bend_ns) = match narrowed.widened_ns {
            None => (narrowed.bounds, self.bend_ns),
            Some(_) => self.joined(&intervals, options)?,
        };
        Some(Self {
            method: Method::BeginAndEnd,
            round_trips: self.round_trips + lesson.intervals.len() as u32,
            best_round_trip_ns: self
                .best_round_trip_ns
                .map(|best| best.min(lesson.best_round_trip_ns)),
            missed_by_ns: self.missed_by_ns.max(narrowed.widened_ns),
            elapsed: self.elapsed,
            bounds,
            measured: (self.measured.0, span(&intervals)?.1),
            wander: self.wander,
            bend_ns,
        })
    }

    /// The lines from the begin of the first lesson to the end of the last, where none passes
    /// through all intervals between; and by how much a clock whose rate changed once leaves them.
    /// It stays between its first line, drawn on to the end, and the line through both ends.
    fn joined(
        &self,
        intervals: &[OffsetInterval],
        options: &SyncOptions,
    ) -> Option<(LineBounds, i64)> {
        let (begin_ns, end_ns) = (self.measured.0, span(intervals)?.1);
        let last = LineBounds::near(*intervals.last()?, options.max_drift());
        let last = last.narrowed(intervals).bounds;
        let begin = self.bounds.interval_at(begin_ns);
        let end = last.interval_at(end_ns);
        let predicted = self.bounds.interval_at(end_ns);
        let above = predicted.high_ns.saturating_sub(end.low_ns);
        let below = end.high_ns.saturating_sub(predicted.low_ns);
        let every = LineBounds::near(begin, options.max_drift());
        let bounds = every.narrowed(&[begin, end]).bounds;
        Some((bounds, self.bend_ns.saturating_add(above.max(below))))
    }
}

/// Finds the common time on every rank. Collective. `machine_of_rank` has one entry per rank; ranks
/// with equal entries read the same clock.
///
/// # Errors
/// [`MeasureError::Exchange`] if a rank does not answer before the deadline, or the world is
/// aborted; what reading the clock gives.
pub(crate) fn synchronize(
    messenger: &dyn Messenger,
    machine_of_rank: &[u32],
    clock: &dyn Fn() -> Result<i64, MeasureError>,
    options: &SyncOptions,
    deadline: Instant,
) -> Result<Sync, MeasureError> {
    let classroom = Classroom {
        messenger,
        clock,
        options,
        deadline,
    };
    hand_down(&classroom, machine_of_rank, Method::Begin, |lesson| {
        Sync::learned(lesson, options)
    })
}

/// Finds the common time again, some time after [`synchronize`], which gives far closer bounds for
/// all the time between. Collective. [`Sync::missed_by_ns`] of the result says whether what the
/// first one predicted has held.
///
/// # Errors
/// As [`synchronize`].
pub(crate) fn revalidate(
    first: &Sync,
    messenger: &dyn Messenger,
    clocks: Clocks<'_>,
    options: &SyncOptions,
    deadline: Instant,
) -> Result<Sync, MeasureError> {
    let classroom = Classroom {
        messenger,
        clock: clocks.clock,
        options,
        deadline,
    };
    let machines = clocks.machine_of_rank;
    let mut again = hand_down(&classroom, machines, Method::BeginAndEnd, |lesson| {
        first.relearned(lesson, options)
    })?;
    again.elapsed += first.elapsed;
    Ok(again)
}

/// This rank's clock, and who shares it.
#[derive(Clone, Copy)]
pub(crate) struct Clocks<'a> {
    /// As in [`synchronize`].
    pub machine_of_rank: &'a [u32],
    /// Reads this rank's clock, nanoseconds.
    pub clock: &'a dyn Fn() -> Result<i64, MeasureError>,
}

/// One segment per rank on rank 0, none on others, for the given raw times of each rank's own
/// clock, which its device may put down wrong by so much. Collective.
///
/// # Errors
/// [`MeasureError::Exchange`] if a rank does not answer before the deadline, or the world is
/// aborted.
pub(crate) fn alignments(
    messenger: &dyn Messenger,
    sync: &Sync,
    (covered, device_error_ns): (Range<i64>, i64),
    deadline: Instant,
) -> Result<Vec<Alignment>, MeasureError> {
    let model = sync.model(covered);
    let own = Alignment {
        rank: messenger.rank(),
        from_ns: model.from_ns,
        offset_ns: model.offset_ns,
        drift_ppm: model.drift_ppm,
        bound_ns: model.worst_bound_ns.saturating_add(device_error_ns),
        method: sync.method.name().to_owned(),
    };
    let own = serde_json::to_vec(&own).map_err(|error| unreadable(&error))?;
    let all = messenger::gather(messenger, &own, deadline).map_err(exchange_error(messenger))?;
    let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(|e| unreadable(&e));
    all.unwrap_or_default().iter().map(read).collect()
}

/// Widens intervals by what the clock may do beside a line while they are measured.
fn with_wander(intervals: &[OffsetInterval], wander: f64) -> Vec<OffsetInterval> {
    let length = span(intervals).map_or(0, |(first, last)| last.saturating_sub(first));
    let slack = (length as f64 * wander).ceil() as i64;
    let widened = intervals.iter().map(|interval| OffsetInterval {
        raw_ns: interval.raw_ns,
        low_ns: interval.low_ns.saturating_sub(slack),
        high_ns: interval.high_ns.saturating_add(slack),
    });
    widened.collect()
}

fn span(intervals: &[OffsetInterval]) -> Option<(i64, i64)> {
    Some((intervals.first()?.raw_ns, intervals.last()?.raw_ns))
}

fn rounded_bound(error_ns: f64) -> i64 {
    (error_ns.ceil() as i64).saturating_add(ROUNDING_NS)
}

fn exchange_error(messenger: &dyn Messenger) -> impl Fn(BackendError) -> MeasureError {
    let rank = messenger.rank();
    move |source| MeasureError::Exchange {
        rank,
        what: "comparing clocks",
        source,
    }
}

fn unreadable(error: &serde_json::Error) -> MeasureError {
    MeasureError::System {
        what: "comparing clocks".to_owned(),
        why: error.to_string(),
    }
}
