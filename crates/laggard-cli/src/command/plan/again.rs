//! What if something is lost, and planning again with few moves.

use super::asked::Setup;
use super::lost_on::{self, Until};
use super::{Made, make};
use crate::args::{ChangeArgs, PlanArgs};
use crate::failure::Usage;
use crate::input;
use crate::page::Page;
use anyhow::{Context, Result};
use laggard_plan::{Again, Loss, Places, PlanFile, PlannedOption, lose, plan_again};
use laggard_specs::Cluster;
use serde::Serialize;
use std::collections::BTreeMap;
use std::str::FromStr;

/// A plan after something changed.
#[derive(Debug, Serialize)]
pub(super) struct Replanned {
    /// Devices that were lost, by class.
    lost: BTreeMap<String, u64>,
    /// What was done before.
    before: String,
    /// Options by position.
    #[serde(flatten)]
    again: Again,
    /// Names of the options: chosen, best, and the one before.
    chosen_name: String,
    best_name: String,
    /// Devices of the cluster that is left.
    devices: u64,
    /// What is done until the day of the loss, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Until>,
}

/// The cluster without what is lost.
pub(super) fn what_is_left(args: &ChangeArgs, cluster: &Cluster) -> Result<Cluster> {
    Ok(lose(cluster, &losses(args)?)?)
}

fn losses(args: &ChangeArgs) -> Result<Vec<Loss>> {
    let mut losses = Vec::new();
    for text in &args.lose {
        let hint = "hint: for example `--lose h100=256`";
        let (class, count) = pair("--lose", text, hint)?;
        let class = class.ok_or_else(|| unreadable("--lose", text, hint))?;
        losses.push(Loss::Devices { class, count });
    }
    let sites = args.lose_site.iter().cloned();
    losses.extend(sites.map(|site| Loss::Site { site }));
    for text in &args.lose_mw {
        let hint = "hint: for example `--lose-mw 40` or `--lose-mw memphis=40`";
        let (site, megawatts) = pair("--lose-mw", text, hint)?;
        losses.push(Loss::Power { site, megawatts });
    }
    Ok(losses)
}

/// `NAME=NUMBER`, or a number alone.
fn pair<N: FromStr>(flag: &str, text: &str, hint: &str) -> Result<(Option<String>, N)> {
    let (name, number) = match text.split_once('=') {
        Some((name, number)) => (Some(name.to_owned()), number),
        None => (None, text),
    };
    match number.trim().parse() {
        Ok(number) => Ok((name, number)),
        Err(_) => Err(unreadable(flag, text, hint)),
    }
}

fn unreadable(flag: &str, text: &str, hint: &str) -> anyhow::Error {
    Usage(format!("cannot read {flag} `{text}`\n{hint}")).into()
}

/// The plan of what is left of a cluster: where something is lost, or something else was done
/// before, the option that moves the fewest devices from what was done before, which is what a file
/// says, or what would be done if nothing were lost.
pub(super) fn made<'s>(args: &PlanArgs, setup: &'s Setup, cluster: &Cluster) -> Result<Made<'s>> {
    let change = &args.change;
    let left = what_is_left(change, cluster)?;
    let mut job = setup.one_job(args)?;
    let before = match &change.previous {
        Some(path) => {
            let file = PlanFile::parse(&input::text(path)?);
            file.with_context(|| format!("cannot use {}", path.display()))?
        }
        None if *cluster == left => return make(args, setup, &left, &job),
        None => make(args, setup, cluster, &job)?.file,
    };
    let option = before.option(None)?;
    let mut planned = before.options.iter().flat_map(|it| &it.jobs);
    let other = planned.find(|it| it.model != job.model.id);
    if let Some(other) = other {
        let (asked, planned) = (&job.model.id, &other.model);
        let hint = format!("hint: give `--model {planned}`, or the plan of {asked}");
        let message = format!("--previous is a plan of {planned}, not of {asked}\n{hint}");
        return Err(Usage(message).into());
    }
    let mut until = lost_on::until(change, option, &mut job)?;
    let mut made = make(args, setup, &left, &job)?;
    let lost = lost_devices(&before, &made.file);
    let places = lost
        .iter()
        .fold(Places::of(option), |places, (class, count)| {
            places.without(class, *count)
        });
    let Some(mut replanned) = replanned(change, (option, &places), &made, lost)? else {
        return Ok(made);
    };
    let chosen = replanned.again.chosen;
    if let Some(until) = &mut until {
        until.then(made.plan.options[chosen].figures.days);
    }
    replanned.until = until;
    made.file.chosen = chosen;
    made.plan.again = Some(replanned);
    Ok(made)
}

/// Devices of each class that are there no more.
fn lost_devices(before: &PlanFile, now: &PlanFile) -> BTreeMap<String, u64> {
    let lost = before.classes.iter().map(|class| {
        let left = now.class(&class.name).map_or(0, |class| class.count);
        (class.name.clone(), class.count.saturating_sub(left))
    });
    lost.filter(|(_, count)| *count > 0).collect()
}

fn replanned(
    change: &ChangeArgs,
    before: (&PlannedOption, &Places),
    made: &Made<'_>,
    lost: BTreeMap<String, u64>,
) -> Result<Option<Replanned>> {
    let (plan, file) = (&made.plan, &made.file);
    let worth = |&at: &usize| {
        let worth = plan.objective.score(&plan.options[at].figures)?;
        Some((at, worth))
    };
    let order: Vec<(usize, f64)> = plan.ranking.order.iter().filter_map(worth).collect();
    let tolerance = change.tolerance / 100.0;
    let again = plan_again(before, &file.options, &order, tolerance)?;
    let name = |at: usize| file.options[at].name.clone();
    Ok(again.map(|again| Replanned {
        lost,
        before: before.0.name.clone(),
        chosen_name: name(again.chosen),
        best_name: name(again.best),
        devices: file.classes.iter().map(|class| class.count).sum(),
        until: None,
        again,
    }))
}

/// What to do after the change, on the page.
pub(super) fn lines(page: &mut Page, it: &Replanned) {
    page.heading("planned again");
    let lost: Vec<String> = it
        .lost
        .iter()
        .map(|(class, count)| format!("{count} {class}"))
        .collect();
    let of = match lost.is_empty() {
        true => String::new(),
        false => format!(
            "{} are lost, of each job and use as large a share. ",
            lost.join(", ")
        ),
    };
    page.sentence(2, &format!("{of}Before: {}.", it.before));
    if let Some(until) = &it.until {
        page.sentence(2, &until.sentence());
    }
    let again = &it.again;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    page.sentence(
        2,
        &format!(
            "{}: moves {} of {} devices and is worth {} of the best; it moves the fewest of those \
             within {} of it.",
            it.chosen_name,
            again.moved,
            it.devices,
            percent(again.of_best),
            percent(again.tolerance)
        ),
    );
    if again.best != again.chosen {
        let best = format!("The best, {}, moves {}.", it.best_name, again.moved_by_best);
        page.sentence(2, &best);
    }
    match again
        .staying
        .filter(|staying| staying.option != again.chosen)
    {
        Some(staying) => page.sentence(
            2,
            &format!(
                "To go on as before moves {} and is worth {} of the best.",
                staying.moved,
                percent(staying.of_best)
            ),
        ),
        None if again.staying.is_none() => page.sentence(2, "To go on as before is not possible."),
        None => {}
    }
}
