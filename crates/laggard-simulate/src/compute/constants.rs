//! The constants of the cost model: few, global, each with what it means, what was known of it
//! before any fit, and what the fit made of it.

use serde::Deserialize;

use crate::error::{SimulateError, positive};

const TABLE: &str = include_str!("../../data/cost_model.toml");

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A constant of the cost model.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Constant {
            $($(#[$doc])* $name,)*
        }

        impl Constant {
            /// Every constant.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$name,)*];
            /// How many there are.
            pub const COUNT: usize = [$(stringify!($name),)*].len();
        }
    };
}

constants! {
    /// Share of the half-precision peak that large products reach on Ampere.
    ProductShareAmpere,
    /// The same on Hopper.
    ProductShareHopper,
    /// The same on Blackwell.
    ProductShareBlackwell,
    /// The same on TPUs.
    ProductShareTpu,
    /// The same on all others.
    ProductShareOther,
    /// Share of the fp8 peak over that of the half-precision peak.
    Fp8Share,
    /// Share of the fp4 peak over that of the half-precision peak.
    Fp4Share,
    /// Products of power-limited parts run at the power share to this exponent.
    PowerExponent,
    /// Inner channels that a product loses to its beginning and end.
    ProductDepth,
    /// How much of the unfilled last wave of tiles is lost.
    WaveQuantisation,
    /// Share of the memory bandwidth that kernels reach.
    MemoryShare,
    /// Share of the peak that flash attention reaches on Ampere, causal FLOP counted.
    FlashShareAmpere,
    /// The same on Hopper.
    FlashShareHopper,
    /// The same on all others.
    FlashShareOther,
    /// Rate of flash attention backward over forward.
    FlashBackward,
    /// Rate of the batched products of attention over that of large products.
    BatchedProductShare,
    /// Bytes per score of fused softmax, forward.
    SoftmaxBytes,
    /// The same with a kernel for each step.
    EagerSoftmaxBytes,
    /// Rate of attention products whose head dimension is no multiple of eight.
    MisalignedHead,
    /// Bytes of element-wise kernels over those that fused kernels must move.
    Elementwise,
    /// The same over it without fusion.
    NativeElementwise,
    /// What unfused RMS norms, rotations and gates add, relative to what their operations move.
    EagerElementwise,
    /// Bytes per parameter and micro-batch of gradients that products add up.
    FusedAccumulation,
    /// The same with kernels of their own.
    SeparateAccumulation,
    /// Seconds in which the host can issue a layer, forward and backward, kernel by kernel.
    HostLayer,
    /// Seconds that the host adds to a micro-batch on each stage.
    HostMicroBatch,
    /// Seconds of the host's own between the layers of one micro-batch and those of the next where
    /// stages hand on: it waits for transfers, and then issues to a device that has nothing queued.
    HostTransfer,
    /// Share of tensor-parallel communication that is exposed where products wait for it.
    TensorExposed,
    /// The same of backward beside the products that make gradients of weights.
    TensorBackwardExposed,
    /// The same beside the products that it feeds.
    TensorOverlappedExposed,
    /// The same of context-parallel communication.
    ContextExposed,
    /// The same of expert-parallel communication.
    ExpertExposed,
    /// The same of transfers between stages.
    TransferExposed,
    /// Least share of gradient reduction that is exposed where it is overlapped.
    GradientExposed,
    /// Least share of gathering and scattering sharded parameters that is exposed.
    ShardExposed,
    /// Share of computing under which communication can hide.
    OverlapShare,
    /// Bytes that the optimizer moves per parameter.
    OptimizerBytes,
    /// Seconds per owner of an update that owners broadcast one after the other.
    OwnerBroadcast,
    /// Bytes per logit of the loss, forward and backward.
    LogitBytes,
    /// Bytes per routed token and channel of sorting by experts and back, forward.
    RoutingBytes,
    /// Seconds of a step that depend on nothing else.
    StepFixed,
    /// Share by which a step grows with each doubling of ranks beyond eight, where replicas meet
    /// once a step.
    Jitter,
    /// The same where they meet in every layer, as with sharded parameters.
    LayerJitter,
}

