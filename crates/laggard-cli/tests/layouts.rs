//! Every kind of layout, run and analysed with the real binary.

use laggard_record::Record;
use laggard_schedule::{Layout, ScheduleOrigin};
use std::path::Path;
use std::process::{Command, Output};

fn laggard(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    let output = command.args(args).env_remove("LAGGARD_LOG").output();
    let output = output.expect("the binary starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "laggard {args:?}\n{told}");
    output
}

/// Runs a job of `line` behind `--layout`, and gives the layout that its record has.
fn layout_of(line: &str, record: &Path) -> Layout {
    let path = record.to_str().expect("temporary paths are UTF-8");
    let small = ["--steps", "8", "--sequence-length", "16", "-o", path];
    let args: Vec<&str> = line.split_whitespace().collect();
    laggard(&[&["run", "-q", "--layout"], &args[..], &small].concat());
    let record = Record::open(record).expect("the record opens");
    match record.manifest.schedule.origin {
        ScheduleOrigin::Generated(layout) => layout,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_of_layout_runs_and_is_named_in_the_report() {
    let folder = tempfile::tempdir().expect("temporary directory");
    for (number, (line, text)) in [
        ("dp2 --model tiny", "dp2"),
        ("tp2,dp2 --model tiny", "dp2,tp2"),
        ("pp2,vp2 --model small", "dp1,pp2,vp2"),
        ("dp2,ep2 --model tiny-moe", "dp2,ep2"),
        ("cp2,dp2,zero3 --model tiny", "dp2,cp2,zero3"),
        (
            "dp2,tp2,pp2,zero1,sp,recompute --model tiny",
            "dp2,tp2,pp2,zero1,sp,recompute",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let record = folder.path().join(number.to_string());
        let layout = layout_of(line, &record);
        let path = record.to_str().expect("temporary paths are UTF-8");
        let json = laggard(&["analyze", path, "--format", "json"]).stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["subject"]["layout"], text, "{line}");
        assert_eq!(json["subject"]["ranks"], layout.world_size(), "{line}");
        let page = laggard(&["analyze", path]).stdout;
        let page = String::from_utf8(page).expect("text");
        assert!(page.contains(text), "{text} is not in: {page}");
    }
}

#[test]
fn what_is_said_of_a_layout_is_run() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let line = "pp3,dp2 --model small --stage-layers 1,2,1 --micro-batches 2,3 --bucket-bytes 64K \
                --no-overlap";
    let layout = layout_of(line, &folder.path().join("all"));
    assert_eq!(layout.stage_layers, [1, 2, 1]);
    assert_eq!(layout.micro_batches, [2, 3]);
    assert_eq!((layout.bucket_bytes, layout.overlap), (64 << 10, false));
    let layout = layout_of("pp2,dp2 --model tiny", &folder.path().join("defaults"));
    assert_eq!(layout.micro_batches, [4, 4], "two for each stage");
    assert!(layout.overlap && layout.stage_layers.is_empty());
}
