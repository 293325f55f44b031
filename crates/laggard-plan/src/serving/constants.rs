//! What devices reach of their peaks when they serve, and the measurements behind it.

use serde::{Deserialize, Serialize};

use super::{Numbers, Requests, ServingError};
use crate::number::{above_zero, refuse_unless};

const TABLE: &str = include_str!("../../data/serving.toml");

/// What devices reach of their peaks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServingConstants {
    /// Share of the peak that products in 8 and 16 bits reach.
    pub product_share: f64,
    /// Share of the peak that products in 4 bits reach.
    pub fp4_product_share: f64,
    /// Share of all that which a model with experts reaches: its products are small, its experts
    /// unevenly used, and tokens travel to them.
    pub expert_share: f64,
    /// Share of the memory's bandwidth that reading weights, keys and values reaches.
    pub memory_share: f64,
    /// Share of the scale-up bandwidth that sums over a replica's devices reach.
    pub fabric_share: f64,
    /// Share of the memory for weights, keys and values.
    pub usable_memory: f64,
    /// Share of its answer that a sequence holds on average.
    pub held_share_of_answer: f64,
    /// Seconds of a layer in a step beside reading and computing.
    pub layer_seconds: f64,
    /// Seconds of a sequence in a step beside those: sampling, scheduling.
    pub sequence_seconds: f64,
    /// Most sequences of a replica.
    pub most_sequences: u64,
    /// How far a rate is off on a class that the fit did not see: the mean over classes of their
    /// mean error.
    pub error_on_unseen_class: f64,
    /// How far rates are off on the measurements that nothing is fitted on, on average: of other
    /// software, under limits of latency, of further classes.
    pub error_on_mlperf: f64,
    /// Share of the rate that handing requests to several classes costs.
    pub dispatch_loss: DispatchLoss,
    /// Where the numbers come from.
    pub source: String,
}

/// What handing requests to several classes costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchLoss {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
    /// Where the numbers come from.
    pub source: String,
}

/// Measurements of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTable {
    /// Id of the accelerator.
    pub accelerator: String,
    /// Id of the model, or of one of the same shape.
    pub model: String,
    /// Devices of a replica, or the most where it is not known.
    pub devices: u32,
    /// Whether `devices` is only the most.
    #[serde(default)]
    pub up_to: bool,
    /// Numbers of the weights.
    pub numbers: Numbers,
    /// Whether the constants are fitted on it: `expert_share` where the model has experts, else the
    /// others.
    pub fitted: bool,
    /// Most seconds from one token to the next.
    pub most_seconds_per_token: Option<f64>,
    /// Most seconds to the first token.
    pub most_seconds_to_first_token: Option<f64>,
    /// Where it is published.
    pub source: String,
    /// What a user of the numbers must know.
    pub note: Option<String>,
    /// The measurements.
    pub rows: Vec<MeasuredRow>,
}

/// What several accelerators were measured to serve under the same load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTogether {
    /// Id of the model.
    pub model: String,
    /// Tokens of answers per second and device of each.
    pub tokens_per_second: Vec<f64>,
    /// Where it is published.
    pub source: String,
}

/// What classes were measured to serve from one queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredMix {
    /// What the source calls it.
    pub id: String,
    /// What served what.
    pub what: String,
    /// Tokens of answers per second of all together.
    pub tokens_per_second: f64,
    /// The same of the classes alone, added up.
    pub apart_tokens_per_second: f64,
    /// Where it is published.
    pub source: String,
}

/// Seconds per token of one system, by the sequences that it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyTable {
    /// Id of the accelerator.
    pub accelerator: String,
    /// Id of the model, or of one of the same shape.
    pub model: String,
    /// Devices of a replica.
    pub devices: u32,
    /// Numbers of the weights.
    pub numbers: Numbers,
    /// Where it is published.
    pub source: String,
    /// The measurements.
    pub rows: Vec<LatencyRow>,
}

/// A measurement: tokens of a prompt, tokens of an answer, sequences at once, seconds from one
/// token to the next, and the prediction over them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyRow(pub f64, pub f64, pub u64, pub f64, pub f64);

