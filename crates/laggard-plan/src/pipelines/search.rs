//! The search: first some pipelines of all devices, for something to beat; then numbers of replicas
//! by what they could reach at best, within them numbers of stages by their bound, and for those
//! that may beat the best so far, the exact cut.

use std::ops::Range;

use super::bound::Paces;
use super::compositions::{Composition, Group, Listing, Scope, Team, groups};
use super::{FoundPipeline, Pipeline, PipelineCosts, PipelineStage, Slot, StagePlace};
use crate::stages::{Chain, Cut, Stage, cut_chain};

/// Most kinds of stages whose every order is tried; of more, two orders are.
const MOST_PERMUTED: usize = 4;
/// Pipelines of all devices that are cut first.
const FIRST: usize = 24;

/// The fastest pipeline, or `None` where no cut of any fits.
pub(super) fn fastest(costs: &dyn PipelineCosts) -> Option<FoundPipeline> {
    let sizes = costs.micro_batches().iter().filter(|&&size| size > 0);
    let paces: Vec<Paces> = sizes.filter_map(|&size| Paces::of(costs, size)).collect();
    let mut groups: Vec<Group<'_>> = paces.iter().flat_map(|it| groups(costs, it)).collect();
    groups.sort_by(|a, b| a.floor.total_cmp(&b.floor));
    let mut search = Search {
        costs,
        best: None,
        bound: f64::INFINITY,
        judged: 0,
        cut: 0,
    };
    search.begin(&groups);
    for group in &groups {
        if group.floor >= search.limit() {
            break;
        }
        search.look_through(group);
    }
    let bound = search.bound;
    search.best.map(|best| FoundPipeline {
        bound_seconds: bound.min(best.seconds),
        best,
        judged: search.judged,
        cut: search.cut,
    })
}

struct Search<'c> {
    costs: &'c dyn PipelineCosts,
    best: Option<Pipeline>,
    /// The least bound of all that was judged.
    bound: f64,
    judged: u64,
    cut: u64,
}

impl Search<'_> {
    /// Seconds that are worth looking for.
    fn limit(&self) -> f64 {
        self.best
            .as_ref()
            .map_or(f64::INFINITY, |best| best.seconds)
    }

    /// Cuts the most promising of the pipelines that have as many stages as the devices make.
    fn begin(&mut self, groups: &[Group<'_>]) {
        let mut found = Vec::new();
        for group in groups {
            let list = Listing::of(self.costs, group, Scope::Largest, self.limit());
            found.extend(list.found.into_iter().map(|it| (group, it)));
        }
        found.sort_by(|a, b| a.1.floor.total_cmp(&b.1.floor));
        for (group, composition) in found.iter().take(FIRST) {
            self.cut(group, composition);
        }
    }

    fn look_through(&mut self, group: &Group<'_>) {
        let list = Listing::of(self.costs, group, Scope::All, self.limit());
        let (judged, least, mut found) = (list.judged, list.least, list.found);
        self.judged += judged;
        self.bound = self.bound.min(least);
        found.sort_by(|a, b| a.floor.total_cmp(&b.floor));
        for composition in &found {
            if composition.floor >= self.limit() {
                break;
            }
            self.cut(group, composition);
        }
    }

    /// Cuts the layers for every order of the teams.
    fn cut(&mut self, group: &Group<'_>, composition: &Composition) {
        for order in orders(composition.teams.len()) {
            let stages: Vec<usize> = order
                .iter()
                .flat_map(|&team| std::iter::repeat_n(team, composition.teams[team].stages))
                .collect();
            self.cut += 1;
            let found = cut_in_order(self.costs, group, (composition, &stages), self.limit());
            if let Some(cut) = found {
                self.best = Some(pipeline(self.costs, group, &composition.teams, cut));
            }
        }
    }
}

/// The best cut for stages in order, if it takes less than `below`.
fn cut_in_order(
    costs: &dyn PipelineCosts,
    group: &Group<'_>,
    (composition, order): (&Composition, &[usize]),
    below: f64,
) -> Option<Cut> {
    let micro_batch = group.paces.micro_batch;
    let slots = |team: usize| composition.teams[team].slots.as_slice();
    let place = |stage: Stage| StagePlace {
        slots: slots(stage.class),
        before: stage.before.checked_sub(1).map(|at| slots(order[at])),
        after: order.get(stage.before + 1).map(|&team| slots(team)),
        stages: order.len(),
    };
    let seconds = |stage: Stage, layers: Range<usize>| {
        let place = place(stage);
        let each = place.slots.iter();
        let each = each.map(|&slot| costs.compute_seconds(slot, micro_batch, layers.clone()));
        each.fold(0.0, f64::max) + costs.exchange_seconds(&place, micro_batch, layers)
    };
    let after = |stage: Stage, layers: Range<usize>| {
        costs.finish_seconds(slots(stage.class), group.replicas, layers)
    };
    let fits = |stage: Stage, layers: Range<usize>| {
        let fits = |&slot| costs.fits(slot, micro_batch, layers.clone(), stage.after);
        slots(stage.class).iter().all(fits)
    };
    let chain = Chain {
        layers: costs.layers(),
        micro_batches: group.micro_batches,
        seconds: &seconds,
        after: &after,
        fits: &fits,
        below,
        layer: &|_| 0.0,
        joints: None,
    };
    cut_chain(&chain, order).ok()
}

/// The pipeline of a cut, with every replica in a slot.
fn pipeline(costs: &dyn PipelineCosts, group: &Group<'_>, teams: &[Team], cut: Cut) -> Pipeline {
    let mut left: Vec<u64> = costs.devices().to_vec();
    for team in teams.iter().filter(|team| team.slots.len() == 1) {
        let slot = team.slots[0];
        left[slot.class] -= u64::from(slot.width) * group.replicas * team.stages as u64;
    }
    let mut take = |slots: &[Slot]| -> Vec<(Slot, u64)> {
        let mut missing = group.replicas;
        let mut taken = Vec::new();
        for &slot in slots {
            let count = match slots.len() {
                1 => missing,
                _ => missing.min(left[slot.class] / u64::from(slot.width)),
            };
            if slots.len() > 1 {
                left[slot.class] -= count * u64::from(slot.width);
            }
            missing -= count;
            taken.push((slot, count));
        }
        taken.retain(|(_, count)| *count > 0);
        taken
    };
    let stages = cut.stages.into_iter().map(|(team, layers)| PipelineStage {
        layers,
        slots: take(&teams[team].slots),
    });
    Pipeline {
        micro_batch: group.paces.micro_batch,
        micro_batches: group.micro_batches,
        replicas: group.replicas,
        stages: stages.collect(),
        seconds: cut.seconds,
    }
}

/// Orders of so many teams: all, or where there are many, one and its reverse.
fn orders(teams: usize) -> Vec<Vec<usize>> {
    if teams > MOST_PERMUTED {
        return vec![(0..teams).collect(), (0..teams).rev().collect()];
    }
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for team in 0..teams {
        let with = |order: &Vec<usize>| {
            let at = |place: usize| {
                let mut order = order.clone();
                order.insert(place, team);
                order
            };
            (0..=order.len()).map(at).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(with).collect();
    }
    orders
}
