//! Steps that Sailor's authors measured on mixed GPUs, predicted from each GPU's own profile.
//!
//! Each replica's pipeline takes `sum(t) + (m - 1) max(t)` over its own stages, the step waits for
//! the slowest replica, then gradients are reduced in rings between the hosts of a stage. Two rules
//! are about the hosts' links, which here are slow: activations one way and gradients the other
//! pass at once, once for each neighbour and micro-batch, while the stage waits; and the rings of
//! all devices of a host share its link. Nothing is fitted to a measured step.

use anyhow::{Context, Result};
use laggard_plan::{Pipeline, PipelineStage, Slot, StageSeconds, pipeline_seconds};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::links::Links;
use super::profiles::{Profile, Sizes, VALUE_BYTES, output_values};
use super::rows;
use super::sailor::{PeerClass, SailorCosts};

const TABLE: &str = include_str!("mixed_steps.csv");
/// Classes of the lab.
const CLASSES: [&str; 3] = ["RTX-3090", "RTX-2080", "Titan-RTX"];

/// A stage of a measured plan.
#[derive(Debug, Clone)]
pub struct MixedStage {
    /// Its layers.
    pub layers: Range<usize>,
    /// Class and devices of each replica, each on a host of its own.
    pub replicas: Vec<(&'static str, u32)>,
}

/// A measured step.
#[derive(Debug, Clone)]
pub struct MixedStep {
    /// Which measurements it belongs to: on whole hosts of eight (`eight`), or on four devices of
    /// hosts of another network (`four`).
    pub set: &'static str,
    /// Its name there.
    pub id: &'static str,
    /// Sequences of a micro-batch.
    pub micro_batch: u32,
    /// Sequences of the step.
    pub global_batch: u64,
    /// What it took.
    pub seconds: f64,
    /// What of it was the reduction of gradients on the first rank, with the wait for it.
    pub gradients_s: f64,
    /// The plan.
    pub stages: Vec<MixedStage>,
}

/// A predicted step.
#[derive(Debug, Clone, Copy)]
pub struct MixedPrediction {
    /// The whole.
    pub seconds: f64,
    /// What of it the pipeline of the slowest replica takes.
    pub pipeline_s: f64,
    /// The reduction of gradients.
    pub gradients_s: f64,
}

/// All measured steps.
///
/// # Errors
/// A row that cannot be read.
pub fn measured() -> Result<Vec<MixedStep>> {
    let step = |row: Vec<&'static str>| {
        let stages = row[6].split('|').scan(0, |done, text| {
            let stage = stage(text, *done);
            *done = stage.as_ref().map_or(0, |it: &MixedStage| it.layers.end);
            Some(stage)
        });
        let stages: Option<Vec<MixedStage>> = stages.collect();
        Ok(MixedStep {
            set: row[0],
            id: row[1],
            micro_batch: row[2].parse()?,
            global_batch: row[3].parse()?,
            seconds: row[4].parse()?,
            gradients_s: row[5].parse()?,
            stages: stages.with_context(|| format!("no stages: {}", row[6]))?,
        })
    };
    rows(TABLE).map(step).collect()
}

fn stage(text: &'static str, start: usize) -> Option<MixedStage> {
    let (layers, replicas) = text.split_once(':')?;
    let layers: usize = layers.parse().ok()?;
    let replica = |text: &'static str| {
        let (class, width) = text.split_once('*')?;
        Some((class, width.parse().ok()?))
    };
    Some(MixedStage {
        layers: start..start + layers,
        replicas: replicas.split('+').map(replica).collect::<Option<_>>()?,
    })
}

/// The lab that they were measured in.
pub struct Lab {
    profiles: BTreeMap<&'static str, Profile>,
    links: Links,
    sizes: Sizes,
}

