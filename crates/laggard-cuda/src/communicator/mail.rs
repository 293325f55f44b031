//! Messages between ranks beside NCCL, over the control plane: ids of communicators, what ranks
//! wish of a split, and what their calls are. Any number of threads may wait at the same time, each
//! for its own topic.

use laggard_backend::control::{ControlPlane, Envelope};
use laggard_backend::{Abortable, BackendError, Messenger};
use laggard_types::Rank;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The kind of these messages on the control plane.
const KIND: u8 = b'N';

/// Bytes of a topic, in front of each message.
const TOPIC_BYTES: usize = size_of::<u64>();

/// Longest sleep of the thread that sorts messages before it looks whether anybody is left.
const LOOK: Duration = Duration::from_millis(500);

/// What has come, by sender and topic.
#[derive(Default)]
struct Pigeonholes {
    letters: BTreeMap<(Rank, u64), VecDeque<Vec<u8>>>,
    aborted: Option<String>,
}

/// One rank's mail.
pub(crate) struct Mail {
    control: Arc<ControlPlane>,
    holes: Mutex<Pigeonholes>,
    bell: Condvar,
}

impl Mail {
    /// The mail of a control plane, of which there may be one.
    pub(crate) fn new(control: Arc<ControlPlane>) -> Result<Arc<Self>, BackendError> {
        let inbox = control.inbox(KIND);
        let mail = Arc::new(Self {
            control,
            holes: Mutex::default(),
            bell: Condvar::new(),
        });
        let sorted = Arc::downgrade(&mail);
        std::thread::Builder::new()
            .name("laggard-nccl-mail".to_owned())
            .spawn(move || sort(&inbox, &sorted))
            .map_err(|error| BackendError::System {
                what: "starting a thread".to_owned(),
                why: error.to_string(),
            })?;
        Ok(mail)
    }

    /// Sends a message to a rank of the job.
    pub(crate) fn post(&self, to: Rank, topic: u64, message: &[u8]) -> Result<(), BackendError> {
        let mut payload = topic.to_le_bytes().to_vec();
        payload.extend(message);
        self.control.send_to(to, KIND, payload)
    }

    /// Takes the next message of a rank of the job on a topic; `None` at the deadline.
    pub(crate) fn take(
        &self,
        from: Rank,
        topic: u64,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, BackendError> {
        let mut holes = self.holes();
        loop {
            if let Some(letters) = holes.letters.get_mut(&(from, topic)) {
                let letter = letters.pop_front();
                if letters.is_empty() {
                    holes.letters.remove(&(from, topic));
                }
                return Ok(letter);
            }
            if let Some(reason) = &holes.aborted {
                let (rank, reason) = (self.control.rank(), reason.clone());
                return Err(BackendError::Aborted { rank, reason });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.bell.wait_timeout(holes, left);
            holes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn deliver(&self, envelope: &Envelope) {
        if let Some((topic, message)) = envelope.payload.split_first_chunk::<TOPIC_BYTES>() {
            let topic = u64::from_le_bytes(*topic);
            let mut holes = self.holes();
            let letters = holes.letters.entry((envelope.from, topic)).or_default();
            letters.push_back(message.to_vec());
        }
        self.bell.notify_all();
    }

    fn holes(&self) -> MutexGuard<'_, Pigeonholes> {
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Abortable for Mail {
    fn abort(&self, reason: &str) {
        self.holes().aborted = Some(reason.to_owned());
        self.bell.notify_all();
    }
}

/// Puts what comes in where it is waited for, until nobody is left who could.
fn sort(inbox: &Receiver<Envelope>, mail: &Weak<Mail>) {
    use std::sync::mpsc::RecvTimeoutError;
    loop {
        let came = inbox.recv_timeout(LOOK);
        let Some(mail) = mail.upgrade() else { return };
        match came {
            Ok(envelope) => mail.deliver(&envelope),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Messages between some ranks on one topic, as trees of messages are made of.
pub(crate) struct Talk<'a> {
    pub mail: &'a Mail,
    /// Ranks of the job.
    pub members: &'a [Rank],
    /// This rank's position among them.
    pub rank: Rank,
    pub topic: u64,
}

impl Talk<'_> {
    fn member(&self, rank: Rank) -> Result<Rank, BackendError> {
        let member = self.members.get(rank as usize).copied();
        member.ok_or_else(|| BackendError::Invalid {
            rank: self.rank,
            call: "message".to_owned(),
            why: format!("there is no rank {rank}"),
        })
    }
}

impl Messenger for Talk<'_> {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    fn send(&self, to: Rank, message: &[u8], _deadline: Instant) -> Result<(), BackendError> {
        self.mail.post(self.member(to)?, self.topic, message)
    }

    fn receive(
        &self,
        from: Rank,
        message: &mut [u8],
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let (begin, member) = (Instant::now(), self.member(from)?);
        let came = self.mail.take(member, self.topic, deadline)?;
        let came = came.ok_or_else(|| BackendError::Timeout {
            rank: self.mail.control.rank(),
            waited: begin.elapsed(),
            waiting_for: "a message".to_owned(),
            missing: vec![member],
        })?;
        if came.len() != message.len() {
            return Err(BackendError::Mismatch {
                rank: self.mail.control.rank(),
                call: format!("receive of {} bytes", message.len()),
                other: member,
                other_call: format!("send of {} bytes", came.len()),
            });
        }
        message.copy_from_slice(&came);
        Ok(())
    }
}
