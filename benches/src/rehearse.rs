//! Plans of mixes that are emulated here: measured in equal shares, planned by what that cost, and
//! run both ways in pairs.

use anyhow::{Context, Result, ensure};
use laggard_analyze::{OperationTime, Options, analyze, kernel_seconds, operation_times};
use laggard_measure::{ClassShare, Hooks, Settings, run_in_turns, run_together};
use laggard_plan::{
    Expected, Measured, MeasuredClass, Objective, PlanFile, PlannedJob, PlannedOption, Rehearsal,
    RehearsedJob, plan_measured,
};
use laggard_record::{Record, TimeBasis};
use laggard_schedule::{Layout, generate};
use laggard_simulate::{Calibration, observations};
use laggard_specs::{Model, model_work};
use laggard_stats::{Rng, median, sorted_median_interval};
use std::path::Path;

/// Names of classes.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// The slowest class, relative to the fastest.
const SLOWEST: f64 = 0.3;
/// Bytes of an element of a synthetic job.
const ELEMENT_BYTES: u64 = 4;
/// Steps that are drawn for a prediction, and the seed.
const DRAWS: (u32, u64) = (101, 1);
/// Tokens of a sequence.
const LENGTH: u32 = 32;

/// Emulated classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Rate of each, relative to the fastest.
    pub rates: Vec<f64>,
    /// Ranks of each.
    pub ranks: Vec<u32>,
    /// Micro-batches of a rank with equal shares.
    pub each: u32,
}

impl Mix {
    /// A mix whose ranks have a processor each: two classes.
    #[must_use]
    pub fn of_processors(processors: u32, rng: &mut Rng) -> Self {
        let slow = 1 + rng.below(processors.max(2) as usize - 1) as u32;
        Self::of_ranks(vec![processors.max(2) - slow, slow], rng)
    }

    /// A mix of two to four classes with up to 16 ranks, and no fewer than `least`.
    #[must_use]
    pub fn beyond(least: u32, rng: &mut Rng) -> Self {
        let classes = 2 + rng.below(3) as u32;
        let least = least.max(classes);
        let all = least + rng.below(17_usize.saturating_sub(least as usize).max(1)) as u32;
        let mut ranks = vec![1; classes as usize];
        for _ in classes..all {
            ranks[rng.below(classes as usize)] += 1;
        }
        Self::of_ranks(ranks, rng)
    }

    fn of_ranks(ranks: Vec<u32>, rng: &mut Rng) -> Self {
        let rate = |at: usize, rng: &mut Rng| match at {
            0 => 1.0,
            _ => SLOWEST + (1.0 - SLOWEST) * rng.uniform(),
        };
        Self {
            rates: (0..ranks.len()).map(|at| rate(at, rng)).collect(),
            each: 2 + rng.below(5) as u32,
            ranks,
        }
    }

    fn rate(&self, class: &str) -> Option<(f64, String)> {
        let at = NAMES.iter().position(|name| *name == class)?;
        Some((self.rates[at], "drawn".to_owned()))
    }

    fn classes(&self) -> Vec<MeasuredClass> {
        let class = |(at, &ranks): (usize, &u32)| MeasuredClass {
            name: NAMES[at].to_owned(),
            ranks,
            emulated_rate: Some(self.rates[at]),
        };
        self.ranks.iter().enumerate().map(class).collect()
    }
}

/// How a mix is rehearsed.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The clock that the runs are meant for.
    pub basis: TimeBasis,
    /// Steps of each run.
    pub steps: u32,
    /// Times that a plan is made, and rehearsed at once.
    pub rounds: u32,
    /// Times that what a plan is made from is measured.
    pub calibrations: u32,
    /// Runs of a plan, each beside one of equal shares.
    pub pairs: u32,
}

/// What came of a mix.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its plans with what came of each, in the order in which they were made.
    pub rounds: Vec<Round>,
}

/// What came of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The plan.
    pub plan: PlanFile,
    /// Gain of the chosen option over equal shares, as planned.
    pub planned: f64,
    /// The same of each pair of runs, measured.
    pub measured: Vec<f64>,
    /// The same of each pair, predicted by what its own run with equal shares cost: at the speeds
    /// that the machine had meanwhile.
    pub predicted: Vec<f64>,
    /// Median steps of the runs with equal shares, seconds; the first are what was planned from.
    pub equal_step_s: Vec<f64>,
    /// Median steps of the jobs of the plan, run by run, seconds.
    pub planned_step_s: Vec<Vec<f64>>,
}

