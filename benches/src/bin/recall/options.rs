//! The command line.

use crate::kind::{KINDS, Row};
use crate::world::groups;
use clap::{Args, Parser};
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Parser)]
pub(crate) struct Options {
    /// Groups of layouts.
    #[arg(
        long = "layouts",
        value_name = "GROUP,...",
        value_delimiter = ',',
        value_parser = group,
        default_values_t = groups()
    )]
    pub groups: Vec<&'static str>,
    /// Trials of each kind in each group.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub trials: u32,
    /// Clean runs of each group.
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub clean: u32,
    /// Makes only so many trials, spread evenly.
    #[arg(long, value_name = "N")]
    pub at_most: Option<usize>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The one kind to try.
    #[arg(long, value_name = "KIND", value_parser = kind)]
    only: Option<&'static str>,
    /// Where each trial goes.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    #[command(flatten)]
    pub require: Require,
}

/// What the result must be.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Require {
    /// The lower end of the 95 % interval of all injections is not below this: what many trials
    /// must show.
    #[arg(long = "require-lower", value_name = "SHARE")]
    pub lower: Option<f64>,
    /// The upper end is not, for injections and clean runs alike: what few trials can refute, as
    /// far as the machine itself has not disturbed them.
    #[arg(long = "require-upper", value_name = "SHARE")]
    pub upper: Option<f64>,
}

impl Options {
    /// Whether a kind is asked for.
    pub(crate) fn wants(&self, row: &Row) -> bool {
        self.only.is_none_or(|only| row.name == only)
    }
}

fn group(text: &str) -> Result<&'static str, String> {
    one_of(&groups(), text)
}

fn kind(text: &str) -> Result<&'static str, String> {
    one_of(&KINDS.map(|row| row.name), text)
}

fn one_of(known: &[&'static str], text: &str) -> Result<&'static str, String> {
    let found = known.iter().find(|name| **name == text).copied();
    found.ok_or_else(|| format!("known: {}", known.join(", ")))
}
