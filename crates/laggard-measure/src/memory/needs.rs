//! How much memory what a rank holds takes. What cannot be counted saturates, and cannot be had.

use super::{Capacity, Index, Region};
use crate::portion::Portion;
use crate::shape::Experts;
use crate::tokens::share;
use laggard_types::DataType;

/// Buffers of one region.
pub(super) struct Need {
    pub(super) region: Region,
    pub(super) indices: Vec<Index>,
    /// Elements of each.
    pub(super) elements: usize,
    pub(super) data_type: DataType,
}

/// Sizes that a rank's buffers are products of.
struct Sizes<'a> {
    portion: &'a Portion,
    capacity: Capacity,
    /// Tokens of a micro-batch on this rank.
    tokens: usize,
    /// Tokens of a micro-batch on all ranks that share its sequences.
    all_tokens: usize,
    /// Rows of the residual stream.
    rows: usize,
    list: Vec<Need>,
}

pub(super) fn needs(portion: &Portion, capacity: Capacity) -> Vec<Need> {
    let positions = share(capacity.length, portion.context.of, 0).len();
    let tokens = capacity.sequences.saturating_mul(positions);
    let mut sizes = Sizes {
        portion,
        capacity,
        tokens,
        all_tokens: capacity.sequences.saturating_mul(capacity.length),
        rows: match portion.sequence_parallel {
            true => share(tokens, portion.tensor.of, 0).len(),
            false => tokens,
        },
        list: Vec::new(),
    };
    sizes.parameters();
    sizes.streams();
    sizes.attention();
    match portion.model.experts.zip(portion.own.experts) {
        Some((model, own)) => sizes.experts(model, own),
        None => sizes.feed_forward(),
    }
    sizes.shared();
    sizes.head();
    sizes.list
}

