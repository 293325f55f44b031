//! The sketch of a world too large to keep every sample.

use super::{Shape, around, findings, utilisation, waterfall};
use laggard_analyze::{Analysis, Charged, HeatMap, Level};
use laggard_types::{Caveat, CaveatCode};

/// Ranks that are listed, and all that there are.
const LISTED: u32 = 40;
const RANKS: u32 = 219_904;

/// Few ranks are listed and rank 5 is slow; nothing is known of operations and of single steps.
pub(crate) fn sketch() -> Analysis {
    let shape = Shape {
        ranks: LISTED,
        hosts: 5,
        steps: 1000,
        columns: 1,
        step_s: 1.78,
    };
    let mut analysis = shape.analysis("grok-1", "dp1718,tp8,pp16");
    analysis.subject.origin = "predicted".to_owned();
    analysis.subject.ranks = RANKS;
    analysis.classes[0].ranks = RANKS;
    analysis.mfu = Some(utilisation(0.281));
    analysis.waterfall = waterfall(&[
        (Level::HostPauses, 0.0),
        (Level::Transient, 0.04),
        (Level::Rank, 0.09),
        (Level::Generation, 0.0),
        (Level::EvenStep, 0.87),
    ]);
    analysis.penalty = around(0.13, 0.002);
    analysis.slowdown = around(1.0 / 0.87, 0.002);
    analysis.verdict =
        "stragglers cost 13.0 % [12.8, 13.2] of wall time; rank 5 is slow".to_owned();
    analysis.findings = vec![findings::slow_rank()];
    analysis.findings[0].onset = None;
    let charged: Vec<(u32, f64)> = (0..LISTED)
        .map(|rank| (rank, if rank == 5 { 0.085 } else { 0.0001 }))
        .collect();
    let rest = [
        (Charged::OtherRanks(RANKS - LISTED), 0.03),
        (Charged::ClassMix, 0.0),
        (Charged::EveryRank, 0.0111),
    ];
    shape.blame(&mut analysis, &charged, &rest);
    for entry in &mut analysis.blame {
        entry.leave_one_out = None;
    }
    analysis.heat_map = HeatMap {
        first_rank: Vec::new(),
        first_step: Vec::new(),
        excess: Vec::new(),
    };
    analysis.caveats = vec![Caveat::new(
        CaveatCode::IncompleteTrace,
        "the record is a sketch, without the samples of operations",
    )];
    analysis
}
