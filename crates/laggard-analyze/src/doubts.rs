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
    let shares = evidence.inputs.measured.descheduled_shares();
    let lowest = shares.iter().copied().fold(1.0, f64::min);
    let on_host = |rank: &u32| evidence.inputs.cells.host_of_rank[*rank as usize] as u32;
    for finding in found.iter_mut().filter(|f| f.culprit != Culprit::Nobody) {
        let ranks: Vec<u32> = match &finding.culprit {
            Culprit::Rank(rank) => vec![*rank],
            Culprit::Ranks(ranks) => ranks.clone(),
            Culprit::Host(host) => (0..evidence.ranks() as u32)
                .filter(|rank| on_host(rank) == *host)
                .collect(),
            Culprit::Stage(stage) => (0..evidence.ranks() as u32)
                .filter(|rank| evidence.inputs.cells.stage_of_rank[*rank as usize] == *stage)
                .collect(),
            Culprit::Nobody => Vec::new(),
        };
        let off = ranks
            .iter()
            .filter_map(|&rank| shares.get(rank as usize))
            .map(|s| s - lowest);
        let size = finding
            .excess
            .map_or(finding.loss.value, |excess| excess.value);
        let innocent =
            !ranks.is_empty() && !shares.is_empty() && off.fold(0.0, f64::max) < size / 2.0;
        let outside = doubt.code == CaveatCode::OutsideContention;
        if finding.cause == Cause::OutsideContention || (outside && innocent) {
            continue;
        }
        finding.confidence = Confidence::Inconclusive;
        finding.culprit = Culprit::Nobody;
        finding.summary = format!("{}; but {}", finding.summary, doubt.message);
    }
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
    for class in manifest.classes.iter().filter(|class| class.emulated) {
        let how = match class.emulated_by {
            None | Some(Emulation::ExtraArithmetic) => {
                let times = 1.0 / class.relative_rate;
                format!("each of its ranks does {times:.2} times the arithmetic")
            }
            Some(confined) => format!("each of its ranks is confined to a {confined}"),
        };
        let message = format!("class {} is emulated: {how}", class.name);
        list.push(Caveat::new(CaveatCode::EmulatedClass, message));
    }
    list
}
