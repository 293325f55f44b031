//! The cost of a pipeline as Sailor's simulator counts it, from the same measurements.
//!
//! Written anew after `sailor/Planner/simulations/runtime_simulator.py` of
//! <https://github.com/eth-easl/sailor> (read at
//! <https://github.com/saha18uiuc/sailor/tree/13b79423d0afb2389e617dfbebf869a696332873>): a stage
//! takes what its slowest replica takes, a micro-batch passes all stages and each further one waits
//! for the slowest, activations pass whole over the link of the worst pair, and gradients are
//! reduced in rings, in buckets, once all is done.

use anyhow::{Result, ensure};
use laggard_plan::{Pipeline, PipelineCosts, Slot, StagePlace};
use std::ops::Range;

use super::links::{Curve, Links};
use super::profiles::{LAYERS, Profile, Sizes, VALUE_BYTES, output_values};

/// Bytes of each parameter of a rank: two of Adam's states, the parameter, its gradient, and two
/// copies for communication, in single precision.
const PARAMETER_BYTES: f64 = 24.0;
/// Bytes that the framework takes, of one device and of one that shares layers.
const FRAMEWORK_BYTES: [f64; 2] = [2e9, 3e9];
/// Bytes that are reduced at once.
const BUCKET_BYTES: f64 = 5e8;
/// Widest tensor parallelism of a plan, the devices of a host; and by how much at most it divides
/// the gradients.
const MOST_WIDTH: u32 = 4;
/// Sizes of micro-batches and widths of the profiles: powers of two, below these.
const SIZES: usize = 8;
const WIDTHS: usize = 4;

/// Devices of a class.
#[derive(Debug, Clone)]
pub struct PeerClass {
    /// Its name in profiles and links.
    pub name: &'static str,
    /// How many there are.
    pub devices: u64,
    /// Memory of each, GiB.
    pub memory_gib: f64,
    /// What was measured.
    pub profile: Profile,
}

/// A problem with Sailor's costs.
pub struct SailorCosts {
    classes: Vec<PeerClass>,
    devices: Vec<u64>,
    global_batch: u64,
    micro_batches: Vec<u32>,
    /// Sums of the compute seconds before each layer, by class, micro-batch and width.
    before: Vec<Vec<f64>>,
    /// Update seconds of a layer, by class and width: the longest of all micro-batches.
    update: Vec<f64>,
    /// Sums of parameters and of kept values before each layer, by width.
    parameters: Vec<Vec<f64>>,
    kept: Vec<Vec<f64>>,
    /// Fewest bytes that so many layers weigh.
    least_bytes: Vec<f64>,
    /// Seconds of an activation from slot to slot, by micro-batch; of the head's after them.
    sending: Vec<[f64; 2]>,
    /// Links from one device to one, class by class.
    rings: Vec<Curve>,
}

/// The logarithm of a power of two.
fn log2(value: u32) -> usize {
    value.trailing_zeros() as usize
}

fn sums(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let add = |sum: &mut f64, value: f64| {
        *sum += value;
        Some(*sum)
    };
    std::iter::once(0.0).chain(values.scan(0.0, add)).collect()
}

/// Seconds of reducing so many bytes over so many replicas in rings, bucket after bucket.
fn reduction(bytes: f64, replicas: u64, curve: &Curve) -> f64 {
    if replicas <= 1 {
        return 0.0;
    }
    let rounds = 2.0 * (replicas - 1) as f64;
    let one = |bytes: f64| match bytes > 0.0 {
        true => rounds * curve.seconds(bytes / replicas as f64),
        false => 0.0,
    };
    let full = ((bytes / BUCKET_BYTES).ceil() - 1.0).max(0.0);
    full * one(BUCKET_BYTES) + one(bytes - full * BUCKET_BYTES)
}

