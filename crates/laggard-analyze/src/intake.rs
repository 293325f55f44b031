//! From samples to dense tables: own time, delay and wait of every node in every step.
//!
//! What a node's own time is depends on the basis. On wall clocks it is its duration, of a meeting
//! point only the part after the last member's arrival. On the virtual clock it is the CPU time of
//! the thread that executed it: waiting costs none.

use crate::AnalyzeError;
use laggard_record::{Manifest, SampleBatch, StepWork, TimeBasis};
use laggard_schedule::{OperationKind, Replay};
use rayon::prelude::*;

/// Fewest complete steps that are analysed at all.
pub(crate) const FEWEST_STEPS: usize = 4;

const MISSING: i64 = i64::MIN;

/// Raw times of one step, by node.
struct RawStep {
    start: Box<[i64]>,
    end: Box<[i64]>,
    cpu: Box<[f32]>,
    present: usize,
}

/// Samples on their way to [`Measurements`].
pub(crate) struct Intake<'a> {
    manifest: &'a Manifest,
    replay: &'a Replay,
    /// Position of an operation within a program, by `[program][operation]`.
    position: Vec<Vec<u32>>,
    steps: Vec<Option<RawStep>>,
    work: Vec<Vec<Work>>,
    duplicates: u64,
    seen: Vec<bool>,
}

/// What a rank worked on in a step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) tokens: f64,
    pub(crate) tokens_squared: f64,
}

/// Dense tables of the steps that are complete.
pub(crate) struct Measurements {
    pub(crate) nodes: usize,
    pub(crate) ranks: usize,
    /// Number of each step in the record.
    pub(crate) step_numbers: Vec<u32>,
    /// Own time in seconds, `[step][node]`.
    pub(crate) own: Vec<f32>,
    /// Time from being ready to the start, seconds, `[step][node]`.
    pub(crate) delay: Vec<f32>,
    /// Length of each step in seconds.
    pub(crate) step_time: Vec<f64>,
    /// When each step began, on the samples' clock, nanoseconds.
    pub(crate) begin_ns: Vec<i64>,
    /// Share of a rank's compute time in which its thread did not run, `[step][rank]`; empty where
    /// threads have no CPU clock.
    pub(crate) descheduled: Vec<f32>,
    /// Work, `[step][rank]`; empty where the record has none.
    pub(crate) work: Vec<Work>,
    /// Steps left out because samples are missing.
    pub(crate) incomplete: usize,
    /// Samples that came twice.
    pub(crate) duplicates: u64,
}

impl Measurements {
    pub(crate) fn steps(&self) -> usize {
        self.step_numbers.len()
    }

    pub(crate) fn own_of_step(&self, step: usize) -> &[f32] {
        &self.own[step * self.nodes..][..self.nodes]
    }

    pub(crate) fn delay_of_step(&self, step: usize) -> &[f32] {
        &self.delay[step * self.nodes..][..self.nodes]
    }

    /// Mean share of compute time off the processor, by rank; empty where threads have no clock.
    pub(crate) fn descheduled_shares(&self) -> Vec<f64> {
        if self.descheduled.is_empty() {
            return Vec::new();
        }
        let of_rank = |rank| self.descheduled.iter().skip(rank).step_by(self.ranks);
        let sum = |rank| of_rank(rank).map(|share| f64::from(*share)).sum::<f64>();
        (0..self.ranks)
            .map(|rank| sum(rank) / self.steps() as f64)
            .collect()
    }

    /// Forgets the first `count` steps.
    pub(crate) fn drop_first(&mut self, count: usize) {
        self.step_numbers.drain(..count);
        self.own.drain(..count * self.nodes);
        self.delay.drain(..count * self.nodes);
        self.step_time.drain(..count);
        self.begin_ns.drain(..count);
        if !self.descheduled.is_empty() {
            self.descheduled.drain(..count * self.ranks);
        }
        if !self.work.is_empty() {
            self.work.drain(..count * self.ranks);
        }
    }
}

impl<'a> Intake<'a> {
    pub(crate) fn new(manifest: &'a Manifest, replay: &'a Replay) -> Self {
        let schedule = &manifest.schedule;
        let position = schedule
            .programs
            .iter()
            .map(|program| {
                let mut position = vec![u32::MAX; schedule.operations.len()];
                for (at, &operation) in program.operations.iter().enumerate() {
                    position[operation as usize] = at as u32;
                }
                position
            })
            .collect();
        Self {
            manifest,
            replay,
            position,
            steps: Vec::new(),
            work: Vec::new(),
            duplicates: 0,
            seen: vec![false; schedule.world_size()],
        }
    }

