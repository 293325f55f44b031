//! What one rank holds of the model: its part of each layer, which layers, and where their
//! parameters lie. Knows sizes, no memory.

use crate::MeasureError;
use crate::shape::{Experts, Shape, Weight};
use crate::tokens::Routing;
use laggard_schedule::{Bucket, Layout, ModelWork, Zero, buckets, chunks, passes, slots};
use laggard_types::Rank;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A place among ranks that share something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Which of them this is.
    pub index: usize,
    /// How many they are.
    pub of: usize,
}

/// A bucket of parameters in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedBucket {
    /// Elements of the parameters, and of the gradients.
    pub range: Range<usize>,
    /// Which shard of how many is this rank's; absent where it keeps all of it.
    pub shard: Option<Seat>,
    /// Elements among the shards of all buckets; empty where there are none.
    pub sharded: Range<usize>,
    /// Elements among the optimizer's moments.
    pub moments: Range<usize>,
}

/// What a rank holds.
#[derive(Debug, Clone)]
pub(crate) struct Portion {
    /// The whole model.
    pub model: Shape,
    /// This rank's part of each layer.
    pub own: Shape,
    /// Among the ranks that share each matrix.
    pub tensor: Seat,
    /// Among those that share each sequence.
    pub context: Seat,
    /// Among those that share the experts.
    pub expert: Seat,
    /// Whether the ranks of `tensor` share the tokens between the matrices too.
    pub sequence_parallel: bool,
    /// Layers of which only the inputs are kept for backward.
    pub recomputed: BTreeSet<usize>,
    /// Whether gradients are reduced after each micro-batch.
    pub reduces_each_micro_batch: bool,
    /// Layers of each piece, the head included.
    pub chunks: Vec<Range<usize>>,
    /// Micro-batches that are in memory at one time, by piece.
    pub slots: Vec<usize>,
    /// Buckets, in the schedule's order.
    pub buckets: Vec<PlacedBucket>,
    /// Bucket and elements of each weight.
    weights: BTreeMap<(usize, Weight), (usize, Range<usize>)>,
}

impl Portion {
    /// What a rank of a layout holds.
    ///
    /// # Errors
    /// If the layout does not fit the model.
    pub(crate) fn new(
        model: Shape,
        layout: &Layout,
        work: &ModelWork,
        rank: Rank,
    ) -> Result<Self, MeasureError> {
        let at = layout.coordinates(rank);
        let seat = |index: u32, of: u32| Seat {
            index: index as usize,
            of: of as usize,
        };
        let position = layout.gradient_position(at);
        let expert = seat(position % layout.expert_parallel, layout.expert_parallel);
        let share = layout.micro_batches[at.data as usize];
        let order = passes(layout, at.pipeline, share);
        let slots = slots(&order, layout.virtual_stages, share);
        let layers = chunks(layout, work, at.pipeline)?;
        let range = |layers: Range<u32>| layers.start as usize..layers.end as usize;
        let mut portion = Self {
            own: part_of(&model, layout)?,
            model,
            tensor: seat(at.tensor, layout.tensor_parallel),
            context: seat(at.context, layout.context_parallel),
            expert,
            sequence_parallel: layout.sequence_parallel,
            recomputed: BTreeSet::new(),
            reduces_each_micro_batch: layout.zero >= Zero::Gradients,
            chunks: layers.into_iter().map(range).collect(),
            slots: slots.into_iter().map(|slots| slots as usize).collect(),
            buckets: Vec::new(),
            weights: BTreeMap::new(),
        };
        for piece in &portion.chunks {
            let layers = piece.start..piece.end.min(portion.model.layers);
            let again = layers.filter(|layer| layout.computes_again((layer - piece.start) as u32));
            portion.recomputed.extend(again);
        }
        for bucket in buckets(layout, work, at.pipeline)? {
            let index = match bucket.experts {
                true => position / layout.expert_parallel,
                false => position,
            };
            portion.place(&bucket, seat(index, bucket.shards));
        }
        Ok(portion)
    }

    fn place(&mut self, bucket: &Bucket, seat: Seat) {
        let last = self.buckets.last();
        let start = last.map_or(0, |last| last.range.end);
        let sharded = last.map_or(0, |last| last.sharded.end);
        let moments = last.map_or(0, |last| last.moments.end);
        let (elements, shard) = (bucket.elements as usize, bucket.shard() as usize);
        let shard_of = (seat.of > 1).then_some(seat);
        self.buckets.push(PlacedBucket {
            range: start..start + elements,
            shard: shard_of,
            sharded: sharded..sharded + shard_of.map_or(0, |_| shard),
            moments: moments..moments + shard,
        });
        let mut start = start;
        for &layer in &bucket.layers {
            for weight in self.own.weights(layer as usize, bucket.experts) {
                let end = start + self.own.elements(weight);
                let place = (self.buckets.len() - 1, start..end);
                self.weights.insert((layer as usize, weight), place);
                start = end;
            }
        }
    }

