//! `laggard import`.

use crate::args::ImportArgs;
use crate::{exit_code, output};
use anyhow::{Context, Result};

pub(crate) fn run(args: &ImportArgs) -> Result<u8> {
    let command_line: Vec<String> = std::env::args().collect();
    let closing = laggard_import::import(&args.trace, &args.output, &command_line)
        .with_context(|| format!("cannot import {}", args.trace.display()))?;
    let path = args.output.display();
    output::talk(&format!(
        "{} samples of {} steps\nrecord: {path}\nnext: laggard analyze {path}",
        closing.samples, closing.steps_completed
    ));
    Ok(exit_code::DONE)
}
