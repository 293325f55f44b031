//! `laggard run` on ranks that share one GPU, over stand-ins for the driver and NCCL: a mixed
//! cluster on parts of it, what the record says of them, and what is said where ranks only take
//! turns. How fast anything is on a GPU cannot be seen here.

mod stand_ins;

use laggard_record::{Emulation, Manifest, PeakKind, Record};
use laggard_types::CaveatCode;
use stand_ins::stand_ins;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// An H200 whose clock is slow, since the machine may be.
const H200: &str = "name=NVIDIA H200,multiprocessors=132,memory_bytes=2000000000,cycle_ns=200";

struct Run {
    _home: TempDir,
    output: Output,
    record: std::path::PathBuf,
}

/// Runs a short job with these more arguments.
fn run(folder: &Path, gpu: &str, variables: &[(&str, &str)], more: &[&str]) -> Run {
    let home = tempfile::tempdir().expect("a folder");
    let record = home.path().join("run");
    let arguments = [
        "run", "--device", "gpu", "--model", "tiny", "--steps", "6", "-o",
    ];
    let output = laggard(folder, gpu)
        .envs(variables.iter().copied())
        .args(arguments)
        .arg(&record)
        .args(more)
        .output()
        .expect("laggard starts");
    Run {
        _home: home,
        output,
        record,
    }
}

fn laggard(folder: &Path, gpu: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    command
        .env("LD_LIBRARY_PATH", folder)
        .env("LAGGARD_CUDA_PATH", folder)
        .env("LAGGARD_FAKE_CUDA", gpu)
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("NCCL_MULTI_RANK_GPU_ENABLE");
    command
}

impl Run {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn manifest(&self) -> Manifest {
        assert_eq!(self.output.status.code(), Some(0), "{}", self.text());
        Record::open(&self.record)
            .expect("a record")
            .manifest
            .clone()
    }
}

fn backend(manifest: &Manifest) -> &str {
    let communication = manifest.communication.as_ref();
    &communication.expect("what carried it").backend
}

fn is_time_sliced(manifest: &Manifest) -> bool {
    let codes = manifest.caveats.iter().map(|caveat| caveat.code);
    codes.into_iter().any(|code| code == CaveatCode::TimeSliced)
}

const MIXED: [&str; 3] = ["--classes", "h200:1,gb200:1", "--allow-shared-gpu"];

#[test]
fn classes_are_parts_of_the_gpu() {
    let Some(folder) = stand_ins() else { return };
    let run = run(folder, H200, &[], &MIXED);
    let manifest = run.manifest();
    assert_eq!(backend(&manifest), "staged through the host");
    assert!(!is_time_sliced(&manifest), "{:?}", manifest.caveats);
    let parts: Vec<(u32, u32)> = manifest
        .classes
        .iter()
        .map(|class| match class.emulated_by {
            Some(Emulation::GreenContext {
                multiprocessors,
                of,
            }) => (multiprocessors, of),
            other => panic!("{other:?}"),
        })
        .collect();
    // About 0.49 to 1 by the tables, in steps of 8.
    assert_eq!(parts, [(40, 132), (80, 132)], "{}", run.text());
    for class in &manifest.classes {
        assert!(class.emulated);
        let source = &class.rate_source;
        assert!(source.starts_with("products of "), "{source}");
        assert!(
            source.ends_with("on all parts at the same time"),
            "{source}"
        );
        let peak = class.peak.as_ref().expect("a datasheet");
        assert_eq!(peak.kind, PeakKind::Datasheet);
    }
    let peak = |at: usize| manifest.classes[at].peak.as_ref().map(|it| it.flop_per_s);
    assert!((peak(1).unwrap_or(0.0) / peak(0).unwrap_or(0.0) - 2.0).abs() < 1e-9);
    let rates: Vec<f64> = manifest.classes.iter().map(|it| it.relative_rate).collect();
    assert!(rates.contains(&1.0), "{rates:?}");
    let analysis = laggard(folder, H200)
        .arg("analyze")
        .arg(&run.record)
        .output()
        .expect("laggard starts");
    let [page, words] = [&analysis.stdout, &analysis.stderr].map(|it| String::from_utf8_lossy(it));
    assert_eq!(analysis.status.code(), Some(0), "{words}");
    let expect = "confined to a green context of 40 of 132 SMs";
    // Lines are broken where they are long.
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(expect), "{page}");
}

#[test]
fn ranks_without_classes_have_equal_parts() {
    let Some(folder) = stand_ins() else { return };
    let more = ["--ranks", "2", "--allow-shared-gpu"];
    let manifest = run(folder, H200, &[], &more).manifest();
    let [class] = &manifest.classes[..] else {
        panic!("{:?}", manifest.classes);
    };
    let part = Emulation::GreenContext {
        multiprocessors: 64,
        of: 132,
    };
    assert_eq!((class.emulated_by, class.relative_rate), (Some(part), 1.0));
}

#[test]
fn a_gpu_that_is_not_divided_is_no_proof() {
    let Some(folder) = stand_ins() else { return };
    let gpu = format!("{H200},has_green_contexts=false");
    let run = run(folder, &gpu, &[], &MIXED);
    let manifest = run.manifest();
    assert!(is_time_sliced(&manifest), "{:?}", manifest.caveats);
    for class in &manifest.classes {
        assert_eq!(class.emulated_by, Some(Emulation::ExtraArithmetic));
    }
    let text = run.text();
    assert!(text.contains("GPU 0 is not divided"), "{text}");
    assert!(text.contains("time-sliced, not a proof"), "{text}");
}

#[test]
fn parts_that_take_turns_are_no_proof() {
    let Some(folder) = stand_ins() else { return };
    let gpu = format!("{H200},parts_take_turns=true");
    let manifest = run(folder, &gpu, &[], &MIXED).manifest();
    assert!(is_time_sliced(&manifest), "{:?}", manifest.caveats);
}

#[test]
fn nccl_connects_them_where_it_lets_ranks_share() {
    let Some(folder) = stand_ins() else { return };
    let variables = [("NCCL_MULTI_RANK_GPU_ENABLE", "1")];
    let manifest = run(folder, H200, &variables, &MIXED).manifest();
    assert!(backend(&manifest).starts_with("NCCL 2."), "{manifest:?}");
    let is_confined = |part| matches!(part, Some(Emulation::GreenContext { .. }));
    assert!(
        manifest
            .classes
            .iter()
            .all(|it| is_confined(it.emulated_by))
    );
}

#[test]
fn they_need_no_nccl() {
    let Some(folder) = stand_ins() else { return };
    let without = tempfile::tempdir().expect("a folder");
    for name in ["libcuda.so.1", "libnvrtc.so.12"] {
        let link = without.path().join(name);
        std::os::unix::fs::symlink(folder.join(name), link).expect("a link");
    }
    let manifest = run(without.path(), H200, &[], &MIXED).manifest();
    assert_eq!(backend(&manifest), "staged through the host");
}

#[test]
fn several_gpus_are_not_shared() {
    let Some(folder) = stand_ins() else { return };
    let more = ["--ranks", "3", "--allow-shared-gpu"];
    let run = run(folder, &format!("{H200},devices=2"), &[], &more);
    let text = run.text();
    assert_eq!(run.output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("3 ranks share one GPU, and there are 2"),
        "{text}"
    );
    assert!(
        text.contains("\nhint: show one alone by CUDA_VISIBLE_DEVICES=0"),
        "{text}"
    );
}
