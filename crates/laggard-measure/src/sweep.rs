//! A benchmark of single calls: collectives over message sizes, kernels on every rank, messages
//! between pairs; the engine of `laggard bench`. Every sample is kept, by the devices' own stamps
//! on one clock. What follows from them is not known here.

mod compute;
mod pairs;
mod part;
mod point;
mod seat;
mod settings;
#[cfg(test)]
mod tests;
mod values;

pub use settings::{Late, ProductShape, Repetitions, Sizes, SweepSettings};

use crate::MeasureError;
use crate::clock_sync::{Clocks, SyncOptions, revalidate, synchronize};
use crate::job::order_of_appearance;
use crate::manifest::monotonic_ns;
use crate::place::Places;
use crate::processors;
use crate::run::{Signal, by_threads};
use compute::{ComputePoint, TimeOf};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{BackendError, DeviceKind, World, measure_peak, messenger};
use laggard_record::{BenchSamples, Communication};
use laggard_types::{DataType, Rank};
use part::{Part, PointPart};
use point::{Ground, Point};
use seat::{Seat, Spacing, burn_task};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

/// What the caller wants to know or to say while a benchmark runs.
pub struct SweepHooks<'a> {
    /// The signal that asks the benchmark to end, if one has come; what is measured by then is
    /// kept. Only rank 0's counts.
    pub stop: &'a (dyn Fn() -> Option<Signal> + Sync),
    /// Told on rank 0 what is measured next.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// How long a waiting rank looks again before it sleeps, where it has a processor of its own.
const SPIN: Duration = Duration::from_micros(50);
/// How long each rank measures its processor's peak.
const PEAK_TIME: Duration = Duration::from_millis(50);
/// Share of processors that other work may have unmentioned.
const QUIET_BELOW: f64 = 0.06;
/// The smallest number of warm-up calls: by these the time of a call is estimated.
const LEAST_WARM_UP: u32 = 1;

/// Benchmarks ranks that are threads of this process, on its processors.
///
/// # Errors
/// Settings that cannot be measured, and the first failure of a rank.
pub fn sweep_here(
    ranks: u32,
    settings: &SweepSettings,
    hooks: &SweepHooks<'_>,
) -> Result<BenchSamples, MeasureError> {
    let processors = processors::available()?;
    let has_own = ranks as usize <= processors.len();
    let options = ThreadOptions {
        timeout: settings.timeout,
        bind_cpus: if has_own { processors } else { Vec::new() },
        spin: if has_own { SPIN } else { Duration::ZERO },
        measure_peak: None,
    };
    let worlds =
        worlds(ranks, &options).map_err(|source| MeasureError::Start { rank: 0, source })?;
    sweep_on(&worlds, &by_threads(), settings, hooks)
}

/// Benchmarks ranks of this process in worlds of the caller's, one for each, in order.
///
/// # Errors
/// As [`sweep_here`].
pub fn sweep_on(
    worlds: &[World],
    communication: &Communication,
    settings: &SweepSettings,
    hooks: &SweepHooks<'_>,
) -> Result<BenchSamples, MeasureError> {
    let outcomes: Vec<_> = thread::scope(|scope| {
        let rank = |world| {
            let run = move || sweep_member(world, communication, settings, hooks);
            scope.spawn(move || or_abort(world, run))
        };
        let threads: Vec<_> = worlds.iter().map(rank).collect();
        let ended = threads.into_iter().zip(0..).map(|(thread, rank)| {
            let message = "its thread panicked".to_owned();
            let panicked = |_| Err(MeasureError::Panicked { rank, message });
            thread.join().unwrap_or_else(panicked)
        });
        ended.collect()
    });
    let mut samples = None;
    let mut failure: Option<MeasureError> = None;
    for outcome in outcomes {
        match outcome {
            Ok(found) => samples = samples.or(found),
            Err(error) if failure.as_ref().is_none_or(MeasureError::is_echo) => {
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    match (failure, samples) {
        (None, Some(samples)) => Ok(samples),
        (Some(error), _) => Err(error),
        (None, None) => Err(MeasureError::System {
            what: "collecting samples".to_owned(),
            why: "no rank has them".to_owned(),
        }),
    }
}

/// Runs a rank; whatever ends it early ends all others too.
fn or_abort<T>(
    world: &World,
    run: impl FnOnce() -> Result<T, MeasureError>,
) -> Result<T, MeasureError> {
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(MeasureError::Panicked {
            rank: world.messenger.rank(),
            message: "see above".to_owned(),
        })
    });
    outcome.inspect_err(|error| world.device.abort(&error.to_string()))
}

/// Benchmarks this process's rank together with all others. Collective; every rank must be given
/// the same settings. Only rank 0 has samples to tell of.
///
/// # Errors
/// As [`sweep_here`]. The others are not told of a failure here.
pub fn sweep_member(
    world: &World,
    communication: &Communication,
    settings: &SweepSettings,
    hooks: &SweepHooks<'_>,
) -> Result<Option<BenchSamples>, MeasureError> {
    let messenger = &*world.messenger;
    settings.check(messenger.size())?;
    let deadline = Instant::now() + settings.timeout;
    let places = Places::exchange(messenger, deadline)?;
    let devices = &world.device.description();
    let places = places.exchange_devices(devices, messenger, deadline)?;
    let rank = Sweeper {
        world,
        settings,
        hooks,
        rank: messenger.rank(),
        ranks: messenger.size(),
        places: &places,
    };
    rank.run(communication)
}

/// One rank with all that its doings need.
struct Sweeper<'a> {
    world: &'a World,
    settings: &'a SweepSettings,
    hooks: &'a SweepHooks<'a>,
    rank: Rank,
    ranks: u32,
    places: &'a Places,
}

