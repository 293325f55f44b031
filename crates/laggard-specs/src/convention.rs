//! The ways in which FLOP of training are counted, by the names under which published numbers use
//! them. The same step has an MFU under each of them.
//!
//! N are all parameters, Nmm the weights that multiply a token (with the output head, without the
//! input embedding), A is layers times [`Model::attention_width`], s the sequence length. FLOP
//! count 2 per multiply-add.

use std::fmt;
use std::str::FromStr;

use laggard_types::Flop;

use crate::error::SpecsError;
use crate::flop_count::{
    Attention, Recompute, counted_flop_per_token, recompute_flop_per_token, training_flop_per_token,
};
use crate::model::Model;

/// How FLOP are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Convention {
    /// laggard's own: what has to be computed. 6 Nmm and the pairs of tokens that the mask keeps.
    Causal,
    /// Korthikanti et al., Megatron-LM's logs before it halved attention, MegaScale.
    Megatron72,
    /// Narayanan et al. (SC'21), MT-NLG, BLOOM: with full recomputation.
    Narayanan96,
    /// `PaLM`, FSDP of IBM, nanoGPT.
    Palm,
    /// llm-foundry (`MPT`).
    Mpt,
    /// torchtitan.
    Titan,
    /// `NeMo` up to 24.07.
    NemoFull,
    /// Megatron-Bridge, and the logs of later Megatron-LM.
    MbridgeCausal,
    /// Megatron-Bridge for gpt-oss in containers up to 26.04.01.
    MbridgeGptOssOld,
    /// Megatron-Bridge for gpt-oss from 26.06.
    MbridgeGptOssNew,
    /// `MaxText` before its change 1988.
    MaxtextFull,
    /// `MaxText` after it.
    MaxtextCausal,
    /// Parameters alone, as in scaling laws.
    SixN,
    /// Parameters alone, with recomputation: `BloombergGPT`.
    EightN,
    /// Training of low-rank adapters: no gradients of the weights.
    Lora4N,
}

/// What a convention counts per token. `None` is what its sources never print.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CountedFlop {
    /// FLOP of the model: MFU.
    pub model: Option<Flop>,
    /// FLOP of the hardware, with what is computed again: HFU.
    pub hardware: Option<Flop>,
}

