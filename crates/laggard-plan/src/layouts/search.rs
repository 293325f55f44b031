//! Judging layouts: the least memory that each can do with, and the fastest of those that fit.

use laggard_schedule::{LayerSplit, Zero};
use laggard_simulate::{Constants, Degrees, Job, Machine, Shape, StepTime, jitter_share, predict};
use laggard_specs::{MemoryLayout, Model, Recompute, SpecsError, memory_of_stage, memory_per_rank};

use super::{Candidate, Demand, Found};
use std::collections::BTreeMap;

/// Bounds are that much below what they come to, because sums are rounded.
const ROUNDING: f64 = 1.0 - 1e-9;

/// A search for the fastest layouts.
pub(super) struct Search<'a> {
    demand: &'a Demand<'a>,
    machine: &'a Machine,
    constants: &'a Constants,
    shape: Shape,
    available: u64,
    /// Least memory that a layout needs.
    smallest: u64,
    found: Found,
    count: usize,
    /// Seconds of a sequence that a layout must beat.
    limit: Option<f64>,
    /// Least seconds of a layer and micro-batch, by what they depend on.
    layers: BTreeMap<[u32; 4], f64>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        demand: &'a Demand<'a>,
        (machine, available): (&'a Machine, u64),
        constants: &'a Constants,
        count: usize,
    ) -> Self {
        Self {
            demand,
            machine,
            constants,
            shape: Shape::of(demand.model),
            available,
            smallest: u64::MAX,
            found: Found {
                best: Vec::new(),
                evaluated: 0,
                too_large: 0,
            },
            count,
            limit: None,
            layers: BTreeMap::new(),
        }
    }

    /// Seconds of a sequence that a layout takes at least, whatever is shared out or computed
    /// again: its layers on the longest stage, filling the pipeline, and the jitter of so many
    /// ranks.
    pub(super) fn bound(&mut self, degrees: &Degrees) -> f64 {
        let key = [
            degrees.tensor,
            degrees.context,
            degrees.expert,
            degrees.micro_batch,
        ];
        let all = f64::from(self.shape.layers);
        let layer = match self.layers.get(&key) {
            Some(layer) => *layer,
            None => {
                let alone = self.predicted(Degrees {
                    pipeline: 1,
                    virtual_stages: 1,
                    data: 1,
                    micro_batches: 1,
                    ..*degrees
                });
                let kernels = alone.products_s + alone.attention_s + alone.elementwise_s;
                let layer = (kernels + alone.tensor_s + alone.context_s + alone.expert_s) / all;
                self.layers.insert(key, layer);
                layer
            }
        };
        let longest = f64::from(self.shape.layers.div_ceil(degrees.pipeline));
        let filling = (all - longest) / f64::from(degrees.virtual_stages);
        let passes = f64::from(degrees.micro_batches) * longest + filling;
        let jitter = [Zero::None, Zero::Parameters].map(|zero| {
            let degrees = Degrees { zero, ..*degrees };
            jitter_share(&degrees, self.constants)
        });
        let step = passes * layer * (1.0 + jitter[0].min(jitter[1]));
        ROUNDING * step / degrees.global_batch() as f64
    }

    /// Whether a layout that takes at least so long can be among the fastest.
    pub(super) fn may_be_fast(&self, bound: f64) -> bool {
        self.limit.is_none_or(|limit| bound < limit)
    }

    /// The fastest layouts, and the least memory that any needs.
    pub(super) fn finish(mut self) -> (Found, u64) {
        self.keep_best();
        (self.found, self.smallest)
    }

    /// Tries a layout with everything that replicas can share out.
    pub(super) fn consider(&mut self, plain: Degrees, ranks: u64) {
        let mut with = |zero| {
            let degrees = Degrees { zero, ..plain };
            let (fitting, memory_bytes) = self.fitting(degrees)?;
            self.evaluate(fitting, memory_bytes, ranks);
            Some(fitting)
        };
        with(Zero::None);
        if plain.gradient_ranks() == 1 {
            return;
        }
        // Sharded gradients are reduced more often, which is worth it only for the memory.
        let optimizer = with(Zero::Optimizer);
        if optimizer.is_none_or(|it| it.recompute != Recompute::None) {
            with(Zero::Gradients);
        }
        with(Zero::Parameters);
    }

    /// The same degrees with the least that backward must compute again so that they fit in
    /// memory, and the memory that they then need. What is computed again never makes a step
    /// shorter.
    fn fitting(&mut self, plain: Degrees) -> Option<(Degrees, u64)> {
        let kept = self.memory(plain)?;
        if kept <= self.available {
            return Some((plain, kept));
        }
        let again = |recompute, recompute_layers| Degrees {
            recompute,
            recompute_layers,
            ..plain
        };
        if self.demand.software.attention.keeps_scores() {
            let scores = again(Recompute::Attention, None);
            let needed = self.memory(scores)?;
            if needed <= self.available {
                return Some((scores, needed));
            }
        }
        let all = again(Recompute::Layers, None);
        let mut fits = (all, self.memory(all)?);
        if fits.1 > self.available {
            return None;
        }
        // More layers of each piece need less memory.
        let layers = self.shape.layers.div_ceil(plain.pipeline);
        let (mut too_few, mut enough) = (0, layers.div_ceil(plain.virtual_stages));
        while enough - too_few > 1 {
            let middle = u32::midpoint(too_few, enough);
            let some = again(Recompute::Layers, Some(middle));
            let needed = self.memory(some)?;
            if needed <= self.available {
                (enough, fits) = (middle, (some, needed));
            } else {
                too_few = middle;
            }
        }
        Some(fits)
    }

    /// Memory of the rank that needs most; `None` where a layout does not fit the model.
    fn memory(&mut self, degrees: Degrees) -> Option<u64> {
        let layout = self.demand.memory_layout(&degrees);
        let bytes = most_memory(self.demand.model, &layout).ok()?;
        self.smallest = self.smallest.min(bytes);
        self.found.too_large += u64::from(bytes > self.available);
        Some(bytes)
    }

    fn predicted(&self, degrees: Degrees) -> StepTime {
        let job = Job {
            shape: self.shape,
            degrees,
            sequence_length: self.demand.sequence_length,
            precision: self.demand.precision,
            software: self.demand.software,
        };
        predict(&job, self.machine, self.constants)
    }

    fn evaluate(&mut self, degrees: Degrees, memory_bytes: u64, ranks: u64) {
        self.found.evaluated += 1;
        let candidate = Candidate {
            degrees,
            step: self.predicted(degrees),
            memory_bytes,
            idle: ranks - degrees.ranks(),
        };
        let is_slow = |limit: f64| per_sequence(&candidate) >= limit;
        if self.limit.is_some_and(is_slow) {
            return;
        }
        self.found.best.push(candidate);
        if self.found.best.len() > 2 * self.count {
            self.keep_best();
        }
    }

    /// Keeps the fastest of those found so far, the first of equals first.
    fn keep_best(&mut self) {
        let best = &mut self.found.best;
        best.sort_by(|a, b| per_sequence(a).total_cmp(&per_sequence(b)));
        best.truncate(self.count);
        if best.len() == self.count {
            self.limit = best.last().map(per_sequence);
        }
    }
}

/// Memory of the rank that needs most. Of stages with equally many layers the first keeps the most
/// activations; the first of all has the embedding, the last the head.
pub(super) fn most_memory(model: &Model, layout: &MemoryLayout) -> Result<u64, SpecsError> {
    let experts = model.experts.as_ref();
    if experts.is_some_and(|it| it.dense_layers > 0 || it.every > 1) {
        return memory_per_rank(model, layout).map(|need| need.total().0);
    }
    let of = |stage| memory_of_stage(model, layout, stage).map(|need| need.total().0);
    let mut most = of(0)?;
    let split = LayerSplit {
        layers: model.layers,
        stages: layout.pipeline_parallel,
        virtual_stages: layout.virtual_stages,
    };
    let mut stage = 0;
    let runs = split.runs();
    for (at, (layers, stages)) in runs.into_iter().enumerate() {
        let is_last = at + 1 == runs.len();
        if stages > 0 && (is_last || layers > runs[0].0) {
            most = most.max(of(stage)?);
        }
        stage += stages;
    }
    Ok(most)
}

/// Seconds of a sequence: what layouts are compared by.
fn per_sequence(candidate: &Candidate) -> f64 {
    candidate.step.total_s / candidate.degrees.global_batch() as f64
}
