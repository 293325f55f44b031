use super::*;
use crate::layer::layer_flop;
use crate::tables::Tables;

fn model(name: &str) -> Model {
    Tables::builtin().unwrap().model(name).unwrap().clone()
}

#[track_caller]
fn check_row(row: &str, got: f64, published: f64, tolerance: f64) {
    let error = got / published - 1.0;
    assert!(
        error.abs() <= tolerance,
        "{row}: {got}, published {published} ({error:+.4})"
    );
}

/// Published TFLOP/s per accelerator, or MFU in percent, recomputed from published throughput.
/// Sources: Korthikanti et al. 2022 table 5; MegaScale (arXiv 2402.15627) table 2; NeMo 24.07
/// performance page; Nemotron-4 340B report; Megatron-Bridge performance summaries 25.11 and
/// 26.06; AI-Hypercomputer tpu-recipes (Ironwood, Trillium).
#[test]
fn published_rows() {
    use Attention::{Causal, Full};
    let flop =
        |name: &str, length, attention| training_flop_per_token(&model(name), length, attention).0;
    let rate = |sequences: f64, length: f64, seconds: f64, devices: f64| {
        sequences * length / seconds / devices
    };
    let a100 = 312e12;
    let rows = [
        (
            "GPT 22B",
            flop("megatron-22b", 2048, Full) * rate(4.0, 2048.0, 1.10, 8.0) / a100,
            0.415,
        ),
        (
            "GPT 530B",
            flop("megatron-530b", 2048, Full) * rate(280.0, 2048.0, 37.83, 280.0) / a100,
            0.560,
        ),
        (
            "GPT 1T",
            flop("megatron-1t", 2048, Full) * rate(512.0, 2048.0, 71.49, 512.0) / a100,
            0.563,
        ),
        (
            "Llama 2 7B, NeMo",
            flop("llama2-7b", 4096, Full) * 16_934.0,
            780e12,
        ),
        (
            "Nemotron-4 340B",
            flop("nemotron4-340b", 4096, Full) * rate(768.0, 4096.0, 10.3, 1536.0) / 989e12,
            0.424,
        ),
        (
            "Llama 3 8B, GB300",
            flop("llama3-8b", 8192, Causal) * 37_556.0,
            1933e12,
        ),
        (
            "Llama 3.1 405B, GB300",
            flop("llama3-405b", 8192, Causal) * 1413.0,
            3575e12,
        ),
        (
            "Llama 3.1 70B, Ironwood",
            flop("llama3-70b", 8192, Causal) * 2686.98,
            1207.05e12,
        ),
        (
            "Llama 3.1 8B, Trillium",
            flop("llama3-8b", 8192, Full) * 7207.336,
            417.397e12,
        ),
    ];
    for (row, got, published) in rows {
        check_row(row, got, published, 0.005);
    }
}

/// Hardware FLOP with full recomputation: the 96 L h^2 form of Narayanan et al. 2021, as BLOOM
/// (150.05 TFLOP/s) and MT-NLG (126 TFLOP/s) print it.
#[test]
fn published_rows_with_recomputation() {
    let hardware = |name: &str| {
        let model = model(name);
        let recompute = recompute_flop_per_token(&model, 2048, Attention::Full, Recompute::Layers);
        (training_flop_per_token(&model, 2048, Attention::Full) + recompute).0
    };
    let bloom = hardware("bloom-176b") * 2048.0 * 2048.0 / 104.5 / 384.0;
    check_row("BLOOM", bloom, 150.05e12, 0.005);
    let mt_nlg = hardware("megatron-530b") * 1920.0 * 2048.0 / 60.1 / 2240.0;
    check_row("MT-NLG", mt_nlg, 126e12, 0.005);
}

/// The closed form for plain transformers, 72 L h^2 (1 + s/6h + V/12Lh).
#[test]
fn closed_form_of_plain_transformers() {
    let gpt = model("gpt3-175b");
    let (layers, hidden, vocab, length) = (96.0_f64, 12288.0_f64, 50257.0, 2048.0);
    let factor = 1.0 + length / (6.0 * hidden) + vocab / (12.0 * layers * hidden);
    let expect = 72.0 * layers * hidden.powi(2) * factor;
    check_row(
        "72 form",
        training_flop_per_token(&gpt, 2048, Attention::Full).0,
        expect,
        1e-12,
    );
}

/// The three ways to count agree: by token, by ragged sequences, and by layers.
#[test]
fn the_ways_to_count_agree() {
    let tables = Tables::builtin().unwrap();
    for model in tables.models() {
        for attention in [Attention::Causal, Attention::Full] {
            let per_token = training_flop_per_token(model, 1000, attention).0;
            let ragged = training_flop(model, &[1000, 1000], attention).0;
            check_row(&model.id, ragged, 2000.0 * per_token, 1e-12);
            let layers = layer_flop(model, attention);
            let forward: f64 = layers
                .iter()
                .map(|layer| layer.forward_flop_per_token * 1000.0 + layer.attention_flop(1000))
                .sum();
            check_row(&model.id, forward * 3.0, 1000.0 * per_token, 1e-12);
        }
        let none = recompute_flop_per_token(model, 1000, Attention::Full, Recompute::None);
        assert_eq!(none, Flop(0.0));
    }
}

/// Equal tokens, unequal lengths: only the squares differ.
#[test]
fn ragged_sequences_cost_their_squares() {
    let model = model("llama3-8b");
    let even = training_flop(&model, &[4096, 4096], Attention::Causal).0;
    let ragged = training_flop(&model, &[8000, 192], Attention::Causal).0;
    let squares = 8000.0_f64.powi(2) + 192.0_f64.powi(2) - 2.0 * 4096.0_f64.powi(2);
    let expect = 6.0 * 32.0 * 32.0 * 128.0 * squares;
    assert!(((ragged - even) / expect - 1.0).abs() < 1e-9);
}
