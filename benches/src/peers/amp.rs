//! Trials of AMP on three hosts of V100 and one of T4, predicted from datasheets.
//!
//! Kernels of each class are laggard's cost model for eager half-precision kernels; how stages,
//! replicas and links make a step of them is below. Nothing is fitted to a trial, or to AMP's
//! profiles, which are not published as text.

use anyhow::{Context, Result};
use laggard_plan::{StageSeconds, pipeline_seconds};
use laggard_schedule::Zero;
use laggard_simulate::{
    Accumulation, AttentionKernel, Constants, Degrees, FabricOptions, Job, Kernels, Machine,
    Precision, Selective, Shape, ShardUpdate, Software, StepTime, TensorOverlap, predict,
};
use laggard_specs::{Recompute, Tables};
use laggard_types::BytesPerSecond;

use super::rows;

const TABLE: &str = include_str!("amp_trials.csv");
/// Sequences of a step.
const GLOBAL_BATCH: u32 = 32;
/// Tokens of a sequence.
const SEQUENCE: u32 = 1024;
/// Devices of a host.
const HOST: u32 = 4;
/// The host of the second class; those before it are of the first.
const LAST_HOST: u32 = 3;
/// Bytes a second between hosts, of which the slower decides, and within a host of each class.
/// Source: `src/het_cluster.py` of the same repository.
const BETWEEN: f64 = 10e9 / 8.0;
const WITHIN: [f64; 2] = [170e9 / 8.0, 50e9 / 8.0];
/// Parts of the model that cuts count before the first layer and after the last.
const PARTS_BEFORE: usize = 2;
/// Layers.
const LAYERS: usize = 24;

/// NVIDIA's T4, for which laggard's tables have no place.
const T4: &str = r#"
[[accelerator]]
id = "t4"
product = "Tesla T4"
vendor = "NVIDIA"
architecture = "Turing"
compute_capability = "7.5"
dense_fp32_flop_per_s = 8.1e12
dense_fp16_flop_per_s = 6.5e13
memory_bytes = 16_000_000_000
memory_type = "GDDR6"
memory_bandwidth_bytes_per_s = 3.2e11
scale_up_fabric = "PCIe 3"
scale_up_domain_devices = 4
scale_up_bandwidth_bytes_per_s = 6.25e9
scale_out_bandwidth_bytes_per_s = 1.5625e9
board_power_watts = 70.0
multiprocessors = 40
confidence = "high"
sources = ["NVIDIA, T4 Tensor Core GPU datasheet, 951643"]
"#;

/// A trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Sequences of a micro-batch.
    pub micro_batch: u32,
    /// Ranks that share each layer.
    pub tensor: u32,
    /// Replicas.
    pub data: u32,
    /// Stages.
    pub pipeline: u32,
    /// What AMP predicts, seconds.
    pub amp_s: f64,
    /// What it took, where it ran.
    pub seconds: Option<f64>,
    /// Where the parts of the model are cut.
    pub cuts: Vec<usize>,
}

/// All trials, those that did not run included.
///
/// # Errors
/// A row that cannot be read.
pub fn trials() -> Result<Vec<Trial>> {
    let trial = |row: Vec<&str>| {
        let number = |at: usize| row[at].parse::<u32>().with_context(|| format!("{row:?}"));
        Ok(Trial {
            micro_batch: number(0)?,
            tensor: number(1)?,
            data: number(2)?,
            pipeline: number(3)?,
            amp_s: row[4].parse()?,
            seconds: match row[5] {
                "" => None,
                text => Some(text.parse()?),
            },
            cuts: row[6]
                .split(' ')
                .map(str::parse)
                .collect::<Result<_, _>>()?,
        })
    };
    rows(TABLE).map(trial).collect()
}

/// Seconds of parts of the model on a class.
#[derive(Debug, Clone, Copy)]
struct Parts {
    /// Of a micro-batch through a layer.
    layer: f64,
    /// Of a micro-batch through the head and the embedding.
    ends: f64,
    /// Of updating a layer, and the ends.
    update: [f64; 2],
}

/// The two classes and the model.
pub struct AmpCluster {
    machines: [Machine; 2],
    constants: Constants,
    shape: Shape,
}

