//! All straight lines that the offset between two clocks can be, given intervals that it lies in at
//! some times: a convex polygon in the plane of offset and drift. Its extremes at another time
//! bound the offset there. Duda, Harrus, Haddad and Bernard, "Estimating global time in distributed
//! systems", ICDCS 1987, bound a clock by the lines between two convex hulls in the same way.

use serde::{Deserialize, Serialize};

/// What one exchange of messages says: common time minus raw time, at a raw time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OffsetInterval {
    /// When, on the raw clock, nanoseconds.
    pub raw_ns: i64,
    /// The offset is at least this, nanoseconds.
    pub low_ns: i64,
    /// The offset is at most this, nanoseconds.
    pub high_ns: i64,
}

impl OffsetInterval {
    fn middle_ns(self) -> i64 {
        self.low_ns + self.high_ns.saturating_sub(self.low_ns) / 2
    }
}

/// The lines that are possible, never none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LineBounds {
    /// Lines are counted from here, so that small numbers remain.
    origin_raw_ns: i64,
    origin_offset_ns: i64,
    corners: Vec<Corner>,
}

/// The offset `offset_ns + drift * (raw - origin)`, from the origin's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Corner {
    offset_ns: f64,
    /// Nanoseconds per nanosecond.
    drift: f64,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    /// Where `offset_ns` holds.
    pub from_ns: i64,
    /// Common time minus raw time there, nanoseconds.
    pub offset_ns: i64,
    /// Nanoseconds per nanosecond.
    pub drift: f64,
}

/// Of all lines through given intervals.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Narrowed {
    /// The lines.
    pub bounds: LineBounds,
    /// By how much the intervals had to be widened on each side to let a line through, nanoseconds;
    /// `None` if they need not be.
    pub widened_ns: Option<i64>,
}

/// How far offsets are looked for: a quarter of an hour, more than a clock leaves its line by.
const REACH_NS: f64 = 1e12;

impl LineBounds {
    /// The clock is the common one.
    pub(super) fn exact() -> Self {
        let corner = Corner {
            offset_ns: 0.0,
            drift: 0.0,
        };
        Self {
            origin_raw_ns: 0,
            origin_offset_ns: 0,
            corners: vec![corner],
        }
    }

    /// All lines in question: with a drift up to the largest, either way, and any offset that is
    /// not absurdly far from the interval's.
    pub(super) fn near(interval: OffsetInterval, max_drift: f64) -> Self {
        let width_ns = interval.high_ns.saturating_sub(interval.low_ns).max(0) as f64;
        let corner = |sign_offset: f64, sign_drift: f64| Corner {
            offset_ns: sign_offset * (width_ns + REACH_NS),
            drift: sign_drift * max_drift,
        };
        Self {
            origin_raw_ns: interval.raw_ns,
            origin_offset_ns: interval.middle_ns(),
            corners: vec![
                corner(-1.0, -1.0),
                corner(1.0, -1.0),
                corner(1.0, 1.0),
                corner(-1.0, 1.0),
            ],
        }
    }

    /// Those lines that pass through all intervals; if none does, through the intervals widened by
    /// as little as it takes, to a hundredth.
    pub(super) fn narrowed(&self, intervals: &[OffsetInterval]) -> Narrowed {
        if let Some(bounds) = self.through(intervals, 0.0) {
            return Narrowed {
                bounds,
                widened_ns: None,
            };
        }
        let (mut too_little, mut enough) = (0.0, 1.0);
        let mut found = self.through(intervals, enough);
        while found.is_none() && enough < f64::MAX / 2.0 {
            too_little = enough;
            enough *= 2.0;
            found = self.through(intervals, enough);
        }
        while enough - too_little > (enough / 100.0).max(1.0) {
            let middle = f64::midpoint(too_little, enough);
            match self.through(intervals, middle) {
                None => too_little = middle,
                Some(bounds) => {
                    enough = middle;
                    found = Some(bounds);
                }
            }
        }
        Narrowed {
            bounds: found.unwrap_or_else(|| self.clone()),
            widened_ns: Some(enough.ceil() as i64),
        }
    }

