//! The roofline of one replica.

use laggard_simulate::Corrections;
use laggard_specs::{Attention, Model, Pass, flop_per_token};

use super::{BatchLimit, Numbers, Replica, Requests, ServingConstants, ServingError, ServingRate};

/// Sums over the devices of a replica in each layer: after attention and after the feed-forward.
const SUMS_PER_LAYER: f64 = 2.0;
/// Bytes of an activation on its way between devices.
const ACTIVATION_BYTES: f64 = 2.0;

/// What a step of a replica is made of.
pub(super) struct Roofline<'a> {
    replica: &'a Replica<'a>,
    requests: &'a Requests,
    constants: &'a ServingConstants,
    /// FLOP per second that all devices reach.
    flop_per_s: f64,
    /// Bytes per second that all devices read.
    bytes_per_s: f64,
    weights: Weights,
    /// Bytes of keys and values of one sequence on all devices, part of its answer done.
    sequence_bytes: f64,
    /// Seconds of attention for one token of one sequence.
    attention_seconds: f64,
    /// Bytes that may be used.
    memory_bytes: f64,
    /// Seconds to sum one token's activations in all layers.
    sum_seconds: f64,
    /// Seconds to compute a prompt.
    prompt_seconds: f64,
    /// What experts add to all times: 1 without them.
    slowdown: f64,
}

/// Bytes of weights.
struct Weights {
    /// Those that every token uses.
    shared: f64,
    /// Those of all routed experts.
    routed: f64,
    /// Share of the routed experts that a token uses.
    active: f64,
}

impl<'a> Roofline<'a> {
    pub(super) fn new(
        replica: &'a Replica<'a>,
        requests: &'a Requests,
        constants: &'a ServingConstants,
    ) -> Result<Self, ServingError> {
        let (model, accelerator) = (replica.model, replica.accelerator);
        let known = |key, number: Option<f64>| {
            number.ok_or_else(|| ServingError::Unknown {
                accelerator: accelerator.id.clone(),
                key,
            })
        };
        let (key, peak) = match replica.numbers {
            Numbers::Half => ("dense_bf16_flop_per_s", accelerator.dense_half_peak()),
            Numbers::Fp8 => ("dense_fp8_flop_per_s", accelerator.dense_fp8_flop_per_s),
            Numbers::Fp4 => ("dense_fp4_flop_per_s", accelerator.dense_fp4_flop_per_s),
        };
        let peak = known(key, peak.map(|peak| peak.0))?;
        let memory = accelerator.memory_bytes.map(|bytes| bytes.0 as f64);
        let memory = known("memory_bytes", memory)?;
        let bandwidth = accelerator.memory_bandwidth_bytes_per_s;
        let bandwidth = known("memory_bandwidth_bytes_per_s", bandwidth.map(|it| it.0))?;
        let devices = f64::from(replica.devices.max(1));
        let Corrections {
            products,
            memory_bound,
            links,
        } = replica.corrections;
        let sum_seconds = if replica.devices > 1 {
            let fabric = accelerator.scale_up_bandwidth_bytes_per_s.map(|it| it.0);
            let fabric = known("scale_up_bandwidth_bytes_per_s", fabric)?;
            // A ring: each device sends 2 (d - 1) / d of what it sums.
            let sent = 2.0 * (devices - 1.0) / devices * model.hidden as f64 * ACTIVATION_BYTES;
            let sums = SUMS_PER_LAYER * model.layers as f64 * sent;
            sums * links / (fabric * constants.fabric_share)
        } else {
            0.0
        };
        let input = requests.input_tokens;
        let prompt_flop =
            input * flop_per_token(model, Pass::Forward, input as u64, Attention::Causal).0;
        let share = match replica.numbers {
            Numbers::Half | Numbers::Fp8 => constants.product_share,
            Numbers::Fp4 => constants.fp4_product_share,
        };
        let flop_per_s = peak * devices * share / products;
        let half = accelerator.dense_half_peak().map(|peak| peak.0);
        let half = known("dense_bf16_flop_per_s", half)?;
        let bytes_per_s = bandwidth * devices * constants.memory_share / memory_bound;
        let held = input + requests.output_tokens * constants.held_share_of_answer;
        let slowdown = match model.experts {
            Some(_) => 1.0 / constants.expert_share,
            None => 1.0,
        };
        let sequence = Sequence::of(model, replica.numbers, held);
        let sequence_bytes = sequence.bytes * copies(model, devices);
        let attention = sequence.flop * products / (half * devices * constants.product_share);
        Ok(Self {
            replica,
            requests,
            constants,
            flop_per_s,
            bytes_per_s,
            weights: Weights::of(model, replica.numbers),
            sequence_bytes,
            attention_seconds: attention.max(sequence_bytes / bytes_per_s),
            memory_bytes: memory * devices * constants.usable_memory,
            sum_seconds,
            prompt_seconds: (prompt_flop / flop_per_s + input * sum_seconds) * slowdown,
            slowdown,
        })
    }

