use super::*;

fn builtin() -> Tables {
    Tables::builtin().unwrap()
}

#[test]
fn parameters_match_published_totals() {
    let mut compared = 0;
    for model in builtin().models() {
        let Some(published) = model.published_parameters else {
            continue;
        };
        compared += 1;
        let error = model.parameters() as f64 / published as f64 - 1.0;
        assert!(
            error.abs() <= 0.006,
            "{}: {} ({error:+.4})",
            model.id,
            model.parameters()
        );
    }
    assert!(compared >= 50, "only {compared} models compared");
}

/// Counts that are published to the last parameter.
#[test]
fn exact_totals() {
    let tables = builtin();
    for (name, total) in [
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("llama2-7b", 6_738_415_616),
        ("llama2-70b", 68_976_648_192),
        ("llama3-8b", 8_030_261_248),
        ("mistral-7b", 7_241_732_096),
        ("llama3-405b", 405_853_388_800),
        ("mpt-7b", 6_658_859_008),
    ] {
        assert_eq!(tables.model(name).unwrap().parameters(), total, "{name}");
    }
}

/// Active parameters as printed, to two or three digits: some count the input embedding, some do
/// not.
#[test]
fn active_parameters_of_mixtures() {
    for model in builtin().models() {
        let Some(published) = model.published_active_parameters else {
            // No count is printed, or one with parts that are not language.
            let unprinted = ["grok-1", "llama4-maverick"].contains(&model.id.as_str())
                || model.published_parameters.is_none();
            assert!(model.experts.is_none() || unprinted, "{}", model.id);
            continue;
        };
        let embedding = match model.id.as_str() {
            "deepseek-v3" | "kimi-k2" | "gpt-oss-120b" | "gpt-oss-20b" => 0,
            _ => model.vocab * model.hidden,
        };
        let active = model.matmul_parameters() + embedding;
        let error = active as f64 / published as f64 - 1.0;
        assert!(error.abs() < 0.017, "{}: {active} ({error:+.4})", model.id);
        assert!(active < model.parameters() / 3, "{}: mostly idle", model.id);
    }
}

/// By hand, of the demonstration model: 4 layers of 4 x 128^2 for attention, 8 experts of
/// 2 x 128 x 256 of which a token uses 2, a router of 128 x 8; a head of 512 x 128.
#[test]
fn counts_of_the_demonstration_mixture() {
    let tables = builtin();
    let model = tables.model("tiny-moe").unwrap();
    let layer = |experts: u64| 4 * 128 * 128 + experts * 2 * 128 * 256 + 128 * 8;
    let head = 512 * 128;
    assert_eq!(model.matmul_parameters(), 4 * layer(2) + head);
    let norms = (2 * 4 + 1) * 128;
    assert_eq!(model.parameters(), 4 * layer(8) + 2 * head + norms);
}

/// Where clock, multiprocessors and FLOP per clock are known, they give the printed peak within
/// 0.5 %, or the entry says that they do not; never both.
#[test]
fn peaks_follow_from_clocks_or_say_so() {
    let mut checked = 0;
    for accelerator in builtin().accelerators() {
        let (Some(peak), Some(by_clock)) = (
            accelerator.dense_half_peak(),
            accelerator.half_peak_from_clock(),
        ) else {
            continue;
        };
        checked += 1;
        let error = by_clock.0 / peak.0 - 1.0;
        let agrees = error.abs() <= 0.005;
        let flagged = accelerator.clock_mismatch.is_some();
        assert!(
            agrees != flagged,
            "{}: {error:+.4}, flagged: {flagged}",
            accelerator.id
        );
    }
    assert!(checked >= 30, "only {checked} accelerators checked");
}

/// No narrower format is slower, fp8 is at most twice as fast as bf16, fp4 at most 4 times as fast
/// as fp8: catches sparse peaks and slips of a power of ten.
#[test]
fn peaks_are_plausible() {
    for accelerator in builtin().accelerators() {
        let id = &accelerator.id;
        let half = accelerator.dense_half_peak();
        if let (Some(half), Some(fp8)) = (half, accelerator.dense_fp8_flop_per_s) {
            let ratio = fp8.0 / half.0;
            // Trainium3 kept its predecessor\'s bf16 rate and nearly doubled fp8 alone.
            let most = if id == "trainium3" { 3.8 } else { 2.05 };
            assert!(
                (0.99..=most).contains(&ratio),
                "{id}: fp8 is {ratio} times bf16"
            );
        }
        if let (Some(fp8), Some(fp4)) = (
            accelerator.dense_fp8_flop_per_s,
            accelerator.dense_fp4_flop_per_s,
        ) {
            let ratio = fp4.0 / fp8.0;
            assert!(
                (0.99..=4.05).contains(&ratio),
                "{id}: fp4 is {ratio} times fp8"
            );
        }
        if let (Some(half), Some(memory)) = (half, accelerator.memory_bandwidth_bytes_per_s) {
            let balance = half.0 / memory.0;
            assert!(
                (30.0..=700.0).contains(&balance),
                "{id}: {balance} FLOP per byte"
            );
        }
    }
}

