//! The conformance suite over NCCL's communicator and the CUDA device, with stand-ins for NCCL and
//! for the driver: ranks are threads of a process, or processes, and GPUs and their streams are
//! threads. Says that the calls are made as they are meant; nothing of what a real NCCL or GPU
//! makes of them.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../fakes/cc.rs"]
mod cc;
#[path = "../device/child.rs"]
mod child;
mod fakes;
mod own;
mod processes;
mod ranks;

use fakes::in_child;
use laggard_backend::conformance::{CHECKS, Launcher};
use laggard_cuda::{CudaError, Nccl, NcclOptions, Surroundings};
use ranks::Ranks;
use std::path::Path;

/// World sizes.
const SIZES: [u32; 4] = [1, 2, 3, 4];

/// Runs the checks that are wanted over worlds of every size.
fn conforms(options: &NcclOptions, is_wanted: fn(&str) -> bool) {
    let ranks = Ranks::new(options.clone());
    for size in SIZES {
        for check in CHECKS {
            if check.least_ranks > size || !is_wanted(check.name) {
                continue;
            }
            let outcome = ranks.run(size, &check.body);
            outcome.unwrap_or_else(|violation| {
                panic!("{} over {size} ranks: {violation}", check.name)
            });
        }
    }
}

#[test]
fn calls_that_are_compared_conform() {
    in_child("calls_that_are_compared_conform", &[], || {
        let options = NcclOptions {
            check_calls: true,
            ..NcclOptions::default()
        };
        conforms(&options, |_| true);
    });
}

/// All but what only ranks that compare their calls can notice: NCCL hangs where they disagree.
#[test]
fn calls_that_are_made_at_once_conform() {
    in_child("calls_that_are_made_at_once_conform", &[], || {
        conforms(&NcclOptions::default(), |name| {
            !name.starts_with("another ")
        });
    });
}

#[test]
fn processes_conform() {
    processes::in_processes("processes_conform", 4, |_| Vec::new(), processes::conform);
}

#[test]
fn processes_with_other_versions_are_told() {
    let test = "processes_with_other_versions_are_told";
    let old = |rank| match rank {
        2 => vec![(processes::OLD, "1")],
        _ => Vec::new(),
    };
    processes::in_processes(test, 3, old, processes::versions);
}

#[test]
fn a_rank_that_does_not_come_is_named_when_the_time_is_over() {
    let test = "a_rank_that_does_not_come_is_named_when_the_time_is_over";
    in_child(test, &[], own::missing_rank);
}

/// Over streams that take no more than so much.
const NARROW: (&str, &str) = (
    "LAGGARD_FAKE_CUDA",
    "devices=4,memory_bytes=2000000000,stream_room=40",
);

#[test]
fn a_rank_whose_stream_is_full_still_hears_of_the_end_of_time() {
    let test = "a_rank_whose_stream_is_full_still_hears_of_the_end_of_time";
    in_child(test, &[NARROW], || own::full_stream(false));
}

#[test]
fn so_does_one_whose_calls_are_compared() {
    let test = "so_does_one_whose_calls_are_compared";
    in_child(test, &[NARROW], || own::full_stream(true));
}

#[test]
fn a_rank_that_cannot_join_ends_the_others() {
    let test = "a_rank_that_cannot_join_ends_the_others";
    in_child(test, &[], own::mute_rank);
}

#[test]
fn a_communicator_that_never_comes_about_is_given_up() {
    let test = "a_communicator_that_never_comes_about_is_given_up";
    in_child(test, &[], own::stalled_start);
}

#[test]
fn an_error_that_happens_by_itself_ends_all_ranks() {
    in_child(
        "an_error_that_happens_by_itself_ends_all_ranks",
        &[],
        own::broken_link,
    );
}

#[test]
fn other_versions_are_told_to_all_ranks() {
    in_child("other_versions_are_told_to_all_ranks", &[], own::versions);
}

#[test]
fn what_newer_versions_have_is_used_and_done_without() {
    let test = "what_newer_versions_have_is_used_and_done_without";
    in_child(test, &[], own::newer);
}

#[test]
fn ranks_on_one_gpu_are_refused_with_what_allows_them() {
    let test = "ranks_on_one_gpu_are_refused_with_what_allows_them";
    in_child(test, &[], own::refuses_to_share);
}

#[test]
fn ranks_on_one_gpu_work_where_that_is_allowed() {
    let test = "ranks_on_one_gpu_work_where_that_is_allowed";
    in_child(test, &[("NCCL_MULTI_RANK_GPU_ENABLE", "1")], own::shares);
}

/// Against the real library, as far as that goes without a GPU: where there is one, in
/// `target/cuda-wheels` or where the system has it, it has every function.
#[test]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn a_real_nccl_has_every_function() {
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cuda-wheels");
    let mut surroundings = Surroundings::of_process();
    surroundings.named = surroundings.named.or_else(|| Some(wheels.into()));
    match Nccl::load(&surroundings) {
        Ok(nccl) => {
            let version = nccl.version();
            assert!(version.major == 2 && version.minor >= 14, "{version}");
            assert_eq!(nccl.can_register(), version.minor >= 19, "{version}");
            assert_eq!(nccl.can_estimate(), version.minor >= 22, "{version}");
        }
        Err(error @ CudaError::NotFound { .. }) => eprintln!("SKIPPED: {error}"),
        Err(error) => panic!("{error}"),
    }
}
