//! The real binary on `mfu` and `specs`: numbers of the literature, user files, and bad input.

use std::fs;
use std::path::Path;

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[track_caller]
fn works(line: &str) -> String {
    crate::works(&words(line))
}

#[track_caller]
fn refused(line: &str, code: i32, says: &[&str]) {
    crate::refused(&words(line), code, says);
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(&works(line)).expect("JSON")
}

/// Korthikanti et al. 2022, table 5: 22B on 8 A100 in 1.10 s is an MFU of 41.5 % and with selective
/// recomputation an HFU of 43.7 %.
#[test]
fn mfu_of_a_published_step() {
    let step = "mfu --model megatron-22b --gpus 8 --accelerator a100-sxm4-80gb --step-time 1.10 \
                --global-batch 4 --sequence-length 2048 --recompute selective";
    let found = json(&format!("{step} --format json"));
    let conventions = found["conventions"].as_array().expect("a list");
    let of = |name: &str| {
        let mut all = conventions.iter();
        all.find(|it| it["convention"] == name).expect(name)
    };
    assert_eq!(conventions[0]["convention"], "causal");
    let percent = |share: &serde_json::Value| 100.0 * share["of_peak"].as_f64().expect("a number");
    let megatron = of("megatron72");
    assert!(
        (percent(&megatron["model"]) - 41.5).abs() < 0.2,
        "{megatron}"
    );
    assert!(
        (percent(&megatron["hardware"]) - 43.7).abs() < 0.2,
        "{megatron}"
    );
    assert!(of("titan")["hardware"].is_null());
    // The same in text, with what a Megatron log prints: 41.65 % of 312 TFLOP/s.
    let text = works(step);
    for part in [
        "41.7 %",
        "130.0 TFLOP/s/GPU  before",
        "dense bf16 peak of 312.0",
        "causal",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

/// Either way to give the throughput gives the same.
#[test]
fn throughput_can_be_given_in_two_ways() {
    let job = "mfu --model llama3-8b --gpus 8 --accelerator h100 --format json";
    let by_step = json(&format!("{job} --global-batch 16 --step-time 2"));
    let by_rate = json(&format!("{job} --tokens-per-second 65536"));
    assert_eq!(by_step["conventions"], by_rate["conventions"]);
    let fp8 = json(&format!("{job} --tokens-per-second 65536 --precision fp8"));
    let ratio = |found: &serde_json::Value| found["canonical"]["model"]["of_peak"].as_f64();
    let (half, eighth) = (ratio(&by_rate).expect("MFU"), ratio(&fp8).expect("MFU"));
    assert!((half / eighth - 2.0).abs() < 0.01, "{half} {eighth}");
}

/// The examples of `--help` run as they stand.
#[test]
fn examples_of_the_help_run() {
    for command in ["mfu", "specs"] {
        let help = works(&format!("{command} --help")).replace("\\\n", " ");
        let examples = help.lines().map(str::trim);
        let examples = examples.filter_map(|line| line.strip_prefix("laggard "));
        let mut run = 0;
        for example in examples.filter(|line| !line.contains("mine.toml")) {
            // What stands behind two spaces is a remark, but for continued lines.
            let is_mfu = command == "mfu";
            let typed = example.split("  ").next().filter(|_| !is_mfu);
            works(typed.unwrap_or(example));
            run += 1;
        }
        assert!(run >= 2, "{command}: {help}");
    }
}

#[test]
fn impossible_steps_are_refused() {
    let job = "mfu --model llama3-8b --gpus 8 --accelerator h100";
    refused(
        &format!("{job} --tokens-per-second NaN"),
        2,
        &["--tokens-per-second is NaN", "hint:"],
    );
    refused(
        &format!("{job} --step-time 0 --global-batch 8"),
        2,
        &["--step-time is 0"],
    );
    refused(
        &format!("{job} --step-time 1"),
        2,
        &["--global-batch", "hint:"],
    );
    refused(job, 2, &["--step-time", "--tokens-per-second", "hint:"]);
    let rate = "--tokens-per-second 1e5";
    refused(
        &format!("{job} {rate} --sequence-length 0"),
        2,
        &["sequence length is 0", "hint:"],
    );
    refused(
        &format!("mfu --model llama3-8b --gpus 0 --accelerator h100 {rate}"),
        2,
        &["accelerators is 0"],
    );
    refused(
        &format!("mfu --model lama3-8b --gpus 8 --accelerator h100 {rate}"),
        2,
        &["unknown model 'lama3-8b'", "close names", "llama3-8b"],
    );
    refused(
        &format!("mfu --model llama3-8b --gpus 8 --accelerator h10 {rate}"),
        2,
        &["unknown accelerator 'h10'", "h100"],
    );
    refused(
        &format!(
            "mfu --model llama3-8b --gpus 8 --accelerator a100-sxm4-80gb --precision fp8 {rate}"
        ),
        2,
        &["dense fp8 peak", "--precision"],
    );
}

#[test]
fn tables_are_listed_and_shown() {
    let all = works("specs list");
    for part in [
        "llama3-405b",
        "405.85 B",
        "h100-sxm5-80gb",
        "colossus-1",
        "220000",
        "narayanan96",
    ] {
        assert!(all.contains(part), "`{part}` is not in\n{all}");
    }
    assert!(!works("specs list models").contains("h100-sxm5-80gb"));
    let text = works("specs show deepseek-v3");
    assert!(
        text.starts_with("[[model]]") && text.contains("kv_rank = 512"),
        "{text}"
    );
    assert!(works("specs show H100").contains("id = \"h100-sxm5-80gb\""));
    assert!(works("specs show megatron72").contains("2205.05198"));
    assert!(works("specs show published-training").starts_with("row_id,"));
    refused(
        "specs show colosus-1",
        2,
        &["'colosus-1'", "colossus-1", "specs list"],
    );
}

#[test]
fn the_tables_agree_with_their_sources() {
    let text = works("specs check");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("print what their own throughput gives"),
        "{text}"
    );
    assert!(!text.contains("no reason is known"), "{text}");
    for part in ["coarse steps", "MAXTEXT-055", "cannot be recomputed"] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("the file is written");
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

/// What `show` prints is what `--models`, `--accelerators` and `--cluster` read.
#[test]
fn files_of_a_user() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let model = works("specs show llama3-8b")
        .replace("llama3-8b", "mine")
        .replace("Llama 3.x 8B", "Mine");
    let model = model.replace("llama3.1-8b", "mine-too");
    let model = written(folder.path(), "models.toml", &model);
    let rate = "--gpus 8 --accelerator h100 --tokens-per-second 1e5";
    assert!(works(&format!("mfu --model mine --models {model} {rate}")).contains("Mine on 8"));
    let preset = works("specs show small-lab");
    let cluster = written(folder.path(), "cluster.toml", &preset);
    let text = works(&format!("specs check --cluster {cluster}"));
    assert!(text.contains("24 devices, pools: 2, sites: 1"), "{text}");

    let spoilt = preset.replace("count = 8\n", "coutn = 8\n");
    let path = written(folder.path(), "typo.toml", &spoilt);
    let line = spoilt
        .lines()
        .position(|line| line.starts_with("coutn"))
        .expect("it is there")
        + 1;
    refused(
        &format!("specs check --cluster {path}"),
        3,
        &[
            "typo.toml",
            &format!("line {line}, column 1"),
            "`coutn`",
            "hint:",
        ],
    );
    let path = written(
        folder.path(),
        "device.toml",
        &preset.replace("rtx-4090", "rtx-409"),
    );
    refused(
        &format!("specs check --cluster {path}"),
        3,
        &["rtx-409'", "rtx-4090", "line "],
    );
    let path = written(folder.path(), "model.toml", "[[model]]\nid = 3\n");
    refused(
        &format!("specs list --models {path}"),
        3,
        &["model.toml", "line 2", "hint:"],
    );
    refused(
        "specs list --models /nowhere/at/all",
        3,
        &["/nowhere/at/all", "hint:"],
    );
}
