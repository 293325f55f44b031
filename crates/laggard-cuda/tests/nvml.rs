//! What is read of GPUs through NVML, with a stand-in for it: values, and above all what is not
//! visible and must not be taken for good.

#[path = "fakes/cc.rs"]
mod cc;

use laggard_backend::{Extent, Monitor};
use laggard_cuda::{
    ClockReason, ComputeMode, CudaIdentity, GpuMonitor, GpuProcess, NotVisible, Nvml, NvmlGpu,
    PcieLink, RemappedRows, Surroundings, Sysfs, XidEvent, XidWatch,
};
use laggard_types::{AdapterPath, DeviceState, Gauge};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The stand-in, built with these options; it lives as long as the test.
fn nvml(name: &str, options: &[&str]) -> Arc<Nvml> {
    let folder = built(name, options);
    let nvml =
        Nvml::load(&Surroundings::only(std::slice::from_ref(&folder))).expect("the stand-in");
    assert!(nvml.path().starts_with(folder));
    nvml
}

/// The folder that the stand-in is in.
fn built(name: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/nvml.c");
    cc::shared_library(&source, &folder.join("libnvidia-ml.so.1"), options);
    folder
}

fn gpus(nvml: &Arc<Nvml>) -> [NvmlGpu; 2] {
    let gpus = nvml.gpus().expect("GPUs");
    gpus.try_into().unwrap_or_else(|_| panic!("two GPUs"))
}

#[test]
fn everything_is_read_of_a_gpu_that_shows_it() {
    let nvml = nvml("nvml_all", &[]);
    let [gpu, _] = gpus(&nvml);
    let facts = gpu.facts();
    assert_eq!(facts.name.as_deref(), Ok("Fake GPU 0"));
    assert_eq!(facts.uuid.as_deref(), Ok("GPU-0"));
    assert_eq!(facts.serial.as_deref(), Ok("1650"));
    assert_eq!(facts.pci.as_deref(), Ok("00000000:1b:00.0"));
    assert_eq!(facts.is_mig, Ok(true));
    assert_eq!(facts.compute_mode, Ok(ComputeMode::ExclusiveProcess));
    let (generation, width) = (5, 16);
    assert_eq!(facts.most_pcie, Ok(PcieLink { generation, width }));
    assert_eq!(facts.most_sm_clock_mhz, Ok(1980));

    let now = gpu.read();
    assert_eq!(
        (now.sm_clock_mhz.clone(), now.memory_clock_mhz.clone()),
        (Ok(1380), Ok(3201))
    );
    assert_eq!(
        (now.power_mw.clone(), now.temperature_c.clone()),
        (Ok(599_000), Ok(71))
    );
    let reasons = [ClockReason::PowerCap, ClockReason::SoftwareThermal];
    assert_eq!(now.clock_reasons.as_deref(), Ok(&reasons[..]));
    assert_eq!(
        now.slowed_by(),
        ["power-capped at 600 W", "software thermal slowdown"]
    );
    assert_eq!((now.ecc_corrected, now.ecc_uncorrected), (Ok(42), Ok(1)));
    let rows = RemappedRows {
        corrected: 2,
        uncorrected: 1,
        is_pending: true,
        has_failed: false,
    };
    assert_eq!(now.remapped_rows, Ok(rows));
    assert_eq!(
        now.pcie.map(|link| link.to_string()).as_deref(),
        Ok("PCIe 5 x8")
    );
    assert_eq!(now.pcie_replays, Ok(12));
    let ups: Vec<_> = now
        .nvlinks
        .iter()
        .map(|link| (link.link, link.is_up))
        .collect();
    assert_eq!(ups, [(0, true), (1, false), (2, true)]);
    assert_eq!(now.nvlinks[2].replays, Ok(20));
    assert_eq!(now.nvlinks[2].recoveries, Err(NotVisible::NoPermission));
    assert_eq!(now.nvlinks[2].crc_errors, Ok(22));
    // More than there is room for at first.
    let processes = now.processes.expect("processes");
    let process = |pid, memory_bytes| GpuProcess { pid, memory_bytes };
    assert_eq!(processes.len(), 70);
    assert_eq!(
        processes[..2],
        [process(100, None), process(101, Some(1 << 20))]
    );
    assert_eq!(now.mps_processes, Err(NotVisible::NoFunction));
}

