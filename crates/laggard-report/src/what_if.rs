//! What one unit at its ideal would save, and what exposed communication is made of: the rows and
//! words that all formats share.

use crate::figure;
use laggard_analyze::{Analysis, Unit, WhatIfUnit};

/// Savings below this share of wall time are in the JSON only.
const SHOWN_FROM: f64 = 0.001;
/// Units of each kind that are shown.
const SHOWN: usize = 3;

/// What the table says, in words.
pub(crate) fn remark(analysis: &Analysis) -> String {
    let steps = figure::plural(analysis.what_if.steps as usize, "step");
    format!("one unit as its peers are on average, all else as measured, over {steps}")
}

/// The units that would save something, at most a few of each kind.
pub(crate) fn rows(analysis: &Analysis) -> Vec<&WhatIfUnit> {
    let mut shown = [0; 4];
    let units = analysis.what_if.units.iter();
    units
        .filter(|unit| unit.saved.value >= SHOWN_FROM)
        .filter(|unit| {
            let count = match unit.unit {
                Unit::Rank(_) => &mut shown[0],
                Unit::Host(_) => &mut shown[1],
                Unit::Stage(_) => &mut shown[2],
                Unit::Class(_) => &mut shown[3],
            };
            *count += 1;
            *count <= SHOWN
        })
        .collect()
}

/// `66 %`, or a dash where the loss is too small to be divided.
pub(crate) fn of_loss(row: &WhatIfUnit) -> String {
    row.of_loss.map_or_else(|| "-".to_owned(), figure::percent)
}

/// `tp 3.1 % [3.0, 3.2], dp 0.8 % [0.7, 0.9]`; nothing where there is one axis only.
pub(crate) fn exposed(analysis: &Analysis) -> Option<String> {
    let axes = &analysis.exposed_communication;
    let is_large = axes.iter().any(|axis| axis.share.value.abs() >= SHOWN_FROM);
    let part = |axis: &laggard_analyze::ExposedAxis| {
        format!("{} {}", axis.axis, figure::percent_estimate(&axis.share))
    };
    let parts: Vec<String> = axes.iter().map(part).collect();
    (axes.len() > 1 && is_large).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn few_of_each_kind_are_shown_and_none_that_saves_nothing() {
        let analysis = examples::mixed();
        let names: Vec<&str> = rows(&analysis)
            .iter()
            .map(|row| row.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "rank 5",
                "rank 1",
                "rank 3",
                "host host-1",
                "class H100-like"
            ]
        );
        assert!(rows(&examples::clean()).is_empty());
    }

    #[test]
    fn parts_of_communication_are_named_where_there_are_several() {
        let words = exposed(&examples::mixed()).unwrap();
        assert_eq!(words, "tp 3.0 % [2.9, 3.1], dp 1.3 % [1.2, 1.4]");
        assert_eq!(exposed(&examples::clean()), None);
    }
}
