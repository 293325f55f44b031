//! The host's work of a step: drawing token ids and looking up their embeddings.

use crate::memory::{Region, uniform, write};
use crate::network::{Batch, Network};
use crate::stream::{Purpose, generator};
use laggard_backend::{BackendError, Slice};
use std::sync::Arc;

/// The embedding table, shared by all ranks and not trained.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    hidden: usize,
    rows: Arc<[f32]>,
    seed: u64,
}

impl Embedding {
    /// A table of `vocabulary` rows of `hidden` numbers of variance 1.
    pub(crate) fn new(seed: u64, vocabulary: usize, hidden: usize) -> Self {
        let mut rng = generator(seed, Purpose::Embedding, 0, 0);
        let rows = (0..vocabulary * hidden)
            .map(|_| uniform(1.0, &mut rng))
            .collect();
        Self { hidden, rows, seed }
    }

    /// Prepares a rank's part of one micro-batch in a network's memory. Its tokens depend on the
    /// step and on the position of the micro-batch among those of all replicas alone: whoever works
    /// on a micro-batch gets the same tokens.
    ///
    /// # Errors
    /// If work is using the memory.
    pub(crate) fn prepare(
        &self,
        network: &Network,
        batch: &Batch,
        step: u32,
        scratch: &mut Vec<f32>,
    ) -> Result<(), BackendError> {
        let vocabulary = self.rows.len() / self.hidden;
        let tokens = &batch.tokens;
        let mut rng = generator(self.seed, Purpose::Tokens, step, tokens.which);
        let positions = tokens.positions();
        let own = network.stream_range(batch);
        scratch.clear();
        let mut at = 0;
        for _ in 0..tokens.sequences {
            for position in 0..tokens.length {
                let row = rng.below(vocabulary) * self.hidden;
                if positions.contains(&position) {
                    if own.contains(&at) {
                        scratch.extend_from_slice(&self.rows[row..row + self.hidden]);
                    }
                    at += 1;
                }
            }
        }
        let index = (batch.micro_batch, 0);
        let buffer = network.memory().buffer(Region::Input, index)?;
        write(&Slice::new(buffer, 0..scratch.len())?, scratch)
    }
}