#[test]
fn what_cannot_be_read_is_not_visible_and_hides_nothing_else() {
    let nvml = nvml("nvml_little", &[]);
    let [_, gpu] = gpus(&nvml);
    let (facts, now) = (gpu.facts(), gpu.read());
    assert_eq!(facts.name.as_deref(), Ok("Fake GPU 1"));
    assert_eq!(facts.serial, Err(NotVisible::NotSupported));
    assert_eq!(facts.is_mig, Err(NotVisible::NotSupported));
    assert!(matches!(facts.compute_mode, Err(NotVisible::Failed { .. })));
    assert_eq!(now.power_limit_mw, Err(NotVisible::NoPermission));
    assert_eq!(now.ecc_uncorrected, Err(NotVisible::NotSupported));
    assert_eq!(now.remapped_rows, Err(NotVisible::NotSupported));
    let why = "Unknown Error".to_owned();
    assert_eq!(now.pcie_replays, Err(NotVisible::Failed { why }));
    assert_eq!(now.sm_clock_mhz, Ok(1380));
    assert!(now.nvlinks.is_empty());
    let hidden = [
        "power (no permission)",
        "power limit (no permission)",
        "corrected errors of memory (this GPU does not have it)",
        "errors of memory (this GPU does not have it)",
        "replaced rows of memory (this GPU does not have it)",
        "PCIe replays (Unknown Error)",
    ];
    assert_eq!(now.not_visible(), hidden);
    let hidden = [
        "serial number (this GPU does not have it)",
        "instances (this GPU does not have it)",
    ];
    assert_eq!(facts.not_visible(), hidden);
    // Idle is nothing that slows.
    assert!(now.slowed_by().is_empty());
    let text = NotVisible::NoPermission.to_string();
    assert_eq!(text, "not visible: no permission");
}

#[test]
fn a_lost_gpu_says_so_everywhere() {
    let nvml = nvml("nvml_lost", &["-DLOST"]);
    let [first, lost] = gpus(&nvml);
    assert_eq!(first.read().temperature_c, Ok(71));
    let now = lost.read();
    assert_eq!(now.temperature_c, Err(NotVisible::Lost));
    assert_eq!(now.clock_reasons, Err(NotVisible::Lost));
    assert!(now.slowed_by().is_empty());
}

#[test]
fn old_drivers_have_old_names() {
    let nvml = nvml("nvml_old", &["-DOLD"]);
    let [gpu, _] = gpus(&nvml);
    assert_eq!(gpu.read().slowed_by().len(), 2);
}

#[test]
fn gpus_are_found_by_their_address() {
    let nvml = nvml("nvml_address", &[]);
    let found = nvml
        .gpu_at("0000:1b:00.0")
        .expect("no error")
        .expect("a GPU");
    assert_eq!(found.facts().uuid.as_deref(), Ok("GPU-0"));
    assert!(nvml.gpu_at("0000:99:00.0").expect("no error").is_none());
    assert!(nvml.gpu_at("\0").expect("no error").is_none());
}

#[test]
fn xid_events_come_once_and_in_order() {
    let nvml = nvml("nvml_xid", &[]);
    let [first, second] = gpus(&nvml);
    let refused = XidWatch::begin(&nvml, vec![second]).map(|_| ());
    assert_eq!(refused, Err(NotVisible::NotSupported));
    let mut watch = XidWatch::begin(&nvml, vec![first]).expect("a watch");
    let event = |xid| XidEvent { gpu: 0, xid };
    assert_eq!(watch.take(), Ok(vec![event(63), event(94)]));
    assert_eq!(watch.take(), Ok(vec![]));
}

#[test]
fn an_event_before_a_failure_is_told() {
    let nvml = nvml("nvml_falls", &["-DFALLS"]);
    let [first, _] = gpus(&nvml);
    let mut watch = XidWatch::begin(&nvml, vec![first]).expect("a watch");
    let event = XidEvent { gpu: 0, xid: 63 };
    assert_eq!(watch.take(), Ok(vec![event]));
    assert_eq!(watch.take(), Err(NotVisible::Lost));
}