impl Sizes<'_> {
    fn parameters(&mut self) {
        let last = self.portion.buckets.last();
        let all = last.map_or(0, |last| last.range.end);
        let sharded = last.map_or(0, |last| last.sharded.end);
        let moments = last.map_or(0, |last| last.moments.end);
        self.one(Region::Parameters, all);
        self.one(Region::Gradients, all);
        self.one(Region::FirstMoments, moments);
        self.one(Region::SecondMoments, moments);
        self.one(Region::Norm, 1);
        if self.portion.model.element != DataType::F32 {
            self.one(Region::MainParameters, moments);
        }
        if sharded > 0 {
            self.one(Region::ParameterShards, sharded);
            self.one(Region::GradientShards, sharded);
            if self.portion.reduces_each_micro_batch {
                self.one(Region::GradientArrivals, sharded);
            }
        }
    }

    /// Activations between layers, and their gradients.
    fn streams(&mut self) {
        let elements = self.rows.saturating_mul(self.portion.model.hidden);
        let (mut streams, mut gradients) = (Vec::new(), Vec::new());
        let layers = self.portion.model.layers;
        for (chunk, range) in self.portion.chunks.iter().enumerate() {
            for slot in 0..self.portion.slots[chunk] {
                let ends = range.start.max(1)..=range.end.min(layers);
                streams.extend(ends.map(|layer| (layer, slot)));
                gradients.push((chunk, slot));
            }
        }
        self.many(Region::Stream, streams, elements);
        self.many(Region::StreamGradient, gradients, elements);
        if self.portion.chunks.iter().any(|layers| layers.start == 0) {
            let inputs = (0..self.capacity.micro_batches).map(|index| (index, 0));
            self.many(Region::Input, inputs.collect(), elements);
        }
    }

    fn attention(&mut self) {
        let own = self.portion.own;
        let (tokens, all) = (self.tokens, self.all_tokens);
        let length = self.capacity.length;
        let scores = tokens.saturating_mul(length).saturating_mul(own.heads);
        let kv_width = 2 * own.kv_width();
        self.kept(Region::Query, tokens.saturating_mul(own.query_width()));
        self.kept(Region::KeyValue, all.saturating_mul(kv_width));
        self.kept(Region::Scores, scores);
        self.kept(Region::Context, tokens.saturating_mul(own.query_width()));
        self.kept(Region::Residual, self.rows.saturating_mul(own.hidden));
        self.one(
            Region::ContextGradient,
            tokens.saturating_mul(own.query_width()),
        );
        self.one(
            Region::QueryGradient,
            tokens.saturating_mul(own.query_width()),
        );
        self.one(Region::KeyValueGradient, all.saturating_mul(kv_width));
        let positions = share(length, self.portion.context.of, 0).len();
        self.one(Region::ScoreGradient, positions.saturating_mul(length));
        if self.portion.context.of > 1 {
            self.one(Region::KeyValueOwn, tokens.saturating_mul(kv_width));
            self.one(Region::KeyValueGradientOwn, tokens.saturating_mul(kv_width));
        }
    }

    fn feed_forward(&mut self) {
        let elements = self.tokens.saturating_mul(self.portion.own.ffn_hidden);
        self.kept(Region::FeedForward, elements);
        self.one(Region::FeedForwardGradient, elements);
    }

    fn experts(&mut self, model: Experts, own: Experts) {
        let hidden = self.portion.model.hidden;
        let sent = self.tokens.saturating_mul(model.per_token);
        // Experts get equal stretches of each sequence, up to rounding.
        let stretch = share(self.capacity.length, model.count, 0).len();
        let to_each = self.capacity.sequences.saturating_mul(stretch);
        let to_own = to_each
            .saturating_mul(model.per_token)
            .saturating_mul(own.count);
        let come = to_own.min(sent).saturating_mul(self.portion.expert.of);
        self.kept(Region::RouterLogits, self.tokens.saturating_mul(own.router));
        self.kept(Region::ExpertInput, come.saturating_mul(hidden));
        let wide = come.saturating_mul(self.portion.own.ffn_hidden);
        self.kept(Region::ExpertHidden, wide);
        self.one(Region::ExpertHiddenGradient, wide);
        self.one(Region::ExpertOutput, come.saturating_mul(hidden));
        self.one(Region::ExpertInputGradient, come.saturating_mul(hidden));
        if self.portion.expert.of > 1 {
            self.one(Region::Dispatched, sent.saturating_mul(hidden));
            self.one(Region::Combined, sent.saturating_mul(hidden));
        }
    }

    /// What ranks that share layers exchange.
    fn shared(&mut self) {
        let elements = self.tokens.saturating_mul(self.portion.model.hidden);
        if self.portion.tensor.of > 1 {
            self.one(Region::PartialGradient, elements);
        }
        if self.portion.sequence_parallel {
            self.one(Region::Gathered, elements);
            self.one(Region::GatheredGradient, elements);
            self.one(Region::Partial, elements);
        }
    }

    fn head(&mut self) {
        let layers = self.portion.model.layers;
        if self.portion.chunks.iter().any(|range| range.end > layers) {
            let vocabulary = self.portion.own.vocabulary;
            self.one(Region::Logits, self.tokens.saturating_mul(vocabulary));
            let targets = self.capacity.length.saturating_mul(vocabulary);
            self.one(Region::NegativeTargets, targets);
        }
    }

    /// Activations that backward needs: of each layer and slot, unless they are computed again.
    fn kept(&mut self, region: Region, elements: usize) {
        let layers = self.portion.model.layers;
        let mut indices = Vec::new();
        for (chunk, range) in self.portion.chunks.iter().enumerate() {
            for slot in 0..self.portion.slots[chunk] {
                let kept = (range.start..range.end.min(layers))
                    .filter(|layer| !self.portion.recomputed.contains(layer));
                indices.extend(kept.map(|layer| (layer, slot)));
            }
        }
        // Layers that are computed again share one, which is not the first layer's own: where any
        // is computed again, so is the first of each piece.
        if !self.portion.recomputed.is_empty() {
            indices.push((0, 0));
        }
        self.many(region, indices, elements);
    }

    fn one(&mut self, region: Region, elements: usize) {
        self.many(region, vec![(0, 0)], elements);
    }

    fn many(&mut self, region: Region, indices: Vec<Index>, elements: usize) {
        self.list.push(Need {
            region,
            indices,
            elements,
            data_type: match region {
                Region::MainParameters
                | Region::FirstMoments
                | Region::SecondMoments
                | Region::Norm => DataType::F32,
                _ => self.portion.model.element,
            },
        });
    }
}
