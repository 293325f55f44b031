//! One GPU's state as gauges, for whoever samples it beside a job.

use super::gpu::{CHIP, CORRECTED, MEMORY_CLOCK, SM_CLOCK, UNCORRECTED, Visible};
use super::{NvLink, NvmlGpu};
use crate::monitor::Tellers;
use laggard_backend::Extent;
use laggard_types::{DeviceState, Gauge};

/// Bytes of a KiB.
const KIBIBYTE: u64 = 1024;

impl NvmlGpu {
    /// The GPU's state now, as far as it is visible.
    pub(crate) fn state(&self, extent: Extent, tellers: &mut Tellers) -> DeviceState {
        let mut state = self.moving();
        if extent == Extent::Whole {
            self.put_rest(&mut state);
            self.put_links(&mut state, tellers);
        }
        state
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

    fn put_rest(&self, state: &mut DeviceState) {
        let ecc = |kind| self.ecc_errors(kind);
        put(state, Gauge::EccCorrected, ecc(CORRECTED));
        put(state, Gauge::EccUncorrected, ecc(UNCORRECTED));
        if let Ok(rows) = self.remapped_rows() {
            let yes = |is: bool| Some(i64::from(is));
            state.set(Gauge::RemappedCorrected, Some(i64::from(rows.corrected)));
            state.set(
                Gauge::RemappedUncorrected,
                Some(i64::from(rows.uncorrected)),
            );
            state.set(Gauge::RemapPending, yes(rows.is_pending));
            state.set(Gauge::RemapFailed, yes(rows.has_failed));
        }
        if let Ok(link) = self.pcie_link() {
            state.set(Gauge::PcieGeneration, Some(i64::from(link.generation)));
            state.set(Gauge::PcieWidth, Some(i64::from(link.width)));
        }
        put(state, Gauge::PcieReplays, self.pcie_replays());
    }

    fn put_links(&self, state: &mut DeviceState, tellers: &mut Tellers) {
        let links = self.nvlinks();
        if links.is_empty() {
            return;
        }
        let up = links.iter().filter(|link| link.is_up).count();
        state.set(Gauge::Nvlinks, i64::try_from(links.len()).ok());
        state.set(Gauge::NvlinksUp, i64::try_from(up).ok());
        let mut put_sum = |gauge, counter: fn(&NvLink) -> &Visible<u64>| {
            let told = links
                .iter()
                .map(|link| (link.link as usize, counter(link).as_ref().ok().copied()));
            state.set(gauge, tellers.sum(gauge, told));
        };
        put_sum(Gauge::NvlinkReplays, |link| &link.replays);
        put_sum(Gauge::NvlinkRecoveries, |link| &link.recoveries);
        put_sum(Gauge::NvlinkCrcErrors, |link| &link.crc_errors);
        let bytes = |kib: Visible<u64>| kib.map(|kib| kib.saturating_mul(KIBIBYTE));
        let [sent, received] = self.nvlink_kib();
        put(state, Gauge::NvlinkSent, bytes(sent));
        put(state, Gauge::NvlinkReceived, bytes(received));
    }
}

/// Numbers beyond 63 bits are what counters show that do not work.
fn put<T: TryInto<i64>>(state: &mut DeviceState, gauge: Gauge, value: Visible<T>) {
    state.set(gauge, value.ok().and_then(|it| it.try_into().ok()));
}
