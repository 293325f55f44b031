//! The model that a published row trains: a preset of the same shape, else one made of the row's
//! own dimensions.

use super::PublishedRow;
use crate::accelerator::Confidence;
use crate::convention::Convention;
use crate::model::{Model, Norm};
use crate::tables::Tables;

/// A feed-forward of this many times the hidden width is taken for a plain one, as in GPT-2, where
/// no total says otherwise.
const PLAIN_FFN: u64 = 4;

/// How far a model of the same dimensions may be from a row's total: sources round it.
const SAME_WEIGHT: f64 = 0.1;

impl PublishedRow {
    /// The model that this row trains, with the row's own vocabulary. A row without dimensions is
    /// found by the name of its model; a mixture of experts only as a preset, because rows do not
    /// say how many experts there are.
    #[must_use]
    pub fn shape(&self, tables: &Tables) -> Option<Model> {
        let named = preset_named(&self.model, tables).filter(|model| self.fits(model));
        let mixture = self.params_active_b.is_some();
        let alike = || {
            let all = tables.models().iter();
            all.filter(|model| model.experts.is_some() == mixture)
                .find(|model| self.layers.is_some() && self.fits(model) && self.weighs_as(model))
        };
        let Some(preset) = named.or_else(alike) else {
            return if mixture { None } else { self.own_shape() };
        };
        let preset = match self.trains_mtp() {
            true => tables
                .model(&format!("{}-mtp", preset.id))
                .unwrap_or(preset),
            false => preset,
        };
        Some(self.with_own_vocabulary(preset))
    }

    fn with_own_vocabulary(&self, model: &Model) -> Model {
        Model {
            vocab: self.vocab.unwrap_or(model.vocab),
            ..model.clone()
        }
    }

    /// Whether the run trains modules that predict further tokens, where its model has them.
    /// Megatron-Bridge trains one with DeepSeek-V3 unless the row says "w/o MTP".
    fn trains_mtp(&self) -> bool {
        let says = |what: &str| self.model.contains(what);
        let by_default = self.convention() == Some(Convention::MbridgeCausal);
        says("w/ MTP") || (by_default && !says("w/o MTP"))
    }

    /// Whether a model has the dimensions that this row gives.
    fn fits(&self, model: &Model) -> bool {
        let same = |cell: Option<u64>, own: u64| cell.is_none_or(|cell| cell == own);
        let experts = model.experts.as_ref();
        let expert_ffn = experts.is_some_and(|experts| same(self.ffn_hidden, experts.ffn_hidden));
        same(self.layers, model.layers)
            && same(self.hidden, model.hidden)
            && same(self.heads, model.heads)
            && same(self.kv_heads, model.kv_heads)
            && same(self.head_dim, model.head_dim)
            && (same(self.ffn_hidden, model.ffn_hidden) || expert_ffn)
    }

    /// Whether a model has about as many parameters as this row says.
    fn weighs_as(&self, model: &Model) -> bool {
        let parameters = self.with_own_vocabulary(model).parameters() as f64 / 1e9;
        self.params_total_b
            .is_none_or(|total| (total / parameters - 1.0).abs() < SAME_WEIGHT)
    }

    /// A dense model of this row's dimensions: plain or gated, whichever comes closer to the row's
    /// total.
    fn own_shape(&self) -> Option<Model> {
        let (hidden, heads, ffn_hidden) = (self.hidden?, self.heads?, self.ffn_hidden?);
        let model = |gated: bool| {
            Some(Model {
                id: self.row_id.clone(),
                name: self.model.clone(),
                aliases: Vec::new(),
                layers: self.layers?,
                hidden,
                heads,
                kv_heads: self.kv_heads.unwrap_or(heads),
                head_dim: self.head_dim.unwrap_or(hidden / heads),
                ffn_hidden,
                ffn_matrices: if gated { 3 } else { 2 },
                activation: None,
                vocab: self.vocab?,
                tied_embeddings: !gated,
                learned_positions: 0,
                linear_bias: !gated,
                qkv_bias: !gated,
                norm: if gated { Norm::Rms } else { Norm::Layer },
                qk_norm: false,
                context: self.seq_len,
                experts: None,
                latent_attention: None,
                sliding_window: None,
                mtp_modules: 0,
                published_parameters: None,
                published_active_parameters: None,
                confidence: Confidence::Low,
                sources: vec![
                    self.source_url
                        .clone()
                        .unwrap_or_else(|| self.row_id.clone()),
                ],
                note: None,
            })
        };
        let (plain, gated) = (model(false)?, model(true)?);
        if plain.check().is_err() || gated.check().is_err() {
            return None;
        }
        let gated_is_closer = match self.params_total_b {
            Some(total) => {
                let distance = |model: &Model| (model.parameters() as f64 / 1e9 - total).abs();
                distance(&gated) < distance(&plain)
            }
            None => ffn_hidden != PLAIN_FFN * hidden,
        };
        Some(if gated_is_closer { gated } else { plain })
    }
}

/// The preset that a source means by a name: letters and digits decide, and what stands in
/// parentheses or names a kind of fine-tuning does not.
fn preset_named<'a>(name: &str, tables: &'a Tables) -> Option<&'a Model> {
    let name = name.split('(').next().unwrap_or(name).trim();
    let name = ["SFT", "LoRA"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    let wanted = letters(name);
    let is_called = |model: &&Model| {
        let names = [&model.id, &model.name].into_iter().chain(&model.aliases);
        names.into_iter().any(|name| letters(name) == wanted)
    };
    tables.models().iter().find(is_called)
}

fn letters(name: &str) -> String {
    let kept = name.chars().filter(char::is_ascii_alphanumeric);
    kept.map(|letter| letter.to_ascii_lowercase()).collect()
}
