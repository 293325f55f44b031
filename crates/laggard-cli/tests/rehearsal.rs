//! Plans from files: written, rehearsed and held against what came of it, with the real binary.

use laggard_benches::share_one_processor;
use laggard_plan::{Kind, PlanFile, PlannedOption};
use laggard_record::Record;
use laggard_schedule::ScheduleOrigin;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn laggard(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    let output = command.args(args).env_remove("LAGGARD_LOG").output();
    output.expect("the binary starts")
}

#[track_caller]
fn works(args: &[&str]) -> String {
    let output = laggard(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "laggard {args:?}\n{told}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

#[track_caller]
fn refused(args: &[&str], code: i32, says: &str) {
    let output = laggard(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{told}");
    assert!(told.contains(says), "`{says}` is not in: {told}");
}

/// A folder with a run in equal shares on two emulated classes, and the plan by it.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        share_one_processor().expect("a processor");
        let folder = tempfile::tempdir().expect("temporary directory");
        let site = Self { folder };
        let line = "run -q --model tiny --classes h100:2,gb200:2 --micro-batches 6 --steps 40";
        let line: Vec<&str> = line.split(' ').collect();
        works(&[&line[..], &["-o", &site.path("first")]].concat());
        site.plan("time", "plan");
        site
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn plan(&self, objective: &str, name: &str) {
        let (first, plan) = (self.path("first"), self.path(name));
        let args = [
            "plan",
            "--calibrated-on",
            &first,
            "--objective",
            objective,
            "-o",
            &plan,
        ];
        let page = works(&args);
        assert!(page.contains("answer, by "), "{page}");
    }

    fn file(&self) -> String {
        self.path("plan/plan.json")
    }

    fn read(&self) -> PlanFile {
        let text = std::fs::read_to_string(self.file()).expect("a plan");
        PlanFile::parse(&text).expect("a plan")
    }

    fn run(&self, option: Option<usize>, name: &str) {
        let (file, record) = (self.file(), self.path(name));
        let mut args = vec!["run", "-q", "--steps", "40", "--plan", &file, "-o", &record];
        let number = option.map(|number| number.to_string());
        if let Some(number) = &number {
            args.extend(["--option", number]);
        }
        works(&args);
    }
}

fn of_kind(plan: &PlanFile, kind: Kind) -> &PlannedOption {
    let mut options = plan.options.iter();
    options.find(|it| it.kind == kind).expect("an option")
}

fn row<'v>(rehearsal: &'v Value, class: Option<&str>, name: &str) -> &'v Value {
    let rows = rehearsal["rows"].as_array().expect("rows");
    let is_it = |row: &&Value| row["class"].as_str() == class && row["name"] == name;
    rows.iter().find(is_it).expect("a row")
}

#[test]
fn what_was_planned_is_run_and_gains_what_was_predicted() {
    let site = Site::new();
    let plan = site.read();
    let chosen = plan.option(None).expect("the answer");
    assert_eq!(chosen.kind, Kind::UnevenShares);
    site.run(None, "planned");
    site.run(of_kind(&plan, Kind::EqualShares).number, "equal");
    let record = Record::open(Path::new(&site.path("planned"))).expect("a record");
    let ScheduleOrigin::Generated(layout) = &record.manifest.schedule.origin else {
        panic!("{:?}", record.manifest.schedule.origin);
    };
    assert_eq!(*layout, chosen.jobs[0].layout());
    let class = |rank: &laggard_record::RankPlace| {
        record.manifest.classes[rank.class as usize].name.clone()
    };
    let classes: Vec<String> = record.manifest.ranks.iter().map(class).collect();
    assert_eq!(classes, chosen.jobs[0].class_of_rank());
    let (file, planned, equal) = (site.file(), site.path("planned"), site.path("equal"));
    let args = ["compare", "--plan", &file, &planned, "--equal", &equal];
    let page = works(&args);
    assert!(
        page.contains("gain over equal shares: predicted +"),
        "{page}"
    );
    let found = works(&[&args[..], &["--format", "json"]].concat());
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let gain = &found["gain"];
    let (said, seen) = (&gain["predicted"], &gain["measured"]["value"]);
    let (said, seen) = (
        said.as_f64().expect("a gain"),
        seen.as_f64().expect("a gain"),
    );
    assert!(said > 0.3 && seen > 0.0, "{gain}");
    // Runs may drift apart on a machine that others use; classes within a run do not, which take
    // turns on one processor.
    let kernels = |class, whose| {
        let row = row(&found, Some(class), "kernels [s]");
        row[whose]["value"].as_f64().expect("seconds")
    };
    let ratio = |whose| kernels("h100", whose) / kernels("gb200", whose);
    let (said, seen) = (ratio("predicted"), ratio("measured"));
    assert!((said / seen - 1.0).abs() < 0.15, "{said} {seen}");
}

