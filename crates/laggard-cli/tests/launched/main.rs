//! `laggard run` on GPUs in several processes, over stand-ins for the driver and NCCL: as torchrun
//! starts them, by variables alone, and under `mpirun`. What GPUs make of it cannot be seen here.
#![cfg(target_os = "linux")]

#[path = "../launchers/mod.rs"]
mod launchers;
#[path = "../planned/mod.rs"]
mod planned;
#[path = "../stand_ins/mod.rs"]
mod stand_ins;

mod failures;
mod hosts;
mod mpi;

use laggard_record::{ClosingStatus, Record};
use stand_ins::stand_ins;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A launch that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// GPUs that every process sees.
const GPUS: &str = "devices=4,memory_bytes=2000000000";

/// A launch of processes that know each other by torchrun's variables.
struct Launch {
    /// Of the stand-ins.
    folder: &'static Path,
    home: TempDir,
    /// Held as torchrun's store holds its port: ranks meet on one of the next.
    store: TcpListener,
    size: u32,
}

impl Launch {
    /// `None` where the stand-ins are missing, which they say.
    fn of(size: u32) -> Option<Self> {
        Some(Self {
            folder: stand_ins()?,
            home: tempfile::tempdir().expect("a folder"),
            store: TcpListener::bind("127.0.0.1:0").expect("a port"),
            size,
        })
    }

    fn record(&self) -> PathBuf {
        self.home.path().join("record")
    }

    /// A command in the surroundings of the stand-ins.
    fn on_stand_ins(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.put_on_stand_ins(&mut command);
        command
    }

    fn put_on_stand_ins<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_LIBRARY_PATH", self.folder)
            .env("LAGGARD_CUDA_PATH", self.folder)
            .env("LAGGARD_FAKE_CUDA", GPUS)
            .env("LAGGARD_FAKE_NCCL", self.home.path())
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env_remove("NCCL_MULTI_RANK_GPU_ENABLE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
    }

    /// `laggard run` of a small model as a rank of the launch.
    fn rank(&self, rank: u32, arguments: &[&str]) -> Command {
        let port = self.store.local_addr().expect("an address").port();
        let mut command = self.on_stand_ins(env!("CARGO_BIN_EXE_laggard"));
        command
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", self.size.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("TORCHELASTIC_USE_AGENT_STORE", "True")
            .env("TORCHELASTIC_RUN_ID", "none")
            .args(match arguments.contains(&"--plan") {
                true => &["run"][..],
                false => &["run", "--model", "tiny"],
            })
            .arg("-o")
            .arg(self.record())
            .args(arguments);
        command
    }

    /// Starts all ranks, each with changes of its own, and waits for their ends.
    fn run(&self, arguments: &[&str], change: impl Fn(u32, &mut Command)) -> Vec<Output> {
        let start = |rank| {
            let mut command = self.rank(rank, arguments);
            change(rank, &mut command);
            command.spawn().expect("laggard starts")
        };
        let children: Vec<_> = (0..self.size).map(start).collect();
        children.into_iter().map(end).collect()
    }
}