    /// Takes a batch of samples. The record's reader has checked ranks and operations against the
    /// schedule's tables.
    pub(crate) fn add(&mut self, batch: &SampleBatch<'_>) {
        let thread_time = self.manifest.clock.thread_cpu_time;
        for row in 0..batch.rank.len() {
            let rank = batch.rank[row] as usize;
            let program = self.manifest.schedule.program_of_rank[rank] as usize;
            let at = self.position[program][batch.operation[row] as usize];
            if at == u32::MAX {
                continue;
            }
            self.seen[rank] = true;
            let node = (self.replay.nodes_of_rank(rank as u32)[0] + at) as usize;
            let count = self.replay.nodes().len();
            let step = batch.step[row] as usize;
            if step >= self.steps.len() {
                self.steps.resize_with(step + 1, || None);
            }
            let raw = self.steps[step].get_or_insert_with(|| RawStep::new(count, thread_time));
            if raw.start[node] != MISSING {
                self.duplicates += 1;
                continue;
            }
            raw.present += 1;
            raw.start[node] = batch.start_ns[row];
            raw.end[node] = batch.end_ns[row];
            if thread_time {
                raw.cpu[node] = nanos(batch.cpu_end_ns[row] - batch.cpu_start_ns[row]);
            }
        }
    }

    /// Takes what ranks worked on.
    pub(crate) fn add_work(&mut self, rows: &[StepWork]) {
        let ranks = self.manifest.schedule.world_size();
        for row in rows {
            let step = row.step as usize;
            if step >= self.work.len() {
                self.work.resize_with(step + 1, Vec::new);
            }
            if self.work[step].is_empty() {
                self.work[step] = vec![Work::default(); ranks];
            }
            self.work[step][row.rank as usize] = Work {
                tokens: row.tokens as f64,
                tokens_squared: row.tokens_squared as f64,
            };
        }
    }

    /// Makes the tables.
    ///
    /// # Errors
    /// If ranks are missing altogether, or hardly any step is complete.
    pub(crate) fn finish(mut self) -> Result<Measurements, AnalyzeError> {
        let missing = self.seen.iter().filter(|seen| !**seen).count();
        if let Some(first) = self.seen.iter().position(|seen| !seen) {
            let ranks = self.seen.len();
            return Err(AnalyzeError::MissingRanks {
                missing,
                ranks,
                first: first as u32,
            });
        }
        let nodes = self.replay.nodes().len();
        let complete = |step: &Option<RawStep>| step.as_ref().is_some_and(|s| s.present == nodes);
        // A cut step needs the end of the step before it as well.
        let first = usize::from(self.replay.is_cut());
        let used: Vec<usize> = (first..self.steps.len())
            .filter(|&step| complete(&self.steps[step]) && complete(&self.steps[step - first]))
            .collect();
        if used.len() < FEWEST_STEPS {
            let complete = self.steps.iter().filter(|step| complete(step)).count();
            return Err(AnalyzeError::TooFewSteps {
                complete,
                needed: FEWEST_STEPS + first,
            });
        }
        let incomplete = self
            .steps
            .iter()
            .filter(|step| step.is_some() && !complete(step))
            .count();
        let mut table = self.empty_table(&used, incomplete);
        self.fill(&used, &mut table);
        let has_work = used
            .iter()
            .all(|&step| self.work.get(step).is_some_and(|row| !row.is_empty()));
        if has_work {
            table.work = used
                .iter()
                .flat_map(|&step| std::mem::take(&mut self.work[step]))
                .collect();
        }
        Ok(table)
    }

    fn empty_table(&self, used: &[usize], incomplete: usize) -> Measurements {
        let (nodes, ranks) = (self.replay.nodes().len(), self.seen.len());
        let clocks = if self.manifest.clock.thread_cpu_time {
            ranks
        } else {
            0
        };
        Measurements {
            nodes,
            ranks,
            step_numbers: used.iter().map(|&step| step as u32).collect(),
            own: vec![0.0; used.len() * nodes],
            delay: vec![0.0; used.len() * nodes],
            step_time: vec![0.0; used.len()],
            begin_ns: vec![0; used.len()],
            descheduled: vec![0.0; used.len() * clocks],
            work: Vec::new(),
            incomplete,
            duplicates: self.duplicates,
        }
    }

    fn fill(&self, used: &[usize], table: &mut Measurements) {
        let nodes = table.nodes;
        let clocks = table.descheduled.len() / used.len();
        let mut descheduled: Vec<&mut [f32]> = if clocks == 0 {
            used.iter().map(|_| &mut [][..]).collect()
        } else {
            table.descheduled.chunks_mut(clocks).collect()
        };
        table
            .own
            .par_chunks_mut(nodes)
            .zip(table.delay.par_chunks_mut(nodes))
            .zip(table.step_time.par_iter_mut())
            .zip(table.begin_ns.par_iter_mut())
            .zip(descheduled.par_iter_mut())
            .zip(used.par_iter())
            .for_each(
                |(((((own, delay), step_time), begin_ns), descheduled), &step)| {
                    let view = self.view(step);
                    *step_time = view.step_time();
                    *begin_ns = view.begin();
                    view.own_times(own);
                    view.delays(delay);
                    view.descheduled(descheduled);
                },
            );
        if self.manifest.clock.basis == TimeBasis::Virtual {
            table.delay.fill(0.0);
        }
    }

