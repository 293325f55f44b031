//! The search: first some pipelines of all devices, for something to beat; then numbers of replicas
//! by what they could reach at best, within them numbers of stages by their bound, and for those
//! that may beat the best so far, the exact cut.

use std::ops::Range;

use super::bound::{Crew, Kind, Pace, Paces};
use super::{FoundPipeline, Pipeline, PipelineCosts, PipelineStage, Slot, StagePlace};
use crate::stages::{Chain, Cut, Stage, cut_chain};

/// Most kinds of stages whose every order is tried; of more, two orders are.
const MOST_PERMUTED: usize = 4;
/// Pipelines of all devices that are cut first.
const FIRST: usize = 24;

/// A number of replicas with a size of micro-batches.
struct Group<'p> {
    paces: &'p Paces,
    replicas: u64,
    /// Micro-batches of each replica.
    micro_batches: u64,
    /// What none of its pipelines can beat.
    floor: f64,
}

/// Stages that have the same kinds of slots.
#[derive(Clone)]
struct Team {
    slots: Vec<Slot>,
    stages: usize,
}

/// How many stages of which kind.
struct Composition {
    teams: Vec<Team>,
    floor: f64,
}

/// What a class gives to a pipeline.
#[derive(Clone, Copy)]
struct Given<'p> {
    pace: &'p Pace,
    /// Stages that are wholly of the class.
    stages: usize,
    /// Slots that are left, less than a stage.
    left: u64,
}

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

/// All numbers of micro-batches, each with the fewest replicas that it needs: more would only add
/// to what is reduced.
fn groups<'p>(costs: &dyn PipelineCosts, paces: &'p Paces) -> Vec<Group<'p>> {
    let batches = costs.global_batch().div_ceil(u64::from(paces.micro_batch));
    let mut groups = Vec::new();
    let mut micro_batches = 1;
    loop {
        let replicas = batches.div_ceil(micro_batches);
        let speed: f64 = fastest_rates(costs, paces, replicas).iter().sum();
        let speed = speed.min(costs.layers() as f64 * paces.fastest_rate());
        if speed > 0.0 {
            groups.push(Group {
                paces,
                replicas,
                micro_batches,
                floor: paces.least_with(speed, 1, micro_batches),
            });
        }
        if replicas == 1 {
            return groups;
        }
        micro_batches = (batches - 1) / (replicas - 1) + 1;
    }
}

/// For each class the speed of all its devices at the width that suits them best, shares of stages
/// included.
fn fastest_rates(costs: &dyn PipelineCosts, paces: &Paces, replicas: u64) -> Vec<f64> {
    let rate = |(pace, devices): (&Pace, u64)| {
        let slots = devices / u64::from(pace.slot.width);
        slots as f64 / replicas as f64 / pace.layer
    };
    let of_class = paces.of_class.iter().zip(costs.devices());
    of_class
        .map(|(slots, &devices)| {
            let rates = slots.iter().map(|pace| rate((pace, devices)));
            rates.fold(0.0, f64::max)
        })
        .collect()
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
            let mut list = self.listing(group, Scope::Largest);
            list.extend(&mut Vec::new(), Crew::default());
            found.extend(list.found.into_iter().map(|it| (group, it)));
        }
        found.sort_by(|a, b| a.1.floor.total_cmp(&b.1.floor));
        for (group, composition) in found.iter().take(FIRST) {
            self.cut(group, composition);
        }
    }

    fn look_through(&mut self, group: &Group<'_>) {
        let mut list = self.listing(group, Scope::All);
        list.extend(&mut Vec::new(), Crew::default());
        let Listing {
            judged,
            least,
            mut found,
            ..
        } = list;
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

    fn listing<'p>(&self, group: &'p Group<'p>, scope: Scope) -> Listing<'p, 'p>
    where
        Self: 'p,
    {
        let costs = self.costs;
        Listing {
            scope,
            group,
            devices: costs.devices(),
            rates: fastest_rates(costs, group.paces, group.replicas),
            finish: Finish {
                costs,
                replicas: group.replicas,
                known: vec![None; (costs.layers() + 1) * group.paces.slots],
            },
            layers: costs.layers(),
            limit: self.limit(),
            least: f64::INFINITY,
            judged: 0,
            found: Vec::new(),
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

/// What stages of a number of layers spend after the last micro-batch at least.
struct Finish<'c> {
    costs: &'c dyn PipelineCosts,
    replicas: u64,
    known: Vec<Option<f64>>,
}

impl Finish<'_> {
    fn least(&mut self, pace: &Pace, layers: usize) -> f64 {
        let (costs, replicas) = (self.costs, self.replicas);
        let known = &mut self.known[pace.index * (costs.layers() + 1) + layers];
        *known.get_or_insert_with(|| costs.least_finish_seconds(pace.slot, replicas, layers))
    }
}

/// Which compositions are listed.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// Those with as many stages of a class as its devices make, by their quick bound.
    Largest,
    /// All.
    All,
}

/// Lists the compositions of a group that may be below the limit.
struct Listing<'s, 'p> {
    scope: Scope,
    group: &'s Group<'p>,
    devices: &'s [u64],
    rates: Vec<f64>,
    finish: Finish<'s>,
    layers: usize,
    limit: f64,
    least: f64,
    judged: u64,
    found: Vec<Composition>,
}

