//! `laggard compare`.

mod rehearsal;

use crate::args::{CompareArgs, Format};
use crate::failure::Usage;
use crate::{exit_code, output};
use anyhow::Result;
use laggard_analyze::{Options, compare};
use laggard_record::Record;
use laggard_report::{json, text};

/// Two runs of one job on one machine may differ by this much without anything having changed.
const SMALLEST: f64 = 0.02;

pub(crate) fn run(args: &CompareArgs) -> Result<u8> {
    if let Some(plan) = &args.plan {
        return rehearsal::run(args, plan);
    }
    let [a, b] = &args.records[..] else {
        let hint = "hint: give two, A and B; or a plan with --plan";
        let count = args.records.len();
        return Err(Usage(format!("{count} records cannot be compared\n{hint}")).into());
    };
    let (a, b) = (Record::open(a)?, Record::open(b)?);
    let smallest = args.fail_over.map_or(SMALLEST, |per_cent| per_cent / 100.0);
    let comparison = compare(&a, &b, &Options::default(), smallest)?;
    let text = match args.format {
        Format::Text => text::comparison(&comparison, output::style(&args.output)),
        Format::Json => json::comparison(&comparison),
        Format::Markdown => {
            let hint = "hint: use `--format text` or `--format json`";
            return Err(Usage(format!("a comparison has no Markdown form\n{hint}")).into());
        }
    };
    output::result(&text, &args.output)?;
    let failed = comparison.regression && args.fail_over.is_some();
    Ok(if failed {
        exit_code::THRESHOLD
    } else {
        exit_code::DONE
    })
}
