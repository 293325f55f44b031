//! One rank: its host thread, which prepares input, issues every operation of the step in the
//! schedule's order, waits for the last and hands the stamps to the recorder.

mod probe;
mod soak;

pub use probe::{StepOperation, StepProbe, probe_steps};
pub(crate) use soak::Outlook;

use crate::MeasureError;
use crate::batches::Batches;
use crate::groups::Groups;
use crate::inject::Slowness;
use crate::input::Embedding;
use crate::job::Job;
use crate::memory::Memory;
use crate::network::{Batch, Network};
use crate::program::{Action, Item, Program, Work};
use laggard_backend::{
    BackendError, Call, Kernel, Launch, QueueId, Reading, TaggedStamp, Task, Token, World,
    bind_thread, burn,
};
use laggard_record::{RankRecorder, Sample, StepWork};
use laggard_types::{FlopPerSecond, Rank};
use std::sync::Arc;
use std::time::Duration;

/// Step size of the optimizer: so small that hundreds of thousands of steps leave parameters, and
/// with them activations, at the size that they begin with.
const LEARNING_RATE: f64 = 1e-6;
/// Adam's decay rates, for its bias correction. Source: Kingma and Ba 2015, section 2.
const BETA: (f64, f64) = (0.9, 0.999);

/// A rank that is ready to run steps.
pub(crate) struct RankRunner<'a> {
    job: &'a Job,
    rank: Rank,
    world: World,
    network: Network,
    program: Program,
    embedding: Embedding,
    /// Rate at which pauses are counted in FLOP.
    peak: FlopPerSecond,
    class_scale: f64,
    groups: Groups,
    batches: Batches,
    /// The micro-batches of the step at hand.
    batch: Vec<Batch>,
    /// Tokens of the items issued so far; `None` for work of the host.
    tokens: Vec<Option<Token>>,
    after: Vec<Token>,
    stamps: Vec<TaggedStamp>,
    /// Those of the host's own work.
    host_stamps: Vec<TaggedStamp>,
    input: Vec<f32>,
}

impl<'a> RankRunner<'a> {
    /// Sets a rank up on the calling thread, which becomes its host thread, and waits for the
    /// other ranks to have done the same.
    ///
    /// # Errors
    /// [`MeasureError::Start`] if the machine refuses a thread, a binding or memory, or another
    /// rank does not come.
    pub(crate) fn start(
        job: &'a Job,
        rank: Rank,
        world: World,
        embedding: Embedding,
        peak: FlopPerSecond,
    ) -> Result<Self, MeasureError> {
        let start = |source| MeasureError::Start { rank, source };
        bind_thread(job.processor_of(rank)).map_err(start)?;
        let portion = job.portion(rank)?;
        let device = world.device.as_ref();
        let memory = Memory::allocate(device, &portion, job.capacity(rank)).map_err(start)?;
        memory
            .initialize(&portion, job.settings.seed)
            .map_err(start)?;
        let network = Network::new(portion, memory);
        let batches = job.batches(rank);
        let nominal = batches.nominal();
        let program = Program::new(&job.schedule, rank, &network, device, &nominal)?;
        let mut runner = Self {
            job,
            rank,
            network,
            embedding,
            peak,
            class_scale: job.class_scale(rank),
            groups: Groups::new(&job.schedule, rank, &world)?,
            batches,
            batch: nominal,
            tokens: Vec::with_capacity(program.items.len()),
            after: Vec::new(),
            stamps: Vec::with_capacity(program.items.len()),
            host_stamps: Vec::new(),
            input: Vec::new(),
            program,
            world,
        };
        runner.meet().map_err(start)?;
        Ok(runner)
    }

