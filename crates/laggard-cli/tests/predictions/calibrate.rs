//! The real binary on `--calibrate`: classes that are not what their datasheets say.

use crate::{json, laggard, refused, works};
use laggard_benches::share_one_processor;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with tables and records.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.to_str().expect("a path").to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// A record that is predicted of real H100s, and a table of what they were sold as: a quarter
    /// faster in everything but links.
    fn oversold(&self) -> (String, String) {
        let record = self.path("record");
        let job = "simulate --accelerator h100 --gpus 8 --model llama3-8b --sequence-length 4096 \
                   --layout dp4,tp2,zero1,sp --global-batch 16 --jitter 0.01 --steps 20 --record";
        works(&words(job, &[&record]));
        let text = works(&["specs", "show", "h100"]);
        let mut table: toml::Table = text.parse().expect("TOML");
        let entry = &mut table["accelerator"][0];
        let entry = entry.as_table_mut().expect("an entry");
        for key in [
            "dense_bf16_flop_per_s",
            "dense_fp16_flop_per_s",
            "dense_fp8_flop_per_s",
            "memory_bandwidth_bytes_per_s",
        ] {
            let number = entry[key].as_float().expect("a number");
            entry.insert(key.to_owned(), toml::Value::Float(1.25 * number));
        }
        for key in ["id", "product"] {
            entry.insert(key.to_owned(), "oversold".into());
        }
        for key in ["aliases", "boost_clock_hz"] {
            entry.remove(key);
        }
        (record, self.file("devices.toml", &table.to_string()))
    }

    /// A record of this machine's processors, and a table and cluster of them.
    fn processors(&self) -> Processors {
        share_one_processor().expect("a processor");
        let record = self.path("run");
        works(&words(
            "run --model tiny --layout dp2 --steps 40 -q -o",
            &[&record],
        ));
        let manifest = fs::read_to_string(Path::new(&record).join("manifest.json"));
        let manifest: Value = serde_json::from_str(&manifest.expect("a manifest")).expect("JSON");
        let class = manifest["classes"][0]["name"].as_str().expect("a name");
        let peak = manifest["classes"][0]["peak"]["flop_per_s"].as_f64();
        Processors {
            devices: self.file(
                "devices.toml",
                &device(class, 100.0 * peak.expect("a peak")),
            ),
            cluster: self.file("cluster.toml", CLUSTER),
            record,
        }
    }
}

struct Processors {
    record: String,
    devices: String,
    cluster: String,
}

/// A core that does half precision by the units of single precision.
fn device(class: &str, peak: f64) -> String {
    format!(
        "[[accelerator]]\nid = \"core\"\nproduct = \"a core\"\nvendor = \"Intel\"\n\
         aliases = ['{class}']\narchitecture = \"any\"\ndense_fp32_flop_per_s = {peak:e}\n\
         dense_bf16_flop_per_s = {peak:e}\nmemory_bytes = 4_000_000_000\n\
         memory_bandwidth_bytes_per_s = 1e12\nscale_up_domain_devices = 64\n\
         scale_up_bandwidth_bytes_per_s = 1e10\nscale_out_bandwidth_bytes_per_s = 1e9\n\
         confidence = \"low\"\nsources = [\"a guess\"]\n"
    )
}

const CLUSTER: &str = "id = \"desk\"\n\
    [[site]]\nid = \"desk\"\nconfidence = \"low\"\nsources = [\"a guess\"]\n\
    [[pool]]\nid = \"cores\"\nsite = \"desk\"\naccelerator = \"core\"\ncount = 4\n\
    devices_per_node = 4\nconfidence = \"low\"\nsources = [\"a guess\"]\n";

