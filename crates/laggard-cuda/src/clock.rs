//! From a device's clock to the host's. A comparison of both clocks says between which bounds the
//! offset lies; between two comparisons the offset is taken for a straight line, as two steady
//! clocks drift apart, so that bounds at both ends bound it everywhere between them. Pure: knows no
//! driver and reads no clock.

/// How fast two clocks of computers can drift apart, relative: IEEE 802.3 allows a clock to be off
/// by 100 millionths, and there are two. Only used where a time lies outside of all comparisons.
const MAX_DRIFT: f64 = 200e-6;

/// Comparisons that are kept, the first besides: stamps are mapped soon after they are made.
const KEPT: usize = 1024;

/// One comparison of the clocks: the device's was read between two readings of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSample {
    /// The device's clock, nanoseconds.
    pub device_ns: i64,
    /// The host's monotonic clock before, nanoseconds.
    pub before_ns: i64,
    /// The same after.
    pub after_ns: i64,
}

impl ClockSample {
    /// How well it tells the offset: the time that the comparison took.
    pub fn width_ns(&self) -> i64 {
        self.after_ns - self.before_ns
    }
}

/// A time of the device on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTime {
    /// The host's monotonic clock, nanoseconds.
    pub ns: i64,
    /// It is wrong by at most this, nanoseconds.
    pub error_ns: i64,
}

/// What is known of a device's clock so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockReport {
    /// Comparisons of both clocks.
    pub comparisons: usize,
    /// Host time minus device time at the latest comparison, nanoseconds.
    pub offset_ns: i64,
    /// How much faster the host's clock runs, in millionths, from the first comparison to the
    /// latest; `None` of a single one.
    pub drift_ppm: Option<f64>,
    /// Steps in which the device's clock runs, as far as was seen, nanoseconds.
    pub resolution_ns: i64,
    /// No time that was mapped so far is wrong by more, nanoseconds; it includes the resolution.
    pub worst_error_ns: i64,
    /// Comparisons that contradict the one before, so that no bound holds across them: a clock was
    /// set, or drifted faster than clocks do.
    pub contradictions: u64,
}

/// The offset at a time of the device lies between these, counted from the mapping's origin: an
/// offset itself can have more digits than a float.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    device_ns: i64,
    low_ns: f64,
    high_ns: f64,
}

impl Bounds {
    fn middle_ns(self) -> f64 {
        f64::midpoint(self.low_ns, self.high_ns)
    }

    /// What follows for another time from how fast clocks can drift.
    fn carried(self, device_ns: i64) -> Self {
        let reach = (device_ns - self.device_ns).unsigned_abs() as f64 * MAX_DRIFT;
        Self {
            device_ns,
            low_ns: self.low_ns - reach,
            high_ns: self.high_ns + reach,
        }
    }

    /// Both hold; `None` if they contradict each other.
    fn and(self, other: Self) -> Option<Self> {
        let low_ns = self.low_ns.max(other.low_ns);
        let high_ns = self.high_ns.min(other.high_ns);
        (low_ns <= high_ns).then_some(Self {
            device_ns: self.device_ns,
            low_ns,
            high_ns,
        })
    }
}

/// The mapping, which grows by comparisons.
#[derive(Debug)]
pub struct ClockMap {
    resolution_ns: i64,
    /// About the offset, so that what is counted from it is small.
    origin_ns: i64,
    first: Bounds,
    /// In order of time, never empty.
    kept: Vec<Bounds>,
    comparisons: usize,
    contradictions: u64,
    worst_error_ns: i64,
}

impl ClockMap {
    /// A mapping from a first comparison, of a clock that runs in steps of so many nanoseconds.
    pub fn new(sample: ClockSample, resolution_ns: i64) -> Self {
        let origin_ns = sample.before_ns - sample.device_ns;
        let first = bounds(sample, origin_ns, resolution_ns);
        Self {
            resolution_ns,
            origin_ns,
            first,
            kept: vec![first],
            comparisons: 1,
            contradictions: 0,
            worst_error_ns: 0,
        }
    }