    /// Runs one step and records it, by a clock that has stood still for so many nanoseconds.
    ///
    /// # Errors
    /// [`MeasureError::Operation`] naming the operation that failed or did not end in time.
    pub(crate) fn step(
        &mut self,
        step: u32,
        still_ns: i64,
        recorder: &mut RankRecorder,
    ) -> Result<(), MeasureError> {
        self.execute(step)?;
        for stamped in self.host_stamps.iter().chain(&self.stamps) {
            let operation = stamped.tag as u32;
            let mut stamp = stamped.stamp;
            stamp.start_ns -= still_ns;
            stamp.end_ns -= still_ns;
            recorder.push(Sample {
                rank: self.rank,
                step,
                operation,
                stamp,
            });
        }
        let sequences = i64::from(self.job.settings.micro_batch_sequences);
        let lengths = || self.batch.iter().map(|batch| batch.tokens.length as i64);
        recorder.push_step(StepWork {
            rank: self.rank,
            step,
            tokens: sequences * lengths().sum::<i64>(),
            tokens_squared: sequences * lengths().map(|length| length * length).sum::<i64>(),
        });
        Ok(())
    }

    /// Runs one step, which leaves its stamps.
    fn execute(&mut self, step: u32) -> Result<(), MeasureError> {
        let slowness = self.job.injector.slowness(self.rank, step);
        if self.job.injector.is_ragged() {
            self.batch = self.batches.of_step(&self.job.injector, step);
        }
        self.tokens.clear();
        self.host_stamps.clear();
        for position in 0..self.program.items.len() {
            let token = self
                .issue(position, step, slowness)
                .map_err(|source| self.failed(position, step, source))?;
            self.tokens.push(token);
        }
        self.finish(step)
    }

    /// The rank's model.
    #[cfg(test)]
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Issues one operation, or does it where it is the host's.
    fn issue(
        &mut self,
        position: usize,
        step: u32,
        slowness: Slowness,
    ) -> Result<Option<Token>, BackendError> {
        self.after.clear();
        let item = &self.program.items[position];
        self.after
            .extend(item.after.iter().filter_map(|before| self.tokens[*before]));
        let is_ragged = self.job.injector.is_ragged();
        let changed = is_ragged.then_some(item.micro_batch).flatten();
        match &item.action {
            Action::Input => {
                let tag = u64::from(item.operation);
                let stamp = self.prepare(step, slowness)?;
                self.host_stamps.push(TaggedStamp { tag, stamp });
                Ok(None)
            }
            Action::Compute {
                queue,
                work,
                kernels,
            } => {
                let kernels = match (work, changed) {
                    (Work::Optimizer, _) => self.network.optimizer(learning_rate(step))?.into(),
                    (_, None) => Arc::clone(kernels),
                    (_, Some(changed)) => work.kernels(&self.network, &self.batch[changed])?,
                };
                self.launch(item, *queue, kernels, slowness.factor(item.phase))
                    .map(Some)
            }
            Action::Meet {
                queue,
                axis,
                exchange,
                call,
            } => {
                let call = match changed {
                    None => call.clone(),
                    Some(changed) => exchange.call(&self.network, &self.batch[changed])?,
                };
                let launch = Launch {
                    queue: *queue,
                    after: &self.after,
                    tag: u64::from(item.operation),
                };
                let group = self.groups.on(*axis, &self.world);
                let group = group.ok_or_else(|| BackendError::Unknown {
                    what: format!("rank {}'s group on axis {axis}", self.rank),
                })?;
                group.enqueue(call, launch).map(Some)
            }
        }
    }

    fn launch(
        &self,
        item: &Item,
        queue: QueueId,
        kernels: Arc<[Kernel]>,
        factor: f64,
    ) -> Result<Token, BackendError> {
        let task = Task {
            kernels,
            work_scale: self.class_scale * factor,
            extra_flop: 0,
        };
        let launch = Launch {
            queue,
            after: &self.after,
            tag: u64::from(item.operation),
        };
        self.world.device.enqueue(&task, launch)
    }

