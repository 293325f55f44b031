//! One run: made, recorded, analysed and compared with what is true of it.

use crate::busy::Busy;
use crate::kind::{Effect, Plan};
use anyhow::{Context, Result, ensure};
use laggard_analyze::{Analysis, Cause, Confidence, Culprit, Finding, Options, analyze};
use laggard_benches::{Twin, spreads};
use laggard_measure::{Hooks, Settings, run_in_turns};
use laggard_record::Record;
use laggard_specs::Tables;
use laggard_types::CaveatCode;
use std::fmt::Write as _;
use std::time::Instant;

/// Ranks without a busy neighbour that are away from their processors for more of their time leave
/// open what is true: other work than that of the neighbour is going on.
const MOST_AWAY: f64 = 0.05;

/// Steps that a found onset may be off, unless its own interval has the true step.
const ONSET_SLACK: u32 = 5;

/// What came of one run.
pub(crate) struct Outcome {
    pub plan: Plan,
    pub analysis: Analysis,
    pub verdict: Verdict,
    pub twin: Twin,
    pub seconds: f64,
}

/// How the findings compare with the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// What must be found was not.
    Missed,
    /// It was found, but its onset is wrong.
    WrongOnset,
    /// Somebody is named who has done nothing.
    WrongCulprit,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Missed => "missed",
            Self::WrongOnset => "wrong onset",
            Self::WrongCulprit => "wrong culprit",
        }
    }
}

