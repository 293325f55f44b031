//! Putting work on a stream: what it waits for, a stamp, the work, a stamp, and the event that
//! marks its end.

use super::engine::issue_own;
use super::events::Mark;
use super::lane::{Cargo, Flight, Lane};
use super::lower::{Lowering, Refusal, Step, scratch_bytes};
use super::memory::RawMemory;
use super::shared::Shared;
use super::slots::Slot;
use crate::{Argument, CudaError, KernelLaunch, Module};
use cudarc::driver::CudaStream;
use laggard_backend::{BackendError, Launch, Repeats, Task, Token};
use std::sync::Arc;

/// Puts onto a queue's stream what runs between the stamps of a slot.
pub(super) type Body<'a> = &'a mut dyn FnMut(&Lane, &Slot) -> Result<(), BackendError>;

impl Shared {
    /// Enqueues a task that was checked.
    pub(super) fn enqueue(
        self: &Arc<Self>,
        task: &Task,
        launch: Launch<'_>,
    ) -> Result<Token, BackendError> {
        let lane = self.lane(launch.queue)?;
        let scratch = lane.scratch(scratch_bytes(task), |bytes| {
            RawMemory::new(self.gpu.context(), &self.whose, bytes)
        })?;
        let steps = self.steps(task, scratch.as_ref().map_or(0, |it| it.address()))?;
        let spin = self.spin(task.extra_flop)?;
        let cargo = Cargo {
            task: Some(task.clone()),
            scratch,
            ..Cargo::default()
        };
        self.put(launch, None, cargo, &mut |lane, slot| {
            for step in &steps {
                let issued = self.step(step, &lane.stream);
                issued.map_err(|error| self.refusal("launching a kernel", &error))?;
            }
            let Some(cycles) = spin else { return Ok(()) };
            let [_, _, spent] = slot.addresses();
            let spun = self.spin_on(&lane.stream, cycles, spent);
            spun.map_err(|error| self.refusal("launching a kernel", &error))
        })
    }

    /// Has engines take what they need for these launches on a stream.
    pub(super) fn prepare(
        &self,
        steps: &[Step],
        stream: &Arc<CudaStream>,
    ) -> Result<(), BackendError> {
        let has_products = steps.iter().any(|step| matches!(step, Step::Product(..)));
        for engine in self.options.engines.iter().filter(|_| has_products) {
            let prepared = engine.prepare(stream);
            prepared.map_err(|error| self.refusal("preparing a product", &error))?;
        }
        Ok(())
    }

    /// Puts launches onto a stream that is being captured.
    pub(super) fn launch_all(
        &self,
        steps: &[Step],
        stream: &Arc<CudaStream>,
    ) -> Result<(), BackendError> {
        for step in steps {
            let issued = self.step(step, stream);
            issued.map_err(|error| self.refusal("capturing a kernel", &error))?;
        }
        Ok(())
    }

    /// Memory beside its results that a task needs; `None` if it needs none.
    pub(super) fn scratch(&self, task: &Task) -> Result<Option<RawMemory>, BackendError> {
        let bytes = scratch_bytes(task);
        let memory = RawMemory::new(self.gpu.context(), &self.whose, bytes)?;
        Ok((bytes > 0).then_some(memory))
    }

    /// Launches of all kernels of a task.
    pub(super) fn steps(
        self: &Arc<Self>,
        task: &Task,
        scratch: u64,
    ) -> Result<Vec<Step>, BackendError> {
        let mut lowering = Lowering {
            place: self.gpu.place(),
            modules: &self.modules,
            address: &|slice| self.address(slice),
            scratch,
            steps: Vec::with_capacity(task.kernels.len()),
        };
        let repeats = Repeats::of(task.work_scale);
        for (at, kernel) in task.kernels.iter().enumerate() {
            let lowered = lowering.kernel(kernel, repeats);
            lowered.map_err(|refusal| match refusal {
                Refusal::Backend(error) => error,
                Refusal::Invalid(why) => BackendError::Invalid {
                    rank: self.whose.rank,
                    call: format!("kernel {at} ({})", kernel.name()),
                    why,
                },
            })?;
        }
        Ok(lowering.steps)
    }

