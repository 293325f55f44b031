//! Jobs whose laws are known: every term of the waterfall, the blame and the verdict against the
//! truth.

mod contention;
mod devices;
mod fleet;
mod layouts;
mod set_up;

use laggard_analyze::{Analysis, Cause, Culprit, Level, Options, analyze};
use laggard_benches::known_job::{KnownJob, Truth};
use laggard_record::{Record, RecordError};
use std::path::Path;

fn run(job: &KnownJob) -> Analysis {
    analyzed(|path| job.write(path))
}

fn analyzed(write: impl FnOnce(&Path) -> Result<(), RecordError>) -> Analysis {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("record");
    write(&path).expect("a record");
    let record = Record::open(&path).expect("a readable record");
    analyze(&record, &Options::default()).expect("an analysis")
}

/// What holds for every analysis whatsoever.
fn check_sums(name: &str, analysis: &Analysis) {
    let sum: f64 = analysis.waterfall.iter().map(|term| term.share.value).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{name}: waterfall sums to {sum}");
    let blame: f64 = analysis.blame.iter().map(|entry| entry.share).sum();
    assert!(
        (blame - analysis.loss).abs() < 1e-9,
        "{name}: {blame} against {}",
        analysis.loss
    );
    let exposed: f64 = analysis
        .exposed_communication
        .iter()
        .map(|axis| axis.share.value)
        .sum();
    let term = share(analysis, Level::ExposedCommunication).value;
    assert!(
        (exposed - term).abs() < 1e-9,
        "{name}: {exposed} against {term}"
    );
    let rest = share(analysis, Level::Rest).value;
    assert!(rest.abs() < 0.02, "{name}: rest {rest}");
    for term in &analysis.waterfall {
        assert!(
            term.share.value.is_finite() && term.share.low <= term.share.high,
            "{name}"
        );
    }
}

fn share(analysis: &Analysis, level: Level) -> laggard_analyze::Estimate {
    let term = analysis.waterfall.iter().find(|term| term.level == level);
    term.map(|term| term.share).expect("every level is there")
}

fn by_level(truth: &Truth) -> [(Level, f64); 11] {
    [
        (Level::UnevenWork, truth.uneven_work),
        (Level::HostPauses, truth.host_pauses),
        (Level::Transient, truth.transient),
        (Level::Rank, truth.rank),
        (Level::Node, truth.node),
        (Level::Generation, truth.generation),
        (Level::ExposedCommunication, truth.exposed),
        (Level::Host, truth.host),
        (Level::Optimizer, truth.optimizer),
        (Level::KernelEfficiency, truth.kernels),
        (Level::Utilisation, truth.utilisation),
    ]
}

/// One job under several seeds: names what it must, and covers the truth as often as 95 % intervals
/// do.
fn check(name: &str, job: &dyn Fn(u64) -> KnownJob, expect: Option<(Cause, Culprit)>) {
    const SEEDS: u64 = 12;
    // 12 intervals of 95 % hold their truth 9 times or more with probability 0.998.
    const COVERED: usize = 9;
    let truth = job(0).truth();
    let mut covered = [0; 11];
    let mut named = 0;
    for seed in 0..SEEDS {
        let analysis = run(&job(seed));
        check_sums(name, &analysis);
        for (count, (level, truth)) in covered.iter_mut().zip(by_level(&truth)) {
            let estimate = share(&analysis, level);
            // The truth itself comes from 200,000 draws: two of its standard errors.
            let slack = 5e-5;
            *count += usize::from(estimate.low - slack <= truth && truth <= estimate.high + slack);
        }
        match &expect {
            Some((cause, culprit)) => {
                let hit = analysis.findings.first();
                named += u64::from(hit.is_some_and(|f| f.cause == *cause && f.culprit == *culprit));
            }
            None => {
                let nobody = |f: &laggard_analyze::Finding| f.culprit == Culprit::Nobody;
                named += u64::from(analysis.findings.iter().all(nobody));
            }
        }
    }
    for (count, (level, truth)) in covered.iter().zip(by_level(&truth)) {
        assert!(
            *count >= COVERED,
            "{name}: {level:?} = {truth} is in {count} of {SEEDS} intervals"
        );
    }
    assert_eq!(named, SEEDS, "{name}: named as expected");
}

#[test]
fn a_clean_job_names_nobody() {
    check("clean", &|seed| KnownJob::clean(8, 2, 400, seed), None);
}

#[test]
fn a_slow_rank() {
    let job = |seed| {
        let mut job = KnownJob::clean(8, 2, 400, seed);
        job.rank_excess[3] = 0.15;
        job
    };
    check("slow rank", &job, Some((Cause::SlowRank, Culprit::Rank(3))));
}

#[test]
fn a_slow_host() {
    let job = |seed| {
        let mut job = KnownJob::clean(12, 4, 400, seed);
        job.host_excess[1] = 0.12;
        job
    };
    check("slow host", &job, Some((Cause::SlowNode, Culprit::Host(1))));
}

#[test]
fn mixed_generations_are_nobodys_fault() {
    let job = |seed| {
        let mut job = KnownJob::clean(8, 2, 400, seed);
        job.rate = vec![0.45, 0.45, 0.45, 0.45, 0.5, 0.5, 1.0, 1.0];
        job
    };
    check(
        "mixed",
        &job,
        Some((Cause::MixedGenerations, Culprit::Nobody)),
    );
}

#[test]
fn jitter_of_one_rank() {
    let job = |seed| {
        let mut job = KnownJob::clean(8, 2, 400, seed);
        job.jitter[5] = 0.15;
        job
    };
    check("jitter", &job, Some((Cause::StepJitter, Culprit::Rank(5))));
}

