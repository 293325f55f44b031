//! Accelerators as their makers describe them.

use laggard_types::{Bytes, BytesPerSecond, FlopPerSecond};
use serde::{Deserialize, Serialize};

use crate::error::SpecsError;
use crate::tables;

/// How far an entry is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The maker's own figures, or several sources that agree.
    High,
    /// One secondary source, or small conflicts between sources.
    Medium,
    /// Recalled or conflicting: check before use.
    Low,
}

/// One accelerator as it is sold. An absent number is unknown or does not exist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// Short unique name.
    pub id: String,
    /// The maker's name of the product.
    pub product: String,
    /// The maker.
    pub vendor: String,
    /// Other exact names, among them what drivers report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Generation.
    pub architecture: String,
    /// CUDA compute capability, `major.minor`.
    pub compute_capability: Option<String>,
    /// Peak of fp32 outside matrix engines.
    pub dense_fp32_flop_per_s: Option<FlopPerSecond>,
    /// Dense matrix peak in TF32.
    pub dense_tf32_flop_per_s: Option<FlopPerSecond>,
    /// Dense matrix peak in bf16.
    pub dense_bf16_flop_per_s: Option<FlopPerSecond>,
    /// Dense matrix peak in fp16.
    pub dense_fp16_flop_per_s: Option<FlopPerSecond>,
    /// Dense matrix peak in fp8.
    pub dense_fp8_flop_per_s: Option<FlopPerSecond>,
    /// Dense matrix peak in fp4.
    pub dense_fp4_flop_per_s: Option<FlopPerSecond>,
    /// Device memory, with the GB of the datasheet as 1e9 bytes.
    pub memory_bytes: Option<Bytes>,
    /// Kind of memory.
    pub memory_type: Option<String>,
    /// Peak memory bandwidth.
    pub memory_bandwidth_bytes_per_s: Option<BytesPerSecond>,
    /// The fabric inside a box or rack.
    pub scale_up_fabric: Option<String>,
    /// Devices that the fabric joins.
    pub scale_up_domain_devices: Option<u32>,
    /// The fabric's bandwidth per device, one direction, all links together.
    pub scale_up_bandwidth_bytes_per_s: Option<BytesPerSecond>,
    /// One device's share of the network cards of a usual server, one direction.
    pub scale_out_bandwidth_bytes_per_s: Option<BytesPerSecond>,
    /// Power limit of the board or module.
    pub board_power_watts: Option<f64>,
    /// Multiprocessors, compute units or matrix engines.
    pub multiprocessors: Option<u32>,
    /// The clock that peaks are rated at.
    pub boost_clock_hz: Option<f64>,
    /// FLOP per clock of one multiprocessor in bf16 or fp16.
    pub half_flop_per_clock_per_multiprocessor: Option<u32>,
    /// Why the printed peak is not what clock and multiprocessors give, where it is not.
    pub clock_mismatch: Option<String>,
    /// Year of launch.
    pub launch_year: Option<u32>,
    /// How far the entry is to be trusted.
    pub confidence: Confidence,
    /// Where the numbers come from.
    pub sources: Vec<String>,
    /// What a user of the numbers must know.
    pub note: Option<String>,
}

impl Accelerator {
    /// The entry as it stands in a table of accelerators, to start one of one's own from.
    ///
    /// # Errors
    /// None for an accelerator of a table.
    pub fn to_toml(&self) -> Result<String, SpecsError> {
        tables::entry("accelerator", self)
    }

    /// Dense matrix peak in bf16 or, on generations without bf16, fp16: the peak that MFU is
    /// divided by unless the job says otherwise.
    #[must_use]
    pub fn dense_half_peak(&self) -> Option<FlopPerSecond> {
        self.dense_bf16_flop_per_s.or(self.dense_fp16_flop_per_s)
    }

    /// The peak that clock and multiprocessors give, where all three factors are known.
    #[must_use]
    pub fn half_peak_from_clock(&self) -> Option<FlopPerSecond> {
        let per_clock = f64::from(self.half_flop_per_clock_per_multiprocessor?);
        Some(FlopPerSecond(
            f64::from(self.multiprocessors?) * self.boost_clock_hz? * per_clock,
        ))
    }

    /// Refuses numbers that are not positive and finite, and entries without a source.
    pub(crate) fn check(&self) -> Result<(), SpecsError> {
        let flop = |rate: Option<FlopPerSecond>| rate.map(|rate| rate.0);
        let bytes = |rate: Option<BytesPerSecond>| rate.map(|rate| rate.0);
        let count = |count: Option<u32>| count.map(f64::from);
        let numbers = [
            ("dense_fp32_flop_per_s", flop(self.dense_fp32_flop_per_s)),
            ("dense_tf32_flop_per_s", flop(self.dense_tf32_flop_per_s)),
            ("dense_bf16_flop_per_s", flop(self.dense_bf16_flop_per_s)),
            ("dense_fp16_flop_per_s", flop(self.dense_fp16_flop_per_s)),
            ("dense_fp8_flop_per_s", flop(self.dense_fp8_flop_per_s)),
            ("dense_fp4_flop_per_s", flop(self.dense_fp4_flop_per_s)),
            (
                "memory_bytes",
                self.memory_bytes.map(|bytes| bytes.0 as f64),
            ),
            (
                "memory_bandwidth_bytes_per_s",
                bytes(self.memory_bandwidth_bytes_per_s),
            ),
            (
                "scale_up_domain_devices",
                count(self.scale_up_domain_devices),
            ),
            (
                "scale_up_bandwidth_bytes_per_s",
                bytes(self.scale_up_bandwidth_bytes_per_s),
            ),
            (
                "scale_out_bandwidth_bytes_per_s",
                bytes(self.scale_out_bandwidth_bytes_per_s),
            ),
            ("board_power_watts", self.board_power_watts),
            ("multiprocessors", count(self.multiprocessors)),
            ("boost_clock_hz", self.boost_clock_hz),
            (
                "half_flop_per_clock_per_multiprocessor",
                count(self.half_flop_per_clock_per_multiprocessor),
            ),
        ];
        let invalid = |field, problem: String| SpecsError::Invalid {
            table: "accelerators",
            id: self.id.clone(),
            field,
            problem,
        };
        for (field, number) in numbers {
            if let Some(number) = number
                && !(number > 0.0 && number.is_finite())
            {
                let problem = format!("is {number}; leave an unknown number out");
                return Err(invalid(field, problem));
            }
        }
        if self.sources.is_empty() {
            return Err(invalid(
                "sources",
                "is empty: every entry needs a source".to_owned(),
            ));
        }
        Ok(())
    }
}
