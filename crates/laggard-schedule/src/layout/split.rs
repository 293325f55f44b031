//! How a model's layers are cut into the pieces of a pipeline where nobody says otherwise.

/// A model's transformer layers, cut as evenly as they can be. What does not divide goes to middle
/// stages, the later ones first: the last stage has the head, and the first the embedding and the
/// most micro-batches in memory. The pieces of a stage are as even as can be, those next to the
/// ends of the model the smaller ones; with two layers fewer than pieces, the first has the
/// embedding alone and the last the head, as Megatron-LM's `--account-for-embedding-in-pipeline-
/// split` and `--account-for-loss-in-pipeline-split` have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSplit {
    /// Layers of the model.
    pub layers: u64,
    /// Pipeline stages, at least 1.
    pub stages: u64,
    /// Pieces of each stage, at least 1.
    pub virtual_stages: u64,
}

impl LayerSplit {
    /// Runs of stages with equally many layers, in order: the first stage, the smaller and the
    /// larger ones between, the last; of each the layers of a stage, and how many stages there are.
    #[must_use]
    pub const fn runs(&self) -> [(u64, u64); 4] {
        let (each, more) = (self.layers / self.stages, self.layers % self.stages);
        let between = self.stages.saturating_sub(2);
        let (larger, first) = match more > between {
            true => (between, each + 1),
            false => (more, each),
        };
        let last = if self.stages > 1 { 1 } else { 0 };
        [
            (first, 1),
            (each, between - larger),
            (each + 1, larger),
            (each, last),
        ]
    }

    /// Layers of a stage; 0 where there is no such stage.
    #[must_use]
    pub fn of_stage(&self, stage: u64) -> u64 {
        let mut end = 0;
        let run = self.runs().into_iter().find(|(_, stages)| {
            end += stages;
            stage < end
        });
        run.map_or(0, |(layers, _)| layers)
    }

    /// Layers of a piece, in the order of the model.
    #[must_use]
    pub fn of_piece(&self, piece: u64) -> u64 {
        let (turn, stage) = (piece / self.stages, piece % self.stages);
        let layers = self.of_stage(stage);
        let (each, more) = (layers / self.virtual_stages, layers % self.virtual_stages);
        let is_larger = match stage + 1 == self.stages {
            true => turn < more,
            false => turn + more >= self.virtual_stages,
        };
        each + u64::from(is_larger)
    }

    /// Pieces of all stages.
    #[must_use]
    pub const fn pieces(&self) -> u64 {
        self.stages * self.virtual_stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(layers: u64, stages: u64, virtual_stages: u64) -> Vec<u64> {
        let split = LayerSplit {
            layers,
            stages,
            virtual_stages,
        };
        (0..split.pieces()).map(|it| split.of_piece(it)).collect()
    }

    #[test]
    fn splits_by_hand() {
        let check = |layers, stages, virtual_stages, expect: &[u64]| {
            assert_eq!(pieces(layers, stages, virtual_stages), expect);
        };
        check(12, 1, 1, &[12]);
        check(12, 4, 1, &[3, 3, 3, 3]);
        check(5, 2, 1, &[3, 2]);
        check(9, 4, 1, &[2, 2, 3, 2]);
        check(10, 4, 1, &[2, 3, 3, 2]);
        check(11, 4, 1, &[3, 3, 3, 2]);
        check(6, 2, 4, &[0, 1, 1, 1, 1, 1, 1, 0]);
        check(6, 2, 2, &[1, 2, 2, 1]);
        // Llama 3 405B on 16 stages: a layer fewer on the first and the last.
        let llama = pieces(126, 16, 1);
        assert_eq!((llama[0], llama[1], llama[14], llama[15]), (7, 8, 8, 7));
        let llama = pieces(126, 16, 8);
        assert_eq!((llama[0], llama[127]), (0, 0));
        assert!(llama[1..127].iter().all(|layers| *layers == 1));
    }

    fn spread(list: &[u64]) -> u64 {
        let (most, least) = (list.iter().max(), list.iter().min());
        most.zip(least).map_or(0, |(most, least)| most - least)
    }

    /// Every layer is on one stage; stages differ by at most one layer, as do the pieces of one.
    #[test]
    fn every_layer_is_somewhere_and_stages_are_even() {
        for layers in 1..=40 {
            for stages in 1..=layers.min(12) {
                for virtual_stages in 1..=4 {
                    let split = LayerSplit {
                        layers,
                        stages,
                        virtual_stages,
                    };
                    let of_stages: Vec<u64> = (0..stages).map(|it| split.of_stage(it)).collect();
                    let of_pieces = pieces(layers, stages, virtual_stages);
                    assert_eq!(of_stages.iter().sum::<u64>(), layers, "{split:?}");
                    assert_eq!(split.runs().iter().map(|run| run.1).sum::<u64>(), stages);
                    for (stage, all) in of_stages.iter().enumerate() {
                        let own = of_pieces.iter().skip(stage).step_by(stages as usize);
                        assert_eq!(own.sum::<u64>(), *all, "{split:?}");
                    }
                    assert!(spread(&of_stages) <= 1, "{split:?}: {of_stages:?}");
                    assert!(spread(&of_pieces) <= 2, "{split:?}: {of_pieces:?}");
                }
            }
        }
    }
}
