use super::*;
use crate::tables::Tables;

fn model(name: &str) -> Model {
    Tables::builtin().unwrap().model(name).unwrap().clone()
}

/// 175B as MegaScale trains it (arXiv 2402.15627): heads of 96 channels, 64000 tokens.
fn megascale_175b() -> Model {
    Model {
        heads: 128,
        kv_heads: 128,
        head_dim: 96,
        vocab: 64000,
        ..model("gpt3-175b")
    }
}

/// Published figures recomputed from published throughput: the row, convention, model, sequence
/// length, recomputation if the figure is HFU, FLOP per token by hand from the source's formula,
/// tokens per second and accelerator, peak in TFLOP/s (- if TFLOP/s are printed) and the figure.
const PUBLISHED: &str = "
MTNLG-001     narayanan96    megatron-530b  2048 -         4.30461e12 1920*2048/60.1/2240 - 126
BLOOM-096     narayanan96    bloom-176b     2048 -         1.43556e12 2048*2048/104.5/384 - 150.05
KOR22-002     megatron72     megatron-22b   2048 -         1.39595e11 4*2048/1.10/8 312 41.5
KOR22-006     megatron72     megatron-530b  2048 -         3.23003e12 280*2048/37.83/280 312 56.0
KOR22-006     megatron72     megatron-530b  2048 selective 3.28288e12 280*2048/37.83/280 312 57.0
KOR22-008     megatron72     megatron-1t    2048 -         6.12819e12 512*2048/71.49/512 312 56.3
MEGASCALE-001 megatron72     megascale      2048 -         1.07739e12 768*2048/40.0/256 312 53.0
MEGASCALE-009 megatron72     megascale      2048 -         1.07739e12 6144*2048/29.02/3072 312 48.7
PALM-001      palm           palm-540b      2048 -         3.27773e12 238300*1/1/6144 275 46.2
MPT-003       mpt            mpt-70b        2048 -         4.05281e11 1058*1/1/1 989.5 43.36
NEMO2407-005  nemo-full      llama2-7b      4096 -         4.60849e10 16934*1/1/1 - 780
NEMOTRON4-001 megatron72     nemotron4-340b 4096 -         2.10479e12 768*4096/10.3/1536 989 42.4
MBRIDGE-122   mbridge-causal llama3-8b      8192 -         5.14704e10 37556*1/1/1 - 1933
MBRIDGE-023   mbridge-causal llama3-405b    8192 -         2.52396e12 1413*1/1/1 - 3575
IRONWOOD-014  maxtext-causal llama3-70b     8192 -         4.49223e11 2686.98*1/1/1 - 1207.05
TPURECIPE-017 maxtext-full   llama3-8b      8192 -         5.79129e10 7207.336*1/1/1 - 417.397
TITAN-002     titan          llama3-8b      8192 -         5.79144e10 6667*1/1/1 989 39
";

/// Sequences, tokens of one, seconds and accelerators, as `1920*2048/60.1/2240`.
fn tokens_per_second(text: &str) -> f64 {
    let numbers: Vec<f64> = text
        .split(['*', '/'])
        .map(|number| number.parse().unwrap())
        .collect();
    numbers[0] * numbers[1] / numbers[2] / numbers[3]
}

#[test]
fn published_figures_under_their_own_conventions() {
    for line in PUBLISHED.trim().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<f64>().unwrap();
        let model = match words[2] {
            "megascale" => megascale_175b(),
            name => model(name),
        };
        let selective = words[4] == "selective";
        let recompute = if selective {
            Recompute::Attention
        } else {
            Recompute::None
        };
        let convention: Convention = words[1].parse().unwrap();
        let counted = convention.flop_per_token(&model, number(3) as u64, recompute);
        let flop = counted.model.filter(|_| !selective).or(counted.hardware);
        let flop = flop.unwrap().0;
        let close = |got: f64, expect: f64, tolerance: f64| {
            let error = got / expect - 1.0;
            assert!(
                error.abs() <= tolerance,
                "{line}: {got}, not {expect} ({error:+.4})"
            );
        };
        close(flop, number(5), 5e-5);
        let unit = match words[7] {
            "-" => 1e12,
            peak => 1e10 * peak.parse::<f64>().unwrap(),
        };
        close(flop * tokens_per_second(words[6]) / unit, number(8), 0.005);
    }
}

