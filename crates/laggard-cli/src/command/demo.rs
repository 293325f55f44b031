//! `laggard` without a command: the main job with defaults.

use crate::args::Cli;
use crate::args::Command;
use crate::command::run::{code, measure, tell};
use crate::exit_code;
use crate::output::{self, talk};
use anyhow::{Context, Result};
use clap::Parser;
use laggard_analyze::{Options, analyze};
use laggard_record::Record;
use std::path::Path;

pub(crate) fn run(quiet: bool) -> Result<u8> {
    // The defaults stand in one place: those of `laggard run`.
    let Some(Command::Run(args)) = Cli::parse_from(["laggard", "run"]).command else {
        anyhow::bail!("`laggard run` does not parse");
    };
    talk("running a synthetic training job on this machine, with defaults ...");
    let (settings, summary) = measure(&args, quiet)?;
    tell(&settings, &summary, quiet);
    let ended = code(&summary);
    if ended != exit_code::DONE {
        return Ok(ended);
    }
    let record = Record::open(&summary.record)
        .with_context(|| format!("cannot read {} back", summary.record.display()))?;
    let analysis = analyze(&record, &Options::default())?;
    let stdout = Path::new("-");
    output::result(
        &laggard_report::text::analysis(&analysis, output::style(stdout)),
        stdout,
    )?;
    let page = summary.record.with_extension("html");
    output::file(&laggard_report::html::analysis(&analysis), &page)?;
    let path = summary.record.display();
    talk(&format!(
        "record: {path}\nreport: {}\nnext:\n  \
         laggard run --inject slow-rank:1:1.3 -o slow      put a slow rank in\n  \
         laggard analyze slow --html slow.html             and find it\n  \
         laggard compare {path} slow                       what it changed\n  \
         laggard run --classes h100:2,h200:1,gb200:1 -o mixed   a mixed cluster\n\
         (from the source folder: cargo run --release -- run ...)",
        page.display()
    ));
    Ok(exit_code::DONE)
}
