//! What operations cost on the user's own machines: lines through what a run of them took, by which
//! other layouts are predicted.
//!
//! The cost of an operation is `fixed + per FLOP + per byte on the wire + per further member of its
//! group`, none of them negative, with the least squares of relative errors. Operations of one kind
//! share a line. Where a layout has operations that no run had, such as the parts of a layer that
//! only tensor parallelism separates, the line of the next wider kind is used: all of that phase,
//! then all of that kind. For collectives much larger than any of their kind it is that of all
//! collectives.

mod line;
mod observations;
mod places;
mod rehearsal;

use crate::scale::quantile_at;
use laggard_schedule::{Operation, OperationKind, Part, Phase};
use laggard_types::Collective;
pub use line::Line;
use line::Point;
pub use observations::observations;
pub use places::Places;
pub use rehearsal::CalibratedStep;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One operation of a run on one rank.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The class of the rank's device.
    pub class: &'a str,
    /// The operation.
    pub operation: &'a Operation,
    /// Ranks that meet in it, 1 where none do; and whether it belongs to the output head.
    pub place: (u32, bool),
    /// What it usually took, in seconds.
    pub seconds: f64,
    /// What it took over that, at evenly spaced quantiles; empty where that is not known.
    pub ratios: &'a [f64],
}

/// Costs of operations on each class of devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The classes, by name.
    pub classes: Vec<ClassCosts>,
}

/// Costs of operations on one class of devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassCosts {
    /// Name of the class.
    pub class: String,
    /// A line for each kind that was seen, the narrowest kinds first.
    pub costs: Vec<KindCost>,
}

/// The cost of a kind of operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindCost {
    /// The kind.
    pub kind: Kind,
    /// Its cost.
    pub line: Line,
    /// What it takes over that, at evenly spaced quantiles: the i-th of n at `(i + 1/2) / n`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ratios: Vec<f64>,
}

impl KindCost {
    /// The ratio of what an operation takes to its usual time, at a quantile.
    fn ratio(&self, quantile: f64) -> f64 {
        match self.ratios.is_empty() {
            true => 1.0,
            false => quantile_at(&self.ratios, quantile),
        }
    }
}

/// Operations that are alike in all that is given here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// What is done.
    pub does: Does,
    /// In which phase; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// On which parts of a layer, and whether of the head; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<(Vec<Part>, bool)>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// Work of the host.
    Host,
    /// A kernel whose FLOP are counted.
    Multiply,
    /// A kernel that is bound by memory.
    Update,
    /// One end of a transfer between two ranks.
    Transfer,
    /// A collective.
    Collective(Collective),
    /// Any collective.
    AnyCollective,
}

impl Does {
    fn of(operation: &Operation) -> Self {
        match operation.kind {
            OperationKind::Host => Self::Host,
            OperationKind::Send | OperationKind::Receive => Self::Transfer,
            OperationKind::Collective(collective) => Self::Collective(collective),
            OperationKind::Compute if operation.flop > 0.0 => Self::Multiply,
            OperationKind::Compute => Self::Update,
        }
    }
}

impl Kind {
    /// The kinds that an operation belongs to, the narrowest first. What a collective or transfer
    /// costs does not depend on what it is for.
    fn of(operation: &Operation, head: bool) -> Vec<Self> {
        let does = Does::of(operation);
        let all = Self {
            does,
            phase: None,
            parts: None,
        };
        match does {
            Does::Transfer => return vec![all],
            Does::Collective(_) => {
                let any = Self {
                    does: Does::AnyCollective,
                    ..all.clone()
                };
                return vec![all, any];
            }
            _ => (),
        }
        let of_phase = Self {
            phase: Some(operation.phase),
            ..all.clone()
        };
        let of_parts = Self {
            parts: Some((operation.parts.clone(), head)),
            ..of_phase.clone()
        };
        vec![of_parts, of_phase, all]
    }
}

impl Calibration {
    /// Lines through what was observed.
    #[must_use]
    pub fn fit(observations: &[Observation<'_>]) -> Self {
        let mut classes: Vec<(String, Seen<'_>)> = Vec::new();
        for seen in observations {
            let at = classes.iter().position(|(class, _)| class == seen.class);
            let at = at.unwrap_or_else(|| {
                classes.push((seen.class.to_owned(), BTreeMap::new()));
                classes.len() - 1
            });
            let point = Point {
                size: size(seen.operation, seen.place.0),
                seconds: seen.seconds,
            };
            for kind in Kind::of(seen.operation, seen.place.1) {
                classes[at]
                    .1
                    .entry(kind)
                    .or_default()
                    .push((point, seen.ratios));
            }
        }
        let costs = |(class, kinds): (String, Seen<'_>)| {
            let cost = |(kind, seen): (Kind, Vec<(Point, &[f64])>)| {
                let points: Vec<Point> = seen.iter().map(|it| it.0).collect();
                let ratios = mean_of_each(seen.iter().map(|it| it.1));
                Line::fit(&points).map(|line| KindCost { kind, line, ratios })
            };
            ClassCosts {
                class,
                costs: kinds.into_iter().filter_map(cost).collect(),
            }
        };
        Self {
            classes: classes.into_iter().map(costs).collect(),
        }
    }

    /// Seconds that an operation takes on a device of a class, without waiting for others; `None`
    /// where nothing like it was seen. `quantile` is that of the times it takes: 0.5 for the usual
    /// one.
    #[must_use]
    pub fn seconds(
        &self,
        class: &str,
        operation: &Operation,
        (members, head): (u32, bool),
        quantile: f64,
    ) -> Option<f64> {
        let costs = &self.classes.iter().find(|it| it.class == class)?.costs;
        let size = size(operation, members);
        let kinds = Kind::of(operation, head);
        let known = |kind: &Kind| costs.iter().find(|cost| cost.kind == *kind);
        let cost = match kinds[0].does {
            // Small ones are bound by latency and tell nothing of bandwidth.
            Does::Collective(_) => {
                let own = known(&kinds[0])?;
                let all = known(&kinds[1]).filter(|all| all.line.reaches(&size));
                all.filter(|_| !own.line.reaches(&size)).unwrap_or(own)
            }
            _ => kinds.iter().find_map(known)?,
        };
        Some(cost.line.seconds(&size) * cost.ratio(quantile))
    }
}

/// What was seen of each kind.
type Seen<'a> = BTreeMap<Kind, Vec<(Point, &'a [f64])>>;

/// Mean over lists of their first, second, ... values; of those lists alone that have any.
fn mean_of_each<'a>(lists: impl Iterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut sums: Vec<f64> = Vec::new();
    let mut count = 0.0;
    for list in lists.filter(|list| !list.is_empty()) {
        sums.resize(list.len().max(sums.len()), 0.0);
        sums.iter_mut()
            .zip(list)
            .for_each(|(sum, value)| *sum += value);
        count += 1.0;
    }
    sums.iter().map(|sum| sum / count).collect()
}

/// What the cost of an operation grows with: FLOP, bytes that pass each rank, further members.
fn size(operation: &Operation, members: u32) -> [f64; 3] {
    let bytes = operation.bytes as f64;
    let wire = match operation.kind {
        OperationKind::Collective(collective) => bytes * collective.bus_factor(members),
        _ => bytes,
    };
    let flop = operation.flop + operation.attention_flop;
    [flop, wire, f64::from(members.saturating_sub(1))]
}

#[cfg(test)]
mod tests;