    pub(super) fn rate(&self) -> Result<ServingRate, ServingError> {
        let (sequences, limit) = self.sequences()?;
        let batch = sequences as f64;
        let devices = f64::from(self.replica.devices.max(1));
        let step = self.step_seconds(batch);
        Ok(ServingRate {
            devices: self.replica.devices.max(1),
            sequences,
            limit,
            output_tokens_per_second: batch / step / devices,
            seconds_per_token: step,
            seconds_to_first_token: step + self.prompt_seconds,
            prefill_tokens_per_second: self.requests.input_tokens / self.prompt_seconds / devices,
            decode_tokens_per_second: batch / self.decode_seconds(batch) / devices,
        })
    }

    /// Seconds of one token of each of `batch` sequences.
    fn decode_seconds(&self, batch: f64) -> f64 {
        let model = self.replica.model;
        let weights = self.weights.read_by(batch) / self.bytes_per_s;
        let products = 2.0 * model.matmul_parameters() as f64 * batch / self.flop_per_s;
        let each = self.attention_seconds + self.sum_seconds + self.constants.sequence_seconds;
        let launch = model.layers as f64 * self.constants.layer_seconds;
        (weights.max(products) + each * batch + launch) * self.slowdown
    }

    /// The same, with the prompts of sequences that begin meanwhile.
    fn step_seconds(&self, batch: f64) -> f64 {
        let prompts = batch / self.requests.output_tokens * self.prompt_seconds;
        self.decode_seconds(batch) + prompts
    }

    /// The most sequences that memory, latency and software allow.
    fn sequences(&self) -> Result<(u64, BatchLimit), ServingError> {
        let free = self.memory_bytes - self.weights.shared - self.weights.routed;
        let fit = (free / self.sequence_bytes).max(0.0) as u64;
        if fit == 0 {
            let replica = self.replica;
            let tokens = self.requests.output_tokens * self.constants.held_share_of_answer;
            return Err(ServingError::Memory {
                model: replica.model.id.clone(),
                accelerator: replica.accelerator.id.clone(),
                devices: replica.devices,
                tokens: self.requests.input_tokens + tokens,
                needed: self.memory_bytes - free + self.sequence_bytes,
                available: self.memory_bytes,
            });
        }
        let software = self.constants.most_sequences;
        let (mut most, mut limit) = match fit.cmp(&software) {
            std::cmp::Ordering::Less => (fit, BatchLimit::Memory),
            _ => (software, BatchLimit::Software),
        };
        let limits = [
            (
                self.requests.most_seconds_per_token,
                0.0,
                BatchLimit::SecondsPerToken,
                "for a token",
            ),
            (
                self.requests.most_seconds_to_first_token,
                self.prompt_seconds,
                BatchLimit::SecondsToFirstToken,
                "to the first token",
            ),
        ];
        for (allowed, before, kind, what) in limits {
            let Some(allowed) = allowed else {
                continue;
            };
            let seconds = |batch: u64| before + self.step_seconds(batch as f64);
            if seconds(1) > allowed {
                return Err(self.too_slow(what, seconds(1), allowed));
            }
            if seconds(most) > allowed {
                most = last_within(most, |batch| seconds(batch) <= allowed);
                limit = kind;
            }
        }
        Ok((most, limit))
    }

