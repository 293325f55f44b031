//! The thread of a lane: makes the calls that could not be made at once, and ends the lane.

use super::{Job, Jobs, LONGEST_PAUSE, Lane, Route};
use crate::communicator::group::{Matter, Visit};
use crate::communicator::line::Line;
use crate::communicator::words::copy;
use crate::nccl::Progress;
use laggard_backend::agreement::{CallWords, disagreement, mixed, signature};
use laggard_backend::{BackendError, Call, Slice, Token};
use laggard_types::{DataType, Rank};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a communicator that nobody uses may take to be freed in an orderly way.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a rank gives up when its communicator goes away before its calls are done.
const DROPPED: &str = "its communicator was dropped";

/// What the thread does next.
enum Work {
    Call(Job),
    /// A message of this rank to itself.
    Copy {
        send: Job,
        receive: Job,
    },
}

impl Lane {
    /// Gives a call to the lane's thread.
    pub(super) fn hand_over(self: &Arc<Self>, job: Job) -> Result<(), BackendError> {
        self.start()?;
        let mut jobs = self.jobs();
        let is_receive = matches!(job.call.visit.call, Call::Receive { .. });
        match self.route {
            Route::Own if is_receive => jobs.receives.push_back(job),
            _ => jobs.waiting.push_back(job),
        }
        self.bell.notify_all();
        Ok(())
    }

