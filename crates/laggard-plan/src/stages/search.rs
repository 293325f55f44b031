//! The search for the best cut: ways to place layers, kept where no other way beats them.

use std::ops::Range;

use super::{Chain, ChainError, Cut, Joint, Stage, StageSeconds};

/// What the stages so far take, seconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Terms {
    slowest: f64,
    sum: f64,
    after: f64,
    /// The last stage, where something may lie between it and the next.
    last: f64,
}

impl Terms {
    pub(super) fn with(&self, stage: &StageSeconds) -> Self {
        Self {
            slowest: self.slowest.max(stage.micro_batch),
            sum: self.sum + stage.micro_batch,
            after: self.after.max(stage.after),
            last: self.last,
        }
    }

    /// The same with a stage before all so far in the pipeline, from which on there are so many,
    /// and what lies between it and them.
    fn behind(
        &self,
        (stage, from_on): (&StageSeconds, usize),
        joint: Option<Joint>,
        micro_batches: u64,
    ) -> Self {
        let mut terms = self.with(stage);
        terms.last = stage.micro_batch;
        if let Some(joint) = joint {
            let held = joint.holds_up([stage.micro_batch, self.last], from_on, micro_batches);
            terms.slowest = terms.slowest.max(joint.each).max(held);
            terms.sum += joint.both_ways;
        }
        terms
    }

    /// Seconds of a step of these stages.
    pub(super) fn step(&self, micro_batches: u64) -> f64 {
        let others = micro_batches.max(1) - 1;
        self.sum + others as f64 * self.slowest + self.after
    }

    /// Seconds that a step takes at least where so many layers are to come on some stages.
    fn least_step(&self, layers: usize, rest: &Rest, micro_batches: u64) -> f64 {
        let layers = layers as f64;
        let terms = Self {
            slowest: self.slowest.max(layers / rest.speed),
            sum: self.sum + layers * rest.fastest,
            ..*self
        };
        // A hair less, since sums are rounded.
        terms.step(micro_batches) * (1.0 - 1e-12)
    }

    /// Whether no pipeline that goes on from here is worse than one that goes on from `other`.
    fn beats(&self, other: &Self) -> bool {
        self.slowest <= other.slowest
            && self.sum <= other.sum
            && self.after <= other.after
            && self.last <= other.last
    }
}

/// Stages that are to come, by their layers' least times.
struct Rest {
    /// Layers a second of all.
    speed: f64,
    /// Seconds of a layer on the fastest.
    fastest: f64,
}

/// A way to place the layers so far.
#[derive(Clone, Copy)]
struct Partial {
    terms: Terms,
    class: u32,
    /// Site of the stage before the last one, layers before the last, and which of the ways to
    /// place those.
    from: (u32, u32, u32),
}

/// The stages used of each class, as a number of mixed radix.
struct Used<'a> {
    counts: &'a [usize],
}

impl Used<'_> {
    fn states(&self) -> usize {
        self.counts.iter().map(|count| count + 1).product()
    }

    fn step(&self, class: usize) -> usize {
        let smaller = self.counts[..class].iter();
        smaller.map(|count| count + 1).product()
    }

    fn of(&self, state: usize, class: usize) -> usize {
        state / self.step(class) % (self.counts[class] + 1)
    }

    fn all(&self, state: usize) -> usize {
        (0..self.counts.len())
            .map(|class| self.of(state, class))
            .sum()
    }
}

/// Ways to place layers, by the stages used of each class, the site of the last of them and the
/// layers done.
struct Table<'a> {
    used: Used<'a>,
    /// The classes of stages, where their order is given.
    order: Option<&'a [usize]>,
    sites: Vec<usize>,
    width: usize,
    ways: Vec<Vec<Partial>>,
}