impl Convention {
    /// Every convention, laggard's own first.
    #[must_use]
    pub const fn all() -> &'static [Self] {
        &[
            Self::Causal,
            Self::Megatron72,
            Self::Narayanan96,
            Self::Palm,
            Self::Mpt,
            Self::Titan,
            Self::NemoFull,
            Self::MbridgeCausal,
            Self::MbridgeGptOssOld,
            Self::MbridgeGptOssNew,
            Self::MaxtextFull,
            Self::MaxtextCausal,
            Self::SixN,
            Self::EightN,
            Self::Lora4N,
        ]
    }

    /// Its name.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Causal => "causal",
            Self::Megatron72 => "megatron72",
            Self::Narayanan96 => "narayanan96",
            Self::Palm => "palm",
            Self::Mpt => "mpt",
            Self::Titan => "titan",
            Self::NemoFull => "nemo-full",
            Self::MbridgeCausal => "mbridge-causal",
            Self::MbridgeGptOssOld => "mbridge-gpt-oss-old",
            Self::MbridgeGptOssNew => "mbridge-gpt-oss-new",
            Self::MaxtextFull => "maxtext-full",
            Self::MaxtextCausal => "maxtext-causal",
            Self::SixN => "6n",
            Self::EightN => "8n",
            Self::Lora4N => "lora4n",
        }
    }

    fn ids() -> Vec<&'static str> {
        Self::all().iter().map(|known| known.id()).collect()
    }

    /// Its formula and who counts so.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Causal => "6 Nmm + 6 A s, windows as the mask: what has to be computed",
            Self::Megatron72 => {
                "6 Nmm + 12 A s = 72 L h^2 (1 + s/6h + V/12Lh): Korthikanti et al. (arXiv \
                 2205.05198), MegaScale, Megatron-LM before it halved attention"
            }
            Self::Narayanan96 => {
                "96 L h^2 (1 + s/6h + V/16Lh), hardware FLOP with full recomputation: Narayanan et \
                 al. (arXiv 2104.04473), MT-NLG, BLOOM"
            }
            Self::Palm => "6 N + 12 A s: PaLM (arXiv 2204.02311), FSDP of IBM, nanoGPT",
            Self::Mpt => "6 N + 12 L h s, N with learned positions: llm-foundry",
            Self::Titan => "6 (N - V h) + 12 A s: torchtitan",
            Self::NemoFull => "6 Nmm + 12 A s: NeMo up to 24.07, Nemotron-4",
            Self::MbridgeCausal => {
                "6 Nmm + 6 A s, windows ignored: Megatron-Bridge from 25.09, later Megatron-LM logs"
            }
            Self::MbridgeGptOssOld => {
                "as mbridge-causal with two matrices per expert: Megatron-Bridge up to 26.04.01"
            }
            Self::MbridgeGptOssNew => {
                "6 Nmm + 6 A s, windowed layers 12 A w: Megatron-Bridge from 26.06"
            }
            Self::MaxtextFull => {
                "6 Nmm + 12 A s, windowed layers 12 A w: MaxText before its change 1988"
            }
            Self::MaxtextCausal => "6 Nmm + 6 A s, windowed layers 6 A w: MaxText after it",
            Self::SixN => "6 N: scaling laws (arXiv 2001.08361)",
            Self::EightN => "8 N, hardware FLOP: BloombergGPT (arXiv 2303.17564)",
            Self::Lora4N => "4 Nmm, adapters alone are trained: NeMo's LoRA tables",
        }
    }

    /// Whether it can be used for a model: some are for one family alone.
    #[must_use]
    pub fn fits(self, model: &Model) -> bool {
        match self {
            Self::MbridgeGptOssOld | Self::MbridgeGptOssNew => {
                model.sliding_window.is_some() && model.experts.is_some()
            }
            _ => true,
        }
    }

    /// The convention that a published row names: its id, perhaps with a remark in parentheses.
    /// `None` for rows that do not say, and for what cannot be computed from a shape.
    #[must_use]
    pub fn of_published(text: &str) -> Option<Self> {
        let (name, remark) = text.split_once('(').unwrap_or((text, ""));
        if remark.contains("unverified") || remark.contains("unstated") {
            return None;
        }
        match name.trim() {
            "mbridge gpt-oss old" => Some(Self::MbridgeGptOssOld),
            "mbridge gpt-oss new" => Some(Self::MbridgeGptOssNew),
            "megatron72-like" => Some(Self::Megatron72),
            name => name.parse().ok(),
        }
    }

    /// FLOP per token of a step over sequences of `sequence_length` tokens.
    #[must_use]
    pub fn flop_per_token(
        self,
        model: &Model,
        sequence_length: u64,
        recompute: Recompute,
    ) -> CountedFlop {
        let length = sequence_length as f64;
        let parameters = model.parameters() as f64;
        // NVIDIA's formulas leave it out.
        let router = Flop(6.0 * model.router_weights() as f64);
        let window = |share: f64| move |window: u64| share * length.min(window as f64);
        let model_flop = match self {
            Self::Causal => training_flop_per_token(model, sequence_length, Attention::Causal),
            Self::Megatron72 | Self::NemoFull => full(model, sequence_length) - router,
            Self::MbridgeCausal => {
                counted_flop_per_token(model, length / 2.0, |_| length / 2.0) - router
            }
            Self::MbridgeGptOssOld => {
                let plain = Model {
                    ffn_matrices: 2,
                    ..model.clone()
                };
                counted_flop_per_token(&plain, length / 2.0, |_| length / 2.0) - router
            }
            Self::MbridgeGptOssNew => {
                counted_flop_per_token(model, length / 2.0, window(1.0)) - router
            }
            Self::MaxtextFull => counted_flop_per_token(model, length, window(1.0)),
            Self::MaxtextCausal => counted_flop_per_token(model, length / 2.0, window(0.5)),
            Self::Palm => Flop(6.0 * parameters) + attention_full(model, sequence_length),
            Self::Titan => {
                let embedding = (model.vocab * model.hidden) as f64;
                Flop(6.0 * (parameters - embedding)) + attention_full(model, sequence_length)
            }
            Self::Mpt => mpt(model, sequence_length),
            Self::SixN => Flop(6.0 * parameters),
            Self::Lora4N => Flop(4.0 * model.matmul_parameters() as f64),
            Self::Narayanan96 => {
                return CountedFlop::of_hardware(layers_again(model, sequence_length));
            }
            Self::EightN => return CountedFlop::of_hardware(Flop(8.0 * parameters)),
        };
        CountedFlop {
            model: Some(model_flop),
            hardware: self.hardware(model_flop, model, sequence_length, recompute),
        }
    }

    /// FLOP of the hardware where sources that count so print them.
    fn hardware(
        self,
        model_flop: Flop,
        model: &Model,
        sequence_length: u64,
        recompute: Recompute,
    ) -> Option<Flop> {
        match (self, recompute) {
            (Self::Causal, _) => {
                let causal = Attention::Causal;
                Some(
                    model_flop
                        + recompute_flop_per_token(model, sequence_length, causal, recompute),
                )
            }
            (Self::Megatron72 | Self::Palm | Self::Mpt, Recompute::None) => Some(model_flop),
            // Korthikanti et al. count selective recomputation as all of attention once more.
            (Self::Megatron72, Recompute::Attention) => {
                Some(model_flop + attention_full(model, sequence_length))
            }
            (Self::Megatron72, Recompute::Layers) => {
                let router = Flop(8.0 * model.router_weights() as f64);
                Some(layers_again(model, sequence_length) - router)
            }
            (Self::Palm | Self::Mpt, Recompute::Layers) => Some(model_flop * (4.0 / 3.0)),
            _ => None,
        }
    }
}