/// A measurement: tokens of a prompt, tokens of an answer, tokens of answers per second and device,
/// and the prediction over it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRow(pub f64, pub f64, pub f64, pub f64);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    constants: ServingConstants,
    measured: Vec<MeasuredTable>,
    mixed: Vec<MeasuredMix>,
    latency: Vec<LatencyTable>,
}

fn table() -> Result<Table, ServingError> {
    toml::from_str(TABLE).map_err(|source| ServingError::Parse {
        source: Box::new(source),
    })
}

impl ServingConstants {
    /// The constants that laggard ships.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn builtin() -> Result<Self, ServingError> {
        let constants = table()?.constants;
        constants.check()?;
        Ok(constants)
    }

    /// The measurements behind them, and others to check them on.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn measured() -> Result<Vec<MeasuredTable>, ServingError> {
        Ok(table()?.measured)
    }

    /// What accelerators were measured to serve under the same load, in the order given: the first
    /// load of the table that all of them were measured under, each in its best replica.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn measured_together(ids: &[&str]) -> Result<Option<MeasuredTogether>, ServingError> {
        let tables = Self::measured()?;
        let of = |id: &str, load: &MeasuredTable, row: &MeasuredRow| {
            let is = |it: &&MeasuredTable| it.accelerator == id && it.is_under_the_load_of(load);
            let mut rows = tables.iter().filter(is).flat_map(|it| &it.rows);
            let same = |it: &&MeasuredRow| it.requests() == row.requests();
            rows.find(same).map(|it| it.2)
        };
        let loads = tables.iter().filter(|it| it.up_to);
        let mut rows = loads.flat_map(|load| load.rows.iter().map(move |row| (load, row)));
        Ok(rows.find_map(|(load, row)| {
            let rates = ids.iter().map(|id| of(id, load, row));
            Some(MeasuredTogether {
                model: load.model.clone(),
                tokens_per_second: rates.collect::<Option<_>>()?,
                source: load.source.clone(),
            })
        }))
    }

    /// What classes were measured to serve from one queue: the loss of handing requests out is
    /// taken from it.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn measured_mixes() -> Result<Vec<MeasuredMix>, ServingError> {
        Ok(table()?.mixed)
    }

    /// Measured latencies, which the constants are fitted on too.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn latencies() -> Result<Vec<LatencyTable>, ServingError> {
        Ok(table()?.latency)
    }

    fn check(&self) -> Result<(), ServingError> {
        let shares = [
            ("product_share", self.product_share),
            ("fp4_product_share", self.fp4_product_share),
            ("expert_share", self.expert_share),
            ("memory_share", self.memory_share),
            ("fabric_share", self.fabric_share),
            ("usable_memory", self.usable_memory),
            ("held_share_of_answer", self.held_share_of_answer),
        ];
        for (what, value) in shares {
            let is_share = value > 0.0 && value <= 1.0;
            refuse_unless(is_share, what, value, "above zero and at most 1")?;
        }
        above_zero("layer_seconds", self.layer_seconds)?;
        above_zero("sequence_seconds", self.sequence_seconds)?;
        above_zero("most_sequences", self.most_sequences as f64)?;
        Ok(())
    }
}

impl MeasuredRow {
    /// Tokens of a prompt and of an answer.
    fn requests(&self) -> [u64; 2] {
        [self.0 as u64, self.1 as u64]
    }
}

impl MeasuredTable {
    /// Whether the same was asked of both: model and limits of latency, in the best replica.
    fn is_under_the_load_of(&self, other: &Self) -> bool {
        let asked = |it: &Self| {
            let limits = [it.most_seconds_per_token, it.most_seconds_to_first_token];
            (
                it.model.clone(),
                it.up_to,
                limits.map(|it| it.map(f64::to_bits)),
            )
        };
        asked(self) == asked(other)
    }

    /// The requests of a row.
    #[must_use]
    pub fn requests(&self, row: &MeasuredRow) -> Requests {
        Requests {
            input_tokens: row.0,
            output_tokens: row.1,
            most_seconds_per_token: self.most_seconds_per_token,
            most_seconds_to_first_token: self.most_seconds_to_first_token,
        }
    }
}
