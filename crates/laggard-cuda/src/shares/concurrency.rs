//! Whether ranks on parts of one GPU really run at the same time: a kernel on each part, filling
//! it, takes turns with those on the others so often that turns of the whole GPU would take far
//! longer than any of them is allowed. All have a limit in cycles, so that none hangs.

use crate::device::PinnedWords;
use crate::{Argument, CudaDevice, KernelLaunch, Module};
use cudarc::driver::CudaStream;
use laggard_backend::BackendError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConcurrencyOptions {
    /// How often all wait for each other.
    pub rounds: u32,
    /// How many cycles a kernel may wait in all.
    pub limit_cycles: u64,
    /// How long the host waits for the kernels.
    pub timeout: Duration,
}

/// Turns that all members take in all, and how many rounds there are at least.
const TURNS: usize = 512;
const LEAST_ROUNDS: usize = 8;

impl ConcurrencyOptions {
    /// For so many kernels that are to meet. The figures are estimates and yet to be measured on a
    /// GPU: in a round each kernel looks at the others' words one after the other, a read of the
    /// host's memory each, of about a microsecond; where kernels take turns on the whole GPU, a
    /// round costs a time slice of the driver for each, about a millisecond. With as many rounds
    /// less as there are kernels more, all rounds take about a millisecond or about a second,
    /// however many kernels there are, and the limit, about 30 ms, is between.
    pub fn among(kernels: usize) -> Self {
        let rounds = (TURNS / kernels.max(1)).max(LEAST_ROUNDS);
        Self {
            rounds: u32::try_from(rounds).unwrap_or(u32::MAX),
            limit_cycles: 50_000_000,
            timeout: Duration::from_secs(30),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concurrency {
    /// All ran at the same time, for at least so long by the GPU's own clock, nanoseconds.
    Shown {
        /// Between the last begin and the first end.
        overlap_ns: i64,
    },
    /// They did not, or it did not show.
    NotShown {
        /// What was seen.
        why: String,
    },
}

/// Words of a member: the round that it is in, begin, end, rounds that it has completed.
const WORDS: usize = 4;

/// What a device that fails was doing.
const MEETING: &str = "meeting other ranks of the GPU";

/// Time between two looks at whether kernels have ended.
const BETWEEN_LOOKS: Duration = Duration::from_micros(100);

/// Shows whether kernels of these devices, which are of one GPU and of this process, run at the
/// same time. To be asked for while nothing else runs on them.
///
/// # Errors
/// [`BackendError::Device`] if a device fails or its kernels never end.
pub fn concurrency(
    devices: &[Arc<CudaDevice>],
    options: &ConcurrencyOptions,
) -> Result<Concurrency, BackendError> {
    let Some(first) = devices.first() else {
        let why = "there are no ranks".to_owned();
        return Ok(Concurrency::NotShown { why });
    };
    // The driver may wait for whatever runs when it brings a kernel to a device.
    for device in devices {
        let words = Arc::new(first.words(WORDS)?);
        let alone = Meeting {
            devices: std::slice::from_ref(device),
            words,
            options,
        };
        alone.hold()?;
    }
    let meeting = Meeting {
        devices,
        words: Arc::new(first.words(WORDS * devices.len())?),
        options,
    };
    Ok(verdict(&meeting.hold()?, options))
}

/// Kernels that are to meet.
struct Meeting<'a> {
    devices: &'a [Arc<CudaDevice>],
    words: Arc<PinnedWords>,
    options: &'a ConcurrencyOptions,
}

/// What one of them says.
#[derive(Debug, Clone, Copy)]
struct Visit {
    completed: u64,
    begin_ns: i64,
    end_ns: i64,
}

impl Meeting<'_> {
    /// Launches all and waits for their ends.
    fn hold(&self) -> Result<Vec<Visit>, BackendError> {
        let streams = self.devices.iter().map(|device| device.new_stream());
        let streams: Vec<Arc<CudaStream>> = streams.collect::<Result<_, _>>()?;
        let held = self.hold_on(&streams);
        if held.is_err() {
            // Kernels that were launched may still read and write there.
            std::mem::forget(Arc::clone(&self.words));
        }
        held
    }

    fn hold_on(&self, streams: &[Arc<CudaStream>]) -> Result<Vec<Visit>, BackendError> {
        for (own, (device, stream)) in self.devices.iter().zip(streams).enumerate() {
            self.launch(own, device, stream)?;
        }
        let deadline = Instant::now() + self.options.timeout;
        for (own, device) in self.devices.iter().enumerate() {
            while self.word(own, 2) == 0 {
                if Instant::now() >= deadline {
                    let why = format!("no end came within {:?}", self.options.timeout);
                    return Err(device.whose().error(MEETING, why, ""));
                }
                std::thread::sleep(BETWEEN_LOOKS);
            }
        }
        // Their last words are there once the kernels are over.
        for (device, stream) in self.devices.iter().zip(streams) {
            let ended = stream.synchronize();
            ended.map_err(device.whose().failed(MEETING))?;
        }
        let visit = |own| Visit {
            completed: self.word(own, 3),
            begin_ns: self.word(own, 1).cast_signed(),
            end_ns: self.word(own, 2).cast_signed(),
        };
        Ok((0..self.devices.len()).map(visit).collect())
    }

    fn launch(
        &self,
        own: usize,
        device: &CudaDevice,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let number = |count: usize| Argument::U32(u32::try_from(count).unwrap_or(u32::MAX));
        let launch = KernelLaunch {
            module: Module::Clock,
            entry: "meet_others",
            // One for each multiprocessor, with so much memory that there is no room for others.
            blocks: device.gpu().place().multiprocessors.max(1),
            threads: 1,
            shared_bytes: device.gpu().most_shared_bytes(),
            arguments: vec![
                Argument::U64(self.words.address(0)),
                number(own),
                number(self.devices.len()),
                Argument::U32(self.options.rounds),
                Argument::U64(self.options.limit_cycles),
            ],
        };
        let launched = device.gpu().enqueue(&launch, stream);
        launched.map_err(|error| device.whose().refused(MEETING, &error))
    }

    fn word(&self, of: usize, at: usize) -> u64 {
        let word = self.words.word(of * WORDS + at);
        word.load(Ordering::Acquire)
    }
}

/// What follows from what kernels say.
fn verdict(visits: &[Visit], options: &ConcurrencyOptions) -> Concurrency {
    let ConcurrencyOptions {
        rounds,
        limit_cycles,
        ..
    } = options;
    let least = (0..).zip(visits).min_by_key(|(_, visit)| visit.completed);
    if let Some((at, visit)) = least
        && visit.completed < u64::from(*rounds)
    {
        let why = format!(
            "the kernel of rank {at} met the others {} times instead of {rounds} within \
             {limit_cycles} cycles",
            visit.completed
        );
        return Concurrency::NotShown { why };
    }
    let begin_ns = visits.iter().map(|visit| visit.begin_ns).max();
    let end_ns = visits.iter().map(|visit| visit.end_ns).min();
    match begin_ns.zip(end_ns) {
        Some((begin_ns, end_ns)) if begin_ns < end_ns => Concurrency::Shown {
            overlap_ns: end_ns - begin_ns,
        },
        _ => Concurrency::NotShown {
            why: "the times of the ranks' kernels do not overlap".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_kernels_meet_less_often() {
        let rounds = [0, 1, 2, 16, 1000].map(|kernels| ConcurrencyOptions::among(kernels).rounds);
        assert_eq!(rounds, [512, 512, 256, 32, 8]);
    }

    #[test]
    fn only_kernels_that_met_at_one_time_are_concurrent() {
        let options = ConcurrencyOptions {
            rounds: 10,
            ..ConcurrencyOptions::among(2)
        };
        let check = |visits: &[(u64, i64, i64)], expect: &str| {
            let visits: Vec<Visit> = visits
                .iter()
                .map(|(completed, begin_ns, end_ns)| Visit {
                    completed: *completed,
                    begin_ns: *begin_ns,
                    end_ns: *end_ns,
                })
                .collect();
            let found = format!("{:?}", verdict(&visits, &options));
            assert!(found.contains(expect), "{found}");
        };
        check(
            &[(10, 100, 200), (10, 150, 220)],
            "Shown { overlap_ns: 50 }",
        );
        // One after the other: the later one finds the earlier one's words.
        check(
            &[(1, 100, 200), (10, 300, 310)],
            "the kernel of rank 0 met the others 1 times instead of 10",
        );
        check(&[(10, 100, 200), (10, 200, 310)], "do not overlap");
        check(&[], "do not overlap");
    }
}
