//! What accelerators tell of themselves while a job runs. Each is asked by a thread of its own,
//! which measures nothing and is not waited for: a device in trouble may keep its caller for ever.
//!
//! Every rank's process asks for the rank's own device alone. A container may show a rank no other,
//! so no process could ask for all devices of a host; and nothing is read twice but the ports of an
//! adapter that several devices are nearest to.

use crate::manifest::monotonic_ns;
use laggard_backend::{Extent, Monitor};
use laggard_record::DeviceReading;
use laggard_stats::median;
use laggard_types::{Gauge, Rank};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a device is asked. NVML's power is the mean of a second on most GPUs (nvml.h,
/// `nvmlDeviceGetPowerUsage`), so that more often would tell little more. A reading is six calls
/// into the driver, and about a hundred every [`WHOLE_EVERY`].
const READ_EVERY: Duration = Duration::from_millis(500);

/// One in so many readings is of the whole state.
const WHOLE_EVERY: u32 = 10;

/// How long the last readings are waited for.
const LAST_READING: Duration = Duration::from_secs(2);

/// How long a device must have been steady: far longer than its clocks take to follow its load, and
/// about as long as its temperature does.
const STEADY_FOR: Duration = Duration::from_secs(30);

/// How far the medians of temperature over the first and the second half of [`STEADY_FOR`] may be
/// apart, in degrees: the resolution of a reading.
const STEADY_TEMPERATURE_C: f64 = 1.0;

/// How far those of the clock may be apart, as a share: less than two steps of 15 MHz.
const STEADY_CLOCK: f64 = 0.01;

/// The threads that ask devices.
pub(crate) struct DeviceWatch {
    readings: Receiver<DeviceReading>,
    /// Nothing is sent: a thread ends when its end is gone.
    ends: Vec<Sender<()>>,
    pub(crate) trends: Trends,
}

/// How devices have fared of late, for threads of ranks.
pub(crate) struct Trends(BTreeMap<Rank, Arc<Mutex<Trend>>>);

impl DeviceWatch {
    /// Starts to ask. A device for which there is no thread is not asked.
    pub(crate) fn start(monitors: Vec<(Rank, Box<dyn Monitor>)>) -> Self {
        let (sink, readings) = channel();
        let (mut ends, mut trends) = (Vec::new(), BTreeMap::new());
        for (rank, monitor) in monitors {
            let trend: Arc<Mutex<Trend>> = Arc::default();
            let (end, ended) = channel();
            let asker = Asker {
                rank,
                monitor,
                trend: Arc::clone(&trend),
                sink: sink.clone(),
            };
            let thread = thread::Builder::new().name(format!("r{rank}-monitor"));
            match thread.spawn(move || asker.run(&ended)) {
                Ok(_) => {
                    trends.insert(rank, trend);
                    ends.push(end);
                }
                Err(error) => tracing::warn!(rank, %error, "the device is not watched"),
            }
        }
        Self {
            readings,
            ends,
            trends: Trends(trends),
        }
    }

    /// What was read since the last call.
    pub(crate) fn take(&self) -> Vec<DeviceReading> {
        self.readings.try_iter().collect()
    }

    /// Has every device read once more, and gives the last readings; those of a device that does
    /// not answer in time are left out.
    pub(crate) fn finish(&mut self) -> Vec<DeviceReading> {
        self.ends.clear();
        let deadline = Instant::now() + LAST_READING;
        let mut last = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.readings.recv_timeout(left) {
                Ok(reading) => last.push(reading),
                Err(_) => return last,
            }
        }
    }
}

impl Trends {
    /// Whether clock and temperature of a rank's device have been steady for [`STEADY_FOR`]; false
    /// where neither is visible.
    pub(crate) fn is_steady(&self, rank: Rank) -> bool {
        self.0.get(&rank).is_some_and(|trend| {
            let trend = trend.lock().unwrap_or_else(PoisonError::into_inner);
            trend.is_steady()
        })
    }
}

/// Asks one device.
struct Asker {
    rank: Rank,
    monitor: Box<dyn Monitor>,
    trend: Arc<Mutex<Trend>>,
    sink: Sender<DeviceReading>,
}

impl Asker {
    fn run(mut self, ended: &Receiver<()>) {
        let mut next = Instant::now();
        for number in 0_u32.. {
            let left = next.saturating_duration_since(Instant::now());
            let is_last = ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected);
            let extent = match is_last || number.is_multiple_of(WHOLE_EVERY) {
                true => Extent::Whole,
                false => Extent::Moving,
            };
            let state = self.monitor.read(extent);
            // Nobody listens any more if the run has ended without this device.
            let is_heard = match monotonic_ns() {
                Ok(at_ns) if !state.is_empty() => {
                    let mut trend = self.trend.lock().unwrap_or_else(PoisonError::into_inner);
                    let (clock, temperature) = (Gauge::SmClock, Gauge::Temperature);
                    trend.push(at_ns, [state.get(clock), state.get(temperature)]);
                    let rank = self.rank;
                    let reading = DeviceReading { rank, at_ns, state };
                    self.sink.send(reading).is_ok()
                }
                _ => true,
            };
            if is_last || !is_heard {
                return;
            }
            next = Instant::now() + READ_EVERY;
        }
    }
}

