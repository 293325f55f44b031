//! The job to predict where little is said of it, for `simulate` and `plan`.

use crate::args::{Arithmetic, JobArgs};
use crate::failure::Usage;
use anyhow::Result;
use laggard_simulate::{Framework, Frameworks, Precision, Surroundings};
use laggard_specs::Model;
use laggard_types::Seconds;

/// Devices of a host where the cluster does not say.
pub(super) const DEVICES_PER_NODE: u64 = 8;
/// Tokens of a step, and from what they are for each accelerator: the largest batch of Llama 3
/// 405B, on 16,384 of them. Source: arXiv 2407.21783, sections 3.3.2 and 3.4.1.
pub(super) const BATCH_TOKENS: u64 = 16 << 20;
const TOKENS_PER_DEVICE: u64 = BATCH_TOKENS / 16_384;
/// The framework.
const FRAMEWORK: &str = "megatron-lm";
/// Longest sequence: that of Llama 3's initial training, ibid.
const SEQUENCE: u64 = 8192;

/// Tokens of a step on so many devices.
pub(super) fn batch_tokens(devices: u64) -> u64 {
    BATCH_TOKENS.max(TOKENS_PER_DEVICE * devices)
}

/// Tokens of a sequence, unless they were said.
pub(super) fn sequence_length(said: Option<u32>, model: &Model) -> u32 {
    let usual = model.context.unwrap_or(SEQUENCE).min(SEQUENCE);
    said.unwrap_or(usual as u32)
}

/// The framework of a name.
pub(super) fn framework<'a>(said: Option<&str>, all: &'a Frameworks) -> Result<&'a Framework> {
    let name = said.unwrap_or(FRAMEWORK);
    let names: Vec<&str> = all.entries.iter().map(|it| it.id.as_str()).collect();
    let unknown = || {
        let hint = format!("hint: choose one of {}", names.join(", "));
        Usage(format!("no framework is called {name}\n{hint}"))
    };
    Ok(all.named(name).ok_or_else(unknown)?)
}

pub(super) fn precision(said: Arithmetic) -> Precision {
    match said {
        Arithmetic::Half => Precision::Half,
        Arithmetic::Fp8 => Precision::Fp8,
        Arithmetic::Fp4 => Precision::Fp4,
    }
}

/// What a checkpoint and a failure cost.
pub(super) fn surroundings(said: &JobArgs) -> Result<Surroundings> {
    let (checkpoint, restart) = (Seconds(said.checkpoint_time), Seconds(said.restart_time));
    Ok(Surroundings::new(checkpoint, restart)?)
}
