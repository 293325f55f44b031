//! The smallest change that makes a plan possible where none is.

use laggard_types::format_bytes;

use super::search::Search;
use crate::layouts::{NoLayout, USABLE_MEMORY, fastest_layouts};
use crate::problem::{PlanError, Problem};

/// More devices than this are not looked for.
const MOST_DEVICES: u64 = 1 << 24;

/// Why nothing trains, and what would have to change.
pub(super) fn infeasible(problem: &Problem<'_>, search: &Search<'_>, on: &[u64]) -> PlanError {
    let model = problem.training.model.name.clone();
    if problem.classes.iter().all(|class| class.free() == 0) {
        return PlanError::Infeasible {
            model,
            reason: "what is in reserve or serves leaves nothing".to_owned(),
            relaxation: "a smaller --reserve, or less to serve".to_owned(),
        };
    }
    if on.iter().all(|&count| count == 0) {
        return PlanError::Infeasible {
            model,
            reason: "the power limit leaves no host on".to_owned(),
            relaxation: power(problem),
        };
    }
    let nearest = search
        .refusals
        .iter()
        .min_by(|a, b| excess(a).total_cmp(&excess(b)));
    let (reason, memory) = match nearest {
        Some(NoLayout::Memory {
            ranks,
            needed,
            available,
            ..
        }) => (
            format!(
                "the layout that needs least on {ranks} devices takes {} on each, and {} can be \
                 planned with",
                format_bytes(*needed),
                format_bytes(*available)
            ),
            Some(*needed as f64 / USABLE_MEMORY),
        ),
        Some(NoLayout::Shape { ranks, batch, .. }) => (
            format!("no layout divides {batch} sequences over {ranks} devices"),
            None,
        ),
        _ => ("no layout divides the devices that are on".to_owned(), None),
    };
    let memory = memory.map(|bytes| {
        let bytes = format_bytes(bytes.ceil() as u64);
        format!(", or {bytes} of memory on each")
    });
    PlanError::Infeasible {
        model,
        reason,
        relaxation: devices(problem, on) + &memory.unwrap_or_default(),
    }
}

/// How far a refused set of devices is from fitting.
fn excess(refusal: &NoLayout) -> f64 {
    match refusal {
        NoLayout::Memory {
            needed, available, ..
        } => *needed as f64 / *available as f64,
        _ => f64::MAX,
    }
}

/// The least power at which a host of some class is on.
fn power(problem: &Problem<'_>) -> String {
    let of = |class: &crate::problem::Class| {
        Some(class.node_devices as f64 * problem.watts_at_meter(class)?)
    };
    let least = problem
        .classes
        .iter()
        .filter_map(of)
        .fold(f64::MAX, f64::min);
    format!("{:.4} MW run one host", least / 1e6)
}

/// The fewest devices of one class that the model fits on: from those that are on doubled until
/// there is a layout, then by halves.
fn devices(problem: &Problem<'_>, on: &[u64]) -> String {
    let fits = |class: usize, ranks: u64| {
        let space = problem.space(ranks, &[class]);
        let machine = &problem.classes[class].of.machine;
        fastest_layouts(&problem.demand(), space, machine, &problem.constants, 1).is_ok()
    };
    let fewest = |class: usize| {
        let mut low = on[class];
        let mut high = low.max(1);
        while !fits(class, high) {
            low = high;
            high *= 2;
            if high > MOST_DEVICES {
                return None;
            }
        }
        while low + 1 < high {
            let middle = u64::midpoint(low, high);
            if fits(class, middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some((high, class))
    };
    let found = (0..problem.classes.len()).filter_map(fewest).min();
    match found {
        Some((count, class)) => {
            let of = &problem.classes[class];
            let what = match count {
                _ if count > of.of.count => return format!("{count} {} would do", of.of.name),
                _ if count <= of.free() => "a higher power limit",
                _ if of.serve == 0 => "a smaller --reserve",
                _ if of.reserve == 0 => "less to serve",
                _ => "a smaller --reserve, or less to serve",
            };
            format!(
                "{what}: {count} {} would do, of {} that there are",
                of.of.name, of.of.count
            )
        }
        None => "no number of these devices would do: choose another batch or sequence".to_owned(),
    }
}