impl CountedFlop {
    const fn of_hardware(flop: Flop) -> Self {
        Self {
            model: None,
            hardware: Some(flop),
        }
    }
}

/// 6 Nmm + 12 A s.
fn full(model: &Model, sequence_length: u64) -> Flop {
    training_flop_per_token(model, sequence_length, Attention::Full)
}

/// 12 A s.
fn attention_full(model: &Model, sequence_length: u64) -> Flop {
    full(model, sequence_length) - Flop(6.0 * model.matmul_parameters() as f64)
}

/// 6 Nmm + 12 A s, and the forward pass of every layer once more, but not that of the head.
fn layers_again(model: &Model, sequence_length: u64) -> Flop {
    let layers = Recompute::Layers;
    full(model, sequence_length)
        + recompute_flop_per_token(model, sequence_length, Attention::Full, layers)
}

/// 6 N + 12 L h s, where a model with learned positions has one for each token of the sequence.
fn mpt(model: &Model, sequence_length: u64) -> Flop {
    let positions = match model.learned_positions {
        0 => 0.0,
        learned => sequence_length as f64 - learned as f64,
    };
    let parameters = model.parameters() as f64 + positions * model.hidden as f64;
    let pairs = (model.layers * model.hidden) as f64 * sequence_length as f64;
    Flop(6.0 * parameters + 12.0 * pairs)
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for Convention {
    type Err = SpecsError;

    fn from_str(name: &str) -> Result<Self, SpecsError> {
        let known = Self::all().iter().find(|known| known.id() == name);
        known.copied().ok_or_else(|| SpecsError::UnknownName {
            kind: "convention",
            name: name.to_owned(),
            hint: format!("hint: known: {}", Self::ids().join(", ")),
        })
    }
}

#[cfg(test)]
mod tests;
