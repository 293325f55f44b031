//! Plans of several jobs: each is a world of its own among the ranks of one launch.

use super::{beside_others, check_record, end, errors, launchers, start};
use laggard_plan::{Kind, PlanFile};
use std::path::Path;
use std::process::Command;

/// Writes the plan of two classes, of one and of two ranks, and gives its file and the number of
/// the option in which each has a job of its own.
fn plan(folder: &Path) -> (String, String) {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (first, plan) = (path("first"), path("plan"));
    let run = "run -q --model tiny --classes h100:1,gb200:2 --micro-batches 2 --steps 40 -o";
    let run: Vec<&str> = run.split(' ').chain([first.as_str()]).collect();
    for args in [run, vec!["plan", "--calibrated-on", &first, "-o", &plan]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
        let output = command.args(&args).output().expect("the binary starts");
        assert!(output.status.success(), "{args:?}: {}", errors(&output));
    }
    let file = format!("{plan}/plan.json");
    let text = std::fs::read_to_string(&file).expect("a plan");
    let plan = PlanFile::parse(&text).expect("a plan");
    let mut options = plan.options.iter();
    let pools = options.find(|it| it.kind == Kind::Pools).expect("pools");
    (file, pools.number.expect("a number").to_string())
}

#[test]
fn jobs_of_a_plan_are_worlds_of_their_own() {
    let _turn = beside_others();
    let folder = tempfile::tempdir().expect("a directory");
    let (file, number) = plan(folder.path());
    for (name, mut launcher) in launchers() {
        let record = folder.path().join(name);
        let record_text = record.to_string_lossy();
        let what = ["--plan", &file, "--option", &number, "--steps", "12"];
        let args = [&what[..], &["--quiet", "-o", &record_text]].concat();
        let output = end(start(&mut launcher, 3, &args));
        assert!(output.status.success(), "{name}: {}", errors(&output));
        for (job, ranks, class) in [("job-1", 1, "h100"), ("job-2", 2, "gb200")] {
            let record = check_record(&record.join(job), ranks, 12);
            assert_eq!(record.manifest.classes[0].name, class, "{name}");
        }
    }
}

#[test]
fn a_plan_for_other_ranks_is_refused() {
    let _turn = beside_others();
    let folder = tempfile::tempdir().expect("a directory");
    let (file, number) = plan(folder.path());
    for (name, mut launcher) in launchers() {
        let output = end(start(
            &mut launcher,
            2,
            &["--plan", &file, "--option", &number],
        ));
        assert!(!output.status.success(), "{name}");
        let said = errors(&output);
        assert!(said.contains("the plan needs 3 ranks"), "{name}: {said}");
    }
}
