//! What is read of GPUs through NVML, with a stand-in for it: values, and above all what is not
//! visible and must not be taken for good.

#[path = "fakes/cc.rs"]
mod cc;

use laggard_cuda::{
    ClockReason, ComputeMode, GpuProcess, NotVisible, Nvml, NvmlGpu, PcieLink, RemappedRows,
    Surroundings, XidEvent, XidWatch,
};
use std::path::Path;
use std::sync::Arc;

/// The stand-in, built with these options; it lives as long as the test.
fn nvml(name: &str, options: &[&str]) -> Arc<Nvml> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/nvml.c");
    cc::shared_library(&source, &folder.join("libnvidia-ml.so.1"), options);
    let nvml =
        Nvml::load(&Surroundings::only(std::slice::from_ref(&folder))).expect("the stand-in");
    assert!(nvml.path().starts_with(folder));
    nvml
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