impl SailorCosts {
    /// The costs of a job of so many sequences a step.
    ///
    /// # Errors
    /// Sizes or links that are missing.
    pub fn new(classes: Vec<PeerClass>, links: &Links, global_batch: u64) -> Result<Self> {
        let sizes = Sizes::of_opt350()?;
        let count = classes.len();
        let mut costs = Self {
            devices: classes.iter().map(|class| class.devices).collect(),
            global_batch,
            micro_batches: Vec::new(),
            before: vec![Vec::new(); count * SIZES * WIDTHS],
            update: vec![0.0; count * WIDTHS],
            parameters: Vec::new(),
            kept: Vec::new(),
            least_bytes: Vec::new(),
            sending: vec![[f64::INFINITY; 2]; SIZES * (count * WIDTHS) * (count * WIDTHS)],
            rings: Vec::new(),
            classes,
        };
        for width in (0..WIDTHS).map(|log| 1 << log) {
            let of = |values: &[f64]| sums(values.iter().copied());
            costs.parameters.push(of(&sizes.parameters[&width]));
            costs.kept.push(of(&sizes.kept[&width]));
        }
        let bytes = |layers: Range<usize>| costs.bytes(layers);
        let starts = |layers: usize| (0..=LAYERS - layers).map(move |at| at..at + layers);
        let least = |layers| starts(layers).map(bytes).fold(f64::INFINITY, f64::min);
        costs.least_bytes = (0..=LAYERS).map(least).collect();
        costs.read_profiles();
        costs.read_links(links)?;
        Ok(costs)
    }

    fn read_profiles(&mut self) {
        for (class, it) in self.classes.iter().enumerate() {
            for (&(micro_batch, width), layers) in &it.profile.0 {
                if log2(width) >= WIDTHS || log2(micro_batch) >= SIZES {
                    continue;
                }
                let at = (class * SIZES + log2(micro_batch)) * WIDTHS + log2(width);
                self.before[at] = sums(layers.iter().map(|it| it.compute));
                let update = &mut self.update[class * WIDTHS + log2(width)];
                *update = layers.iter().map(|it| it.update).fold(*update, f64::max);
                self.micro_batches.push(micro_batch);
            }
        }
        self.micro_batches.sort_unstable();
        self.micro_batches.dedup();
    }

    fn read_links(&mut self, links: &Links) -> Result<()> {
        let slots: Vec<Slot> = (0..self.classes.len() * WIDTHS)
            .map(|at| Slot {
                class: at / WIDTHS,
                width: 1 << (at % WIDTHS),
            })
            .collect();
        for from in &slots {
            for to in &slots {
                let names = [from, to].map(|slot| (self.classes[slot.class].name, slot.width));
                if from.width == 1 && to.width == 1 {
                    self.rings.push(links.between(names[0], names[1])?);
                }
                // Few pairs of different widths were measured in the lab; plans there have none.
                let Ok(curve) = links.between(names[0], names[1]) else {
                    continue;
                };
                for micro_batch in (0..SIZES).map(|log| 1 << log) {
                    let send = |layer| {
                        let values = output_values(layer) * f64::from(micro_batch);
                        curve.seconds(values * VALUE_BYTES)
                    };
                    let at = self.link(micro_batch, *from, *to);
                    self.sending[at] = [send(0), send(LAYERS - 1)];
                }
            }
        }
        Ok(())
    }

    fn link(&self, micro_batch: u32, from: Slot, to: Slot) -> usize {
        let slot = |slot: Slot| slot.class * WIDTHS + log2(slot.width);
        let slots = self.classes.len() * WIDTHS;
        (log2(micro_batch) * slots + slot(from)) * slots + slot(to)
    }

    fn sums(&self, slot: Slot, micro_batch: u32) -> &[f64] {
        let at = (slot.class * SIZES + log2(micro_batch)) * WIDTHS + log2(slot.width);
        &self.before[at]
    }

    /// Bytes of the gradients of some layers on one device.
    fn bytes(&self, layers: Range<usize>) -> f64 {
        let parameters = &self.parameters[0];
        (parameters[layers.end] - parameters[layers.start]) * VALUE_BYTES
    }

    /// Seconds of sending what goes forward from the worst of some slots to the worst of others.
    fn worst(&self, micro_batch: u32, from: &[Slot], to: &[Slot], size: usize) -> f64 {
        let pairs = from
            .iter()
            .flat_map(|from| to.iter().map(move |to| (from, to)));
        let seconds = pairs.map(|(&a, &b)| self.sending[self.link(micro_batch, a, b)][size]);
        seconds.fold(0.0, f64::max)
    }

    /// The seconds that no plan can go below that computes and does nothing else, at the best rate
    /// of each class.
    #[must_use]
    pub fn compute_only_seconds(&self) -> f64 {
        let rate = |class: usize| -> f64 {
            let measured = self.classes[class].profile.0.iter();
            let usable = measured.filter(|((_, width), _)| *width <= MOST_WIDTH);
            let rates = usable.map(|(&(micro_batch, width), layers)| {
                let seconds: f64 = layers.iter().map(|it| it.compute).sum();
                f64::from(micro_batch) / seconds / f64::from(width)
            });
            rates.fold(0.0, f64::max)
        };
        let each = self.devices.iter().enumerate();
        let rates = each.map(|(class, &devices)| devices as f64 * rate(class));
        self.global_batch as f64 / rates.sum::<f64>()
    }