impl AmpCluster {
    /// By datasheet.
    ///
    /// # Errors
    /// Tables that lack something.
    pub fn new() -> Result<Self> {
        let tables = Tables::extended(Some(T4), None)?;
        let machine = |id: &str, within: f64| -> Result<Machine> {
            let options = FabricOptions {
                domain_ranks: Some(HOST),
                scale_up_bandwidth: Some(BytesPerSecond(within)),
                scale_out_bandwidth: Some(BytesPerSecond(BETWEEN / f64::from(HOST))),
                ..FabricOptions::default()
            };
            Ok(Machine::new(tables.accelerator(id)?, &options)?)
        };
        Ok(Self {
            machines: [
                machine("v100-sxm2-16gb", WITHIN[0])?,
                machine("t4", WITHIN[1])?,
            ],
            constants: Constants::builtin()?,
            shape: Shape::of(tables.model("gpt2-355m")?),
        })
    }

    /// Predicts a trial, seconds.
    #[must_use]
    pub fn predict(&self, trial: &Trial) -> f64 {
        let parts = [0, 1].map(|class| self.parts(trial, class));
        let micro_batches = GLOBAL_BATCH / (trial.data * trial.micro_batch);
        let (mut pipeline, mut update) = (0.0_f64, 0.0_f64);
        for replica in 0..trial.data {
            let stage = |stage: u32| {
                let own = &parts[class_of(trial.host(stage, replica))];
                let (layers, ends) = trial.share(stage);
                update = update.max(layers * own.update[0] + ends * own.update[1]);
                let exchange = self.exchange(trial, stage, replica);
                StageSeconds::of(layers * own.layer + ends * own.ends + exchange)
            };
            let stages: Vec<StageSeconds> = (0..trial.pipeline).map(stage).collect();
            pipeline = pipeline.max(pipeline_seconds(micro_batches.into(), &stages));
        }
        pipeline + self.tied(trial) + self.reduction(trial) + update
    }

    /// From steps of one and of two layers.
    fn parts(&self, trial: &Trial, class: usize) -> Parts {
        let step = |layers: u32| -> StepTime {
            let job = Job {
                shape: Shape {
                    layers,
                    ..self.shape
                },
                degrees: degrees(trial),
                sequence_length: SEQUENCE,
                precision: Precision::Half,
                software: SOFTWARE,
            };
            predict(&job, &self.machines[class], &self.constants)
        };
        let (one, two) = (step(1), step(2));
        let kernels = |it: &StepTime| {
            let parts = [it.products_s, it.attention_s, it.elementwise_s, it.ends_s];
            parts.iter().sum::<f64>() + it.host_s + it.tensor_s
        };
        let layer = kernels(&two) - kernels(&one);
        let update = two.optimizer_s - one.optimizer_s;
        Parts {
            layer,
            ends: kernels(&one) - layer,
            update: [update, one.optimizer_s - update],
        }
    }

    /// Seconds of what a replica's stage exchanges with its neighbours for a micro-batch:
    /// activations one way and gradients the other at once, over a link that replicas share.
    fn exchange(&self, trial: &Trial, stage: u32, replica: u32) -> f64 {
        let values = f64::from(trial.micro_batch * SEQUENCE) * self.shape.hidden;
        let own = trial.host(stage, replica);
        let neighbours = [stage.checked_sub(1), Some(stage + 1)];
        let neighbours = neighbours.into_iter().flatten();
        let seconds = neighbours.filter(|&at| at < trial.pipeline).map(|at| {
            let other = trial.host(at, replica);
            if own == other {
                return 2.0 * values / WITHIN[class_of(own)];
            }
            let alike = |&it: &u32| trial.host(stage, it) == own && trial.host(at, it) == other;
            let sharing = (0..trial.data).filter(alike).count();
            2.0 * values * sharing as f64 / BETWEEN
        });
        seconds.sum()
    }

