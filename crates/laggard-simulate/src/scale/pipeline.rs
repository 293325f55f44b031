//! The passes of one replica as a short list of maxima and sums, evaluated for several steps at
//! once.
//!
//! The list is compiled from the one description of a pipeline, [`laggard_schedule::generate`]:
//! within a step every micro-batch takes a stage equally long, so that passes which nobody else
//! waits for are summed, and waiting that other waiting implies is dropped.

use super::workload::{ScaleWorkload, StageTimes};
use crate::error::SimulateError;
use laggard_schedule::{
    Durations, LayerWork, Layout, ModelWork, OperationKind, Part, PartWork, Phase, Replay,
    Schedule, Times, generate,
};
use std::ops::Range;

/// Steps that are evaluated at once.
pub(super) const LANES: usize = 16;

/// One number for each of the steps.
pub(super) type Lane = [f64; LANES];

/// Passes of one stage that follow each other without waiting.
#[derive(Debug, Clone)]
struct Run {
    stage: usize,
    /// Its part of the pipeline's waits.
    waits: Range<usize>,
    /// Forward and backward passes of whole pieces.
    forward: f64,
    backward: f64,
    /// Exposed transfers of these passes, seconds.
    exposed_s: f64,
    /// Whether it is the first pass of its stage.
    head: bool,
}

/// A replica's passes.
#[derive(Debug)]
pub(super) struct Pipeline {
    runs: Vec<Run>,
    /// Runs that must have ended so many seconds before another.
    waits: Vec<(u32, f64)>,
    /// The last run of each stage.
    last: Vec<u32>,
    /// Pieces of each stage.
    chunks: f64,
}

/// What the members of a stage take in several steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct StageLanes {
    /// The slowest member's forward passes of one micro-batch, seconds.
    pub(super) forward: Lane,
    /// The slowest member's backward passes of one micro-batch.
    pub(super) backward: Lane,
}

impl StageLanes {
    pub(super) const ZERO: Self = Self {
        forward: [0.0; LANES],
        backward: [0.0; LANES],
    };
}

impl Pipeline {
    /// Compiles the passes of a replica of so many micro-batches. No rank's factor in any step may
    /// be below `least_factor`.
    pub(super) fn new(
        workload: &ScaleWorkload,
        micro_batches: u32,
        least_factor: f64,
    ) -> Result<Self, SimulateError> {
        let schedule = skeleton(&workload.layout, micro_batches)?;
        let replay = Replay::new(&schedule)?;
        let runs = Compiler::new(&schedule, &replay, workload, least_factor).runs();
        Ok(merge(
            &runs,
            workload.stages.len(),
            f64::from(workload.layout.virtual_stages),
        ))
    }

    /// When each stage ends its last pass, if `first` is when the last member of each would have
    /// done its first pass if it waited for nobody. `ends` is scratch.
    pub(super) fn evaluate(
        &self,
        stages: &[StageLanes],
        first: &[Lane],
        ends: &mut Vec<Lane>,
        last: &mut [Lane],
    ) {
        // Compiled for several instruction sets; sums and maxima are the same under each.
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || self.evaluate_lanes(stages, first, ends),
        );
        for (last, run) in last.iter_mut().zip(&self.last) {
            *last = ends[*run as usize];
        }
    }

    #[inline(always)]
    fn evaluate_lanes(&self, stages: &[StageLanes], first: &[Lane], ends: &mut Vec<Lane>) {
        ends.resize(self.runs.len(), [0.0; LANES]);
        let share = 1.0 / self.chunks;
        for (at, run) in self.runs.iter().enumerate() {
            let (before, rest) = ends.split_at_mut(at);
            let mut end = [0.0; LANES];
            for &(other, seconds) in &self.waits[run.waits.clone()] {
                let other = &before[other as usize];
                for (end, other) in end.iter_mut().zip(other) {
                    *end = later(*end, other + seconds);
                }
            }
            let times = &stages[run.stage];
            let (forward, backward) = (run.forward * share, run.backward * share);
            let passes = times.forward.iter().zip(&times.backward);
            for (end, (f, b)) in end.iter_mut().zip(passes) {
                *end += forward * f + backward * b + run.exposed_s;
            }
            if run.head {
                for (end, first) in end.iter_mut().zip(&first[run.stage]) {
                    *end = later(*end, first + run.exposed_s);
                }
            }
            rest[0] = end;
        }
    }
}

