//! The whole analysis of one record, from samples to verdict.

use crate::answer::{ANALYSIS_VERSION, Analyzed, Options, verdict};
use crate::bins::{Sums, sums};
use crate::causes::{Evidence, device, findings};
use crate::cells::{Cells, Slot};
use crate::chunk::replay_steps;
use crate::contention::Contention;
use crate::devices::Devices;
use crate::draw::{Draw, Settings};
use crate::intake::{Intake, Measurements};
use crate::interval::noise_block;
use crate::levels::waterfall;
use crate::own_time::{OwnTime, WorkShare};
use crate::per_step::{Inputs, Lengths, RankBlame, Typical};
use crate::shrinkage::{Noise, healthy};
use crate::sketch::analyze_sketch;
use crate::subject::{Pace, subject};
use crate::traits::{Chance, Traits, chance};
use crate::transfers::Transfers;
use crate::utilisation::{peak_sum, utilisation};
use crate::what_if::what_if;
use crate::work::Work;
use crate::{
    Analysis, AnalyzeError, BlameEntry, Charged, Level, NullTest, doubts, figures, stage_split,
};
use laggard_record::{Manifest, Record, TimeBasis};
use laggard_schedule::Replay;
use laggard_stats::{WarmUp, warm_up_end};
use laggard_types::{Caveat, CaveatCode};

/// Analyses a record.
///
/// # Errors
/// If the record cannot be read, contradicts itself, or has too few complete steps.
pub fn analyze(record: &Record, options: &Options) -> Result<Analysis, AnalyzeError> {
    analyze_with_series(record, options).map(|analyzed| analyzed.analysis)
}

pub(crate) fn analyze_with_series(
    record: &Record,
    options: &Options,
) -> Result<Analyzed, AnalyzeError> {
    let manifest = &record.manifest;
    if let Some(baseline) = record.sketch() {
        return analyze_sketch(record, baseline, options);
    }
    let replay = Replay::new(&manifest.schedule)?;
    let mut cells = Cells::new(manifest, &replay)?;
    let mut caveats = record.caveats.clone();
    let (measured, warm_up) = read_steps(record, &replay, &mut caveats)?;
    let telemetry = record.telemetry()?;
    caveats.extend(telemetry.caveats);
    let devices = record.devices()?;
    caveats.extend(devices.caveats);
    let typical = Typical::new(&measured, &cells);
    let split = stage_split::expected(manifest, &replay, &measured, &cells, &typical);
    if let Some(expected) = split {
        cells.join_stages(expected);
    }
    let own = OwnTime::new(&measured, &cells);
    let work = WorkShare::new(manifest, &measured, &cells, &own);
    let mut inputs = Inputs {
        replay: &replay,
        measured: &measured,
        cells: &cells,
        own: &own,
        work: &work,
        typical: &typical,
        healthy: vec![[1.0; Slot::COUNT]; cells.members.len()],
    };
    let sums = sums(&inputs);
    let noise = Noise::of(&sums, &cells);
    inputs.healthy = healthy(&noise, &sums, &cells);
    let beside = Beside {
        contention: Contention::new(manifest, &telemetry.rows),
        devices: Devices::new(cells.ranks, &devices.rows),
    };
    let (lengths, blame) = replay_steps(&inputs);
    let step_times = match manifest.clock.basis {
        TimeBasis::Wall => measured.step_time.clone(),
        TimeBasis::Virtual => lengths.measured.clone(),
    };
    let replayed = Replayed {
        lengths: &lengths,
        blame: &blame,
        step_times: &step_times,
        sums: &sums,
        noise: &noise,
    };
    let mut result = assess(manifest, &inputs, &replayed, &beside, options);
    result.subject.steps_recorded = (measured.steps() + warm_up) as u32;
    result.subject.steps_warm_up = warm_up as u32;
    doubts::add_of_data(&measured, &mut caveats);
    caveats.append(&mut result.caveats);
    caveats.dedup();
    result.caveats = caveats;
    Ok(Analyzed {
        analysis: result,
        step_times,
    })
}

/// Reads the steps of a record. Gives those after warm-up, and the length of that.
///
/// # Errors
/// If the record cannot be read, or has too few complete steps.
pub(crate) fn read_steps(
    record: &Record,
    replay: &Replay,
    caveats: &mut Vec<Caveat>,
) -> Result<(Measurements, usize), AnalyzeError> {
    let mut intake = Intake::new(&record.manifest, replay);
    let reading = record.samples(|batch| intake.add(batch))?;
    caveats.extend(reading.caveats);
    let work = record.steps()?;
    intake.add_work(&work.rows);
    caveats.extend(work.caveats);
    let mut measured = intake.finish()?;
    let warm_up = drop_warm_up(&mut measured, caveats);
    Ok((measured, warm_up))
}

/// What was seen beside the steps.
struct Beside {
    contention: Option<Contention>,
    devices: Devices,
}

/// What the replays of all steps gave.
struct Replayed<'a> {
    lengths: &'a Lengths,
    blame: &'a RankBlame,
    step_times: &'a [f64],
    sums: &'a [Sums],
    noise: &'a Noise,
}

