//! Megatron-LM's arguments for a job: its parallel sizes, batch, stages and model. Names are those
//! of megatron/training/arguments.py in Megatron-LM of 2026-08.

use laggard_schedule::{Layout, Zero};
use laggard_simulate::Precision;
use laggard_specs::{Model, Norm, Recompute};
use std::fmt::Write;

use super::Job;
use crate::file::PlannedJob;

/// How the layers stand in the pipeline, as arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stages {
    /// As Megatron-LM cuts them by itself.
    Even,
    /// All stages between the first and the last are alike.
    Ends { first: u32, last: Option<u32> },
    /// Anything else, in its layout language.
    Layout(String),
}

/// Why Megatron-LM cannot run a job as it is, if it cannot.
pub(super) fn refusal(job: &PlannedJob) -> Option<&'static str> {
    let shares = job.micro_batches();
    shares.iter().any(|share| *share != shares[0]).then_some(
        "gives all replicas equally many micro-batches; it would need a number of its own for each \
         data-parallel rank and gradients weighted by it",
    )
}

/// A script to source, which sets the arguments.
pub(super) fn script(job: &Job<'_>) -> Result<String, String> {
    if let Some(why) = refusal(job.planned) {
        return Err(format!("Megatron-LM {why}"));
    }
    let model = job.model.ok_or_else(|| {
        format!(
            "{} is in no table of models: its shape is not known",
            job.planned.model
        )
    })?;
    let layers = u32::try_from(model.layers).unwrap_or(u32::MAX);
    let pieces = pieces(&job.layout, layers)?;
    let mut arguments = vec![parallel(job)];
    arguments.push(stage_arguments(job, model, &pieces));
    arguments.push(batch(job.planned));
    arguments.push(memory(job.planned));
    arguments.extend(model_arguments(job, model));
    let about = job.heading(
        "Arguments of Megatron-LM, to be sourced:\n\
         #   source megatron.sh\n\
         #   ./torchrun.sh pretrain_gpt.py \"${MEGATRON[@]}\" TOKENIZER, DATA, LEARNING RATE...\n\
         # under Slurm: source it, then `sbatch slurm.sh torchrun pretrain_gpt.py ...`. What the\n\
         # plan does not decide (tokenizer, data, learning rate, checkpoints) is left to you.",
    );
    let mut text = format!("#!/bin/bash\n{about}");
    if let Some(other) = other_gate(model) {
        _ = writeln!(
            text,
            "# The model has {other}, for which there is no switch: --swiglu costs as much."
        );
    }
    text.push_str(match sharded(job.planned) {
        // Its FSDP needs several connections.
        true => "unset CUDA_DEVICE_MAX_CONNECTIONS\n",
        // Hopper and older need one for tensor and context parallelism.
        false => "export CUDA_DEVICE_MAX_CONNECTIONS=1\n",
    });
    text.push_str("MEGATRON=(\n");
    for argument in arguments.iter().flatten() {
        _ = writeln!(text, "    {argument}");
    }
    text.push_str(")\n");
    Ok(text)
}

/// Layers of each piece. Pieces without any are as good as others to Megatron-LM.
fn pieces(layout: &Layout, layers: u32) -> Result<Vec<u32>, String> {
    let given = &layout.stage_layers;
    match given.iter().try_fold(0_u32, |sum, it| sum.checked_add(*it)) {
        Some(all) if all == layers && !given.is_empty() => Ok(given.clone()),
        _ => layout
            .layers_of_pieces(layers)
            .map_err(|error| error.to_string()),
    }
}

fn argument(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name} {value}")
}

fn sharded(job: &PlannedJob) -> bool {
    job.degrees.zero >= Zero::Gradients
}

fn parallel(job: &Job<'_>) -> Vec<String> {
    let degrees = &job.planned.degrees;
    let mut list = vec![
        argument("tensor-model-parallel-size", degrees.tensor),
        argument("pipeline-model-parallel-size", degrees.pipeline),
        argument("context-parallel-size", degrees.context),
        argument("expert-model-parallel-size", degrees.expert),
    ];
    if degrees.sequence_parallel {
        list.push("--sequence-parallel".to_owned());
    }
    list
}

