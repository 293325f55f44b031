//! Distributions of relative errors.

use std::collections::BTreeMap;

use serde::Serialize;

use super::PublishedComparison;

/// How rows are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKey {
    /// By source.
    Source,
    /// By family of models: the letters that their names begin with.
    Model,
    /// By accelerator.
    Accelerator,
    /// By number of accelerators, in powers of eight.
    Scale,
    /// By framework.
    Framework,
}

impl GroupKey {
    fn of(self, row: &PublishedComparison) -> String {
        match self {
            Self::Source => row.source.clone(),
            Self::Model => family(&row.model),
            Self::Accelerator => row.accelerator.clone(),
            Self::Framework => row.framework.clone(),
            Self::Scale => {
                let from = 8_u64.pow(row.accelerators.max(1).ilog(8));
                format!("{from:>6} to {:>6}", from.saturating_mul(8) - 1)
            }
        }
    }
}

/// Errors of a group of rows. Every source has the same weight, however many rows it has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorSummary {
    /// What the rows have in common.
    pub group: String,
    /// Rows.
    pub rows: usize,
    /// Sources that they come from.
    pub sources: usize,
    /// Median of the absolute relative errors.
    pub median_absolute_relative_error: f64,
    /// Their 90th percentile.
    pub p90_absolute_relative_error: f64,
    /// Median of the relative errors: above zero where predictions are too fast.
    pub median_relative_error: f64,
}

/// Errors of some rows together; `None` without rows.
#[must_use]
pub fn summary(group: &str, rows: &[&PublishedComparison]) -> Option<ErrorSummary> {
    let mut of_source: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *of_source.entry(&row.source).or_default() += 1;
    }
    let weight = |row: &PublishedComparison| 1.0 / of_source[row.source.as_str()] as f64;
    let weighted = |absolute: bool| -> Vec<(f64, f64)> {
        let error = |error: f64| if absolute { error.abs() } else { error };
        rows.iter()
            .map(|row| (error(row.relative_error), weight(row)))
            .collect()
    };
    let absolute = weighted(true);
    Some(ErrorSummary {
        group: group.to_owned(),
        rows: rows.len(),
        sources: of_source.len(),
        median_absolute_relative_error: weighted_quantile(&absolute, 0.5)?,
        p90_absolute_relative_error: weighted_quantile(&absolute, 0.9)?,
        median_relative_error: weighted_quantile(&weighted(false), 0.5)?,
    })
}

/// Errors of each group, in the order of their names.
#[must_use]
pub fn summaries(rows: &[&PublishedComparison], key: GroupKey) -> Vec<ErrorSummary> {
    let mut groups: BTreeMap<String, Vec<&PublishedComparison>> = BTreeMap::new();
    for row in rows {
        groups.entry(key.of(row)).or_default().push(row);
    }
    let each = groups.iter().filter_map(|(name, rows)| summary(name, rows));
    each.collect()
}

/// `llama` of `Llama 3.1 405B` and of `LLAMA2-7B`.
fn family(model: &str) -> String {
    let letters = model.chars().take_while(|letter| letter.is_alphabetic());
    let name: String = letters.flat_map(char::to_lowercase).collect();
    if name.is_empty() {
        model.to_owned()
    } else {
        name
    }
}

/// The smallest value at or below which lies `share` of the weight.
fn weighted_quantile(values: &[(f64, f64)], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    for (value, weight) in &sorted {
        below += weight;
        // Sums of weights are exact only up to rounding.
        if below >= share * total * (1.0 - 1e-12) {
            return Some(*value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_the_letters_before_sizes() {
        let check = |model: &str, expect: &str| assert_eq!(family(model), expect, "{model}");
        check("Llama 3.1 405B", "llama");
        check("LLAMA2-7B", "llama");
        check("GPT-3 175B", "gpt");
        check("175B", "175B");
        check("", "");
    }

    #[test]
    fn quantiles_weigh_values() {
        let values = [(3.0, 1.0), (1.0, 1.0), (2.0, 2.0)];
        assert_eq!(weighted_quantile(&values, 0.25), Some(1.0));
        assert_eq!(weighted_quantile(&values, 0.5), Some(2.0));
        assert_eq!(weighted_quantile(&values, 0.9), Some(3.0));
        assert_eq!(weighted_quantile(&[], 0.5), None);
    }
}
