//! Reads one GPU's facts and state, each value by a call of its own, so that one that cannot be
//! read hides no other.

use super::reading::{
    GpuFacts, GpuProcess, GpuReading, NotVisible, NvLink, PcieLink, RemappedRows,
};
use super::{NvmlGpu, RawDevice, code};
use laggard_types::{ClockReason, ComputeMode};
use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong};

/// Room for the longest text: `NVML_DEVICE_NAME_V2_BUFFER_SIZE`, as `NVML_DEVICE_UUID_V2_...`.
const TEXT_BYTES: usize = 96;

/// Links that a GPU has at most: `NVML_NVLINK_MAX_LINKS`.
const MOST_LINKS: c_uint = 18;

/// `nvmlClockType_t`.
pub(super) const SM_CLOCK: c_uint = 1;
pub(super) const MEMORY_CLOCK: c_uint = 2;

/// `NVML_TEMPERATURE_GPU` of `nvmlTemperatureSensors_t`.
pub(super) const CHIP: c_uint = 0;

/// `nvmlMemoryErrorType_t`, and the counters since the driver was loaded (`NVML_VOLATILE_ECC`).
pub(super) const CORRECTED: c_uint = 0;
pub(super) const UNCORRECTED: c_uint = 1;
const VOLATILE: c_uint = 0;

/// `nvmlNvLinkErrorCounter_t`.
const REPLAYS: c_uint = 0;
const RECOVERIES: c_uint = 1;
const CRC_FLITS: c_uint = 2;

/// `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX` and `..._RX` of nvml.h: KiB, of all links together.
const LINK_DATA: [c_uint; 2] = [138, 139];