/// Waits for the end of a process.
fn end(mut child: Child) -> Output {
    let begin = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if begin.elapsed() > DEADLINE {
            _ = child.kill();
            let output = child.wait_with_output().expect("a killed child");
            panic!("the launch hangs: {}", text(&output));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("a child that has ended")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What all ranks said, and that all ended with a code.
fn all_said(ends: &[Output], code: i32) -> String {
    let said: Vec<String> = ends.iter().map(text).collect();
    let said = said.concat();
    for end in ends {
        assert_eq!(end.status.code(), Some(code), "{said}");
    }
    said
}

/// A job of ranks on these GPUs, recorded to the end.
fn check_record(path: &Path, gpus: Range<u32>, steps: u32) -> Record {
    let record = Record::open(path).expect("a record");
    let closing = record.closing.as_ref().expect("a closing");
    assert_eq!(closing.status, ClosingStatus::Finished);
    assert_eq!(closing.steps_completed, steps);
    let devices = record.manifest.ranks.iter().map(|it| it.device.as_str());
    let ranks = 0..gpus.end - gpus.start;
    let expect: Vec<String> = gpus.map(|gpu| format!("Fake GPU {gpu}")).collect();
    assert_eq!(devices.collect::<Vec<_>>(), expect);
    let communication = record.manifest.communication.as_ref();
    let backend = &communication.expect("what carried it").backend;
    assert!(backend.starts_with("NCCL 2."), "{backend}");
    let of_rank = |rank| record.manifest.schedule.program(rank).len();
    let operations: usize = ranks.map(of_rank).sum();
    let mut samples = 0;
    let reading = record.samples(|batch| samples += batch.len());
    assert_eq!(reading.expect("samples").caveats, []);
    assert_eq!(samples, operations * steps as usize);
    record
}

#[test]
fn processes_that_torchrun_starts_run_a_job_on_gpus() {
    for (size, layout) in [(1, "dp1"), (2, "tp2"), (4, "dp2,pp2")] {
        let Some(launch) = Launch::of(size) else {
            return;
        };
        let arguments = ["--device", "gpu", "--steps", "6", "--layout", layout];
        let ends = launch.run(&arguments, |_, _| {});
        let said = all_said(&ends, 0);
        let expect = format!("{size} ranks over NCCL 2.30.7");
        assert_eq!(said.matches(&expect).count(), 1, "{said}");
        assert_eq!(said.matches("next: laggard analyze").count(), 1, "{said}");
        check_record(&launch.record(), 0..size, 6);
        let analyze = launch
            .on_stand_ins(env!("CARGO_BIN_EXE_laggard"))
            .arg("analyze")
            .arg(launch.record())
            .output();
        all_said(&[analyze.expect("laggard starts")], 0);
        // Nothing is left of communicators.
        let names = launch.home.path().read_dir().expect("a folder").flatten();
        let names: Vec<_> = names.map(|it| it.file_name()).collect();
        assert_eq!(names, ["record"]);
    }
}

/// Jobs beside each other are worlds of their own, without MPI too.
#[test]
fn jobs_of_a_plan_run_beside_each_other() {
    let Some(launch) = Launch::of(3) else { return };
    let (file, number) = planned::plan(launch.home.path());
    let what = ["--plan", &file, "--option", &number, "--device", "gpu"];
    let ends = launch.run(&[&what[..], &["--steps", "4"]].concat(), |_, _| {});
    all_said(&ends, 0);
    for (job, class, gpus) in [("job-1", "h100", 0..1), ("job-2", "gb200", 0..2)] {
        let record = check_record(&launch.record().join(job), gpus, 4);
        assert_eq!(record.manifest.classes[0].name, class);
    }
}

/// Who shows each rank its own GPU as the only one.
#[test]
fn each_rank_may_see_its_own_gpu_alone() {
    let Some(launch) = Launch::of(2) else { return };
    let ends = launch.run(&["--device", "gpu", "--steps", "3"], |rank, command| {
        command.env("CUDA_VISIBLE_DEVICES", rank.to_string());
    });
    all_said(&ends, 0);
    check_record(&launch.record(), 0..2, 3);
}

/// Kubernetes' PyTorchJob and others name the port that rank 0 is to listen on.
#[test]
fn any_launcher_that_sets_the_variables_will_do() {
    let Some(launch) = Launch::of(2) else { return };
    let ends = launch.run(&["--device", "gpu", "--steps", "3"], |_, command| {
        // One that was free a moment ago; nobody else of this machine asks for it by chance.
        let port = launch.store.local_addr().expect("an address").port() ^ 1;
        command
            .env("MASTER_PORT", port.to_string())
            .env_remove("TORCHELASTIC_USE_AGENT_STORE")
            .env_remove("TORCHELASTIC_RUN_ID");
    });
    all_said(&ends, 0);
    check_record(&launch.record(), 0..2, 3);
}
