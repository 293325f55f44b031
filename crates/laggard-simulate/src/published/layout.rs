//! The layouts that a row may mean.

use laggard_schedule::Zero;
use laggard_specs::{MemoryLayout, Model, PublishedRow, Recompute, memory_per_rank};

use crate::job::{AttentionKernel, Degrees, Framework, Job, Machine, Selective};

/// Micro-batches that are tried where a row does not say.
const MICRO_BATCHES: [u32; 5] = [1, 2, 4, 8, 16];
/// Virtual stages that are tried where a row does not say and its framework has them.
const VIRTUAL_STAGES: [u32; 4] = [1, 2, 4, 8];
/// Degrees that are tried where a row does not say how its model was laid out.
const TENSORS: [u32; 4] = [1, 2, 4, 8];
const PIPELINES: [u32; 5] = [1, 2, 4, 8, 16];
const EXPERTS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Micro-batches per stage of a pipeline whose batch is not stated: enough for a small bubble.
const MICRO_BATCHES_PER_STAGE: u64 = 8;
/// Share of the memory that a job is expected to fill at most.
const MEMORY_SHARE: f64 = 0.85;
/// Share of the memory that only a job which computes layers again can stay below: what sources do
/// not say may save less than that.
const LARGEST_SHARE: f64 = 1.3;

/// Jobs that a row may mean, and whether their layout is a guess.
pub(super) struct Candidates {
    pub(super) jobs: Vec<Job>,
    pub(super) assumed: bool,
}

/// The jobs that a row may mean. What it does not say is left open.
///
/// # Errors
/// Why no job fits what it says.
pub(super) fn candidates(
    row: &PublishedRow,
    framework: &Framework,
    (model, template): (&Model, &Job),
    machine: &Machine,
) -> Result<Candidates, String> {
    let stated = [row.tp, row.pp, row.dp].iter().any(Option::is_some) || row.fsdp.is_some();
    let mut jobs = Vec::new();
    let mut why = "no layout fits".to_owned();
    for (tensor, pipeline) in model_parallel(row, framework, stated)? {
        match base(row, framework, template, [tensor, pipeline]) {
            Ok(base) => {
                let least = with_batches(row, framework, template, base)?;
                let needs_less = row.recomputation().is_none()
                    && !least
                        .iter()
                        .any(|job| fits(job, model, LARGEST_SHARE * machine.memory_bytes));
                jobs.extend(match needs_less {
                    true => least.into_iter().map(recomputing).collect(),
                    false => least,
                });
            }
            Err(reason) => why = reason,
        }
    }
    if jobs.is_empty() {
        return Err(why);
    }
    let room = MEMORY_SHARE * machine.memory_bytes;
    let possible: Vec<Job> = jobs
        .iter()
        .filter(|job| row.micro_batch.is_some() || fits(job, model, room))
        .copied()
        .collect();
    if possible.is_empty() {
        // By these figures nothing fits; what needs least memory did.
        let least = jobs.iter().map(|job| job.degrees.micro_batch).min();
        jobs.retain(|job| Some(job.degrees.micro_batch) == least);
    } else {
        jobs = possible;
    }
    Ok(Candidates {
        jobs,
        assumed: !stated,
    })
}

/// Tensor and pipeline parallel degrees: those of the row, or all usual ones.
fn model_parallel(
    row: &PublishedRow,
    framework: &Framework,
    stated: bool,
) -> Result<Vec<(u32, u32)>, String> {
    if stated {
        return Ok(vec![(degree(row.tp, "tp")?, degree(row.pp, "pp")?)]);
    }
    let pipelines: &[u32] = match framework.zero {
        Zero::Parameters => &[1],
        _ => &PIPELINES,
    };
    let pairs = TENSORS
        .iter()
        .flat_map(|&tensor| pipelines.iter().map(move |&of| (tensor, of)));
    Ok(pairs.collect())
}

fn degree(cell: Option<u64>, name: &str) -> Result<u32, String> {
    match cell {
        Some(0) => Err(format!("{name} is 0")),
        cell => u32::try_from(cell.unwrap_or(1)).map_err(|_| format!("{name} is too large")),
    }
}

/// A layout with every micro-batch and number of virtual stages that a row leaves open.
fn with_batches(
    row: &PublishedRow,
    framework: &Framework,
    template: &Job,
    base: Degrees,
) -> Result<Vec<Job>, String> {
    let batch = row
        .global_batch_seqs
        .or_else(|| Some(row.global_batch_tokens? / row.seq_len?))
        .filter(|batch| *batch > 0);
    let mut jobs = Vec::new();
    for micro_batch in micro_batches(row)? {
        for virtual_stages in virtual_stages(row, framework, template.shape.layers, &base)? {
            let micro_batches = match batch {
                Some(batch) => batch.div_ceil(u64::from(base.data) * u64::from(micro_batch)),
                None if base.pipeline > 1 => MICRO_BATCHES_PER_STAGE * u64::from(base.pipeline),
                None => 1,
            };
            let degrees = Degrees {
                micro_batch,
                micro_batches: u32::try_from(micro_batches)
                    .map_err(|_| "the batch is too large")?,
                virtual_stages,
                ..base
            };
            let whole = batch.is_none_or(|batch| degrees.global_batch() <= batch);
            if whole || micro_batch == 1 || row.micro_batch.is_some() {
                jobs.push(Job {
                    degrees,
                    ..*template
                });
            }
        }
    }
    Ok(jobs)
}

