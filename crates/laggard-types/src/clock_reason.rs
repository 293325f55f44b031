//! Why an accelerator's clocks are as they are.

use std::fmt;

/// Why clocks are not as fast as they could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClockReason {
    /// Nothing runs.
    Idle,
    /// Somebody has set application clocks.
    ApplicationClocks,
    /// The power limit.
    PowerCap,
    /// Hardware slows it to half or less: heat, or the supply of power.
    HardwareSlowdown,
    /// Boost clocks are kept in step with other GPUs'.
    SyncBoost,
    /// Software slows it because of heat.
    SoftwareThermal,
    /// Hardware slows it because of heat.
    HardwareThermal,
    /// The supply of power asks for less.
    PowerBrake,
    /// The display.
    DisplayClocks,
    /// A reason that is not known here, by its bit in the mask.
    Other(u32),
}

impl ClockReason {
    /// Every reason of nvml.h (`nvmlClocksEventReason...`), by bit.
    const BITS: [Self; 9] = [
        Self::Idle,
        Self::ApplicationClocks,
        Self::PowerCap,
        Self::HardwareSlowdown,
        Self::SyncBoost,
        Self::SoftwareThermal,
        Self::HardwareThermal,
        Self::PowerBrake,
        Self::DisplayClocks,
    ];

    /// The reasons in a mask ([`crate::Gauge::ClockReasons`]).
    pub fn of_mask(mask: u64) -> Vec<Self> {
        let bits = (0..u64::BITS).filter(|bit| mask >> bit & 1 == 1);
        bits.map(|bit| {
            Self::BITS
                .get(bit as usize)
                .copied()
                .unwrap_or(Self::Other(bit))
        })
        .collect()
    }

    /// Whether it makes a busy GPU slower than its neighbours.
    pub fn slows(self) -> bool {
        !matches!(self, Self::Idle | Self::DisplayClocks)
    }
}

impl fmt::Display for ClockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::ApplicationClocks => "application clocks set",
            Self::PowerCap => "power-capped",
            Self::HardwareSlowdown => "hardware slowdown",
            Self::SyncBoost => "sync boost",
            Self::SoftwareThermal => "software thermal slowdown",
            Self::HardwareThermal => "hardware thermal slowdown",
            Self::PowerBrake => "power brake",
            Self::DisplayClocks => "display clocks",
            Self::Other(bit) => return write!(f, "reason {bit}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_become_reasons_by_name() {
        assert_eq!(ClockReason::of_mask(0), []);
        let reasons = ClockReason::of_mask(1 | 1 << 2 | 1 << 6 | 1 << 8 | 1 << 40);
        let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        let expect = [
            "idle",
            "power-capped",
            "hardware thermal slowdown",
            "display clocks",
            "reason 40",
        ];
        assert_eq!(words, expect);
        let slow: Vec<bool> = reasons.iter().map(|reason| reason.slows()).collect();
        assert_eq!(slow, [false, true, true, false, true]);
    }
}