#[test]
fn jitter_of_all_ranks() {
    let job = |seed| KnownJob {
        jitter: vec![0.08; 8],
        ..KnownJob::clean(8, 2, 400, seed)
    };
    check(
        "jitter of all",
        &job,
        Some((Cause::StepJitter, Culprit::Nobody)),
    );
}

#[test]
fn pauses_of_one_host() {
    let job = |seed| {
        let mut job = KnownJob::clean(8, 2, 400, seed);
        job.pause_probability[2] = 0.05;
        job
    };
    check("pauses", &job, Some((Cause::HostPauses, Culprit::Rank(2))));
}

#[test]
fn sequences_of_different_lengths() {
    let job = |seed| KnownJob {
        ragged: 0.2,
        ..KnownJob::clean(8, 2, 400, seed)
    };
    check(
        "ragged",
        &job,
        Some((Cause::SequenceLengths, Culprit::Nobody)),
    );
}

#[test]
fn a_rank_slow_in_backward_only_is_named_and_not_its_victims() {
    let job = |seed| {
        let mut job = KnownJob::clean(4, 4, 400, seed);
        job.backward_excess[1] = 0.2;
        job
    };
    check(
        "backward",
        &job,
        Some((Cause::SlowBackward, Culprit::Rank(1))),
    );
}

#[test]
fn the_onset_of_a_change_is_found() {
    let mut job = KnownJob::clean(8, 2, 400, 7);
    job.rank_excess[6] = 0.2;
    job.from_step = 250;
    let analysis = run(&job);
    check_sums("onset", &analysis);
    let finding = analysis.findings.first().expect("a finding");
    assert_eq!(
        (finding.cause, &finding.culprit),
        (Cause::SlowRank, &Culprit::Rank(6))
    );
    let onset = finding.onset.expect("an onset");
    assert!((248..=252).contains(&onset.step), "{onset:?}");
    assert!(onset.earliest <= 250 && 250 <= onset.latest, "{onset:?}");
}

#[test]
fn the_same_record_gives_the_same_analysis() {
    let job = KnownJob::clean(4, 2, 120, 3);
    assert_eq!(run(&job), run(&job));
}

/// A job whose manifest is changed before it is read.
fn run_with(job: &KnownJob, change: impl Fn(&mut serde_json::Value)) -> Analysis {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("record");
    job.write(&path).expect("a record");
    let file = path.join("manifest.json");
    let text = std::fs::read(&file).expect("a manifest");
    let mut manifest = serde_json::from_slice(&text).expect("JSON");
    change(&mut manifest);
    std::fs::write(&file, manifest.to_string()).expect("a manifest");
    let record = Record::open(&path).expect("a readable record");
    analyze(&record, &Options::default()).expect("an analysis")
}

fn names(analysis: &Analysis) -> Vec<(Cause, Culprit)> {
    let findings = analysis.findings.iter();
    findings.map(|it| (it.cause, it.culprit.clone())).collect()
}

#[test]
fn what_holds_a_rank_back_is_named_instead_of_its_hardware() {
    let mut job = KnownJob::clean(4, 2, 200, 3);
    job.rank_excess[2] = 0.3;
    let check = |field: &str, of_rank: serde_json::Value, of_others: serde_json::Value, expect| {
        let analysis = run_with(&job, |manifest| {
            for rank in 0..4 {
                let value = if rank == 2 { &of_rank } else { &of_others };
                manifest["ranks"][rank][field] = value.clone();
            }
        });
        assert_eq!(names(&analysis), [(expect, Culprit::Rank(2))], "{field}");
    };
    check(
        "cpu_quota",
        0.5.into(),
        serde_json::Value::Null,
        Cause::CpuQuota,
    );
    // The same for all is no reason for one to be slow.
    check("cpu_quota", 0.5.into(), 0.5.into(), Cause::SlowRank);
    let (one, four) = (serde_json::json!([2]), serde_json::json!([0, 1, 2, 3]));
    check("allowed_cpus", one.clone(), four.clone(), Cause::Binding);
    check("allowed_cpus", four.clone(), four, Cause::SlowRank);
}

#[test]
fn pauses_are_named_beside_a_rank_that_is_held_back() {
    let mut job = KnownJob::clean(4, 2, 400, 3);
    job.rank_excess[2] = 0.3;
    job.pause_probability[1] = 0.05;
    let analysis = run_with(&job, |manifest| {
        manifest["ranks"][2]["cpu_quota"] = 0.5.into();
    });
    let mut names = names(&analysis);
    names.sort_by_key(|(_, culprit)| format!("{culprit:?}"));
    assert_eq!(
        names,
        [
            (Cause::HostPauses, Culprit::Rank(1)),
            (Cause::CpuQuota, Culprit::Rank(2))
        ]
    );
}

#[test]
fn a_host_with_slow_links_is_named_as_communication() {
    let job = KnownJob::clean(8, 2, 200, 4);
    let with_links = |slow: Option<u32>| {
        run_with(&job, |manifest| {
            let links = (0..4).flat_map(|a| (a + 1..4).map(move |b| (a, b)));
            let link = |(a, b)| {
                let is_slow = slow.is_some_and(|slow| slow == a || slow == b);
                serde_json::json!({
                    "from_host": a, "to_host": b, "latency_ns": 20_000, "bytes": 1 << 20,
                    "bandwidth_bytes_per_s": if is_slow { 1.2e7 } else { 1.5e9 },
                })
            };
            manifest["links"] = links.map(link).collect();
        })
    };
    assert_eq!(names(&with_links(None)), []);
    assert_eq!(
        names(&with_links(Some(2))),
        [(Cause::SlowLink, Culprit::Host(2))]
    );
}
