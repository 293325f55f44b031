//! The order in which a pipeline rank takes micro-batches forward and backward.
//!
//! Sources: 1F1B is PipeDream-Flush (Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN
//! Training"); interleaved 1F1B is section 2.2.2 of Narayanan et al. 2021, "Efficient Large-Scale
//! Language Model Training on GPU Clusters Using Megatron-LM", with the numbering of Megatron-LM's
//! `forward_backward_pipelining_with_interleaving`.

use crate::{Layout, Phase};

/// One micro-batch through one piece of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Forward or backward.
    pub phase: Phase,
    /// Which of the rank's pieces, from 0.
    pub chunk: u32,
    /// The micro-batch, from 0 within the step.
    pub micro_batch: u32,
}

/// The passes of one pipeline stage for a replica of so many micro-batches, in order.
pub fn passes(layout: &Layout, stage: u32, micro_batches: u32) -> Vec<Pass> {
    let (stages, chunks) = (layout.pipeline_parallel, layout.virtual_stages);
    let total = micro_batches * chunks;
    let behind = stages - 1 - stage;
    let ahead = match chunks {
        1 => behind,
        _ => 2 * behind + (chunks - 1) * stages,
    };
    let ahead = ahead.min(total);
    let pass = |phase, count: u32| {
        let group = stages * chunks;
        let (chunk, micro_batch) = match chunks {
            1 => (0, count),
            _ => (
                count % group / stages,
                count / group * stages + count % stages,
            ),
        };
        let chunk = match phase {
            Phase::Backward => chunks - 1 - chunk,
            _ => chunk,
        };
        Pass {
            phase,
            chunk,
            micro_batch,
        }
    };
    let mut list: Vec<Pass> = (0..ahead).map(|n| pass(Phase::Forward, n)).collect();
    for count in 0..total {
        if ahead + count < total {
            list.push(pass(Phase::Forward, ahead + count));
        }
        list.push(pass(Phase::Backward, count));
    }
    list
}

/// For how many micro-batches each of the rank's pieces needs memory: those between forward and
/// backward at one time, and one more that may arrive meanwhile. Micro-batch `m` uses slot `m`
/// modulo this.
pub fn slots(passes: &[Pass], chunks: u32, micro_batches: u32) -> Vec<u32> {
    let mut alive = vec![0_u32; chunks as usize];
    let mut most = alive.clone();
    for pass in passes {
        let chunk = pass.chunk as usize;
        match pass.phase {
            Phase::Backward => alive[chunk] -= 1,
            _ => alive[chunk] += 1,
        }
        most[chunk] = most[chunk].max(alive[chunk]);
    }
    most.iter()
        .map(|most| (most + 1).min(micro_batches))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(list: &[Pass]) -> String {
        let word = |pass: &Pass| {
            let phase = if pass.phase == Phase::Forward {
                'F'
            } else {
                'B'
            };
            format!("{phase}{}.{}", pass.chunk, pass.micro_batch)
        };
        list.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_forward_one_backward() {
        let layout = Layout::parse("dp1,pp2").expect("readable");
        assert_eq!(
            written(&passes(&layout, 0, 3)),
            "F0.0 F0.1 B0.0 F0.2 B0.1 B0.2"
        );
        let last = passes(&layout, 1, 3);
        assert_eq!(written(&last), "F0.0 B0.0 F0.1 B0.1 F0.2 B0.2");
        assert_eq!(slots(&last, 1, 3), [2]);
        assert_eq!(slots(&passes(&layout, 0, 3), 1, 3), [3]);
    }

    #[test]
    fn pieces_are_interleaved() {
        let layout = Layout::parse("dp1,pp2,vp2").expect("readable");
        assert_eq!(
            written(&passes(&layout, 1, 2)),
            "F0.0 F0.1 F1.0 B1.0 F1.1 B1.1 B0.0 B0.1"
        );
        assert_eq!(
            written(&passes(&layout, 0, 2)),
            "F0.0 F0.1 F1.0 F1.1 B1.0 B1.1 B0.0 B0.1"
        );
    }

    #[test]
    fn every_micro_batch_passes_each_piece_once_each_way() {
        for (text, micro_batches) in [("dp1", 3), ("dp1,pp4", 2), ("dp1,pp4,vp3", 8)] {
            let layout = Layout::parse(text).expect("readable");
            for stage in 0..layout.pipeline_parallel {
                let list = passes(&layout, stage, micro_batches);
                let count = micro_batches * layout.virtual_stages;
                assert_eq!(list.len() as u32, 2 * count, "{text}");
                for (at, pass) in list.iter().enumerate() {
                    let forward = Pass {
                        phase: Phase::Forward,
                        ..*pass
                    };
                    let before = list[..=at].iter().filter(|other| **other == forward);
                    assert_eq!(before.count(), 1, "{text} {pass:?}");
                }
            }
        }
    }
}
