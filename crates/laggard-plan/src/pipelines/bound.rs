//! What no pipeline with so many stages of each kind can beat, however its layers are cut: a quick
//! bound, and one that takes layers as wholes.
//!
//! A step takes `(m - 1) T + sum(t)` where no stage takes more than T. With `s` stages on slots of
//! pace `r` (seconds of an average layer), each time is weighted by `theta / r`, where `theta`
//! makes the weights of the stages add up to `m - 1` for T besides one for each stage's own time:
//! then the step takes at least `theta` times the work, each layer counted in the unit in which it
//! is least. This is the dual of letting layers be split at will.
//!
//! The second bound goes through what the slowest stage may take and how many layers the largest
//! may have. A stage then has at most as many as it can do in that time, so the slower kinds must
//! take what the faster ones cannot, and the largest stage's gradients must be reduced. Layers at
//! the ends that cost next to nothing are left out of it, lest every stage seem to have one.

use std::ops::Range;

use super::{PipelineCosts, Slot};

/// Layers at the ends that cost less than this share of the mean are left out of the second bound.
const NEXT_TO_NOTHING: f64 = 0.5;

/// A kind of slot and how fast it is.
pub(super) struct Pace {
    pub(super) slot: Slot,
    /// Its position among all slots.
    pub(super) index: usize,
    /// Seconds of an average layer.
    pub(super) layer: f64,
    /// What a stage on it spends on its neighbours at least, by the number of stages.
    exchange: Vec<f64>,
    /// Least seconds of so many of the layers that count, wherever they are.
    fewest: Vec<f64>,
}

impl Pace {
    /// What a stage on it spends on its neighbours at least, of so many stages.
    pub(super) fn exchange(&self, stages: usize) -> f64 {
        self.exchange[stages]
    }

    /// Most layers that a stage can do in some seconds.
    fn most_in(&self, seconds: f64) -> usize {
        self.fewest.partition_point(|it| *it <= seconds).max(1) - 1
    }
}

/// Stages of which all have the same kinds of slots.
pub(super) struct Kind<'p> {
    pub(super) paces: Vec<&'p Pace>,
    pub(super) stages: usize,
}

impl Kind<'_> {
    /// What its stages spend on their neighbours at least.
    fn exchange(&self, stages: usize) -> f64 {
        let least = self.paces.iter().map(|it| it.exchange[stages]);
        least.fold(f64::INFINITY, f64::min)
    }

    fn most_in(&self, seconds: f64) -> usize {
        let most = self.paces.iter().map(|it| it.most_in(seconds));
        most.min().unwrap_or(0)
    }

    /// Least seconds of so many layers.
    fn seconds(&self, layers: usize) -> f64 {
        let each = self.paces.iter().map(|it| it.fewest[layers]);
        each.fold(0.0, f64::max)
    }
}

/// The slots for micro-batches of one size.
pub(super) struct Paces {
    pub(super) micro_batch: u32,
    /// Kinds of slots of all classes.
    pub(super) slots: usize,
    /// Class by class.
    pub(super) of_class: Vec<Vec<Pace>>,
    /// All layers, each in average layers of the slot that it suits best.
    work: f64,
    /// Seconds of all layers, each on its fastest slot.
    least: f64,
    /// The same of those that do not count in the second bound.
    ends: f64,
    /// How many count.
    counted: usize,
    /// The slowest slot's average layer, and the fastest one's.
    slowest: f64,
    fastest: f64,
}

/// Stages of a pipeline as far as a bound needs them.
#[derive(Clone, Copy, Default)]
pub(super) struct Crew {
    pub(super) stages: usize,
    /// The sum of `1 / layer` over them.
    pub(super) speed: f64,
    /// The slowest one's average layer.
    pub(super) slowest: f64,
}

impl Crew {
    /// The same with more stages of a pace.
    pub(super) fn with(&self, stages: usize, layer: f64) -> Self {
        if stages == 0 {
            return *self;
        }
        let count = stages as f64;
        Self {
            stages: self.stages + stages,
            speed: self.speed + count / layer,
            slowest: self.slowest.max(layer),
        }
    }
}

impl Paces {
    /// The paces of all slots, or `None` where no class has any.
    pub(super) fn of(costs: &dyn PipelineCosts, micro_batch: u32) -> Option<Self> {
        let layers = costs.layers();
        let mut relative = vec![f64::INFINITY; layers];
        let mut absolute = relative.clone();
        let (mut slowest, mut fastest) = (0.0_f64, f64::INFINITY);
        let mut slots = 0;
        let counted = counted(costs, micro_batch);
        let mut pace = |class: usize, width: u32| {
            let slot = Slot { class, width };
            let seconds = |at: usize| costs.compute_seconds(slot, micro_batch, at..at + 1);
            let layer = (0..layers).map(seconds).sum::<f64>() / layers as f64;
            for at in 0..layers {
                relative[at] = relative[at].min(seconds(at) / layer);
                absolute[at] = absolute[at].min(seconds(at));
            }
            slowest = slowest.max(layer);
            fastest = fastest.min(layer);
            slots += 1;
            let exchange = |stages: usize| match stages {
                0 | 1 => 0.0,
                _ => costs.least_exchange_seconds(slot, micro_batch, stages),
            };
            let fewest = |count: usize| {
                let starts = counted.start..=counted.end - count;
                let of = |at: usize| costs.compute_seconds(slot, micro_batch, at..at + count);
                starts.map(of).fold(f64::INFINITY, f64::min)
            };
            Pace {
                slot,
                index: slots - 1,
                layer,
                exchange: (0..=layers).map(exchange).collect(),
                fewest: (0..=counted.len()).map(fewest).collect(),
            }
        };
        let of_class: Vec<Vec<Pace>> = (0..costs.devices().len())
            .map(|class| {
                let there = costs.devices()[class];
                let widths = costs.widths(class, micro_batch).into_iter();
                let usable = widths.filter(|&width| width > 0 && u64::from(width) <= there);
                usable.map(|width| pace(class, width)).collect()
            })
            .collect();
        (slots > 0).then(|| Self {
            micro_batch,
            slots,
            of_class,
            work: relative.iter().sum(),
            least: absolute.iter().sum(),
            ends: absolute[..counted.start].iter().sum::<f64>()
                + absolute[counted.end..].iter().sum::<f64>(),
            counted: counted.len(),
            slowest,
            fastest,
        })
    }