#[test]
fn jobs_of_their_own_run_beside_each_other() {
    let site = Site::new();
    let plan = site.read();
    let pools = of_kind(&plan, Kind::Pools);
    site.run(pools.number, "pools");
    let (first, second) = (site.path("pools/job-1"), site.path("pools/job-2"));
    for (record, class) in [(&first, "h100"), (&second, "gb200")] {
        let record = Record::open(Path::new(record)).expect("a record");
        assert_eq!(record.manifest.ranks.len(), 2);
        assert_eq!(record.manifest.classes[0].name, class);
    }
    let number = pools.number.expect("a number").to_string();
    let file = site.file();
    let args = ["compare", "--plan", &file, "--option", &number, &first];
    refused(&args, 2, ": 2, records: 1");
    refused(
        &[&args[..], &[&second, &first]].concat(),
        2,
        ": 2, records: 3",
    );
    let page = works(&[&args[..], &[&second]].concat());
    assert!(
        page.contains("job-1, step") && page.contains("job-2, step"),
        "{page}"
    );
    let alone = site.path("alone");
    let line = [
        "run", "-q", "--steps", "8", "--plan", &file, "--option", &number,
    ];
    works(&[&line[..], &["--job", "job-2", "-o", &alone]].concat());
    let record = Path::new(&alone).join("job-2");
    let record = Record::open(&record).expect("a record of the named job");
    assert_eq!(record.manifest.classes[0].name, "gb200");
}

