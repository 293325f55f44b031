//! The real binary's `bench`: on processors, on stand-ins for GPUs, under `mpirun`, and what its
//! result is good for. How fast anything is cannot be judged here.

#[path = "../launchers/mod.rs"]
mod launchers;
#[path = "../stand_ins/mod.rs"]
mod stand_ins;

use laggard_analyze::Bench;
use laggard_mpi::Flavor;
use laggard_record::{BenchSamples, Placement};
use laggard_types::Collective;
use launchers::launcher;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Small enough for a test, in every mode.
const SMALL: &str = "-b 64 -e 4K -f 8 -n 5 --gemm 48 --rounds 6 --triad-bytes 96K --pair-bytes 4K";

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    command.arg("bench").env_remove("LAGGARD_LOG");
    command
}

#[track_caller]
fn ended(output: Output, code: i32) -> (String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// Runs `bench` with words and more arguments, which has to work.
#[track_caller]
fn works(mut command: Command, text: &str, more: &[&str]) -> (String, String) {
    let arguments = text.split_whitespace().chain(more.iter().copied());
    ended(command.args(arguments).output().expect("it starts"), 0)
}

fn read(folder: &Path) -> (Bench, BenchSamples) {
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
    let found = serde_json::from_str(&text("bench.json")).expect("a result");
    let samples = BenchSamples::from_json(&text("samples.json")).expect("samples");
    (found, samples)
}

/// What every benchmark of all parts has.
#[track_caller]
fn check_whole(folder: &Path, ranks: usize) -> Bench {
    let (found, samples) = read(folder);
    assert!(!found.is_wrong(), "{}", found.verdict);
    assert_eq!((found.ranks.len(), samples.ranks.len()), (ranks, ranks));
    let measured = |collective, placement| {
        let is_this = |it: &&laggard_analyze::CollectiveFigures| {
            (it.collective, it.placement) == (collective, placement)
        };
        let sizes = found.collectives.iter().filter(is_this);
        sizes.map(|it| it.bytes).collect::<Vec<u64>>()
    };
    use Placement::{InPlace, OutOfPlace};
    for placement in [OutOfPlace, InPlace] {
        assert_eq!(measured(Collective::AllReduce, placement), [64, 512, 4096]);
        assert_eq!(measured(Collective::AllToAll, placement).len(), 3);
    }
    assert_eq!(measured(Collective::Broadcast, InPlace).len(), 3);
    assert_eq!(measured(Collective::SendRecv, OutOfPlace).len(), 3);
    assert!(
        found
            .collectives
            .iter()
            .all(|it| it.transfer.n == 5 && it.ranks.len() == ranks)
    );
    let names: Vec<&str> = found.compute.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["48 cubed", "triad"]);
    assert!(found.compute.iter().all(|it| it.ranks.len() == ranks));
    assert_eq!(found.pairs.len(), ranks * (ranks - 1));
    found
}

#[test]
fn everything_is_measured_on_processors_and_kept() {
    let home = TempDir::new().expect("a folder");
    let folder = home.path().join("result");
    let path = folder.to_str().expect("a path");
    let only = "--device cpu --ranks 2 --only collectives,gemm,triad,pairs --output";
    let (out, err) = works(bench(), SMALL, &[&words(only)[..], &[path]].concat());
    let found = check_whole(&folder, 2);
    assert_eq!(found.communication.backend, "threads");
    assert!(out.starts_with("all results are right"), "{out}");
    for title in [
        "all_reduce (f32 sum)",
        "send_recv (f32)",
        "kernels (f32)",
        "pairs of ranks",
    ] {
        assert!(out.contains(title), "{out}");
    }
    assert!(err.contains("next: laggard simulate"), "{err}");
    // A result is never overwritten.
    let again = bench().args(words(SMALL)).args(["--output", path]).output();
    let (_, err) = ended(again.expect("it starts"), 2);
    assert!(
        err.contains("exists already") && err.contains("hint: "),
        "{err}"
    );
}

/// What cannot be kept is printed, and what cannot be measured leaves nothing behind.
#[test]
fn the_folder_of_a_result_is_made_first() {
    let home = TempDir::new().expect("a folder");
    let folder = |name: &str| home.path().join(name).to_str().expect("a path").to_owned();
    let only = "--device cpu --ranks 2 --only broadcast -b 64 -e 64 -n 3 --output";
    let nowhere = folder("not/there");
    let output = bench().args(words(only)).arg(&nowhere).output();
    let (out, err) = ended(output.expect("it starts"), 7);
    assert!(out.is_empty() && !err.contains("measuring"), "{out}{err}");
    let late = folder("late");
    let output = bench()
        .args(words("--late 7:100"))
        .args(words(only))
        .arg(&late)
        .output();
    ended(output.expect("it starts"), 2);
    assert!(!Path::new(&late).exists());
}