/// Asks for all links (`scopeId` of `nvmlFieldValue_t`).
const ALL_LINKS: c_uint = c_uint::MAX;

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawField {
    id: c_uint,
    scope: c_uint,
    timestamp: c_longlong,
    latency_us: c_longlong,
    kind: c_uint,
    code: c_int,
    /// A union of eight bytes; these fields are unsigned integers of 64 bits.
    value: c_ulonglong,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
struct RawPci {
    legacy_address: [c_char; 16],
    numbers: [c_uint; 5],
    address: [c_char; 32],
}

/// `nvmlProcessInfo_t`, as the functions of version 3 fill it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawProcess {
    pid: c_uint,
    memory_bytes: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// Processes for which there is room; more are asked for again.
const USUAL_PROCESSES: usize = 64;

pub(super) type Visible<T> = Result<T, NotVisible>;

impl NvmlGpu {
    /// What of the GPU does not change.
    pub fn facts(&self) -> GpuFacts {
        GpuFacts {
            name: self.text("nvmlDeviceGetName"),
            uuid: self.text("nvmlDeviceGetUUID"),
            serial: self.text("nvmlDeviceGetSerial"),
            pci: self.pci(),
            is_mig: self
                .pair("nvmlDeviceGetMigMode")
                .map(|[current, _]| current != 0),
            compute_mode: self.compute_mode(),
            most_pcie: self.link(
                "nvmlDeviceGetMaxPcieLinkGeneration",
                "nvmlDeviceGetMaxPcieLinkWidth",
            ),
            most_sm_clock_mhz: self.number_of("nvmlDeviceGetMaxClockInfo", SM_CLOCK),
        }
    }

    /// The GPU's state now.
    pub fn read(&self) -> GpuReading {
        let ecc = |kind| self.ecc_errors(kind);
        GpuReading {
            sm_clock_mhz: self.number_of("nvmlDeviceGetClockInfo", SM_CLOCK),
            memory_clock_mhz: self.number_of("nvmlDeviceGetClockInfo", MEMORY_CLOCK),
            clock_reasons: self.clock_reason_mask().map(ClockReason::of_mask),
            power_mw: self.number("nvmlDeviceGetPowerUsage"),
            power_limit_mw: self.number("nvmlDeviceGetEnforcedPowerLimit"),
            temperature_c: self.number_of("nvmlDeviceGetTemperature", CHIP),
            ecc_corrected: ecc(CORRECTED),
            ecc_uncorrected: ecc(UNCORRECTED),
            remapped_rows: self.remapped_rows(),
            pcie: self.pcie_link(),
            pcie_replays: self.pcie_replays(),
            nvlinks: self.nvlinks(),
            processes: self.processes("nvmlDeviceGetComputeRunningProcesses_v3"),
            mps_processes: self.processes("nvmlDeviceGetMPSComputeRunningProcesses_v3"),
        }
    }

    /// A function of NVML's.
    ///
    /// # Safety
    /// `T` must be the function's type.
    pub(super) unsafe fn function<T: Copy>(&self, name: &'static str) -> Visible<T> {
        // SAFETY: the caller says so.
        let function = unsafe { self.nvml.loaded.function(name) };
        function.map_err(|_| NotVisible::NoFunction)
    }

    fn text(&self, name: &'static str) -> Visible<String> {
        type Call = unsafe extern "C" fn(RawDevice, *mut c_char, c_uint) -> c_int;
        let mut text = [0 as c_char; TEXT_BYTES];
        // SAFETY: nvml.h declares such functions so, and there is room for as much as is said.
        let code = unsafe {
            let call: Call = self.function(name)?;
            call(self.raw, text.as_mut_ptr(), TEXT_BYTES as c_uint)
        };
        self.nvml.judge(code)?;
        Ok(text_in(&text))
    }

    pub(super) fn number(&self, name: &'static str) -> Visible<u32> {
        type Call = unsafe extern "C" fn(RawDevice, *mut c_uint) -> c_int;
        let mut number: c_uint = 0;
        // SAFETY: nvml.h declares such functions so; the address is that of an integer.
        let code = unsafe {
            let call: Call = self.function(name)?;
            call(self.raw, &raw mut number)
        };
        self.nvml.judge(code)?;
        Ok(number)
    }

    pub(super) fn number_of(&self, name: &'static str, kind: c_uint) -> Visible<u32> {
        type Call = unsafe extern "C" fn(RawDevice, c_uint, *mut c_uint) -> c_int;
        let mut number: c_uint = 0;
        // SAFETY: as in `number`.
        let code = unsafe {
            let call: Call = self.function(name)?;
            call(self.raw, kind, &raw mut number)
        };
        self.nvml.judge(code)?;
        Ok(number)
    }

    fn pair(&self, name: &'static str) -> Visible<[u32; 2]> {
        type Call = unsafe extern "C" fn(RawDevice, *mut c_uint, *mut c_uint) -> c_int;
        let [mut first, mut second]: [c_uint; 2] = [0; 2];
        // SAFETY: as in `number`.
        let code = unsafe {
            let call: Call = self.function(name)?;
            call(self.raw, &raw mut first, &raw mut second)
        };
        self.nvml.judge(code)?;
        Ok([first, second])
    }

    fn pci(&self) -> Visible<String> {
        type Call = unsafe extern "C" fn(RawDevice, *mut RawPci) -> c_int;
        let mut pci = RawPci {
            legacy_address: [0; 16],
            numbers: [0; 5],
            address: [0; 32],
        };
        // SAFETY: nvml.h declares it so; the address is that of such a structure.
        let code = unsafe {
            let call: Call = self.function("nvmlDeviceGetPciInfo_v3")?;
            call(self.raw, &raw mut pci)
        };
        self.nvml.judge(code)?;
        Ok(text_in(&pci.address).to_lowercase())
    }

    fn link(&self, generation: &'static str, width: &'static str) -> Visible<PcieLink> {
        Ok(PcieLink {
            generation: self.number(generation)?,
            width: self.number(width)?,
        })
    }

    pub(super) fn pcie_link(&self) -> Visible<PcieLink> {
        self.link(
            "nvmlDeviceGetCurrPcieLinkGeneration",
            "nvmlDeviceGetCurrPcieLinkWidth",
        )
    }

    pub(super) fn pcie_replays(&self) -> Visible<u32> {
        self.number("nvmlDeviceGetPcieReplayCounter")
    }

    /// From `nvmlComputeMode_t`.
    fn compute_mode(&self) -> Visible<ComputeMode> {
        match self.number("nvmlDeviceGetComputeMode")? {
            0 => Ok(ComputeMode::Default),
            2 => Ok(ComputeMode::Prohibited),
            3 => Ok(ComputeMode::ExclusiveProcess),
            other => Err(NotVisible::Failed {
                why: format!("mode {other} is not known"),
            }),
        }
    }

    /// The function was renamed with driver 535, when throttling became an event.
    pub(super) fn clock_reason_mask(&self) -> Visible<u64> {
        type Call = unsafe extern "C" fn(RawDevice, *mut c_ulonglong) -> c_int;
        let mut mask: c_ulonglong = 0;
        // SAFETY: nvml.h declares both so; the address is that of an integer.
        let code = unsafe {
            let call: Call = self
                .function("nvmlDeviceGetCurrentClocksEventReasons")
                .or_else(|_| self.function("nvmlDeviceGetCurrentClocksThrottleReasons"))?;
            call(self.raw, &raw mut mask)
        };
        self.nvml.judge(code)?;
        Ok(mask)
    }

    pub(super) fn ecc_errors(&self, kind: c_uint) -> Visible<u64> {
        type Call = unsafe extern "C" fn(RawDevice, c_uint, c_uint, *mut c_ulonglong) -> c_int;
        let mut count: c_ulonglong = 0;
        // SAFETY: nvml.h declares it so; the address is that of an integer.
        let code = unsafe {
            let call: Call = self.function("nvmlDeviceGetTotalEccErrors")?;
            call(self.raw, kind, VOLATILE, &raw mut count)
        };
        self.nvml.judge(code)?;
        Ok(count)
    }

    pub(super) fn remapped_rows(&self) -> Visible<RemappedRows> {
        type Call = unsafe extern "C" fn(
            RawDevice,
            *mut c_uint,
            *mut c_uint,
            *mut c_uint,
            *mut c_uint,
        ) -> c_int;
        let mut numbers: [c_uint; 4] = [0; 4];
        let [corrected, uncorrected, pending, failed] = &mut numbers;
        // SAFETY: nvml.h declares it so; the addresses are those of integers.
        let code = unsafe {
            let call: Call = self.function("nvmlDeviceGetRemappedRows")?;
            call(self.raw, corrected, uncorrected, pending, failed)
        };
        self.nvml.judge(code)?;
        let [corrected, uncorrected, pending, failed] = numbers;
        Ok(RemappedRows {
            corrected,
            uncorrected,
            is_pending: pending != 0,
            has_failed: failed != 0,
        })
    }

    /// Links that there are.
    pub(super) fn nvlinks(&self) -> Vec<NvLink> {
        let links = (0..MOST_LINKS).filter_map(|link| self.nvlink(link));
        links.collect()
    }

    /// KiB sent and received over all links, since the driver was loaded.
    pub(crate) fn nvlink_kib(&self) -> [Visible<u64>; 2] {
        type Call = unsafe extern "C" fn(RawDevice, c_int, *mut RawField) -> c_int;
        let mut fields = LINK_DATA.map(|id| RawField {
            id,
            scope: ALL_LINKS,
            ..RawField::default()
        });
        // SAFETY: nvml.h declares it so; there are as many fields as is said.
        let asked = unsafe {
            let call = self.function("nvmlDeviceGetFieldValues");
            call.map(|call: Call| call(self.raw, 2, fields.as_mut_ptr()))
        };
        let asked = asked.and_then(|code| self.nvml.judge(code));
        fields.map(|field| {
            asked.clone()?;
            self.nvml.judge(field.code)?;
            Ok(field.value)
        })
    }

    /// A link, if the GPU has it.
    fn nvlink(&self, link: c_uint) -> Option<NvLink> {
        let is_up = self.number_of("nvmlDeviceGetNvLinkState", link).ok()? != 0;
        let errors = |counter| self.nvlink_errors(link, counter);
        Some(NvLink {
            link,
            is_up,
            replays: errors(REPLAYS),
            recoveries: errors(RECOVERIES),
            crc_errors: errors(CRC_FLITS),
        })
    }

    fn nvlink_errors(&self, link: c_uint, counter: c_uint) -> Visible<u64> {
        type Call = unsafe extern "C" fn(RawDevice, c_uint, c_uint, *mut c_ulonglong) -> c_int;
        let mut count: c_ulonglong = 0;
        // SAFETY: nvml.h declares it so; the address is that of an integer.
        let code = unsafe {
            let call: Call = self.function("nvmlDeviceGetNvLinkErrorCounter")?;
            call(self.raw, link, counter, &raw mut count)
        };
        self.nvml.judge(code)?;
        Ok(count)
    }

    fn processes(&self, name: &'static str) -> Visible<Vec<GpuProcess>> {
        type Call = unsafe extern "C" fn(RawDevice, *mut c_uint, *mut RawProcess) -> c_int;
        let mut room = USUAL_PROCESSES;
        loop {
            let mut processes = vec![RawProcess::default(); room];
            let mut count = c_uint::try_from(room).unwrap_or(c_uint::MAX);
            // SAFETY: nvml.h declares such functions so; there is room for as many as is said.
            let code = unsafe {
                let call: Call = self.function(name)?;
                call(self.raw, &raw mut count, processes.as_mut_ptr())
            };
            let count = count as usize;
            if code == code::INSUFFICIENT_SIZE && count > room {
                room = count;
                continue;
            }
            self.nvml.judge(code)?;
            processes.truncate(count);
            let told = |process: &RawProcess| GpuProcess {
                pid: process.pid,
                // `NVML_VALUE_NOT_AVAILABLE` is all ones.
                memory_bytes: Some(process.memory_bytes).filter(|bytes| *bytes != u64::MAX),
            };
            return Ok(processes.iter().map(told).collect());
        }
    }
}

/// The text before the first zero.
fn text_in(bytes: &[c_char]) -> String {
    let text = bytes.iter().take_while(|byte| **byte != 0);
    let text: Vec<u8> = text.map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_header() {
        assert_eq!(size_of::<RawPci>(), 68);
        assert_eq!(std::mem::offset_of!(RawPci, address), 36);
        assert_eq!(size_of::<RawProcess>(), 24);
        assert_eq!(size_of::<RawField>(), 40);
        assert_eq!(std::mem::offset_of!(RawField, value), 32);
    }
}
