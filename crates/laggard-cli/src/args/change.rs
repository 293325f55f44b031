//! What is typed to plan with devices that differ, and to plan again after something changed.

use crate::failure::Usage;
use clap::Args;
use std::path::PathBuf;

/// What is known of single devices, and what is lost.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// What is known of single devices: a table that `laggard fleet --format json` wrote. Jobs then
    /// go at the pace of their slowest host, and one option trains without the slowest.
    #[arg(long, value_name = "FILE", conflicts_with = "jobs")]
    pub(crate) fleet: Option<PathBuf>,
    /// What is done now: the plan.json of `laggard plan -o DIR`. The answer then moves as few
    /// devices as it can.
    #[arg(long, value_name = "FILE", conflicts_with = "jobs")]
    pub(crate) previous: Option<PathBuf>,
    /// What may be given up of the best option to move fewer devices, per cent.
    #[arg(long, default_value_t = 1.0, value_name = "PCT", value_parser = tolerance)]
    pub(crate) tolerance: f64,
    /// What if so many devices of a class are lost? Repeatable.
    #[arg(long, value_name = "CLASS=N", conflicts_with = "jobs")]
    pub(crate) lose: Vec<String>,
    /// What if a site is lost? Repeatable.
    #[arg(long, value_name = "SITE", conflicts_with = "jobs")]
    pub(crate) lose_site: Vec<String>,
    /// What if so much power of a site is lost? Repeatable; the site may be left out where there is
    /// only one.
    #[arg(long, value_name = "[SITE=]MW", conflicts_with_all = ["jobs", "power_limit_mw"])]
    pub(crate) lose_mw: Vec<String>,
    /// The day on which it is lost, such as 2026-12-01: until then the job goes on as planned, and
    /// what is left then trains the rest of its tokens [default: before it begins].
    #[arg(long, value_name = "DATE", conflicts_with_all = ["jobs", "calibrated_on"])]
    pub(crate) lose_on: Option<String>,
    /// The day on which the job begins [default: today].
    #[arg(long, value_name = "DATE", requires = "lose_on")]
    pub(crate) start: Option<String>,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|share| (0.0..=100.0).contains(share));
    number.ok_or_else(|| "not a number of per cent from 0 to 100\nhint: for example `1`".to_owned())
}

impl ChangeArgs {
    /// Whether anything is lost.
    pub(crate) fn loses(&self) -> bool {
        let lost = [&self.lose, &self.lose_site, &self.lose_mw];
        lost.iter().any(|it| !it.is_empty())
    }

    /// Refuses all of it, where there is not one cluster that is planned from tables.
    ///
    /// # Errors
    /// Any of the flags.
    pub(crate) fn refuse(&self) -> Result<(), Usage> {
        let is_set = [
            ("--fleet", self.fleet.is_some()),
            ("--previous", self.previous.is_some()),
            ("--lose, --lose-site or --lose-mw", self.loses()),
            ("--lose-on", self.lose_on.is_some()),
        ];
        match is_set.iter().find(|(_, is_set)| *is_set) {
            Some((flag, _)) => Err(Usage(format!(
                "{flag} is for the plan of one cluster\nhint: give one --cluster"
            ))),
            None => Ok(()),
        }
    }
}
