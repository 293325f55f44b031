//! Doubts about data and results.

use crate::causes::Evidence;
use crate::intake::Measurements;
use crate::per_step::Alone;
use crate::subject::came_about;
use crate::{Cause, Confidence, Culprit, Finding, Level};
use laggard_record::{Emulation, Manifest, TimeBasis};
use laggard_types::{Caveat, CaveatCode};

/// Steps that intervals and tests need.
const ENOUGH_STEPS: usize = 30;
/// Largest share of the step time that the replay may miss.
const REPLAY_ERROR: f64 = 0.05;
/// Share of the processors that others may use before the run counts as contended.
const CONTENDED: f64 = 0.1;

/// What is doubtful of the samples.
pub(crate) fn add_of_data(measured: &Measurements, caveats: &mut Vec<Caveat>) {
    let mut add = |code, message: String| caveats.push(Caveat::new(code, message));
    if measured.incomplete > 0 {
        let text = format!(
            "{} steps with missing samples were left out",
            measured.incomplete
        );
        add(CaveatCode::MissingSamples, text);
    }
    if measured.duplicates > 0 {
        let text = format!(
            "{} samples came twice; the first was used",
            measured.duplicates
        );
        add(CaveatCode::DroppedSamples, text);
    }
    caveats.extend(of_few_steps(measured.steps()));
}

/// Whether there are too few steps.
pub(crate) fn of_few_steps(steps: usize) -> Option<Caveat> {
    let text = || format!("only {steps} steps: intervals and tests need {ENOUGH_STEPS}");
    (steps < ENOUGH_STEPS).then(|| Caveat::new(CaveatCode::TooFewSteps, text()))
}

/// Doubts that stand against the findings.
pub(crate) fn against_findings(evidence: &Evidence<'_>) -> Vec<Caveat> {
    let mut list = Vec::new();
    let rest = evidence.loss(Level::Rest).value;
    if rest.abs() > REPLAY_ERROR {
        list.push(Caveat::new(
            CaveatCode::ReplayError,
            format!(
                "replaying the schedule misses {:.1} % of the step time",
                100.0 * rest
            ),
        ));
    }
    if let Some(contention) = evidence.contention {
        let taken = contention.overall + contention.steal;
        if taken > CONTENDED {
            list.push(Caveat::new(
                CaveatCode::OutsideContention,
                format!(
                    "other work took {:.0} % of the processors' time (of that {:.0} points by the \
                     hypervisor)",
                    100.0 * taken,
                    100.0 * contention.steal
                ),
            ));
        }
    }
    list
}

/// Findings that name somebody do not stand against doubts about the data themselves. Work from
/// outside is such a doubt only where it can explain the finding: where the ranks named were off
/// their processors longer than the others by at least half of what they are named for.
pub(crate) fn withhold(found: &mut [Finding], caveats: &[Caveat], evidence: &Evidence<'_>) {
    let Some(doubt) = caveats.first() else { return };
    let kept_off = kept_off(evidence);
    for finding in found.iter_mut().filter(|f| f.culprit != Culprit::Nobody) {
        let ranks = evidence.ranks_of(&finding.culprit);
        let size = finding
            .excess
            .map_or(finding.loss.value, |excess| excess.value);
        // Accelerators compute without processors, whoever uses them.
        let is_elsewhere = finding.cause.is_slow_device() && evidence.is_on_accelerators(&ranks);
        let innocent = |rank: &usize| {
            let off = kept_off.get(*rank).copied().flatten();
            off.map_or(is_elsewhere, |off| off < size / 2.0)
        };
        let outside = doubt.code == CaveatCode::OutsideContention;
        let is_innocent = !ranks.is_empty() && ranks.iter().all(innocent);
        if finding.cause == Cause::OutsideContention || (outside && is_innocent) {
            continue;
        }
        finding.confidence = Confidence::Inconclusive;
        finding.culprit = Culprit::Nobody;
        finding.summary = format!("{}; but {}", finding.summary, doubt.message);
    }
}

/// How much longer each rank was kept off its processor than the one that was least: by its
/// threads' own clock, or where that does not tell by what others used of its processor.
fn kept_off(evidence: &Evidence<'_>) -> Vec<Option<f64>> {
    let shares = evidence.inputs.measured.descheduled_shares();
    let shares: Vec<Option<f64>> = match evidence.contention {
        Some(contention) if shares.is_empty() => contention.of_rank.clone(),
        _ => shares.into_iter().map(Some).collect(),
    };
    let lowest = shares.iter().flatten().copied().fold(1.0, f64::min);
    let beyond = |share: Option<f64>| share.map(|share| share - lowest);
    shares.into_iter().map(beyond).collect()
}

/// What a reader must know of how figures came about.
pub(crate) fn of_basis(evidence: &Evidence<'_>) -> Vec<Caveat> {
    let mut list = Vec::new();
    if let Alone::Replay { ranks } = Alone::of(evidence.inputs)
        && ranks < evidence.ranks()
    {
        let text = format!(
            "replaying every rank by itself would take too long: blame is exact for the {ranks} \
             ranks that cost most at a time, and rests on lower bounds for the others"
        );
        list.push(Caveat::new(CaveatCode::Bound, text));
    }
    list.extend(of_manifest(evidence.manifest));
    list
}

/// What a reader must know of what was run.
pub(crate) fn of_manifest(manifest: &Manifest) -> Vec<Caveat> {
    let mut list = Vec::new();
    if manifest.clock.basis == TimeBasis::Virtual {
        list.push(Caveat::new(
            CaveatCode::VirtualClock,
            "more ranks than processors: times are virtual, from each thread's CPU time replayed \
             with collectives as meeting points",
        ));
    }
    if manifest.workload.synthetic {
        list.push(Caveat::new(
            CaveatCode::SyntheticJob,
            format!(
                "a synthetic step was {}: its utilisation is not your job's",
                came_about(&manifest.origin)
            ),
        ));
    }
    list.extend(emulated(manifest));
    list
}

/// Classes that are no hardware.
pub(crate) fn emulated(manifest: &Manifest) -> impl Iterator<Item = Caveat> {
    let classes = manifest.classes.iter().filter(|class| class.emulated);
    classes.map(|class| {
        let how = match class.emulated_by {
            None | Some(Emulation::ExtraArithmetic) => {
                let times = 1.0 / class.relative_rate;
                format!("each of its ranks does {times:.2} times the arithmetic")
            }
            Some(confined) => format!("each of its ranks is confined to a {confined}"),
        };
        let message = format!("class {} is emulated: {how}", class.name);
        Caveat::new(CaveatCode::EmulatedClass, message)
    })
}
