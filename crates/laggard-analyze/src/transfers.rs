//! Which transfers belong together when communication is taken away part by part.

use laggard_record::Manifest;
use laggard_schedule::{OperationKind, Phase, Replay};

/// The order in which transfers are taken away: from the inside of a layer outwards. Axes that are
/// not listed here (imported ones) follow in the order of the schedule.
const ORDER: [&str; 8] = [
    "tp",
    "cp",
    "ep",
    "pp",
    "expert dp",
    "dp",
    "dp x cp",
    "world",
];

/// The axes that ranks communicate along.
pub(crate) struct Transfers {
    /// Their names, in the order in which they are taken away.
    pub(crate) axes: Vec<String>,
    /// Position in `axes` of each node; the largest number where a node does not communicate.
    pub(crate) axis_of_node: Vec<usize>,
}

impl Transfers {
    pub(crate) fn new(manifest: &Manifest, replay: &Replay) -> Self {
        let schedule = &manifest.schedule;
        let names: Vec<&str> = schedule.axes.iter().map(|axis| name(&axis.name)).collect();
        let mut used: Vec<usize> = schedule
            .operations
            .iter()
            .filter(|operation| operation.kind.meets())
            .filter_map(|operation| operation.axis.map(|axis| axis as usize))
            .collect();
        let place = |axis: &usize| {
            let known = ORDER.iter().position(|name| *name == names[*axis]);
            (known.unwrap_or(ORDER.len()), *axis)
        };
        used.sort_unstable_by_key(place);
        let mut axes: Vec<String> = Vec::new();
        for axis in used {
            if !axes.iter().any(|known| known == names[axis]) {
                axes.push(names[axis].to_owned());
            }
        }
        let position = |axis: u32| axes.iter().position(|known| known == names[axis as usize]);
        let reduction = schedule
            .operations
            .iter()
            .find(|operation| operation.phase == Phase::GradientReduce && operation.axis.is_some())
            .and_then(|operation| operation.axis);
        let of_node = |node: &laggard_schedule::Node| {
            let operation = &schedule.operations[node.operation as usize];
            // What adds up reduced gradients goes with them.
            let adds = operation.kind == OperationKind::Compute
                && operation.phase == Phase::GradientReduce;
            let axis = operation.axis.or(reduction.filter(|_| adds));
            axis.and_then(position).unwrap_or(usize::MAX)
        };
        let axis_of_node = replay.nodes().iter().map(of_node).collect();
        Self { axes, axis_of_node }
    }
}

/// A pipeline has an axis for each direction.
fn name(axis: &str) -> &str {
    match axis {
        "pp forward" | "pp backward" => "pp",
        other => other,
    }
}
