//! One GPU with the network ports beside it, as whoever samples them during a job sees them.
//! Checked over stand-ins for NVML and sysfs; never run on a GPU yet.

use crate::{
    CudaIdentity, GpuFacts, GpuReading, InfinibandPort, Nvml, NvmlGpu, Surroundings, Sysfs,
    XidWatch,
};
use laggard_backend::{Extent, Monitor};
use laggard_types::{DeviceIdentity, DeviceState, Gauge};
use std::collections::BTreeMap;

/// Reads a GPU's state through NVML, and that of the nearest network ports from sysfs.
pub struct GpuMonitor {
    identity: CudaIdentity,
    /// Why there is none, as users read it.
    gpu: Result<NvmlGpu, String>,
    xids: Option<Xids>,
    tellers: Tellers,
    sysfs: Sysfs,
    nearest_adapters: Vec<String>,
}

/// Which links or ports counters were added up of, by where the sum went. If others tell the next
/// time, a sum would grow or fall by what nobody counted.
#[derive(Default)]
pub(crate) struct Tellers(BTreeMap<Gauge, Vec<usize>>);

impl Tellers {
    /// The sum of what is told by some of them, as long as it is those that told at first.
    pub(crate) fn sum(
        &mut self,
        gauge: Gauge,
        values: impl Iterator<Item = (usize, Option<u64>)>,
    ) -> Option<i64> {
        let told = values.filter_map(|(at, value)| Some((at, i64::try_from(value?).ok()?)));
        let (tellers, values): (Vec<usize>, Vec<i64>) = told.unzip();
        let sum = values.into_iter().reduce(i64::saturating_add)?;
        let first = self.0.entry(gauge).or_insert_with(|| tellers.clone());
        (*first == tellers).then_some(sum)
    }
}

/// Xid events so far; gone once some may have been missed.
struct Xids {
    watch: XidWatch,
    events: i64,
    last: Option<i64>,
}

impl GpuMonitor {
    /// Begins to watch a GPU. Where NVML is missing or does not know the GPU, the network ports are
    /// visible alone.
    pub fn of(identity: CudaIdentity, surroundings: &Surroundings, sysfs: Sysfs) -> Self {
        let (gpu, xids) = match find(&identity.pci_bus_id, surroundings) {
            Ok((gpu, xids)) => (Ok(gpu), xids),
            Err(why) => (Err(why), None),
        };
        Self {
            nearest_adapters: sysfs.nearest_adapters(&identity.pci_bus_id),
            identity,
            gpu,
            xids,
            tellers: Tellers::default(),
            sysfs,
        }
    }
}

fn find(pci: &str, surroundings: &Surroundings) -> Result<(NvmlGpu, Option<Xids>), String> {
    // A reason in one line: what to do about it is for `doctor` to say.
    let first_line = |error: crate::CudaError| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let nvml = Nvml::load(surroundings).map_err(first_line)?;
    let gpu = nvml.gpu_at(pci).map_err(first_line)?;
    let gpu = gpu.ok_or_else(|| format!("NVML knows no GPU at {pci}"))?;
    let watch = XidWatch::begin(&nvml, vec![gpu.clone()]).ok();
    let xids = watch.map(|watch| Xids {
        watch,
        events: 0,
        last: None,
    });
    Ok((gpu, xids))
}

impl Monitor for GpuMonitor {
    fn identity(&mut self) -> DeviceIdentity {
        let cuda = &self.identity;
        let adapters = &self.nearest_adapters;
        let mut identity = DeviceIdentity {
            pci: Some(cuda.pci_bus_id.to_lowercase()),
            uuid: Some(cuda.uuid.clone()),
            numa_node: self.sysfs.numa_node(&cuda.pci_bus_id),
            adapter_path: adapters
                .first()
                .and_then(|adapter| self.sysfs.path_to(&cuda.pci_bus_id, adapter)),
            nearest_adapters: adapters.clone(),
            shared_by_mps: cuda.shared_by_mps,
            compute_mode: Some(cuda.compute_mode),
            ..DeviceIdentity::default()
        };
        match &self.gpu {
            Ok(gpu) => {
                let (facts, now) = (gpu.facts(), gpu.read());
                describe(&mut identity, &facts, &now);
                if let ([Err(error), _], false) = (gpu.nvlink_kib(), now.nvlinks.is_empty()) {
                    let traffic = format!("traffic of NVLinks ({})", error.why());
                    identity.not_visible.push(traffic);
                }
            }
            Err(why) => identity.not_visible = vec![format!("its state ({why})")],
        }
        if self.gpu.is_ok() && self.xids.is_none() {
            identity.not_visible.push("Xid events".to_owned());
        }
        identity
    }

