//! The real binary on `fleet` and on plans with what it wrote.

use laggard_benches::known_job::KnownJob;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn laggard(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    command.args(args).env_remove("LAGGARD_LOG");
    command.output().expect("the binary starts")
}

#[track_caller]
fn works(args: &[&str]) -> String {
    let output = laggard(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{stderr}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

#[track_caller]
fn refused(args: &[&str], code: i32, says: &str) {
    let output = laggard(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{stderr}");
    assert!(stderr.contains(says), "`{says}` is not in: {stderr}");
    assert!(stderr.contains("hint:"), "{stderr}");
}

/// A record of six hosts with two devices each, taken on a day of November 2026; one device is slow
/// from a day on.
fn write_record(dir: &Path, day: u32) {
    let mut job = KnownJob::clean(12, 2, 60, u64::from(day));
    if day >= 13 {
        job.rank_excess[7] = 0.12;
    }
    let path = dir.join(format!("{day:02}"));
    job.write(&path).expect("a record");
    let manifest = path.join("manifest.json");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    // The first of November 2026.
    let first = 1_793_491_200_i64;
    value["created_unix_ns"] = Value::from((first + i64::from(day - 1) * 86_400) * 1_000_000_000);
    value["origin"] = Value::from("measured");
    for class in value["classes"].as_array_mut().expect("classes") {
        class["name"] = Value::from("h100");
    }
    fs::write(&manifest, value.to_string()).expect("a manifest");
}

fn weeks() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let weeks = dir.path().join("weeks");
    fs::create_dir(&weeks).expect("a folder");
    for day in [2, 5, 9, 13, 17, 20] {
        write_record(&weeks, day);
    }
    (dir, weeks)
}

#[test]
fn a_device_that_turned_slow_is_named_and_left_out_of_a_plan() {
    let (dir, weeks) = weeks();
    let (weeks, hosts) = (weeks.to_str().expect("text"), dir.path().join("hosts"));
    fs::write(
        &hosts,
        "node0 slots=2\nnode1:2\n# old\nnode2\nnode3\nnode4\nnode5\nnode77\n",
    )
    .expect("a file");
    let hosts = hosts.to_str().expect("text");
    let page = works(&["fleet", weeks, "--hosts", hosts]);
    assert!(
        page.contains("12 devices of 6 of 7 hosts in 6 runs, 2026-11-02 to 2026-11-20"),
        "{page}"
    );
    let named = "drawn #1 on node3 (h100): turned slow between 2026-11-09";
    assert!(page.contains(named), "{page}");
    assert!(page.contains("node77: taken as their class is"), "{page}");
    let csv = works(&["fleet", weeks, "--format", "csv"]);
    assert_eq!(csv.lines().count(), 13);
    let slow = csv
        .lines()
        .find(|line| line.contains("turned slow"))
        .expect("a line");
    assert!(slow.starts_with("h100,node3,drawn #1,6,"), "{slow}");
    assert!(slow.contains("2026-11-09 to 2026-11-13"), "{slow}");

    let fleet = dir.path().join("fleet.json");
    let fleet = fleet.to_str().expect("text");
    works(&["fleet", weeks, "--format", "json", "-o", fleet]);
    let cluster = dir.path().join("mine.toml");
    let text = "id = \"mine\"\n[[site]]\nid = \"here\"\n[[pool]]\nid = \"h100\"\nsite = \"here\"\n\
                accelerator = \"h100\"\ncount = 16\ndevices_per_node = 2\n";
    fs::write(&cluster, text).expect("a file");
    let cluster = cluster.to_str().expect("text");
    let plan = [
        "plan",
        "--cluster",
        cluster,
        "--model",
        "llama3-8b",
        "--format",
        "json",
    ];
    let json = |args: &[&str]| -> Value { serde_json::from_str(&works(args)).expect("JSON") };
    let without = json(&plan);
    let with = json(&[&plan[..], &["--fleet", fleet]].concat());
    let rate = |plan: &Value, kind: &str| {
        let mut options = plan["options"].as_array().expect("options").iter();
        let option = options.find(|it| it["kind"] == kind).expect("an option");
        option["figures"]["tokens_per_s"].as_f64().expect("a rate")
    };
    // Everybody waits for the slow host, unless it is left out: one of eight for 12 %.
    let (all, slowed) = (rate(&without, "equal_shares"), rate(&with, "equal_shares"));
    assert!(slowed < 0.96 * all, "{slowed} {all}");
    let caveats = with["caveats"].to_string();
    assert!(
        caveats.contains("6 of 8 hosts of h100 were seen"),
        "{caveats}"
    );
    if let Some(tails) = with["tails"].as_object() {
        let trimmed = rate(&with, "without_slowest");
        assert!(trimmed > slowed, "{tails:?}");
    }
}

#[test]
fn what_is_no_fleet_says_why() {
    let (dir, weeks) = weeks();
    let (weeks, empty) = (weeks.to_str().expect("text"), dir.path().join("empty"));
    fs::create_dir(&empty).expect("a folder");
    let empty = empty.to_str().expect("text");
    let first = format!("{weeks}/02");
    refused(&["fleet", empty], 3, "is no record and holds none");
    refused(&["fleet", "/nonexistent"], 3, "/nonexistent");
    refused(&["fleet", weeks, &first], 3, "are the same run");
    refused(
        &["fleet", weeks, "--name-over", "0"],
        2,
        "--name-over must be",
    );
    refused(
        &["fleet", weeks, "--hosts", "/dev/null"],
        3,
        "names no host",
    );
    let plan = ["plan", "--cluster", "small-lab", "--model", "llama3-8b"];
    let bad = |more: &[&'static str]| [&plan[..], more].concat();
    refused(&bad(&["--fleet", "/dev/null"]), 3, "is no table of devices");
    let folder = tempfile::tempdir().expect("temporary directory");
    let newer = folder.path().join("fleet.json");
    std::fs::write(&newer, "{\"schema_version\": 99, \"more\": 1}").expect("a file");
    let newer = newer.to_str().expect("text");
    let args = [&plan[..], &["--fleet", newer]].concat();
    refused(&args, 3, "it has version 99, this laggard reads");
}