    /// Seconds of adding up the gradients of the embedding, which is the head too, between the
    /// first and the last stage: in half precision, for each replica.
    fn tied(&self, trial: &Trial) -> f64 {
        if trial.pipeline == 1 {
            return 0.0;
        }
        let bytes = 2.0 * self.shape.vocab * self.shape.hidden;
        let hosts = 0..=LAST_HOST;
        let leaving = |host: u32| {
            let ends = [0, trial.pipeline - 1];
            let of = |replica: &u32| {
                let [first, last] = ends.map(|stage| trial.host(stage, *replica));
                first != last && (first == host || last == host)
            };
            (0..trial.data).filter(of).count() as f64
        };
        let most = hosts.map(leaving).fold(0.0, f64::max);
        match most > 0.0 {
            true => most * bytes / BETWEEN,
            false => bytes / WITHIN[0],
        }
    }

    /// Seconds of reducing all other gradients over the replicas, in single precision. Rings that
    /// leave a host share its link.
    fn reduction(&self, trial: &Trial) -> f64 {
        if trial.data == 1 {
            return 0.0;
        }
        let data = f64::from(trial.data);
        let of_ring = |stage: u32| {
            let (layers, ends) = trial.share(stage);
            let layer = self.shape.attention_parameters() + self.shape.dense_ffn_parameters();
            let ends = ends.max(f64::from(u8::from(stage == 0)));
            let parameters = layers * layer + ends * self.shape.vocab * self.shape.hidden;
            let bytes = SOFTWARE.gradient_bytes * parameters;
            2.0 * (data - 1.0) / data * bytes
        };
        let mut longest = 0.0_f64;
        for host in 0..=LAST_HOST {
            let (mut leaving, mut inside) = (0.0, 0.0_f64);
            for stage in 0..trial.pipeline {
                let here = |&replica: &u32| trial.host(stage, replica) == host;
                match (0..trial.data).filter(here).count() as u32 {
                    0 => {}
                    count if count == trial.data => {
                        let shard = of_ring(stage) / f64::from(trial.tensor);
                        inside = inside.max(shard / WITHIN[class_of(host)]);
                    }
                    // The rings of all tensor-parallel ranks together carry all of the stage.
                    _ => leaving += of_ring(stage),
                }
            }
            longest = longest.max(leaving / BETWEEN).max(inside);
        }
        longest
    }
}

/// Megatron-LM 1.1.5 under DeepSpeed with `--fp16`, no recomputation, `fp32_allreduce`, no ZeRO:
/// `ds_pretrain_gpt2_pipe.sh` and `ds_config.json` of the same repository. Fused kernels are
/// options there that it does not set.
const SOFTWARE: Software = Software {
    attention: AttentionKernel::Eager,
    kernels: Kernels::Eager,
    selective: Selective::Attention,
    accumulation: Accumulation::Separate,
    shard_update: ShardUpdate::Gather,
    overlap_gradients: false,
    overlap_tensor: TensorOverlap::None,
    scatter_transfers: true,
    all_cards: false,
    gradient_bytes: 4.0,
};

fn class_of(host: u32) -> usize {
    usize::from(host == LAST_HOST)
}

fn degrees(trial: &Trial) -> Degrees {
    Degrees {
        tensor: trial.tensor,
        context: 1,
        pipeline: 1,
        data: 1,
        expert: 1,
        virtual_stages: 1,
        micro_batch: trial.micro_batch,
        micro_batches: 1,
        sequence_parallel: false,
        zero: Zero::None,
        shard_ranks: None,
        recompute: Recompute::None,
        recompute_layers: None,
    }
}

impl Trial {
    /// The host of a replica's stage: ranks fill hosts stage by stage, within them replica by
    /// replica.
    fn host(&self, stage: u32, replica: u32) -> u32 {
        self.tensor * (replica + self.data * stage) / HOST
    }

    /// Layers of a stage, and 1 where it has the head.
    fn share(&self, stage: u32) -> (f64, f64) {
        let stage = stage as usize;
        let layers = PARTS_BEFORE..PARTS_BEFORE + LAYERS;
        let of = |cut: usize| cut.clamp(layers.start, layers.end) - layers.start;
        let own = of(self.cuts[stage + 1]) - of(self.cuts[stage]);
        let has_head = stage + 1 == self.pipeline as usize;
        (own as f64, f64::from(u8::from(has_head)))
    }
}