fn stage_arguments(job: &Job<'_>, model: &Model, pieces: &[u32]) -> Vec<String> {
    let degrees = &job.planned.degrees;
    match stages(pieces, degrees.virtual_stages, model.mtp_modules) {
        Stages::Even if degrees.virtual_stages > 1 => {
            vec![argument("num-layers-per-virtual-pipeline-stage", pieces[0])]
        }
        Stages::Even => Vec::new(),
        Stages::Ends { first, last } => {
            let mut list = vec![argument("decoder-first-pipeline-num-layers", first)];
            list.extend(last.map(|last| argument("decoder-last-pipeline-num-layers", last)));
            list
        }
        Stages::Layout(text) => {
            vec![argument(
                "pipeline-model-parallel-layout",
                format!("'{text}'"),
            )]
        }
    }
}

/// How pieces with so many layers are said.
fn stages(pieces: &[u32], virtual_stages: u32, predicting: u64) -> Stages {
    let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
    if pieces.iter().all(|layers| *layers == first) {
        return Stages::Even;
    }
    let alike = pieces[1..].windows(2).all(|pair| pair[0] == pair[1]);
    let middle = &pieces[1..pieces.len() - 1];
    let ends_differ = middle.windows(2).all(|pair| pair[0] == pair[1]);
    // A stage without a layer is only known to the layout language.
    match virtual_stages == 1 && ends_differ && first > 0 && last > 0 {
        true => Stages::Ends {
            first,
            last: (!alike).then_some(last),
        },
        false => Stages::Layout(layout(pieces, predicting)),
    }
}

/// The pieces in Megatron-LM's layout language: `E` embedding, `t` layer, `m` layer that predicts
/// further tokens, `L` loss, `|` between pieces, `*N` repeats. Source: docs.nvidia.com/megatron-
/// core/developer-guide/latest/user-guide/features/pipeline_parallel_layout.html.
fn layout(pieces: &[u32], predicting: u64) -> String {
    let repeated = |what: &str, count: u64| match count {
        0 => String::new(),
        1 => what.to_owned(),
        _ => format!("{what}*{count}"),
    };
    let last = pieces.len() - 1;
    let mut text = format!("E{}|", repeated("t", pieces[0].into()));
    let mut at = 1;
    while at < last {
        let same = pieces[at..last]
            .iter()
            .take_while(|it| **it == pieces[at])
            .count();
        let piece = format!("{}|", repeated("t", pieces[at].into()));
        match same {
            1 => text.push_str(&piece),
            _ => _ = write!(text, "({piece})*{same}"),
        }
        at += same;
    }
    let ends = repeated("t", pieces[last].into()) + &repeated("m", predicting);
    text + &ends + "L"
}

fn batch(job: &PlannedJob) -> Vec<String> {
    vec![
        argument("micro-batch-size", job.degrees.micro_batch),
        argument("global-batch-size", job.global_batch_sequences),
        argument("seq-length", job.sequence_length),
    ]
}

/// What is shared out and what is computed again.
fn memory(job: &PlannedJob) -> Vec<String> {
    let overlap = ["--overlap-grad-reduce", "--overlap-param-gather"];
    let strategy = |what| {
        vec![
            "--use-megatron-fsdp".to_owned(),
            argument("data-parallel-sharding-strategy", what),
            argument("ckpt-format", "fsdp_dtensor"),
        ]
    };
    let mut list = match job.degrees.zero {
        Zero::None => Vec::new(),
        Zero::Optimizer => vec!["--use-distributed-optimizer".to_owned()],
        Zero::Gradients => strategy("optim_grads"),
        Zero::Parameters => strategy("optim_grads_params"),
    };
    match job.degrees.zero {
        Zero::None if job.overlap => list.push(overlap[0].to_owned()),
        Zero::Optimizer if job.overlap => list.extend(overlap.map(str::to_owned)),
        _ => {}
    }
    match job.degrees.recompute {
        Recompute::None => {}
        Recompute::Attention => {
            list.push(argument("recompute-granularity", "selective"));
            list.push(argument("recompute-modules", "core_attn"));
        }
        Recompute::Layers => {
            list.push(argument("recompute-granularity", "full"));
            let (method, layers) = match job.degrees.recompute_layers {
                None => ("uniform", 1),
                Some(layers) => ("block", layers),
            };
            list.push(argument("recompute-method", method));
            list.push(argument("recompute-num-layers", layers));
        }
    }
    list
}

