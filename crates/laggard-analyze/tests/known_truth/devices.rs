//! Jobs of known laws beside what their GPUs are said to tell: signs are put to findings that stand
//! without them, and to no others.

use super::names;
use laggard_analyze::{Analysis, Cause, Confidence, Culprit, Finding, Options, SignKind, analyze};
use laggard_benches::known_job::KnownJob;
use laggard_record::{DeviceReading, Record, write_devices};
use laggard_types::{CaveatCode, DeviceState, Gauge};
use serde_json::json;

/// The slow rank.
pub(super) const SLOW: u32 = 3;
pub(super) const RANKS: u32 = 8;
pub(super) const LENGTH: u32 = 400;
/// Readings a second, and seconds of them: longer than the steps take.
const PER_SECOND: u32 = 10;
const SECONDS: u32 = 8;

/// A GPU that is well.
fn well() -> DeviceState {
    let mut state = DeviceState::default();
    for (gauge, value) in [
        (Gauge::SmClock, 1755),
        (Gauge::PowerLimit, 700_000),
        (Gauge::Temperature, 60),
        (Gauge::ClockReasons, 0),
        (Gauge::EccUncorrected, 0),
        (Gauge::RemapPending, 0),
        (Gauge::PcieGeneration, 5),
        (Gauge::PcieWidth, 16),
        (Gauge::PcieReplays, 0),
        (Gauge::Nvlinks, 18),
        (Gauge::NvlinksUp, 18),
        (Gauge::XidEvents, 0),
        (Gauge::PortsActive, 2),
        (Gauge::PortsRate, 100_000_000_000),
        (Gauge::PortsErrors, 7),
    ] {
        state.set(gauge, Some(value));
    }
    state
}

/// An analysis of a job, with what rank and time make of a GPU that is well; `None` tells nothing.
fn with(job: &KnownJob, told: impl Fn(u32, f64, DeviceState) -> Option<DeviceState>) -> Analysis {
    with_places(job, told, &|_, _| ())
}

/// The same, where the manifest says more of the ranks' places.
pub(super) fn with_places(
    job: &KnownJob,
    told: impl Fn(u32, f64, DeviceState) -> Option<DeviceState>,
    place: &dyn Fn(u32, &mut serde_json::Value),
) -> Analysis {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("record");
    job.write(&path).expect("a record");
    let moments = (0..SECONDS * PER_SECOND).map(|at| f64::from(at) / f64::from(PER_SECOND));
    let rows = moments.flat_map(|at| {
        let told = &told;
        (0..RANKS).filter_map(move |rank| {
            Some(DeviceReading {
                rank,
                at_ns: (at * 1e9) as i64,
                state: told(rank, at, well())?,
            })
        })
    });
    write_devices(&path, rows.collect::<Vec<_>>()).expect("written");
    let file = path.join("manifest.json");
    let text = std::fs::read(&file).expect("a manifest");
    let mut manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    for rank in 0..RANKS {
        let own = &mut manifest["ranks"][rank as usize];
        let uuid = format!("GPU-{rank}");
        own["accelerator"] =
            json!({"uuid": uuid, "most_sm_clock_mhz": 1980, "most_pcie_width": 16});
        place(rank, own);
    }
    std::fs::write(&file, manifest.to_string()).expect("a manifest");
    let record = Record::open(&path).expect("a readable record");
    analyze(&record, &Options::default()).expect("an analysis")
}

pub(super) fn slow_job() -> KnownJob {
    let mut job = KnownJob::clean(RANKS, 2, LENGTH, 5);
    job.rank_excess[SLOW as usize] = 0.2;
    job
}

/// What is found if the slow rank's GPU shows these values from a time on, and the others are well.
fn slow(from_s: f64, values: &[(Gauge, i64)]) -> Analysis {
    with(&slow_job(), |rank, at, mut state| {
        if rank == SLOW && at >= from_s {
            values
                .iter()
                .for_each(|(gauge, value)| state.set(*gauge, Some(*value)));
        }
        Some(state)
    })
}