/// Fine-tuning of adapters: what `NeMo` and Megatron-Bridge print is the 4 Nmm and the attention
/// of packed sequences, whose lengths they do not print.
#[test]
fn adapters_are_trained_without_gradients_of_weights() {
    for (row, name, rate, published) in [
        ("NEMO2407-016", "llama2-7b", 24_824.0, 663e12),
        ("NEMO2407-018", "llama2-70b", 2621.0, 722e12),
        ("MBRIDGE-059", "llama3-70b", 6206.0, 1731e12),
    ] {
        let counted = Convention::Lora4N.flop_per_token(&model(name), 4096, Recompute::None);
        let share = counted.model.unwrap().0 * rate / published;
        assert!((0.985..1.0).contains(&share), "{row}: {share}");
    }
}

/// Llama 3 8B at 6667 tokens/s on a 989 TFLOP/s part: one throughput, six figures.
#[test]
fn one_throughput_under_several_conventions() {
    let llama = model("llama3-8b");
    let per_cent = |flop: Flop| 100.0 * flop.0 * 6667.0 / 989e12;
    let under = |convention: Convention| convention.flop_per_token(&llama, 8192, Recompute::Layers);
    for (got, expect) in [
        (under(Convention::SixN).model, 32.5),
        (under(Convention::Causal).model, 34.7),
        (under(Convention::Titan).model, 39.0),
        (under(Convention::Megatron72).model, 39.0),
        (under(Convention::Palm).model, 41.2),
        (under(Convention::EightN).hardware, 43.3),
    ] {
        let got = per_cent(got.unwrap());
        assert!((got - expect).abs() < 0.06, "{got}, not {expect}");
    }
    assert_eq!(under(Convention::Titan).hardware, None);
    assert_eq!(under(Convention::Narayanan96).model, None);
}

/// Megatron-Bridge's tables, version by version: 27.2 and 32.6 GFLOP per token for gpt-oss-120b at
/// 4096 tokens, and 3.8 % for one module of multi-token prediction on top of DeepSeek-V3.
#[test]
fn windows_and_modules_for_further_tokens() {
    let flop = |convention: Convention, name: &str| {
        let counted = convention.flop_per_token(&model(name), 4096, Recompute::None);
        counted.model.unwrap().0
    };
    for (convention, expect) in [
        (Convention::MbridgeGptOssOld, 27.2e9),
        (Convention::MbridgeGptOssNew, 32.6e9),
    ] {
        let error = flop(convention, "gpt-oss-120b") / expect - 1.0;
        assert!(error.abs() < 0.002, "{convention}: {error:+.4}");
    }
    let module = flop(Convention::MbridgeCausal, "deepseek-v3-mtp")
        / flop(Convention::MbridgeCausal, "deepseek-v3");
    assert!((module - 1.039).abs() < 0.003, "{module}");
}

/// Where windows are longer than the sequence, nothing is left out.
#[test]
fn short_sequences_see_no_window() {
    let windowed = model("gpt-oss-20b");
    let whole = Model {
        sliding_window: None,
        ..windowed.clone()
    };
    for convention in [
        Convention::Causal,
        Convention::MaxtextFull,
        Convention::MaxtextCausal,
    ] {
        let flop = |model, length| convention.flop_per_token(model, length, Recompute::None);
        assert_eq!(flop(&windowed, 128), flop(&whole, 128), "{convention}");
        assert!(
            flop(&windowed, 4096).model < flop(&whole, 4096).model,
            "{convention}"
        );
    }
}

#[test]
fn names_are_unique_and_parse() {
    for &convention in Convention::all() {
        assert_eq!(convention.id().parse::<Convention>().unwrap(), convention);
        assert!(!convention.describe().is_empty());
    }
    let error = "megatron".parse::<Convention>().unwrap_err().to_string();
    assert!(
        error.contains("'megatron'") && error.contains("megatron72"),
        "{error}"
    );
    for (text, expect) in [
        ("maxtext-full (pre PR1988)", Some(Convention::MaxtextFull)),
        (
            "mbridge gpt-oss old (2-matrix experts, full causal)",
            Some(Convention::MbridgeGptOssOld),
        ),
        ("megatron72-like", Some(Convention::Megatron72)),
        ("narayanan96 (with recompute, unverified)", None),
        ("megatron72 minus SWA", None),
        ("none (step time)", None),
        ("unspecified", None),
    ] {
        assert_eq!(Convention::of_published(text), expect, "{text}");
    }
}