impl<'a> Table<'a> {
    fn new(chain: &Chain<'_>, counts: &'a [usize], order: Option<&'a [usize]>) -> Self {
        let used = Used { counts };
        let classes: Vec<usize> = match order {
            Some(order) => order.to_vec(),
            None => (0..counts.len()).filter(|&it| counts[it] > 0).collect(),
        };
        let mut sites: Vec<usize> = classes.iter().map(|&class| chain.site(class)).collect();
        sites.sort_unstable();
        sites.dedup();
        let width = chain.layers + 1;
        let mut ways = vec![Vec::new(); used.states() * sites.len() * width];
        ways[0].push(Partial {
            terms: Terms::default(),
            class: 0,
            from: (0, 0, 0),
        });
        Self {
            used,
            order,
            sites,
            width,
            ways,
        }
    }

    /// Where the ways of a state begin whose last stage is at a site.
    fn row(&self, state: usize, site: usize) -> usize {
        (state * self.sites.len() + site) * self.width
    }

    fn site(&self, chain: &Chain<'_>, class: usize) -> usize {
        let site = chain.site(class);
        self.sites.iter().position(|it| *it == site).unwrap_or(0)
    }

    /// Whether a state has stages of classes of which some are at a site and are left.
    fn is_any(&self, state: usize, is: impl Fn(usize, usize) -> bool) -> bool {
        match self.order {
            Some(order) => (0..self.used.all(state)).any(|at| is(order[at], 1)),
            None => (0..self.used.counts.len()).any(|class| is(class, self.used.of(state, class))),
        }
    }

    /// The stages that are not used in a state.
    fn rest(&self, chain: &Chain<'_>, state: usize) -> Rest {
        let mut rest = Rest {
            speed: 0.0,
            fastest: f64::INFINITY,
        };
        let mut include = |class: usize, stages: usize| {
            let layer = (chain.layer)(class);
            rest.speed += stages as f64 / layer;
            rest.fastest = rest.fastest.min(layer);
        };
        match self.order {
            Some(order) => {
                let left = &order[self.used.all(state)..];
                left.iter().for_each(|&class| include(class, 1));
            }
            None => (0..self.used.counts.len()).for_each(|class| {
                let left = self.used.counts[class] - self.used.of(state, class);
                if left > 0 {
                    include(class, left);
                }
            }),
        }
        if rest.speed == 0.0 {
            // No stage is left, and no layer.
            rest = Rest {
                speed: 1.0,
                fastest: 0.0,
            };
        }
        rest
    }

    /// What lies between the stages so far and the next one.
    fn reached(&self, chain: &Chain<'_>, (state, site): (usize, usize), class: usize) -> Reached {
        let to = self.site(chain, class);
        if self.used.all(state) == 0 || to == site {
            return Reached::Here;
        }
        let is_left = |class: usize, used: usize| {
            used < self.used.counts[class] && self.site(chain, class) == site
        };
        if self.order.is_none() && self.is_any(state, is_left) {
            return Reached::Never;
        }
        let ends = [self.sites[to], self.sites[site]];
        let joint = chain.joints.and_then(|joints| (joints.between)(ends));
        joint.map_or(Reached::Never, Reached::Over)
    }
}

/// How a stage is reached from those so far.
#[derive(Clone, Copy)]
enum Reached {
    /// It stands where they do.
    Here,
    /// Over what joins two sites.
    Over(Joint),
    /// It cannot come next.
    Never,
}

impl Chain<'_> {
    fn site(&self, class: usize) -> usize {
        self.joints.map_or(0, |joints| (joints.site)(class))
    }
}