/// The finding about the slow rank.
fn finding(analysis: &Analysis) -> &Finding {
    assert_eq!(names(analysis), [(Cause::SlowRank, Culprit::Rank(SLOW))]);
    let finding = &analysis.findings[0];
    assert_eq!(finding.confidence, Confidence::Shown);
    finding
}

pub(super) fn kinds(finding: &Finding) -> Vec<SignKind> {
    finding.signs.iter().map(|sign| sign.kind).collect()
}

#[test]
fn a_slow_rank_comes_with_what_its_gpu_told() {
    use SignKind::{
        ClocksHeldBack, LowClock, MemoryErrors, Nvlink, Pcie, PcieReplays, Ports, RowRemap, Xid,
    };
    let check = |from_s: f64, values: &[(Gauge, i64)], kind: SignKind, words: &str| {
        let analysis = slow(from_s, values);
        let finding = finding(&analysis);
        assert_eq!(kinds(finding), [kind], "{words}");
        assert_eq!(finding.signs[0].words, words);
        assert_eq!(finding.signs[0].rank, SLOW);
        let in_summary = finding.summary.ends_with(&format!("; GPU: {words}"));
        assert_eq!(in_summary, kind.slows_computing(), "{}", finding.summary);
        let line = format!("GPU of rank {SLOW}: {words}");
        assert!(finding.evidence.contains(&line), "{:?}", finding.evidence);
        assert!(analysis.verdict.contains(&finding.summary));
    };
    let capped = [(Gauge::ClockReasons, 4), (Gauge::PowerLimit, 600_000)];
    let words = "power-capped at 600 W (its peers at 700 W)";
    check(0.0, &capped, ClocksHeldBack, words);
    let hot = [(Gauge::ClockReasons, 0x48)];
    check(0.0, &hot, ClocksHeldBack, "hardware thermal slowdown");
    let low = [(Gauge::SmClock, 1200)];
    check(
        0.0,
        &low,
        LowClock,
        "SM clock 1200 of 1980 MHz (its peers' 1755 MHz)",
    );
    check(0.0, &[(Gauge::PcieWidth, 8)], Pcie, "PCIe x8 of x16");
    check(
        0.0,
        &[(Gauge::PcieGeneration, 3)],
        Pcie,
        "PCIe generation 3 of 5",
    );
    check(
        2.0,
        &[(Gauge::PcieReplays, 12)],
        PcieReplays,
        "12 PCIe packets sent again",
    );
    check(
        0.0,
        &[(Gauge::RemapPending, 1)],
        RowRemap,
        "row remap pending",
    );
    let errors = [(Gauge::EccUncorrected, 2)];
    check(2.0, &errors, MemoryErrors, "2 uncorrected errors of memory");
    let fallen = [(Gauge::XidEvents, 1), (Gauge::Xid, 94)];
    check(2.0, &fallen, Xid, "Xid 94");
    check(
        2.0,
        &[(Gauge::NvlinksUp, 17)],
        Nvlink,
        "17 of 18 NVLinks up",
    );
    let ports = [(Gauge::PortsErrors, 24)];
    check(2.0, &ports, Ports, "17 errors on its network ports");
    let rate = [(Gauge::PortsRate, 25_000_000_000)];
    check(
        0.0,
        &rate,
        Ports,
        "network ports at 200 Gb/s (its peers' at 800)",
    );
}

#[test]
fn what_peers_show_alike_explains_nothing() {
    let check = |gauge: Gauge, value: i64| {
        let analysis = with(&slow_job(), |_, at, mut state| {
            if at >= 2.0 || !matches!(gauge, Gauge::PcieReplays | Gauge::PortsErrors) {
                state.set(gauge, Some(value));
            }
            Some(state)
        });
        assert_eq!(kinds(finding(&analysis)), [], "{gauge:?}");
    };
    check(Gauge::ClockReasons, 4);
    check(Gauge::SmClock, 1200);
    check(Gauge::PcieWidth, 8);
    check(Gauge::PcieReplays, 12);
    check(Gauge::RemapPending, 1);
    check(Gauge::XidEvents, 1);
    check(Gauge::PortsErrors, 24);
}