    fn read(&mut self, extent: Extent) -> DeviceState {
        let mut state = match &self.gpu {
            Ok(gpu) => gpu.state(extent, &mut self.tellers),
            Err(_) => DeviceState::default(),
        };
        self.xids = self.xids.take().and_then(Xids::look);
        if let Some(xids) = &self.xids {
            state.set(Gauge::XidEvents, Some(xids.events));
            state.set(Gauge::Xid, xids.last);
        }
        if extent == Extent::Whole && !self.nearest_adapters.is_empty() {
            let ports = self.sysfs.ports_of(&self.nearest_adapters);
            put_ports(&mut state, &ports, &mut self.tellers);
        }
        state
    }
}

impl Xids {
    /// With what has come since; `None` once nothing more is heard.
    fn look(mut self) -> Option<Self> {
        for event in self.watch.take().ok()? {
            self.events += 1;
            self.last = i64::try_from(event.xid).ok();
        }
        Some(self)
    }
}

/// Fills in what NVML knows.
fn describe(identity: &mut DeviceIdentity, facts: &GpuFacts, now: &GpuReading) {
    identity.serial = facts.serial.as_ref().ok().cloned();
    identity.is_mig = facts.is_mig.as_ref().ok().copied();
    identity.most_sm_clock_mhz = facts.most_sm_clock_mhz.as_ref().ok().copied();
    let most = facts.most_pcie.as_ref().ok();
    identity.most_pcie_generation = most.map(|link| link.generation);
    identity.most_pcie_width = most.map(|link| link.width);
    let processes = now.processes.as_ref().ok();
    identity.processes = processes.and_then(|all| u32::try_from(all.len()).ok());
    identity.not_visible = facts.not_visible();
    identity.not_visible.extend(now.not_visible());
}

/// Sums over ports; what no port shows is absent.
fn put_ports(state: &mut DeviceState, ports: &[InfinibandPort], tellers: &mut Tellers) {
    let count = |ports: usize| i64::try_from(ports).ok();
    let shown = ports.iter().filter_map(InfinibandPort::is_active);
    if shown.clone().count() == ports.len() {
        state.set(Gauge::Ports, count(ports.len()));
        state.set(Gauge::PortsActive, count(shown.filter(|is| *is).count()));
    }
    let active = || ports.iter().filter(|port| port.is_active() == Some(true));
    let rates = active().filter_map(|port| port.rate.map(|rate| rate.0.round() as i64));
    state.set(Gauge::PortsRate, rates.reduce(i64::saturating_add));
    let sent = ports.iter().map(InfinibandPort::sent_bytes);
    let received = ports.iter().map(InfinibandPort::received_bytes);
    let errors = ports.iter().flat_map(InfinibandPort::error_counters);
    let counters: [(Gauge, Vec<Option<u64>>); 3] = [
        (Gauge::PortsSent, sent.collect()),
        (Gauge::PortsReceived, received.collect()),
        (Gauge::PortsErrors, errors.collect()),
    ];
    for (gauge, told) in counters {
        state.set(gauge, tellers.sum(gauge, told.into_iter().enumerate()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_those_that_told_at_first() {
        let mut tellers = Tellers::default();
        let mut sum = |values: &[Option<u64>]| {
            tellers.sum(Gauge::NvlinkReplays, values.iter().copied().enumerate())
        };
        assert_eq!(sum(&[None, None]), None);
        assert_eq!(sum(&[Some(u64::MAX), None]), None);
        assert_eq!(sum(&[Some(3), None, Some(4)]), Some(7));
        assert_eq!(sum(&[Some(5), None, None]), None);
        assert_eq!(sum(&[Some(5), Some(1), Some(4)]), None);
        assert_eq!(sum(&[Some(5), None, Some(4)]), Some(9));
    }
}