impl Outcome {
    /// Measured gain of the pairs.
    ///
    /// # Errors
    /// Without pairs.
    pub fn gain(&self) -> Result<Median> {
        self.of_pairs(|round, pair| round.measured[pair])
    }

    /// Planned less measured gain, pair by pair.
    ///
    /// # Errors
    /// Without pairs.
    pub fn off(&self) -> Result<Median> {
        self.of_pairs(|round, pair| round.planned - round.measured[pair])
    }

    /// The same of gains predicted at the speeds of the pairs.
    ///
    /// # Errors
    /// Without pairs.
    pub fn off_by_pairs(&self) -> Result<Median> {
        self.of_pairs(|round, pair| round.predicted[pair] - round.measured[pair])
    }

    fn of_pairs(&self, of: impl Fn(&Round, usize) -> f64) -> Result<Median> {
        let mut values = Vec::new();
        for round in &self.rounds {
            values.extend((0..round.measured.len()).map(|pair| of(round, pair)));
        }
        Median::of(values)
    }

    /// How far runs of one and the same job lay apart, as a share: the longest median step with
    /// equal shares over the shortest, less 1.
    #[must_use]
    pub fn noise(&self) -> f64 {
        let steps = || {
            self.rounds
                .iter()
                .flat_map(|it| it.equal_step_s.iter().copied())
        };
        steps().fold(0.0, f64::max) / steps().fold(f64::INFINITY, f64::min) - 1.0
    }
}

/// A median with what it lies between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Median {
    /// The median.
    pub value: f64,
    /// Its 95 % interval; all values where they are too few for one.
    pub low: f64,
    /// The upper end of it.
    pub high: f64,
}

impl Median {
    fn of(mut values: Vec<f64>) -> Result<Self> {
        values.sort_by(f64::total_cmp);
        let all = values.first().copied().zip(values.last().copied());
        let within = sorted_median_interval(&values, 0.95).map(|it| (it.low, it.high));
        let (low, high) = within.or(all).context("no pairs")?;
        Ok(Self {
            value: median(&values)?,
            low,
            high,
        })
    }
}

/// Measures, plans and rehearses a mix. `folder` is for records, which are removed as soon as they
/// have been read.
///
/// # Errors
/// A run, a plan or a record that cannot be.
pub fn rehearse(
    (mix, model): (&Mix, &Model),
    campaign: Campaign,
    rng: &mut Rng,
    folder: &Path,
) -> Result<Outcome> {
    let site = Site {
        mix,
        model,
        campaign,
        folder,
    };
    let round = |number: u32| {
        let round = site.round(rng);
        round.with_context(|| format!("round {number}"))
    };
    let rounds = (0..campaign.rounds).map(round);
    Ok(Outcome {
        rounds: rounds.collect::<Result<_>>()?,
    })
}

/// A run with what its operations took.
type Costs = (Record, Vec<OperationTime>);

/// What came of a job, and what its operations took.
struct Rehearsed {
    run: RehearsedJob,
    costs: Costs,
}

/// What operations of some runs cost.
fn calibration(runs: &[&Costs]) -> Calibration {
    let observed = runs.iter().flat_map(|(record, times)| {
        let times = times.iter();
        let taken = times.map(|it| (it.rank, it.operation, it.seconds, &it.ratios[..]));
        observations(&record.manifest, taken)
    });
    Calibration::fit(&observed.collect::<Vec<_>>())
}

/// What a plan is made from.
struct Seen {
    runs: Vec<Costs>,
    equal_step_s: Vec<f64>,
}

struct Site<'a> {
    mix: &'a Mix,
    model: &'a Model,
    campaign: Campaign,
    folder: &'a Path,
}

const HOOKS: Hooks<'static> = Hooks {
    stop: &|| None,
    flush: &|| false,
    progress: &|_| (),
};