    fn too_slow(&self, what: &'static str, seconds: f64, most: f64) -> ServingError {
        ServingError::Latency {
            model: self.replica.model.id.clone(),
            accelerator: self.replica.accelerator.id.clone(),
            devices: self.replica.devices,
            what,
            seconds,
            most,
        }
    }
}

/// The last number up to `most` that holds, where 1 does.
fn last_within(most: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (1, most);
    while low < high {
        let middle = high - (high - low) / 2;
        if holds(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

impl Weights {
    fn of(model: &Model, numbers: Numbers) -> Self {
        let bytes = match numbers {
            Numbers::Half => 2.0,
            Numbers::Fp8 => 1.0,
            Numbers::Fp4 => 0.5 + 1.0 / 16.0,
        };
        let (routed, active) = match &model.experts {
            None => (0.0, 0.0),
            Some(experts) => {
                let layers = model.layers.saturating_sub(experts.dense_layers) / experts.every;
                let expert = model.ffn_matrices * model.hidden * experts.ffn_hidden;
                let routed = layers * experts.count * expert;
                (routed as f64, experts.active as f64 / experts.count as f64)
            }
        };
        Self {
            shared: (model.parameters() as f64 - routed) * bytes,
            routed: routed * bytes,
            active,
        }
    }

    /// Bytes that a step of `batch` tokens reads, whose experts are drawn evenly.
    fn read_by(&self, batch: f64) -> f64 {
        let untouched = (1.0 - self.active).powf(batch);
        self.shared + self.routed * (1.0 - untouched)
    }
}

/// How often the devices of a replica hold the keys and values of a sequence. Tensor parallelism
/// gives each device whole heads of them, so that devices beyond these hold copies (vLLM,
/// `ModelConfig.get_num_kv_heads`: at least one head on each). Models with experts or compressed
/// keys and values are taken to be served with attention shared out by sequences, as DeepSeek
/// serves its own (<https://arxiv.org/abs/2412.19437>, section 3.4) and as the models with experts
/// among the measured rows were: there each device holds sequences of its own.
fn copies(model: &Model, devices: f64) -> f64 {
    match (&model.experts, &model.latent_attention) {
        (None, None) => devices / devices.min(model.kv_heads as f64),
        _ => 1.0,
    }
}

/// A sequence of some tokens in all layers.
struct Sequence {
    /// Bytes of its keys and values.
    bytes: f64,
    /// FLOP of attention for its next token.
    flop: f64,
}

impl Sequence {
    fn of(model: &Model, numbers: Numbers, tokens: f64) -> Self {
        let each = match numbers {
            Numbers::Half => 2.0,
            Numbers::Fp8 | Numbers::Fp4 => 1.0,
        };
        let heads = model.heads as f64;
        // Latent attention multiplies queries with the compressed keys and values themselves.
        let (channels, flop) = match &model.latent_attention {
            Some(latent) => (
                latent.kv_rank + latent.rope_dim,
                2.0 * heads * (2 * latent.kv_rank + latent.rope_dim) as f64,
            ),
            None => (
                2 * model.kv_heads * model.head_dim,
                4.0 * heads * model.head_dim as f64,
            ),
        };
        let seen = |layer| match model.window_of_layer(layer) {
            Some(window) => tokens.min(window as f64),
            None => tokens,
        };
        let tokens_of_layers: f64 = (0..model.layers).map(seen).sum();
        Self {
            bytes: tokens_of_layers * channels as f64 * each,
            flop: tokens_of_layers * flop,
        }
    }
}