impl Lab {
    /// Reads the profiles of its classes.
    ///
    /// # Errors
    /// Profiles, sizes or links that cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let profile = |name| Ok((name, Profile::read(directory, name)?));
        Ok(Self {
            profiles: CLASSES.into_iter().map(profile).collect::<Result<_>>()?,
            links: Links::of("lab")?,
            sizes: Sizes::of_opt350()?,
        })
    }

    /// Predicts a step.
    ///
    /// # Errors
    /// What was not measured of a class or a link.
    pub fn predict(&self, step: &MixedStep) -> Result<MixedPrediction> {
        let replicas = step.stages[0].replicas.len();
        let at_once = u64::from(step.micro_batch) * replicas as u64;
        let micro_batches = step.global_batch.div_ceil(at_once);
        let mut pipeline_s = 0.0_f64;
        for replica in 0..replicas {
            let stage = |at| {
                Ok(StageSeconds::of(
                    self.micro_batch_seconds(step, at, replica)?,
                ))
            };
            let stages: Vec<StageSeconds> =
                (0..step.stages.len()).map(stage).collect::<Result<_>>()?;
            pipeline_s = pipeline_s.max(pipeline_seconds(micro_batches, &stages));
        }
        let (mut gradients_s, mut update_s) = (0.0_f64, 0.0_f64);
        for stage in &step.stages {
            gradients_s = gradients_s.max(self.reduction(step, stage)?);
            for &(class, width) in &stage.replicas {
                let layers = self.profiles[class].layers(step.micro_batch, width)?;
                let updates = layers[stage.layers.clone()].iter().map(|it| it.update);
                update_s = update_s.max(updates.sum());
            }
        }
        Ok(MixedPrediction {
            seconds: pipeline_s + gradients_s + update_s,
            pipeline_s,
            gradients_s,
        })
    }

    /// Seconds of a micro-batch on a replica's stage, with what it exchanges with its neighbours.
    fn micro_batch_seconds(&self, step: &MixedStep, at: usize, replica: usize) -> Result<f64> {
        let stage = &step.stages[at];
        let (class, width) = stage.replicas[replica];
        let layers = self.profiles[class].layers(step.micro_batch, width)?;
        let mut seconds: f64 = layers[stage.layers.clone()]
            .iter()
            .map(|it| it.compute)
            .sum();
        let neighbours = [at.checked_sub(1), Some(at + 1)];
        let neighbours = neighbours.into_iter().flatten();
        for neighbour in neighbours.filter_map(|at| step.stages.get(at)) {
            let values = output_values(0) * f64::from(step.micro_batch);
            seconds += self.send(step, (class, width), neighbour.replicas[replica], values)?;
        }
        Ok(seconds)
    }

    /// Seconds of sending values between two hosts.
    fn send(
        &self,
        step: &MixedStep,
        from: (&'static str, u32),
        to: (&'static str, u32),
        values: f64,
    ) -> Result<f64> {
        // Between hosts of the earlier runs no rate was published but that of two alike.
        let (from, to) = match step.set {
            "four" => (("Titan-RTX", from.1), ("Titan-RTX", from.1)),
            _ => (from, to),
        };
        Ok(self.links.between(from, to)?.seconds(values * VALUE_BYTES))
    }

    /// Seconds of reducing a stage's gradients: rings of all devices of a host at once, whose hosts
    /// each send what a ring sends to the next.
    fn reduction(&self, step: &MixedStep, stage: &MixedStage) -> Result<f64> {
        let count = stage.replicas.len();
        if count == 1 {
            return Ok(0.0);
        }
        let of_host = |&(_, width): &(&str, u32)| -> f64 {
            let parameters = &self.sizes.parameters[&width][stage.layers.clone()];
            parameters.iter().sum::<f64>() * f64::from(width)
        };
        let values = stage.replicas.iter().map(of_host).fold(0.0, f64::max);
        let mut slowest = 0.0_f64;
        for at in 0..count {
            let (from, to) = (stage.replicas[at], stage.replicas[(at + 1) % count]);
            slowest = slowest.max(self.send(step, from, to, values / count as f64)?);
        }
        Ok(2.0 * (count - 1) as f64 * slowest)
    }

    /// What Sailor's simulator predicts.
    ///
    /// # Errors
    /// Links or sizes that are missing, or a plan that is none.
    pub fn sailor_seconds(&self, step: &MixedStep) -> Result<f64> {
        let class = |&name: &&'static str| PeerClass {
            name,
            devices: u64::MAX,
            memory_gib: f64::INFINITY,
            profile: self.profiles[name].clone(),
        };
        let classes = CLASSES.iter().map(class).collect();
        let costs = SailorCosts::new(classes, &self.links, step.global_batch)?;
        let slot = |&(name, width): &(&str, u32)| {
            let class = CLASSES.iter().position(|it| *it == name);
            let class = class.with_context(|| format!("no class {name}"))?;
            Ok((Slot { class, width }, 1))
        };
        let stage = |stage: &MixedStage| {
            Ok(PipelineStage {
                layers: stage.layers.clone(),
                slots: stage.replicas.iter().map(slot).collect::<Result<_>>()?,
            })
        };
        costs.simulated_seconds(&Pipeline {
            micro_batch: step.micro_batch,
            micro_batches: 0,
            replicas: step.stages[0].replicas.len() as u64,
            stages: step.stages.iter().map(stage).collect::<Result<_>>()?,
            seconds: 0.0,
        })
    }
}