#[test]
fn a_monitor_that_hears_of_no_more_events_says_nothing_of_them() {
    let surroundings = Surroundings::only(&[built("monitor_falls", &["-DFALLS"])]);
    let machine = machine();
    let sysfs = Sysfs::at(machine.path());
    let mut monitor = GpuMonitor::of(identity("0000:1b:00.0"), &surroundings, sysfs);
    let mut read = || {
        let state = monitor.read(Extent::Moving);
        [Gauge::XidEvents, Gauge::Xid].map(|gauge| state.get(gauge))
    };
    assert_eq!(read(), [Some(1), Some(63)]);
    assert_eq!(read(), [None; 2]);
    assert_eq!(read(), [None; 2]);
    let hidden = monitor.identity().not_visible;
    assert_eq!(hidden.last().map(String::as_str), Some("Xid events"));
}

/// What the driver says of a GPU at this address.
fn identity(pci: &str) -> CudaIdentity {
    CudaIdentity {
        ordinal: 0,
        name: "Fake GPU".to_owned(),
        pci_bus_id: pci.to_owned(),
        uuid: "GPU-7".to_owned(),
        capability: (9, 0),
        multiprocessors: 132,
        memory_bytes: 1 << 37,
        memory_free_bytes: 1 << 36,
        driver: "13.0".to_owned(),
        compute_mode: ComputeMode::Default,
        shared_by_mps: Some(false),
    }
}

/// A machine with an adapter of two ports, one of them down, below one bridge with a GPU.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let at = |path: &str| root.path().join(path);
    let bridge = "devices/pci0000:10/0000:10:01.0";
    let put = |path: String, value: &str| {
        let path = at(&path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, value).expect("written");
    };
    put(format!("{bridge}/0000:1b:00.0/numa_node"), "1\n");
    put(format!("{bridge}/0000:1c:00.0/numa_node"), "1\n");
    for (port, state) in [(1, "4: ACTIVE\n"), (2, "1: DOWN\n")] {
        let port = format!("class/infiniband/mlx5_3/ports/{port}");
        put(format!("{port}/state"), state);
        put(format!("{port}/rate"), "400 Gb/sec (4X NDR)\n");
        put(format!("{port}/counters/port_xmit_data"), "1000\n");
        put(format!("{port}/counters/symbol_error"), "3\n");
        put(format!("{port}/counters/link_downed"), "2\n");
        put(format!("{port}/counters/port_xmit_discards"), "99\n");
    }
    let link = |to: String, from: &str| {
        let from = at(from);
        std::fs::create_dir_all(from.parent().expect("a folder")).expect("a folder");
        std::os::unix::fs::symlink(at(&to), from).expect("a link");
    };
    link(
        format!("{bridge}/0000:1b:00.0"),
        "bus/pci/devices/0000:1b:00.0",
    );
    link(
        format!("{bridge}/0000:1c:00.0"),
        "class/infiniband/mlx5_3/device",
    );
    root
}

#[test]
fn a_monitor_knows_which_gpu_it_is_and_how_it_is_connected() {
    let surroundings = Surroundings::only(&[built("monitor_identity", &[])]);
    let machine = machine();
    let sysfs = Sysfs::at(machine.path());
    let mut monitor = GpuMonitor::of(identity("0000:1b:00.0"), &surroundings, sysfs);
    let told = monitor.identity();
    assert_eq!(told.pci.as_deref(), Some("0000:1b:00.0"));
    assert_eq!(told.uuid.as_deref(), Some("GPU-7"));
    assert_eq!(told.serial.as_deref(), Some("1650"));
    assert_eq!(told.numa_node, Some(1));
    assert_eq!(told.nearest_adapters, ["mlx5_3"]);
    assert_eq!(told.adapter_path, Some(AdapterPath::PcieSwitch));
    assert_eq!((told.is_mig, told.shared_by_mps), (Some(true), Some(false)));
    assert_eq!(told.compute_mode, Some(ComputeMode::Default));
    assert_eq!(told.processes, Some(70));
    let most = (told.most_pcie_generation, told.most_pcie_width);
    assert_eq!(most, (Some(5), Some(16)));
    assert_eq!(told.most_sm_clock_mhz, Some(1980));
    let hidden = [
        "recoveries of NVLinks (no permission)",
        "traffic of NVLinks (this GPU does not have it)",
    ];
    assert_eq!(told.not_visible, hidden);
}