/// Clock and temperature of the last [`STEADY_FOR`].
#[derive(Debug, Default)]
struct Trend {
    readings: VecDeque<(i64, [Option<i64>; 2])>,
    /// Whether anything has been forgotten: what is left then covers the whole time.
    is_full: bool,
}

impl Trend {
    fn push(&mut self, at_ns: i64, values: [Option<i64>; 2]) {
        self.readings.push_back((at_ns, values));
        let window_ns = STEADY_FOR.as_nanos() as i64;
        while self
            .readings
            .front()
            .is_some_and(|(first, _)| at_ns - first > window_ns)
        {
            self.readings.pop_front();
            self.is_full = true;
        }
    }

    fn is_steady(&self) -> bool {
        let shift = |which: usize| {
            let values = self.readings.iter().filter_map(|(_, values)| values[which]);
            let values: Vec<f64> = values.map(|value| value as f64).collect();
            let (first, second) = values.split_at(values.len() / 2);
            Some((median(first).ok()?, median(second).ok()?))
        };
        let clock = shift(0).map(|(a, b)| (a - b).abs() <= STEADY_CLOCK * a);
        let temperature = shift(1).map(|(a, b)| (a - b).abs() <= STEADY_TEMPERATURE_C);
        let judged = [clock, temperature];
        self.is_full
            && judged.iter().any(Option::is_some)
            && judged.into_iter().flatten().all(|is_steady| is_steady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_types::{DeviceIdentity, DeviceState};

    /// Readings twice a second for so long, of clock and temperature.
    fn trend(seconds: i64, values: impl Fn(f64) -> [Option<i64>; 2]) -> Trend {
        let mut trend = Trend::default();
        for at in 0..2 * seconds {
            trend.push(at * 500_000_000, values(at as f64 / 2.0));
        }
        trend
    }

    #[test]
    fn a_device_is_steady_once_it_has_warmed_up() {
        // It warms up by 40 degrees with a time constant of a minute, as 1 - exp(-t / tau) does.
        let warming = |s: f64| (70.0 - 40.0 * (-s / 60.0_f64).exp()).round() as i64;
        let at =
            |seconds, clock: Option<i64>| trend(seconds, |s| [clock, Some(warming(s))]).is_steady();
        // One that does not change at all must not do so for long enough.
        assert!(!trend(30, |_| [Some(1980), Some(60)]).is_steady());
        assert!(trend(31, |_| [Some(1980), Some(60)]).is_steady());
        assert!(!at(20, Some(1980)));
        assert!(!at(60, Some(1980)));
        assert!(at(300, Some(1980)));
        assert!(at(300, None));
    }

    #[test]
    fn clocks_that_fall_are_not_steady() {
        let falling = |s: f64| [Some(if s < 80.0 { 1980 } else { 1890 }), Some(60)];
        assert!(!trend(95, falling).is_steady());
        assert!(trend(140, falling).is_steady());
        // Two steps up and down are none.
        let wavering = |s: f64| [Some(1980 - 15 * (s as i64 % 2)), Some(60)];
        assert!(trend(60, wavering).is_steady());
    }

    #[test]
    fn what_is_not_visible_is_not_steady() {
        assert!(!trend(100, |_| [None, None]).is_steady());
    }

    /// Counts how it is asked.
    struct Counter(Arc<Mutex<Vec<Extent>>>);

    impl Monitor for Counter {
        fn identity(&mut self) -> DeviceIdentity {
            DeviceIdentity::default()
        }

        fn read(&mut self, extent: Extent) -> DeviceState {
            self.0.lock().unwrap().push(extent);
            let mut state = DeviceState::default();
            state.set(Gauge::Temperature, Some(50));
            state
        }
    }

    #[test]
    fn devices_are_asked_at_the_begin_and_at_the_end() {
        let asked: Arc<Mutex<Vec<Extent>>> = Arc::default();
        let monitor: Box<dyn Monitor> = Box::new(Counter(Arc::clone(&asked)));
        let mut watch = DeviceWatch::start(vec![(7, monitor)]);
        let readings = watch.finish();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.last(), Some(&Extent::Whole));
        assert_eq!(asked.first(), Some(&Extent::Whole));
        assert_eq!(readings.len(), asked.len());
        assert!(readings.iter().all(|reading| reading.rank == 7));
        assert!(!watch.trends.is_steady(7) && !watch.trends.is_steady(8));
    }

    /// A device in trouble.
    struct Stuck(Receiver<()>);

    impl Monitor for Stuck {
        fn identity(&mut self) -> DeviceIdentity {
            DeviceIdentity::default()
        }

        fn read(&mut self, _: Extent) -> DeviceState {
            _ = self.0.recv();
            DeviceState::default()
        }
    }

    #[test]
    fn a_device_that_does_not_answer_keeps_nobody() {
        let (free, stuck) = channel();
        let monitor: Box<dyn Monitor> = Box::new(Stuck(stuck));
        let mut watch = DeviceWatch::start(vec![(0, monitor)]);
        assert!(watch.finish().is_empty());
        drop(free);
    }
}
