use super::tree::Family;
use super::*;
use laggard_backend::Abort;
use laggard_backend::control::part_of;
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_stats::{Rng, median};
use laggard_types::Rank;
use std::sync::Mutex;
use std::thread;

/// A clock that is wrong in a known way: exact in integers, so that bounds are held to the
/// nanosecond.
#[derive(Debug, Clone, Copy)]
struct Skew {
    offset_ns: i64,
    /// Billionths.
    drift: i64,
}

impl Skew {
    fn random(rng: &mut Rng) -> Self {
        let symmetric = |rng: &mut Rng, size: f64| ((rng.uniform() * 2.0 - 1.0) * size) as i64;
        Self {
            offset_ns: symmetric(rng, 1e9),
            drift: symmetric(rng, 200e3),
        }
    }

    /// Exact, nanoseconds in billionths.
    fn exact(self, true_ns: i64) -> i128 {
        let (drift, offset) = (i128::from(self.drift), i128::from(self.offset_ns));
        i128::from(true_ns) * (1_000_000_000 + drift) + offset * 1_000_000_000
    }

    fn raw_ns(self, true_ns: i64) -> i64 {
        self.exact(true_ns).div_euclid(1_000_000_000) as i64
    }
}

fn aligned(model: &Model, raw_ns: i64) -> i64 {
    let drift = (raw_ns - model.from_ns) as f64 * model.drift_ppm * 1e-6;
    raw_ns + model.offset_ns + drift.round() as i64
}

/// How far a model is from the truth, nanoseconds.
fn error_ns(model: &Model, own: Skew, common: Skew, true_ns: i64) -> f64 {
    let found = i128::from(aligned(model, own.raw_ns(true_ns))) * 1_000_000_000;
    (found - common.exact(true_ns)) as f64 / 1e9
}

/// Delays messages to higher ranks, or to lower ones, by random times: half the longest at least,
/// so that the middle of every round trip is far from the truth.
struct Delayed {
    inner: std::sync::Arc<dyn Messenger>,
    up: bool,
    longest: Duration,
    rng: Mutex<Rng>,
}

impl Messenger for Delayed {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn size(&self) -> u32 {
        self.inner.size()
    }

    fn send(&self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), BackendError> {
        if (to > self.rank()) == self.up {
            let share = self.rng.lock().unwrap().uniform();
            let begin = Instant::now();
            let delay = self.longest.mul_f64(0.5 + 0.5 * share);
            while begin.elapsed() < delay {
                thread::yield_now();
            }
        }
        self.inner.send(to, message, deadline)
    }

    fn receive(&self, from: Rank, it: &mut [u8], deadline: Instant) -> Result<(), BackendError> {
        self.inner.receive(from, it, deadline)
    }
}

fn quick() -> SyncOptions {
    SyncOptions {
        fit_points: 4,
        window: Duration::from_millis(4),
        round_trips: 10,
        every_rank: true,
        wander_ppm: 0.0,
        ..SyncOptions::default()
    }
}

fn messengers(ranks: u32) -> Vec<std::sync::Arc<dyn Messenger>> {
    let worlds = worlds(ranks, &ThreadOptions::default()).unwrap();
    worlds.into_iter().map(|world| world.messenger).collect()
}