/// The larger of two numbers, neither of them NaN: one instruction, where `f64::max` takes three.
#[inline]
pub(super) fn later(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The schedule of one replica with one rank for each stage and one layer for each piece.
fn skeleton(layout: &Layout, micro_batches: u32) -> Result<Schedule, SimulateError> {
    let skeleton = Layout {
        pipeline_parallel: layout.pipeline_parallel,
        virtual_stages: layout.virtual_stages,
        ..Layout::data_parallel(1, micro_batches)
    };
    let part = |part| PartWork {
        part,
        forward_flop: 0.0,
        forward_attention_flop: 0.0,
        parameters: 1,
    };
    let layers = skeleton.pieces();
    let layer = |index: u32| LayerWork {
        name: String::new(),
        parts: vec![part(if index == layers {
            Part::Head
        } else {
            Part::FeedForward
        })],
    };
    let work = ModelWork {
        layers: (0..=layers).map(layer).collect(),
        element_bytes: 1,
        stream_elements: 1,
        key_value_elements: 1,
        experts_per_token: 1,
    };
    Ok(generate(&skeleton, &work)?)
}

/// Runs that a node waits for, and for how long after their end.
type Sources = Vec<(u32, f64)>;

struct Compiler<'a> {
    schedule: &'a Schedule,
    replay: &'a Replay,
    times: &'a [StageTimes],
    transfer_s: f64,
    chunks: f64,
    head_layer: u32,
    /// No factor is below this.
    least_factor: f64,
    runs: Vec<(Run, Sources)>,
    /// Runs of each stage so far.
    of_stage: Vec<Vec<u32>>,
    /// Place of each run among those of its stage.
    place: Vec<u32>,
    /// How many runs of each stage have ended before each run begins, itself included.
    reached: Vec<Vec<u32>>,
    /// Seconds that the passes of a run's stage take at least, up to its end.
    elapsed: Vec<f64>,
}

impl<'a> Compiler<'a> {
    fn new(
        schedule: &'a Schedule,
        replay: &'a Replay,
        workload: &'a ScaleWorkload,
        least_factor: f64,
    ) -> Self {
        let stages = workload.stages.len();
        Self {
            schedule,
            replay,
            times: &workload.stages,
            transfer_s: workload.transfer_s,
            chunks: f64::from(workload.layout.virtual_stages),
            head_layer: workload.layout.pieces(),
            least_factor,
            runs: Vec::new(),
            of_stage: vec![Vec::new(); stages],
            place: Vec::new(),
            reached: Vec::new(),
            elapsed: Vec::new(),
        }
    }

    /// One run for each pass, in an order in which each comes after those that it waits for.
    fn runs(mut self) -> Vec<(Run, Sources)> {
        let mut sources: Vec<Sources> = vec![Vec::new(); self.replay.nodes().len()];
        for node in self.order() {
            let mut waits = Vec::new();
            let meeting = self.replay.meeting_of(node);
            let members = meeting.map(|meeting| self.replay.meetings()[meeting as usize].clone());
            for member in members.unwrap_or_else(|| vec![node]) {
                for before in self.replay.predecessors(member) {
                    waits.extend_from_slice(&sources[*before as usize]);
                }
            }
            let waits = self.needed(waits);
            sources[node as usize] = self.sources_of(node, waits);
        }
        self.runs
    }

    /// Nodes by begin, if each took one second: each comes after those that it waits for.
    fn order(&self) -> Vec<u32> {
        let own = vec![1.0; self.replay.nodes().len()];
        let mut times = Times::default();
        let lanes = Durations {
            lanes: 1,
            own: &own,
            delay: None,
        };
        self.replay.evaluate(lanes, &mut times);
        let mut order: Vec<u32> = (0..own.len() as u32).collect();
        order.sort_by(|a, b| times.start[*a as usize].total_cmp(&times.start[*b as usize]));
        order
    }

    /// What followers of a node wait for.
    fn sources_of(&mut self, node: u32, waits: Sources) -> Sources {
        let at = self.replay.nodes()[node as usize];
        let operation = &self.schedule.operations[at.operation as usize];
        let is_pass = matches!(operation.phase, Phase::Forward | Phase::Backward);
        match operation.kind {
            OperationKind::Compute if is_pass && operation.layer != Some(self.head_layer) => {
                let stage = self.schedule.stage_of_rank[at.rank as usize] as usize;
                vec![(self.push(stage, operation.phase, waits), 0.0)]
            }
            OperationKind::Send | OperationKind::Receive => {
                let later = |(run, seconds): (u32, f64)| (run, seconds + self.transfer_s);
                waits.into_iter().map(later).collect()
            }
            _ => waits,
        }
    }

