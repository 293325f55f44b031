//! How many stages of which kind a pipeline may have, each with what it cannot beat.

use super::bound::{Crew, Kind, Pace, Paces};
use super::{PipelineCosts, Slot};

/// Most classes of whose left-over slots every choice is tried.
const MOST_CHOSEN: usize = 6;

/// A number of replicas with a size of micro-batches.
pub(super) struct Group<'p> {
    pub(super) paces: &'p Paces,
    pub(super) replicas: u64,
    /// Micro-batches of each replica.
    pub(super) micro_batches: u64,
    /// What none of its pipelines can beat.
    pub(super) floor: f64,
}

/// Stages that have the same kinds of slots.
#[derive(Clone)]
pub(super) struct Team {
    pub(super) slots: Vec<Slot>,
    pub(super) stages: usize,
}

/// How many stages of which kind.
pub(super) struct Composition {
    pub(super) teams: Vec<Team>,
    pub(super) floor: f64,
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

/// All numbers of micro-batches, each with the fewest replicas that it needs: more would only add
/// to what is reduced.
pub(super) fn groups<'p>(costs: &dyn PipelineCosts, paces: &'p Paces) -> Vec<Group<'p>> {
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
pub(super) enum Scope {
    /// Those with as many stages of a class as its devices make, by their quick bound.
    Largest,
    /// All.
    All,
}

/// Lists the compositions of a group that may be below the limit.
pub(super) struct Listing<'s, 'p> {
    scope: Scope,
    group: &'s Group<'p>,
    devices: &'s [u64],
    rates: Vec<f64>,
    finish: Finish<'s>,
    layers: usize,
    limit: f64,
    /// The least bound of those that were judged.
    pub(super) least: f64,
    /// How many were.
    pub(super) judged: u64,
    pub(super) found: Vec<Composition>,
    there: Vec<Given<'p>>,
}

impl<'p> Listing<'p, 'p> {
    /// Lists the compositions of a group that may be below a limit.
    pub(super) fn of(
        costs: &'p dyn PipelineCosts,
        group: &'p Group<'p>,
        scope: Scope,
        limit: f64,
    ) -> Self {
        let mut list = Self {
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
            limit,
            least: f64::INFINITY,
            judged: 0,
            found: Vec::new(),
            there: Vec::new(),
        };
        list.extend(&mut Vec::new(), Crew::default());
        list
    }
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
    fn judge(&mut self, given: &[Option<Given<'p>>], crew: Crew) {
        // One buffer for all: this is done for every composition there is.
        let mut there = std::mem::take(&mut self.there);
        there.clear();
        there.extend(given.iter().flatten().copied());
        let left: u64 = there.iter().map(|it| it.left).sum();
        let kinds = match left >= self.group.replicas {
            true => there.len().min(MOST_CHOSEN),
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
        self.there = there;
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