impl Outcome {
    /// Makes the run and its twin in a temporary folder.
    pub(crate) fn of(plan: Plan, tables: &Tables) -> Result<Self> {
        let begin = Instant::now();
        let dir = tempfile::tempdir().context("no directory for the records")?;
        let (model, ranks) = (plan.world.model(tables)?, plan.world.ranks()?);
        let mut clean = Settings::new(model, ranks, dir.path().join("twin"));
        clean.layout = plan.world.layout()?;
        clean.steps = plan.world.steps();
        clean.micro_batch_sequences = plan.world.sequences();
        clean.seed = plan.seed;
        clean.emulate_hosts = plan.world.hosts;
        let settings = Settings {
            record: dir.path().join("record"),
            faults: plan.faults.clone(),
            classes: plan.classes.clone(),
            ..clean.clone()
        };
        let hooks = Hooks {
            stop: &|| None,
            flush: &|| false,
            progress: &|_| (),
        };
        let busy = plan.busy_neighbour_of.map(Busy::beside).transpose()?;
        let made = run_in_turns(&[settings.clone(), clean.clone()], &hooks);
        made.with_context(|| format!("the run `{}`", plan.spec))?;
        drop(busy);
        let record = Record::open(&settings.record)?;
        let truth = record.injected_faults().len();
        ensure!(truth == plan.faults.len(), "{truth} faults in the record");
        let analysis = analyze(&record, &Options::default())
            .with_context(|| format!("the analysis of `{}`", plan.spec))?;
        let verdict = judge(&plan, &analysis.findings);
        let twin = analyze(&Record::open(&clean.record)?, &Options::default());
        Ok(Self {
            plan,
            analysis,
            verdict,
            twin: Twin::of(&twin.context("the analysis of the twin")?),
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    pub(crate) fn is_right(&self) -> bool {
        self.verdict == Verdict::Right
    }

    /// Relative effect, where a pause is related to the given length of a step.
    pub(crate) fn effect(&self, step_s: f64) -> f64 {
        match self.plan.effect {
            Effect::Relative(share) => share,
            Effect::Milliseconds(ms) => ms * 1e-3 / step_s,
        }
    }

    /// Whether telemetry saw other processes on the processors: known without any finding, so that
    /// a false finding of contention excuses nothing.
    fn is_contended(&self) -> bool {
        !self.contention().is_empty()
    }

    /// Whether the machine did more by itself than leaves the truth known: other processes, or
    /// processors that were not alike. A busy neighbour makes both; there, the other ranks must
    /// have kept their processors.
    pub(crate) fn is_disturbed(&self) -> bool {
        let Some(busy) = self.plan.busy_neighbour_of else {
            return self.is_contended() || self.twin.is_uneven();
        };
        let ranks = self.analysis.ranks.iter();
        let mut others = ranks.filter(|rank| rank.rank != busy);
        others.any(|rank| rank.descheduled_share.is_some_and(|away| away > MOST_AWAY))
    }

    /// Whether an innocent is suspected, though not called guilty.
    pub(crate) fn has_suspect(&self) -> bool {
        let names = |finding: &Finding| finding.culprit != Culprit::Nobody;
        self.analysis.findings.iter().any(names)
    }

    pub(crate) const HEADER: &'static str = "kind,layouts,world,ranks,basis,spec,seed,effect,\
        expected,found,right,verdict,seconds,step_ms,excess_by_rank,spread_by_rank,\
        descheduled_by_rank,losses,contention,twin_apart,twin_spread,disturbed";

    /// The row of the table; `step_s` is the length of an undisturbed step of this world.
    pub(crate) fn csv_row(&self, step_s: f64) -> String {
        let (plan, analysis) = (&self.plan, &self.analysis);
        let cells = [
            plan.kind.to_owned(),
            plan.world.group.to_owned(),
            plan.world.name(),
            analysis.subject.ranks.to_string(),
            analysis.subject.time_basis.clone(),
            plan.spec.clone(),
            plan.seed.to_string(),
            format!("{:.4}", self.effect(step_s)),
            self.expected(),
            self.found(),
            self.is_right().to_string(),
            self.verdict.name().to_owned(),
            format!("{:.2}", self.seconds),
            format!("{:.3}", 1e3 * analysis.step_time.median),
            self.excess_by_rank(),
            self.spread_by_rank(),
            self.descheduled_by_rank(),
            self.losses(),
            self.contention(),
            format!("{:.4}", self.twin.apart),
            format!("{:.4}", self.twin.spread),
            self.is_disturbed().to_string(),
        ];
        let quoted = cells.map(|cell| format!("\"{}\"", cell.replace('"', "'")));
        quoted.join(",")
    }

    /// Everything that the analysis said and measured, for people who tune it.
    pub(crate) fn detail(&self) -> String {
        let mut text = format!(
            "{} [{}] {} {} `{}` seed {}\n  expected {}\n  excess by rank {}\n  \
             spread by rank {}\n  losses {}\n",
            self.verdict.name(),
            self.plan.kind,
            self.plan.world.name(),
            self.analysis.subject.time_basis,
            self.plan.spec,
            self.plan.seed,
            self.expected(),
            self.excess_by_rank(),
            self.spread_by_rank(),
            self.losses(),
        );
        let descheduled = self.descheduled_by_rank();
        if !descheduled.is_empty() {
            _ = writeln!(text, "  descheduled by rank {descheduled}");
        }
        for test in &self.analysis.null_tests {
            let (p, null) = (test.p_value, test.null_mean);
            let observed = test.observed;
            _ = writeln!(
                text,
                "  {}: {observed:.4}, null {null:.4}, p {p:.4}",
                test.level.name()
            );
        }
        if !self.contention().is_empty() {
            _ = writeln!(text, "  contention: {}", self.contention());
        }
        let (apart, spread) = (1e2 * self.twin.apart, 1e2 * self.twin.spread);
        let disturbed = if self.is_disturbed() {
            ": DISTURBED"
        } else {
            ""
        };
        _ = writeln!(
            text,
            "  twin: ranks {apart:.1} % apart, spread {spread:.1} %{disturbed}"
        );
        for finding in &self.analysis.findings {
            _ = writeln!(text, "  found {}", named(finding));
            _ = writeln!(text, "    {}", finding.summary);
            for line in &finding.evidence {
                _ = writeln!(text, "    {line}");
            }
        }
        text
    }

    fn expected(&self) -> String {
        let name = |(cause, culprit): &(Cause, Culprit)| format!("{cause:?}/{culprit:?}");
        joined(self.plan.expected.iter().map(name))
    }

    fn found(&self) -> String {
        joined(self.analysis.findings.iter().map(named))
    }

    fn excess_by_rank(&self) -> String {
        let ranks = self.analysis.ranks.iter();
        joined(ranks.map(|rank| format!("{:+.4}", rank.excess)))
    }

    fn spread_by_rank(&self) -> String {
        let spreads = spreads(&self.analysis.heat_map).into_iter();
        joined(spreads.map(|spread| format!("{spread:.4}")))
    }

    fn descheduled_by_rank(&self) -> String {
        let shares = self
            .analysis
            .ranks
            .iter()
            .filter_map(|rank| rank.descheduled_share);
        joined(shares.map(|share| format!("{share:.4}")))
    }

    /// Shares of wall time or capacity of the levels that stragglers cause.
    fn losses(&self) -> String {
        let terms = self.analysis.waterfall.iter();
        let straggling = terms.filter(|term| term.level.is_straggler());
        joined(straggling.map(|term| format!("{:?} {:.4}", term.level, term.share.value)))
    }

    fn contention(&self) -> String {
        let caveats = self.analysis.caveats.iter();
        let outside = caveats.filter(|caveat| caveat.code == CaveatCode::OutsideContention);
        joined(outside.map(|caveat| caveat.message.clone()))
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("; ")
}

fn named(finding: &Finding) -> String {
    let Finding {
        cause,
        culprit,
        confidence,
        loss,
        ..
    } = finding;
    let mut text = format!("{cause:?}/{culprit:?}/{confidence:?}/{:.4}", loss.value);
    if let Some(excess) = finding.excess {
        _ = write!(text, "/{:.4}", excess.value);
    }
    if let Some(onset) = finding.onset {
        let (step, earliest, latest) = (onset.step, onset.earliest, onset.latest);
        _ = write!(text, "/from {step} [{earliest} to {latest}]");
    }
    text
}

/// A run with a fault is right if the cause is found at the culprit and nobody else is named, be it
/// as a suspicion; a clean run is right if nobody is called guilty.
/// A head that makes the last stage longer is no fault, and may be said.
fn judge(plan: &Plan, findings: &[Finding]) -> Verdict {
    let is_head = |it: &Finding| it.cause == Cause::LastStage && plan.world.has_head();
    let names = |it: &Finding| it.culprit != Culprit::Nobody && !is_head(it);
    if plan.expected.is_empty() {
        let accuses = |it: &Finding| names(it) && it.confidence == Confidence::Shown;
        return match findings.iter().any(accuses) {
            true => Verdict::WrongCulprit,
            false => Verdict::Right,
        };
    }
    let innocent = |finding: &&Finding| {
        let is_guilty = |(_, culprit): &(Cause, Culprit)| *culprit == finding.culprit;
        names(finding) && !plan.expected.iter().any(is_guilty)
    };
    let mut found_all = true;
    let mut onset_fits = true;
    for (cause, culprit) in &plan.expected {
        let fits = |it: &&Finding| it.cause == *cause && it.culprit == *culprit;
        let found = findings.iter().find(fits);
        found_all &= found.is_some();
        if let (Some(found), Some(from)) = (found, plan.from_step) {
            onset_fits &= is_near(found, from);
        }
    }
    if findings.iter().any(|it| innocent(&it)) {
        Verdict::WrongCulprit
    } else if !found_all {
        Verdict::Missed
    } else if !onset_fits {
        Verdict::WrongOnset
    } else {
        Verdict::Right
    }
}

fn is_near(finding: &Finding, from: u32) -> bool {
    finding.onset.is_some_and(|onset| {
        onset.step.abs_diff(from) <= ONSET_SLACK || (onset.earliest..=onset.latest).contains(&from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::PLAIN;
    use laggard_analyze::{Estimate, Onset};

    fn plan(expected: &[(Cause, Culprit)], from_step: Option<u32>) -> Plan {
        Plan {
            expected: expected.to_vec(),
            from_step,
            ..Plan::clean(PLAIN, 0, 1).unwrap()
        }
    }

    fn found(cause: Cause, culprit: Culprit, confidence: Confidence) -> Finding {
        Finding {
            cause,
            culprit,
            confidence,
            loss: Estimate {
                value: 0.1,
                low: 0.0,
                high: 0.2,
            },
            excess: None,
            onset: None,
            signs: Vec::new(),
            summary: String::new(),
            evidence: Vec::new(),
            advice: String::new(),
        }
    }

    #[test]
    fn cause_and_culprit_must_both_fit_and_nobody_else_be_named() {
        use Cause::{SlowRank, StepJitter};
        use Confidence::{Inconclusive, Shown};
        use Culprit::{Nobody, Rank};
        let check = |expected: &[(Cause, Culprit)], given: &[_], verdict| {
            let findings: Vec<Finding> = given
                .iter()
                .map(
                    |(cause, culprit, confidence): &(Cause, Culprit, Confidence)| {
                        found(*cause, culprit.clone(), *confidence)
                    },
                )
                .collect();
            assert_eq!(
                judge(&plan(expected, None), &findings),
                verdict,
                "{given:?}"
            );
        };
        let slow = (SlowRank, Rank(1), Shown);
        let expected = [(SlowRank, Rank(1))];
        check(&expected, std::slice::from_ref(&slow), Verdict::Right);
        check(
            &expected,
            &[(SlowRank, Rank(1), Inconclusive)],
            Verdict::Right,
        );
        check(
            &expected,
            &[slow.clone(), (StepJitter, Nobody, Shown)],
            Verdict::Right,
        );
        check(&expected, &[], Verdict::Missed);
        check(&expected, &[(StepJitter, Rank(1), Shown)], Verdict::Missed);
        check(
            &expected,
            &[(SlowRank, Nobody, Inconclusive)],
            Verdict::Missed,
        );
        check(
            &expected,
            &[(SlowRank, Rank(0), Shown)],
            Verdict::WrongCulprit,
        );
        let other = (StepJitter, Rank(0), Inconclusive);
        check(
            &expected,
            &[slow.clone(), other.clone()],
            Verdict::WrongCulprit,
        );
        check(&[], &[], Verdict::Right);
        check(&[], &[(StepJitter, Nobody, Shown)], Verdict::Right);
        check(&[], &[other], Verdict::Right);
        check(&[], &[slow], Verdict::WrongCulprit);
    }

    #[test]
    fn an_onset_must_be_near_or_its_interval_right() {
        let check = |onset: Option<(u32, u32, u32)>, verdict| {
            let mut finding = found(Cause::SlowRank, Culprit::Rank(1), Confidence::Shown);
            finding.onset = onset.map(|(step, earliest, latest)| Onset {
                step,
                earliest,
                latest,
                ratio: 1.3,
            });
            let plan = plan(&[(Cause::SlowRank, Culprit::Rank(1))], Some(80));
            assert_eq!(judge(&plan, &[finding]), verdict, "{onset:?}");
        };
        check(Some((85, 84, 86)), Verdict::Right);
        check(Some((86, 85, 87)), Verdict::WrongOnset);
        check(Some((90, 80, 91)), Verdict::Right);
        check(None, Verdict::WrongOnset);
    }
}
