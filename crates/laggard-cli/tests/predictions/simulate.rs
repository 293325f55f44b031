//! The real binary on `simulate`: identities, predicted records that other commands read, and bad
//! input.

use crate::{json, laggard, refused, works};
use laggard_benches::share_one_processor;

#[test]
fn the_mix_of_colossus_1_by_itself_and_what_eleven_per_cent_may_mean() {
    let args = ["simulate", "--cluster", "colossus-1", "--fleet-mfu", "0.11"];
    let found = json(&args);
    let share = |of: &str, field: &str| found[of][field].as_f64().expect("a share");
    assert!((share("mix_by_peak", "mfu") - 0.351).abs() < 0.0005);
    assert!((share("mix_by_peak", "loss") - 0.122).abs() < 0.001);
    // Of the measured rates 1, 1.10 and 2.22.
    assert!((share("mix_by_measured_rates", "loss") - 0.118).abs() < 0.001);
    let terms = found["forecast"]["waterfall"]["terms"]
        .as_array()
        .expect("terms");
    assert_eq!(terms.len(), 6);
    assert_eq!(
        found["fleet_figure"]["statement"],
        "not identifiable from public data"
    );
    assert_eq!(
        found["fleet_figure"]["examples"].as_array().map(Vec::len),
        Some(3)
    );
    let page = works(&args);
    for part in [
        "40.0 % of h100 by itself becomes 35.1 %",
        "fast classes wait",
        "caveat: conv",
        "assumed: jobs at 20 to 50 % of dense bf16, goodput 60 to 100 %, 20 to 100 % of the fleet",
        "first-order formulas (Young, Daly) do not hold",
    ] {
        assert!(page.contains(part), "`{part}` is not in {page}");
    }
    assert_eq!(page, works(&args), "the same input gives the same page");
}

/// Accelerators of no cluster fail as often as published, and the page says where that is from.
#[test]
fn failures_without_a_cluster_are_those_of_a_publication() {
    let args = |gpus| {
        let job = ["simulate", "--accelerator", "h100", "--gpus", gpus];
        [&job[..], &["--layout", "tp8,pp16,dp8,sp,zero1,recompute"]].concat()
    };
    let found = json(&args("1024"));
    let forecast = &found["forecast"];
    let mtbf = forecast["mtbf_s"].as_f64().expect("a time");
    // 419 in 54 days on 16,384.
    let expect = 54.0 * 86_400.0 / 419.0 * 16_384.0 / 1024.0;
    assert!((mtbf / expect - 1.0).abs() < 1e-9, "{mtbf} {expect}");
    let exact = forecast["goodput"]["interval_s"].as_f64().expect("a time");
    let first = forecast["first_order_interval_s"].as_f64().expect("a time");
    assert!((first / exact - 1.0).abs() < 0.05, "{first} {exact}");
    let page = works(&args("1024"));
    for part in [
        "caveat: failures are taken from elsewhere: unexpected interruptions",
        "https://arxiv.org/abs/2407.21783",
        "Young's and Daly's first-order formula: a checkpoint every",
    ] {
        assert!(page.contains(part), "`{part}` is not in {page}");
    }
}

#[test]
fn hosts_that_are_left_over_are_spares() {
    let job = [
        "simulate",
        "--cluster",
        "h100-16k",
        "--repair-time",
        "86400",
    ];
    let page = works(&[&job[..], &["--layout", "tp8,pp16,dp127,sp,zero1,recompute"]].concat());
    assert!(
        page.contains("  16 hosts left over as spares: too few are healthy"),
        "{page}"
    );
    let impossible = [&job[..3], &["--repair-time=-1"]].concat();
    refused(&impossible, 2, &["repair in seconds is -1"]);
}

#[test]
fn a_predicted_record_is_analysed_like_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let record = dir.path().join("predicted");
    let record = record.to_str().expect("a path");
    let job = [
        "simulate",
        "--accelerator",
        "h100",
        "--gpus",
        "8",
        "--model",
        "llama3-8b",
        "--layout",
        "dp4,tp2,zero1,sp",
        "--global-batch",
        "8",
        "--jitter",
        "0.02",
        "--steps",
        "30",
        "--record",
        record,
    ];
    let predicted = json(&job)["forecast"]["step_s"].as_f64().expect("a time");
    let analysis = json(&["analyze", record]);
    let step = analysis["step_time"]["median"].as_f64().expect("a time");
    // The graph takes all tensor-parallel communication as exposed, and draws the jitter.
    assert!((step / predicted - 1.0).abs() < 0.15, "{step} {predicted}");
    assert_eq!(analysis["findings"].as_array().map(Vec::len), Some(0));
    let caveats = analysis["caveats"].to_string();
    assert!(
        caveats.contains("a synthetic step was predicted"),
        "{caveats}"
    );
}

