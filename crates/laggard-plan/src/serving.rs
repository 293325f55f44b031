//! What accelerators serve: tokens per second of a replica by a roofline, the sessions that a
//! number of tokens per second carries, and a day's demand.
//!
//! A replica holds `B` sequences and makes one token of each in a step. A step takes the longer of
//! reading the weights and multiplying them with `B` tokens, then attends to the keys and values of
//! all sequences, sums activations over the devices of the replica twice per layer, and computes
//! the prompts of the sequences that take the place of those that ended, one in `output_tokens` of
//! `B`. `B` is as large as memory and latency allow. What devices reach of their peaks is fitted on
//! published measurements (`data/serving.toml`), and a class that a run has shown to be off its
//! datasheet is taken to be as far off here; a model with experts reaches a fitted share of the
//! whole. Replicas do not wait for each other, so rates of classes add up. Knows nothing of money
//! or of what a cluster is used for.

mod capacity;
mod constants;
mod replica;

use laggard_simulate::Corrections;
use laggard_specs::{Accelerator, Model};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::number::{NumberError, above_zero};

pub use capacity::{DailyDemand, Mix, Sessions, mixed_tokens_per_second};
pub use constants::{
    DispatchLoss, LatencyRow, LatencyTable, MeasuredMix, MeasuredRow, MeasuredTable,
    MeasuredTogether, ServingConstants,
};

/// Numbers that weights are kept and multiplied in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// 16 bits (bf16, or fp16 where there is no bf16); keys and values too.
    Half,
    /// 8 bits; keys and values too.
    Fp8,
    /// 4 bits with a scale of 8 bits for each 16 of them (NVFP4); keys and values in 8 bits.
    Fp4,
}

impl Numbers {
    /// The smallest that an accelerator multiplies by itself.
    #[must_use]
    pub fn smallest_of(accelerator: &Accelerator) -> Self {
        let has = |peak: Option<_>| peak.is_some();
        match accelerator {
            it if has(it.dense_fp4_flop_per_s) => Self::Fp4,
            it if has(it.dense_fp8_flop_per_s) => Self::Fp8,
            _ => Self::Half,
        }
    }
}

/// Devices that hold one copy of a model.
#[derive(Debug, Clone, Copy)]
pub struct Replica<'a> {
    /// The model.
    pub model: &'a Model,
    /// The class of the devices.
    pub accelerator: &'a Accelerator,
    /// How many devices share the copy, by tensor parallelism inside a scale-up domain.
    pub devices: u32,
    /// Numbers of the weights.
    pub numbers: Numbers,
    /// How far the devices are from their datasheet: products, reading memory, and sums over the
    /// devices take so many times as long.
    pub corrections: Corrections,
}

/// What is asked of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// Tokens of a prompt.
    pub input_tokens: f64,
    /// Tokens of an answer.
    pub output_tokens: f64,
    /// Most seconds from one token of an answer to the next.
    pub most_seconds_per_token: Option<f64>,
    /// Most seconds from a prompt to the first token, without a queue.
    pub most_seconds_to_first_token: Option<f64>,
}

/// What keeps a replica from holding more sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchLimit {
    /// Memory for keys and values.
    Memory,
    /// Seconds per token.
    SecondsPerToken,
    /// Seconds to the first token.
    SecondsToFirstToken,
    /// What the software holds at most.
    Software,
}

/// What a replica does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServingRate {
    /// Devices of the replica.
    pub devices: u32,
    /// Sequences at once.
    pub sequences: u64,
    /// What keeps it from more.
    pub limit: BatchLimit,
    /// Tokens of answers per second and device, prompts being computed meanwhile.
    pub output_tokens_per_second: f64,
    /// Seconds from one token of an answer to the next.
    pub seconds_per_token: f64,
    /// Seconds from a prompt to the first token, without a queue.
    pub seconds_to_first_token: f64,
    /// Tokens of prompts per second and device where nothing else is done.
    pub prefill_tokens_per_second: f64,
    /// Tokens of answers per second and device where prompts are computed elsewhere.
    pub decode_tokens_per_second: f64,
}