    /// Cycles that the arithmetic of a task beside its kernels takes.
    fn spin(&self, extra_flop: u64) -> Result<Option<u64>, BackendError> {
        if extra_flop == 0 {
            return Ok(None);
        }
        match self.pace.get() {
            Some(pace) => Ok(Some(pace.cycles(extra_flop))),
            None => Err(BackendError::Invalid {
                rank: self.whose.rank,
                call: "task".to_owned(),
                why: "extra_flop on a GPU whose peak was not measured".to_owned(),
            }),
        }
    }

    fn step(&self, step: &Step, stream: &Arc<CudaStream>) -> Result<(), CudaError> {
        match step {
            Step::Launch(launch) => self.gpu.enqueue(launch, stream),
            Step::Product(product, operands) => {
                for engine in &self.options.engines {
                    if engine.issue(product, *operands, stream)? {
                        return Ok(());
                    }
                }
                issue_own(&self.gpu, &self.modules, (product, *operands), stream)
            }
        }
    }

    /// Keeps all multiprocessors busy for so many cycles.
    pub(super) fn spin_on(
        &self,
        stream: &CudaStream,
        cycles: u64,
        spent: u64,
    ) -> Result<(), CudaError> {
        let launch = KernelLaunch {
            module: Module::Clock,
            entry: "spin",
            blocks: self.gpu.place().multiprocessors.max(1),
            threads: 1,
            shared_bytes: 0,
            arguments: vec![Argument::U64(cycles), Argument::U64(spent)],
        };
        self.gpu.enqueue(&launch, stream)
    }

    /// Enqueues work of any kind; `order_after` must be complete before, failed or not.
    pub(super) fn put(
        &self,
        launch: Launch<'_>,
        order_after: Option<Token>,
        cargo: Cargo,
        body: Body<'_>,
    ) -> Result<Token, BackendError> {
        let lane = self.lane(launch.queue)?;
        let before = || launch.after.iter().copied().chain(order_after);
        for token in before() {
            self.lane_of(token)?;
        }
        let turn = lane.turn();
        if let Some(error) = self.reason_against(&lane, launch.after) {
            let token = lane.refuse(error.clone());
            drop(turn);
            if let Some(meeting) = cargo.meeting {
                meeting.give_up(&error.to_string());
            }
            return Ok(token);
        }
        let is_elsewhere = |token: &Token| token.queue != launch.queue;
        let ends = self.ends(before().filter(is_elsewhere));
        match self.issue(&lane, &ends, body) {
            Ok((slot, end)) => Ok(lane.take_off(Flight {
                tag: launch.tag,
                after: launch.after.iter().copied().filter(is_elsewhere).collect(),
                cargo,
                slot,
                end,
            })),
            Err(error) => {
                lane.wreck(cargo, error.clone());
                Err(error)
            }
        }
    }

    /// The failure that work would begin with.
    fn reason_against(&self, lane: &Lane, after: &[Token]) -> Option<BackendError> {
        let inherited = || after.iter().find_map(|token| self.failure_of(*token));
        self.is_over()
            .or_else(|| lane.failure(u64::MAX))
            .or_else(inherited)
    }

    fn issue(
        &self,
        lane: &Lane,
        ends: &[Arc<Mark>],
        body: Body<'_>,
    ) -> Result<(Slot, Arc<Mark>), BackendError> {
        let slot = self.slots.take()?;
        match self.stamped(lane, ends, &slot, body) {
            Ok(end) => Ok((slot, end)),
            Err(error) => {
                // The stream may still come to the first stamp.
                std::mem::forget(slot);
                Err(error)
            }
        }
    }

    /// Puts work on a lane's stream between two stamps.
    fn stamped(
        &self,
        lane: &Lane,
        ends: &[Arc<Mark>],
        slot: &Slot,
        body: Body<'_>,
    ) -> Result<Arc<Mark>, BackendError> {
        let [begin, end, _] = slot.addresses();
        for mark in ends {
            mark.hold(&lane.stream).map_err(|error| {
                self.is_lost("waiting for other work", error);
                self.whose.failed("waiting for other work")(error)
            })?;
        }
        let stamp = |at| {
            let stamped = self.gpu.stamp(at, &lane.stream);
            stamped.map_err(|error| self.refusal("stamping work", &error))
        };
        stamp(begin)?;
        body(lane, slot)?;
        stamp(end)?;
        self.events.record(&lane.stream)
    }

    fn refusal(&self, doing: &str, error: &CudaError) -> BackendError {
        self.whose.refused(doing, error)
    }
}
