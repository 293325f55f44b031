//! Jobs of known laws on GPUs of hosts whose processors others use: that hides nobody who is slow
//! for another reason, and no sign of a GPU.

use super::devices::{RANKS, SLOW, kinds, slow_job, with_places};
use super::names;
use laggard_analyze::{Analysis, Cause, Confidence, Culprit, SignKind};
use laggard_benches::known_job::KnownJob;
use laggard_record::Telemetry;
use laggard_types::{CaveatCode, Gauge};

const PER_HOST: u32 = 2;
const LENGTH_NS: i64 = 8_000_000_000;

/// Each rank has a processor of its host, of whose time others used such a share. The ranks say
/// which it is, or they are bound to none.
fn contended(job: &KnownJob, foreign: impl Fn(u32) -> f64, is_bound: bool) -> Analysis {
    let row = |rank: u32| Telemetry {
        host: rank / PER_HOST,
        cpu: rank % PER_HOST,
        start_ns: 0,
        end_ns: LENGTH_NS,
        busy_ns: (foreign(rank) * LENGTH_NS as f64) as i64,
        own_ns: 0,
        steal_ns: 0,
    };
    let job = KnownJob {
        telemetry: (0..RANKS).map(row).collect(),
        ..job.clone()
    };
    let analysis = with_places(
        &job,
        |rank, _, mut state| {
            if rank == SLOW {
                state.set(Gauge::ClockReasons, Some(0x40));
            }
            Some(state)
        },
        &|rank, place| {
            if is_bound {
                place["cpus"] = vec![rank % PER_HOST].into();
            }
        },
    );
    let caveats = analysis.caveats.iter();
    let mut outside = caveats.filter(|it| it.code == CaveatCode::OutsideContention);
    assert!(outside.next().is_some(), "{:?}", analysis.caveats);
    analysis
}

#[test]
fn a_slow_gpu_is_named_where_others_use_the_processors() {
    let check = |foreign: &dyn Fn(u32) -> f64, is_bound| {
        let analysis = contended(&slow_job(), foreign, is_bound);
        assert_eq!(names(&analysis), [(Cause::SlowRank, Culprit::Rank(SLOW))]);
        let finding = &analysis.findings[0];
        assert_eq!(finding.confidence, Confidence::Shown);
        assert_eq!(kinds(finding), [SignKind::ClocksHeldBack]);
    };
    // By whom the processors of whom are used is not known.
    check(&|_| 0.5, false);
    // Its own is used no more than any other, or less.
    check(&|_| 0.5, true);
    check(&|rank| if rank == SLOW { 0.01 } else { 0.5 }, true);
}

#[test]
fn signs_survive_where_others_may_have_slowed_the_rank() {
    let foreign = |rank| if rank == SLOW { 0.9 } else { 0.02 };
    let analysis = contended(&slow_job(), foreign, true);
    let [finding] = &analysis.findings[..] else {
        panic!("{:?}", analysis.findings);
    };
    assert_eq!(finding.confidence, Confidence::Inconclusive);
    assert_eq!(finding.culprit, Culprit::Nobody);
    assert_eq!(kinds(finding), [SignKind::ClocksHeldBack]);
    let summary = &finding.summary;
    assert!(summary.contains("; GPU: hardware thermal"), "{summary}");
    assert!(summary.contains("; but other work took"), "{summary}");
    let line = format!("GPU of rank {SLOW}: hardware thermal slowdown");
    assert!(finding.evidence.contains(&line), "{:?}", finding.evidence);
}

#[test]
fn pauses_may_be_those_of_others() {
    let mut job = KnownJob::clean(RANKS, PER_HOST, 400, 5);
    job.pause_probability[SLOW as usize] = 0.05;
    let check = |is_bound, expect: Culprit| {
        let foreign = |rank| if rank == SLOW { 0.01 } else { 0.5 };
        let analysis = contended(&job, foreign, is_bound);
        assert_eq!(names(&analysis), [(Cause::HostPauses, expect)]);
    };
    check(false, Culprit::Nobody);
    check(true, Culprit::Rank(SLOW));
}
