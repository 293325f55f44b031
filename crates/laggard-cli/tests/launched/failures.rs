//! Launches that cannot work, and launches that end badly.

use super::stand_ins::make_nccl;
use super::{DEADLINE, GPUS, Launch, all_said, end, text};
use laggard_record::{ClosingStatus, Record};
use std::process::Command;
use std::time::{Duration, Instant};

const ON_GPUS: [&str; 4] = ["--device", "gpu", "--steps", "3"];

/// What all ranks say of a launch that must fail, of which nothing is recorded.
fn refused(launch: &Launch, arguments: &[&str], change: impl Fn(u32, &mut Command)) -> String {
    let said = all_said(&launch.run(arguments, change), 5);
    assert!(said.contains("hint: "), "{said}");
    assert!(!launch.record().exists(), "something is recorded");
    said
}

#[test]
fn processors_are_connected_by_mpi_alone() {
    let Some(launch) = Launch::of(3) else { return };
    let said = refused(&launch, &["--device", "cpu", "--steps", "3"], |_, _| {});
    let expect = "torchrun has started 3 ranks on processors, which MPI alone connects";
    assert_eq!(said.matches(expect).count(), 1, "{said}");
    assert!(
        said.contains("mpirun or srun, or give --device gpu"),
        "{said}"
    );
}

#[test]
fn ranks_that_do_not_start_are_named() {
    let Some(launch) = Launch::of(4) else { return };
    let arguments = ["--device", "gpu", "--steps", "3", "--init-timeout", "2"];
    let start = |rank| {
        launch
            .rank(rank, &arguments)
            .spawn()
            .expect("laggard starts")
    };
    let ends = [0, 2].map(start).map(end);
    let said = all_said(&ends, 5);
    assert!(said.contains("4 ranks to meet at 127.0.0.1"), "{said}");
    assert!(said.contains("missing: 1, 3"), "{said}");
    assert!(said.contains("rank 2 of host "), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

#[test]
fn variables_that_are_not_complete_are_explained() {
    let Some(launch) = Launch::of(2) else { return };
    let said_without = |name: &str| {
        let mut command = launch.rank(1, &ON_GPUS);
        let child = command.env_remove(name).spawn().expect("laggard starts");
        all_said(&[end(child)], 2)
    };
    let said = said_without("WORLD_SIZE");
    assert!(said.contains("RANK is set, as a launcher does"), "{said}");
    assert!(
        said.contains("unset RANK to run on this machine alone"),
        "{said}"
    );
    let said = said_without("MASTER_ADDR");
    assert!(said.contains("MASTER_ADDR: it is not set"), "{said}");
}

#[test]
fn a_wrong_visible_gpu_is_told_by_its_rank() {
    let Some(launch) = Launch::of(3) else { return };
    let said = refused(&launch, &ON_GPUS, |rank, command| {
        if rank == 1 {
            command.env("CUDA_VISIBLE_DEVICES", "7");
        }
    });
    assert!(said.contains("[rank 1] error: rank 1 on host"), "{said}");
    assert!(said.contains("CUDA_VISIBLE_DEVICES is `7`"), "{said}");
    // All see the same one.
    let said = refused(&launch, &ON_GPUS, |_, command| {
        command.env("CUDA_VISIBLE_DEVICES", "2");
    });
    assert_eq!(
        said.matches("ranks 0 and 1 share the GPU").count(),
        1,
        "{said}"
    );
    assert!(
        said.contains("CUDA_VISIBLE_DEVICES is `2` and `2`"),
        "{said}"
    );
}

#[test]
fn other_versions_of_nccl_are_told_once() {
    let Some(launch) = Launch::of(2) else { return };
    let old = tempfile::tempdir().expect("a folder");
    make_nccl(old.path(), &["-DOLD", "-DVERSION=21805"]);
    let said = refused(&launch, &ON_GPUS, |rank, command| {
        if rank == 1 {
            let folders = std::env::join_paths([old.path(), launch.folder]);
            command.env("LAGGARD_CUDA_PATH", folders.expect("folders"));
        }
    });
    let expect = "the ranks have different versions of NCCL: 2.18.5 on rank 1 (host ";
    assert_eq!(said.matches(expect).count(), 1, "{said}");
}

#[test]
fn ranks_without_a_gpu_among_others_are_named() {
    let Some(launch) = Launch::of(3) else { return };
    let said = refused(&launch, &["--steps", "3"], |rank, command| {
        if rank == 2 {
            command.env("LAGGARD_FAKE_CUDA", GPUS.replace("devices=4", "devices=0"));
        }
    });
    assert!(said.contains("rank 0 on host"), "{said}");
    assert!(
        said.contains("would compute on a GPU, and rank 2 on host"),
        "{said}"
    );
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
}

/// A GPU that breaks before there is a world: nobody waits for its rank.
#[test]
fn a_gpu_that_fails_at_the_start_ends_all() {
    let Some(launch) = Launch::of(3) else { return };
    let said = refused(&launch, &ON_GPUS, |rank, command| {
        if rank == 1 {
            command.env("LAGGARD_FAKE_CUDA", format!("{GPUS},launch_that_breaks=1"));
        }
    });
    assert!(said.contains("[rank 1] error: "), "{said}");
    assert!(said.contains("the world was aborted: rank 1 "), "{said}");
    // The two others are of one host, for which one speaks.
    assert_eq!(said.matches("error: ").count(), 2, "{said}");
}

/// A rank that is killed is named by the others, which end; what was recorded can be read.
#[test]
fn a_rank_that_is_killed_is_named_and_all_end() {
    for victim in [0, 1] {
        let Some(launch) = Launch::of(3) else { return };
        let arguments = ["--device", "gpu", "--steps", "100000"];
        let start = |rank| {
            launch
                .rank(rank, &arguments)
                .spawn()
                .expect("laggard starts")
        };
        let mut children: Vec<_> = (0..3).map(start).collect();
        let begin = Instant::now();
        let manifest = launch.record().join("manifest.json");
        while !manifest.exists() {
            assert!(begin.elapsed() < DEADLINE, "no step begins");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Among the steps, as far as can be known.
        std::thread::sleep(Duration::from_millis(500));
        children[victim].kill().expect("a live process");
        let ends: Vec<_> = children.into_iter().map(end).collect();
        let said: String = ends.iter().map(text).collect();
        for (rank, end) in ends.iter().enumerate() {
            let expect = (rank != victim).then_some(5);
            assert_eq!(end.status.code(), expect, "rank {rank}: {said}");
        }
        let expect = format!("rank {victim} on host ");
        assert!(said.contains(&expect), "{said}");
        assert!(said.contains("its connection closed"), "{said}");
        let record = Record::open(&launch.record()).expect("a record");
        let is_finished = |it: &laggard_record::Closing| it.status == ClosingStatus::Finished;
        assert!(!record.closing.as_ref().is_some_and(is_finished));
    }
}