    /// Whether ranks talk over a network. Then the transfer of a meeting takes time that no
    /// processor spends, and is believed also where ranks share processors.
    fn has_network(&self) -> bool {
        self.manifest
            .hosts
            .iter()
            .filter(|host| !host.emulated)
            .count()
            > 1
    }

    fn view(&self, step: usize) -> StepView<'_> {
        let this = self.steps[step]
            .as_ref()
            .expect("only complete steps are viewed");
        let before = if self.replay.is_cut() {
            self.steps[step - 1].as_ref()
        } else {
            None
        };
        StepView {
            intake: self,
            this,
            before,
        }
    }
}

impl RawStep {
    fn new(nodes: usize, thread_time: bool) -> Self {
        Self {
            start: vec![MISSING; nodes].into(),
            end: vec![MISSING; nodes].into(),
            cpu: vec![0.0; if thread_time { nodes } else { 0 }].into(),
            present: 0,
        }
    }
}

/// One complete step, and the step before it where the step is cut.
struct StepView<'a> {
    intake: &'a Intake<'a>,
    this: &'a RawStep,
    before: Option<&'a RawStep>,
}

impl StepView<'_> {
    /// The raw step that holds a node's times.
    fn raw(&self, node: usize) -> &RawStep {
        match self.before {
            Some(before) if self.intake.replay.nodes()[node].carried => before,
            _ => self.this,
        }
    }

    /// End of what comes before the cut, in one raw step.
    fn cut_end(&self, raw: &RawStep) -> i64 {
        let nodes = self.intake.replay.nodes();
        let ends = nodes.iter().zip(&raw.end).filter(|(node, _)| !node.carried);
        ends.map(|(_, end)| *end).max().unwrap_or(0)
    }

    /// When the step began: at the cut of the step before, or with its first node.
    fn begin(&self) -> i64 {
        match self.before {
            Some(before) => self.cut_end(before),
            None => self.this.start.iter().copied().min().unwrap_or(0),
        }
    }

    fn step_time(&self) -> f64 {
        (self.cut_end(self.this) - self.begin()) as f64 * 1e-9
    }

    fn own_times(&self, own: &mut [f32]) {
        let virtual_time = self.intake.manifest.clock.basis == TimeBasis::Virtual;
        for (node, own) in own.iter_mut().enumerate() {
            let raw = self.raw(node);
            *own = if virtual_time {
                raw.cpu[node]
            } else {
                nanos(raw.end[node] - raw.start[node])
            };
        }
        if virtual_time && !self.intake.has_network() {
            return;
        }
        for members in self.intake.replay.meetings() {
            let arrival = |&node: &u32| self.raw(node as usize).start[node as usize];
            let last = members.iter().map(arrival).max().unwrap_or(0);
            for &node in members {
                let end = self.raw(node as usize).end[node as usize];
                own[node as usize] = nanos((end - last).max(0));
            }
        }
    }

    fn delays(&self, delay: &mut [f32]) {
        let begin = self.begin();
        for (node, delay) in delay.iter_mut().enumerate() {
            let end = |&before: &u32| self.raw(before as usize).end[before as usize];
            let ready = self
                .intake
                .replay
                .predecessors(node as u32)
                .iter()
                .map(end)
                .max();
            let start = self.raw(node).start[node];
            *delay = nanos((start - ready.unwrap_or(begin)).max(0));
        }
    }

    fn descheduled(&self, share: &mut [f32]) {
        let schedule = &self.intake.manifest.schedule;
        for (rank, share) in share.iter_mut().enumerate() {
            let (mut wall, mut cpu) = (0.0, 0.0);
            for &node in self.intake.replay.nodes_of_rank(rank as u32) {
                let operation = self.intake.replay.nodes()[node as usize].operation as usize;
                if schedule.operations[operation].kind == OperationKind::Compute {
                    let raw = self.raw(node as usize);
                    wall += nanos(raw.end[node as usize] - raw.start[node as usize]);
                    cpu += raw.cpu[node as usize];
                }
            }
            *share = if wall > 0.0 {
                (1.0 - cpu / wall).max(0.0)
            } else {
                0.0
            };
        }
    }
}

fn nanos(nanos: i64) -> f32 {
    (nanos as f64 * 1e-9) as f32
}