    /// The step of a plan with every replica in its slot, by the simulator's own rules.
    ///
    /// # Errors
    /// A plan that does not fit in memory, has more devices than there are, or lacks layers.
    pub fn simulated_seconds(&self, plan: &Pipeline) -> Result<f64> {
        let count = plan.stages.len();
        let replicas: Vec<Vec<Slot>> = plan
            .stages
            .iter()
            .map(|stage| {
                let each = stage.slots.iter();
                each.flat_map(|&(slot, count)| std::iter::repeat_n(slot, count as usize))
                    .collect()
            })
            .collect();
        self.check(plan, &replicas)?;
        let micro_batches = self
            .global_batch
            .div_ceil(u64::from(plan.micro_batch) * plan.replicas);
        let (mut sum, mut slowest, mut update, mut sync) = (0.0, 0.0_f64, 0.0_f64, 0.0_f64);
        for (at, stage) in plan.stages.iter().enumerate() {
            let layers = stage.layers.clone();
            let slots = replicas[at].iter();
            let compute =
                slots.map(|&it| self.compute_seconds(it, plan.micro_batch, layers.clone()));
            let compute = compute.fold(0.0, f64::max);
            let send = |to: usize, size: usize| {
                let pairs = replicas[at].iter().zip(&replicas[to]);
                let each = pairs
                    .map(|(&from, &to)| self.sending[self.link(plan.micro_batch, from, to)][size]);
                each.fold(0.0, f64::max)
            };
            let gradient = usize::from(layers.start + 1 == LAYERS);
            let comm = match at {
                _ if count == 1 => 0.0,
                0 if count <= 3 => send(1, 0),
                0 => 2.0 * send(1, 0),
                _ if at + 1 == count => 2.0 * send(at - 1, gradient),
                _ => send(at + 1, 0) + send(at - 1, gradient),
            };
            sum += compute + comm;
            slowest = slowest.max(compute + comm);
            let updates = replicas[at].iter();
            update = updates.map(|it| self.update_of(*it)).fold(update, f64::max);
            sync = sync.max(self.synchronisation(&replicas[at], layers));
        }
        Ok(sum + (micro_batches - 1) as f64 * slowest + update + sync)
    }

    fn update_of(&self, slot: Slot) -> f64 {
        self.update[slot.class * WIDTHS + log2(slot.width)]
    }

    fn synchronisation(&self, replicas: &[Slot], layers: Range<usize>) -> f64 {
        let width = replicas.iter().map(|slot| slot.width);
        let width = f64::from(width.fold(MOST_WIDTH, u32::min));
        let bytes = self.bytes(layers) / width;
        let pairs = replicas.windows(2);
        let curves = pairs.map(|pair| self.ring(pair[0].class, pair[1].class));
        let mut seen: Vec<&Curve> = Vec::new();
        for curve in curves {
            if !seen.contains(&curve) {
                seen.push(curve);
            }
        }
        let seconds = seen
            .into_iter()
            .map(|curve| reduction(bytes, replicas.len() as u64, curve));
        seconds.fold(0.0, f64::max)
    }

    fn ring(&self, from: usize, to: usize) -> &Curve {
        &self.rings[from * self.classes.len() + to]
    }

    fn check(&self, plan: &Pipeline, replicas: &[Vec<Slot>]) -> Result<()> {
        let mut next = 0;
        for (at, stage) in plan.stages.iter().enumerate() {
            ensure!(stage.layers.start == next, "stage {at} skips layers");
            next = stage.layers.end;
            ensure!(
                replicas[at].len() as u64 == plan.replicas,
                "stage {at} lacks replicas"
            );
            let after = plan.stages.len() - at - 1;
            let fits = |slot: &(Slot, u64)| {
                self.fits(slot.0, plan.micro_batch, stage.layers.clone(), after)
            };
            ensure!(
                stage.slots.iter().all(fits),
                "stage {at} does not fit in memory"
            );
        }
        ensure!(next == LAYERS, "the last stage ends at layer {next}");
        for (class, &devices) in self.devices.iter().enumerate() {
            ensure!(
                plan.devices(class) <= devices,
                "too many devices of {class}"
            );
        }
        Ok(())
    }

