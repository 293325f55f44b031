//! What a device of each class is worth in each use, what is served, and what an owner pays.

use super::numbers::{digits, percent};
use crate::command::plan::{Plan, words};
use crate::page::Page;
use laggard_plan::{ByClass, LetFirst, Offer};

/// Numbers are printed in thousands.
const THOUSAND: f64 = 1e3;

pub(super) fn by_class(page: &mut Page, plan: &Plan) {
    let all = &plan.by_class;
    page.heading("a device of each class");
    page.line(&format!(
        "  {:<14}{:>10}{:>9}{:>13}{:>12}{:>11}{:>10}{:>11}",
        "", "trains/s", "rents at", "pays from", "serves/s", "$/Mtok =", "ms/token", "replica of"
    ));
    let known = |value: Option<f64>| value.map_or("?".to_owned(), digits);
    let price = |value: Option<f64>| value.map_or("?".to_owned(), |it| format!("{it:.2}"));
    for class in &all.classes {
        let offer = offer(plan, &class.class);
        let of_offer = |text: fn(&Offer) -> String| offer.map_or("-".to_owned(), text);
        let even = match all.cheapest.as_ref() == Some(&class.class) {
            true => "cheapest".to_owned(),
            false => price(class.break_even_lease),
        };
        page.line(&format!(
            "  {:<14}{:>10}{:>9}{even:>13}{:>12}{:>11}{:>10}{:>11}",
            class.class,
            known(class.training_tokens_per_s),
            price(class.lease_dollars_per_hour),
            of_offer(|it| format!("{:.0}", it.tokens_per_s)),
            offer.map_or("-".to_owned(), |it| {
                it.lease_dollars_per_million_tokens
                    .map_or("?".to_owned(), |it| format!("{it:.3}"))
            }),
            of_offer(|it| format!("{:.1}", it.seconds_per_token * THOUSAND)),
            of_offer(|it| it.replica_devices.to_string()),
        ));
    }
    legend(page, plan);
    opposite_jobs(page, all);
}

fn offer<'p>(plan: &'p Plan, class: &str) -> Option<&'p Offer> {
    let serving = plan.serving.as_ref()?;
    serving.offers.offers.iter().find(|it| it.class == class)
}

fn legend(page: &mut Page, plan: &Plan) {
    let all = &plan.by_class;
    let mut text = format!(
        "trains: tokens/s in a job of {} of its class; rents at: $/h",
        all.devices
    );
    if let Some(cheapest) = &all.cheapest {
        text += &format!(
            "; pays from: $/h above which a lease pays for {cheapest} elsewhere that train more"
        );
    }
    if let Some(flat) = all.flat_lease_dollars_per_hour {
        text += &format!(" (the account of this site's lease says {flat:.2} for any)");
    }
    if let Some(serving) = &plan.serving {
        let offers = &serving.offers;
        text += &format!(
            "; serves: answers of {}, {:.0} tokens for prompts of {:.0}, off by {} on average; \
             $/Mtok =: price at which that earns the rent",
            offers.model,
            offers.tokens.1,
            offers.tokens.0,
            percent(offers.error)
        );
        if !plan.calibrated_on.is_empty() {
            text += ", classes being as far off their datasheets as calibrated";
        }
    }
    page.sentence(2, &text);
}

/// How a lease is paid, and which class it takes: as measured where it was, and as predicted where
/// that differs.
fn opposite_jobs(page: &mut Page, all: &ByClass) {
    if let Some(measured) = &all.measured {
        let from = " (MLPerf Training and Inference; sources with --format json)";
        page.sentence(2, &format!("measured: {}{from}", let_first(measured)));
    }
    let is_other = |it: &&LetFirst| {
        let measured = all.measured.as_ref();
        measured.is_none_or(|of| (&of.by_token, &of.by_hour) != (&it.by_token, &it.by_hour))
    };
    if let Some(predicted) = all.predicted.as_ref().filter(is_other) {
        page.sentence(2, &format!("predicted: {}", let_first(predicted)));
    }
}

fn let_first(it: &LetFirst) -> String {
    let ratio = |of: &[f64]| {
        of.iter()
            .map(|it| format!("{it:.2}"))
            .collect::<Vec<_>>()
            .join(" : ")
    };
    let turns = match it.depends_on_payment() {
        true => "how a lease is paid turns the answer",
        false => "the answer is the same however a lease is paid",
    };
    format!(
        "{} train {} and serve {}: {turns}: by the token let {} first, at one price an hour {}",
        it.classes.join(" : "),
        ratio(&it.trains),
        ratio(&it.serves),
        it.by_token.join(", "),
        it.by_hour.join(", ")
    )
}

pub(in crate::command::plan) fn serving(page: &mut Page, plan: &Plan) {
    let Some(serving) = &plan.serving else { return };
    let together = &serving.offers.together;
    let mut text = format!(
        "all of them serving: {:.3e} to {:.3e} tokens/s",
        together.low, together.high
    );
    if serving.offers.offers.len() > 1 {
        text += ", the sum of the classes less at most what handing out requests was measured to \
                 cost: replicas wait for nobody";
        if let Some(lost) = plan.by_class.lost_in_lockstep {
            text += &format!("; one training job in equal shares loses {}", percent(lost));
        }
    }
    page.sentence(2, &text);
    for (class, reason) in &serving.offers.refused {
        page.sentence(2, &format!("{class} does not serve: {reason}"));
    }
    let Some(demand) = &serving.demand else {
        return;
    };
    page.sentence(2, &words::served(demand));
}

pub(super) fn owner(page: &mut Page, plan: &Plan) {
    let Some(owner) = &plan.owner else { return };
    page.heading("owned, not rented");
    for class in &plan.classes {
        let Some(hour) = owner.dollars_per_used_hour.get(&class.name) else {
            continue;
        };
        let lacks = owner
            .lacking
            .get(&class.name)
            .map_or(&[][..], Vec::as_slice);
        let without = match lacks {
            [] => String::new(),
            _ => format!(", without {}, which nothing says", lacks.join(", ")),
        };
        let rents = class.dollars_per_hour.map_or(String::new(), |rent| {
            // What is lacking only makes owning dearer.
            let better = match (rent > *hour, lacks) {
                (true, []) => ": owning is cheaper",
                (true, _) => "",
                (false, _) => ": renting is cheaper",
            };
            format!("; rents at {rent:.2}{better}")
        });
        page.line(&format!(
            "  {}: {hour:.2} $ for an hour of use{without}{rents}",
            class.name
        ));
    }
    let bill = &owner.bill;
    let (income, cost) = (bill.income_dollars_per_hour, bill.cost_dollars_per_hour);
    let net = bill.net_dollars_per_hour();
    page.line(&format!(
        "  the best option: {} k$/h in, {} k$/h out, {} k$/h left",
        digits(income.typical / THOUSAND),
        digits(cost.typical / THOUSAND),
        digits(net.typical / THOUSAND)
    ));
    let rent = bill.rent_dollars_per_hour;
    if let Some(rent) = rent {
        page.line(&format!(
            "  a tenant pays {} k$/h for all of it",
            digits(rent.typical / THOUSAND)
        ));
    }
    let left_out = bill.left_out.iter().map(|it| match &it.pool {
        Some(pool) => format!("{} of {pool}", it.what),
        None => it.what.clone(),
    });
    let left_out: Vec<String> = left_out.collect();
    if !left_out.is_empty() {
        page.sentence(2, &format!("not counted: {}", left_out.join(", ")));
    }
}
