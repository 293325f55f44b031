//! Command lines that ask for what cannot be: all are refused before anything is written.

use crate::{refused, sound_record, text};
use std::fs;

#[test]
fn what_cannot_be_run_is_refused() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = folder.path().join("record");
    let check = |args: &[&str], says: &[&str]| {
        let all = [&["run", "-q", "-o", text(&record)], args].concat();
        refused(&all, 2, says);
        assert!(!record.exists(), "{args:?} has written a record");
    };
    check(
        &["--ranks", "3", "--layout", "dp2"],
        &["`dp2`", "there are 3"],
    );
    check(
        &["--ranks", "2", "--micro-batches", "1,2,3"],
        &["3 micro-batch shares"],
    );
    check(
        &["--ranks", "2", "--micro-batches", "0"],
        &["replica 0", "no micro-batch"],
    );
    check(
        &["--ranks", "2", "--micro-batches", "1,x"],
        &["--micro-batches", "`x`"],
    );
    check(&["--ranks", "0"], &["ranks is 0"]);
    check(
        &["--ranks", "4294967295"],
        &["ranks is 4294967295", "1 to 4096"],
    );
    check(
        &["--layout", "dp4294967295"],
        &["`dp4294967295`", "1 to 1048576"],
    );
    check(&["--steps", "0"], &["steps is 0"]);
    check(&["--bucket-bytes", "much"], &["--bucket-bytes"]);
    check(&["--bucket-bytes", "0"], &["--bucket-bytes is 0"]);
    check(
        &["--classes", "h100:4294967295,h200:2"],
        &["ranks is 4294967297"],
    );
    check(
        &["--model", "nope"],
        &["'nope'", "tiny, tiny-moe, small", "llama3-405b"],
    );
    check(&["--model", "smal"], &["'smal'", "close names: small"]);
    check(&["--classes", "zz:2"], &["'zz'", "h100-sxm5-80gb"]);
    check(&["--ranks", "2", "--classes", "h100:3"], &["h100:3"]);
    check(&["--inject", "slow"], &["`slow`", "slow-rank:RANK:FACTOR"]);
    check(&["--inject", "slow-rank:1:NaN"], &["`NaN`"]);
    check(&["--inject", "slow-rank:1:-2"], &["`slow-rank:1:-2`"]);
    check(
        &["--ranks", "2", "--inject", "slow-rank:7:1.2"],
        &["`slow-rank:7:1.2`", "rank 7", "0 to 1"],
    );
    check(
        &["--ranks", "2", "--inject", "slow-host:3:1.2"],
        &["`slow-host:3:1.2`", "host 3"],
    );
    check(
        &["--layout", "pp2", "--inject", "slow-stage:2:1.2"],
        &["`slow-stage:2:1.2`", "stage 2", "0 to 1"],
    );
    check(
        &["--ranks", "2", "--inject", "slow-stage:1:1.2"],
        &["`slow-stage:1:1.2`", "--layout"],
    );
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = folder.path().join("record");
    let check = |line: &str, says: &[&str]| {
        let args: Vec<&str> = line.split_whitespace().collect();
        let run = ["run", "-q", "-o", text(&record), "--model"];
        refused(&[&run, &args[..]].concat(), 2, says);
        assert!(!record.exists(), "{line} has written a record");
    };
    check("tiny --layout tq2", &["`tq2`", "dp, tp, pp, vp, cp and ep"]);
    check("tiny --layout dp2,dp2", &["`dp` is given twice"]);
    check("tiny --layout zero4", &["zero is 0, 1, 2 or 3"]);
    check(
        "tiny --layout dp2,tp2 --ranks 2",
        &["`dp2,tp2` needs 4 ranks", "there are 2", "--ranks 4"],
    );
    check(
        "tiny --layout tp2 --classes h100:3",
        &["needs 2 ranks", "there are 3"],
    );
    check(
        "tiny --layout dp65536,tp65536",
        &["ranks is 4294967296", "1 to 4096"],
    );
    check("tiny --layout tp3", &["tp3", "heads"]);
    check("tiny --layout dp2,sp", &["tp2 or more"]);
    check("tiny --layout vp2", &["virtual stages need a pipeline"]);
    check(
        "small --layout pp2,vp2 --micro-batches 3",
        &["cannot be interleaved", "multiples of pp"],
    );
    check("tiny --layout pp8", &["has no layer", "smaller pp"]);
    check(
        "tiny --layout pp2 --stage-layers 1,2",
        &["have 3 layers", "the model has 2", "--stage-layers"],
    );
    check(
        "tiny --layout pp2 --stage-layers 1",
        &["1 numbers of layers for 2"],
    );
    check(
        "tiny --layout pp2 --stage-layers 1,x",
        &["--stage-layers `x`", "each stage"],
    );
    check(
        "tiny --layout dp2 --micro-batches 1,x",
        &["--micro-batches `x`", "each replica"],
    );
    check(
        "tiny --layout dp2,ep2",
        &["no experts", "mixture of experts"],
    );
    check("tiny-moe --layout dp3,ep2", &["ep that divides dp x cp"]);
    check(
        "tiny --layout dp2,zero2 --no-overlap",
        &["--no-overlap", "zero1"],
    );
    check(
        "tiny --layout dp2,zero3 --micro-batches 1,2",
        &["equal --micro-batches"],
    );
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    let manifest = fs::read(record.join("manifest.json")).expect("manifest");
    refused(
        &["run", "-q", "-o", text(&record)],
        2,
        &[text(&record), "already holds"],
    );
    let kept = fs::read(record.join("manifest.json")).expect("manifest");
    assert_eq!(kept, manifest, "the manifest was overwritten");

    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).expect("folder");
    fs::write(foreign.join("notes"), "keep me").expect("file");
    refused(
        &["run", "-q", "-o", text(&foreign)],
        2,
        &[text(&foreign), "`notes`"],
    );
    assert_eq!(fs::read_dir(&foreign).expect("folder").count(), 1);
}

#[test]
fn thresholds_and_outputs_are_checked() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = sound_record(folder.path(), "record");
    let check = |args: &[&str], says: &[&str]| {
        refused(&[&["analyze", text(&record)], args].concat(), 2, says);
    };
    check(&["--name-over", "NaN"], &["--name-over"]);
    check(&["--name-over", "0"], &["--name-over"]);
    check(&["--fail-over", "NaN"], &["--fail-over", "NaN"]);
    check(&["-o", "/"], &["/ is not the name of a file"]);
}