    /// A plan in words: `replicas x (layers class*width | ...)`.
    #[must_use]
    pub fn describe(&self, plan: &Pipeline) -> String {
        let stage = |stage: &laggard_plan::PipelineStage| {
            let slot = |(slot, count): &(Slot, u64)| {
                let name = self.classes[slot.class].name;
                match stage.slots.len() {
                    1 => format!("{name}*{}", slot.width),
                    _ => format!("{count} of {name}*{}", slot.width),
                }
            };
            let slots: Vec<String> = stage.slots.iter().map(slot).collect();
            format!("{}:{}", stage.layers.len(), slots.join("+"))
        };
        let stages: Vec<String> = plan.stages.iter().map(stage).collect();
        let (replicas, batches, size) = (plan.replicas, plan.micro_batches, plan.micro_batch);
        format!(
            "{replicas} replicas x {batches} of {size}: {}",
            stages.join(" | ")
        )
    }
}

impl PipelineCosts for SailorCosts {
    fn layers(&self) -> usize {
        LAYERS
    }

    fn devices(&self) -> &[u64] {
        &self.devices
    }

    fn global_batch(&self) -> u64 {
        self.global_batch
    }

    fn micro_batches(&self) -> &[u32] {
        &self.micro_batches
    }

    fn widths(&self, class: usize, micro_batch: u32) -> Vec<u32> {
        let widths = (0..WIDTHS).map(|log| 1 << log);
        let known = |&width: &u32| !self.sums(Slot { class, width }, micro_batch).is_empty();
        let usable = widths.filter(|&width| width <= MOST_WIDTH);
        usable.filter(known).collect()
    }

    fn compute_seconds(&self, slot: Slot, micro_batch: u32, layers: Range<usize>) -> f64 {
        let sums = self.sums(slot, micro_batch);
        sums[layers.end] - sums[layers.start]
    }

    fn exchange_seconds(
        &self,
        place: &StagePlace<'_>,
        micro_batch: u32,
        layers: Range<usize>,
    ) -> f64 {
        let gradient = usize::from(layers.start + 1 == LAYERS);
        let send = |to: &[Slot], size| self.worst(micro_batch, place.slots, to, size);
        match (place.before, place.after) {
            (None, None) => 0.0,
            (None, Some(next)) if place.stages <= 3 => send(next, 0),
            (None, Some(next)) => 2.0 * send(next, 0),
            (Some(before), None) => 2.0 * send(before, gradient),
            (Some(before), Some(next)) => send(next, 0) + send(before, gradient),
        }
    }

    fn least_exchange_seconds(&self, slot: Slot, micro_batch: u32, stages: usize) -> f64 {
        let slots = (0..self.classes.len() * WIDTHS).map(|at| Slot {
            class: at / WIDTHS,
            width: 1 << (at % WIDTHS),
        });
        let sends = slots.map(|to| self.worst(micro_batch, &[slot], &[to], 0));
        let least = sends.fold(f64::INFINITY, f64::min);
        // All but the first stage of a short pipeline send and receive.
        least * if stages <= 3 { 1.0 } else { 2.0 }
    }

    fn finish_seconds(&self, slots: &[Slot], replicas: u64, layers: Range<usize>) -> f64 {
        let width = slots.iter().map(|slot| slot.width);
        let bytes = self.bytes(layers) / f64::from(width.fold(MOST_WIDTH, u32::min));
        let mut longest = 0.0_f64;
        for from in slots {
            for to in slots {
                let curve = self.ring(from.class, to.class);
                longest = longest.max(reduction(bytes, replicas, curve));
            }
        }
        slots
            .iter()
            .map(|it| self.update_of(*it))
            .fold(0.0, f64::max)
            + longest
    }

    fn least_finish_seconds(&self, slot: Slot, replicas: u64, layers: usize) -> f64 {
        let bytes = self.least_bytes[layers] / f64::from(slot.width);
        let curve = self.ring(slot.class, slot.class);
        self.update_of(slot) + reduction(bytes, replicas, curve)
    }

    fn fits(&self, slot: Slot, micro_batch: u32, layers: Range<usize>, after: usize) -> bool {
        let width = log2(slot.width);
        let of = |sums: &[f64]| sums[layers.end] - sums[layers.start];
        let parameters = of(&self.parameters[width]) * PARAMETER_BYTES;
        let kept = of(&self.kept[width]) * f64::from(micro_batch) * VALUE_BYTES;
        let framework = FRAMEWORK_BYTES[usize::from(slot.width > 1)];
        let memory = self.classes[slot.class].memory_gib * 1_073_741_824.0;
        parameters + kept * (after + 1) as f64 + framework <= memory
    }
}
