//! One GPU's state as gauges, for whoever samples it beside a job.

use super::gpu::{CHIP, MEMORY_CLOCK, SM_CLOCK, Visible};
use super::{GpuReading, NotVisible, NvmlGpu, RawDevice};
use crate::library::SUCCESS;
use laggard_backend::Extent;
use laggard_types::{DeviceState, Gauge};
use std::ffi::{c_int, c_longlong, c_uint, c_ulonglong};

/// `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX` and `..._RX` of nvml.h: KiB, of all links together.
const LINK_DATA: [c_uint; 2] = [138, 139];

/// Asks for all links (`scopeId` of `nvmlFieldValue_t`).
const ALL_LINKS: c_uint = c_uint::MAX;

/// Bytes of a KiB.
const KIBIBYTE: i64 = 1024;

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

impl NvmlGpu {
    /// The GPU's state now, as far as it is visible.
    pub(crate) fn state(&self, extent: Extent) -> DeviceState {
        match extent {
            Extent::Moving => self.moving(),
            Extent::Whole => self.whole(),
        }
    }

    fn moving(&self) -> DeviceState {
        let clock = |kind| self.number_of("nvmlDeviceGetClockInfo", kind);
        let mut state = DeviceState::default();
        put(&mut state, Gauge::SmClock, clock(SM_CLOCK));
        put(&mut state, Gauge::MemoryClock, clock(MEMORY_CLOCK));
        put(&mut state, Gauge::ClockReasons, self.clock_reason_mask());
        let power = self.number("nvmlDeviceGetPowerUsage");
        put(&mut state, Gauge::Power, power);
        let limit = self.number("nvmlDeviceGetEnforcedPowerLimit");
        put(&mut state, Gauge::PowerLimit, limit);
        let temperature = self.number_of("nvmlDeviceGetTemperature", CHIP);
        put(&mut state, Gauge::Temperature, temperature);
        state
    }

    fn whole(&self) -> DeviceState {
        let mut state = self.moving();
        let now = self.read();
        put(&mut state, Gauge::EccCorrected, now.ecc_corrected.clone());
        put(
            &mut state,
            Gauge::EccUncorrected,
            now.ecc_uncorrected.clone(),
        );
        if let Ok(rows) = &now.remapped_rows {
            let yes = |is: bool| Some(i64::from(is));
            state.set(Gauge::RemappedCorrected, Some(i64::from(rows.corrected)));
            state.set(
                Gauge::RemappedUncorrected,
                Some(i64::from(rows.uncorrected)),
            );
            state.set(Gauge::RemapPending, yes(rows.is_pending));
            state.set(Gauge::RemapFailed, yes(rows.has_failed));
        }
        if let Ok(link) = &now.pcie {
            state.set(Gauge::PcieGeneration, Some(i64::from(link.generation)));
            state.set(Gauge::PcieWidth, Some(i64::from(link.width)));
        }
        put(&mut state, Gauge::PcieReplays, now.pcie_replays.clone());
        self.put_links(&mut state, &now);
        state
    }

    fn put_links(&self, state: &mut DeviceState, now: &GpuReading) {
        let links = &now.nvlinks;
        if links.is_empty() {
            return;
        }
        let up = links.iter().filter(|link| link.is_up).count();
        state.set(Gauge::Nvlinks, i64::try_from(links.len()).ok());
        state.set(Gauge::NvlinksUp, i64::try_from(up).ok());
        let replays = links.iter().map(|link| &link.replays);
        state.set(Gauge::NvlinkReplays, sum(replays));
        let recoveries = links.iter().map(|link| &link.recoveries);
        state.set(Gauge::NvlinkRecoveries, sum(recoveries));
        let crc = links.iter().map(|link| &link.crc_errors);
        state.set(Gauge::NvlinkCrcErrors, sum(crc));
        if let Ok(data) = self.link_data() {
            let [sent, received] = data.map(|kib| kib.and_then(|it| it.checked_mul(KIBIBYTE)));
            state.set(Gauge::NvlinkSent, sent);
            state.set(Gauge::NvlinkReceived, received);
        }
    }

    /// KiB sent and received over all links.
    fn link_data(&self) -> Visible<[Option<i64>; 2]> {
        type Call = unsafe extern "C" fn(RawDevice, c_int, *mut RawField) -> c_int;
        let mut fields = LINK_DATA.map(|id| RawField {
            id,
            scope: ALL_LINKS,
            ..RawField::default()
        });
        // SAFETY: nvml.h declares it so; there are as many fields as is said.
        let code = unsafe {
            let call: Call = self.function("nvmlDeviceGetFieldValues")?;
            call(self.raw, 2, fields.as_mut_ptr())
        };
        self.nvml.judge(code)?;
        Ok(fields.map(|field| {
            let is_read = field.code == SUCCESS;
            is_read.then(|| i64::try_from(field.value).ok()).flatten()
        }))
    }
}

/// Numbers beyond 63 bits are what counters show that do not work.
fn put<T: TryInto<i64>>(state: &mut DeviceState, gauge: Gauge, value: Visible<T>) {
    state.set(gauge, value.ok().and_then(|it| it.try_into().ok()));
}

/// The sum of what is visible; `None` where nothing is.
fn sum<'a>(values: impl Iterator<Item = &'a Result<u64, NotVisible>>) -> Option<i64> {
    let visible = values.filter_map(|value| i64::try_from(*value.as_ref().ok()?).ok());
    visible.reduce(i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_laid_out_as_in_the_header() {
        assert_eq!(size_of::<RawField>(), 40);
        assert_eq!(std::mem::offset_of!(RawField, value), 32);
    }

    #[test]
    fn sums_leave_out_what_is_not_visible() {
        let hidden = || Err(NotVisible::NoPermission);
        assert_eq!(sum([hidden(), hidden()].iter()), None);
        assert_eq!(sum([Ok(3), hidden(), Ok(4)].iter()), Some(7));
        assert_eq!(sum([Ok(u64::MAX)].iter()), None);
    }
}