    /// Elements of a weight; `None` where this rank does not hold it.
    pub(crate) fn weight(&self, layer: usize, weight: Weight) -> Option<Range<usize>> {
        let (_, range) = self.weights.get(&(layer, weight))?;
        Some(range.clone())
    }

    /// All weights of this rank: layer, which, elements.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (usize, Weight, Range<usize>)> + '_ {
        let place = |(key, place): (&(usize, Weight), &(usize, Range<usize>))| {
            (key.0, key.1, place.1.clone())
        };
        self.weights.iter().map(place)
    }

    /// Whether the gradients of later micro-batches are added to those of earlier ones in place.
    pub(crate) fn accumulates(&self, layer: usize, weight: Weight) -> bool {
        let bucket = self.weights.get(&(layer, weight));
        let sharded = bucket.is_some_and(|(bucket, _)| self.buckets[*bucket].shard.is_some());
        !(self.reduces_each_micro_batch && sharded)
    }

    /// The piece that a layer belongs to.
    pub(crate) fn chunk_of(&self, layer: usize) -> usize {
        let holds = |layers: &Range<usize>| layers.contains(&layer);
        self.chunks.iter().position(holds).unwrap_or(0)
    }

    /// How a layer's tokens go to experts.
    pub(crate) fn routing(&self, layer: usize) -> Option<Routing> {
        let experts = self.model.experts?;
        Some(Routing {
            experts: experts.count,
            per_token: experts.per_token,
            layer,
        })
    }

    /// Experts that another of the ranks that share them holds.
    pub(crate) fn experts_of(&self, index: usize) -> Range<usize> {
        let each = self.own.experts.map_or(0, |own| own.count);
        index * each..(index + 1) * each
    }

    /// Rows and columns of the whole model's weight that this rank's is made of; columns may come
    /// in several ranges.
    pub(crate) fn place_in_model(&self, weight: Weight) -> (Range<usize>, Vec<Range<usize>>) {
        let own = self.own.size(weight);
        let from = |size: usize| self.tensor.index * size..(self.tensor.index + 1) * size;
        match weight {
            Weight::Qkv => {
                let (query, kv) = (self.own.query_width(), self.own.kv_width());
                let keys = self.model.query_width();
                let values = keys + self.model.kv_width();
                let shift = |range: Range<usize>, by| range.start + by..range.end + by;
                let columns = vec![from(query), shift(from(kv), keys), shift(from(kv), values)];
                (0..own.0, columns)
            }
            Weight::Output | Weight::Down | Weight::ExpertDown(_) => {
                let all = 0..own.1;
                (from(own.0), Vec::from([all]))
            }
            _ => (0..own.0, Vec::from([from(own.1)])),
        }
    }
}

/// What each tensor- and expert-parallel rank holds of a layer.
fn part_of(model: &Shape, layout: &Layout) -> Result<Shape, MeasureError> {
    let refused = |what: &str, count: usize, degree: &str, ranks: usize| MeasureError::Setting {
        what: "the layout",
        value: layout.to_string(),
        why: format!("{count} {what} of the model cannot be split over {ranks} ranks"),
        hint: format!("use a {degree} that divides them, or another --model"),
    };
    let tensor = layout.tensor_parallel as usize;
    let split = |count: usize, what: &str| match count.is_multiple_of(tensor) {
        true => Ok(count / tensor),
        false => Err(refused(what, count, "tp", tensor)),
    };
    let ranks = layout.expert_parallel as usize;
    let experts = match model.experts {
        Some(all) if !all.count.is_multiple_of(ranks) => {
            return Err(refused("experts", all.count, "ep", ranks));
        }
        Some(all) => Some(Experts {
            count: all.count / ranks,
            router: split(all.count, "experts")?,
            ..all
        }),
        None => None,
    };
    Ok(Shape {
        heads: split(model.heads, "heads")?,
        kv_heads: split(model.kv_heads, "key and value heads")?,
        ffn_hidden: split(model.ffn_hidden, "feed-forward channels")?,
        vocabulary: split(model.vocabulary, "tokens of the vocabulary")?,
        experts,
        ..*model
    })
}