#[test]
fn nobody_is_blamed_for_signs_alone() {
    let job = KnownJob::clean(RANKS, 2, LENGTH, 5);
    let analysis = with(&job, |rank, _, mut state| {
        if rank == SLOW {
            state.set(Gauge::ClockReasons, Some(4));
            state.set(Gauge::PowerLimit, Some(600_000));
            state.set(Gauge::XidEvents, Some(3));
        }
        Some(state)
    });
    assert_eq!(names(&analysis), []);
    assert!(
        !analysis
            .caveats
            .iter()
            .any(|it| it.code == CaveatCode::NotVisible)
    );
}

#[test]
fn signs_count_while_the_rank_is_slow() {
    let mut job = slow_job();
    job.from_step = LENGTH / 2;
    // Where the steps of the second half begin, and where the last ends: until then half of them
    // are slow.
    let clean = with(&KnownJob::clean(RANKS, 2, LENGTH, 5), |_, _, state| {
        Some(state)
    });
    let middle_s = f64::from(LENGTH / 2) * clean.step_time.median;
    let slow_s = with(&slow_job(), |_, _, state| Some(state))
        .step_time
        .median;
    let end_s = middle_s + f64::from(LENGTH / 2) * slow_s;
    assert!(end_s + 1.0 < f64::from(SECONDS));
    let check = |gauge: Gauge, value: i64, kind: SignKind| {
        let shown = |is_odd: &dyn Fn(f64) -> bool| {
            let analysis = with(&job, |rank, at, mut state| {
                if rank == SLOW && is_odd(at) {
                    state.set(gauge, Some(value));
                }
                Some(state)
            });
            kinds(finding(&analysis))
        };
        assert_eq!(shown(&|at| middle_s <= at && at <= end_s), [kind]);
        // Neither before it was slow nor after the last step.
        assert_eq!(
            shown(&|at| at < middle_s - 0.2 || at > end_s),
            [],
            "{gauge:?}"
        );
    };
    check(Gauge::ClockReasons, 0x20, SignKind::ClocksHeldBack);
    check(Gauge::PcieWidth, 8, SignKind::Pcie);
    check(Gauge::NvlinksUp, 17, SignKind::Nvlink);
    // A counter counts from what it showed before.
    let grew = |from_s: f64| {
        let analysis = with(&job, |rank, at, mut state| {
            if rank == SLOW && at >= from_s {
                state.set(Gauge::PcieReplays, Some(12));
            }
            Some(state)
        });
        kinds(finding(&analysis))
    };
    assert_eq!(grew(middle_s), [SignKind::PcieReplays]);
    assert_eq!(grew(middle_s - 0.2), []);
    assert_eq!(grew(end_s + 0.1), []);
}

#[test]
fn what_is_not_visible_is_said_and_is_neither_good_nor_bad() {
    let told = |analysis: &Analysis| -> Vec<String> {
        let caveats = analysis.caveats.iter();
        let dark = caveats.filter(|it| it.code == CaveatCode::NotVisible);
        dark.map(|it| it.message.clone()).collect()
    };
    let dark = with(&slow_job(), |rank, _, state| {
        (rank != SLOW).then_some(state)
    });
    assert_eq!(kinds(finding(&dark)), []);
    let expect = "the state of the GPUs of rank 3 was not visible; whether heat, power or errors \
                  slow them is not known";
    assert_eq!(told(&dark), [expect]);
    let part = with(&slow_job(), |_, _, mut state| {
        state.set(Gauge::ClockReasons, None);
        state.set(Gauge::Temperature, None);
        Some(state)
    });
    assert_eq!(kinds(finding(&part)), []);
    let expect = "not visible of the GPU of rank 3: what slows its clocks, its temperature; that \
                  says nothing of it";
    assert_eq!(told(&part), [expect]);
    let all = with(&slow_job(), |_, _, state| Some(state));
    finding(&all);
    assert_eq!(told(&all), [""; 0]);
}

