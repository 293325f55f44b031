//! What a job runs on: one class of accelerators and its links.

use laggard_specs::Accelerator;

use super::Precision;
use crate::error::{SimulateError, positive};
use crate::network::{Fabric, FabricOptions};

/// Accelerators whose kernels reach alike shares of their peaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// NVIDIA Ampere and Ada.
    Ampere,
    /// NVIDIA Hopper.
    Hopper,
    /// NVIDIA Blackwell.
    Blackwell,
    /// Google's TPUs, whose compiler fuses and overlaps.
    Tpu,
    /// All others.
    Other,
}

/// One class of accelerators with its links. Every number can be replaced by a measured one.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Whose kernels it runs.
    pub family: Family,
    /// Peak in single precision outside matrix engines, FLOP/s; `None` where it is not known.
    pub single_peak: Option<f64>,
    /// Dense peak in half precision, FLOP/s.
    pub half_peak: f64,
    /// Dense peak in fp8, FLOP/s; that in half precision where there is none.
    pub fp8_peak: f64,
    /// Dense peak in fp4, FLOP/s; that in fp8 where there is none.
    pub fp4_peak: f64,
    /// Memory bandwidth, bytes/s.
    pub memory_bandwidth: f64,
    /// Memory, bytes.
    pub memory_bytes: f64,
    /// Multiprocessors that share the tiles of a product; 0 where that does not apply.
    pub multiprocessors: f64,
    /// Power limit over that of the family's full-power part, at most 1.
    pub power_share: f64,
    /// Time of products and of attention over what datasheet and constants give; 1 unless a run
    /// has told otherwise ([`Machine::corrected`]).
    pub products_factor: f64,
    /// The same of kernels that are bound by memory.
    pub memory_bound_factor: f64,
    /// The links.
    pub fabric: Fabric,
}

/// Times over what datasheet and constants give: 1 where these are right, 2 where all takes twice
/// as long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corrections {
    /// Of matrix products and of attention.
    pub products: f64,
    /// Of kernels that are bound by memory: element-wise ones and the optimizer's.
    pub memory_bound: f64,
    /// Of collectives and transfers within a site, without waiting.
    pub links: f64,
}

impl Default for Corrections {
    fn default() -> Self {
        Self {
            products: 1.0,
            memory_bound: 1.0,
            links: 1.0,
        }
    }
}

impl Machine {
    /// A machine by its datasheet, with what a cluster changes of its links.
    ///
    /// # Errors
    /// An accelerator without a peak or a memory bandwidth, or links without rates.
    pub fn new(accelerator: &Accelerator, options: &FabricOptions) -> Result<Self, SimulateError> {
        let unknown = |what, key| SimulateError::UnknownRate {
            accelerator: accelerator.id.clone(),
            what,
            key,
        };
        let half_peak = accelerator
            .dense_half_peak()
            .ok_or_else(|| unknown("peak in half precision", "dense_bf16_flop_per_s"))?
            .0;
        let memory_bandwidth = accelerator
            .memory_bandwidth_bytes_per_s
            .ok_or_else(|| unknown("memory bandwidth", "memory_bandwidth_bytes_per_s"))?
            .0;
        let fp8_peak = accelerator.dense_fp8_flop_per_s.map(|peak| peak.0);
        let fp8_peak = fp8_peak.unwrap_or(half_peak);
        let fp4_peak = accelerator.dense_fp4_flop_per_s.map(|peak| peak.0);
        let family = family(accelerator);
        let tiled = !matches!(family, Family::Tpu | Family::Other);
        Ok(Self {
            family,
            single_peak: accelerator.dense_fp32_flop_per_s.map(|peak| peak.0),
            half_peak,
            fp8_peak,
            fp4_peak: fp4_peak.unwrap_or(fp8_peak),
            memory_bandwidth,
            memory_bytes: accelerator
                .memory_bytes
                .map_or(f64::MAX, |size| size.0 as f64),
            multiprocessors: match accelerator.multiprocessors {
                Some(count) if tiled => f64::from(count),
                _ => 0.0,
            },
            power_share: power_share(accelerator),
            products_factor: 1.0,
            memory_bound_factor: 1.0,
            fabric: Fabric::new(accelerator, options)?,
        })
    }

    /// The same machine with times that a run of it has told.
    ///
    /// # Errors
    /// A factor that is not above zero and finite.
    pub fn corrected(&self, corrections: &Corrections) -> Result<Self, SimulateError> {
        let products = positive("correction of products", corrections.products)?;
        let memory_bound = positive(
            "correction of memory-bound kernels",
            corrections.memory_bound,
        )?;
        let links = positive("correction of links", corrections.links)?;
        Ok(Self {
            products_factor: self.products_factor * products,
            memory_bound_factor: self.memory_bound_factor * memory_bound,
            fabric: self.fabric.slowed(links),
            ..self.clone()
        })
    }

    /// What runs have told of it so far.
    #[must_use]
    pub fn corrections(&self) -> Corrections {
        Corrections {
            products: self.products_factor,
            memory_bound: self.memory_bound_factor,
            links: self.fabric.time_factor(),
        }
    }

    /// Dense peak in half precision that kernels as slow as this machine's seem to have, FLOP/s:
    /// what slow machines are told from fast ones by.
    #[must_use]
    pub fn paced_peak(&self) -> f64 {
        self.half_peak / self.products_factor
    }

    /// A machine that takes for half precision what this one takes for single: with the peak of
    /// single precision, and elements of twice the bytes. `None` where that peak is not known.
    pub(crate) fn in_single(&self) -> Option<Self> {
        Some(Self {
            half_peak: self.single_peak?,
            memory_bandwidth: self.memory_bandwidth / 2.0,
            ..self.clone()
        })
    }

    /// Peak of the products of a job, FLOP/s.
    pub(crate) fn peak(&self, precision: Precision) -> f64 {
        match precision {
            Precision::Half => self.half_peak,
            Precision::Fp8 => self.fp8_peak,
            Precision::Fp4 => self.fp4_peak,
        }
    }
}

/// NVIDIA's families by compute capability, Google's by their maker.
fn family(accelerator: &Accelerator) -> Family {
    let capability = accelerator.compute_capability.as_deref();
    let major = capability.and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(8) => Family::Ampere,
        Some(9) => Family::Hopper,
        Some(10..) => Family::Blackwell,
        _ if accelerator.vendor == "Google" => Family::Tpu,
        _ => Family::Other,
    }
}

/// Power limits of the full-power parts whose rated clocks the peaks of their families are given
/// at. Source: NVIDIA datasheets of A100 SXM (400 W), H100 SXM (700 W) and B200 SXM (1000 W).
const FULL_POWER_WATTS: [(&str, f64); 3] = [("8.0", 400.0), ("9.0", 700.0), ("10.0", 1000.0)];

fn power_share(accelerator: &Accelerator) -> f64 {
    let capability = accelerator.compute_capability.as_deref();
    let full = FULL_POWER_WATTS
        .iter()
        .find(|(of, _)| Some(*of) == capability);
    match (full, accelerator.board_power_watts) {
        (Some((_, full)), Some(watts)) => (watts / full).min(1.0),
        _ => 1.0,
    }
}
