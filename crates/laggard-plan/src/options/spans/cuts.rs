//! The best cuts of layers into so many stages of each class.

use laggard_specs::{MemoryLayout, Model, memory_of_stage};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::super::across;
use super::setting::Setting;
use crate::layouts::USABLE_MEMORY;
use crate::stages::{Chain, Cut, Joints, Stage, cut_chain, order_stages};

/// Most pairs of layers times ways to have used some stages of each class that all orders are
/// looked through for.
const MOST_ORDERS: usize = 2_000_000;

/// How far above the bound a cut is looked for first, as factors.
const NEAR: [f64; 2] = [1.02, 1.1];

/// The best cuts that were found.
pub(super) struct Cuts {
    /// Class and layers of each stage.
    pub(super) list: Vec<Vec<(usize, usize)>>,
    /// Whether no order of the stages has a better one.
    pub(super) are_best_of_all: bool,
}

impl Setting<'_, '_> {
    /// The best cuts that train more than `best` tokens a second: of all orders of stages, or where
    /// these are many, one for each order of sites with the most memory first.
    pub(super) fn cuts(&self, best: f64) -> Cuts {
        self.cuts_of(best, MOST_ORDERS)
    }

    /// The same where so many pairs of layers and ways are not many.
    pub(super) fn cuts_of(&self, best: f64, few: usize) -> Cuts {
        let problem = self.costs.problem;
        let layers = problem.training.model.layers as usize;
        let room = Room::of(self);
        let site = |class: usize| problem.classes[class].site;
        let between = |sites: [usize; 2]| self.costs.joint(sites, self.sequences());
        let sites: BTreeSet<usize> = self.there().map(site).collect();
        let chain = Chain {
            layers,
            micro_batches: self.degrees.micro_batches.into(),
            seconds: &|stage, range| self.seconds(stage.class, range.len(), range.end == layers),
            after: &|_, _| 0.0,
            fits: &|stage, range| room.has(stage, &range),
            below: self.longest(best),
            layer: &|class| self.paces[class].layer,
            joints: (sites.len() > 1).then_some(Joints {
                site: &site,
                between: &between,
            }),
        };
        let in_numbers = |cut: Cut| -> Vec<(usize, usize)> {
            let stages = cut.stages.into_iter();
            stages.map(|(class, range)| (class, range.len())).collect()
        };
        let states: usize = self.stages.iter().fold(sites.len(), |states, count| {
            states.saturating_mul(count + 1)
        });
        if states.saturating_mul(layers * layers) <= few {
            let there: Vec<usize> = self.there().collect();
            let least = self.least_of_pipeline();
            // Near the bound few ways need be looked at, and mostly there is one.
            let limits = NEAR.map(|near| least * near).into_iter();
            let limits = limits.filter(|limit| *limit < chain.below);
            let cut = limits
                .chain([chain.below])
                .find_map(|below| in_any_order(&Chain { below, ..chain }, &there, self.stages));
            return Cuts {
                list: cut.map(in_numbers).into_iter().collect(),
                are_best_of_all: true,
            };
        }
        let (orders, are_all) = across::orders(problem, &sites);
        let cut = |order: Vec<usize>| cut_chain(&chain, &self.by_memory(&order)).ok();
        Cuts {
            list: orders.into_iter().filter_map(cut).map(in_numbers).collect(),
            are_best_of_all: are_all && sites.len() == self.there().count(),
        }
    }

    /// The classes that have stages.
    fn there(&self) -> impl Iterator<Item = usize> {
        (0..self.stages.len()).filter(|&class| self.stages[class] > 0)
    }

    /// The classes of stages in an order of sites, at each the class with the most memory first.
    fn by_memory(&self, sites: &[usize]) -> Vec<usize> {
        let classes = &self.costs.problem.classes;
        let place = |class: usize| sites.iter().position(|&site| site == classes[class].site);
        let memory = |class: usize| classes[class].of.machine.memory_bytes;
        let mut there: Vec<usize> = self.there().collect();
        there.sort_by(|&a, &b| {
            let memories = memory(b).total_cmp(&memory(a));
            place(a).cmp(&place(b)).then(memories)
        });
        let stages = there.into_iter();
        let stages = stages.flat_map(|class| std::iter::repeat_n(class, self.stages[class]));
        stages.collect()
    }
}

/// The best cut in the best order, by the classes that take part alone.
fn in_any_order(chain: &Chain<'_>, there: &[usize], counts: &[usize]) -> Option<Cut> {
    let of = |stage: Stage| Stage {
        class: there[stage.class],
        ..stage
    };
    let counts: Vec<usize> = there.iter().map(|&class| counts[class]).collect();
    let site = chain
        .joints
        .map(|joints| move |class: usize| (joints.site)(there[class]));
    let few = Chain {
        seconds: &|stage, range| (chain.seconds)(of(stage), range),
        after: &|stage, range| (chain.after)(of(stage), range),
        fits: &|stage, range| (chain.fits)(of(stage), range),
        layer: &|class| (chain.layer)(there[class]),
        joints: chain
            .joints
            .zip(site.as_ref())
            .map(|(joints, site)| Joints { site, ..joints }),
        ..*chain
    };
    let mut cut = order_stages(&few, &counts).ok()?;
    cut.stages.iter_mut().for_each(|it| it.0 = there[it.0]);
    Some(cut)
}

/// What fits into memory, found out once.
struct Room<'s> {
    setting: &'s Setting<'s, 's>,
    layout: MemoryLayout,
    known: RefCell<Known>,
}

/// A model of as many layers as are asked for, and the bytes that were found.
struct Known {
    model: Model,
    needs: Vec<Option<f64>>,
}

impl<'s> Room<'s> {
    fn of(setting: &'s Setting<'s, 's>) -> Self {
        let training = &setting.costs.problem.training;
        let stages = setting.degrees.pipeline as usize;
        let needs = vec![None; stages * (training.model.layers as usize + 1)];
        Self {
            setting,
            layout: setting
                .costs
                .problem
                .demand()
                .memory_layout(&setting.degrees),
            known: RefCell::new(Known {
                model: training.model.clone(),
                needs,
            }),
        }
    }

    fn has(&self, stage: Stage, range: &Range<usize>) -> bool {
        let classes = &self.setting.costs.problem.classes;
        let memory = classes[stage.class].of.machine.memory_bytes;
        self.need(stage.before, range.len()) <= memory * USABLE_MEMORY
    }

    /// Memory of a stage with so many layers, bytes: that of an even pipeline of as many on each;
    /// infinite where it cannot be.
    fn need(&self, stage: usize, layers: usize) -> f64 {
        let mut known = self.known.borrow_mut();
        let Known { model, needs } = &mut *known;
        let stages = self.setting.degrees.pipeline as usize;
        *needs[layers * stages + stage].get_or_insert_with(|| {
            model.layers = (layers * stages) as u64;
            let need = memory_of_stage(model, &self.layout, stage as u64);
            need.map_or(f64::INFINITY, |need| need.total().0 as f64)
        })
    }
}