#[test]
fn peers_that_tell_nothing_leave_the_bit_and_the_datasheet() {
    let alone = |values: &[(Gauge, i64)]| {
        let analysis = with(&slow_job(), |rank, _, mut state| {
            values
                .iter()
                .for_each(|(gauge, value)| state.set(*gauge, Some(*value)));
            (rank == SLOW).then_some(state)
        });
        let signs = finding(&analysis).signs.clone();
        signs.into_iter().map(|sign| sign.words).collect::<Vec<_>>()
    };
    assert_eq!(alone(&[]), [""; 0]);
    let capped = alone(&[(Gauge::ClockReasons, 4)]);
    assert_eq!(
        capped,
        ["power-capped at 700 W", "SM clock 1755 of 1980 MHz"]
    );
    assert_eq!(alone(&[(Gauge::PcieWidth, 8)]), ["PCIe x8 of x16"]);
}

#[test]
fn no_verdict_on_a_gpu_that_is_not_steady() {
    let check = |gauge: Gauge, value: &dyn Fn(f64) -> i64, expect: &str| {
        let analysis = with(&slow_job(), |rank, at, mut state| {
            if rank == SLOW {
                state.set(gauge, Some(value(at)));
            }
            Some(state)
        });
        let [finding] = &analysis.findings[..] else {
            panic!("{:?}", analysis.findings);
        };
        assert_eq!(finding.confidence, Confidence::Inconclusive);
        assert_eq!(finding.culprit, Culprit::Nobody);
        assert!(
            finding.summary.contains("its GPU was not steady"),
            "{}",
            finding.summary
        );
        assert!(finding.summary.contains(expect), "{}", finding.summary);
        assert!(finding.advice.contains("--soak"), "{}", finding.advice);
        let caveats = &analysis.caveats;
        assert!(caveats.iter().any(|it| it.code == CaveatCode::NotSteady));
    };
    check(
        Gauge::Temperature,
        &|at| 40 + (8.0 * at) as i64,
        "its temperature went from",
    );
    check(
        Gauge::SmClock,
        &|at| 1980 - (60.0 * at) as i64,
        "its clock went from",
    );
    // Only the slow rank's matters.
    let others = with(&slow_job(), |rank, at, mut state| {
        if rank != SLOW {
            state.set(Gauge::Temperature, Some(40 + (8.0 * at) as i64));
        }
        Some(state)
    });
    finding(&others);
}

#[test]
fn few_readings_keep_the_rank_and_its_signs() {
    let analysis = with(&slow_job(), |rank, at, mut state| {
        if rank == SLOW {
            state.set(Gauge::ClockReasons, Some(0x40));
        }
        (at < 0.35 || rank != SLOW).then_some(state)
    });
    assert_eq!(kinds(finding(&analysis)), [SignKind::ClocksHeldBack]);
    let expect = "the GPU of rank 3 may not have been steady: its clock was read 3 times while \
                  steps were measured, too few to tell; run more --steps";
    let caveats = &analysis.caveats;
    assert!(caveats.iter().any(|it| it.message == expect), "{caveats:?}");
    let advice = &analysis.findings[0].advice;
    assert!(!advice.contains("--soak"), "{advice}");
}

#[test]
fn what_nearly_all_of_a_slow_host_show_counts() {
    let mut job = KnownJob::clean(RANKS, 4, LENGTH, 5);
    job.host_excess[1] = 0.2;
    let analysis = with(&job, |rank, _, mut state| {
        match rank {
            4..7 => state.set(Gauge::ClockReasons, Some(0x40)),
            7 => {
                state.set(Gauge::XidEvents, Some(1));
                state.set(Gauge::Xid, Some(94));
                state.set(Gauge::NvlinksUp, Some(17));
            }
            _ => {}
        }
        Some(state)
    });
    assert_eq!(names(&analysis), [(Cause::SlowNode, Culprit::Host(1))]);
    let signs = &analysis.findings[0].signs;
    let signs: Vec<_> = signs.iter().map(|it| (it.rank, it.kind)).collect();
    assert_eq!(signs, [(4, SignKind::ClocksHeldBack)]);
}
