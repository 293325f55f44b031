//! The prediction as text.

use super::Simulation;
use crate::command::calibrate;
use crate::page::Page;
use laggard_simulate::{Forecast, Identification, Lockstep, RARELY, Range};
use laggard_types::{format_seconds, format_span};

pub(super) fn page(it: &Simulation, assumed_mfu: f64) -> String {
    let mut page = Page::default();
    let forecast = &it.forecast;
    page.line(&format!(
        "{} on {}: predicted, not measured",
        it.model, it.cluster
    ));
    page.line(&format!(
        "{}; {} of {} accelerators; {} sequences of {} tokens a step; {}",
        it.layout,
        forecast.ranks,
        forecast.devices,
        it.global_batch,
        it.sequence_length,
        it.framework
    ));
    page.line(&format!(
        "step {}, {:.3e} tokens/s, MFU {} while it steps (canonical causal, dense half precision)",
        format_seconds(forecast.step_s),
        forecast.tokens_per_s,
        percent(forecast.waterfall.job_mfu)
    ));
    for caveat in &it.caveats {
        page.line(&format!("caveat: {caveat}"));
    }
    for line in calibrate::lines(&it.calibrated_on) {
        page.line(&line);
    }
    if let Some(step_s) = it.step_by_default_s {
        let step = format_seconds(step_s);
        page.line(&format!("  by default the step above would be {step}"));
    }
    classes(&mut page, forecast);
    causes(&mut page, forecast);
    waterfall(&mut page, forecast);
    if let Some(spares) = &it.spares {
        page.line(&format!(
            "  {} hosts left over as spares: too few are healthy {} of the time, which leaves a \
             goodput of {}; {} would do for {}",
            spares.there,
            percent(spares.share_short),
            percent(spares.goodput.useful),
            spares.enough,
            percent(RARELY)
        ));
    }
    if let Some(by_peak) = &it.mix_by_peak {
        mix(
            &mut page,
            by_peak,
            it.mix_by_measured_rates.as_ref(),
            assumed_mfu,
        );
    }
    if let Some(figure) = &it.fleet_figure {
        identification(&mut page, figure);
    }
    page.text()
}

fn classes(page: &mut Page, forecast: &Forecast) {
    page.heading("each class, were all ranks of it");
    page.line(&format!(
        "  {:<18}{:>9}{:>12}{:>9}",
        "class", "ranks", "step", "MFU"
    ));
    for class in &forecast.classes {
        page.line(&format!(
            "  {:<18}{:>9}{:>12}{:>9}",
            class.name,
            class.ranks,
            format_seconds(class.step.total_s),
            percent(class.mfu_alone)
        ));
    }
}

fn causes(page: &mut Page, forecast: &Forecast) {
    let Some(slowest) = forecast.pace() else {
        return;
    };
    page.heading(&format!(
        "where the step goes, on the class that sets the pace ({})",
        slowest.name
    ));
    for (name, seconds) in slowest.step.causes() {
        if seconds > 0.0 {
            let share = percent(seconds / slowest.step.total_s);
            let time = format_seconds(seconds);
            page.line(&format!("  {name:<27}{time:>12}{share:>9}"));
        }
    }
}

fn waterfall(page: &mut Page, forecast: &Forecast) {
    let fall = &forecast.waterfall;
    page.heading("from kernels to the fleet, in points of MFU over the sum of all own peaks");
    let start = percent(fall.start);
    page.line(&format!("  {:<27}{start:>21}", "kernels, each at own pace"));
    for term in &fall.terms {
        let points = format!("{:.1}", 0.0 - 100.0 * term.points);
        page.line(&format!("  {:<27}{points:>19}", term.cause.to_string()));
    }
    page.line(&format!(
        "  {:<27}{:>21}",
        "MFU of the fleet",
        percent(fall.fleet_mfu)
    ));
    page.line(&format!(
        "  while it steps {}, goodput {}, allocated share {}",
        percent(fall.job_mfu),
        percent(fall.goodput),
        percent(fall.allocated_share)
    ));
    match (forecast.mtbf_s, &forecast.goodput) {
        (Some(mtbf), Some(goodput)) => {
            page.line(&format!(
                "  a failure every {}; a checkpoint every {}; lost to checkpoints {}, work done \
                 twice {}, restarts {}",
                format_span(mtbf),
                format_span(goodput.interval_s),
                percent(goodput.checkpoint),
                percent(goodput.lost_work),
                percent(goodput.restart)
            ));
            page.line(&match forecast.first_order_interval_s {
                Some(interval) => format!(
                    "  Young's and Daly's first-order formula: a checkpoint every {}",
                    format_span(interval)
                ),
                None => "  first-order formulas (Young, Daly) do not hold: checkpoint and restart \
                         are above a fifth of the time between failures"
                    .to_owned(),
            });
        }
        _ => page.line("  failures are left out: no rate is known (failures_per_device_year)"),
    }
}

fn mix(page: &mut Page, by_peak: &Lockstep, measured: Option<&Lockstep>, assumed: f64) {
    page.heading("what the mix alone does, by arithmetic, at equal shares in lock-step");
    page.line(&format!(
        "  {} of {} by itself becomes {}",
        percent(assumed),
        by_peak.slowest,
        percent(by_peak.mfu)
    ));
    let recovered = |it: &Lockstep| {
        let (loss, whole) = (percent(it.loss), percent(it.mfu_divided));
        format!("equal shares lose {loss} of the pace; shares by speed would make it {whole}")
    };
    page.line(&format!("  by the ratio of peaks, {}", recovered(by_peak)));
    match measured {
        Some(it) => page.line(&format!("  by measured rates, {}", recovered(it))),
        None => page.line("  no workload was measured on all of these classes"),
    }
}

fn identification(page: &mut Page, it: &Identification) {
    page.heading(&format!(
        "what could lie behind {} of a whole fleet: {}",
        percent(it.figure),
        it.statement
    ));
    let range = |range: Range| format!("{:.0} to {:.0} %", 100.0 * range.low, 100.0 * range.high);
    let assumed = &it.assumed;
    page.line(&format!(
        "  assumed: jobs at {} of {}, goodput {}, {} of the fleet allocated",
        range(assumed.job_mfu),
        assumed.reference.name,
        range(assumed.goodput),
        range(assumed.allocated_share)
    ));
    page.line(&format!(
        "  {:<14}{:>16}{:>16}{:>18}",
        "over", "job MFU", "goodput", "allocated share"
    ));
    for row in &it.combinations {
        page.line(&format!(
            "  {:<14}{:>16}{:>16}{:>18}",
            row.peak,
            range(row.job_mfu),
            range(row.goodput),
            range(row.allocated_share)
        ));
    }
    for example in &it.examples {
        page.line(&format!(
            "  e.g. {}: over {}, job MFU {}, goodput {}, allocated share {}",
            example.name,
            example.peak,
            percent(example.job_mfu),
            percent(example.goodput),
            percent(example.allocated_share)
        ));
    }
    if it.combinations.is_empty() {
        page.line("  nothing within these ranges");
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
