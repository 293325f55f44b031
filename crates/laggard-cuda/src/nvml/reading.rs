//! What is known of a GPU's state. Plain values: knows nothing of NVML's functions.

use laggard_types::{ClockReason, ComputeMode};
use std::fmt;

/// Why something cannot be read. It then says nothing, neither good nor bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotVisible {
    /// This GPU does not have it.
    NotSupported,
    /// It takes privileges.
    NoPermission,
    /// The driver is too old to have a function for it.
    NoFunction,
    /// The GPU does not answer any more.
    Lost,
    /// The call failed.
    Failed {
        /// What NVML says.
        why: String,
    },
}

impl NotVisible {
    /// The reason alone.
    pub fn why(&self) -> &str {
        match self {
            Self::NotSupported => "this GPU does not have it",
            Self::NoPermission => "no permission",
            Self::NoFunction => "the driver is too old",
            Self::Lost => "the GPU is lost",
            Self::Failed { why } => why,
        }
    }
}

impl fmt::Display for NotVisible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not visible: {}", self.why())
    }
}

/// A PCIe link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PcieLink {
    /// Generation.
    pub generation: u32,
    /// Lanes.
    pub width: u32,
}

impl fmt::Display for PcieLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCIe {} x{}", self.generation, self.width)
    }
}

/// What of a GPU does not change while a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFacts {
    /// Product name.
    pub name: Result<String, NotVisible>,
    /// Its identity, also across machines.
    pub uuid: Result<String, NotVisible>,
    /// Serial number of the board.
    pub serial: Result<String, NotVisible>,
    /// PCI address, such as `00000000:1b:00.0`.
    pub pci: Result<String, NotVisible>,
    /// Whether it is cut into instances.
    pub is_mig: Result<bool, NotVisible>,
    /// Who may compute on it.
    pub compute_mode: Result<ComputeMode, NotVisible>,
    /// The fastest PCIe link that GPU and slot have.
    pub most_pcie: Result<PcieLink, NotVisible>,
    /// The fastest clock of its multiprocessors, MHz.
    pub most_sm_clock_mhz: Result<u32, NotVisible>,
}

impl GpuFacts {
    /// What the driver itself does not tell either and cannot be read, and why:
    /// `serial number (no permission)`.
    pub fn not_visible(&self) -> Vec<String> {
        named(&[
            ("serial number", self.serial.as_ref().err()),
            ("instances", self.is_mig.as_ref().err()),
            ("fastest PCIe link", self.most_pcie.as_ref().err()),
            ("fastest clock", self.most_sm_clock_mhz.as_ref().err()),
        ])
    }
}

/// Rows of memory that were replaced by spare ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemappedRows {
    /// After errors that were corrected.
    pub corrected: u32,
    /// After errors that were not.
    pub uncorrected: u32,
    /// Whether some will be at the next reset.
    pub is_pending: bool,
    /// Whether there were no spare ones left.
    pub has_failed: bool,
}

/// One NVLink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvLink {
    /// Its number.
    pub link: u32,
    /// Whether it is up.
    pub is_up: bool,
    /// Packets sent again, since the driver was loaded.
    pub replays: Result<u64, NotVisible>,
    /// Recoveries of the link.
    pub recoveries: Result<u64, NotVisible>,
    /// Check sums of flow units that were wrong.
    pub crc_errors: Result<u64, NotVisible>,
}

/// A process on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuProcess {
    /// Its number, in the driver's name space; containers have another.
    pub pid: u32,
    /// Device memory that it uses, bytes, where the driver tells.
    pub memory_bytes: Option<u64>,
}

/// A GPU's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuReading {
    /// Clock of its multiprocessors, MHz.
    pub sm_clock_mhz: Result<u32, NotVisible>,
    /// Clock of its memory, MHz.
    pub memory_clock_mhz: Result<u32, NotVisible>,
    /// Why clocks are as they are.
    pub clock_reasons: Result<Vec<ClockReason>, NotVisible>,
    /// Power draw, milliwatts.
    pub power_mw: Result<u32, NotVisible>,
    /// The limit that holds, milliwatts.
    pub power_limit_mw: Result<u32, NotVisible>,
    /// Temperature, degrees Celsius.
    pub temperature_c: Result<u32, NotVisible>,
    /// Errors of memory that were corrected, since the driver was loaded.
    pub ecc_corrected: Result<u64, NotVisible>,
    /// Errors of memory that were not.
    pub ecc_uncorrected: Result<u64, NotVisible>,
    /// Rows of memory that were replaced.
    pub remapped_rows: Result<RemappedRows, NotVisible>,
    /// The PCIe link as it is now; idle GPUs slow it down.
    pub pcie: Result<PcieLink, NotVisible>,
    /// PCIe packets sent again.
    pub pcie_replays: Result<u32, NotVisible>,
    /// NVLinks that there are; empty if there are none.
    pub nvlinks: Vec<NvLink>,
    /// Processes that compute, this one among them.
    pub processes: Result<Vec<GpuProcess>, NotVisible>,
    /// Processes that compute through MPS.
    pub mps_processes: Result<Vec<GpuProcess>, NotVisible>,
}

impl GpuReading {
    /// What slows the GPU down, in words such as `power-capped at 600 W`; empty if nothing does or
    /// nothing is visible.
    pub fn slowed_by(&self) -> Vec<String> {
        let reasons = self.clock_reasons.as_deref().unwrap_or_default();
        let words = |reason: &ClockReason| match (reason, &self.power_limit_mw) {
            (ClockReason::PowerCap, Ok(limit)) => {
                format!("{reason} at {:.0} W", f64::from(*limit) / 1000.0)
            }
            _ => reason.to_string(),
        };
        let slow = reasons.iter().filter(|reason| reason.slows());
        slow.map(words).collect()
    }

    /// What cannot be read, and why: `temperature (no permission)`.
    pub fn not_visible(&self) -> Vec<String> {
        named(&[
            ("clock", self.sm_clock_mhz.as_ref().err()),
            ("clock of its memory", self.memory_clock_mhz.as_ref().err()),
            ("what slows it", self.clock_reasons.as_ref().err()),
            ("power", self.power_mw.as_ref().err()),
            ("power limit", self.power_limit_mw.as_ref().err()),
            ("temperature", self.temperature_c.as_ref().err()),
            (
                "corrected errors of memory",
                self.ecc_corrected.as_ref().err(),
            ),
            ("errors of memory", self.ecc_uncorrected.as_ref().err()),
            ("replaced rows of memory", self.remapped_rows.as_ref().err()),
            ("PCIe", self.pcie.as_ref().err()),
            ("PCIe replays", self.pcie_replays.as_ref().err()),
            ("replays of NVLinks", self.of_links(|it| &it.replays)),
            ("recoveries of NVLinks", self.of_links(|it| &it.recoveries)),
            ("check sums of NVLinks", self.of_links(|it| &it.crc_errors)),
            ("processes", self.processes.as_ref().err()),
        ])
    }

    /// Why no link shows a counter; `None` if there is no link, or one does.
    fn of_links(&self, counter: fn(&NvLink) -> &Result<u64, NotVisible>) -> Option<&NotVisible> {
        let mut errors = self.nvlinks.iter().map(|link| counter(link).as_ref().err());
        let first = errors.next()??;
        errors.all(|error| error.is_some()).then_some(first)
    }
}

fn named(all: &[(&str, Option<&NotVisible>)]) -> Vec<String> {
    let named = all
        .iter()
        .filter_map(|(what, error)| Some(format!("{what} ({})", (*error)?.why())));
    named.collect()
}