#[test]
fn names_are_exact_and_hints_are_close() {
    let tables = builtin();
    for (name, id) in [
        ("h100", "h100-sxm5-80gb"),
        ("H200", "h200-sxm-141gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm5-80gb"),
        ("NVIDIA H100 PCIe", "h100-pcie-80gb"),
        ("gb200", "gb200"),
    ] {
        assert_eq!(tables.accelerator(name).unwrap().id, id, "{name}");
    }
    assert!(
        tables
            .accelerator("NVIDIA H100 80GB HBM3 and more")
            .is_err()
    );
    let hint = |name: &str| tables.accelerator(name).unwrap_err().to_string();
    assert!(hint("h10").contains("h100"), "{}", hint("h10"));
    assert!(hint("gb20").contains("gb200"), "{}", hint("gb20"));
    assert!(hint("completely different").contains("laggard specs"));
    assert!(
        tables
            .model("lama3-8b")
            .unwrap_err()
            .to_string()
            .contains("llama3-8b")
    );
    assert_eq!(tables.model("mt-nlg-530b").unwrap().id, "megatron-530b");
}

#[test]
fn measured_ratios_of_the_generations() {
    let tables = builtin();
    let rates = tables
        .class_rates(&["h100", "h200", "gb200"], RateBasis::Measured)
        .unwrap();
    // MLPerf Training v5.0: 1, 1.10 and 2.22 relative to H100.
    let to_h100: Vec<f64> = rates
        .iter()
        .map(|rate| rate.relative / rates[0].relative)
        .collect();
    for (got, expect) in to_h100.iter().zip([1.0, 1.10, 2.22]) {
        assert!((got - expect).abs() < 0.005, "{to_h100:?}");
    }
    assert!((rates[2].relative - 1.0).abs() < 1e-12);
    assert!(
        rates[0].source.contains("mlcommons/training_results_v5.0"),
        "{}",
        rates[0].source
    );

    // Only the second set holds both of these.
    let rates = tables
        .class_rates(&["h200", "mi300x"], RateBasis::Measured)
        .unwrap();
    assert!(rates[0].source.contains("LoRA"), "{}", rates[0].source);

    let peak = tables
        .class_rates(&["h100", "gb200"], RateBasis::Peak)
        .unwrap();
    assert!((peak[0].relative - 989.4 / 2500.0).abs() < 1e-9);
    assert!(peak[0].source.starts_with("dense bf16 peak"));
}

#[test]
fn missing_rates_are_errors_with_hints() {
    let tables = builtin();
    let error = |classes: &[&str], basis| tables.class_rates(classes, basis).unwrap_err();
    let text = error(&["h100", "tpu-v5p"], RateBasis::Measured).to_string();
    assert!(
        text.contains("tpu-v5p") && text.contains("hint:") && text.contains("peak"),
        "{text}"
    );
    assert!(matches!(
        error(&["v100-sxm2-16gb"], RateBasis::Peak),
        SpecsError::NoPeak { .. }
    ));
    assert!(matches!(
        error(&["h1000"], RateBasis::Peak),
        SpecsError::UnknownName { .. }
    ));
    assert!(matches!(error(&[], RateBasis::Peak), SpecsError::NoClasses));
}

/// Every rate names an accelerator of the table.
#[test]
fn rates_name_known_accelerators() {
    let tables = builtin();
    for rate in tables.rate_sets().iter().flat_map(|set| &set.rates) {
        assert_eq!(
            tables.accelerator(&rate.accelerator).unwrap().id,
            rate.accelerator
        );
    }
}

const ACCELERATOR: &str = "[[accelerator]]\nid = 'x'\nproduct = 'X'\nvendor = 'V'\n\
                           architecture = 'A'\nconfidence = 'low'\nsources = ['me']\n";

#[track_caller]
fn refuses(accelerators: &str, expect: &str) {
    let error = Tables::from_toml_strs(Some(accelerators), None, Some("")).unwrap_err();
    assert!(error.to_string().contains(expect), "{error}");
}