    /// Starts the thread where it does not run.
    fn start(self: &Arc<Self>) -> Result<(), BackendError> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_none() {
            let lane = Arc::clone(self);
            let rank = self.group.own_job_rank();
            let thread = std::thread::Builder::new().name(format!("r{rank}-nccl"));
            let thread = thread.spawn(move || lane.work());
            *worker = Some(thread.map_err(|error| BackendError::System {
                what: "starting a thread".to_owned(),
                why: error.to_string(),
            })?);
        }
        Ok(())
    }

    pub(super) fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let is_current = self.tools.device.make_current();
        while let Some(work) = self.next() {
            let outcome = is_current.clone().and_then(|()| self.carry_out(&work));
            if let Err(error) = outcome {
                let (Work::Call(job) | Work::Copy { receive: job, .. }) = &work;
                if let Work::Copy { send, .. } = &work {
                    self.tools.device.fail(send.token, error.clone());
                }
                self.stop(job.token, &error);
            }
            self.jobs().is_at_work = false;
        }
    }

    fn next(&self) -> Option<Work> {
        let mut jobs = self.jobs();
        loop {
            if jobs.is_closed {
                return None;
            }
            let work = match self.route {
                Route::Own if jobs.waiting.is_empty() || jobs.receives.is_empty() => None,
                Route::Own => {
                    let send = jobs.waiting.pop_front();
                    let both = send.zip(jobs.receives.pop_front());
                    both.map(|(send, receive)| Work::Copy { send, receive })
                }
                _ => jobs.waiting.pop_front().map(Work::Call),
            };
            if work.is_some() {
                jobs.is_at_work = true;
                return work;
            }
            let waited = self.bell.wait(jobs);
            jobs = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn carry_out(&self, work: &Work) -> Result<(), BackendError> {
        self.group.check()?;
        let stream = self.raw_stream();
        match work {
            Work::Call(job) => {
                let visit = &job.call.visit;
                if self.comm.get().is_none() {
                    let connected = self.connect();
                    connected.map_err(|error| self.late(error, visit))?;
                }
                if self.group.settings.check_calls {
                    self.agree(visit)?;
                }
                self.line.follow(stream, visit.number)?;
                self.launch(&job.call, stream)?;
                self.line.complete(stream, visit.number)
            }
            Work::Copy { send, receive } => {
                let lines: [(&Line, &Job); 2] = [
                    (&send.call.visit.line, send),
                    (&receive.call.visit.line, receive),
                ];
                let [from, to] = lines.map(|(_, job)| &job.call.visit);
                let bytes = fits(from, to)?;
                for (line, job) in lines {
                    line.follow(stream, job.call.visit.number)?;
                }
                if bytes > 0 {
                    let places = (send.call.addresses[0], receive.call.addresses[1]);
                    copy(self.group.own_job_rank(), places, bytes, stream)?;
                }
                for (line, job) in lines {
                    line.complete(stream, job.call.visit.number)?;
                }
                Ok(())
            }
        }
    }

    /// Compares this rank's call with those of the lane's other ranks. All come to one verdict.
    fn agree(&self, visit: &Visit) -> Result<(), BackendError> {
        let Some((signature, members, matter)) = self.terms(visit) else {
            return Ok(());
        };
        let own = self.group.own_job_rank();
        let position = members.iter().position(|member| *member == own);
        let rank = Rank::try_from(position.unwrap_or(0)).unwrap_or(0);
        let mut message = signature.to_le_bytes().to_vec();
        message.extend(CallWords::of(&visit.call).encode());
        let deadline = self.group.settings.deadline();
        let all = self
            .group
            .exchange((&members, rank), matter, &message, deadline);
        let all = all.map_err(|error| self.late(error, visit))?;
        let said = all.iter().filter_map(|message| {
            let (signature, words) = message.split_first_chunk()?;
            Some((u64::from_le_bytes(*signature), CallWords::decode(words)?))
        });
        let (signatures, calls): (Vec<u64>, Vec<CallWords>) = said.unzip();
        let Some(other) = disagreement(rank, &signatures, &calls) else {
            return Ok(());
        };
        let (Some(call), Some(member)) = (calls.get(other as usize), members.get(other as usize))
        else {
            return Ok(());
        };
        Err(BackendError::Mismatch {
            rank: own,
            call: visit.what.clone(),
            other: *member,
            other_call: call.call.clone(),
        })
    }

    /// What must be the same on some ranks of the job for a call to be made.
    fn terms(&self, visit: &Visit) -> Option<(u64, Vec<Rank>, Matter)> {
        let number = u64::from(visit.number);
        match (self.route, &visit.call) {
            (Route::Collectives, call) => {
                let members = self.group.members.clone();
                Some((signature(call), members, Matter::Collective(number)))
            }
            (
                Route::Pair { from, to },
                Call::Send { buffer, .. } | Call::Receive { buffer, .. },
            ) => {
                let members = [from, to].map(|rank| self.group.job_rank(rank)).to_vec();
                let matter = Matter::Message(from, to, number);
                Some((terms_of_message(buffer), members, matter))
            }
            _ => None,
        }
    }

    fn late(&self, error: BackendError, visit: &Visit) -> BackendError {
        self.group.late(error, &visit.what, || visit.absent())
    }

    /// Stops the lane and its group, because of a call that went wrong.
    pub(crate) fn stop(&self, token: Token, error: &BackendError) {
        tracing::debug!(rank = self.group.own_job_rank(), %error, "a call failed");
        // First what is to be told of this call: giving up may abort the world.
        self.tools.device.fail(token, error.clone());
        match error {
            // Every member finds it by itself, so nobody needs to be told.
            BackendError::Mismatch { .. } => self.group.fail(error),
            _ => self.group.give_up(&error.to_string()),
        }
        self.let_go();
    }

    /// Ends what NCCL does here and lets all streams go on, once the group has failed.
    pub(crate) fn let_go(&self) {
        if let Some(comm) = self.comm.get() {
            comm.abort();
        }
        self.lines().for_each(|line| line.open());
    }

    /// Ends the lane: nobody will enqueue calls any more.
    pub(crate) fn close(&self) {
        let is_idle = self.lines().all(|line| line.first().is_none());
        if !is_idle {
            self.group.give_up(DROPPED);
        }
        self.jobs().is_closed = true;
        self.bell.notify_all();
        if self.group.check().is_err() {
            self.let_go();
        }
        let worker = self
            .worker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if worker.is_some_and(|worker| worker.join().is_err()) {
            tracing::error!("a thread of NCCL's calls panicked");
        }
        self.free();
        self.lines().for_each(|line| line.clear());
    }

    /// Frees the communicator: in an orderly way if the other ranks do so too, else by force.
    fn free(&self) {
        let Some(comm) = self.comm.get().filter(|_| self.group.check().is_ok()) else {
            return self.let_go();
        };
        let deadline = Instant::now() + FAREWELL;
        let mut is_finalized = comm.finalize().map(|()| Progress::InProgress);
        while is_finalized == Ok(Progress::InProgress) && Instant::now() < deadline {
            is_finalized = comm.progress();
            if is_finalized == Ok(Progress::InProgress) {
                std::thread::sleep(LONGEST_PAUSE);
            }
        }
        match is_finalized {
            Ok(Progress::Done) => comm.destroy(),
            _ => comm.abort(),
        }
    }
}

/// What sender and receiver must agree on.
fn terms_of_message(slice: &Slice) -> u64 {
    let data_type = DataType::ALL
        .iter()
        .position(|data_type| *data_type == slice.data_type());
    mixed(&[data_type.unwrap_or(0) as u64, slice.len as u64])
}

/// Bytes of a message of this rank to itself, if what is received is what is sent.
fn fits(from: &Visit, to: &Visit) -> Result<usize, BackendError> {
    let (
        Call::Send { buffer: sent, .. },
        Call::Receive {
            buffer: received, ..
        },
    ) = (&from.call, &to.call)
    else {
        return Ok(0);
    };
    if (sent.len, sent.data_type()) != (received.len, received.data_type()) {
        let rank = from.group.own_job_rank();
        return Err(BackendError::Mismatch {
            rank,
            call: from.what.clone(),
            other: rank,
            other_call: to.what.clone(),
        });
    }
    Ok(sent.len * sent.data_type().size_bytes())
}
