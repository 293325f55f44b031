//! Which parameters are reduced, sharded and gathered together.

use crate::{Layout, LayoutError, ModelWork, Part, Zero};

/// Parameters whose gradients one collective reduces, on the ranks of one pipeline stage. Their
/// memory is one range: the layers in this order, then zeros up to `elements`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Layers, in the order in which backward finishes them; the last of the model is the head.
    pub layers: Vec<u32>,
    /// Whether these are the layers' experts, or all else.
    pub experts: bool,
    /// Piece of the model that the layers belong to, from 0 on this rank.
    pub chunk: u32,
    /// Elements that are trained on each rank, before padding.
    pub parameters: u64,
    /// Elements of the range: `parameters`, padded to a multiple of the number of shards.
    pub elements: u64,
    /// Among how many ranks it is sharded; 1 without ZeRO.
    pub shards: u32,
}

impl Bucket {
    /// Elements of each shard.
    pub fn shard(&self) -> u64 {
        self.elements / u64::from(self.shards)
    }
}

/// Layers of each of a pipeline stage's pieces: ranges of the model's layers, the head included.
///
/// # Errors
/// If the split does not fit the model.
pub fn chunks(
    layout: &Layout,
    work: &ModelWork,
    stage: u32,
) -> Result<Vec<std::ops::Range<u32>>, LayoutError> {
    let split = layout.layers_of_pieces(work.transformer_layers())?;
    let last = layout.pieces() - 1;
    let of_piece = |piece: u32| {
        let first: u32 = split[..piece as usize].iter().sum();
        first..first + split[piece as usize] + u32::from(piece == last)
    };
    let pieces = (0..layout.virtual_stages).map(|chunk| chunk * layout.pipeline_parallel + stage);
    Ok(pieces.map(of_piece).collect())
}

/// The buckets of a pipeline stage, in the order in which backward finishes them. Under ZeRO-3,
/// each layer's parameters (and each layer's experts) are a bucket.
///
/// # Errors
/// If the layout does not fit the model.
pub fn buckets(layout: &Layout, work: &ModelWork, stage: u32) -> Result<Vec<Bucket>, LayoutError> {
    let mut list: Vec<Bucket> = Vec::new();
    for (chunk, layers) in chunks(layout, work, stage)?.into_iter().enumerate().rev() {
        for experts in [false, true] {
            let mut open: Option<Bucket> = None;
            for layer in layers.clone().rev() {
                let parameters = layout.parameters_per_rank(work, layer, experts);
                if parameters == 0 {
                    continue;
                }
                let bucket = open.get_or_insert_with(|| Bucket {
                    layers: Vec::new(),
                    experts,
                    chunk: chunk as u32,
                    parameters: 0,
                    elements: 0,
                    shards: layout.shards(experts),
                });
                bucket.layers.push(layer);
                bucket.parameters += parameters;
                bucket.elements = bucket.parameters.next_multiple_of(bucket.shards.into());
                let full = bucket.parameters * work.element_bytes >= layout.bucket_bytes;
                if full || layout.zero == Zero::Parameters {
                    list.extend(open.take());
                }
            }
            list.extend(open);
        }
    }
    Ok(list)
}

impl Layout {
    /// Elements of a layer on each rank that has it: of its experts, or of all else.
    fn parameters_per_rank(&self, work: &ModelWork, layer: u32, experts: bool) -> u64 {
        let parts = work.layers[layer as usize].parts.iter();
        let sum: u64 = parts
            .filter(|part| (part.part == Part::Experts) == experts)
            .map(|part| part.parameters)
            .sum();
        let ranks = match experts {
            true => self.tensor_parallel * self.expert_parallel,
            false => self.tensor_parallel,
        };
        sum.div_ceil(ranks.into())
    }

    fn shards(&self, experts: bool) -> u32 {
        match (self.zero, experts) {
            (Zero::None, _) => 1,
            (_, true) => self.expert_gradient_ranks(),
            (_, false) => self.gradient_ranks(),
        }
    }
}
