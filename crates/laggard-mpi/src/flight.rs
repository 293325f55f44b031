//! Operations under way, with the memory that they use. What is dropped before it is complete leaks
//! its memory: MPI may write to it at any time, so it must never be freed or used again.
#![expect(
    unsafe_code,
    reason = "hands memory to MPI until an operation is complete"
)]

use crate::abi::{Comm, Completion, Request, TRUNCATED};
use crate::cargo::Cargo;
use crate::library::{Failed, Library};
use std::sync::Arc;

/// An operation under way.
pub(crate) struct Flight {
    library: Arc<Library>,
    request: Request,
    /// `None` when it is complete.
    cargo: Option<Cargo>,
}

impl Flight {
    /// Starts an operation.
    pub(crate) fn start(
        library: &Arc<Library>,
        comm: Comm,
        mut cargo: Cargo,
    ) -> Result<Self, Failed> {
        let operation = cargo.operation();
        // SAFETY: a cargo's memory is as long as its counts say. It stays where it is, and claimed,
        // while the cargo lives: until completion, or for ever (see `drop`).
        let request = unsafe { library.start(comm, &operation) }?;
        Ok(Self {
            library: Arc::clone(library),
            request,
            cargo: Some(cargo),
        })
    }

    /// Gives the cargo back once the operation is complete.
    pub(crate) fn test(&mut self) -> Result<Option<(Completion, Cargo)>, Failed> {
        let tested = self.library.test(&mut self.request);
        self.land(tested)
    }

    /// Cancels a receive; gives the cargo if the message came before that.
    pub(crate) fn cancel(mut self) -> Result<Option<(Completion, Cargo)>, Failed> {
        let cancelled = self.library.cancel(&mut self.request);
        let landed = self.land(cancelled)?;
        Ok(landed.filter(|(completion, _)| completion.was_cancelled == 0))
    }

    fn land(
        &mut self,
        outcome: Result<Completion, Failed>,
    ) -> Result<Option<(Completion, Cargo)>, Failed> {
        match outcome {
            Ok(completion) if completion.is_complete != 0 => {
                Ok(self.cargo.take().map(|cargo| (completion, cargo)))
            }
            Ok(_) => Ok(None),
            Err(failed) => {
                if failed == Failed(TRUNCATED) {
                    // The message has come, and was cut: the receive is over.
                    self.cargo.take();
                }
                Err(failed)
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(cargo) = self.cargo.take() {
            std::mem::forget(cargo);
            self.library.abandon();
        }
    }
}

/// A communicator that is being duplicated.
pub(crate) struct Duplication {
    library: Arc<Library>,
    request: Request,
    /// `None` when it is complete.
    copy: Option<Box<Comm>>,
}

impl Duplication {
    /// Starts duplicating.
    pub(crate) fn start(library: &Arc<Library>, comm: Comm) -> Result<Self, Failed> {
        let mut copy = Box::new(Comm(0));
        // SAFETY: the copy is on the heap, and is freed only after completion (see `drop`).
        let request = unsafe { library.duplicate(comm, &raw mut *copy) }?;
        Ok(Self {
            library: Arc::clone(library),
            request,
            copy: Some(copy),
        })
    }

    /// Gives the copy once it is complete.
    pub(crate) fn test(&mut self) -> Result<Option<Comm>, Failed> {
        let completion = self.library.test(&mut self.request)?;
        if completion.is_complete == 0 {
            return Ok(None);
        }
        Ok(self.copy.take().map(|copy| *copy))
    }
}

impl Drop for Duplication {
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            std::mem::forget(copy);
            self.library.abandon();
        }
    }
}