fn words<'t>(text: &'t str, more: &[&'t str]) -> Vec<&'t str> {
    text.split_whitespace()
        .chain(more.iter().copied())
        .collect()
}

fn step(found: &Value) -> f64 {
    found["forecast"]["step_s"].as_f64().expect("a time")
}

#[test]
fn an_oversold_class_is_predicted_as_it_really_is() {
    let folder = Folder::new();
    let (record, devices) = folder.oversold();
    let of_record = format!("oversold={record}");
    let job =
        "simulate --gpus 64 --model llama3-70b --layout tp8,pp2,dp4,sp,zero1 --global-batch 64";
    let truth = step(&json(&words(job, &["--accelerator", "h100"])));
    let sold = ["--accelerator", "oversold", "--accelerators", &devices];
    let by_sheet = json(&words(job, &sold));
    assert!(
        step(&by_sheet) / truth < 0.85,
        "{} {truth}",
        step(&by_sheet)
    );
    assert_eq!(by_sheet["calibrated_on"], Value::Null);

    let calibrated = [&sold[..], &["--calibrate", &of_record]].concat();
    let found = json(&words(job, &calibrated));
    assert!(
        (step(&found) / truth - 1.0).abs() < 0.01,
        "{} {truth}",
        step(&found)
    );
    assert_eq!(found["step_by_default_s"], by_sheet["forecast"]["step_s"]);
    let on = &found["calibrated_on"][0];
    let class = &on["classes"][0];
    for kind in ["products", "memory_bound"] {
        let value = class[kind]["measured"]["value"].as_f64().expect("a factor");
        assert!((value / 1.25 - 1.0).abs() < 0.01, "{kind}: {value}");
        assert_eq!(class[kind]["measured"]["ranks"], 8);
    }
    let error = |name: &str| on["own_step"][name].as_f64().expect("an error");
    assert!(
        error("default_error") < -0.1 && error("corrected_error").abs() < 0.03,
        "{on:#}"
    );
    let page = works(&words(job, &calibrated));
    for part in [
        "products of oversold took 1.2",
        "of the default, from ",
        "steps x 8 ranks",
        "caveat: the record was predicted, not measured",
        "by default the step above would be ",
    ] {
        assert!(page.contains(part), "`{part}` is not in {page}");
    }
}

#[test]
fn processors_that_ran_replace_what_a_guess_said_of_them() {
    let folder = Folder::new();
    let it = folder.processors();
    let job = "simulate --model tiny --sequence-length 64 --layout dp4 --global-batch 4";
    let place = ["--cluster", &it.cluster, "--accelerators", &it.devices];
    let by_guess = json(&words(job, &place));
    let calibrated = [&place[..], &["--calibrate", &it.record]].concat();
    let found = json(&words(job, &calibrated));
    let on = &found["calibrated_on"][0];
    let class = &on["classes"][0];
    assert_eq!(class["class"], "cores");
    let of = |found: &Value, name: &str| {
        let step = &found["forecast"]["classes"][0]["step"];
        step[name].as_f64().expect("a time")
    };
    // A hundred times the rate of multiply-adds on registers, of which the model takes some share.
    for (kind, seconds) in [("products", "products_s"), ("memory_bound", "optimizer_s")] {
        let factor = class[kind]["measured"]["value"].as_f64().expect("a factor");
        assert!(factor > 5.0, "{on:#}");
        let grown = of(&found, seconds) / of(&by_guess, seconds);
        assert!(
            (grown / factor - 1.0).abs() < 1e-9,
            "{kind}: {grown} {factor}"
        );
    }
    let error = |name: &str| on["own_step"][name].as_f64().expect("an error").abs();
    assert!(error("corrected_error") < error("default_error"), "{on:#}");
    let page = works(&words(job, &calibrated));
    let says = ["products of cores took ", "caveat: computed in f32"];
    for part in says {
        assert!(page.contains(part), "`{part}` is not in {page}");
    }

    let plan = "plan --model tiny --sequence-length 64 --batch-tokens 512";
    let planned = json(&words(plan, &calibrated));
    assert_eq!(planned["calibrated_on"], found["calibrated_on"]);
    let rate = |plan: &Value| plan["options"][0]["figures"]["tokens_per_s"].as_f64();
    let guessed = json(&words(plan, &place));
    assert!(rate(&planned) < rate(&guessed), "{:?}", rate(&planned));
    assert!(works(&words(plan, &calibrated)).contains("products of cores took "));
}

#[test]
fn records_that_fit_no_class_are_refused() {
    let folder = Folder::new();
    let it = folder.processors();
    let place = ["--cluster", &it.cluster, "--accelerators", &it.devices];
    let check = |more: &[&str], code: i32, says: &[&str]| {
        let job = words("simulate --model tiny --sequence-length 64", &place);
        refused(&[&job[..], more].concat(), code, says);
    };
    let named = |class: &str, record: &str| format!("{class}={record}");
    let nobody = named("nobody", &it.record);
    check(
        &["--calibrate", &nobody],
        2,
        &["no class is called `nobody`", "has cores"],
    );
    let twice = ["--calibrate", &it.record, "--calibrate", &it.record];
    check(&twice, 2, &["class `cores` is calibrated twice", "hint"]);
    check(&["--calibrate", "nowhere"], 3, &["nowhere"]);
    let fp8 = ["--precision", "fp8", "--calibrate", &it.record];
    check(&fp8, 2, &["f32", "the forecast is in fp8", "hint"]);

    let alike = "[[pool]]\nid = \"others\"\nsite = \"desk\"\naccelerator = \"core\"\ncount = 4\n\
                 confidence = \"low\"\nsources = [\"a guess\"]\n";
    let both = folder.file("both.toml", &format!("{CLUSTER}{alike}"));
    let with_both = ["--cluster", &both, "--accelerators", &it.devices];
    let job = words("simulate --model tiny --sequence-length 64", &with_both);
    let ambiguous = [&job[..], &["--calibrate", &it.record]].concat();
    refused(
        &ambiguous,
        2,
        &["any of cores, others", "--calibrate CLASS=DIR"],
    );
    works(&[&job[..], &["--calibrate", &named("others", &it.record)]].concat());

    let other = [
        "simulate",
        "--cluster",
        "colossus-1",
        "--calibrate",
        &it.record,
    ];
    refused(
        &other,
        2,
        &["the cluster has h100, h200, gb200", "--calibrate CLASS=DIR"],
    );
    let units = named("h100", &it.record);
    let other = ["simulate", "--cluster", "colossus-1", "--calibrate", &units];
    refused(&other, 2, &["f32", "other units", "hint"]);
}

#[test]
fn records_that_do_not_tell_are_refused() {
    let folder = Folder::new();
    let short = folder.path("short");
    works(&words(
        "run --model tiny --layout dp2 --steps 2 -q -o",
        &[&short],
    ));
    let emulated = folder.path("emulated");
    let run = "run --model tiny --classes h100:1,gb200:1 --steps 12 -q -o";
    works(&words(run, &[&emulated]));
    let site = |given: &str| {
        ["simulate", "--cluster", "colossus-1", "--calibrate", given].map(String::from)
    };
    let check = |given: &str, code: i32, says: &[&str]| {
        let args = site(given);
        refused(&args.each_ref().map(String::as_str), code, says);
    };
    check(&format!("h100={short}"), 3, &["complete steps", "--steps"]);
    check(&emulated, 2, &["emulated", "hint"]);
    check(
        &format!("h200={emulated}"),
        2,
        &["h100, gb200", "not exactly one", "hint"],
    );
    let samples = fs::read_dir(Path::new(&short).join("samples")).expect("samples");
    for file in samples.flatten() {
        fs::write(file.path(), b"damaged").expect("a file");
    }
    let damaged = laggard(&[
        "simulate",
        "--cluster",
        "colossus-1",
        "--calibrate",
        &format!("h100={short}"),
    ]);
    let stderr = String::from_utf8_lossy(&damaged.stderr);
    assert_eq!(damaged.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("hint"), "{stderr}");
}
