//! The micro-batches of a step, as every rank that works on one sees them.

use crate::inject::Injector;
use crate::network::Batch;
use crate::tokens::Tokens;
use laggard_schedule::{Coordinates, Layout};
use laggard_types::Rank;

/// What the ranks of one replica work on.
#[derive(Debug, Clone)]
pub(crate) struct Batches {
    layout: Layout,
    at: Coordinates,
    sequences: usize,
    weight: f32,
    nominal: u32,
    /// Position of each replica's first micro-batch among those of all.
    first: Vec<u32>,
}

impl Batches {
    /// Micro-batches of a rank, of so many sequences of a nominal length. Each sequence has the
    /// same weight in the gradient, however the micro-batches are shared out.
    pub(crate) fn new(layout: &Layout, rank: Rank, (sequences, nominal): (u32, u32)) -> Self {
        let mut first = Vec::new();
        let mut count = 0;
        for share in &layout.micro_batches {
            first.push(count);
            count += share;
        }
        Self {
            layout: layout.clone(),
            at: layout.coordinates(rank),
            sequences: sequences as usize,
            weight: (1.0 / (f64::from(count) * f64::from(sequences))) as f32,
            nominal,
            first,
        }
    }

    /// The micro-batches of a step in which all sequences have the nominal length.
    pub(crate) fn nominal(&self) -> Vec<Batch> {
        self.made(|replica, lengths| {
            let share = self.layout.micro_batches[replica as usize];
            lengths.resize(share as usize, self.nominal);
        })
    }

    /// The micro-batches of a step.
    pub(crate) fn of_step(&self, injector: &Injector, step: u32) -> Vec<Batch> {
        self.made(|replica, lengths| injector.lengths(replica, step, lengths))
    }

    /// Micro-batches of the lengths that `lengths_of` puts down for a replica.
    fn made(&self, lengths_of: impl Fn(u32, &mut Vec<u32>)) -> Vec<Batch> {
        let peers = self.peers();
        let mut of_peers: Vec<Vec<Tokens>> = Vec::new();
        for peer in &peers {
            let mut lengths = Vec::new();
            lengths_of(peer.data, &mut lengths);
            of_peers.push(self.tokens(*peer, &lengths));
        }
        let own = peers.iter().position(|peer| *peer == self.at).unwrap_or(0);
        let batch = |micro_batch: usize| Batch {
            micro_batch,
            tokens: of_peers[own][micro_batch].clone(),
            peers: of_peers.iter().map(|of| of[micro_batch].clone()).collect(),
            weight: self.weight,
        };
        (0..of_peers[own].len()).map(batch).collect()
    }

    fn tokens(&self, at: Coordinates, lengths: &[u32]) -> Vec<Tokens> {
        let tokens = |(index, length): (usize, &u32)| Tokens {
            sequences: self.sequences,
            length: *length as usize,
            parts: self.layout.context_parallel as usize,
            part: at.context as usize,
            which: self.first[at.data as usize] + index as u32,
        };
        lengths.iter().enumerate().map(tokens).collect()
    }

    /// The ranks that share this one's experts, in their order.
    fn peers(&self) -> Vec<Coordinates> {
        let experts = self.layout.expert_parallel;
        let first = self.layout.gradient_position(self.at) / experts * experts;
        let peer = |position: u32| Coordinates {
            context: position % self.layout.context_parallel,
            data: position / self.layout.context_parallel,
            ..self.at
        };
        (first..first + experts).map(peer).collect()
    }
}
