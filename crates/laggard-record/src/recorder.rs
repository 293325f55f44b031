//! What a rank calls inside its timed path.

use crate::lane::{Capacity, Consumer, Producer, lane};
use crate::table::{Sample, StepWork};
use laggard_types::{Rank, Stamp};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Words of a sample on its way: step and operation, and four times.
const SAMPLE_WORDS: usize = 5;
/// Words of a row of table `steps` on its way.
const STEP_WORDS: usize = 3;

/// Takes the samples of one rank. Made by [`crate::RecordWriter::recorder`] or
/// [`crate::RowForwarder::recorder`], moved to the rank's thread. A push is a handful of stores: no
/// lock, no system call, and no allocation unless the writer lags, which is counted and reported as
/// `writer_lags`.
pub struct RankRecorder {
    rank: Rank,
    samples: Producer<SAMPLE_WORDS>,
    steps: Producer<STEP_WORDS>,
}

/// A recorder for a rank, and the other end of it. `lags` counts how often the rank had to
/// allocate.
pub(crate) fn lanes_of(
    rank: Rank,
    samples: Capacity,
    steps: Capacity,
    lags: &Arc<AtomicU64>,
) -> (RankRecorder, RankLanes) {
    let (samples, sample_rows) = lane(samples, Arc::clone(lags));
    let (steps, step_rows) = lane(steps, Arc::clone(lags));
    let lanes = RankLanes {
        rank,
        samples: sample_rows,
        steps: step_rows,
    };
    let recorder = RankRecorder {
        rank,
        samples,
        steps,
    };
    (recorder, lanes)
}

impl RankRecorder {
    /// The rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Records a sample. Its rank must be the recorder's.
    #[inline]
    pub fn push(&mut self, sample: Sample) {
        debug_assert_eq!(sample.rank, self.rank, "a recorder serves one rank");
        let Stamp {
            start_ns,
            end_ns,
            cpu_start_ns,
            cpu_end_ns,
        } = sample.stamp;
        let what = u64::from(sample.step) << 32 | u64::from(sample.operation);
        let times = [start_ns, end_ns, cpu_start_ns, cpu_end_ns].map(i64::cast_unsigned);
        self.samples
            .push([what, times[0], times[1], times[2], times[3]]);
    }

    /// Records what the rank worked on in a step. Its rank must be the recorder's.
    pub fn push_step(&mut self, work: StepWork) {
        debug_assert_eq!(work.rank, self.rank, "a recorder serves one rank");
        let counts = [work.tokens, work.tokens_squared];
        let [tokens, squared] = counts.map(i64::cast_unsigned);
        self.steps.push([u64::from(work.step), tokens, squared]);
    }
}

/// The writer's end of a [`RankRecorder`].
pub(crate) struct RankLanes {
    rank: Rank,
    samples: Consumer<SAMPLE_WORDS>,
    steps: Consumer<STEP_WORDS>,
}

impl RankLanes {
    /// Moves everything that the rank has recorded to the buffers.
    pub(crate) fn drain(&mut self, samples: &mut Vec<Sample>, steps: &mut Vec<StepWork>) {
        let rank = self.rank;
        self.samples.drain(|[what, times @ ..]| {
            let [start_ns, end_ns, cpu_start_ns, cpu_end_ns] = times.map(u64::cast_signed);
            let stamp = Stamp {
                start_ns,
                end_ns,
                cpu_start_ns,
                cpu_end_ns,
            };
            samples.push(Sample {
                rank,
                step: (what >> 32) as u32,
                operation: what as u32,
                stamp,
            });
        });
        self.steps.drain(|[step, counts @ ..]| {
            let [tokens, tokens_squared] = counts.map(u64::cast_signed);
            let step = step as u32;
            steps.push(StepWork {
                rank,
                step,
                tokens,
                tokens_squared,
            });
        });
    }
}
