//! The passes of one replica as a short list of maxima and sums, evaluated for several steps at
//! once.
//!
//! The list is compiled from the one description of a pipeline, [`laggard_schedule::generate`]:
//! within a step every micro-batch takes a stage equally long, so that passes which nobody else
//! waits for are summed, and waiting that other waiting implies is dropped.

use super::error::ScaleError;
use super::workload::{ScaleWorkload, StageTimes};
use laggard_schedule::{
    Durations, LayerWork, Layout, ModelWork, OperationKind, Part, PartWork, Phase, Replay,
    Schedule, Times, generate,
};

/// Steps that are evaluated at once.
pub(super) const LANES: usize = 16;

/// One number for each of the steps.
pub(super) type Lane = [f64; LANES];

/// Passes of one stage that follow each other without waiting.
#[derive(Debug, Clone)]
struct Run {
    stage: usize,
    /// Forward and backward passes of whole pieces.
    forward: f64,
    backward: f64,
    /// Exposed transfers of these passes, seconds.
    exposed_s: f64,
    /// Runs that must have ended so many seconds before.
    after: Vec<(u32, f64)>,
    /// Whether it is the first pass of its stage.
    head: bool,
}

/// A replica's passes.
#[derive(Debug)]
pub(super) struct Pipeline {
    runs: Vec<Run>,
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
    /// Compiles the passes of a replica of so many micro-batches.
    pub(super) fn new(workload: &ScaleWorkload, micro_batches: u32) -> Result<Self, ScaleError> {
        let schedule = skeleton(&workload.layout, micro_batches)?;
        let replay = Replay::new(&schedule)?;
        let runs = Compiler::new(&schedule, &replay, workload).runs();
        let stages = workload.stages.len();
        Ok(merge(
            runs,
            stages,
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
        ends.clear();
        let share = 1.0 / self.chunks;
        for run in &self.runs {
            let times = &stages[run.stage];
            let mut end = [0.0_f64; LANES];
            for (before, seconds) in &run.after {
                let before = &ends[*before as usize];
                for lane in 0..LANES {
                    end[lane] = end[lane].max(before[lane] + seconds);
                }
            }
            let (forward, backward) = (run.forward * share, run.backward * share);
            for lane in 0..LANES {
                end[lane] +=
                    forward * times.forward[lane] + backward * times.backward[lane] + run.exposed_s;
            }
            if run.head {
                for lane in 0..LANES {
                    end[lane] = end[lane].max(first[run.stage][lane] + run.exposed_s);
                }
            }
            ends.push(end);
        }
        for (last, run) in last.iter_mut().zip(&self.last) {
            *last = ends[*run as usize];
        }
    }
}

/// The schedule of one replica with one rank for each stage and one layer for each piece.
fn skeleton(layout: &Layout, micro_batches: u32) -> Result<Schedule, ScaleError> {
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
    runs: Vec<Run>,
    /// Runs of each stage so far.
    of_stage: Vec<Vec<u32>>,
    /// Place of each run among those of its stage.
    place: Vec<u32>,
    /// How many runs of each stage have ended before each run begins, itself included.
    reached: Vec<Vec<u32>>,
}

impl<'a> Compiler<'a> {
    fn new(schedule: &'a Schedule, replay: &'a Replay, workload: &'a ScaleWorkload) -> Self {
        let stages = workload.stages.len();
        Self {
            schedule,
            replay,
            times: &workload.stages,
            transfer_s: workload.transfer_s,
            chunks: f64::from(workload.layout.virtual_stages),
            head_layer: workload.layout.pieces(),
            runs: Vec::new(),
            of_stage: vec![Vec::new(); stages],
            place: Vec::new(),
            reached: Vec::new(),
        }
    }

    /// One run for each pass, in an order in which each comes after those that it waits for.
    fn runs(mut self) -> Vec<Run> {
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
        let (forward, backward, exposed) = match phase {
            Phase::Forward => (1.0, 0.0, times.forward_exposed_s),
            _ => (0.0, 1.0, times.backward_exposed_s),
        };
        self.of_stage[stage].push(id);
        self.place.push(place);
        self.reached.push(reached);
        self.runs.push(Run {
            stage,
            forward,
            backward,
            exposed_s: exposed / self.chunks,
            after,
            head: place == 0,
        });
        id
    }

    /// Leaves out waiting that other waiting implies: for a run that one of the others had to
    /// wait for, no longer before.
    fn needed(&self, mut waits: Sources) -> Sources {
        waits.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        waits.dedup_by_key(|wait| wait.0);
        let implied = |(run, seconds): &(u32, f64)| {
            let stage = self.runs[*run as usize].stage;
            waits.iter().any(|(other, later)| {
                let reached = self.reached[*other as usize][stage];
                other != run && later >= seconds && reached > self.place[*run as usize]
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
fn merge(runs: Vec<Run>, stages: usize, chunks: f64) -> Pipeline {
    let mut waited = vec![0_u32; runs.len()];
    runs.iter()
        .flat_map(|run| &run.after)
        .for_each(|(run, _)| waited[*run as usize] += 1);
    let mut pipeline = Pipeline {
        runs: Vec::new(),
        last: vec![0; stages],
        chunks,
    };
    // Where each run has gone.
    let mut gone: Vec<u32> = Vec::with_capacity(runs.len());
    for run in runs.iter() {
        let only = match run.after[..] {
            [(before, 0.0)] => Some(before as usize),
            _ => None,
        };
        let joins = only.filter(|before| {
            let other = &runs[*before];
            other.stage == run.stage && !other.head && waited[*before] == 1
        });
        let at = match joins {
            Some(before) => {
                let target = gone[before];
                let joined = &mut pipeline.runs[target as usize];
                joined.forward += run.forward;
                joined.backward += run.backward;
                joined.exposed_s += run.exposed_s;
                target
            }
            None => {
                let after = run
                    .after
                    .iter()
                    .map(|(run, s)| (gone[*run as usize], *s))
                    .collect();
                pipeline.runs.push(Run {
                    after,
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
