//! MFU and HFU of one step under every convention: what `laggard mfu` prints.

use laggard_types::{Flop, FlopPerSecond};
use serde::Serialize;

use crate::convention::Convention;
use crate::error::SpecsError;
use crate::flop_count::Recompute;
use crate::model::Model;

/// A training step as a job saw it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ObservedStep {
    /// Tokens per second of all devices together.
    pub tokens_per_s: f64,
    /// Accelerators.
    pub devices: u64,
    /// Tokens of a sequence.
    pub sequence_length: u64,
    /// What backward computes again.
    pub recompute: Recompute,
    /// The peak of one device that MFU is divided by.
    pub peak_flop_per_s: FlopPerSecond,
}

/// How well a step uses its accelerators, under every convention.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Utilization {
    /// Id of the model.
    pub model: String,
    /// The step.
    pub step: ObservedStep,
    /// Tokens per second of one device.
    pub tokens_per_s_per_device: f64,
    /// Under laggard's own convention.
    pub canonical: ConventionFigures,
    /// Under all, laggard's own first.
    pub conventions: Vec<ConventionFigures>,
}

/// The figures of a step under one convention. What its sources never print is absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ConventionFigures {
    /// Name of the convention.
    pub convention: &'static str,
    /// What it counts.
    pub counts: &'static str,
    /// FLOP of the model.
    pub model: Option<Share>,
    /// FLOP of the hardware, recomputation included.
    pub hardware: Option<Share>,
}

/// FLOP of a step and what they are of the peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// FLOP per token.
    pub flop_per_token: Flop,
    /// FLOP per second of one device.
    pub flop_per_s_per_device: FlopPerSecond,
    /// Of the peak: MFU, or HFU of the hardware. 1 is all of it.
    pub of_peak: f64,
}

/// MFU and HFU of a step of a model under every convention that fits the model.
///
/// # Errors
/// A step without devices or tokens, or numbers that are not positive and finite.
pub fn utilization(model: &Model, step: &ObservedStep) -> Result<Utilization, SpecsError> {
    let wrong = |what, problem: String| SpecsError::Step { what, problem };
    for (what, number) in [
        ("tokens per second", step.tokens_per_s),
        ("the peak", step.peak_flop_per_s.0),
    ] {
        if !(number > 0.0 && number.is_finite()) {
            return Err(wrong(what, format!("is {number}, but must be above 0")));
        }
    }
    for (what, count) in [
        ("the number of accelerators", step.devices),
        ("the sequence length", step.sequence_length),
    ] {
        if !(1..=1 << 40).contains(&count) {
            return Err(wrong(
                what,
                format!("is {count}, but must be from 1 to 2^40"),
            ));
        }
    }
    let rate = step.tokens_per_s / step.devices as f64;
    let share = |flop: Flop| Share {
        flop_per_token: flop,
        flop_per_s_per_device: FlopPerSecond(flop.0 * rate),
        of_peak: flop.0 * rate / step.peak_flop_per_s.0,
    };
    let figures = |convention: Convention| {
        let counted = convention.flop_per_token(model, step.sequence_length, step.recompute);
        ConventionFigures {
            convention: convention.id(),
            counts: convention.describe(),
            model: counted.model.map(share),
            hardware: counted.hardware.map(share),
        }
    };
    let fitting = Convention::all()
        .iter()
        .filter(|convention| convention.fits(model));
    Ok(Utilization {
        model: model.id.clone(),
        step: *step,
        tokens_per_s_per_device: rate,
        canonical: figures(Convention::Causal),
        conventions: fitting.map(|&convention| figures(convention)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Tables;

    fn step() -> ObservedStep {
        ObservedStep {
            tokens_per_s: 8.0 * 6667.0,
            devices: 8,
            sequence_length: 8192,
            recompute: Recompute::None,
            peak_flop_per_s: FlopPerSecond(989e12),
        }
    }

    /// torchtitan's table: Llama 3 8B, 6667 tokens/s on each of 8 H100, "39 %".
    #[test]
    fn one_step_under_all_conventions() {
        let tables = Tables::builtin().unwrap();
        let llama = tables.model("llama3-8b").unwrap();
        let found = utilization(llama, &step()).unwrap();
        assert!((found.tokens_per_s_per_device - 6667.0).abs() < 1e-9);
        let of = |name: &str| {
            let mut all = found.conventions.iter();
            all.find(|figures| figures.convention == name).unwrap()
        };
        let mfu = |name: &str| 100.0 * of(name).model.unwrap().of_peak;
        assert!((mfu("causal") - 34.7).abs() < 0.05, "{}", mfu("causal"));
        assert!((mfu("titan") - 39.04).abs() < 0.01, "{}", mfu("titan"));
        assert_eq!(found.conventions[0], found.canonical);
        assert_eq!(of("narayanan96").model, None);
        // Conventions of another model are left out.
        let has = |model: &str, name: &str| {
            let found = utilization(tables.model(model).unwrap(), &step()).unwrap();
            found.conventions.iter().any(|it| it.convention == name)
        };
        assert!(has("gpt-oss-20b", "mbridge-gpt-oss-new"));
        assert!(!has("llama3-8b", "mbridge-gpt-oss-new"));
    }

    #[test]
    fn impossible_steps_are_refused() {
        let tables = Tables::builtin().unwrap();
        let llama = tables.model("llama3-8b").unwrap();
        let check = |change: &dyn Fn(&mut ObservedStep), expect: &str| {
            let mut step = step();
            change(&mut step);
            let error = utilization(llama, &step).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&|step| step.devices = 0, "accelerators is 0");
        check(&|step| step.sequence_length = 0, "sequence length is 0");
        check(
            &|step| step.tokens_per_s = f64::NAN,
            "tokens per second is NaN",
        );
        check(
            &|step| step.peak_flop_per_s = FlopPerSecond(0.0),
            "peak is 0",
        );
    }
}