/// Runs every rank on a thread of its own.
fn on_all<T: Send>(
    messengers: &[std::sync::Arc<dyn Messenger>],
    work: impl Fn(&dyn Messenger) -> T + std::marker::Sync,
) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = messengers
            .iter()
            .map(|messenger| scope.spawn(move || work(&**messenger)))
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Synchronises ranks with wrong clocks, and holds all bounds against the truth.
fn trial(skews: &[Skew], messengers: &[std::sync::Arc<dyn Messenger>]) {
    let options = quick();
    let machines = vec![0; skews.len()];
    let base = Instant::now();
    let now = || base.elapsed().as_nanos() as i64;
    let syncs = on_all(messengers, |messenger| {
        let skew = skews[messenger.rank() as usize];
        let clock = || Ok(skew.raw_ns(now()));
        let first = synchronize(messenger, &machines, &clock, &options, soon()).unwrap();
        let clocks = Clocks {
            machine_of_rank: &machines,
            clock: &clock,
        };
        let both = revalidate(&first, messenger, clocks, &options, soon()).unwrap();
        (first, both)
    });
    let end = now();
    for (rank, (first, both)) in syncs.iter().enumerate() {
        let (own, common) = (skews[rank], skews[0]);
        assert_eq!(both.missed_by_ns, None, "rank {rank}");
        for (sync, last) in [(first, end), (both, end), (first, end + 1_000_000_000)] {
            let model = sync.model(own.raw_ns(0)..own.raw_ns(last));
            for eighth in 0..=8 {
                let at = last / 8 * eighth;
                let error = error_ns(&model, own, common, at).abs();
                let raw = own.raw_ns(at);
                let elapsed = (raw - model.from_ns).abs() as f64 / 1e9;
                let grown = model.bound_ns as f64 + model.bound_growth_ns_per_s * elapsed;
                assert!(
                    error <= model.worst_bound_ns as f64 && error <= grown,
                    "rank {rank} of {} is wrong by {error} ns at {at} of {last}: {model:?}",
                    skews.len()
                );
            }
        }
    }
}

#[test]
fn bounds_hold() {
    let mut rng = Rng::new(17);
    for _ in 0..200 {
        let ranks = 2 + rng.below(8);
        let skews: Vec<Skew> = (0..ranks).map(|_| Skew::random(&mut rng)).collect();
        trial(&skews, &messengers(ranks as u32));
    }
}

/// Over TCP, as where no MPI connects the ranks.
#[test]
fn bounds_hold_over_connections() {
    let mut rng = Rng::new(19);
    for _ in 0..5 {
        let ranks = 2 + rng.below(3);
        let skews: Vec<Skew> = (0..ranks).map(|_| Skew::random(&mut rng)).collect();
        let connected = on_all(&messengers(ranks as u32), |messenger| {
            let all = 0..messenger.size();
            part_of(messenger, all, "here", &Abort::default(), soon()).unwrap()
        });
        trial(&skews, &connected);
    }
}

#[test]
fn bounds_hold_with_uneven_delays() {
    let mut rng = Rng::new(18);
    for round in 0..20_u64 {
        let ranks = 2 + rng.below(4);
        let skews: Vec<Skew> = (0..ranks).map(|_| Skew::random(&mut rng)).collect();
        let delayed = messengers(ranks as u32).into_iter().map(|inner| {
            let delayed = Delayed {
                rng: Mutex::new(Rng::for_stream(round, u64::from(inner.rank()))),
                inner,
                up: round % 2 == 0,
                longest: Duration::from_micros(400),
            };
            std::sync::Arc::new(delayed) as std::sync::Arc<dyn Messenger>
        });
        trial(&skews, &delayed.collect::<Vec<_>>());
    }
}

/// What round trips at even times would say if messages took these times, forth and back.
fn lesson(
    own: impl Fn(i64) -> i64,
    common: Skew,
    times_ns: Range<i64>,
    delays: impl FnMut() -> (i64, i64),
) -> Lesson {
    let exact = |true_ns| (common.raw_ns(true_ns), common.raw_ns(true_ns));
    lesson_of(own, exact, times_ns, delays)
}

