//! What an accelerator told of itself while it was slow, and its peers did not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of sign it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SignKind {
    /// Clocks are held back: power, heat, or settings.
    ClocksHeldBack,
    /// The multiprocessors' clock is low.
    LowClock,
    /// The PCIe link is narrow or of an old generation.
    Pcie,
    /// Packets were sent again over PCIe.
    PcieReplays,
    /// Rows of memory are to be replaced, or could not be.
    RowRemap,
    /// Errors of memory that were not corrected.
    MemoryErrors,
    /// The driver has reported an Xid event.
    Xid,
    /// NVLinks are down, or have errors.
    Nvlink,
    /// Network ports are down, slow, or have errors.
    Ports,
}

impl SignKind {
    /// Whether it slows what the accelerator computes, and not only what it exchanges.
    pub const fn slows_computing(self) -> bool {
        !matches!(self, Self::Nvlink | Self::Ports)
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ClocksHeldBack => {
                "compare `nvidia-smi -q -d PERFORMANCE,POWER,TEMPERATURE` with a peer's: power \
                 limit, cooling, clocks that somebody has set"
            }
            Self::LowClock => {
                "compare `nvidia-smi -q -d CLOCK,PERFORMANCE` with a peer's: somebody may have set \
                 clocks"
            }
            Self::Pcie | Self::PcieReplays => {
                "reseat the GPU or its riser, and see whether the slot is configured as its peers' \
                 are (`lspci -vv`, LnkSta)"
            }
            Self::RowRemap | Self::MemoryErrors => {
                "drain the node and reset the GPU, so that rows of its memory are replaced; if it \
                 comes back, swap the GPU"
            }
            Self::Xid => {
                "look the number up in NVIDIA's list of Xid errors, and see the kernel's log \
                 (`dmesg`)"
            }
            Self::Nvlink => "see `nvidia-smi nvlink -s` and `-e`, and the fabric manager's log",
            Self::Ports => {
                "see `ibstat` and `perfquery` of its ports: cable, module or switch port"
            }
        }
    }
}

/// One sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    /// The rank whose accelerator shows it.
    pub rank: u32,
    /// What kind of sign.
    pub kind: SignKind,
    /// It in words, such as `power-capped at 600 W (its peers at 700 W)`.
    pub words: String,
}