impl Site<'_> {
    /// Measures, plans, and runs both ways in pairs.
    fn round(&self, rng: &mut Rng) -> Result<Round> {
        let seen = self.calibrate(self.campaign.calibrations, rng);
        let seen = seen.context("the runs to plan from")?;
        let plan = self.plan(&seen).context("the plan")?;
        let equal = plan.equal_shares()?;
        let chosen = plan.option(None)?;
        let mut round = Round {
            planned: 0.0,
            measured: Vec::new(),
            predicted: Vec::new(),
            equal_step_s: seen.equal_step_s.clone(),
            planned_step_s: Vec::new(),
            plan: plan.clone(),
        };
        for pair in 0..self.campaign.pairs {
            // Which of them is first in each turn is drawn by lot.
            let planned = rng.below(2);
            let mut options = [equal; 2];
            options[planned] = chosen;
            let runs = self.rehearse(&options, rng.next_u64() >> 1);
            let runs = runs.with_context(|| format!("pair {pair}"))?;
            let of = |at: usize| -> Vec<RehearsedJob> {
                let jobs = runs[at].iter();
                jobs.map(|job| job.run.clone()).collect()
            };
            let (made, shares) = (of(planned), of(1 - planned));
            let costs = &runs[1 - planned][0].costs;
            let by_pair = self.predicted((&seen, costs), (chosen, equal))?;
            round.predicted.push(by_pair);
            let rehearsal = Rehearsal::new(&plan, None, &made, Some(&shares))?;
            let gain = rehearsal.gain.context("no gain")?;
            round.planned = gain.predicted;
            round.measured.push(gain.measured.value);
            let steps = shares.iter().map(|it| it.step_s.value);
            round.equal_step_s.extend(steps);
            let steps = made.iter().map(|it| it.step_s.value);
            round.planned_step_s.push(steps.collect());
        }
        Ok(round)
    }

    /// Runs the jobs of groups that are compared, so that what slows the machine down for a moment
    /// slows all groups alike. On the virtual clock they run at the same time, as they do not take
    /// each other's; by wall clock they would share processors, and take turns.
    fn compare(&self, groups: &[Vec<Settings>]) -> Result<()> {
        match self.campaign.basis {
            TimeBasis::Virtual => run_together(&groups.concat(), &HOOKS)?,
            TimeBasis::Wall => {
                let is_one = groups.iter().all(|group| group.len() == 1);
                ensure!(
                    is_one,
                    "jobs of one option cannot take turns with each other"
                );
                run_in_turns(&groups.concat(), &HOOKS)?
            }
        };
        Ok(())
    }

    /// Measures equal shares, and a pipeline with a stage of each class, so many times.
    fn calibrate(&self, times: u32, rng: &mut Rng) -> Result<Seen> {
        let blocks = self.mix.ranks.iter().zip(NAMES);
        let names: Vec<&str> = blocks
            .flat_map(|(&ranks, name)| vec![name; ranks as usize])
            .collect();
        let stages = self.mix.ranks.len();
        let pipeline = Layout {
            pipeline_parallel: stages as u32,
            stage_layers: self.balanced(),
            ..Layout::data_parallel(1, 2 * stages as u32)
        };
        let mut seen = Seen {
            runs: Vec::new(),
            equal_step_s: Vec::new(),
        };
        for _ in 0..times {
            let equal = self.settings(&self.equal(), &names, "equal", rng.next_u64() >> 1);
            let one_each = &NAMES[..stages];
            let piped = self.settings(&pipeline, one_each, "pipeline", rng.next_u64() >> 1);
            let jobs = [equal, piped];
            self.compare(&jobs.clone().map(|job| vec![job]))?;
            for (settings, is_equal) in jobs.iter().zip([true, false]) {
                let record = self.record(settings)?;
                if is_equal {
                    let analysis = analyze(&record, &Options::default())?;
                    seen.equal_step_s.push(analysis.step_time.median);
                }
                let times = operation_times(&record)?;
                seen.runs.push((record, times));
                std::fs::remove_dir_all(&settings.record)?;
            }
        }
        Ok(seen)
    }

    /// The record of a run, which must be by the clock that it was meant for.
    fn record(&self, settings: &Settings) -> Result<Record> {
        let record = Record::open(&settings.record)?;
        let (basis, meant) = (record.manifest.clock.basis, self.campaign.basis);
        ensure!(basis == meant, "times are {basis:?}, not {meant:?}");
        Ok(record)
    }

    /// Everyone in lock-step with as many micro-batches.
    fn equal(&self) -> Layout {
        Layout::data_parallel(self.mix.ranks.iter().sum(), self.mix.each)
    }

    fn plan(&self, seen: &Seen) -> Result<PlanFile> {
        let layout = self.equal();
        let settings = self.settings(&layout, &[], "", 0);
        let plan = plan_measured(&Measured {
            source: "runs with equal shares".to_owned(),
            model: self.model,
            sequence_length: settings.sequence_length,
            micro_batch: settings.micro_batch_sequences,
            element_bytes: ELEMENT_BYTES,
            layout: &layout,
            classes: &self.mix.classes(),
            micro_batches: self.mix.each * self.mix.ranks.iter().sum::<u32>(),
            calibration: &calibration(&seen.runs.iter().collect::<Vec<_>>()),
            objective: Objective::Time,
            draws: DRAWS,
        })?;
        Ok(plan.file)
    }

    /// Layers of a stage of each class by its rate: a stage that waits for another runs slower
    /// after it than one that does not.
    fn balanced(&self) -> Vec<u32> {
        let rates = &self.mix.rates;
        let mut layers = vec![1; rates.len()];
        for _ in layers.len()..self.model.layers as usize {
            let end = |at: usize| f64::from(layers[at] + 1) / rates[at];
            let first = (0..rates.len()).min_by(|&a, &b| end(a).total_cmp(&end(b)));
            layers[first.unwrap_or(0)] += 1;
        }
        layers
    }

    /// Runs the jobs of all these options.
    fn rehearse(&self, options: &[&PlannedOption], seed: u64) -> Result<Vec<Vec<Rehearsed>>> {
        let settings = |at: usize, job: &PlannedJob| {
            let name = format!("{at}-{}", job.name);
            self.settings(&job.layout(), &job.class_of_rank(), &name, seed)
        };
        let of = |(at, option): (usize, &&PlannedOption)| -> Vec<Settings> {
            option.jobs.iter().map(|job| settings(at, job)).collect()
        };
        let jobs: Vec<Vec<Settings>> = options.iter().enumerate().map(of).collect();
        self.compare(&jobs)?;
        let rehearsed = options.iter().zip(&jobs).map(|(option, settings)| {
            let jobs = option.jobs.iter().zip(settings);
            jobs.map(|(job, settings)| self.rehearsed(job, settings))
                .collect()
        });
        rehearsed.collect()
    }

    /// The gain of an option over equal shares by what a run of these cost; by that of all runs
    /// where it has operations that equal shares have not.
    fn predicted(
        &self,
        (seen, equal): (&Seen, &Costs),
        (chosen, shares): (&PlannedOption, &PlannedOption),
    ) -> Result<f64> {
        let gain = |runs: &[&Costs]| -> Result<f64> {
            let calibration = calibration(runs);
            Ok(self.rate(chosen, &calibration)? / self.rate(shares, &calibration)? - 1.0)
        };
        let all: Vec<&Costs> = seen.runs.iter().chain([equal]).collect();
        gain(&[equal]).or_else(|_| gain(&all))
    }

    /// Predicted tokens per second of an option.
    fn rate(&self, option: &PlannedOption, calibration: &Calibration) -> Result<f64> {
        let settings = self.settings(&self.equal(), &[], "", 0);
        let size = (settings.micro_batch_sequences, settings.sequence_length);
        let work = model_work(self.model, size, ELEMENT_BYTES);
        let rate = |job: &PlannedJob| -> Result<f64> {
            let schedule = generate(&job.layout(), &work)?;
            let classes = job.class_of_rank();
            let step = calibration.predict(&schedule, |rank| classes[rank as usize], DRAWS)?;
            Ok(job.step_tokens() / step.median_s)
        };
        option.jobs.iter().map(rate).sum()
    }

    /// What came of a job. Its record is removed.
    fn rehearsed(&self, job: &PlannedJob, settings: &Settings) -> Result<Rehearsed> {
        let record = self.record(settings)?;
        let step = analyze(&record, &Options::default())?.step_time;
        let kernels = kernel_seconds(&record)?;
        let times = operation_times(&record)?;
        std::fs::remove_dir_all(&settings.record)?;
        let mean = Expected {
            value: step.mean.value,
            low: step.mean.low,
            high: step.mean.high,
        };
        Ok(Rehearsed {
            run: RehearsedJob::new(job, (step.median, mean), &kernels),
            costs: (record, times),
        })
    }

    fn settings(&self, layout: &Layout, classes: &[&str], name: &str, seed: u64) -> Settings {
        let ranks = classes.len() as u32;
        let mut settings = Settings::new(self.model.clone(), ranks, self.folder.join(name));
        settings.layout = layout.clone();
        settings.classes = ClassShare::of_ranks(classes, |class| self.mix.rate(class));
        settings.sequence_length = LENGTH;
        settings.steps = self.campaign.steps;
        settings.seed = seed;
        settings
    }
}