/// The same of a teacher that knows the least and largest common time.
fn lesson_of(
    own: impl Fn(i64) -> i64,
    common_at: impl Fn(i64) -> (i64, i64),
    times_ns: Range<i64>,
    mut delays: impl FnMut() -> (i64, i64),
) -> Lesson {
    const ROUND_TRIPS: i64 = 40;
    let options = SyncOptions::default();
    let spacing = (times_ns.end - times_ns.start) / ROUND_TRIPS;
    let mut best_round_trip_ns = i64::MAX;
    let intervals = (0..ROUND_TRIPS).map(|index| {
        let sent = times_ns.start + index * spacing;
        let (forth, back) = delays();
        let raw = (own(sent), own(sent + forth + back));
        best_round_trip_ns = best_round_trip_ns.min(raw.1 - raw.0);
        let (low, high) = common_at(sent + forth);
        options.interval(raw, (low, high + options.resolution_ns))
    });
    Lesson {
        intervals: intervals.collect(),
        best_round_trip_ns,
    }
}

const MS: i64 = 1_000_000;

/// Ranks that teach each other along the tree. Delays are drawn, not those of this machine: how
/// close bounds are is a matter of how often a message is about as quick as the quickest.
#[test]
fn bounds_are_close() {
    let mut rng = Rng::new(17);
    let options = SyncOptions {
        wander_ppm: 0.0,
        ..SyncOptions::default()
    };
    let mut relative = Vec::new();
    for _ in 0..200 {
        let ranks = 2 + rng.below(8);
        let skews: Vec<Skew> = (0..ranks).map(|_| Skew::random(&mut rng)).collect();
        let mut syncs = vec![(Sync::exact(Method::Begin), Sync::exact(Method::BeginAndEnd))];
        // Least possible bound: half of the best round trip to each teacher above.
        let mut least_ns = vec![0.0];
        let mut bounds = vec![0.0];
        for rank in 1..ranks {
            let (own, teacher) = (skews[rank], rank & (rank - 1));
            let raw = |true_ns| own.raw_ns(true_ns);
            let mut learn = |teacher_sync: &Sync, times_ns: Range<i64>| {
                let common_at = |true_ns| teacher_sync.common_at(skews[teacher].raw_ns(true_ns));
                lesson_of(raw, common_at, times_ns, || {
                    let mut delay = || 5_000 + (-3_000.0 * rng.uniform().max(1e-9).ln()) as i64;
                    (delay(), delay())
                })
            };
            let first = learn(&syncs[teacher].0, 0..4 * MS);
            let last = learn(&syncs[teacher].1, 8 * MS..12 * MS);
            let first = Sync::learned(&first, &options).unwrap();
            let both = first.relearned(&last, &options).unwrap();
            assert_eq!(both.missed_by_ns, None);
            let model = both.model(raw(0)..raw(12 * MS));
            for eighth in 0..=8 {
                let error = error_ns(&model, own, skews[0], 12 * MS / 8 * eighth);
                assert!(
                    error.abs() <= model.worst_bound_ns as f64,
                    "{error}: {model:?}"
                );
            }
            let round_trip_ns = both.best_round_trip_ns.unwrap() as f64;
            least_ns.push(least_ns[teacher] + round_trip_ns / 2.0);
            bounds.push(model.worst_bound_ns as f64);
            syncs.push((first, both));
        }
        let ratios = bounds
            .iter()
            .zip(&least_ns)
            .skip(1)
            .map(|(bound, least)| bound / least);
        relative.push(ratios.fold(0.0, f64::max));
    }
    let relative = median(&relative).unwrap();
    assert!((1.0..3.0).contains(&relative), "{relative}");
}

/// Equal delays in both directions cancel, whatever they are; what is left is that clocks are read
/// in whole nanoseconds.
#[test]
fn even_delays_give_the_exact_model() {
    let mut rng = Rng::new(19);
    for _ in 0..200 {
        let (own, common) = (Skew::random(&mut rng), Skew::random(&mut rng));
        let options = SyncOptions {
            wander_ppm: 0.0,
            ..SyncOptions::default()
        };
        let even = |rng: &mut Rng| {
            let delay = 10_000 + rng.below(100_000) as i64;
            (delay, delay)
        };
        let raw = |true_ns| own.raw_ns(true_ns);
        let first = lesson(raw, common, 0..50 * MS, || even(&mut rng));
        let last = lesson(raw, common, 10_000 * MS..10_050 * MS, || even(&mut rng));
        let first = Sync::learned(&first, &options).unwrap();
        let both = first.relearned(&last, &options).unwrap();
        assert_eq!(both.missed_by_ns, None);
        let model = both.model(raw(0)..raw(10_050 * MS));
        for tenth in 0..=10 {
            let error = error_ns(&model, own, common, tenth * 1005 * MS);
            assert!(error.abs() <= 3.0, "{error} ns: {model:?}");
        }
    }
}