    /// The host operation: input of all micro-batches, and a pause where one is due.
    fn prepare(
        &mut self,
        step: u32,
        slowness: Slowness,
    ) -> Result<laggard_types::Stamp, BackendError> {
        for token in &self.after {
            self.world.device.wait(*token, self.job.settings.timeout)?;
        }
        let begin = Reading::begin()?;
        if self
            .network
            .portion()
            .chunks
            .iter()
            .any(|layers| layers.start == 0)
        {
            for batch in &self.batch {
                self.embedding
                    .prepare(&self.network, batch, step, &mut self.input)?;
            }
        }
        burn((self.peak.0 * slowness.pause_s) as u64);
        begin.end()
    }

    /// Waits for the end of the step, and collects its stamps.
    fn finish(&mut self, step: u32) -> Result<(), MeasureError> {
        let device = &self.world.device;
        for queue in &self.program.queues {
            let on_queue = |token: &&Option<Token>| token.is_some_and(|it| it.queue == *queue);
            let Some(Some(last)) = self.tokens.iter().rev().find(on_queue) else {
                continue;
            };
            if let Err(source) = device.wait(*last, self.job.settings.timeout) {
                return Err(self.unfinished(step, source));
            }
        }
        self.stamps.clear();
        for queue in &self.program.queues {
            if let Err(source) = device.drain(*queue, &mut self.stamps) {
                return Err(self.failed(0, step, source));
            }
        }
        Ok(())
    }

    /// The error of a wait, with the first operation that failed or has not ended.
    fn unfinished(&self, step: u32, waited: BackendError) -> MeasureError {
        for (position, token) in self.tokens.iter().enumerate() {
            let Some(token) = *token else { continue };
            match self.world.device.poll(token) {
                Ok(false) => {
                    return self.failed(position, step, self.who_is_missing(token, waited));
                }
                Err(source) => return self.failed(position, step, source),
                Ok(true) => {}
            }
        }
        self.failed(self.tokens.len().saturating_sub(1), step, waited)
    }

    /// The wait that ran out may have been for work behind the one that hangs; only the queue of
    /// that one knows whom it waits for.
    fn who_is_missing(&self, hangs: Token, waited: BackendError) -> BackendError {
        match self.world.device.wait(hangs, Duration::ZERO) {
            Err(BackendError::Timeout {
                rank,
                waiting_for,
                missing,
                ..
            }) => {
                let waited = self.job.settings.timeout;
                BackendError::Timeout {
                    rank,
                    waited,
                    waiting_for,
                    missing,
                }
            }
            Err(other) => other,
            Ok(()) => waited,
        }
    }

    fn failed(&self, position: usize, step: u32, source: BackendError) -> MeasureError {
        let id = self.program.items[position].operation;
        let operation = self.job.schedule.operations[id as usize].name.clone();
        MeasureError::Operation {
            rank: self.rank,
            step,
            operation,
            source: Box::new(source),
        }
    }

    /// Waits until all ranks are set up, so that the first step does not measure that.
    fn meet(&mut self) -> Result<(), BackendError> {
        let Some(queue) = self.program.queues.first().copied() else {
            return Ok(());
        };
        let launch = Launch {
            queue,
            after: &[],
            tag: 0,
        };
        let token = self.world.data.enqueue(Call::Barrier, launch)?;
        self.world.device.wait(token, self.job.settings.timeout)?;
        self.world.device.drain(queue, &mut self.stamps)?;
        self.stamps.clear();
        Ok(())
    }
}

/// The optimizer's step size with Adam's bias correction (Kingma and Ba 2015, end of section 2).
pub(crate) fn learning_rate(step: u32) -> f32 {
    let updates = f64::from(step) + 1.0;
    let (first, second) = (1.0 - BETA.0.powf(updates), 1.0 - BETA.1.powf(updates));
    (LEARNING_RATE * second.sqrt() / first) as f32
}

#[cfg(test)]
mod tests;
