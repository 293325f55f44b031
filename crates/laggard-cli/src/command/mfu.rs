//! `laggard mfu`: MFU and HFU of a step under every convention.

use crate::args::{MfuArgs, Precision, Recomputed};
use crate::failure::Usage;
use crate::{exit_code, input, output};
use anyhow::Result;
use laggard_specs::{
    Accelerator, ConventionFigures, Model, ObservedStep, Recompute, Share, Utilization, utilization,
};
use laggard_types::FlopPerSecond;
use std::fmt::Write;

pub(crate) fn run(args: &MfuArgs) -> Result<u8> {
    let tables = input::tables(&args.tables)?;
    let model = tables.model(&args.model)?;
    let accelerator = tables.accelerator(&args.accelerator)?;
    let step = step(args, model, accelerator)?;
    let found = utilization(model, &step)?;
    output::either(&args.result, &found, || {
        page(args, model, accelerator, &found)
    })?;
    Ok(exit_code::DONE)
}

fn step(args: &MfuArgs, model: &Model, accelerator: &Accelerator) -> Result<ObservedStep> {
    let sequence_length = args.sequence_length.or(model.context).ok_or_else(|| {
        let hint = "hint: say it with --sequence-length";
        Usage(format!(
            "the sequence length of {} is unknown\n{hint}",
            model.name
        ))
    })?;
    let positive = |flag: &str, number: f64| {
        let hint = "hint: give a number above 0";
        let wrong = || Usage(format!("{flag} is {number}\n{hint}"));
        (number > 0.0 && number.is_finite())
            .then_some(number)
            .ok_or_else(wrong)
    };
    let tokens_per_s = match (args.tokens_per_second, args.global_batch, args.step_time) {
        (Some(rate), ..) => positive("--tokens-per-second", rate)?,
        (None, Some(sequences), Some(seconds)) => {
            let sequences = positive("--global-batch", sequences as f64)?;
            sequences * sequence_length as f64 / positive("--step-time", seconds)?
        }
        (None, ..) => {
            let hint = "hint: give --global-batch and --step-time, or --tokens-per-second";
            return Err(Usage(format!("the throughput is unknown\n{hint}")).into());
        }
    };
    Ok(ObservedStep {
        tokens_per_s,
        devices: args.gpus,
        sequence_length,
        recompute: match args.recompute {
            Recomputed::None => Recompute::None,
            Recomputed::Selective => Recompute::Attention,
            Recomputed::Full => Recompute::Layers,
        },
        peak_flop_per_s: peak(args.precision, accelerator)?,
    })
}

fn peak(precision: Precision, accelerator: &Accelerator) -> Result<FlopPerSecond> {
    let peak = match precision {
        Precision::Bf16 => accelerator.dense_half_peak(),
        Precision::Fp16 => accelerator.dense_fp16_flop_per_s,
        Precision::Fp8 => accelerator.dense_fp8_flop_per_s,
        Precision::Fp4 => accelerator.dense_fp4_flop_per_s,
    };
    let unknown = || {
        let hint = "hint: choose another --precision, or give the peak in a file of --accelerators";
        Usage(format!(
            "the dense {} peak of {} is unknown\n{hint}",
            name_of(precision),
            accelerator.id
        ))
    };
    Ok(peak.ok_or_else(unknown)?)
}

const fn name_of(precision: Precision) -> &'static str {
    match precision {
        Precision::Bf16 => "bf16",
        Precision::Fp16 => "fp16",
        Precision::Fp8 => "fp8",
        Precision::Fp4 => "fp4",
    }
}

fn page(args: &MfuArgs, model: &Model, accelerator: &Accelerator, found: &Utilization) -> String {
    let mut page = String::new();
    // Writing to a string cannot fail.
    let mut line = |text: String| _ = writeln!(page, "{}", text.trim_end());
    let step = &found.step;
    line(format!(
        "{} on {} x {}",
        model.name, step.devices, accelerator.product
    ));
    line(format!(
        "{:.1} tokens/s per accelerator, sequences of {} tokens, dense {} peak of {:.1} TFLOP/s",
        found.tokens_per_s_per_device,
        step.sequence_length,
        name_of(args.precision),
        step.peak_flop_per_s.0 * 1e-12,
    ));
    line(String::new());
    let canonical = &found.canonical;
    line(format!("MFU  {}", per_cent(canonical.model)));
    line(format!(
        "HFU  {}  with --recompute {}",
        per_cent(canonical.hardware),
        recomputed(args)
    ));
    if canonical.hardware.is_some_and(|share| share.of_peak > 1.0) {
        let what = "more than the peak: see whether batch, step time and --precision are right";
        line(format!("     {what}"));
    }
    line(String::new());
    line(format!(
        "{:<20}{:>12}{:>14}{:>9}{:>9}",
        "convention", "GFLOP/token", "TFLOP/s each", "MFU", "HFU"
    ));
    for figures in &found.conventions {
        line(row(figures));
    }
    line(String::new());
    line("A Megatron-LM log would print, as throughput per GPU:".to_owned());
    for (name, when) in [
        (
            "mbridge-causal",
            "since it counts half of the pairs of tokens",
        ),
        ("megatron72", "before"),
    ] {
        let figures = found.conventions.iter().find(|it| it.convention == name);
        if let Some(share) = figures.and_then(|figures| figures.model) {
            let rate = share.flop_per_s_per_device.0 * 1e-12;
            line(format!("  {rate:.1} TFLOP/s/GPU  {when}"));
        }
    }
    line(String::new());
    line(
        "`laggard specs list conventions` says what each counts. - is what its users never print."
            .to_owned(),
    );
    page
}

fn row(figures: &ConventionFigures) -> String {
    let counted = figures.model.or(figures.hardware);
    let number = |of: fn(&Share) -> f64, decimals| {
        counted.map_or("-".to_owned(), |share| {
            format!("{:.*}", decimals, of(&share))
        })
    };
    format!(
        "{:<20}{:>12}{:>14}{:>9}{:>9}",
        figures.convention,
        number(|share| share.flop_per_token.0 * 1e-9, 2),
        number(|share| share.flop_per_s_per_device.0 * 1e-12, 1),
        per_cent(figures.model),
        per_cent(figures.hardware),
    )
}

fn per_cent(share: Option<Share>) -> String {
    share.map_or("-".to_owned(), |share| {
        format!("{:.1} %", 100.0 * share.of_peak)
    })
}

const fn recomputed(args: &MfuArgs) -> &'static str {
    match args.recompute {
        Recomputed::None => "none",
        Recomputed::Selective => "selective",
        Recomputed::Full => "full",
    }
}
