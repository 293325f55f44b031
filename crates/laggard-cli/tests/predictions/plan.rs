//! The real binary on `plan`: options that add up, the same page for the same input, and bad input.

use crate::{json, refused, works};
use serde_json::Value;
use std::fs;

const COLOSSUS: [&str; 5] = ["plan", "--cluster", "colossus-1", "--model", "grok-1"];

fn options(plan: &Value) -> &Vec<Value> {
    plan["options"].as_array().expect("options")
}

fn of_kind<'a>(plan: &'a Value, kind: &str) -> &'a Value {
    let mut all = options(plan).iter();
    all.find(|it| it["kind"] == kind)
        .expect("an option of the kind")
}

fn figure(option: &Value, name: &str) -> f64 {
    option["figures"][name].as_f64().expect("a figure")
}

/// The best option by the plan's ranking.
fn best(plan: &Value) -> &Value {
    let at = plan["ranking"]["order"][0].as_u64().expect("an option");
    &options(plan)[at as usize]
}

#[test]
fn every_way_to_use_colossus_1_accounts_for_every_device_and_the_whole_peak() {
    let plan = json(&COLOSSUS);
    let kinds = [
        "equal_shares",
        "uneven_shares",
        "uneven_stages",
        "pools",
        "train_and_lease",
        "alone",
        "loosely_coupled",
        "lease_all",
    ];
    for kind in kinds {
        of_kind(&plan, kind);
    }
    for option in options(&plan) {
        let uses = option["uses"].as_object().expect("uses");
        let devices: u64 = uses
            .values()
            .flat_map(|it| ["train", "idle", "lease", "off"].map(|use_| it[use_].as_u64()))
            .flatten()
            .sum();
        assert_eq!(devices, 220_000, "{option:#}");
        let peak = option["figures"]["peak_use"].as_object().expect("shares");
        let shares: Vec<f64> = peak.values().filter_map(Value::as_f64).collect();
        assert_eq!(shares.len(), 13);
        assert!(
            (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9,
            "{option:#}"
        );
        assert!(shares.iter().all(|share| *share > -1e-9), "{option:#}");
        assert!(figure(option, "power_mw") <= 300.0, "{option:#}");
    }
    // Nameplate power is above the limit, and H100 give least per watt.
    let everything = &of_kind(&plan, "equal_shares")["uses"];
    assert!(everything["h100"]["off"].as_u64() > Some(30_000));
    assert_eq!(everything["gb200"]["off"], 0);
    // Pools do not wait for each other, and all together are at least the fastest of them.
    let pools = of_kind(&plan, "pools");
    assert!(figure(pools, "tokens_per_s") > figure(pools, "model_tokens_per_s"));
    assert_eq!(pools["figures"]["peak_use"]["waiting"], 0.0);
    assert_eq!(best(&plan)["kind"], "pools");
    assert_eq!(of_kind(&plan, "loosely_coupled")["can_win"], false);
}

#[test]
fn uneven_shares_state_the_batch_and_the_weights_of_gradients() {
    let plan = json(&COLOSSUS);
    let job = &of_kind(&plan, "uneven_shares")["jobs"][0];
    let shares = job["shares"].as_array().expect("shares");
    let weight = |it: &Value| it["gradient_weight"].as_f64().zip(it["replicas"].as_f64());
    let sum: f64 = shares
        .iter()
        .filter_map(weight)
        .map(|(one, count)| one * count)
        .sum();
    assert!((sum - 1.0).abs() < 1e-9, "{job:#}");
    let batches: Vec<_> = shares
        .iter()
        .map(|it| it["micro_batches"].as_u64())
        .collect();
    assert!(batches.iter().any(|count| *count != batches[0]), "{job:#}");
    let sequences: u64 = shares
        .iter()
        .map(|it| {
            let each = it["micro_batches"].as_u64().unwrap_or(0);
            let of_each = job["micro_batch_sequences"].as_u64().unwrap_or(0);
            it["replicas"].as_u64().unwrap_or(0) * each * of_each
        })
        .sum();
    assert_eq!(job["step_tokens"].as_f64(), Some((sequences * 8192) as f64));
    let limit = plan["batch_tokens"].as_f64().expect("a limit");
    assert!(job["step_tokens"].as_f64() <= Some(1.05 * limit));
}

#[test]
fn the_objective_decides_and_prices_turn_the_answer() {
    let with = |more: &[&str]| json(&[&COLOSSUS[..], more].concat());
    assert_eq!(
        best(&with(&["--objective", "net-dollars"]))["kind"],
        "lease_all"
    );
    let by_time = with(&["--objective", "time"]);
    let fastest = figure(best(&by_time), "days");
    for option in options(&by_time).iter().filter(|it| it["can_win"] == true) {
        assert!(
            option["figures"]["days"]
                .as_f64()
                .is_none_or(|days| days >= fastest)
        );
    }
    let by_rent = with(&["--objective", "dollars-per-token"]);
    let cheapest = best(&by_rent)["name"].clone();
    let flips = by_rent["flips"].as_array().expect("flips");
    let flip = flips
        .iter()
        .find(|it| it["what"] == "rent of gb200" && it["factor"].as_f64() > Some(1.0))
        .expect("dear enough, GB200 is not the cheapest");
    // Just below and just above the price at which the order flips.
    for (nudge, becomes) in [(0.99, &cheapest), (1.01, &flip["becomes"])] {
        let price = 4.54 * nudge * flip["factor"].as_f64().expect("a factor");
        let lease = format!("gb200={price}");
        let plan = with(&["--objective", "dollars-per-token", "--lease", &lease]);
        assert_eq!(&best(&plan)["name"], becomes, "{flip}");
    }
}

#[test]
fn one_class_and_small_places_have_plans_too() {
    let plan = json(&["plan", "--cluster", "h100-16k", "--model", "llama3.1-405b"]);
    assert_eq!(options(&plan).len(), 2);
    let page = works(&["plan", "--cluster", "small-lab", "--model", "llama3-8b"]);
    for part in [
        "best by",
        "stages by speed",
        "no power is known",
        "keep in mind",
    ] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{page}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for format in ["text", "json"] {
        let args = [&COLOSSUS[..], &["--format", format]].concat();
        assert_eq!(works(&args), works(&args));
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_would_do() {
    let small = ["plan", "--cluster", "small-lab", "--model"];
    refused(
        &[&small[..], &["llama3.1-405b"]].concat(),
        2,
        &["nothing can train", "GiB on each", " would do"],
    );
    let small = [&small[..], &["llama3-8b"]].concat();
    let check = |more: &[&str], code: i32, says: &[&str]| {
        refused(&[&small[..], more].concat(), code, says);
    };
    check(
        &["--batch-tokens", "100"],
        2,
        &["no sequence of 8192", "--batch-tokens"],
    );
    check(
        &["--batch-tokens", "18446744073709551615"],
        2,
        &["more than the 17592186044416", "tokens of one step"],
    );
    check(&["--tokens", "NaN"], 2, &["tokens is NaN"]);
    check(
        &["--power-limit-mw=-3"],
        2,
        &["power limit in watts is -3000000"],
    );
    check(&["--lease", "h100=2"], 2, &["`h100`", "a100, rtx"]);
    check(
        &["--lease", "a100"],
        2,
        &["cannot read --lease", "h100=2.60"],
    );
    check(&["--lease", "a100=-1"], 2, &["lease price", "is -1"]);
    check(
        &["--lease", "a100=1", "--lease", "a100=2"],
        2,
        &["contradict"],
    );
    check(&["--framework", "nope"], 2, &["nope", "megatron-lm"]);
    check(
        &["--objective", "tokens-per-mwh"],
        2,
        &["no power", "power_watts_per_device"],
    );
}

#[test]
fn sites_that_cannot_be_planned_are_refused() {
    refused(
        &[&COLOSSUS[..], &["--power-limit-mw", "0.001"]].concat(),
        2,
        &["leaves no host on", "0.0080 MW"],
    );
    refused(
        &[
            "plan",
            "--cluster",
            "orbital",
            "--model",
            "grok-1",
            "--power-limit-mw",
            "5",
        ],
        2,
        &["2 sites", "power_limit_watts", "orbital"],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.toml");
    fs::write(&file, "id = \"bad\"\n[[pool]]\nid = \"a\"\ncount = -4\n").expect("a file");
    let file = file.to_str().expect("a path");
    refused(
        &["plan", "--cluster", file, "--model", "grok-1"],
        3,
        &["bad.toml", "line"],
    );
}

/// Pools that are nearly alike are taken as one where a site has many of them, but not those that
/// something is said of.
#[test]
fn a_pool_that_something_is_said_of_stays_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cluster, owned) = (dir.path().join("many.toml"), dir.path().join("owned.toml"));
    let mut text = "id = \"many\"\n[[site]]\nid = \"here\"\n".to_owned();
    for at in 0..9 {
        text += &format!(
            "[[pool]]\nid = \"p{at}\"\nsite = \"here\"\naccelerator = \"h100-sxm5-80gb\"\n\
             count = 16\ndevices_per_node = 8\npower_watts_per_device = {}.0\n",
            1000 + at
        );
    }
    std::fs::write(&cluster, text).expect("a file");
    let bought = "[bought.p7]\ndollars_per_device = 30000.0\nyears = 4.0\n";
    std::fs::write(&owned, bought).expect("a file");
    let [cluster, owned] = [&cluster, &owned].map(|it| it.to_str().expect("text"));
    let plan = ["plan", "--cluster", cluster, "--model", "llama3-8b"];
    let classes = |plan: &Value| -> Vec<String> {
        let classes = plan["classes"].as_array().expect("classes").iter();
        classes.map(|it| it["name"].to_string()).collect()
    };
    let alone = "\"p7\"".to_owned();
    assert!(!classes(&json(&plan)).contains(&alone));
    let with_owner = [&plan[..], &["--owned", owned]].concat();
    let found = json(&with_owner);
    assert!(classes(&found).contains(&alone), "{:?}", classes(&found));
    let hour = &found["owner"]["dollars_per_used_hour"]["p7"];
    assert!((hour.as_f64().expect("dollars") - 30_000.0 / 4.0 / 8766.0).abs() < 1e-9);
    // Neither power nor staff is said to cost anything: owning is not called cheaper.
    let page = works(&[&with_owner[..], &["--lease", "p7=100"]].concat());
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains("without the price of electricity,"), "{page}");
    assert!(!page.contains("owning is cheaper"), "{page}");
}

/// Two clusters side by side say as much of what they print as one does.
#[test]
fn side_by_side_says_how_sure_it_is() {
    let two = [
        "plan",
        "--cluster",
        "colossus-1",
        "--cluster",
        "colossus-2",
        "--model",
        "grok-1",
    ];
    refused(
        &[&two[..], &["--owned", "none.toml"]].concat(),
        2,
        &["--owned with several"],
    );
    let page = works(&[&two[..], &["--deadline", "1.7"]].concat());
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("may be off by a factor of"), "{page}");
    assert!(words.contains("all of them serving:"), "{page}");
    assert!(words.contains("! later than"), "{page}");
    assert!(
        page.contains("one job, equal shares           Colossus 1 ! "),
        "{page}"
    );
}
