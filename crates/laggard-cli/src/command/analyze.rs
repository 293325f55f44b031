//! `laggard analyze`.

use crate::args::{AnalyzeArgs, Format};
use crate::failure::Usage;
use crate::{exit_code, output};
use anyhow::{Context, Result};
use laggard_analyze::{Options, Thresholds, analyze};
use laggard_record::Record;
use laggard_report::{html, json, markdown, text};

pub(crate) fn run(args: &AnalyzeArgs) -> Result<u8> {
    if !(args.name_over > 0.0 && args.name_over.is_finite()) {
        let hint = "hint: for example `--name-over 3`";
        let why = format!("--name-over must be a positive number of per cent\n{hint}");
        return Err(Usage(why).into());
    }
    let record = Record::open(&args.record)?;
    let thresholds = Thresholds {
        excess: args.name_over / 100.0,
        ..Thresholds::default()
    };
    let analysis = analyze(
        &record,
        &Options {
            thresholds,
            seed: args.seed,
        },
    )
    .with_context(|| format!("cannot analyze {}", args.record.display()))?;
    let text = match args.format {
        Format::Text => text::analysis(&analysis, output::style(&args.output)),
        Format::Json => json::analysis(&analysis),
        Format::Markdown => markdown::analysis(&analysis),
    };
    output::result(&text, &args.output)?;
    if let Some(path) = &args.html {
        output::file(&html::analysis(&analysis), path)?;
        output::talk(&format!("report: {}", path.display()));
    }
    let over = args
        .fail_over
        .is_some_and(|limit| 100.0 * analysis.penalty.value > limit);
    Ok(if over {
        exit_code::THRESHOLD
    } else {
        exit_code::DONE
    })
}