/// Forgets the warm-up, at most half of the steps.
fn drop_warm_up(measured: &mut Measurements, caveats: &mut Vec<Caveat>) -> usize {
    let steps = measured.steps();
    let end = match warm_up_end(&measured.step_time) {
        Ok(WarmUp::Ends { at }) if at <= steps / 2 => at,
        Ok(WarmUp::None) | Err(_) => 0,
        Ok(WarmUp::Ends { .. } | WarmUp::Unclear) => {
            caveats.push(Caveat::new(
                CaveatCode::WarmUpUnclear,
                "no steady level of step times marks the end of warm-up: all steps are used",
            ));
            0
        }
    };
    measured.drop_first(end);
    end
}

/// Everything after the tables are filled.
fn assess(
    manifest: &Manifest,
    inputs: &Inputs<'_>,
    replayed: &Replayed<'_>,
    beside: &Beside,
    options: &Options,
) -> Analysis {
    let &Replayed {
        lengths,
        blame,
        step_times,
        sums,
        noise,
    } = replayed;
    let block = noise_block(&lengths.measured);
    let settings = Settings {
        sums,
        noise,
        basis: manifest.clock.basis,
        peak_sum: peak_sum(manifest),
        block_length: block,
        seed: options.seed,
        transfers: Transfers::new(manifest, inputs.replay),
    };
    let water = waterfall(inputs, lengths, &settings);
    let traits = Traits::new(inputs, manifest);
    let chance = chance(inputs, block, options.seed);
    let evidence = Evidence {
        manifest,
        inputs,
        lengths,
        waterfall: &water,
        blame,
        traits: &traits,
        chance: chance.as_ref(),
        contention: beside.contention.as_ref(),
        devices: &beside.devices,
        thresholds: options.thresholds,
        seed: options.seed,
    };
    let mut found = findings(&evidence);
    let of_devices = device::explain(&evidence, &mut found);
    let mut caveats = doubts::against_findings(&evidence);
    if evidence.is_wall() {
        // CPU time, which drives the virtual clock, does not count what others use.
        doubts::withhold(&mut found, &caveats, &evidence);
    }
    caveats.extend(of_devices);
    caveats.extend(doubts::of_basis(&evidence));
    let work = inputs.work.total();
    let value = evidence.loss(Level::Utilisation);
    let quote = |peaks| utilisation(manifest, value, &work, peaks);
    let (mfu, share_of_measured_peak) = settings.peak_sum.map(quote).unwrap_or_default();
    let loss = water.point.loss();
    let penalty = water.estimate(|draw| draw.loss() / draw.wall);
    Analysis {
        schema_version: ANALYSIS_VERSION,
        subject: subject(manifest, pace(inputs, &work, water.point.wall)),
        step_time: figures::step_times(step_times, water.estimate(|draw| draw.wall)),
        mfu,
        share_of_measured_peak,
        penalty,
        slowdown: water.estimate(Draw::slowdown),
        penalty_reference: penalty_reference(inputs.cells).to_owned(),
        waterfall: water.terms(),
        exposed_communication: water.exposed(),
        what_if: what_if(&evidence),
        blame: blame_table(&evidence),
        loss: loss / water.point.wall,
        null_tests: null_tests(chance.as_ref()),
        verdict: verdict(&penalty, &found),
        findings: found,
        classes: figures::classes(&evidence),
        ranks: figures::ranks(&evidence),
        heat_map: figures::heat_map(&evidence),
        caveats,
    }
}

fn pace(inputs: &Inputs<'_>, work: &Work, step_s: f64) -> Pace {
    let steps = inputs.measured.steps();
    Pace {
        steps,
        tokens_per_step: work.tokens / steps as f64,
        step_s,
    }
}

const fn penalty_reference(cells: &Cells) -> &'static str {
    if cells.across_stages {
        "the same work spread evenly: each class's typical rank, means over classes (by peak) and \
         stages, mean transfers, no pauses"
    } else {
        "the same work spread evenly: means over ranks of compute (by peak where generations \
         differ), mean transfers, no pauses"
    }
}

/// Charges that sum to the loss: ranks by the airport game, the rest by name.
fn blame_table(evidence: &Evidence<'_>) -> Vec<BlameEntry> {
    let point = &evidence.waterfall.point;
    let steps = evidence.lengths.measured.len() as f64;
    let blame: &RankBlame = evidence.blame;
    let share = |seconds: f64| seconds / point.wall;
    let as_class_by_step = evidence.lengths.as_class.iter().sum::<f64>() / steps;
    let mut table: Vec<BlameEntry> = (0..evidence.ranks())
        .map(|rank| BlameEntry {
            charged: Charged::Rank(rank as u32),
            share: share(blame.total(rank) / steps),
            last_in_steps: Some(f64::from(blame.last[rank]) / steps),
            leave_one_out: Some(share(blame.alone[rank] / steps)),
        })
        .collect();
    table.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.charged.cmp(&b.charged)));
    let rest = [
        (Charged::ClassMix, point.as_class - point.even_generations),
        (Charged::StageSplit, point.even_generations - point.balanced),
        (
            Charged::EveryRank,
            as_class_by_step - point.as_class - point.launch,
        ),
    ];
    table.extend(rest.into_iter().map(|(charged, seconds)| BlameEntry {
        charged,
        share: share(seconds),
        last_in_steps: None,
        leave_one_out: None,
    }));
    table
}

fn null_tests(chance: Option<&Chance>) -> Vec<NullTest> {
    let test = |chance: &Chance| NullTest {
        level: Level::Rank,
        observed: chance.observed,
        null_mean: chance.null_mean,
        p_value: chance.p_value,
    };
    chance.map(test).into_iter().collect()
}