#[test]
fn a_monitor_reads_a_gpu_and_the_ports_beside_it() {
    use Gauge::*;
    let surroundings = Surroundings::only(&[built("monitor", &[])]);
    let machine = machine();
    let sysfs = Sysfs::at(machine.path());
    let mut monitor = GpuMonitor::of(identity("0000:1b:00.0"), &surroundings, sysfs);
    let now = monitor.read(Extent::Moving);
    let all = monitor.read(Extent::Whole);
    let check = |state: &DeviceState, gauges: &[Gauge], expect: &[Option<i64>]| {
        let shown: Vec<_> = gauges.iter().map(|gauge| state.get(*gauge)).collect();
        assert_eq!(shown, expect, "{gauges:?}");
    };
    let clocks = [SmClock, MemoryClock, ClockReasons];
    let power = [Power, PowerLimit, Temperature];
    for state in [&now, &all] {
        check(state, &clocks, &[1380, 3201, 0x24].map(Some));
        check(state, &power, &[599_000, 600_000, 71].map(Some));
        // Both have come by the first reading; the last is told.
        check(state, &[XidEvents, Xid], &[Some(2), Some(94)]);
    }
    check(&now, &[EccCorrected, PcieWidth, Nvlinks, Ports], &[None; 4]);
    let memory = [
        EccCorrected,
        EccUncorrected,
        RemappedCorrected,
        RemappedUncorrected,
    ];
    check(&all, &memory, &[42, 1, 2, 1].map(Some));
    check(&all, &[RemapPending, RemapFailed], &[1, 0].map(Some));
    let pcie = [PcieGeneration, PcieWidth, PcieReplays];
    check(&all, &pcie, &[5, 8, 12].map(Some));
    check(&all, &[Nvlinks, NvlinksUp], &[3, 2].map(Some));
    // Recoveries are not visible, and neither is what went over links.
    let errors = [NvlinkReplays, NvlinkRecoveries, NvlinkCrcErrors];
    check(&all, &errors, &[Some(30), None, Some(36)]);
    check(&all, &[NvlinkSent, NvlinkReceived], &[None; 2]);
    check(
        &all,
        &[Ports, PortsActive, PortsErrors],
        &[2, 1, 10].map(Some),
    );
    let data = [PortsRate, PortsSent, PortsReceived];
    check(&all, &data, &[Some(50_000_000_000), Some(8000), None]);
}

#[test]
fn a_port_that_tells_no_more_takes_nothing_off_a_sum() {
    use Gauge::*;
    let surroundings = Surroundings::only(&[built("monitor_ports", &[])]);
    let machine = machine();
    let sysfs = Sysfs::at(machine.path());
    let mut monitor = GpuMonitor::of(identity("0000:1b:00.0"), &surroundings, sysfs);
    let mut read = || {
        let state = monitor.read(Extent::Whole);
        [PortsSent, PortsErrors].map(|gauge| state.get(gauge))
    };
    assert_eq!(read(), [Some(8000), Some(10)]);
    let counters = "class/infiniband/mlx5_3/ports/2/counters";
    let counters = machine.path().join(counters);
    std::fs::remove_file(counters.join("port_xmit_data")).expect("removed");
    assert_eq!(read(), [None, Some(10)]);
    // What went wrong is a sum as well.
    std::fs::remove_file(counters.join("link_downed")).expect("removed");
    assert_eq!(read(), [None; 2]);
}

#[test]
fn without_nvml_a_monitor_says_so_and_still_reads_ports() {
    let machine = machine();
    let nothing = Surroundings::only(&[machine.path().to_owned()]);
    let sysfs = Sysfs::at(machine.path());
    let mut monitor = GpuMonitor::of(identity("0000:1b:00.0"), &nothing, sysfs.clone());
    let told = monitor.identity();
    assert_eq!(told.uuid.as_deref(), Some("GPU-7"));
    assert_eq!((told.is_mig, told.processes), (None, None));
    assert_eq!(told.not_visible.len(), 1);
    assert!(told.not_visible[0].starts_with("its state ("), "{told:?}");
    assert!(monitor.read(Extent::Moving).is_empty());
    assert_eq!(monitor.read(Extent::Whole).get(Gauge::Ports), Some(2));
    // One that NVML does not know.
    let surroundings = Surroundings::only(&[built("monitor_stranger", &[])]);
    let mut monitor = GpuMonitor::of(identity("0000:99:00.0"), &surroundings, sysfs);
    let told = monitor.identity();
    assert_eq!(
        told.not_visible,
        ["its state (NVML knows no GPU at 0000:99:00.0)"]
    );
    assert!(monitor.read(Extent::Whole).is_empty());
}