#[test]
fn tables_can_be_replaced_and_are_checked() {
    let tables = Tables::from_toml_strs(Some(ACCELERATOR), None, Some("")).unwrap();
    assert_eq!(tables.accelerators().len(), 1);
    assert_eq!(tables.accelerator("x").unwrap().memory_bytes, None);
    assert!(!tables.models().is_empty());

    refuses(&format!("{ACCELERATOR}{ACCELERATOR}"), "both called 'x'");
    for number in ["nan", "0", "-1.0", "inf"] {
        let text = format!("{ACCELERATOR}board_power_watts = {number}\n");
        refuses(&text, "board_power_watts is");
    }
    refuses(&format!("{ACCELERATOR}watts = 3\n"), "unknown field");
    refuses("[[accelerator]]\nid = 'x'\n", "missing field");
    refuses(&ACCELERATOR.replace("'me'", ""), "sources");
}

const MODEL: &str = "id = 'x'\nname = 'X'\nlayers = 2\nhidden = 8\nheads = 4\nkv_heads = 2\n\
                     head_dim = 2\nffn_hidden = 16\nffn_matrices = 2\nvocab = 10\n\
                     tied_embeddings = false\nnorm = 'rms'\nconfidence = 'low'\nsources = ['me']\n";

#[test]
fn models_are_checked() {
    // By hand: 2 * 8 * 10 + 2 * (2 * 8 * 8 + 2 * 8 * 4 + 2 * 8 * 16 + 2 * 8) + 8.
    assert_eq!(Model::from_toml_str(MODEL).unwrap().parameters(), 1096);
    for (from, to, expect) in [
        ("kv_heads = 2", "kv_heads = 3", "does not divide"),
        ("layers = 2", "layers = 0", "layers is 0"),
        ("hidden = 8", "hidden = 99999999999", "hidden is"),
        ("ffn_matrices = 2", "ffn_matrices = 4", "must be 2 or 3"),
        ("vocab = 10", "vocab = -1", "invalid value"),
        (
            "layers = 2\nhidden = 8\nheads = 4\n",
            "layers = 60000\nhidden = 16000000\nheads = 16000000\n",
            "2^60",
        ),
    ] {
        let error = Model::from_toml_str(&MODEL.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{error}");
    }
    let experts = "[experts]\ncount = 2\nactive = 3\nffn_hidden = 4\n";
    let error = Model::from_toml_str(&format!("{MODEL}{experts}"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("is 3 of only 2"), "{error}");
    for (dense, every, with_experts) in [(0, 1, 2), (1, 1, 1), (2, 1, 0), (3, 1, 0), (1, 2, 0)] {
        let experts = format!(
            "[experts]\ncount = 2\nactive = 1\nffn_hidden = 4\ndense_layers = {dense}\n\
             every = {every}\n"
        );
        match Model::from_toml_str(&format!("{MODEL}{experts}")) {
            Ok(model) => assert_eq!(model.layers_with_experts(), with_experts),
            Err(error) => {
                assert_eq!(with_experts, 0, "{error}");
                assert!(error.to_string().contains("none of 2 layers"), "{error}");
            }
        }
    }
}

/// A user's entries come first and replace those of the same id; the rest stays.
#[test]
fn tables_are_extended() {
    let own = ACCELERATOR.replace("'x'", "'h100-sxm5-80gb'");
    let model = format!("[[model]]\n{MODEL}");
    let tables = Tables::extended(Some(&own), Some(&model)).unwrap();
    assert_eq!(tables.accelerators()[0].product, "X");
    assert_eq!(tables.accelerator("h100-sxm5-80gb").unwrap().product, "X");
    assert_eq!(tables.model("x").unwrap().layers, 2);
    assert!(tables.model("llama3-8b").is_ok() && tables.accelerator("h200").is_ok());
    let builtin = builtin();
    assert_eq!(tables.accelerators().len(), builtin.accelerators().len());
    assert_eq!(tables.models().len(), builtin.models().len() + 1);
}

/// What is shown of an entry is an entry.
#[test]
fn entries_can_be_written_and_read() {
    let tables = builtin();
    for model in tables.models() {
        let again = Tables::extended(None, Some(&model.to_toml().unwrap())).unwrap();
        assert_eq!(again.models()[0], *model);
    }
    for accelerator in tables.accelerators() {
        let again = Tables::extended(Some(&accelerator.to_toml().unwrap()), None).unwrap();
        assert_eq!(again.accelerators()[0], *accelerator);
    }
}
