//! Plans of several jobs: each is a world of its own among the ranks of one launch.

#[path = "../planned/mod.rs"]
mod planned;

use super::{beside_others, check_record, end, errors, launchers, start};
use planned::plan;

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
