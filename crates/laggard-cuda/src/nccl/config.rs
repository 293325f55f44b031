//! The structures that NCCL takes, with the layouts of nccl.h.

use std::ffi::{c_char, c_float, c_int, c_uint};
use std::fmt;

/// A version of NCCL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NcclVersion {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch level.
    pub patch: u32,
}

impl NcclVersion {
    /// From what `ncclGetVersion` says: 22809 is 2.28.9 since version 2.9, 2804 is 2.8.4 before
    /// it (`NCCL_VERSION` of nccl.h).
    pub(crate) const fn from_code(code: c_int) -> Self {
        let code = code.unsigned_abs();
        let of_major = if code < 10_000 { 1000 } else { 10_000 };
        Self {
            major: code / of_major,
            minor: code % of_major / 100,
            patch: code % 100,
        }
    }

    /// Whether `NCCL_MULTI_RANK_GPU_ENABLE` lets several ranks share a GPU: since 2.30, according
    /// to NCCL's user guide on environment variables.
    pub const fn lets_ranks_share_gpus(self) -> bool {
        self.major > 2 || self.major == 2 && self.minor >= 30
    }
}

impl fmt::Display for NcclVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// `ncclUniqueId`: where the ranks of a communicator find each other.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct UniqueId([c_char; Self::BYTES]);

impl UniqueId {
    /// `NCCL_UNIQUE_ID_BYTES`.
    const BYTES: usize = 128;

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(|byte| byte.cast_unsigned()).collect()
    }

    /// From another rank's bytes; `None` if there are more or fewer.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        Some(Self(bytes.map(u8::cast_signed)))
    }
}

impl Default for UniqueId {
    fn default() -> Self {
        Self([0; Self::BYTES])
    }
}

/// What of a communicator's settings is chosen here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Most thread blocks that a call may occupy; NCCL's choice if absent.
    pub most_blocks: Option<u32>,
}

/// `ncclConfig_t` as of 2.18; later versions append fields, and take what a shorter one does not
/// have from their defaults (`parseCommConfig` of src/init.cc reads no more than `size`).
#[repr(C)]
pub(super) struct RawConfig {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_blocks: c_int,
    max_blocks: c_int,
    net_name: *const c_char,
    split_share: c_int,
    /// Bytes that 2.18 does not have, and that later versions keep an integer in.
    padding: c_int,
}

/// `NCCL_API_MAGIC`.
const CONFIG_MAGIC: c_uint = 0xcafe_beef;
/// `NCCL_VERSION_CODE` of the header that [`RawConfig`] is from.
const CONFIG_VERSION: c_uint = 21_800;
/// `NCCL_CONFIG_UNDEF_INT`.
const UNDEFINED: c_int = c_int::MIN;

impl RawConfig {
    /// A communicator whose calls never block.
    pub(super) fn new(config: Config) -> Self {
        let most = config
            .most_blocks
            .and_then(|most| c_int::try_from(most).ok());
        Self {
            size: size_of::<Self>(),
            magic: CONFIG_MAGIC,
            version: CONFIG_VERSION,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_blocks: most.map_or(UNDEFINED, |_| 1),
            max_blocks: most.unwrap_or(UNDEFINED),
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
            padding: UNDEFINED,
        }
    }
}

/// `ncclSimInfo_t` as of 2.22.
#[repr(C)]
pub(super) struct RawEstimate {
    size: usize,
    magic: c_uint,
    version: c_uint,
    /// Microseconds; negative if there is none.
    pub(super) microseconds: c_float,
}

/// The magic number of `NCCL_SIM_INFO_INITIALIZER`.
const ESTIMATE_MAGIC: c_uint = 0x7468_5283;
/// `NCCL_VERSION_CODE` of the header that [`RawEstimate`] is from.
const ESTIMATE_VERSION: c_uint = 22_200;

impl RawEstimate {
    pub(super) fn new() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: ESTIMATE_MAGIC,
            version: ESTIMATE_VERSION,
            microseconds: -1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = NcclVersion::from_code(22_809);
        assert_eq!(version.to_string(), "2.28.9");
        assert_eq!(NcclVersion::from_code(2_804).to_string(), "2.8.4");
        assert!(version < NcclVersion::from_code(23_007));
        assert!(!version.lets_ranks_share_gpus());
        assert!(NcclVersion::from_code(23_007).lets_ranks_share_gpus());
    }

    #[test]
    fn ids_survive_the_wire() {
        let bytes: Vec<u8> = (0..128).map(|at| at * 2).collect();
        assert_eq!(UniqueId::from_bytes(&bytes).unwrap().bytes(), bytes);
        assert!(UniqueId::from_bytes(&bytes[1..]).is_none());
    }

    #[test]
    fn layouts_are_those_of_the_header() {
        // Of ncclConfig_v21800 and ncclSimInfo_v22200 on 64-bit Linux.
        assert_eq!(size_of::<RawConfig>(), 48);
        assert_eq!(std::mem::offset_of!(RawConfig, blocking), 16);
        assert_eq!(std::mem::offset_of!(RawConfig, net_name), 32);
        assert_eq!(size_of::<RawEstimate>(), 24);
        assert_eq!(std::mem::offset_of!(RawEstimate, microseconds), 16);
        assert_eq!(size_of::<UniqueId>(), 128);
    }
}
