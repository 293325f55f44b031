//! Jobs of known laws on GPUs that are set up unlike each other: that is named where nothing that a
//! GPU tells of itself explains a slow rank better.

use super::devices::{LENGTH, RANKS, SLOW, kinds, slow_job, with_places};
use super::names;
use laggard_analyze::{Cause, Culprit, SignKind};
use laggard_benches::known_job::KnownJob;
use laggard_types::{DeviceState, Gauge};
use serde_json::json;

#[test]
fn a_gpu_that_is_held_back_is_named_beside_its_set_up() {
    let far = "its processors are on memory node 0, its GPU on node 1";
    let quota = "its control group grants it the time of 0.50 processors";
    let crowded = "it is bound differently from its peers";
    let check = |job: &KnownJob, mask: i64, set_up: &str, expect: (Cause, &[SignKind])| {
        let told = |rank, _: f64, mut state: DeviceState| {
            if rank == SLOW {
                state.set(Gauge::ClockReasons, Some(mask));
            }
            Some(state)
        };
        let analysis = with_places(job, told, &|rank, place| {
            let is_odd = rank == SLOW;
            place["numa_node"] = 0.into();
            place["accelerator"]["numa_node"] = u32::from(is_odd && set_up == far).into();
            if is_odd && set_up == quota {
                place["cpu_quota"] = 0.5.into();
            }
            if set_up == crowded {
                // Ranks 2 and 3 are on one host.
                place["cpus"] = vec![if is_odd { 0 } else { rank % 2 }].into();
            }
        });
        assert_eq!(
            names(&analysis),
            [(expect.0, Culprit::Rank(SLOW))],
            "{set_up}"
        );
        let finding = &analysis.findings[0];
        assert_eq!(kinds(finding), expect.1, "{set_up}");
        let told = finding.evidence.iter().any(|line| line.contains(set_up));
        assert!(told || finding.summary.contains(set_up), "{finding:?}");
    };
    let held_back: &[SignKind] = &[SignKind::ClocksHeldBack];
    check(&slow_job(), 0x40, far, (Cause::SlowRank, held_back));
    check(&slow_job(), 0x40, quota, (Cause::SlowRank, held_back));
    check(&slow_job(), 0x40, crowded, (Cause::SlowRank, held_back));
    check(&slow_job(), 0, far, (Cause::Binding, &[]));
    check(&slow_job(), 0, quota, (Cause::CpuQuota, &[]));
    // It computes as fast as its peers, so that no clock explains what it costs.
    let mut pausing = KnownJob::clean(RANKS, 2, LENGTH, 5);
    pausing.pause_probability[SLOW as usize] = 0.05;
    check(&pausing, 0x40, far, (Cause::Binding, held_back));
}

#[test]
fn half_of_a_class_is_not_set_up_unlike_the_rest() {
    let mut job = KnownJob::clean(RANKS, RANKS, LENGTH, 5);
    job.rank_excess[4] = 0.2;
    let analysis = with_places(&job, |_, _, state| Some(state), &|rank, place| {
        place["numa_node"] = 0.into();
        place["accelerator"]["numa_node"] = (rank / 4).into();
    });
    assert_eq!(names(&analysis), [(Cause::SlowRank, Culprit::Rank(4))]);
}

#[test]
fn gpus_that_are_set_up_unlike_their_class_are_a_matter_of_binding() {
    let check = |own: serde_json::Value, others: serde_json::Value, expect: Option<&str>| {
        let analysis = super::run_with(&slow_job(), |manifest| {
            for rank in 0..RANKS {
                let value = if rank == SLOW { &own } else { &others };
                let place = &mut manifest["ranks"][rank as usize];
                place["numa_node"] = 0.into();
                for (name, value) in value.as_object().expect("an object") {
                    place[name] = value.clone();
                }
                if place["accelerator"]["uuid"].is_null() {
                    place["accelerator"]["uuid"] = format!("GPU-{rank}").into();
                }
            }
        });
        let cause = match expect {
            Some(_) => Cause::Binding,
            None => Cause::SlowRank,
        };
        assert_eq!(names(&analysis), [(cause, Culprit::Rank(SLOW))], "{own}");
        let summary = &analysis.findings[0].summary;
        assert!(summary.contains(expect.unwrap_or_default()), "{summary}");
    };
    let gpu = |identity: serde_json::Value| json!({"accelerator": identity});
    let node = |node: u32| gpu(json!({"numa_node": node}));
    let far = "its processors are on memory node 0, its GPU on node 1";
    check(node(1), node(0), Some(far));
    check(node(1), node(1), None);
    check(gpu(json!({})), node(0), None);
    let mig = |is: bool| gpu(json!({"is_mig": is}));
    check(mig(true), mig(false), Some("cut into instances (MIG)"));
    check(mig(true), mig(true), None);
    let mps = |is: bool| gpu(json!({"shared_by_mps": is}));
    check(mps(true), mps(false), Some("(MPS)"));
    let mode = |mode: &str| gpu(json!({"compute_mode": mode}));
    // That slows nothing.
    check(mode("exclusive_process"), mode("default"), None);
    let others = |count: u32| json!({"accelerator": {}, "other_processes": count});
    let crowded = "2 processes of others compute on its GPU";
    check(others(2), others(0), Some(crowded));
    check(others(0), others(2), None);
}

#[test]
fn a_rank_that_shares_its_gpu_is_bound_unlike_its_class() {
    let analysis = super::run_with(&slow_job(), |manifest| {
        for rank in 0..RANKS as usize {
            // Rank 2 is on the host of rank 3.
            let gpu = if rank == 2 { SLOW as usize } else { rank };
            manifest["ranks"][rank]["accelerator"] = json!({"uuid": format!("GPU-{gpu}")});
        }
    });
    assert_eq!(names(&analysis), [(Cause::Binding, Culprit::Rank(SLOW))]);
    let summary = &analysis.findings[0].summary;
    assert!(
        summary.contains("it shares its GPU with ranks 2"),
        "{summary}"
    );
}
