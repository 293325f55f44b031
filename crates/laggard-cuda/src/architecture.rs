//! Generations of GPUs, as their compilers name them, and what a kernel may use on each.

use std::fmt;

/// A generation that kernels are compiled for. Cubins of one run on it and on later minor
/// revisions of the same major one (CUDA C++ programming guide, "Binary compatibility").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Architecture {
    /// Volta: V100.
    Sm70,
    /// Turing: T4.
    Sm75,
    /// Ampere: A100.
    Sm80,
    /// Ampere: A10, A40, RTX 30.
    Sm86,
    /// Ada: L4, L40S, RTX 40.
    Sm89,
    /// Hopper: H100, H200, GH200.
    Sm90,
    /// Blackwell: B200, GB200.
    Sm100,
    /// Blackwell: B300, GB300.
    Sm103,
    /// Blackwell: RTX PRO 6000, RTX 50.
    Sm120,
}

impl Architecture {
    /// Every generation, oldest first.
    pub const ALL: [Self; 9] = [
        Self::Sm70,
        Self::Sm75,
        Self::Sm80,
        Self::Sm86,
        Self::Sm89,
        Self::Sm90,
        Self::Sm100,
        Self::Sm103,
        Self::Sm120,
    ];

    /// The most registers of one thread, in all generations (CUDA C++ programming guide, "Technical
    /// specifications per compute capability").
    pub const MOST_REGISTERS: u32 = 255;

    /// Registers of one multiprocessor, and the most that one block can have, in all generations;
    /// same source.
    pub const BLOCK_REGISTERS: u32 = 65_536;

    /// Compute capability as one number: ten times the major one, and the minor one.
    pub const fn number(self) -> u32 {
        match self {
            Self::Sm70 => 70,
            Self::Sm75 => 75,
            Self::Sm80 => 80,
            Self::Sm86 => 86,
            Self::Sm89 => 89,
            Self::Sm90 => 90,
            Self::Sm100 => 100,
            Self::Sm103 => 103,
            Self::Sm120 => 120,
        }
    }

    /// The generation whose cubins run on a device of this compute capability. `None` for devices
    /// older or newer than all that laggard knows.
    pub fn of_compute_capability(major: u32, minor: u32) -> Option<Self> {
        let number = major * 10 + minor;
        let fits = |known: &&Self| known.number() / 10 == major && known.number() <= number;
        Self::ALL.iter().rev().find(fits).copied()
    }

    /// Bytes of shared memory that one block can have, if it asks for them (CUDA C++ programming
    /// guide, "Technical specifications per compute capability").
    pub const fn shared_bytes(self) -> u32 {
        let kib = match self {
            Self::Sm70 => 96,
            Self::Sm75 => 64,
            Self::Sm80 => 163,
            Self::Sm86 | Self::Sm89 | Self::Sm120 => 99,
            Self::Sm90 | Self::Sm100 | Self::Sm103 => 227,
        };
        kib * 1024
    }

    /// Whether there are instructions for bf16 (PTX ISA, `cvt` and `mma`: sm_80 and later).
    pub fn has_bf16(self) -> bool {
        self >= Self::Sm80
    }

    /// Whether tensor cores multiply 8-bit floating-point numbers (PTX ISA, `mma` with `.e4m3`:
    /// sm_89 and later).
    pub fn has_fp8(self) -> bool {
        self >= Self::Sm89
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_get_the_nearest_older_minor_revision() {
        let check = |major, minor, expect: Option<Architecture>| {
            let found = Architecture::of_compute_capability(major, minor);
            assert_eq!(found, expect, "{major}.{minor}");
        };
        for architecture in Architecture::ALL {
            let number = architecture.number();
            check(number / 10, number % 10, Some(architecture));
        }
        check(7, 2, Some(Architecture::Sm70));
        check(8, 7, Some(Architecture::Sm86));
        check(12, 1, Some(Architecture::Sm120));
        check(6, 1, None);
        check(11, 0, None);
        check(13, 0, None);
    }
}