    /// Adds a comparison that is later than all before; one that is not is passed over.
    pub fn add(&mut self, sample: ClockSample) {
        let last = self.latest();
        if sample.device_ns <= last.device_ns {
            return;
        }
        let new = bounds(sample, self.origin_ns, self.resolution_ns);
        self.comparisons += 1;
        let both = new.and(last.carried(new.device_ns)).unwrap_or_else(|| {
            self.contradictions += 1;
            new
        });
        if self.kept.len() == KEPT {
            self.kept.drain(..KEPT / 2);
        }
        self.kept.push(both);
    }

    /// The device's time at the latest comparison.
    pub fn covers_until_ns(&self) -> i64 {
        self.latest().device_ns
    }

    /// A time of the device on the host's clock, with how wrong that can be.
    pub fn host(&mut self, device_ns: i64) -> HostTime {
        let after = self.kept.partition_point(|it| it.device_ns < device_ns);
        let at = match (
            after.checked_sub(1).map(|at| self.kept[at]),
            self.kept.get(after),
        ) {
            (Some(before), Some(after)) => between(before, *after, device_ns),
            (Some(before), None) => before.carried(device_ns),
            (None, Some(after)) => after.carried(device_ns),
            (None, None) => self.first.carried(device_ns),
        };
        // The stamp, too, was rounded down to a step of the clock.
        let (low, high) = (at.low_ns, at.high_ns + self.resolution_ns as f64);
        let time = HostTime {
            ns: device_ns + self.origin_ns + f64::midpoint(low, high).round() as i64,
            error_ns: ((high - low) / 2.0).ceil() as i64 + 1,
        };
        self.worst_error_ns = self.worst_error_ns.max(time.error_ns);
        time
    }

    /// What is known by now.
    pub fn report(&self) -> ClockReport {
        let (first, last) = (self.first, self.latest());
        let elapsed_ns = (last.device_ns - first.device_ns) as f64;
        let gained_ns = last.middle_ns() - first.middle_ns();
        ClockReport {
            comparisons: self.comparisons,
            offset_ns: self.origin_ns + last.middle_ns().round() as i64,
            drift_ppm: (elapsed_ns > 0.0).then(|| gained_ns / elapsed_ns * 1e6),
            resolution_ns: self.resolution_ns,
            worst_error_ns: self.worst_error_ns,
            contradictions: self.contradictions,
        }
    }

    fn latest(&self) -> Bounds {
        self.kept.last().copied().unwrap_or(self.first)
    }
}

/// The steps in which a clock runs, judged by some of its times: what all differences are multiples
/// of. At least 1.
pub(crate) fn resolution_ns(times: &[i64]) -> i64 {
    let differences = times.windows(2).map(|pair| (pair[1] - pair[0]).abs());
    differences.fold(0, greatest_common_divisor).max(1)
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// What one comparison says: the clock was read within the host's interval, and had reached what it
/// shows at most a step before.
fn bounds(sample: ClockSample, origin_ns: i64, resolution_ns: i64) -> Bounds {
    let zero_ns = sample.device_ns + origin_ns;
    Bounds {
        device_ns: sample.device_ns,
        low_ns: (sample.before_ns - zero_ns - resolution_ns) as f64,
        high_ns: (sample.after_ns - zero_ns) as f64,
    }
}

fn between(before: Bounds, after: Bounds, device_ns: i64) -> Bounds {
    let whole = (after.device_ns - before.device_ns).max(1) as f64;
    let part = (device_ns - before.device_ns) as f64 / whole;
    let mix = |a: f64, b: f64| a + (b - a) * part;
    Bounds {
        device_ns,
        low_ns: mix(before.low_ns, after.low_ns),
        high_ns: mix(before.high_ns, after.high_ns),
    }
}

#[cfg(test)]
mod tests;
