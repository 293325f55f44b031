use super::*;
use crate::published::{RowKind, published_training, rows};
use crate::tables::Tables;

const GIB: f64 = (1_u64 << 30) as f64;

fn model(name: &str) -> Model {
    Tables::builtin().unwrap().model(name).unwrap().clone()
}

/// Korthikanti et al. 2022, figures 1 and 7: activations of the first stage, to the byte.
#[test]
fn korthikantis_figures() {
    let tables = Tables::builtin().unwrap();
    let mut seen = Vec::new();
    for row in rows(published_training()).unwrap() {
        if row.kind != RowKind::Memory {
            continue;
        }
        let model = row.shape(&tables).unwrap();
        let layout = MemoryLayout {
            tensor_parallel: row.tp.unwrap(),
            sequence_parallel: row.sequence_parallel.unwrap(),
            pipeline_parallel: row.pp.unwrap(),
            // Table 3 of the paper: the two middle models are interleaved.
            virtual_stages: if [96, 105].contains(&model.layers) {
                3
            } else {
                1
            },
            recompute: row.recomputation().unwrap(),
            keeps_scores: true,
            dropout: true,
            micro_batch_sequences: row.micro_batch.unwrap(),
            ..MemoryLayout::single(row.seq_len.unwrap())
        };
        let need = memory_of_stage(&model, &layout, 0).unwrap();
        let published = row.value.unwrap();
        let gib = need.activations.0 as f64 / GIB;
        let expect = (published * GIB) as u64;
        assert_eq!(
            need.activations.0, expect,
            "{}: {gib} GiB, not {published}",
            row.row_id
        );
        seen.push(published);
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
}

/// 18 bytes for each of the 12 L h^2 / (t p) weights, and no more than 2 % for the rest.
#[test]
fn states_of_a_plain_transformer() {
    let layout = MemoryLayout {
        tensor_parallel: 8,
        ..MemoryLayout::single(2048)
    };
    let need = memory_per_rank(&model("megatron-22b"), &layout).unwrap();
    let states = (need.parameters + need.gradients + need.optimizer).0 as f64 / GIB;
    assert!((45.5625..45.5625 * 1.02).contains(&states), "{states}");
}

/// Every state is shared out from its stage of `ZeRO` on, and all together weigh what one replica
/// weighs.
#[test]
fn zero_shares_states_out() {
    let model = model("llama3-8b");
    let need = |zero| {
        let layout = MemoryLayout {
            data_parallel: 64,
            zero,
            ..MemoryLayout::single(8192)
        };
        memory_per_rank(&model, &layout).unwrap()
    };
    let weights = model.parameters();
    let whole = need(0);
    assert_eq!(whole.parameters.0, 2 * weights);
    assert_eq!(
        (whole.gradients.0, whole.optimizer.0),
        (4 * weights, 12 * weights)
    );
    let shard = |bytes: u64| (bytes * weights).div_ceil(64);
    assert_eq!(
        (need(1).optimizer.0, need(1).gradients.0),
        (shard(12), 4 * weights)
    );
    assert_eq!(
        (need(2).gradients.0, need(2).parameters.0),
        (shard(4), 2 * weights)
    );
    // One gathered layer: 4 x 4096^2 for attention with a quarter of the keys and values, a gate.
    let layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096;
    assert_eq!(
        need(3).parameters.0,
        (2 * weights + 64 * 2 * layer).div_ceil(64)
    );
}

/// By hand, Llama 3 8B on one device at 8192 tokens without recomputation: per token and layer,
/// norms and inputs 4 x 4096, queries and output 2 x 4096, keys and values 2 x 1024, a gated
/// feed-forward 3 x 14336, of 2 bytes each; softmax statistics 32 of 4 bytes.
#[test]
fn activations_of_a_gated_model_with_grouped_queries() {
    let need = memory_per_rank(&model("llama3-8b"), &MemoryLayout::single(8192)).unwrap();
    let per_token = 2 * (6 * 4096 + 2 * 1024 + 3 * 14336) + 4 * 32;
    assert_eq!(need.activations.0, 8192 * 32 * per_token);
    assert_eq!(need.end_activations.0, 8192 * (4 * 4096 + 4 * 128_256));
    let full = MemoryLayout {
        recompute: Recompute::Layers,
        ..MemoryLayout::single(8192)
    };
    let need = memory_per_rank(&model("llama3-8b"), &full).unwrap();
    assert_eq!(need.activations.0, 8192 * (32 * 2 * 4096 + per_token));
}

/// Latent attention and experts: `DeepSeek-V3`'s dense and mixed layers, by hand.
#[test]
fn activations_of_experts_and_latent_attention() {
    let model = model("deepseek-v3");
    let need = memory_per_rank(&model, &MemoryLayout::single(4096)).unwrap();
    let attention = 4 * 7168 + 1536 + 512 + 64 + 2 * 128 * 192 + 2 * 128 * 128;
    let dense = 2 * (attention + 3 * 18432) + 4 * 128;
    let mixed = 2 * (attention + 8 * 7168 + 3 * 9 * 2048) + 4 * 256 + 4 * 128;
    assert_eq!(need.activations.0, 4096 * (3 * dense + 58 * mixed));
    assert_eq!(need.parameters.0, 2 * model.parameters());
    // Experts on 64 ranks: all but the routed ones stay.
    let layout = MemoryLayout {
        data_parallel: 64,
        expert_parallel: 64,
        ..MemoryLayout::single(4096)
    };
    let routed = 58 * 256 * 3 * 7168 * 2048;
    let rest = model.parameters() - routed;
    let need = memory_per_rank(&model, &layout).unwrap();
    assert_eq!(need.parameters.0, 2 * (rest + routed / 64));
}

/// A module for further tokens has a layer like the last, and so its activations; and of the layers
/// that `ZeRO` 3 gathers the largest counts.
#[test]
fn further_layers_and_the_largest_count() {
    let plain = model("deepseek-v3");
    let with_module = Model {
        mtp_modules: 1,
        ..plain.clone()
    };
    let layout = MemoryLayout::single(4096);
    let activations = |model: &Model| memory_per_rank(model, &layout).unwrap().activations.0;
    let attention = 4 * 7168 + 1536 + 512 + 64 + 2 * 128 * 192 + 2 * 128 * 128;
    let mixed = 2 * (attention + 8 * 7168 + 3 * 9 * 2048) + 4 * 256 + 4 * 128;
    assert_eq!(
        activations(&with_module) - activations(&plain),
        4096 * mixed
    );
    // Of 256 experts on as many ranks each has one: a dense layer is larger then.
    let sharded = MemoryLayout {
        data_parallel: 256,
        expert_parallel: 256,
        zero: 3,
        ..layout
    };
    let gathered = |model: &Model| {
        let whole = memory_per_rank(model, &sharded).unwrap().parameters.0;
        whole - (2 * model.parameters()).div_ceil(256)
    };
    assert!(gathered(&plain).abs_diff(2 * plain.layer_parameters_with(None)) <= 1);
}

/// Splitting a model over ranks loses and invents no parameters.
#[test]
fn stages_make_up_the_model() {
    for name in [
        "llama3-405b",
        "deepseek-v3-mtp",
        "gpt-oss-120b",
        "llama4-maverick",
    ] {
        let model = model(name);
        for (stages, pieces) in [(1, 1), (4, 1), (3, 2), (8, 3)] {
            let layout = MemoryLayout {
                pipeline_parallel: stages,
                virtual_stages: pieces,
                ..MemoryLayout::single(4096)
            };
            let sum: u64 = (0..stages)
                .map(|stage| {
                    memory_of_stage(&model, &layout, stage)
                        .unwrap()
                        .parameters
                        .0
                })
                .sum();
            assert_eq!(sum, 2 * model.parameters(), "{name} {stages} {pieces}");
        }
    }
}

/// What does not divide is on middle stages: the first of Llama 3 405B's 16 has a layer fewer than
/// the second, as it was trained (<https://arxiv.org/abs/2407.21783>, section 3.3.2).
#[test]
fn uneven_layers_are_on_middle_stages() {
    let model = model("llama3-405b");
    let layout = MemoryLayout {
        pipeline_parallel: 16,
        ..MemoryLayout::single(8192)
    };
    let parameters = |stage| {
        let need = memory_of_stage(&model, &layout, stage).unwrap();
        need.parameters.0 / 2
    };
    let layer = model.layer_parameters_with(None);
    assert_eq!(parameters(0), 7 * layer + model.vocab * model.hidden);
    assert_eq!((parameters(1), parameters(14)), (8 * layer, 8 * layer));
    // Its 128 pieces: the first has the embedding alone, the last the head.
    let interleaved = MemoryLayout {
        virtual_stages: 8,
        ..layout.clone()
    };
    let first = memory_of_stage(&model, &interleaved, 0).unwrap();
    assert_eq!(first.parameters.0 / 2, parameters(0));
}

/// Of the layers that are computed again only the inputs are kept, of the others all; one is whole
/// while it is computed again.
#[test]
fn some_layers_are_computed_again() {
    for (name, layers_of_piece) in [("llama3-70b", 10), ("grok-1", 8)] {
        let model = model(name);
        let activations = |recompute, recompute_layers| {
            let layout = MemoryLayout {
                pipeline_parallel: 4,
                virtual_stages: model.layers / layers_of_piece / 4,
                recompute,
                recompute_layers,
                ..MemoryLayout::single(4096)
            };
            let need = memory_of_stage(&model, &layout, 1).unwrap();
            need.activations.0 as f64
        };
        let some = |layers| activations(Recompute::Layers, Some(layers));
        let (none, all) = (
            activations(Recompute::None, None),
            activations(Recompute::Layers, None),
        );
        assert!((some(0) - none).abs() < 1.0 && (some(layers_of_piece) - all).abs() < 1.0);
        assert!((some(layers_of_piece + 1) - all).abs() < 1.0);
        // From the first on, each saves as much.
        let saved = some(1) - some(2);
        assert!(saved > 0.0);
        assert!((some(3) - some(7) - 4.0 * saved).abs() < 10.0, "{name}");
    }
}

/// A step of few micro-batches keeps no more than these.
#[test]
fn few_micro_batches_wait() {
    let need = |micro_batches, virtual_stages| {
        let layout = MemoryLayout {
            pipeline_parallel: 8,
            virtual_stages,
            micro_batches,
            ..MemoryLayout::single(2048)
        };
        let first = memory_of_stage(&model("gpt3-175b"), &layout, 0).unwrap();
        let last = memory_of_stage(&model("gpt3-175b"), &layout, 7).unwrap();
        (first.activations.0, last.activations.0)
    };
    let (one, _) = need(1, 1);
    assert_eq!(need(8, 1).0, 8 * one);
    assert_eq!(need(100, 1), (8 * one, one));
    assert_eq!(need(1, 3).0, one);
    // 1 + 7/24 times as much.
    assert_eq!(24 * need(100, 3).0, 31 * 8 * one);
}

#[test]
fn impossible_layouts_say_why() {
    let check = |change: &dyn Fn(&mut MemoryLayout), expect: &str| {
        let mut layout = MemoryLayout::single(4096);
        change(&mut layout);
        let error = memory_per_rank(&model("deepseek-v3"), &layout)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(
        &|l| l.tensor_parallel = 3,
        "tensor_parallel is 3, which does not divide 128 heads",
    );
    check(&|l| l.tensor_parallel = 0, "tensor_parallel is 0");
    check(&|l| l.pipeline_parallel = 64, "64 pieces of 61 layers");
    check(&|l| l.pipeline_parallel = u64::MAX, "61 layers");
    check(&|l| l.expert_parallel = 7, "does not divide 256 experts");
    check(&|l| l.expert_parallel = 8, "does not divide the 1 ranks");
    check(&|l| l.zero = 4, "from 0 to 3");
    check(&|l| l.sequence_length = 0, "sequence_length is 0");
}

#[test]
fn the_largest_part_is_named() {
    let need = memory_per_rank(&model("llama3-8b"), &MemoryLayout::single(8192)).unwrap();
    assert_eq!(need.largest(), ("optimizer states", need.optimizer));
    let parts = need.parameters + need.gradients + need.optimizer;
    assert_eq!(
        need.total(),
        parts + need.activations + need.end_activations
    );
}