/// Whatever delays are, the truth is within bounds, and its own line among those that are possible.
#[test]
fn any_delays_keep_the_truth_within_bounds() {
    let mut rng = Rng::new(20);
    for _ in 0..300 {
        let (own, common) = (Skew::random(&mut rng), Skew::random(&mut rng));
        let options = SyncOptions {
            wander_ppm: 0.0,
            ..SyncOptions::default()
        };
        // From some nanoseconds to milliseconds, independent in both directions; half of them never
        // vary, so that with all of the delay on one way, the truth lies on the bound itself.
        let sizes = [rng.below(22), rng.below(22)];
        let varies = rng.below(2) == 1;
        let uneven = |rng: &mut Rng| {
            let mut delay = |size: usize| {
                let most = 1 << size;
                let varying = if varies { rng.below(most) } else { 0 };
                (most - 1 + varying) as i64
            };
            (delay(sizes[0]), delay(sizes[1]))
        };
        let raw = |true_ns| own.raw_ns(true_ns);
        let first = lesson(raw, common, 0..50 * MS, || uneven(&mut rng));
        let last = lesson(raw, common, 3000 * MS..3050 * MS, || uneven(&mut rng));
        let first = Sync::learned(&first, &options).unwrap();
        let both = first.relearned(&last, &options).unwrap();
        assert_eq!((first.missed_by_ns, both.missed_by_ns), (None, None));
        for sync in [&first, &both] {
            let model = sync.model(raw(0)..raw(3050 * MS));
            for tenth in 0..=10 {
                let error = error_ns(&model, own, common, tenth * 305 * MS);
                assert!(
                    error.abs() <= model.worst_bound_ns as f64,
                    "{error}: {model:?}"
                );
            }
        }
        assert!(both.model(raw(0)..raw(3050 * MS)).worst_bound_ns <= 1 << 23);
    }
}

/// A clock whose rate changes in the middle: within the allowance it is still bounded; beyond it,
/// the miss is seen, and added.
#[test]
fn a_change_of_rate() {
    // Lessons that know the drift well, so that a change shows.
    let delays = || (10, 30);
    let cases = [(900, false), (100_000, true), (-100_000, true)];
    for (change, missed) in cases {
        for changed_at in [1000 * MS, 3000 * MS, 5000 * MS] {
            let common = Skew {
                offset_ns: 0,
                drift: 0,
            };
            let own = |true_ns: i64| {
                let after = (true_ns - changed_at).max(0);
                true_ns + 777 + (i128::from(after) * i128::from(change) / 1_000_000_000) as i64
            };
            let options = SyncOptions::default();
            let first = lesson(own, common, 0..500 * MS, delays);
            let last = lesson(own, common, 5500 * MS..6000 * MS, delays);
            let first = Sync::learned(&first, &options).unwrap();
            let both = first.relearned(&last, &options).unwrap();
            let case = format!("{change} from {changed_at}");
            assert_eq!(both.missed_by_ns.is_some(), missed, "{case}");
            let model = both.model(own(0)..own(6000 * MS));
            for step in 0..=60 {
                let at = step * 100 * MS;
                let error = (aligned(&model, own(at)) - at).abs();
                assert!(
                    error <= model.worst_bound_ns,
                    "{case}: {error} at {at}: {model:?}"
                );
            }
        }
    }
}