#[test]
fn a_large_world_becomes_a_sketch_that_is_analysed() {
    let dir = tempfile::tempdir().expect("a directory");
    let record = dir.path().join("sketch");
    let record_name = record.to_str().expect("a path");
    let output = laggard(&[
        "simulate",
        "--cluster",
        "colossus-1",
        "--model",
        "grok-1",
        "--jitter",
        "0.02",
        "--steps",
        "8",
        "--record",
        record_name,
    ]);
    assert_eq!(output.status.code(), Some(0));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("sketch: "), "{talk}");
    assert!(talk.contains("jitter: by order statistics"), "{talk}");
    assert!(record.join("sketch_ranks").is_dir());
    let page = dir.path().join("page.html");
    let analysis = json(&[
        "analyze",
        record_name,
        "--html",
        page.to_str().expect("a path"),
    ]);
    let terms = analysis["waterfall"].as_array().expect("terms");
    let share = |term: &serde_json::Value| term["share"]["value"].as_f64().expect("a share");
    let all: f64 = terms.iter().map(share).sum();
    assert!((all - 1.0).abs() < 1e-12, "{all}");
    let even = terms.iter().find(|term| term["level"] == "even_step");
    let penalty = analysis["penalty"]["value"].as_f64().expect("a share");
    let left = even.map(share).expect("what equal ranks would take");
    assert!((1.0 - left - penalty).abs() < 1e-12, "{penalty}");
    assert!(penalty > 0.02, "{penalty}");
    let found = analysis["findings"].as_array().expect("findings");
    let names_somebody = |it: &&serde_json::Value| it["culprit"] != "nobody";
    assert_eq!(found.iter().find(names_somebody), None);
    assert_eq!(analysis["ranks"].as_array().map(Vec::len), Some(1000));
    assert_eq!(analysis["classes"].as_array().map(Vec::len), Some(3));
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("left out") && page.len() < 500_000);
    for format in ["text", "markdown"] {
        let text = works(&["analyze", record_name, "--format", format]);
        assert!(text.contains("step of equal ranks"), "{text}");
        assert!(text.contains("the record is a sketch") && text.lines().count() < 80);
    }
}

#[test]
fn bad_input_is_refused() {
    refused(&["simulate"], 2, &["--cluster"]);
    refused(&["simulate", "--cluster", "colossus-3"], 2, &["colossus-1"]);
    refused(
        &["simulate", "--cluster", "nowhere.toml"],
        3,
        &["nowhere.toml"],
    );
    refused(
        &[
            "simulate",
            "--accelerator",
            "h100",
            "--gpus",
            "8",
            "--model",
            "llama3.1-405b",
        ],
        2,
        &["fits in memory", "hint"],
    );
    refused(
        &["simulate", "--cluster", "h100-16k", "--framework", "none"],
        2,
        &["megatron-lm"],
    );
    let layout = ["--layout", "dp8,tp3", "--model", "llama3-8b"];
    refused(
        &[&["simulate", "--cluster", "h100-16k"][..], &layout].concat(),
        2,
        &["hint"],
    );
    let layout = ["--layout", "dp999,tp8,pp16,zero1,recompute"];
    refused(
        &[&["simulate", "--cluster", "h100-16k"][..], &layout].concat(),
        2,
        &["127872 ranks", "16384 accelerators"],
    );
    let site = ["simulate", "--cluster", "colossus-1"];
    let check = |more: &[&str], says: &[&str]| refused(&[&site[..], more].concat(), 2, says);
    check(&["--global-batch", "0"], &["--global-batch", "1.."]);
    check(&["--sequence-length", "0"], &["--sequence-length", "1.."]);
    check(&["--checkpoint-time", "0"], &["checkpoint", "above"]);
    check(&["--restart-time=-1"], &["restart", "at least 0"]);
    check(&["--assumed-mfu", "1.5"], &["MFU", "1.5"]);
    let layout = ["--layout", "dp64,tp8,pp16,zero1,recompute"];
    check(
        &[&layout[..], &["--global-batch", "100"]].concat(),
        &["100 sequences", "a multiple of 64"],
    );
    check(
        &[&layout[..], &["--calibrated-on", "record"]].concat(),
        &["--calibrated-on", "cannot be used with"],
    );
}

/// How near the prediction is, `benches/src/bin/calibrated_prediction.rs` measures; here the
/// machine may be busy.
#[test]
fn a_layout_is_predicted_by_runs_of_others() {
    share_one_processor().expect("a processor");
    let dir = tempfile::tempdir().expect("a directory");
    let path = |layout: &str| dir.path().join(layout).to_str().expect("a path").to_owned();
    let run = |layout: &str| {
        let place = path(layout);
        let job = [
            "--model", "tiny", "--steps", "30", "--layout", layout, "-q", "-o", &place,
        ];
        works(&[&["run"][..], &job].concat());
    };
    ["dp2", "pp2", "dp2,pp2"].into_iter().for_each(run);
    let (dp, pp) = (path("dp2"), path("pp2"));
    let known = ["simulate", "--calibrated-on", &dp, "--calibrated-on", &pp];
    let found = json(&[&known[..], &["--layout", "dp2,pp2"]].concat());
    let analysis = json(&["analyze", &path("dp2,pp2")]);
    let seconds = |value: &serde_json::Value| value.as_f64().expect("a time");
    let (said, seen) = (
        seconds(&found["step"]["median_s"]),
        seconds(&analysis["step_time"]["median"]),
    );
    assert!(said / seen > 0.5 && said / seen < 2.0, "{said} {seen}");
    refused(
        &[&known[..], &["--layout", "dp2,cp2"]].concat(),
        2,
        &["no run of the calibration", "hint"],
    );
    refused(
        &[&known[..], &["--layout", "dp1048576"]].concat(),
        2,
        &["that can be replayed", "--global-batch"],
    );
}
