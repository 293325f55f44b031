//! The analysis of a sketch: a record of a world too large to keep every sample. What steps and
//! ranks were summed up to is enough for the penalty, its split and who is to blame; what happens
//! within a step is not known here.

mod charges;
mod findings;
mod peers;
mod steps;
mod tables;

use crate::answer::{ANALYSIS_VERSION, Analyzed, verdict};
use crate::causes::Thresholds;
use crate::intake::FEWEST_STEPS;
use crate::interval::estimate;
use crate::subject::{Pace, subject};
use crate::utilisation::{Quoted, peak_sum, utilisation};
use crate::work::Work;
use crate::{Analysis, AnalyzeError, Estimate, HeatMap, Level, Options, WhatIf, doubts, figures};
use charges::Charges;
use laggard_record::{Manifest, Record, SketchBaseline, SketchRank, SketchStep};
use laggard_types::{Caveat, CaveatCode};
use peers::Peers;
use steps::Steps;

const SECONDS: f64 = 1e-9;

/// Everything that the figures of a sketch are made of.
pub(super) struct Sketch<'a> {
    manifest: &'a Manifest,
    steps: Steps,
    /// One entry for each rank, in order.
    ranks: Vec<SketchRank>,
    peers: Peers,
    charges: Charges,
    thresholds: Thresholds,
}

/// Analyses a record that is a sketch.
///
/// # Errors
/// If the tables cannot be read, lack ranks, or have too few steps.
pub(crate) fn analyze_sketch(
    record: &Record,
    baseline: &SketchBaseline,
    options: &Options,
) -> Result<Analyzed, AnalyzeError> {
    let mut caveats = record.caveats.clone();
    let rows = read_steps(record, &mut caveats)?;
    let ranks = read_ranks(record, &mut caveats)?;
    let steps = Steps::new(rows, baseline, options.seed)?;
    let peers = Peers::new(&record.manifest, &ranks);
    let sketch = Sketch {
        charges: Charges::new(&steps, &ranks, &peers),
        manifest: &record.manifest,
        steps,
        ranks,
        peers,
        thresholds: options.thresholds,
    };
    let mut analysis = sketch.assess();
    caveats.append(&mut analysis.caveats);
    analysis.caveats = caveats;
    Ok(Analyzed {
        analysis,
        step_times: sketch.steps.lengths(),
    })
}

/// The steps in order, each once.
fn read_steps(record: &Record, caveats: &mut Vec<Caveat>) -> Result<Vec<SketchStep>, AnalyzeError> {
    let read = record.sketch_steps()?;
    caveats.extend(read.caveats);
    let mut rows = read.rows;
    let count = rows.len();
    rows.sort_by_key(|row| row.step);
    rows.dedup_by_key(|row| row.step);
    if rows.len() < count {
        let text = format!(
            "{} steps came twice; the first was used",
            count - rows.len()
        );
        caveats.push(Caveat::new(CaveatCode::DroppedSamples, text));
    }
    if rows.len() < FEWEST_STEPS {
        return Err(AnalyzeError::TooFewSteps {
            complete: rows.len(),
            needed: FEWEST_STEPS,
        });
    }
    caveats.extend(doubts::of_few_steps(rows.len()));
    Ok(rows)
}

/// Every rank in order.
fn read_ranks(record: &Record, caveats: &mut Vec<Caveat>) -> Result<Vec<SketchRank>, AnalyzeError> {
    let read = record.sketch_ranks()?;
    caveats.extend(read.caveats);
    let mut rows = read.rows;
    rows.sort_by_key(|row| row.rank);
    rows.dedup_by_key(|row| row.rank);
    let ranks = record.manifest.ranks.len();
    if rows.len() == ranks {
        return Ok(rows);
    }
    let gap = rows.iter().zip(0..).find(|(row, rank)| row.rank != *rank);
    Err(AnalyzeError::MissingRanks {
        missing: ranks - rows.len(),
        ranks,
        first: gap.map_or(rows.len() as u32, |(_, rank)| rank),
    })
}

