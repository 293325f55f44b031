//! One rank at its queues: calls that are timed by the device's own stamps, and what the ranks
//! agree on between them. Knows no sizes and no figures.

use super::point::Step;
use laggard_backend::{
    BackendError, Call, Launch, QueueId, TaggedStamp, Task, Token, World, messenger,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Stamps of what is not timed.
const UNTIMED: u64 = 0;

/// One rank.
pub(super) struct Seat<'a> {
    pub world: &'a World,
    /// Everything but receives of [`Step::PassOn`].
    pub queue: QueueId,
    receives: QueueId,
    pub timeout: Duration,
    /// What this rank does before each call, if it comes late.
    pub late: Option<Task>,
    stamps: Vec<TaggedStamp>,
}

/// What is between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    /// A barrier before each.
    Barrier,
    /// A barrier before the first, then nothing.
    BackToBack,
}

impl<'a> Seat<'a> {
    pub(super) fn new(world: &'a World, timeout: Duration) -> Result<Self, BackendError> {
        Ok(Self {
            queue: world.device.create_queue("bench")?,
            receives: world.device.create_queue("bench-receive")?,
            world,
            timeout,
            late: None,
            stamps: Vec::new(),
        })
    }

    /// Makes calls that take turns among steps, and says when each began and ended here, on this
    /// rank's own clock. Collective.
    pub(super) fn calls(
        &mut self,
        steps: &[Step],
        count: u32,
        spacing: Spacing,
    ) -> Result<Vec<[i64; 2]>, BackendError> {
        let mut last: [Option<Token>; 2] = [None, None];
        for (number, step) in (1..=u64::from(count)).zip(steps.iter().cycle()) {
            if number == 1 || spacing == Spacing::Barrier {
                last[0] = Some(self.barrier(last[1])?);
                self.come_late()?;
            }
            match step {
                Step::Meet(call) => last[0] = Some(self.call(call, (self.queue, number), &[])?),
                Step::PassOn { send, receive } => {
                    let begun: Vec<Token> = last[0].into_iter().collect();
                    last[1] = Some(self.call(receive, (self.receives, number), &begun)?);
                    last[0] = Some(self.call(send, (self.queue, number), &[])?);
                }
            }
        }
        for token in last.into_iter().flatten() {
            // So many calls may take so many times as long as one, each of which has its own limit.
            let all = self.timeout.saturating_mul(count.max(1));
            self.world.device.wait(token, all)?;
        }
        self.intervals(count)
    }

    /// Executes a task so many times, after a barrier each; stamps of each, in order. Collective.
    pub(super) fn tasks(
        &mut self,
        tasks: &[Task],
        count: u32,
    ) -> Result<Vec<TaggedStamp>, BackendError> {
        let mut last = None;
        for (number, task) in (1..=u64::from(count)).zip(tasks.iter().cycle()) {
            self.barrier(None)?;
            let launch = self.launch(self.queue, number, &[]);
            last = Some(self.world.device.enqueue(task, launch)?);
        }
        if let Some(last) = last {
            let all = self.timeout.saturating_mul(count.max(1));
            self.world.device.wait(last, all)?;
        }
        self.stamps.clear();
        self.world.device.drain(self.queue, &mut self.stamps)?;
        let timed = self.stamps.iter().filter(|it| it.tag != UNTIMED);
        Ok(timed.copied().collect())
    }

    /// One call on the usual queue, waited for.
    pub(super) fn once(&mut self, call: &Call) -> Result<[i64; 2], BackendError> {
        let token = self.call(call, (self.queue, 1), &[])?;
        self.world.device.wait(token, self.timeout)?;
        let interval = self.intervals(1)?;
        Ok(interval.first().copied().unwrap_or_default())
    }

    /// Rank 0's number, on all ranks. Collective.
    pub(super) fn agree(&self, number: u64) -> Result<u64, BackendError> {
        let messenger = &*self.world.messenger;
        let deadline = Instant::now() + self.timeout;
        let told = messenger::broadcast(messenger, &number.to_le_bytes(), deadline)?;
        Ok(told.as_slice().try_into().map_or(0, u64::from_le_bytes))
    }

    fn barrier(&self, after: Option<Token>) -> Result<Token, BackendError> {
        let after: Vec<Token> = after.into_iter().collect();
        self.call(&Call::Barrier, (self.queue, UNTIMED), &after)
    }

    fn come_late(&self) -> Result<(), BackendError> {
        let Some(task) = &self.late else {
            return Ok(());
        };
        let launch = self.launch(self.queue, UNTIMED, &[]);
        self.world.device.enqueue(task, launch).map(|_| ())
    }

    fn call(
        &self,
        call: &Call,
        (queue, tag): (QueueId, u64),
        after: &[Token],
    ) -> Result<Token, BackendError> {
        let launch = self.launch(queue, tag, after);
        self.world.data.enqueue(call.clone(), launch)
    }

    fn launch<'b>(&self, queue: QueueId, tag: u64, after: &'b [Token]) -> Launch<'b> {
        Launch { queue, after, tag }
    }

    /// Begin and end of each timed call, over both queues.
    fn intervals(&mut self, count: u32) -> Result<Vec<[i64; 2]>, BackendError> {
        self.stamps.clear();
        for queue in [self.queue, self.receives] {
            self.world.device.drain(queue, &mut self.stamps)?;
        }
        let mut intervals = vec![[i64::MAX, i64::MIN]; count as usize];
        for TaggedStamp { tag, stamp } in &self.stamps {
            let at = usize::try_from(*tag).unwrap_or(0).checked_sub(1);
            if let Some([begin, end]) = at.and_then(|at| intervals.get_mut(at)) {
                *begin = stamp.start_ns.min(*begin);
                *end = stamp.end_ns.max(*end);
            }
        }
        Ok(intervals)
    }
}

/// Arithmetic without a result, under one stamp.
pub(super) fn burn_task(extra_flop: u64) -> Task {
    Task {
        kernels: Arc::from([]),
        work_scale: 1.0,
        extra_flop,
    }
}
