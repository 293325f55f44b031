//! What a row prints, recomputed from its own throughput and its own way to count FLOP: a check of
//! the row, of the model table and of the conventions, without any model of performance.

use std::ops::RangeInclusive;

use laggard_types::Flop;
use serde::Deserialize;

use super::{PublishedRow, RowKind};
use crate::error::SpecsError;
use crate::flop_count::Recompute;
use crate::tables::{self, Tables};

const EXCEPTIONS: &str = include_str!("../../data/published_exceptions.toml");

/// A figure that rows print beside their throughput.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// TFLOP/s per accelerator.
    TflopPerSecond,
    /// MFU in per cent.
    Mfu,
    /// HFU in per cent.
    Hfu,
}

/// A printed figure beside what the row's own throughput gives.
#[derive(Debug, Clone, PartialEq)]
pub struct FigureCheck {
    /// Which figure.
    pub figure: Figure,
    /// As printed.
    pub published: f64,
    /// As recomputed.
    pub recomputed: f64,
    /// What the source may have rounded to what it prints.
    pub published_range: RangeInclusive<f64>,
    /// What follows from all throughputs that it may have rounded to the one it prints.
    pub recomputed_range: RangeInclusive<f64>,
}

impl FigureCheck {
    /// How far the recomputed figure is from the printed one, relative to it.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.recomputed / self.published - 1.0
    }

    /// Whether the two agree within the rounding of the source.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let (published, recomputed) = (&self.published_range, &self.recomputed_range);
        published.start() <= recomputed.end() && recomputed.start() <= published.end()
    }
}

/// Why a row's figures cannot be recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotRecomputed {
    /// It is no training run on one kind of accelerator.
    NotTraining,
    /// The source does not say how it counts FLOP, or not so that it can be computed.
    UnknownConvention,
    /// The model's shape is unknown.
    UnknownShape,
    /// It prints no throughput, or no figure beside it.
    NothingPrinted,
}

/// Rows whose figures are known not to follow from their throughput.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArithmeticException {
    /// Why.
    pub reason: String,
    /// Where that is seen.
    pub source: String,
    /// Ids of the rows.
    pub rows: Vec<String>,
}

/// Sources that cut off what is behind a whole number where others round.
const TRUNCATING_SOURCES: [&str; 1] = [
    // llm-foundry: https://github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md
    "MPT",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionTable {
    #[serde(rename = "exception", default)]
    exceptions: Vec<ArithmeticException>,
}

/// The rows of [`super::published_training`] whose figures do not follow from their throughput.
///
/// # Errors
/// None in a released laggard: its tests load them.
pub fn arithmetic_exceptions() -> Result<Vec<ArithmeticException>, SpecsError> {
    let table: ExceptionTable = tables::parse("published_exceptions", EXCEPTIONS)?;
    Ok(table.exceptions)
}

impl PublishedRow {
    /// Every figure that this row prints, recomputed from its throughput.
    ///
    /// # Errors
    /// Why nothing can be recomputed.
    pub fn check_figures(&self, tables: &Tables) -> Result<Vec<FigureCheck>, NotRecomputed> {
        if self.kind != RowKind::Train {
            return Err(NotRecomputed::NotTraining);
        }
        let convention = self.convention().ok_or(NotRecomputed::UnknownConvention)?;
        let rate = self.printed_rate().ok_or(NotRecomputed::NothingPrinted)?;
        let printed = self.printed_figures();
        if printed.is_empty() {
            return Err(NotRecomputed::NothingPrinted);
        }
        let model = self.shape(tables).ok_or(NotRecomputed::UnknownShape)?;
        let length = self.seq_len.ok_or(NotRecomputed::UnknownShape)?;
        let recompute = self.recomputation();
        let counted =
            convention.flop_per_token(&model, length, recompute.unwrap_or(Recompute::None));
        let hardware = match counted.model {
            // It counts recomputation by itself.
            None => counted.hardware,
            Some(_) => counted.hardware.filter(|_| recompute.is_some()),
        };
        let mut checks = Vec::new();
        for (figure, published, of_hardware) in printed {
            let flop = if of_hardware { hardware } else { counted.model };
            let per_tflop = match figure {
                Figure::TflopPerSecond => Some(1.0),
                Figure::Mfu | Figure::Hfu => self.peak_tflops_used.map(|peak| 100.0 / peak),
            };
            if let (Some(Flop(flop)), Some(per_tflop)) = (flop, per_tflop) {
                let factor = flop * 1e-12 * per_tflop;
                checks.push(FigureCheck {
                    figure,
                    published,
                    recomputed: factor * rate.value,
                    published_range: self.unrounded(published),
                    recomputed_range: factor * rate.range.start()..=factor * rate.range.end(),
                });
            }
        }
        if checks.is_empty() {
            return Err(NotRecomputed::NothingPrinted);
        }
        Ok(checks)
    }

    /// What backward computes again; `None` if the row does not say, or says something else.
    #[must_use]
    pub fn recomputation(&self) -> Option<Recompute> {
        match self.recompute.as_deref()?.split(' ').next()? {
            "full" => Some(Recompute::Layers),
            "selective" => Some(Recompute::Attention),
            "none" => Some(Recompute::None),
            _ => None,
        }
    }

    /// What this row's source may have rounded to a number that it prints.
    fn unrounded(&self, printed: f64) -> RangeInclusive<f64> {
        let text = printed.to_string();
        let decimals = text
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len());
        let unit = 0.1_f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX));
        let source = self.source_id.as_deref().unwrap_or_default();
        if decimals == 0 && TRUNCATING_SOURCES.contains(&source) {
            printed..=printed + 1.0
        } else {
            printed - 0.5 * unit..=printed + 0.5 * unit
        }
    }

    fn is_derived(&self, column: &str) -> bool {
        self.derived_fields.iter().any(|field| field == column)
    }

    /// Figures that the source prints, and whether each is of the hardware.
    fn printed_figures(&self) -> Vec<(Figure, f64, bool)> {
        let of_hardware = self.tflops_kind.as_deref() == Some("hardware");
        [
            (
                "tflops_per_gpu",
                Figure::TflopPerSecond,
                self.tflops_per_gpu,
                of_hardware,
            ),
            ("mfu_pct", Figure::Mfu, self.mfu_pct, false),
            ("hfu_pct", Figure::Hfu, self.hfu_pct, true),
        ]
        .into_iter()
        .filter(|(column, ..)| !self.is_derived(column))
        .filter_map(|(_, figure, value, hardware)| Some((figure, value?, hardware)))
        .collect()
    }

    /// Tokens per second and accelerator from what the source prints. A rate that was derived from
    /// the very figures that it would be held against tells nothing.
    fn printed_rate(&self) -> Option<Rate> {
        let printed = |column: &str, value: Option<f64>| value.filter(|_| !self.is_derived(column));
        let as_rate = |rate: f64| Rate {
            value: rate,
            range: self.unrounded(rate),
        };
        if let Some(rate) = printed("tokens_per_s_per_gpu", self.tokens_per_s_per_gpu) {
            return Some(as_rate(rate));
        }
        let step = printed("step_time_s", self.step_time_s);
        if let (Some(step), Some(tokens), Some(gpus)) = (step, self.tokens_per_step(), self.gpus) {
            let rate = |seconds: f64| tokens / (seconds * gpus as f64);
            let range = self.unrounded(step);
            return Some(Rate {
                value: rate(step),
                range: rate(*range.end())..=rate(*range.start()),
            });
        }
        None
    }
}

/// Tokens per second and accelerator, and all that may have been rounded to it.
struct Rate {
    value: f64,
    range: RangeInclusive<f64>,
}