    fn push(&mut self, stage: usize, phase: Phase, after: Sources) -> u32 {
        let id = self.runs.len() as u32;
        let mut reached = vec![0; self.times.len()];
        for (before, _) in &after {
            for (mine, theirs) in reached.iter_mut().zip(&self.reached[*before as usize]) {
                *mine = (*mine).max(*theirs);
            }
        }
        let place = self.of_stage[stage].len() as u32;
        reached[stage] = place + 1;
        let times = &self.times[stage];
        let (forward, backward, kernels_s, exposed_s) = match phase {
            Phase::Forward => (1.0, 0.0, times.forward_s, times.forward_exposed_s),
            _ => (0.0, 1.0, times.backward_s, times.backward_exposed_s),
        };
        let before = self.of_stage[stage]
            .last()
            .map_or(0.0, |run| self.elapsed[*run as usize]);
        let least_s = (kernels_s * self.least_factor + exposed_s) / self.chunks;
        self.elapsed.push(before + least_s);
        self.of_stage[stage].push(id);
        self.place.push(place);
        self.reached.push(reached);
        let run = Run {
            stage,
            waits: 0..0,
            forward,
            backward,
            exposed_s: exposed_s / self.chunks,
            head: place == 0,
        };
        self.runs.push((run, after));
        id
    }

    /// Leaves out waiting that other waiting implies: what another run of these had to wait for is
    /// over by the time that one can have ended.
    fn needed(&self, mut waits: Sources) -> Sources {
        waits.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        waits.dedup_by_key(|wait| wait.0);
        let implied = |(run, seconds): &(u32, f64)| {
            let stage = self.runs[*run as usize].0.stage;
            waits.iter().any(|(other, more)| {
                let reached = self.reached[*other as usize][stage];
                if other == run || reached <= self.place[*run as usize] {
                    return false;
                }
                let known = self.of_stage[stage][reached as usize - 1] as usize;
                more + self.elapsed[known] - self.elapsed[*run as usize] >= *seconds
            })
        };
        waits
            .iter()
            .filter(|wait| !implied(wait))
            .copied()
            .collect()
    }
}

/// Joins each run to the one before it on its stage, where it waits for nothing else and nobody
/// waits for what it joins.
fn merge(runs: &[(Run, Sources)], stages: usize, chunks: f64) -> Pipeline {
    let mut waited = vec![0_u32; runs.len()];
    for (run, _) in runs.iter().flat_map(|(_, waits)| waits) {
        waited[*run as usize] += 1;
    }
    let mut pipeline = Pipeline {
        runs: Vec::new(),
        waits: Vec::new(),
        last: vec![0; stages],
        chunks,
    };
    // Where each run has gone.
    let mut gone: Vec<u32> = Vec::with_capacity(runs.len());
    for (run, waits) in runs {
        let only = match waits[..] {
            [(before, 0.0)] => Some(before as usize),
            _ => None,
        };
        let joins = only.filter(|before| {
            let other = &runs[*before].0;
            other.stage == run.stage && !other.head && waited[*before] == 1
        });
        let at = match joins {
            Some(before) => {
                let joined = &mut pipeline.runs[gone[before] as usize];
                joined.forward += run.forward;
                joined.backward += run.backward;
                joined.exposed_s += run.exposed_s;
                gone[before]
            }
            None => {
                let first = pipeline.waits.len();
                let moved = waits
                    .iter()
                    .map(|(run, seconds)| (gone[*run as usize], *seconds));
                pipeline.waits.extend(moved);
                pipeline.runs.push(Run {
                    waits: first..pipeline.waits.len(),
                    ..run.clone()
                });
                pipeline.runs.len() as u32 - 1
            }
        };
        pipeline.last[run.stage] = at;
        gone.push(at);
    }
    pipeline
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::tests::workload;

    fn compiled(layout: &str, micro_batches: u32, transfer_s: f64) -> Pipeline {
        let layout = Layout::parse(layout).expect("a layout");
        let workload = ScaleWorkload {
            transfer_s,
            ..workload(layout, 1)
        };
        Pipeline::new(&workload, micro_batches, 0.5).expect("a pipeline")
    }

    #[test]
    fn passes_that_nobody_waits_for_are_one() {
        // The first pass stands alone, because ranks begin it at different times.
        assert_eq!(compiled("dp1", 100, 0.0).runs.len(), 2);
        let pipeline = compiled("dp1,pp4", 16, 0.0);
        assert!(pipeline.runs.len() <= 2 * 4 * 16, "{}", pipeline.runs.len());
    }

    #[test]
    fn waiting_that_is_implied_is_left_out() {
        for transfer_s in [0.0, 0.1] {
            let pipeline = compiled("dp1,pp8", 32, transfer_s);
            // The run before, and the neighbour that sends.
            let most = 2 * pipeline.runs.len();
            assert!(pipeline.waits.len() <= most, "{}", pipeline.waits.len());
        }
    }
}