impl Sketch<'_> {
    fn assess(&self) -> Analysis {
        let steps = &self.steps;
        let classes = self.classes();
        let found = self.findings(&classes);
        let penalty = steps.estimate(|sums| 1.0 - sums.share(Level::EvenStep));
        let work = Work::nominal(self.manifest);
        let (mfu, share_of_measured_peak) = self.utilisations(&work);
        let listed = self.listed();
        let pace = Pace {
            steps: steps.count(),
            tokens_per_step: work.tokens,
            step_s: steps.mean_s(),
        };
        let mut analysis = Analysis {
            schema_version: ANALYSIS_VERSION,
            subject: subject(self.manifest, pace),
            step_time: figures::step_times(&steps.lengths(), steps.estimate(|sums| sums.mean_s())),
            mfu,
            share_of_measured_peak,
            penalty,
            slowdown: steps.estimate(|sums| 1.0 / sums.share(Level::EvenStep)),
            penalty_reference: match steps.knows_even_step {
                true => "work in proportion to the speed of classes, and nothing random",
                false => "every rank as fast as its class, and nothing random",
            }
            .to_owned(),
            waterfall: steps.waterfall(),
            exposed_communication: Vec::new(),
            what_if: WhatIf::default(),
            blame: self.blame(&listed),
            loss: penalty.value,
            null_tests: Vec::new(),
            verdict: verdict(&penalty, &found),
            findings: found,
            classes,
            ranks: self.rank_figures(&listed),
            heat_map: HeatMap {
                first_rank: Vec::new(),
                first_step: Vec::new(),
                excess: Vec::new(),
            },
            caveats: doubts::of_manifest(self.manifest),
        };
        analysis.caveats.extend(self.doubts(listed.len()));
        analysis
    }

    fn utilisations(&self, work: &Work) -> Quoted {
        match peak_sum(self.manifest) {
            Some(peaks) if work.flop > 0.0 => {
                let share = |sums: &steps::Sums| work.flop / (sums.mean_s() * peaks);
                utilisation(self.manifest, self.steps.estimate(share), work, peaks)
            }
            _ => (None, None),
        }
    }

    fn doubts(&self, listed: usize) -> Vec<Caveat> {
        let mut list = vec![
            "the record is a sketch, without the samples of operations: communication and bubbles \
             are not told apart, no what-if is replayed, and when a rank became slow is not known"
                .to_owned(),
            "own times of classes are drawn from a few quantiles of each rank; what ranks wait is \
             against the slowest mean of their stage, which is a lower bound"
                .to_owned(),
        ];
        if listed < self.ranks.len() {
            list.push(format!(
                "of {} ranks {listed} are listed: those charged with most, and some of the others; \
                 the record's table `sketch_ranks` has all",
                self.ranks.len()
            ));
        }
        let alone = self.peers.alone();
        if alone > 0 {
            list.push(format!(
                "{alone} ranks are alone in their class, stage and share of work: nobody says \
                 whether they are slow"
            ));
        }
        if !self.steps.knows_even_step {
            list.push(
                "the record's step of work in proportion to speed is longer than that of \
                 the classes as they are, which cannot be: what their mix costs is not known"
                    .to_owned(),
            );
        }
        let caveat = |text| Caveat::new(CaveatCode::IncompleteTrace, text);
        list.into_iter().map(caveat).collect()
    }

    /// Share of wall time that some ranks are charged. Its interval is that of the time that all
    /// others waited for them alone.
    fn cost(&self, ranks: &[usize]) -> Estimate {
        let seconds: f64 = ranks.iter().map(|&rank| self.charges.of_rank[rank]).sum();
        let value = seconds / self.steps.wall_s();
        let waited = |step: &SketchStep| {
            if ranks.contains(&(step.last_rank as usize)) {
                (step.arrival_ns - step.second_ns) as f64
            } else {
                0.0
            }
        };
        estimate(value, &self.steps.scaled_draws(value, waited))
    }
}