    /// Average layers a second of a stage on the fastest slot.
    pub(super) fn fastest_rate(&self) -> f64 {
        1.0 / self.fastest
    }

    /// Least seconds of `micro_batches` through given stages; `drag` is the sum of what they spend
    /// on their neighbours, each over its average layer.
    pub(super) fn least_seconds(&self, crew: &Crew, drag: f64, micro_batches: u64) -> f64 {
        self.seconds(crew, self.work + drag, micro_batches)
    }

    /// Least seconds through stages of at most this speed, and at least so many: more may come.
    pub(super) fn least_with(&self, speed: f64, stages: usize, micro_batches: u64) -> f64 {
        let crew = Crew {
            stages: stages.max(1),
            speed,
            slowest: self.slowest,
        };
        self.seconds(&crew, self.work, micro_batches)
    }

    /// Least seconds of a step of stages of given kinds, or `enough` where that is less; `finish`
    /// says what a stage of so many layers takes at least after the last micro-batch.
    pub(super) fn least_of_wholes(
        &self,
        kinds: &[Kind<'_>],
        micro_batches: u64,
        enough: f64,
        finish: &mut dyn FnMut(&Pace, usize) -> f64,
    ) -> f64 {
        let others = (micro_batches.max(1) - 1) as f64;
        let stages: usize = kinds.iter().map(|kind| kind.stages).sum();
        let exchanges = kinds
            .iter()
            .map(|it| it.stages as f64 * it.exchange(stages));
        let fixed = self.ends + exchanges.sum::<f64>();
        let mut by_speed: Vec<&Kind<'_>> = kinds.iter().collect();
        by_speed.sort_by(|a, b| a.seconds(1).total_cmp(&b.seconds(1)));
        let mut best = enough;
        for kind in kinds {
            // The slowest stage is one of these, with so many layers.
            for layers in 1..=self.counted {
                let slowest = kind.seconds(layers) + kind.exchange(stages);
                let least = others * slowest + fixed;
                if least >= best {
                    break;
                }
                // A hair more, so that what takes exactly so long is not lost to rounding.
                let left = |kind: &Kind<'_>| slowest * (1.0 + 1e-9) - kind.exchange(stages);
                let most = by_speed.iter().map(|it| it.most_in(left(it)));
                for largest in (1..=most.max().unwrap_or(0)).rev() {
                    let Some(sum) = self.least_sum(&by_speed, largest, &left) else {
                        break;
                    };
                    if least + sum >= best {
                        break;
                    }
                    let able = kinds.iter().filter(|it| it.most_in(left(it)) >= largest);
                    let paces = able.flat_map(|kind| &kind.paces);
                    let ends = paces.map(|pace| finish(pace, largest));
                    best = best.min(least + sum + ends.fold(f64::INFINITY, f64::min));
                }
            }
        }
        best
    }

    /// Least seconds of all layers that count, where a stage has no more than it can do in what is
    /// `left` for it and no more than `most`; `None` where they are too many.
    fn least_sum(
        &self,
        by_speed: &[&Kind<'_>],
        most: usize,
        left: &dyn Fn(&Kind<'_>) -> f64,
    ) -> Option<f64> {
        let (mut missing, mut sum) = (self.counted, 0.0);
        for kind in by_speed {
            let room = kind.stages * kind.most_in(left(kind)).min(most);
            let taken = room.min(missing);
            missing -= taken;
            sum += taken as f64 * kind.seconds(1);
        }
        (missing == 0).then_some(sum)
    }

    fn seconds(&self, crew: &Crew, work: f64, micro_batches: u64) -> f64 {
        let others = (micro_batches.max(1) - 1) as f64;
        let plain = others * work / crew.speed + self.least;
        let theta = (others + crew.stages as f64) / crew.speed;
        // Weights below one would count a stage's own time less than it is.
        match theta >= crew.slowest {
            true => plain.max(theta * work),
            false => plain,
        }
    }
}

/// Layers without those at the ends that cost next to nothing on every slot.
fn counted(costs: &dyn PipelineCosts, micro_batch: u32) -> Range<usize> {
    let all = 0..costs.layers();
    let slots: Vec<Slot> = (0..costs.devices().len())
        .flat_map(|class| {
            let widths = costs.widths(class, micro_batch).into_iter();
            widths.map(move |width| Slot { class, width })
        })
        .collect();
    let counts = |&at: &usize| {
        slots.iter().any(|&slot| {
            let of = |layers: Range<usize>| costs.compute_seconds(slot, micro_batch, layers);
            of(at..at + 1) * all.len() as f64 >= NEXT_TO_NOTHING * of(all.clone())
        })
    };
    let first = all.clone().find(counts).unwrap_or(0);
    let last = all.clone().rev().find(counts).unwrap_or(all.end - 1);
    first..last + 1
}
