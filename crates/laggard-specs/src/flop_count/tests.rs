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