    /// What the lines say of the offset at a raw time, rounded outwards.
    pub(super) fn interval_at(&self, raw_ns: i64) -> OffsetInterval {
        let (low, high) = self.relative_at(raw_ns);
        let from = |offset: f64| self.origin_offset_ns.saturating_add(offset as i64);
        OffsetInterval {
            raw_ns,
            low_ns: from(low.floor()),
            high_ns: from(high.ceil()),
        }
    }

    /// The line whose error is least at both of two times; between them it is no larger, as the
    /// largest of lines is convex. `before` must not be later than `after`.
    pub(super) fn middle_line(&self, before_ns: i64, after_ns: i64) -> Line {
        let middle = |(low, high): (f64, f64)| f64::midpoint(low, high);
        let begin = middle(self.relative_at(before_ns));
        let elapsed = after_ns.saturating_sub(before_ns);
        let drift = if elapsed > 0 {
            (middle(self.relative_at(after_ns)) - begin) / elapsed as f64
        } else {
            let (low, high) = self.drifts();
            f64::midpoint(low, high)
        };
        Line {
            from_ns: before_ns,
            offset_ns: self.origin_offset_ns.saturating_add(begin.round() as i64),
            drift,
        }
    }

    /// By how much a line can be wrong at a raw time, nanoseconds.
    pub(super) fn error_at(&self, line: Line, raw_ns: i64) -> f64 {
        let (low, high) = self.relative_at(raw_ns);
        let start = line.offset_ns.saturating_sub(self.origin_offset_ns) as f64;
        let own = start + line.drift * raw_ns.saturating_sub(line.from_ns) as f64;
        (high - own).max(own - low).max(0.0)
    }

    /// By how much a line's drift can be wrong.
    pub(super) fn drift_error(&self, line: Line) -> f64 {
        let (low, high) = self.drifts();
        (high - line.drift).max(line.drift - low).max(0.0)
    }

    fn drifts(&self) -> (f64, f64) {
        extremes(self.corners.iter().map(|corner| corner.drift))
    }

    /// Least and largest offset from the origin's.
    fn relative_at(&self, raw_ns: i64) -> (f64, f64) {
        let elapsed = raw_ns.saturating_sub(self.origin_raw_ns) as f64;
        let at = |corner: &Corner| corner.offset_ns + corner.drift * elapsed;
        extremes(self.corners.iter().map(at))
    }

    fn through(&self, intervals: &[OffsetInterval], widen_ns: f64) -> Option<Self> {
        let mut corners = self.corners.clone();
        for interval in intervals {
            let elapsed = interval.raw_ns.saturating_sub(self.origin_raw_ns) as f64;
            let relative = |offset: i64| offset.saturating_sub(self.origin_offset_ns) as f64;
            let high = relative(interval.high_ns) + widen_ns;
            let low = relative(interval.low_ns) - widen_ns;
            corners = cut(&corners, |at| high - at.offset_ns - at.drift * elapsed);
            corners = cut(&corners, |at| at.offset_ns + at.drift * elapsed - low);
        }
        (!corners.is_empty()).then(|| Self {
            corners,
            ..self.clone()
        })
    }
}

/// The part of a convex polygon where a linear function is not negative (Sutherland and Hodgman,
/// "Reentrant polygon clipping", CACM 17(1), 1974).
fn cut(corners: &[Corner], inside: impl Fn(Corner) -> f64) -> Vec<Corner> {
    let mut kept = Vec::with_capacity(corners.len() + 1);
    for (index, &corner) in corners.iter().enumerate() {
        let before = corners[(index + corners.len() - 1) % corners.len()];
        let (here, there) = (inside(corner), inside(before));
        if (here < 0.0) != (there < 0.0) {
            let share = there / (there - here);
            kept.push(Corner {
                offset_ns: before.offset_ns + share * (corner.offset_ns - before.offset_ns),
                drift: before.drift + share * (corner.drift - before.drift),
            });
        }
        if here >= 0.0 {
            kept.push(corner);
        }
    }
    kept
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}
