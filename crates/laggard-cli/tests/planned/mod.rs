//! A plan of several jobs, for tests that run it.

use laggard_plan::{Kind, PlanFile};
use std::path::Path;
use std::process::Command;

/// Writes the plan of two classes, of one and of two ranks, and gives its file and the number of
/// the option in which each has a job of its own.
pub(crate) fn plan(folder: &Path) -> (String, String) {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (first, plan) = (path("first"), path("plan"));
    let run = "run -q --model tiny --classes h100:1,gb200:2 --micro-batches 2 --steps 40 -o";
    let run: Vec<&str> = run.split(' ').chain([first.as_str()]).collect();
    for args in [run, vec!["plan", "--calibrated-on", &first, "-o", &plan]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
        let output = command.args(&args).output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    }
    let file = format!("{plan}/plan.json");
    let text = std::fs::read_to_string(&file).expect("a plan");
    let plan = PlanFile::parse(&text).expect("a plan");
    let mut options = plan.options.iter();
    let pools = options.find(|it| it.kind == Kind::Pools).expect("pools");
    (file, pools.number.expect("a number").to_string())
}