#[test]
#[cfg(unix)]
fn a_signal_ends_it_with_its_code() {
    let check = |signal: &str, code: i32| {
        // Many sizes, so that it ends before the last.
        let only = "--device cpu --ranks 2 --only all_reduce -b 8 -e 64M -n 20000";
        let mut command = bench();
        command
            .args(words(only))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let first = errors.next().expect("a line").expect("UTF-8");
        assert!(first.starts_with("measuring"), "{first}");
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("it starts").success());
        let output = child.wait_with_output().expect("it ends");
        let (out, _) = ended(output, code);
        assert!(out.contains("a signal ended the benchmark early"), "{out}");
    };
    check("-INT", 130);
    check("-TERM", 143);
}

#[test]
fn a_gpu_comes_late_by_arithmetic() {
    let Some(folder) = stand_ins::stand_ins() else {
        return;
    };
    let mut command = bench();
    command
        .env("LD_LIBRARY_PATH", folder)
        .env("LAGGARD_CUDA_PATH", folder)
        .env("LAGGARD_FAKE_CUDA", "devices=2,memory_bytes=2000000000")
        .env_remove("CUDA_VISIBLE_DEVICES");
    let only = "--device gpu --only all_reduce -b 64 -e 64 -n 3 --late 1:300";
    let (out, _) = works(command, only, &[]);
    assert!(
        out.contains("rank 1 came late on purpose, by 300 us"),
        "{out}"
    );
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn json_is_the_result_alone() {
    let only = "--device cpu --ranks 2 --only all_gather -b 256 -e 256 -n 3 -d bfloat16 -o avg \
                --place in --format json";
    let (out, _) = works(bench(), only, &[]);
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["schema_version"], 1);
    let points = found["collectives"].as_array().expect("points");
    assert_eq!(points.len(), 1);
    let expect = [
        ("collective", "all_gather"),
        ("placement", "in_place"),
        ("data_type", "bf16"),
    ];
    for (key, value) in expect {
        assert_eq!(points[0][key], value);
    }
    assert_eq!(points[0]["ranks"].as_array().expect("ranks").len(), 2);
    assert_eq!(found["compute"].as_array().expect("kernels").len(), 0);
}

#[test]
fn everything_is_measured_on_gpus() {
    let Some(folder) = stand_ins::stand_ins() else {
        return;
    };
    let home = TempDir::new().expect("a folder");
    let result = home.path().join("result");
    let path = result.to_str().expect("a path");
    let mut command = bench();
    command
        .env("LD_LIBRARY_PATH", folder)
        .env("LAGGARD_CUDA_PATH", folder)
        .env("LAGGARD_FAKE_CUDA", "devices=2,memory_bytes=2000000000")
        .env_remove("CUDA_VISIBLE_DEVICES");
    let only = "--device gpu --only collectives,gemm,triad,pairs --output";
    works(command, SMALL, &[&words(only)[..], &[path]].concat());
    let found = check_whole(&result, 2);
    assert!(found.communication.backend.starts_with("NCCL 2."));
    assert_eq!(found.ranks[1].device, "Fake GPU 1");
    assert_eq!(found.compute[0].data_type.name(), "bf16");
    // Nobody's datasheet.
    assert_eq!(found.compute[0].ranks[0].share_of_peak, None);
}

#[test]
fn everything_is_measured_under_mpirun() {
    let Some(mut command) = launcher(Flavor::OpenMpi) else {
        return;
    };
    command.args([
        "-n",
        "3",
        env!("CARGO_BIN_EXE_laggard"),
        "bench",
        "--device",
        "cpu",
        "-q",
    ]);
    let home = TempDir::new().expect("a folder");
    let result = home.path().join("result");
    let path = result.to_str().expect("a path");
    let only = "--only collectives,gemm,triad,pairs --output";
    let (out, _) = works(command, SMALL, &[&words(only)[..], &[path]].concat());
    let found = check_whole(&result, 3);
    assert!(found.communication.backend.contains("Open MPI"));
    // One of the ranks speaks.
    assert_eq!(out.matches("all results are right").count(), 1, "{out}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let check = |text: &str, expect: &str| {
        let output = bench().args(words(text)).output().expect("it starts");
        let (out, err) = ended(output, 2);
        assert!(out.is_empty(), "{out}");
        assert!(
            err.contains(expect) && err.contains("hint: "),
            "{text}: {err}"
        );
    };
    check("-b 8T", "-b: cannot read `8T`");
    check("-b 16 -e 8", "no size is in it");
    check("-f 1", "the sizes would never end");
    check("-n 0 --only broadcast", "nothing would be timed");
    check("-d fp4", "no data type is called `fp4`");
    check("-o results", "the folder of the result is --output");
    check("--late 7:100 --ranks 2", "there is no such rank");
    check("--late soon", "cannot read --late");
    check("--ranks 0", "no benchmark has 0 ranks");
    check("--only gemm --gemm 0", "it is empty");
    check("--only gemm --gemm 4294967296", "no memory holds it");
    check("--only pairs --pair-bytes 0", "it is empty");
    check("--only gemm --model deepseek-v3", "latent attention");
    check(
        "--only gemm --model llama3-70b --tensor-parallel 3",
        "not divided by 3",
    );
    check("--only gemm --model lama", "lama");
}

