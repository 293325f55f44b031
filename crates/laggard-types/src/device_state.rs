//! What accelerators tell of themselves beside a job: which one it is, and its state at one moment.
//! What is not visible is absent, which says nothing, neither good nor bad.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One figure of an accelerator's state. Counters count since the driver was loaded or the port
/// came up: only their growth says anything of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gauge {
    /// Clock of the multiprocessors.
    SmClock,
    /// Clock of the memory.
    MemoryClock,
    /// Power draw.
    Power,
    /// The limit of power that holds.
    PowerLimit,
    /// Temperature of the chip.
    Temperature,
    /// Why clocks are as they are: NVML's mask (`nvmlClocksEventReason...` of nvml.h).
    ClockReasons,
    /// Errors of memory that were corrected.
    EccCorrected,
    /// Errors of memory that were not.
    EccUncorrected,
    /// Rows of memory that were replaced after errors that were corrected.
    RemappedCorrected,
    /// Rows of memory that were replaced after errors that were not.
    RemappedUncorrected,
    /// 1 if rows are to be replaced at the next reset, else 0.
    RemapPending,
    /// 1 if rows could not be replaced, else 0.
    RemapFailed,
    /// Generation of the PCIe link as it is now; idle links slow down.
    PcieGeneration,
    /// Lanes of the PCIe link as it is now.
    PcieWidth,
    /// PCIe packets sent again.
    PcieReplays,
    /// NVLinks that there are.
    Nvlinks,
    /// NVLinks that are up.
    NvlinksUp,
    /// NVLink packets sent again, sum of all links that tell.
    NvlinkReplays,
    /// Recoveries of NVLinks, likewise.
    NvlinkRecoveries,
    /// Check sums of NVLinks' flow units that were wrong, likewise.
    NvlinkCrcErrors,
    /// Data sent over NVLinks.
    NvlinkSent,
    /// Data received over NVLinks.
    NvlinkReceived,
    /// Xid events since the job began.
    XidEvents,
    /// Number of the last of them; absent as long as there is none.
    Xid,
    /// Ports of the network adapters that are nearest.
    Ports,
    /// Those of them that carry data.
    PortsActive,
    /// Rate of those, sum in one direction.
    PortsRate,
    /// Data that they have sent.
    PortsSent,
    /// Data that they have received.
    PortsReceived,
    /// What went wrong on their links: symbols, packets, recoveries, times down.
    PortsErrors,
}

impl Gauge {
    /// How many there are.
    pub const COUNT: usize = 30;

    /// All of them, in the order in which records have them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::SmClock,
        Self::MemoryClock,
        Self::Power,
        Self::PowerLimit,
        Self::Temperature,
        Self::ClockReasons,
        Self::EccCorrected,
        Self::EccUncorrected,
        Self::RemappedCorrected,
        Self::RemappedUncorrected,
        Self::RemapPending,
        Self::RemapFailed,
        Self::PcieGeneration,
        Self::PcieWidth,
        Self::PcieReplays,
        Self::Nvlinks,
        Self::NvlinksUp,
        Self::NvlinkReplays,
        Self::NvlinkRecoveries,
        Self::NvlinkCrcErrors,
        Self::NvlinkSent,
        Self::NvlinkReceived,
        Self::XidEvents,
        Self::Xid,
        Self::Ports,
        Self::PortsActive,
        Self::PortsRate,
        Self::PortsSent,
        Self::PortsReceived,
        Self::PortsErrors,
    ];

    /// Its names in records, unit last, in the order of [`Gauge::ALL`].
    pub const NAMES: [&'static str; Self::COUNT] = [
        "sm_clock_mhz",
        "memory_clock_mhz",
        "power_mw",
        "power_limit_mw",
        "temperature_c",
        "clock_reasons",
        "ecc_corrected",
        "ecc_uncorrected",
        "remapped_rows_corrected",
        "remapped_rows_uncorrected",
        "remap_pending",
        "remap_failed",
        "pcie_generation",
        "pcie_width",
        "pcie_replays",
        "nvlinks",
        "nvlinks_up",
        "nvlink_replays",
        "nvlink_recoveries",
        "nvlink_crc_errors",
        "nvlink_sent_bytes",
        "nvlink_received_bytes",
        "xid_events",
        "xid",
        "ports",
        "ports_active",
        "ports_rate_bytes_per_s",
        "ports_sent_bytes",
        "ports_received_bytes",
        "ports_errors",
    ];
}

/// An accelerator's state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceState([Option<i64>; Gauge::COUNT]);

impl DeviceState {
    /// What a gauge shows; `None` where that is not visible.
    pub const fn get(&self, gauge: Gauge) -> Option<i64> {
        self.0[gauge as usize]
    }

    /// Puts down what a gauge shows.
    pub fn set(&mut self, gauge: Gauge, value: Option<i64>) {
        self.0[gauge as usize] = value;
    }

    /// All gauges, in the order of [`Gauge::ALL`].
    pub const fn values(&self) -> &[Option<i64>; Gauge::COUNT] {
        &self.0
    }

    /// Whether nothing at all is visible.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl From<[Option<i64>; Gauge::COUNT]> for DeviceState {
    fn from(values: [Option<i64>; Gauge::COUNT]) -> Self {
        Self(values)
    }
}

/// Who may compute on an accelerator (`CUcomputemode` of cuda.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputeMode {
    /// Any number of processes.
    Default,
    /// One process at a time.
    ExclusiveProcess,
    /// None.
    Prohibited,
}

/// What lies between an accelerator and the network adapters that are nearest to it, the shortest
/// way first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AdapterPath {
    /// PCIe bridges alone.
    PcieSwitch,
    /// The host bridge that both hang from.
    HostBridge,
    /// The processor of one memory node.
    NumaNode,
    /// What connects processors.
    System,
}

/// Which accelerator it is, and how it is set up and connected: what does not change during a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceIdentity {
    /// PCI address, such as `0000:1b:00.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci: Option<String>,
    /// Its identity, also across machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Serial number of the board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Memory node that it hangs from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Network adapters that are nearest to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_adapters: Vec<String>,
    /// The way to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_path: Option<AdapterPath>,
    /// Whether it is cut into instances (MIG).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_mig: Option<bool>,
    /// Whether processes share it by way of a server (MPS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_by_mps: Option<bool>,
    /// Who may compute on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_mode: Option<ComputeMode>,
    /// Processes that compute on it, those of the job among them, when the job began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// The fastest clock of its multiprocessors, MHz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_sm_clock_mhz: Option<u32>,
    /// Generation of the fastest PCIe link that it and its slot have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_pcie_generation: Option<u32>,
    /// Lanes of the widest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_pcie_width: Option<u32>,
    /// What could not be read, and why: `what slows its clocks (no permission)`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_visible: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_stand_where_their_number_says() {
        for (at, gauge) in Gauge::ALL.into_iter().enumerate() {
            assert_eq!(gauge as usize, at, "{gauge:?}");
        }
        let names: std::collections::BTreeSet<_> = Gauge::NAMES.into_iter().collect();
        assert_eq!(names.len(), Gauge::COUNT);
        let mut state = DeviceState::default();
        assert!(state.is_empty());
        state.set(Gauge::PortsErrors, Some(0));
        assert_eq!(state.get(Gauge::PortsErrors), Some(0));
        assert_eq!(state.values()[29], Some(0));
        assert!(!state.is_empty());
    }
}