/// Ranks of one machine share what one of them learns, and rank 0's machine needs to learn nothing.
#[test]
fn machines_share_a_clock() {
    let machines = [0, 1, 1, 0, 2, 1];
    let base = Instant::now();
    let syncs = on_all(&messengers(6), |messenger| {
        let offset = i64::from(machines[messenger.rank() as usize]) * 1_000_000_000;
        let clock = || Ok(base.elapsed().as_nanos() as i64 + offset);
        let options = SyncOptions {
            every_rank: false,
            ..quick()
        };
        let sync = synchronize(messenger, &machines, &clock, &options, soon()).unwrap();
        let covered = offset..offset + 50 * MS;
        let wrong = (covered.clone(), 7);
        let rows = alignments(messenger, &sync, wrong, soon()).unwrap();
        (sync.clone(), sync.model(covered), rows)
    });
    for (rank, (sync, model, _)) in syncs.iter().enumerate() {
        let expect = -i64::from(machines[rank]) * 1_000_000_000;
        assert!(
            (model.offset_ns - expect).abs() <= model.bound_ns,
            "{rank}: {model:?}"
        );
        let learned = machines[rank] != 0;
        assert_eq!(sync.round_trips > 0, learned, "{rank}");
        assert_eq!(sync.best_round_trip_ns.is_some(), learned, "{rank}");
    }
    assert_eq!((syncs[1].1, syncs[1].1), (syncs[2].1, syncs[5].1));
    assert!(syncs[1..].iter().all(|(.., rows)| rows.is_empty()));
    let rows = &syncs[0].2;
    assert_eq!(rows.len(), 6);
    for (rank, (row, (_, model, _))) in rows.iter().zip(&syncs).enumerate() {
        assert_eq!((row.rank as usize, &*row.method), (rank, "hca3_begin"));
        assert_eq!(
            (row.from_ns, row.offset_ns),
            (model.from_ns, model.offset_ns)
        );
        assert_eq!(row.bound_ns, model.worst_bound_ns + 7);
    }
}

#[test]
fn one_machine_needs_no_messages() {
    let only = &messengers(3)[1];
    let clock = || Ok(5);
    let options = SyncOptions::default();
    let sync = synchronize(&**only, &[7; 3], &clock, &options, soon()).unwrap();
    assert_eq!((sync.method, sync.round_trips), (Method::SharedClock, 0));
    let model = sync.model(0..1000 * MS);
    assert_eq!((model.offset_ns, model.worst_bound_ns), (0, ROUNDING_NS));
}

#[test]
fn silence_is_an_error() {
    for rank in [0, 1] {
        let only = &messengers(2)[rank];
        let deadline = Instant::now() + Duration::from_millis(20);
        let clock = || Ok(5);
        let got = synchronize(&**only, &[0, 1], &clock, &quick(), deadline);
        let text = got.unwrap_err().to_string();
        let expect = format!("rank {rank}, comparing clocks: ");
        assert!(text.starts_with(&expect), "{text}");
        assert!(text.contains(&format!("missing: {}", 1 - rank)), "{text}");
    }
}

#[test]
fn the_tree_reaches_everybody_in_few_rounds() {
    for size in 1..=70_u32 {
        let machines: Vec<u32> = (0..size).rev().collect();
        let family = |rank| Family::new(rank, &machines, false);
        for rank in 0..size {
            let (mut at, mut depth) = (rank, 0);
            while let Some(teacher) = family(at).teacher {
                assert!(family(teacher).pupils.contains(&at), "{at} of {size}");
                (at, depth) = (teacher, depth + 1);
            }
            assert!(
                at == 0 && depth <= size.next_power_of_two().ilog2(),
                "{rank} of {size}"
            );
        }
        let pupils: usize = (0..size).map(|rank| family(rank).pupils.len()).sum();
        assert_eq!(pupils as u32, size - 1);
    }
}