/// An accelerator and a cluster of it, by the name of this machine's processors.
fn cluster(home: &Path, device: &str) -> [String; 2] {
    let file = |name: &str, text: String| {
        let path = home.join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let core = format!(
        "[[accelerator]]\nid = \"core\"\nproduct = \"a core\"\nvendor = \"Intel\"\n\
         aliases = ['{device}']\narchitecture = \"any\"\ndense_fp32_flop_per_s = 1e15\n\
         dense_bf16_flop_per_s = 1e15\nmemory_bytes = 4_000_000_000\n\
         memory_bandwidth_bytes_per_s = 1e12\nscale_up_domain_devices = 64\n\
         scale_up_bandwidth_bytes_per_s = 1e10\nscale_out_bandwidth_bytes_per_s = 1e9\n\
         confidence = \"low\"\nsources = [\"a guess\"]\n"
    );
    let desk = "id = \"desk\"\n\
        [[site]]\nid = \"desk\"\nconfidence = \"low\"\nsources = [\"a guess\"]\n\
        [[pool]]\nid = \"cores\"\nsite = \"desk\"\naccelerator = \"core\"\ncount = 4\n\
        devices_per_node = 4\nconfidence = \"low\"\nsources = [\"a guess\"]\n";
    [
        file("devices.toml", core),
        file("cluster.toml", desk.to_owned()),
    ]
}

#[test]
fn a_benchmark_calibrates_predictions() {
    let home = TempDir::new().expect("a folder");
    let result = home.path().join("result");
    let path = result.to_str().expect("a path");
    let only = "--device cpu --ranks 2 --only all_reduce,gemm,triad --output";
    works(bench(), SMALL, &[&words(only)[..], &[path]].concat());
    let device = read(&result).0.ranks[0].device.clone();
    let [devices, cluster] = cluster(home.path(), &device);
    let simulate = |more: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
            .args([
                "simulate",
                "--cluster",
                &cluster,
                "--accelerators",
                &devices,
            ])
            .args(words(
                "--model tiny --layout dp2 --sequence-length 128 --global-batch 2",
            ))
            .args(["--format", "json"])
            .args(more)
            .output();
        let (out, _) = ended(output.expect("it starts"), 0);
        serde_json::from_str(&out).expect("JSON")
    };
    let found = simulate(&["--calibrate", path]);
    let class = &found["calibrated_on"][0]["classes"][0];
    assert_eq!(
        (&class["class"], &class["accelerator"]),
        (&"cores".into(), &"core".into())
    );
    for kind in ["products", "memory_bound", "links"] {
        let ratio = &class[kind]["measured"];
        assert!(ratio["value"].as_f64() > Some(0.0), "{kind}: {class}");
        assert!(ratio["low"].as_f64() <= ratio["value"].as_f64(), "{class}");
    }
    // No core has a petaflop per second, and the prediction knows it now.
    let products = |found: &Value| {
        let step = &found["forecast"]["classes"][0]["step"];
        step["products_s"].as_f64().expect("seconds")
    };
    let ratio = products(&found) / products(&simulate(&[]));
    let expect = class["products"]["measured"]["value"]
        .as_f64()
        .expect("a ratio");
    assert!(
        (ratio / expect - 1.0).abs() < 1e-6 && ratio > 10.0,
        "{ratio}, {class}"
    );
    // What is there is read with care.
    fs::write(result.join("samples.json"), "{\"schema_version\": 1}").expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_laggard"))
        .args([
            "simulate",
            "--cluster",
            &cluster,
            "--accelerators",
            &devices,
        ])
        .args(["--calibrate", path])
        .output();
    let (_, err) = ended(output.expect("it starts"), 3);
    assert!(
        err.contains("samples.json") && err.contains("hint: "),
        "{err}"
    );
}