/// What a row and its framework say of everything but micro-batches and virtual stages.
fn base(
    row: &PublishedRow,
    framework: &Framework,
    template: &Job,
    [tensor, pipeline]: [u32; 2],
) -> Result<Degrees, String> {
    let gpus = row.gpus.unwrap_or(1);
    let context = degree(row.cp, "cp")?;
    let replica = u64::from(tensor) * u64::from(pipeline) * u64::from(context);
    if replica > gpus || !gpus.is_multiple_of(replica) {
        return Err(format!(
            "tp {tensor} x pp {pipeline} x cp {context} does not divide {gpus} accelerators"
        ));
    }
    let layers = template.shape.layers;
    if pipeline > layers {
        return Err(format!("{pipeline} stages for {layers} layers"));
    }
    let data = u32::try_from(gpus / replica).map_err(|_| "too many accelerators")?;
    let (zero, shard_ranks) = sharding(row.fsdp.as_deref(), framework.zero);
    Ok(Degrees {
        tensor,
        context,
        pipeline,
        data,
        expert: expert(row, template, gpus)?,
        sequence_parallel: tensor > 1
            && row.sequence_parallel.unwrap_or(framework.sequence_parallel),
        zero,
        shard_ranks,
        recompute: row.recomputation().unwrap_or(least_recompute(framework)),
        ..Degrees::ONE
    })
}

/// The row's expert parallelism, or as much as experts and accelerators allow.
fn expert(row: &PublishedRow, template: &Job, gpus: u64) -> Result<u32, String> {
    let Some(experts) = &template.shape.experts else {
        return Ok(1);
    };
    if row.ep.is_some() {
        return degree(row.ep, "ep");
    }
    let divides = |ranks: &u32| {
        gpus.is_multiple_of(u64::from(*ranks)) && experts.count % f64::from(*ranks) == 0.0
    };
    Ok(EXPERTS.into_iter().filter(divides).max().unwrap_or(1))
}

/// The same job, with every layer computed again.
fn recomputing(job: Job) -> Job {
    let degrees = Degrees {
        recompute: Recompute::Layers,
        ..job.degrees
    };
    Job { degrees, ..job }
}

/// What backward computes again where a row does not say and memory does not ask for more: without
/// flash kernels, scores of attention do not fit.
fn least_recompute(framework: &Framework) -> Recompute {
    match (framework.software.attention, framework.software.selective) {
        (AttentionKernel::FusedSoftmax, Selective::Attention) => Recompute::Attention,
        _ => Recompute::None,
    }
}

/// `FULL_SHARD`, `SHARD_GRAD_OP`, `tp=1 zero1=8`, or a number of ranks; 0 for none.
fn sharding(words: Option<&str>, usual: Zero) -> (Zero, Option<u32>) {
    let Some(words) = words else {
        return (usual, None);
    };
    if let Some((_, shards)) = words.split_once("zero1=") {
        let digits = shards.split(' ').next().unwrap_or_default();
        return (
            Zero::Optimizer,
            digits.parse().ok().filter(|ranks| *ranks > 0),
        );
    }
    match words {
        "FULL_SHARD" => (Zero::Parameters, None),
        "SHARD_GRAD_OP" => (Zero::Gradients, None),
        _ => match words.parse::<u32>() {
            Ok(0 | 1) | Err(_) => (usual, None),
            Ok(ranks) => (Zero::Parameters, Some(ranks)),
        },
    }
}

fn micro_batches(row: &PublishedRow) -> Result<Vec<u32>, String> {
    match row.micro_batch {
        None => Ok(MICRO_BATCHES.to_vec()),
        Some(0) => Err("micro_batch is 0".to_owned()),
        Some(size) => Ok(vec![
            u32::try_from(size).map_err(|_| "micro_batch is too large")?,
        ]),
    }
}

fn virtual_stages(
    row: &PublishedRow,
    framework: &Framework,
    layers: u32,
    base: &Degrees,
) -> Result<Vec<u32>, String> {
    let stages = base.pipeline;
    if let Some(pieces) = row.virtual_stages.filter(|pieces| *pieces > 0) {
        let pieces = u32::try_from(pieces).map_err(|_| "too many virtual stages")?;
        return Ok(vec![if stages > 1 { pieces } else { 1 }]);
    }
    let notes = row.notes.as_deref().unwrap_or_default();
    let interleaved = framework.interleaves || notes.contains("nterleaved");
    if stages == 1 || !interleaved {
        return Ok(vec![1]);
    }
    let divides = |pieces: &u32| {
        let of = |layers: u32| layers.is_multiple_of(stages * pieces);
        *pieces == 1 || of(layers) || of(layers + 2)
    };
    Ok(VIRTUAL_STAGES.into_iter().filter(divides).collect())
}

/// Whether a job is likely to fit: weights, optimizer and activations, with room for what is not
/// counted.
fn fits(job: &Job, model: &Model, room: f64) -> bool {
    let layout = MemoryLayout {
        keeps_scores: job.software.attention.keeps_scores(),
        ..job.degrees.memory_layout(job.sequence_length)
    };
    memory_per_rank(model, &layout).is_ok_and(|need| need.total().0 as f64 <= room)
}
