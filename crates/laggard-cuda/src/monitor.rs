//! One GPU with the network ports beside it, as whoever samples them during a job sees them.
//! Checked over stand-ins for NVML and sysfs; never run on a GPU yet.

use crate::{
    CudaIdentity, GpuFacts, GpuReading, InfinibandPort, Nvml, NvmlGpu, Surroundings, Sysfs,
    XidWatch,
};
use laggard_backend::{Extent, Monitor};
use laggard_types::{DeviceIdentity, DeviceState, Gauge};

/// Reads a GPU's state through NVML, and that of the nearest network ports from sysfs.
pub struct GpuMonitor {
    identity: CudaIdentity,
    /// Why there is none, as users read it.
    gpu: Result<NvmlGpu, String>,
    xids: Option<Xids>,
    sysfs: Sysfs,
    nearest_adapters: Vec<String>,
}

/// Xid events so far.
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
            Ok(gpu) => gpu.state(extent),
            Err(_) => DeviceState::default(),
        };
        if let Some(xids) = &mut self.xids {
            xids.look();
            state.set(Gauge::XidEvents, Some(xids.events));
            state.set(Gauge::Xid, xids.last);
        }
        if extent == Extent::Whole && !self.nearest_adapters.is_empty() {
            put_ports(&mut state, &self.sysfs.ports_of(&self.nearest_adapters));
        }
        state
    }
}

impl Xids {
    fn look(&mut self) {
        for event in self.watch.take().unwrap_or_default() {
            self.events += 1;
            self.last = i64::try_from(event.xid).ok();
        }
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
    identity.not_visible = now.not_visible();
}

/// Sums over ports; what no port shows is absent.
fn put_ports(state: &mut DeviceState, ports: &[InfinibandPort]) {
    let count = |ports: usize| i64::try_from(ports).ok();
    let sum = |values: &mut dyn Iterator<Item = u64>| {
        let all = values.reduce(u64::saturating_add);
        all.and_then(|it| i64::try_from(it).ok())
    };
    let shown = ports.iter().filter_map(InfinibandPort::is_active);
    if shown.clone().count() == ports.len() {
        state.set(Gauge::Ports, count(ports.len()));
        state.set(Gauge::PortsActive, count(shown.filter(|is| *is).count()));
    }
    let active = || ports.iter().filter(|port| port.is_active() == Some(true));
    let mut rates = active().filter_map(|port| port.rate.map(|rate| rate.0.round() as u64));
    state.set(Gauge::PortsRate, sum(&mut rates));
    let mut sent = ports.iter().filter_map(InfinibandPort::sent_bytes);
    state.set(Gauge::PortsSent, sum(&mut sent));
    let mut received = ports.iter().filter_map(InfinibandPort::received_bytes);
    state.set(Gauge::PortsReceived, sum(&mut received));
    let mut errors = ports.iter().filter_map(InfinibandPort::errors);
    state.set(Gauge::PortsErrors, sum(&mut errors));
}
