//! Step after step of a predicted job, as the rows of an ordinary record.

use super::durations;
use crate::error::SimulateError;
use laggard_record::{Sample, StepWork, Workload};
use laggard_schedule::{Durations, Layout, Operation, Replay, Schedule, Times};
use laggard_types::{Rank, Stamp};

/// Lays predicted steps out on one clock that begins with the first step.
#[derive(Debug)]
pub struct PredictedTimeline<'a> {
    schedule: &'a Schedule,
    replay: Replay,
    /// Begin of the step to come, seconds.
    begin_s: f64,
    step: u32,
    /// Durations of the step before, where what follows the step's cut still needs them.
    before: Option<Vec<f64>>,
    times: Times,
}

impl<'a> PredictedTimeline<'a> {
    /// Begins with step 0.
    ///
    /// # Errors
    /// If the schedule cannot be evaluated.
    pub fn new(schedule: &'a Schedule) -> Result<Self, SimulateError> {
        Ok(Self {
            schedule,
            replay: Replay::new(schedule)?,
            begin_s: 0.0,
            step: 0,
            before: None,
            times: Times::default(),
        })
    }

    /// The samples of the next step, and of the end of the one before where a collective of the
    /// whole world separates them. `seconds` gives the duration of an operation on a rank in this
    /// step. A sample begins when its rank is ready for it, and so contains the waiting.
    ///
    /// # Errors
    /// If a duration is no time.
    pub fn step(
        &mut self,
        seconds: impl FnMut(&Operation, Rank) -> f64,
    ) -> Result<Vec<Sample>, SimulateError> {
        let own = durations(&self.replay, self.schedule, seconds)?;
        let rows = self.evaluate(&own, true);
        self.begin_s += self.times.finish[0];
        self.step += 1;
        self.before = Some(own);
        Ok(rows)
    }

    /// The samples of what follows the last step's cut; none where steps are not cut.
    pub fn finish(mut self) -> Vec<Sample> {
        let own = vec![0.0; self.replay.nodes().len()];
        self.evaluate(&own, false)
    }

    /// Length of the step laid out last, seconds.
    pub fn step_seconds(&self) -> f64 {
        self.times.finish.first().copied().unwrap_or(0.0)
    }

    /// Evaluates a step after the end of the one before; its own rows only if `with_step`.
    fn evaluate(&mut self, own: &[f64], with_step: bool) -> Vec<Sample> {
        let nodes = self.replay.nodes();
        let duration = |(at, node): (usize, &laggard_schedule::Node)| match node.carried {
            true => self.before.as_ref().map_or(0.0, |before| before[at]),
            false => own[at],
        };
        let own: Vec<f64> = nodes.iter().enumerate().map(duration).collect();
        let lanes = Durations {
            lanes: 1,
            own: &own,
            delay: None,
        };
        self.replay.evaluate(lanes, &mut self.times);
        let has_before = self.before.is_some();
        let carried = (0..nodes.len()).filter(|at| has_before && nodes[*at].carried);
        let fresh = (0..nodes.len()).filter(|at| with_step && !nodes[*at].carried);
        carried.chain(fresh).map(|node| self.sample(node)).collect()
    }

    fn sample(&self, at: usize) -> Sample {
        let node = self.replay.nodes()[at];
        let before = self.replay.predecessors(at as u32).iter();
        let ready = before.map(|before| self.times.end[*before as usize]);
        let start_s = ready.fold(0.0, f64::max);
        let nanos = |seconds: f64| ((self.begin_s + seconds) * 1e9).round() as i64;
        Sample {
            rank: node.rank,
            step: self.step - u32::from(node.carried),
            operation: node.operation,
            stamp: Stamp {
                start_ns: nanos(start_s),
                end_ns: nanos(self.times.end[at]),
                cpu_start_ns: 0,
                cpu_end_ns: 0,
            },
        }
    }
}

/// The rows of table `steps` for sequences of nominal length: every rank of a replica works on the
/// replica's tokens.
pub fn predicted_work<'a>(
    layout: &'a Layout,
    workload: &Workload,
    steps: u32,
) -> impl Iterator<Item = StepWork> + use<'a> {
    let length = i64::from(workload.sequence_length);
    let tokens = length * i64::from(workload.micro_batch_sequences);
    let world = layout.world_size() as u32;
    (0..steps).flat_map(move |step| {
        (0..world).map(move |rank| {
            let replica = layout.coordinates(rank).data as usize;
            let micro_batches = i64::from(layout.micro_batches[replica]);
            StepWork {
                rank,
                step,
                tokens: tokens * micro_batches,
                tokens_squared: tokens * length * micro_batches,
            }
        })
    })
}