pub(super) fn search(
    chain: &Chain<'_>,
    counts: &[usize],
    order: Option<&[usize]>,
) -> Result<Cut, ChainError> {
    let (layers, stages) = (chain.layers, counts.iter().sum::<usize>());
    if stages > layers || stages == 0 {
        return Err(ChainError::TooManyStages { stages, layers });
    }
    let mut table = Table::new(chain, counts, order);
    for state in 0..table.used.states() {
        let before = table.used.all(state);
        for site in 0..table.sites.len() {
            let row = table.row(state, site);
            if table.ways[row..row + table.width].iter().all(Vec::is_empty) {
                continue;
            }
            for (digit, &count) in counts.iter().enumerate() {
                if table.used.of(state, digit) == count {
                    continue;
                }
                let stage = Stage {
                    class: order.map_or(digit, |order| order[before]),
                    before,
                    after: stages - before - 1,
                };
                let joint = match table.reached(chain, (state, site), stage.class) {
                    Reached::Here => None,
                    Reached::Over(joint) => Some(joint),
                    Reached::Never => continue,
                };
                let next = state + table.used.step(digit);
                let to = table.row(next, table.site(chain, stage.class));
                let rest = table.rest(chain, next);
                extend(
                    chain,
                    &mut table.ways,
                    (stage, joint, &rest),
                    (row, to, site),
                );
            }
        }
    }
    let last = table.used.states() - 1;
    let ends = (0..table.sites.len()).flat_map(|site| {
        let ways = &table.ways[table.row(last, site) + layers];
        let of =
            move |(way, it): (usize, &Partial)| (it.terms.step(chain.micro_batches), site, way);
        ways.iter().enumerate().map(of)
    });
    match ends.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((seconds, site, way)) => Ok(Cut {
            seconds,
            stages: trace(&table, (last, site), way),
        }),
        None => Err(ChainError::NoMemory { layers, stages }),
    }
}

/// Adds a stage to every way to place layers in the row at `row`, whose last stage is at `site`;
/// what comes of it is in the row at `to`.
fn extend(
    chain: &Chain<'_>,
    table: &mut [Vec<Partial>],
    (stage, joint, rest): (Stage, Option<Joint>, &Rest),
    (row, to, site): (usize, usize, usize),
) {
    for done in stage.before..chain.layers - stage.after {
        if table[row + done].is_empty() {
            continue;
        }
        let ends = match stage.after {
            0 => chain.layers..=chain.layers,
            after => done + 1..=chain.layers - after,
        };
        let ways = std::mem::take(&mut table[row + done]);
        for end in ends {
            let mut seconds = StageSeconds::of((chain.seconds)(stage, done..end));
            let with = |seconds: &StageSeconds, partial: &Partial| match chain.joints {
                None => partial.terms.with(seconds),
                Some(_) => {
                    let stage = (seconds, stage.before + 1);
                    partial.terms.behind(stage, joint, chain.micro_batches)
                }
            };
            let is_of_use = |terms: &Terms| terms.step(chain.micro_batches) < chain.below;
            // More layers take no less. What comes after is asked for only where it may matter: it
            // can be costly to know.
            if !ways.iter().any(|way| is_of_use(&with(&seconds, way))) {
                break;
            }
            let to_come = chain.layers - end;
            let may_end = |terms: &Terms| {
                let least = terms.least_step(to_come, rest, chain.micro_batches);
                is_of_use(terms) && least < chain.below
            };
            let may_any = ways.iter().any(|way| may_end(&with(&seconds, way)));
            if !may_any || !(chain.fits)(stage, done..end) {
                continue;
            }
            seconds.after = (chain.after)(stage, done..end);
            for (way, partial) in ways.iter().enumerate() {
                let terms = with(&seconds, partial);
                if may_end(&terms) {
                    let next = Partial {
                        terms,
                        class: stage.class as u32,
                        from: (site as u32, done as u32, way as u32),
                    };
                    keep(&mut table[to + end], next);
                }
            }
        }
        table[row + done] = ways;
    }
}

/// Adds a way unless another is as good in all; drops those that it beats.
fn keep(ways: &mut Vec<Partial>, new: Partial) {
    if ways.iter().any(|old| old.terms.beats(&new.terms)) {
        return;
    }
    ways.retain(|old| !new.terms.beats(&old.terms));
    ways.push(new);
}

/// The stages of a way, from its end.
fn trace(table: &Table<'_>, last: (usize, usize), mut way: usize) -> Vec<(usize, Range<usize>)> {
    let ((mut state, mut site), mut end) = (last, table.width - 1);
    let mut stages = Vec::new();
    while state > 0 {
        let partial = table.ways[table.row(state, site) + end][way];
        let class = partial.class as usize;
        let (from, begin, before) = partial.from;
        stages.push((class, begin as usize..end));
        state -= match table.order {
            Some(_) => 1,
            None => table.used.step(class),
        };
        (site, end, way) = (from as usize, begin as usize, before as usize);
    }
    stages.reverse();
    stages
}
