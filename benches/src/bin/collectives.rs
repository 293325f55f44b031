//! `all_reduce` of the threads backend over two ranks, against its limit and a naive baseline.
//!
//! Limit: an all-reduce over two ranks must read both inputs and write both outputs, which is what
//! two ranks move that each copy an input to an output of that size at the same time. Here they do
//! exactly that, on the same threads and buffers: time of the copy over time of the all-reduce is
//! the share of the limit that is reached (for out-of-place calls; the baseline of the in-place
//! call is the same, though it moves less between caches and memory).
//!
//! All arms of one size run in one process, round after round, in random order within a round;
//! ratios are taken within rounds. One arm runs twice, so that the ratio of the two (A/A) shows
//! what noise alone does.
//!
//! Every rank is bound to a processor of its own, which only Linux allows.
//!
//! Usage: `collectives RAW.csv [ROUNDS]`

use anyhow::{Context, Result, anyhow};
use laggard_backend::threads::{ThreadOptions, worlds};
use laggard_backend::{
    Call, Device, Kernel, Launch, QueueId, Slice, TaggedStamp, Task, Token, World,
};
use laggard_stats::{BlockBootstrap, Estimate, Ranked, Resampling, Rng, quantile};
use laggard_types::{DataType, ReduceOp, format_bytes};
use std::io::Write;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

const RANKS: usize = 2;
const DEADLINE: Duration = Duration::from_secs(120);
/// Spin of the worlds that may: each rank has a core of its own here.
const SPIN: Duration = Duration::from_micros(50);
/// Bytes that one timed batch moves at least, so that small sizes are timed over many calls.
const BATCH_BYTES: usize = 8 << 20;
const MOST_CALLS: usize = 200;
const REPLICATES: usize = 2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Arm {
    AllReduce,
    Again,
    InPlace,
    Spinning,
    Mutex,
    Copy,
}

impl Arm {
    const ALL: [Self; 6] = [
        Self::AllReduce,
        Self::Again,
        Self::InPlace,
        Self::Spinning,
        Self::Mutex,
        Self::Copy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::Again => "again",
            Self::InPlace => "in_place",
            Self::Spinning => "spinning",
            Self::Mutex => "mutex_loop",
            Self::Copy => "copy",
        }
    }
}

/// One rank with its buffers.
struct Seat {
    world: World,
    queue: QueueId,
    send: Slice,
    recv: Slice,
}

fn seats(spin: Duration, len: usize) -> Result<Vec<Seat>> {
    let options = ThreadOptions {
        spin,
        bind_cpus: (0..RANKS as u32).collect(),
        ..ThreadOptions::default()
    };
    worlds(RANKS as u32, &options)?
        .into_iter()
        .map(|world| {
            let queue = world.device.create_queue("bench")?;
            let slice = || -> Result<Slice> {
                let slice = Slice::whole(&world.device.allocate(DataType::F32, len)?);
                // Zeros, so that sums in place stay finite, call after call.
                slice.write_f32(&vec![0.0; len])?;
                Ok(slice)
            };
            let (send, recv) = (slice()?, slice()?);
            Ok(Seat {
                world,
                queue,
                send,
                recv,
            })
        })
        .collect()
}