/// What was measured, in order; the same on all ranks.
#[derive(Default)]
struct Done {
    points: Vec<Point>,
    compute: Vec<ComputePoint>,
    stopped: bool,
}

impl Sweeper<'_> {
    fn run(&self, communication: &Communication) -> Result<Option<BenchSamples>, MeasureError> {
        let machines = order_of_appearance(self.places.machines());
        let clocks = Clocks {
            machine_of_rank: &machines,
            clock: &monotonic_ns,
        };
        let options = SyncOptions::default();
        let messenger = &*self.world.messenger;
        let deadline = || Instant::now() + self.settings.timeout;
        let first = synchronize(messenger, &machines, clocks.clock, &options, deadline())?;
        let begin_ns = monotonic_ns()?;
        let (mut part, done) = self.measure(&machines)?;
        let sync = revalidate(&first, messenger, clocks, &options, deadline())?;
        let device_error_ns = self.world.device.clock_error_ns();
        part.put_on(&sync.model(begin_ns..monotonic_ns()?), device_error_ns);
        let own = serde_json::to_vec(&part).map_err(|error| unreadable(&error))?;
        let all = messenger::gather(messenger, &own, deadline());
        let all = all.map_err(|error| self.failed("collecting samples", error))?;
        let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(|e| unreadable(&e));
        let parts: Option<Vec<Part>> = match all {
            Some(all) => Some(all.iter().map(read).collect::<Result<_, _>>()?),
            None => None,
        };
        let Some(parts) = parts else { return Ok(None) };
        Ok(Some(self.samples(parts, done, communication)?))
    }

    /// Everything that is asked for, on this rank's own clock.
    fn measure(&self, machines: &[u32]) -> Result<(Part, Done), MeasureError> {
        let SweepSettings { timeout, .. } = *self.settings;
        let seat = Seat::new(self.world, timeout);
        let mut seat = seat.map_err(|error| self.failed("making queues", error))?;
        let peak = self.processor_peak()?;
        if let Some(late) = self.settings.late.filter(|late| late.rank == self.rank) {
            let flop = self.peak_of_late(peak)? * late.by.as_secs_f64();
            seat.late = Some(burn_task((flop as u64).max(1)));
        }
        let mut part = Part {
            peak_flop_per_s: peak,
            ..Part::default()
        };
        let mut done = Done::default();
        self.collectives(&mut seat, &mut part, &mut done)?;
        self.compute(&mut seat, &mut part, &mut done)?;
        if let Some(bytes) = self.settings.pair_bytes.filter(|_| !done.stopped) {
            self.tell("pairs of ranks");
            let message = (self.settings.data_type, bytes);
            let is_asked = || (self.hooks.stop)().is_some();
            let found = pairs::probe(&mut seat, message, machines, &is_asked);
            let found = found.map_err(|error| self.failed("messages between pairs", error));
            (part.pairs, done.stopped) = found?;
        }
        Ok((part, done))
    }

    fn collectives(
        &self,
        seat: &mut Seat<'_>,
        part: &mut Part,
        done: &mut Done,
    ) -> Result<(), MeasureError> {
        let settings = self.settings;
        let data_type = settings.data_type;
        let sizes = settings.sizes.all();
        let Some(largest) = sizes.last().filter(|_| !settings.collectives.is_empty()) else {
            return Ok(());
        };
        let device = &*self.world.device;
        let buffers = |error| self.failed("making buffers", error);
        let ground = Ground::new(device, (data_type, *largest), (self.rank, self.ranks));
        let mut ground = ground.map_err(buffers)?;
        for collective in &settings.collectives {
            self.tell(collective.name());
            ground.contribute(*collective).map_err(buffers)?;
            for bytes in &sizes {
                let places = (self.ranks, &settings.placements[..]);
                let kind = (*collective, settings.op);
                for point in Point::of_size(kind, data_type, *bytes, places) {
                    let found = self.point(seat, &ground, &point);
                    let found = found.map_err(|error| self.failed(&point.name(), error))?;
                    let Some(found) = found else {
                        done.stopped = true;
                        return Ok(());
                    };
                    part.collectives.push(found);
                    done.points.push(point);
                }
            }
        }
        Ok(())
    }

    /// One collective at one size; `None` if rank 0 was asked to end.
    fn point(
        &self,
        seat: &mut Seat<'_>,
        ground: &Ground,
        point: &Point,
    ) -> Result<Option<PointPart>, BackendError> {
        let steps = ground.steps(point)?;
        ground.prepare_timing(point)?;
        let warm_up = self.settings.warm_up.max(LEAST_WARM_UP);
        let begin = Instant::now();
        seat.calls(&steps, warm_up, Spacing::Barrier)?;
        let once = begin.elapsed() / warm_up;
        let count = match (self.hooks.stop)() {
            Some(_) => 0,
            None => u64::from(self.settings.calls.count(once)),
        };
        let count = u32::try_from(seat.agree(count)?).unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(None);
        }
        let calls = seat.calls(&steps, count, Spacing::Barrier)?;
        let stream = seat.calls(&steps, count, Spacing::BackToBack)?;
        let first = stream.first().map_or(0, |[begin, _]| *begin);
        let last = stream.iter().map(|[_, end]| *end).max().unwrap_or(first);
        ground.prepare_check(point)?;
        // After a barrier: nobody writes to another's memory before that is ready.
        seat.calls(&steps[..1], 1, Spacing::Barrier)?;
        Ok(Some(PointPart {
            calls,
            back_to_back_ns: (last - first) as f64 / f64::from(count),
            wrong: ground.wrong(point)?,
        }))
    }

    fn compute(
        &self,
        seat: &mut Seat<'_>,
        part: &mut Part,
        done: &mut Done,
    ) -> Result<(), MeasureError> {
        if done.stopped {
            return Ok(());
        }
        let data_type = self.computes_in();
        let products = self.settings.products.iter();
        let products = products.map(|shape| ComputePoint::product(shape, data_type));
        let triad = self.settings.triad_bytes;
        let triad = triad.map(|bytes| ComputePoint::triad(bytes, data_type));
        for point in products.chain(triad) {
            self.tell(&point.name);
            let failed = |error| self.failed(&point.name, error);
            let stop = u64::from((self.hooks.stop)().is_some());
            if seat.agree(stop).map_err(failed)? != 0 {
                done.stopped = true;
                return Ok(());
            }
            let seconds = point.measure(seat, self.settings.rounds, self.time_of());
            part.compute.push(seconds.map_err(failed)?);
            done.compute.push(point);
        }
        Ok(())
    }

    /// The type of products: what a training job multiplies in here.
    fn computes_in(&self) -> DataType {
        let computes_in = self.world.device.description().computes_in;
        let halves = [DataType::Bf16, DataType::F16];
        let half = halves.into_iter().find(|it| computes_in.contains(it));
        half.unwrap_or(DataType::F32)
    }

    fn is_on_processor(&self) -> bool {
        self.world.device.description().kind == DeviceKind::Cpu
    }

    /// Ranks that share processors are interrupted by each other.
    fn shares_processors(&self) -> bool {
        self.is_on_processor() && self.places.processor_of(0).is_none()
    }

    /// That others had a rank's processor for a while is no fault of the processor.
    fn time_of(&self) -> TimeOf {
        match self.is_on_processor() {
            true => TimeOf::Processor,
            false => TimeOf::Clock,
        }
    }

    /// The peak of this rank's processor, if it computes on one and somebody wants to know.
    fn processor_peak(&self) -> Result<Option<f64>, MeasureError> {
        let is_wanted = !self.settings.products.is_empty() || self.settings.late.is_some();
        if !self.is_on_processor() || !is_wanted {
            return Ok(None);
        }
        let peak = measure_peak(PEAK_TIME);
        let peak = peak.map_err(|error| self.failed("measuring its peak", error))?;
        Ok(Some(peak.0))
    }

    /// What arithmetic that takes so long is reckoned by, on a rank that comes late.
    fn peak_of_late(&self, of_processor: Option<f64>) -> Result<f64, MeasureError> {
        let device = self.world.device.description();
        let peak = device.measured_peak.map(|peak| peak.0).or(of_processor);
        peak.ok_or_else(|| MeasureError::Setting {
            what: "the late rank",
            value: self.rank.to_string(),
            why: format!("the peak of its {} was not measured", device.name),
            hint: "give --device cpu, or leave out --late".to_owned(),
        })
    }

    fn tell(&self, what: &str) {
        if self.rank == 0 {
            (self.hooks.progress)(what);
        }
    }

    fn failed(&self, what: &str, source: BackendError) -> MeasureError {
        MeasureError::Call {
            rank: self.rank,
            what: what.to_owned(),
            source: Box::new(source),
        }
    }
}

fn unreadable(error: &serde_json::Error) -> MeasureError {
    MeasureError::System {
        what: "collecting samples".to_owned(),
        why: error.to_string(),
    }
}