/// Why a replica cannot serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServingError {
    /// The table of constants cannot be read.
    #[error("cannot read the serving table: {source}")]
    Parse {
        /// What the TOML reader says, with line and column.
        source: Box<toml::de::Error>,
    },
    /// A number that cannot be.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// Something about an accelerator that is not known.
    #[error("{key} of {accelerator} is unknown\nhint: add it to the accelerator's entry")]
    Unknown {
        /// The accelerator.
        accelerator: String,
        /// The key of its entry.
        key: &'static str,
    },
    /// The model with one sequence does not fit.
    #[error(
        "{model} with one sequence of {tokens} tokens needs {needed:.3e} bytes, and {devices} of \
         {accelerator} have {available:.3e}\nhint: use more devices for a replica, or smaller \
         numbers"
    )]
    Memory {
        /// The model.
        model: String,
        /// The accelerator.
        accelerator: String,
        /// Devices of the replica.
        devices: u32,
        /// Tokens that a sequence holds.
        tokens: f64,
        /// Bytes needed.
        needed: f64,
        /// Bytes that may be used.
        available: f64,
    },
    /// A limit of latency that one sequence alone passes.
    #[error(
        "{model} on {devices} of {accelerator} takes {seconds:.4} s {what}, more than the {most} s \
         allowed\nhint: use more devices for a replica, or allow more time"
    )]
    Latency {
        /// The model.
        model: String,
        /// The accelerator.
        accelerator: String,
        /// Devices of the replica.
        devices: u32,
        /// Which latency.
        what: &'static str,
        /// What it takes with one sequence.
        seconds: f64,
        /// What is allowed.
        most: f64,
    },
}

/// What a replica serves.
///
/// # Errors
/// Numbers that cannot be, an accelerator without a figure that is needed, too little memory, or a
/// latency that one sequence alone passes.
pub fn tokens_per_second(
    replica: &Replica<'_>,
    requests: &Requests,
    constants: &ServingConstants,
) -> Result<ServingRate, ServingError> {
    requests.check()?;
    replica::Roofline::new(replica, requests, constants)?.rate()
}

/// The replica of 1, 2, 4, ... devices, up to those of the `widest`, that serves most per device.
/// Among equal ones, the smallest.
///
/// # Errors
/// As [`tokens_per_second`], for the widest of them, where none can serve.
pub fn best_replica(
    widest: &Replica<'_>,
    requests: &Requests,
    constants: &ServingConstants,
) -> Result<ServingRate, ServingError> {
    requests.check()?;
    let most = widest.devices.max(1).ilog2();
    let rate = |devices| {
        let replica = Replica { devices, ..*widest };
        tokens_per_second(&replica, requests, constants)
    };
    let mut best: Option<ServingRate> = None;
    let mut refusal = None;
    for power in 0..=most {
        match rate(1 << power) {
            Ok(found) => {
                let before = best.map_or(0.0, |best| best.output_tokens_per_second);
                if found.output_tokens_per_second > before {
                    best = Some(found);
                }
            }
            Err(error) => refusal = Some(error),
        }
    }
    match (best, refusal) {
        (Some(best), _) => Ok(best),
        (None, Some(error)) => Err(error),
        (None, None) => rate(1),
    }
}

impl Requests {
    fn check(&self) -> Result<(), ServingError> {
        above_zero("tokens of a prompt", self.input_tokens)?;
        above_zero("tokens of an answer", self.output_tokens)?;
        if let Some(seconds) = self.most_seconds_per_token {
            above_zero("most seconds per token", seconds)?;
        }
        if let Some(seconds) = self.most_seconds_to_first_token {
            above_zero("most seconds to the first token", seconds)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
