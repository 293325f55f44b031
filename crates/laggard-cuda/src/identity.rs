//! Which GPU a rank has, as the driver says it. What takes NVIDIA's management library (clocks,
//! power, other processes) is not here.

use laggard_types::ComputeMode;

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaIdentity {
    /// Its number among those that the process sees.
    pub ordinal: usize,
    /// The product's name.
    pub name: String,
    /// Its address on the PCI bus, such as `0000:17:00.0`.
    pub pci_bus_id: String,
    /// Its identity, as `nvidia-smi -L` writes it: `GPU-` and 32 digits; of a slice (MIG) that of
    /// the slice.
    pub uuid: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes that nobody uses.
    pub memory_free_bytes: u64,
    /// The newest CUDA that the driver knows, such as 13.0.
    pub driver: String,
    /// Who may use it.
    pub compute_mode: ComputeMode,
    /// Whether processes share it by way of a server (MPS); `None` where the driver does not say.
    pub shared_by_mps: Option<bool>,
}

/// The text of an identity of 16 bytes.
pub(crate) fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = "GPU-".to_owned();
    for (at, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_as_nvidia_smi_writes_them() {
        let bytes: [u8; 16] = std::array::from_fn(|at| at as u8 * 17);
        assert_eq!(uuid_text(bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