fn model_arguments(job: &Job<'_>, model: &Model) -> Vec<Vec<String>> {
    let planned = job.planned;
    let positions = model
        .context
        .unwrap_or(0)
        .max(planned.sequence_length.into());
    let mut shape = vec![
        argument("num-layers", model.layers),
        argument("hidden-size", model.hidden),
        argument("ffn-hidden-size", model.ffn_hidden),
        argument("num-attention-heads", model.heads),
        argument("kv-channels", model.head_dim),
    ];
    if model.kv_heads != model.heads && model.latent_attention.is_none() {
        shape.push("--group-query-attention".to_owned());
        shape.push(argument("num-query-groups", model.kv_heads));
    }
    let position = match model.learned_positions {
        0 => "rope",
        _ => "learned_absolute",
    };
    let norm = match model.norm {
        Norm::Rms => "RMSNorm",
        Norm::Layer => "LayerNorm",
    };
    let kind = vec![
        argument("max-position-embeddings", positions),
        argument("position-embedding-type", position),
        argument("normalization", norm),
    ];
    vec![
        shape,
        kind,
        switches(model),
        precision(planned),
        attention(model),
        experts(model),
    ]
}

/// The activation of a gated feed-forward that is not the one with a switch.
fn other_gate(model: &Model) -> Option<&str> {
    let activation = model.activation.as_deref().filter(|it| *it != "swiglu");
    activation.filter(|_| model.ffn_matrices == 3)
}

fn switches(model: &Model) -> Vec<String> {
    let gated = model.ffn_matrices == 3;
    let squared = model.activation.as_deref() == Some("relu2");
    let list = [
        ("--swiglu", gated),
        ("--squared-relu", squared && !gated),
        ("--disable-bias-linear", !model.linear_bias),
        ("--add-qkv-bias", model.qkv_bias && !model.linear_bias),
        ("--qk-layernorm", model.qk_norm),
        (
            "--untie-embeddings-and-output-weights",
            !model.tied_embeddings,
        ),
    ];
    let set = list.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(name, _)| name.to_owned()).collect()
}

fn precision(job: &PlannedJob) -> Vec<String> {
    let mut list = vec!["--bf16".to_owned()];
    match job.precision {
        Some(Precision::Fp8) => list.push(argument("fp8-format", "hybrid")),
        Some(Precision::Fp4) => list.push(argument("fp4-format", "e2m1")),
        Some(Precision::Half) | None => {}
    }
    list
}

fn attention(model: &Model) -> Vec<String> {
    let mut list = Vec::new();
    if let Some(latent) = &model.latent_attention {
        list.push("--multi-latent-attention".to_owned());
        if latent.q_rank > 0 {
            list.push(argument("q-lora-rank", latent.q_rank));
        }
        list.push(argument("kv-lora-rank", latent.kv_rank));
        list.push(argument("qk-head-dim", latent.nope_dim));
        list.push(argument("qk-pos-emb-head-dim", latent.rope_dim));
        list.push(argument("v-head-dim", latent.v_dim));
    }
    if let Some(window) = &model.sliding_window {
        list.push(argument("window-size", format!("{},0", window.tokens)));
        list.extend(
            window
                .full_every
                .map(|every| argument("window-attn-skip-freq", every)),
        );
    }
    if model.mtp_modules > 0 {
        list.push(argument("mtp-num-layers", model.mtp_modules));
    }
    list
}

fn experts(model: &Model) -> Vec<String> {
    let Some(experts) = &model.experts else {
        return Vec::new();
    };
    let mut list = vec![
        argument("num-experts", experts.count),
        argument("moe-router-topk", experts.active),
        argument("moe-ffn-hidden-size", experts.ffn_hidden),
        argument("moe-token-dispatcher-type", "alltoall"),
        "--moe-grouped-gemm".to_owned(),
    ];
    if experts.shared > 0 {
        let width = experts.shared * experts.ffn_hidden;
        list.push(argument("moe-shared-expert-intermediate-size", width));
    }
    if experts.dense_layers > 0 || experts.every > 1 {
        list.push(argument(
            "moe-layer-freq",
            format!("'{}'", pattern(model.layers, experts)),
        ));
    }
    list
}

/// Which layers have experts, as a Python expression: 0 for a dense layer, 1 for experts.
fn pattern(layers: u64, experts: &laggard_specs::Experts) -> String {
    let rest = layers - experts.dense_layers;
    let (turns, left) = (rest / experts.every, rest % experts.every);
    let turn: Vec<&str> = (1..experts.every).map(|_| "0").chain(["1"]).collect();
    let parts = [
        (experts.dense_layers, "0".to_owned()),
        (turns, turn.join(",")),
        (left, "0".to_owned()),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("[{what}]*{count}"))
        .collect();
    format!("({})", parts.join("+"))
}

#[cfg(test)]
mod tests;