#[test]
fn steps_too_large_to_replay_are_refused() {
    let site = Site::new();
    let first = site.path("first");
    let plan = ["plan", "--calibrated-on", &first];
    let refuse = |more: &[&str]| {
        let args = [&plan[..], more].concat();
        refused(&args, 2, "that can be replayed");
    };
    refuse(&["--batch-tokens", "1000000000000"]);
    refuse(&[
        "--ranks-of",
        "h100=4294967295",
        "--ranks-of",
        "gb200=4294967295",
    ]);
    let page = works(&plan);
    let widest = page.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{page}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let site = Site::new();
    let (file, first) = (site.file(), site.path("first"));
    let run = ["run", "-q", "--plan", &file];
    refused(
        &[&run[..], &["--option", "99"]].concat(),
        2,
        "its options are 1, 2",
    );
    refused(
        &[&run[..], &["--job", "none"]].concat(),
        2,
        "its jobs are job-1",
    );
    refused(
        &[&run[..], &["--layout", "dp4"]].concat(),
        2,
        "cannot be used with",
    );
    refused(&["run", "--plan", &site.path("none")], 3, "cannot read");
    refused(
        &["compare", "--plan", &file, &first],
        3,
        "is no rehearsal of job-1",
    );
    refused(&["compare", &first], 2, "1 records cannot be compared");
    let text = std::fs::read_to_string(&file).expect("a plan");
    let damaged = site.path("damaged.json");
    let cut = &text[..text.len() / 2];
    std::fs::write(&damaged, cut).expect("a file");
    refused(&["run", "--plan", &damaged], 3, "cannot be read as a plan");
    let other = text.replacen("\"schema_version\": 1", "\"schema_version\": 7", 1);
    std::fs::write(&damaged, other).expect("a file");
    refused(&["run", "--plan", &damaged], 3, "format version 7");
    let plan = ["plan", "--calibrated-on", &first];
    let and = |more: &[&'static str]| [&plan[..], more].concat();
    refused(
        &and(&["--ranks-of", "a100=1"]),
        2,
        "the records have h100, gb200",
    );
    refused(
        &and(&["--ranks-of", "h100"]),
        2,
        "cannot read --ranks-of `h100`",
    );
    refused(&and(&["--objective", "mfu"]), 2, "--objective time");
    refused(
        &and(&["--batch-tokens", "1"]),
        2,
        "--batch-tokens a multiple of",
    );
    refused(&and(&["--cluster", "small-lab"]), 2, "cannot be used with");
    refused(&and(&["--ttft", "1"]), 2, "cannot be used with");
    refused(&and(&["--tolerance", "5"]), 2, "cannot be used with");
    refused(&and(&["--lose", "h100=1"]), 2, "cannot be used with");
    refused(&["plan", "--calibrated-on", &file], 3, "error");
}

/// The layout alone makes no rehearsal.
#[test]
fn a_run_of_something_else_is_no_rehearsal() {
    let site = Site::new();
    let text = std::fs::read_to_string(site.file()).expect("a plan");
    let other = site.path("other.json");
    let first = site.path("first");
    let number = of_kind(&site.read(), Kind::EqualShares)
        .number
        .expect("a number");
    let compare = |text: &str, number: &str| {
        std::fs::write(&other, text).expect("a file");
        laggard(&["compare", "--plan", &other, "--option", number, &first])
    };
    let number = number.to_string();
    assert!(compare(&text, &number).status.success());
    let check = |text: &str, says: &str| {
        let output = compare(text, &number);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains("is no rehearsal of job-1"), "{told}");
        assert!(told.contains(says), "{told}");
    };
    check(
        &text.replace("\"model\": \"tiny\"", "\"model\": \"small\""),
        "its model is tiny, the plan's small",
    );
    let mut plan: Value = serde_json::from_str(&text).expect("JSON");
    for option in plan["options"].as_array_mut().expect("options") {
        for job in option["jobs"].as_array_mut().expect("jobs") {
            job["sequence_length"] = Value::from(8);
        }
    }
    check(&plan.to_string(), "tokens, the plan's 8");
    let swapped = text.replace("h100", "x").replace("gb200", "h100");
    check(
        &swapped.replace("\"x\"", "\"gb200\""),
        "its rank 0 is of h100, the plan's of gb200",
    );
}

/// What was doubted of a run is doubted of a plan by it.
#[test]
fn a_plan_keeps_the_caveats_of_its_records() {
    let site = Site::new();
    let manifest = site.path("first/manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    let doubt = serde_json::json!({"code": "shared_device", "message": "two on one device"});
    value["caveats"]
        .as_array_mut()
        .expect("caveats")
        .push(doubt);
    std::fs::write(&manifest, value.to_string()).expect("a file");
    site.plan("time", "again");
    let text = std::fs::read_to_string(site.path("again/plan.json")).expect("a plan");
    let plan = PlanFile::parse(&text).expect("a plan");
    assert!(
        plan.caveats
            .iter()
            .any(|it| it.contains("two on one device")),
        "{:?}",
        plan.caveats
    );
    let page = works(&["plan", "--calibrated-on", &site.path("first")]);
    assert!(page.contains("two on one device"), "{page}");
}

#[test]
fn a_plan_of_a_cluster_is_written_and_needs_its_ranks() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let folder = folder.path().to_str().expect("temporary paths are UTF-8");
    works(&[
        "plan",
        "--cluster",
        "small-lab",
        "--model",
        "llama3-8b",
        "-o",
        folder,
    ]);
    let file = format!("{folder}/plan.json");
    let text = std::fs::read_to_string(&file).expect("a plan");
    let plan = PlanFile::parse(&text).expect("a plan");
    assert_eq!(plan.to_json().expect("text"), text);
    works(&[
        "plan",
        "--cluster",
        "colossus-1",
        "--model",
        "grok-1",
        "-o",
        folder,
    ]);
    refused(&["run", "--plan", &file], 2, "one process takes 4096");
}