/// Nanoseconds per call of a batch: from the first begin to the last end over all ranks.
fn batch(
    seats: &[Seat],
    calls: usize,
    enqueue: impl Fn(&Seat, Launch<'_>) -> Result<Token>,
) -> Result<f64> {
    let mut last = Vec::new();
    for seat in seats {
        let launch = |tag| Launch {
            queue: seat.queue,
            after: &[],
            tag,
        };
        // All begin together.
        seat.world.data.enqueue(Call::Barrier, launch(0))?;
        let tokens = (0..calls).map(|_| enqueue(seat, launch(1)));
        let tokens = tokens.collect::<Result<Vec<Token>>>()?;
        last.push(*tokens.last().context("no calls")?);
    }
    let (mut begin, mut end) = (i64::MAX, i64::MIN);
    for (seat, token) in seats.iter().zip(last) {
        let device: &dyn Device = &*seat.world.device;
        device.wait(token, DEADLINE)?;
        let mut stamps: Vec<TaggedStamp> = Vec::new();
        device.drain(seat.queue, &mut stamps)?;
        for stamp in stamps.iter().filter(|stamp| stamp.tag == 1) {
            begin = begin.min(stamp.stamp.start_ns);
            end = end.max(stamp.stamp.end_ns);
        }
    }
    Ok((end - begin) as f64 / calls as f64)
}

fn all_reduce(seats: &[Seat], calls: usize, in_place: bool) -> Result<f64> {
    batch(seats, calls, |seat, launch| {
        let recv = if in_place {
            seat.send.clone()
        } else {
            seat.recv.clone()
        };
        let call = Call::AllReduce {
            send: seat.send.clone(),
            recv,
            op: ReduceOp::Sum,
        };
        Ok(seat.world.data.enqueue(call, launch)?)
    })
}

fn copy(seats: &[Seat], calls: usize) -> Result<f64> {
    batch(seats, calls, |seat, launch| {
        let kernel = Kernel::Copy {
            from: seat.send.clone(),
            to: seat.recv.clone(),
        };
        let task = Task {
            kernels: Arc::from([kernel]),
            work_scale: 1.0,
            extra_flop: 0,
        };
        Ok(seat.world.device.enqueue(&task, launch)?)
    })
}

/// What one writes first: everybody adds to one shared vector under a mutex, all meet, everybody
/// copies it out.
fn mutex_loop(len: usize, calls: usize) -> Result<f64> {
    let shared = Mutex::new(vec![0.0f32; len]);
    let barrier = Barrier::new(RANKS);
    let rank = |rank: usize| {
        bind(rank)?;
        let send = vec![1.0f32; len];
        let mut recv = vec![0.0f32; len];
        recv.copy_from_slice(&send);
        barrier.wait();
        let begin = Instant::now();
        for _ in 0..calls {
            {
                let mut shared = shared.lock().map_err(|_| anyhow!("poisoned"))?;
                for (sum, x) in shared.iter_mut().zip(&send) {
                    *sum += *x;
                }
            }
            barrier.wait();
            recv.copy_from_slice(&shared.lock().map_err(|_| anyhow!("poisoned"))?);
            if barrier.wait().is_leader() {
                shared.lock().map_err(|_| anyhow!("poisoned"))?.fill(0.0);
            }
            barrier.wait();
        }
        let spent = begin.elapsed();
        std::hint::black_box((rank, &recv));
        Ok(spent.as_nanos() as f64 / calls as f64)
    };
    let rank = &rank;
    std::thread::scope(|scope| {
        let spawn = |at| scope.spawn(move || -> Result<f64> { rank(at) });
        let threads: Vec<_> = (0..RANKS).map(spawn).collect();
        threads.into_iter().try_fold(0.0f64, |longest, thread| {
            Ok(longest.max(thread.join().map_err(|_| anyhow!("a rank panicked"))??))
        })
    })
}

/// Binds the calling thread as the ranks of the other arms are bound.
#[cfg(target_os = "linux")]
fn bind(cpu: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    Ok(nix::sched::sched_setaffinity(
        nix::unistd::Pid::from_raw(0),
        &set,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn bind(_: usize) -> Result<()> {
    Err(anyhow!("binding threads to processors needs Linux"))
}

struct Samples {
    bytes: usize,
    /// Nanoseconds per call, by arm and round.
    ns: Vec<(Arm, Vec<f64>)>,
}

impl Samples {
    fn of(&self, arm: Arm) -> &[f64] {
        self.ns
            .iter()
            .find(|(a, _)| *a == arm)
            .map_or(&[], |(_, ns)| ns)
    }

    /// Median over rounds of `a / b`, with its 95 % interval.
    fn ratio(&self, a: Arm, b: Arm) -> Result<Estimate> {
        let ratios: Vec<f64> = self
            .of(a)
            .iter()
            .zip(self.of(b))
            .map(|(a, b)| a / b)
            .collect();
        let resampling = Resampling {
            block_length: 1,
            replicates: REPLICATES,
            seed: 1,
        };
        let ranked = Ranked::new(&ratios)?;
        let median = |counts: &[u32]| ranked.resampled_quantile(counts, 0.5).unwrap_or(f64::NAN);
        Ok(BlockBootstrap::new(ratios.len(), resampling)?.estimate(0.95, median)?)
    }
}

fn measure(bytes: usize, rounds: usize, rng: &mut Rng, raw: &mut impl Write) -> Result<Samples> {
    let len = bytes / size_of::<f32>();
    let calls = (BATCH_BYTES / bytes).clamp(3, MOST_CALLS);
    let sleeping = seats(Duration::ZERO, len)?;
    let spinning = seats(SPIN, len)?;
    let mut ns = Arm::ALL.map(|arm| (arm, Vec::new()));
    // The first round warms up and is not kept.
    for round in 0..=rounds {
        let mut order = Arm::ALL;
        rng.shuffle(&mut order);
        for (place, arm) in order.into_iter().enumerate() {
            let per_call = match arm {
                Arm::AllReduce | Arm::Again => all_reduce(&sleeping, calls, false)?,
                Arm::InPlace => all_reduce(&sleeping, calls, true)?,
                Arm::Spinning => all_reduce(&spinning, calls, false)?,
                Arm::Mutex => mutex_loop(len, calls)?,
                Arm::Copy => copy(&sleeping, calls)?,
            };
            if round > 0 {
                writeln!(
                    raw,
                    "{bytes},{round},{place},{},{calls},{per_call:.1}",
                    arm.name()
                )?;
                let of_arm = ns.iter_mut().find(|(a, _)| *a == arm);
                of_arm.context("an arm")?.1.push(per_call);
            }
        }
    }
    Ok(Samples {
        bytes,
        ns: ns.into(),
    })
}

fn print(samples: &Samples, out: &mut impl Write) -> Result<()> {
    write!(out, "{:>9}", format_bytes(samples.bytes as u64))?;
    for arm in Arm::ALL {
        write!(out, " {:>10.1}", quantile(samples.of(arm), 0.5)? * 1e-3)?;
    }
    for (a, b) in [
        (Arm::Copy, Arm::AllReduce),
        (Arm::Copy, Arm::Spinning),
        (Arm::Mutex, Arm::AllReduce),
        (Arm::Again, Arm::AllReduce),
    ] {
        let Estimate { value, interval } = samples.ratio(a, b)?;
        write!(
            out,
            "  {value:>5.2} [{:>5.2}, {:>5.2}]",
            interval.low, interval.high
        )?;
    }
    // Two inputs read and two outputs written per copy round.
    let moved = 2.0 * RANKS as f64 * samples.bytes as f64;
    writeln!(
        out,
        "  {:>6.1}",
        moved / quantile(samples.of(Arm::Copy), 0.5)?
    )?;
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .context("usage: collectives RAW.csv [ROUNDS]")?;
    let rounds: usize = arguments.next().map_or(Ok(31), |text| text.parse())?;
    let mut raw = std::io::BufWriter::new(std::fs::File::create(&path).context(path)?);
    writeln!(raw, "bytes,round,place,arm,calls,ns_per_call")?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "medians of {rounds} rounds, us per call; ratios with 95 % intervals"
    )?;
    write!(out, "{:>9}", "size")?;
    for arm in Arm::ALL {
        write!(out, " {:>10}", arm.name())?;
    }
    for title in [
        "copy/all_reduce",
        "copy/spinning",
        "mutex/all_reduce",
        "A/A",
    ] {
        write!(out, "  {title:>20}")?;
    }
    writeln!(out, "  copy GB/s")?;
    let mut rng = Rng::new(1);
    for bytes in (12..=26).step_by(2).map(|shift| 1usize << shift) {
        let samples = measure(bytes, rounds, &mut rng, &mut raw)?;
        print(&samples, &mut out)?;
    }
    Ok(raw.flush()?)
}
