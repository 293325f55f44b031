//! Which tokens of a micro-batch a rank works on, and which expert each goes to.

use std::ops::Range;

/// The `index`-th of `parts` ranges that share out `total` as evenly as can be, in order.
pub(crate) fn share(total: usize, parts: usize, index: usize) -> Range<usize> {
    let (each, more) = (total / parts, total % parts);
    let start = index * each + index.min(more);
    start..start + each + usize::from(index < more)
}

/// The tokens of one micro-batch on one rank: the same positions of each of its sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each whole sequence.
    pub length: usize,
    /// Ranks that share each sequence.
    pub parts: usize,
    /// Which of them this is.
    pub part: usize,
    /// Position of the micro-batch among those of all replicas, from 0 within the step.
    pub which: u32,
}

/// How a layer's tokens go to experts. There is no choice in it, so that the work does not depend
/// on numbers: tokens of one stretch of a sequence go to the same experts, another stretch to
/// others, and all experts get equal shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Routing {
    /// Experts of the model.
    pub experts: usize,
    /// Experts that each token goes to.
    pub per_token: usize,
    /// The model layer.
    pub layer: usize,
}

impl Tokens {
    /// The rank's positions of each sequence.
    pub(crate) fn positions(&self) -> Range<usize> {
        self.positions_of(self.part)
    }

    /// The positions of another of the ranks that share each sequence.
    pub(crate) fn positions_of(&self, part: usize) -> Range<usize> {
        share(self.length, self.parts, part)
    }

    /// Tokens on this rank.
    pub(crate) fn count(&self) -> usize {
        self.count_of(self.part)
    }

    /// Tokens on another of the ranks.
    pub(crate) fn count_of(&self, part: usize) -> usize {
        self.sequences * self.positions_of(part).len()
    }

    /// Rows of this rank that go to an expert, as ranges of its tokens, in the order in which they
    /// are sent: the expert may be a token's first, second, ... choice.
    pub(crate) fn rows_for(&self, routing: Routing, expert: usize) -> Vec<Range<usize>> {
        let own = self.positions();
        let mut rows = Vec::new();
        for choice in 0..routing.per_token {
            let back = routing.layer + self.which as usize + choice;
            let stretch = (expert + routing.experts - back % routing.experts) % routing.experts;
            let positions = share(self.length, routing.experts, stretch);
            let start = positions.start.max(own.start);
            let end = positions.end.min(own.end);
            for sequence in (0..self.sequences).filter(|_| start < end) {
                let first = sequence * own.len() + start - own.start;
                rows.push(first..first + end - start);
            }
        }
        rows
    }

    /// How many rows of this rank go to an expert.
    pub(crate) fn count_for(&self, routing: Routing, expert: usize) -> usize {
        let rows = self.rows_for(routing, expert).into_iter();
        rows.map(|rows| rows.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_in_order() {
        for (total, parts) in [(10, 3), (2, 4), (0, 2), (7, 7)] {
            let all: Vec<usize> = (0..parts).flat_map(|i| share(total, parts, i)).collect();
            assert_eq!(all, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_token_goes_to_as_many_experts_as_it_should() {
        for part in 0..3 {
            let tokens = Tokens {
                sequences: 2,
                length: 11,
                parts: 3,
                part,
                which: 5,
            };
            let routing = Routing {
                experts: 4,
                per_token: 2,
                layer: 1,
            };
            let mut times = vec![0; tokens.count()];
            for expert in 0..4 {
                let mut of_expert = vec![0; tokens.count()];
                for rows in tokens.rows_for(routing, expert) {
                    of_expert[rows.clone()].iter_mut().for_each(|n| *n += 1);
                    times[rows].iter_mut().for_each(|n| *n += 1);
                }
                assert!(of_expert.iter().all(|n| *n <= 1), "experts are distinct");
            }
            assert!(times.iter().all(|n| *n == 2), "{times:?}");
        }
    }
}
