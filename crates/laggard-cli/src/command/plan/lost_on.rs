//! A loss on some day of a job: what is trained until then, and when the job ends.

use super::page::numbers::days;
use crate::args::ChangeArgs;
use crate::command::date;
use crate::failure::Usage;
use anyhow::{Context, Result};
use laggard_plan::{Kind, PlannedOption, WantedJob};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of a day.
const SECONDS_PER_DAY: f64 = 86_400.0;

/// What a job does until the day of a loss, and after it.
#[derive(Debug, Serialize)]
pub(super) struct Until {
    /// The day on which the job begins.
    start: String,
    /// The day of the loss.
    lost_on: String,
    /// Days between the two.
    days: u32,
    /// Tokens of the job.
    tokens: f64,
    /// Those that the model has before the loss.
    trained_tokens: f64,
    /// Days from the start until the model is trained if nothing is lost; absent where it never is.
    without_loss_days: Option<f64>,
    /// The same with the loss.
    with_loss_days: Option<f64>,
    /// Models that are trained side by side, of which this is about the one that is trained first.
    #[serde(skip)]
    models: usize,
}

/// Refuses a day on which nothing is lost, and a start that nothing is counted from.
pub(super) fn check(change: &ChangeArgs) -> Result<()> {
    match &change.lose_on {
        None if change.start.is_some() => {
            let hint = "hint: say with --lose-on when something is lost, or leave --start out";
            Err(Usage(format!("--start counts only until a loss\n{hint}")).into())
        }
        Some(lost_on) if !change.loses() => {
            let hint = "hint: say what with --lose, --lose-site or --lose-mw";
            Err(Usage(format!("nothing is lost on {lost_on}\n{hint}")).into())
        }
        _ => Ok(()),
    }
}

/// What is trained before the loss, by the option that is done until then; the job is left with the
/// rest of its tokens and of its deadline. `None` where no day is named.
pub(super) fn until(
    change: &ChangeArgs,
    before: &PlannedOption,
    job: &mut WantedJob<'_>,
) -> Result<Option<Until>> {
    let Some(lost_on) = &change.lose_on else {
        return Ok(None);
    };
    let start = match &change.start {
        Some(text) => day("--start", text)?,
        None => today()?,
    };
    let ahead = day("--lose-on", lost_on)? - start;
    let start = date::of_number(start);
    let Ok(ahead) = u32::try_from(ahead) else {
        let hint = "hint: give a later --lose-on, or an earlier --start";
        let message = format!("{lost_on} is before the job begins on {start}\n{hint}");
        return Err(Usage(message).into());
    };
    let tokens = job
        .tokens
        .unwrap_or_else(|| super::asked::usual_tokens(job.model));
    let per_day = before.model_tokens_per_s.value * SECONDS_PER_DAY;
    let trained_tokens = per_day * f64::from(ahead);
    let without_loss_days = (per_day > 0.0).then(|| tokens / per_day);
    if let Some(done) = without_loss_days.filter(|_| trained_tokens >= tokens) {
        let hint = "hint: an earlier --lose-on, or more --tokens";
        let message = format!(
            "the model is trained {} after {start}, before anything is lost on {lost_on}\n{hint}",
            days(done)
        );
        return Err(Usage(message).into());
    }
    if let Some(deadline) = &mut job.deadline_days {
        *deadline -= f64::from(ahead);
        if *deadline <= 0.0 {
            let hint = "hint: a later --deadline, or an earlier --lose-on";
            let message =
                format!("the deadline is not after {lost_on}, the day of the loss\n{hint}");
            return Err(Usage(message).into());
        }
    }
    job.tokens = Some(tokens - trained_tokens);
    Ok(Some(Until {
        start,
        lost_on: lost_on.clone(),
        days: ahead,
        tokens,
        trained_tokens,
        without_loss_days,
        with_loss_days: None,
        models: match before.kind {
            Kind::LooselyCoupled => 1,
            _ => before.jobs.len(),
        },
    }))
}

impl Until {
    /// What is left then takes so many days.
    pub(super) fn then(&mut self, rest: Option<f64>) {
        self.with_loss_days = rest.map(|rest| f64::from(self.days) + rest);
    }

    /// All of it in a sentence.
    pub(super) fn sentence(&self) -> String {
        let ends = |after: Option<f64>| match after {
            Some(after) => format!("{} after {}", days(after), self.start),
            None => "never".to_owned(),
        };
        let later = match self.with_loss_days.zip(self.without_loss_days) {
            Some((with, without)) => format!(", {} later", days((with - without).max(0.0))),
            None => String::new(),
        };
        let others = match self.models {
            0 | 1 => String::new(),
            models => format!(
                " Of the {models} models that are trained side by side this is the first to end: \
                 what the loss costs the others is not in it."
            ),
        };
        format!(
            "Lost on {}, {} d after the start: the model then has {:.3e} of {:.3e} tokens. It is \
             trained {}, without the loss {}{later}; moving is not counted.{others}",
            self.lost_on,
            self.days,
            self.trained_tokens,
            self.tokens,
            ends(self.with_loss_days),
            ends(self.without_loss_days)
        )
    }
}

fn day(flag: &str, text: &str) -> Result<i64> {
    let hint = "hint: a day such as `2026-12-01`";
    let number = date::number(text);
    Ok(number.ok_or_else(|| Usage(format!("cannot read {flag} `{text}`\n{hint}")))?)
}

fn today() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.context("the clock is before 1970\nhint: give --start")?;
    Ok((since.as_secs_f64() / SECONDS_PER_DAY) as i64)
}