/// Values of all constants.
#[derive(Debug, Clone, PartialEq)]
pub struct Constants {
    values: [f64; Constant::COUNT],
}

/// A constant as the table has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstantEntry {
    /// Which constant.
    pub name: Constant,
    /// Its value, as fitted.
    pub value: f64,
    /// What was known of it before.
    pub prior: f64,
    /// How well: the standard deviation of its logarithm.
    pub spread: f64,
    /// A value that it cannot exceed.
    pub most: Option<f64>,
    /// Where the prior comes from.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    constant: Vec<ConstantEntry>,
}

impl Constants {
    /// The constants that laggard ships.
    ///
    /// # Errors
    /// None in a released laggard: its tests load them.
    pub fn builtin() -> Result<Self, SimulateError> {
        Self::from_entries(&Self::builtin_entries()?)
    }

    /// The table that laggard ships, with priors and sources, in the order of [`Constant::ALL`].
    ///
    /// # Errors
    /// None in a released laggard.
    pub fn builtin_entries() -> Result<Vec<ConstantEntry>, SimulateError> {
        Self::entries_from_toml_str(TABLE)
    }

    /// A table from text, in the order of [`Constant::ALL`].
    ///
    /// # Errors
    /// Text that is no such table, or a constant that is missing or stands twice.
    pub fn entries_from_toml_str(text: &str) -> Result<Vec<ConstantEntry>, SimulateError> {
        let table: Table = toml::from_str(text).map_err(|source| SimulateError::Parse {
            table: "constants",
            source: Box::new(source),
        })?;
        let entry = |constant| {
            let mut of = table.constant.iter().filter(|entry| entry.name == constant);
            match (of.next(), of.count()) {
                (Some(entry), 0) => Ok(entry.clone()),
                (first, more) => Err(SimulateError::ConstantEntries {
                    constant,
                    count: more + usize::from(first.is_some()),
                }),
            }
        };
        Constant::ALL.into_iter().map(entry).collect()
    }

    /// The values of a table.
    ///
    /// # Errors
    /// A value that is not finite and above zero.
    pub fn from_entries(entries: &[ConstantEntry]) -> Result<Self, SimulateError> {
        let mut constants = Self {
            values: [1.0; Constant::COUNT],
        };
        for entry in entries {
            let value = positive(format!("constant {:?}", entry.name), entry.value)?;
            constants.set(entry.name, value);
        }
        Ok(constants)
    }

    /// The value of a constant.
    #[must_use]
    pub fn get(&self, constant: Constant) -> f64 {
        self.values[constant as usize]
    }

    /// Changes a constant.
    pub fn set(&mut self, constant: Constant, value: f64) {
        self.values[constant as usize] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_constant_once_within_its_bounds() {
        let entries = Constants::builtin_entries().expect("a table");
        for entry in &entries {
            let name = entry.name;
            assert!(entry.prior > 0.0 && entry.spread > 0.0, "{name:?}");
            assert!(!entry.source.trim().is_empty(), "{name:?}");
            if let Some(most) = entry.most {
                assert!(entry.value <= most, "{name:?}");
            }
            let deviation = (entry.value / entry.prior).ln() / entry.spread;
            assert!(
                deviation.abs() < 5.0,
                "{name:?} is {deviation} deviations off"
            );
        }
        assert_eq!(entries.len(), Constant::COUNT);
    }

    #[test]
    fn incomplete_tables_are_refused() {
        let entry = "[[constant]]\nname = \"jitter\"\nvalue = 1.0\nprior = 1.0\nspread = 1.0\n\
                     source = \"none\"\n";
        let missing = Constants::entries_from_toml_str(entry).expect_err("one constant");
        assert!(matches!(
            missing,
            SimulateError::ConstantEntries { count: 0, .. }
        ));
        let unknown = entry.replace("jitter", "jiter");
        let error = Constants::entries_from_toml_str(&unknown).expect_err("a typo");
        assert!(error.to_string().contains("jiter"), "{error}");
        let mut entries = Constants::builtin_entries().expect("a table");
        entries[0].value = f64::NAN;
        let nan = Constants::from_entries(&entries).expect_err("not a number");
        assert!(matches!(nan, SimulateError::OutOfRange { .. }));
    }
}