impl<'p> Listing<'_, 'p> {
    /// Adds every way for the next class to take part to what the classes before it give.
    fn extend(&mut self, given: &mut Vec<Option<Given<'p>>>, crew: Crew) {
        let class = given.len();
        let paces: &'p Paces = self.group.paces;
        let Some(of_class) = paces.of_class.get(class) else {
            self.judge(given, crew);
            return;
        };
        given.push(None);
        if self.may_do(given, &crew) {
            self.extend(given, crew);
        }
        for pace in of_class {
            let slots = self.devices[class] / u64::from(pace.slot.width);
            let most = usize::try_from(slots / self.group.replicas).unwrap_or(usize::MAX);
            let most = most.min(self.layers - crew.stages);
            let fewest = match self.scope {
                Scope::Largest => most,
                Scope::All => 0,
            };
            for stages in fewest..=most {
                let left = slots - stages as u64 * self.group.replicas;
                given[class] = Some(Given {
                    pace,
                    stages,
                    left: left.min(self.group.replicas - 1),
                });
                let crew = crew.with(stages, pace.layer);
                if self.may_do(given, &crew) {
                    self.extend(given, crew);
                }
            }
        }
        given.pop();
    }

    /// Whether what is given may become a pipeline below the limit.
    fn may_do(&self, given: &[Option<Given<'_>>], crew: &Crew) -> bool {
        let shares = given.iter().flatten();
        let shares = shares.map(|it| it.left as f64 / self.group.replicas as f64 / it.pace.layer);
        let to_come: f64 = self.rates[given.len()..].iter().sum();
        // No more stages can come than there are layers left for.
        let room = (self.layers - crew.stages) as f64 * self.group.paces.fastest_rate();
        let speed = crew.speed + (shares.sum::<f64>() + to_come).min(room);
        let batches = self.group.micro_batches;
        speed > 0.0 && self.group.paces.least_with(speed, crew.stages, batches) < self.limit
    }

    /// Judges what the classes give, with each number of stages that they can make together.
    fn judge(&mut self, given: &[Option<Given<'_>>], crew: Crew) {
        let there: Vec<Given<'_>> = given.iter().flatten().copied().collect();
        let left: u64 = there.iter().map(|it| it.left).sum();
        let kinds = match left >= self.group.replicas {
            true => there.len().min(MOST_PERMUTED + 2),
            // Too little for a stage.
            false => 0,
        };
        for set in 0..1_u32 << kinds {
            let together: Vec<Given<'_>> = (0..there.len())
                .filter(|bit| set & (1 << bit) != 0)
                .map(|bit| there[bit])
                .collect();
            if together.len() == 1 || together.iter().any(|it| it.left == 0) {
                continue;
            }
            let idle = |(bit, it): (usize, &Given<'_>)| it.stages == 0 && set & (1 << bit) == 0;
            if there.iter().enumerate().any(idle) {
                continue;
            }
            let slots: u64 = together.iter().map(|it| it.left).sum();
            let most = match together.len() {
                0 => 0,
                _ => slots / self.group.replicas,
            };
            // Fewer classes could do what does not need them all.
            let fewest = u64::from(!together.is_empty());
            for stages in fewest..=most {
                self.judge_with(&there, &together, (crew, stages as usize));
            }
        }
    }

    fn judge_with(
        &mut self,
        there: &[Given<'_>],
        together: &[Given<'_>],
        (crew, stages): (Crew, usize),
    ) {
        let layers = together.iter().map(|it| it.pace.layer);
        let layer = layers.fold(0.0, f64::max);
        let crew = crew.with(stages, layer);
        if crew.stages == 0 || crew.stages > self.layers {
            return;
        }
        self.judged += 1;
        let of = |it: &Given<'_>| it.pace.exchange(crew.stages);
        let pure = there.iter();
        let mut drag: f64 = pure
            .map(|it| it.stages as f64 * of(it) / it.pace.layer)
            .sum();
        if stages > 0 {
            let exchange = together.iter().map(of).fold(f64::INFINITY, f64::min);
            drag += stages as f64 * exchange / layer;
        }
        let batches = self.group.micro_batches;
        let mut floor = self.group.paces.least_seconds(&crew, drag, batches);
        if floor < self.limit {
            // Some stage has at least as many layers as the average.
            let layers = self.layers.div_ceil(crew.stages);
            let finish = &mut self.finish;
            let least = there.iter().map(|it| finish.least(it.pace, layers));
            floor += least.fold(f64::INFINITY, f64::min);
        }
        if floor < self.limit && self.scope == Scope::All {
            floor = floor.max(self.least_of_wholes(there, together, stages));
        }
        self.least = self.least.min(floor);
        if floor >= self.limit {
            return;
        }
        let pure = there.iter().filter(|it| it.stages > 0).map(|it| Team {
            slots: vec![it.pace.slot],
            stages: it.stages,
        });
        let mixed = (stages > 0).then(|| Team {
            slots: together.iter().map(|it| it.pace.slot).collect(),
            stages,
        });
        self.found.push(Composition {
            teams: pure.chain(mixed).collect(),
            floor,
        });
    }

    fn least_of_wholes(
        &mut self,
        there: &[Given<'_>],
        together: &[Given<'_>],
        mixed: usize,
    ) -> f64 {
        let pure = there.iter().filter(|it| it.stages > 0).map(|it| Kind {
            paces: vec![it.pace],
            stages: it.stages,
        });
        let mixed = (mixed > 0).then(|| Kind {
            paces: together.iter().map(|it| it.pace).collect(),
            stages: mixed,
        });
        let kinds: Vec<Kind<'_>> = pure.chain(mixed).collect();
        let finish = &mut self.finish;
        let mut finish = |pace: &Pace, layers| finish.least(pace, layers);
        let batches = self.group.micro_batches;
        let paces = self.group.paces;
        paces.least_of_wholes(&kinds, batches, self.limit, &mut finish)
    }
}
