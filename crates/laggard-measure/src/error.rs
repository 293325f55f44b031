//! What can go wrong with a run, always with what to do about it.

use laggard_backend::BackendError;
use laggard_record::RecordError;
use laggard_schedule::{LayoutError, Operation};
use laggard_specs::SpecsError;
use laggard_types::Rank;
use thiserror::Error;

/// A run that cannot begin, or that ended early.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A setting that cannot be.
    #[error("{what} is {value}: {why}\nhint: {hint}")]
    Setting {
        /// Which setting, in words.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What to try.
        hint: String,
    },
    /// A fault that cannot be read or does not fit the run.
    #[error("cannot inject `{spec}`: {why}\nhint: {hint}")]
    Fault {
        /// The fault as given.
        spec: String,
        /// What is wrong with it.
        why: String,
        /// What to try.
        hint: String,
    },
    /// Classes of accelerators that cannot be read or do not fit the run.
    #[error("cannot emulate classes `{text}`: {why}\nhint: {hint}")]
    Classes {
        /// The classes as given.
        text: String,
        /// What is wrong with them.
        why: String,
        /// What to try.
        hint: String,
    },
    /// The tables lack something.
    #[error(transparent)]
    Specs(#[from] SpecsError),
    /// The layout cannot be executed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The schedule has an operation that this engine has no kernels for.
    #[error("cannot execute operation `{operation}`: {why}")]
    Unsupported {
        /// Name of the operation.
        operation: String,
        /// What is missing.
        why: String,
    },
    /// The machine refused something before the first step.
    #[error("cannot start rank {rank}: {source}")]
    Start {
        /// The rank.
        rank: Rank,
        /// Why.
        source: BackendError,
    },
    /// An operation failed or did not end in time.
    #[error(
        "rank {rank}, step {step}, operation `{operation}`: {source}{}",
        hint_of(source, "steps are")
    )]
    Operation {
        /// The rank.
        rank: Rank,
        /// The step, from 0.
        step: u32,
        /// Name of the operation.
        operation: String,
        /// Why.
        source: Box<BackendError>,
    },
    /// A call of a benchmark failed or did not end in time.
    #[error("rank {rank}, {what}: {source}{}", hint_of(source, "calls are"))]
    Call {
        /// The rank.
        rank: Rank,
        /// What was measured.
        what: String,
        /// Why.
        source: Box<BackendError>,
    },
    /// Ranks could not exchange messages outside of steps.
    #[error("rank {rank}, {what}: {source}")]
    Exchange {
        /// The rank.
        rank: Rank,
        /// What the messages were for.
        what: &'static str,
        /// Why.
        source: BackendError,
    },
    /// The code of a rank panicked.
    #[error("rank {rank} panicked: {message}")]
    Panicked {
        /// The rank.
        rank: Rank,
        /// The panic's message.
        message: String,
    },
    /// Another process of the run could not be talked to.
    #[error("rank {rank}: {source}")]
    Team {
        /// The rank that tried.
        rank: Rank,
        /// Why.
        source: BackendError,
    },
    /// Another rank could not go on; it says more itself.
    #[error("rank {rank} failed: {why}")]
    Elsewhere {
        /// The rank.
        rank: Rank,
        /// What it said.
        why: String,
    },
    /// Ranks are gone, and with them the run.
    #[error("{words}\n(noticed by rank {rank})")]
    Lost {
        /// The rank that says so.
        rank: Rank,
        /// Who is gone, and what was last heard of them.
        words: String,
    },
    /// A wait ran out, with the hosts of those who did not come.
    #[error("{source}\n{hosts}")]
    Missing {
        /// The wait.
        source: Box<MeasureError>,
        /// Where they are, a line each.
        hosts: String,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The operating system refused something.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: String,
        /// The system's answer.
        why: String,
    },
}

impl MeasureError {
    pub(crate) fn unsupported(operation: &Operation, why: &str) -> Self {
        Self::Unsupported {
            operation: operation.name.clone(),
            why: why.to_owned(),
        }
    }

    /// The backend's error within.
    fn backend(&self) -> Option<&BackendError> {
        match self {
            Self::Operation { source, .. } | Self::Call { source, .. } => Some(source),
            Self::Start { source, .. }
            | Self::Exchange { source, .. }
            | Self::Team { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether the error tells of other ranks, and they or their hosts tell of it too.
    pub fn is_of_others(&self) -> bool {
        self.is_echo() || matches!(self, Self::Lost { .. } | Self::Elsewhere { .. })
    }

    /// Whether the error is only the echo of another rank's.
    pub(crate) fn is_echo(&self) -> bool {
        matches!(self.backend(), Some(BackendError::Aborted { .. }))
    }

    /// Whether ranks that are gone explain the error.
    pub(crate) fn is_echo_or_wait(&self) -> bool {
        self.is_echo() || matches!(self, Self::Team { .. }) || !self.missing().is_empty()
    }

    /// The ranks that were waited for in vain.
    pub(crate) fn missing(&self) -> &[Rank] {
        match self.backend() {
            Some(BackendError::Timeout { missing, .. }) => missing,
            _ => &[],
        }
    }
}

fn hint_of(error: &BackendError, what: &str) -> String {
    match error {
        BackendError::Timeout { .. } => {
            format!("\nhint: if {what} meant to be this long, raise --timeout")
        }
        _ => String::new(),
    }
}
