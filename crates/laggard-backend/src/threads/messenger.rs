//! Messages between ranks of one process.

use crate::gate::{Abortable, Gate, Patience};
use crate::{BackendError, Messenger};
use laggard_types::Rank;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// The letters of a whole world, by sender and receiver.
pub(super) struct Letters {
    ranks: u32,
    boxes: Vec<Letterbox>,
    abort: OnceLock<String>,
}

#[derive(Default)]
struct Letterbox {
    letters: Mutex<VecDeque<Vec<u8>>>,
    gate: Gate,
}

impl Letters {
    pub(super) fn new(ranks: u32) -> Self {
        let boxes = (0..ranks as usize * ranks as usize).map(|_| Letterbox::default());
        Self {
            ranks,
            boxes: boxes.collect(),
            abort: OnceLock::new(),
        }
    }
}

impl Abortable for Letters {
    fn abort(&self, reason: &str) {
        self.abort.get_or_init(|| reason.to_owned());
        self.boxes
            .iter()
            .for_each(|letterbox| letterbox.gate.ring());
    }
}

/// One rank's side of it.
pub(super) struct ThreadMessenger {
    pub letters: Arc<Letters>,
    pub rank: Rank,
    pub spin: std::time::Duration,
}

impl ThreadMessenger {
    fn letterbox(&self, from: Rank, to: Rank, call: &str) -> Result<&Letterbox, BackendError> {
        let ranks = self.letters.ranks;
        if from >= ranks || to >= ranks {
            return Err(BackendError::Invalid {
                rank: self.rank,
                call: call.to_owned(),
                why: format!("there are {ranks} ranks"),
            });
        }
        self.check_abort()?;
        Ok(&self.letters.boxes[(from * ranks + to) as usize])
    }

    fn check_abort(&self) -> Result<(), BackendError> {
        match self.letters.abort.get() {
            None => Ok(()),
            Some(reason) => Err(BackendError::Aborted {
                rank: self.rank,
                reason: reason.clone(),
            }),
        }
    }
}

impl Messenger for ThreadMessenger {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn size(&self) -> u32 {
        self.letters.ranks
    }

    fn send(&self, to: Rank, message: &[u8], _: Instant) -> Result<(), BackendError> {
        let letterbox = self.letterbox(self.rank, to, "send")?;
        let mut letters = letterbox
            .letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        letters.push_back(message.to_vec());
        drop(letters);
        letterbox.gate.ring();
        Ok(())
    }

    fn receive(
        &self,
        from: Rank,
        message: &mut [u8],
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let letterbox = self.letterbox(from, self.rank, "receive")?;
        let begin = Instant::now();
        let patience = Patience {
            spin: self.spin,
            limit: Some(deadline.saturating_duration_since(begin)),
        };
        let mut letter = None;
        letterbox.gate.wait(patience, || {
            let mut letters = letterbox
                .letters
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            letter = letters.pop_front();
            letter.is_some() || self.letters.abort.get().is_some()
        });
        let Some(letter) = letter else {
            self.check_abort()?;
            return Err(BackendError::Timeout {
                rank: self.rank,
                waited: begin.elapsed(),
                waiting_for: format!("a message from rank {from}"),
                missing: vec![from],
            });
        };
        if letter.len() != message.len() {
            return Err(BackendError::Mismatch {
                rank: self.rank,
                call: format!("receive of {} bytes", message.len()),
                other: from,
                other_call: format!("send of {} bytes", letter.len()),
            });
        }
        message.copy_from_slice(&letter);
        Ok(())
    }
}
