//! What `doctor` says of GPUs and of the ports beside them.

use laggard_cuda::{
    ComputeMode, Gpu, GpuFacts, GpuReading, InfinibandPort, NotVisible, Nvml, Sharing,
    Surroundings, Sysfs,
};
use std::fmt::Display;

/// One line each: what it is about, and what was found.
pub(super) fn lines(surroundings: &Surroundings) -> Vec<(String, String)> {
    let sysfs = Sysfs::default();
    let mut lines = Vec::new();
    // Why there is none stands on NVML's own line.
    let gpus = Nvml::load(surroundings).and_then(|nvml| nvml.gpus());
    for (number, gpu) in gpus.iter().flatten().enumerate() {
        let (facts, now) = (gpu.facts(), gpu.read());
        let mut line = gpu_line(&facts, &now);
        let nearest = facts.pci.map(|pci| sysfs.nearest_adapters(&pci));
        if let Some(adapters) = nearest.ok().filter(|adapters| !adapters.is_empty()) {
            line += &format!(", nearest to {}", adapters.join(" and "));
        }
        lines.push((format!("GPU {number}"), line));
    }
    // In the driver's order, which need not be NVML's.
    for number in 0..Gpu::count(surroundings).unwrap_or(0) {
        let said = Sharing::of(number, surroundings);
        let said = said.map_or_else(|error| error.to_string(), |found| found.to_string());
        lines.push((format!("sharing {number}"), said));
    }
    let ports = sysfs.infiniband_ports();
    let name = |port: &InfinibandPort| format!("{}/{}", port.adapter, port.port);
    lines.extend(ports.iter().map(|port| (name(port), port_line(port))));
    lines
}

/// A GPU's identity, its state, what troubles it, and what is not visible.
fn gpu_line(facts: &GpuFacts, now: &GpuReading) -> String {
    let mut parts = vec![shown(&facts.name), shown(&facts.uuid), shown(&facts.pci)];
    let of = |what: Option<String>, most: Option<String>, unit: &str| {
        let most = most.map_or(String::new(), |most| format!(" of {most}"));
        what.map(|what| format!("{what}{most} {unit}"))
    };
    let text = |number: &Result<u32, NotVisible>| number.as_ref().ok().map(u32::to_string);
    let watts = |power: &Result<u32, NotVisible>| power.as_ref().ok().map(|mw| kilo(*mw));
    let (clock, most) = (text(&now.sm_clock_mhz), text(&facts.most_sm_clock_mhz));
    parts.extend(of(clock, most, "MHz"));
    let (power, limit) = (watts(&now.power_mw), watts(&now.power_limit_mw));
    parts.extend(of(power, limit, "W"));
    parts.extend(text(&now.temperature_c).map(|degrees| format!("{degrees} C")));
    parts.extend(now.pcie.as_ref().ok().map(ToString::to_string));
    parts.extend(troubles(facts, now));
    let line = parts.join(", ");
    match not_visible(facts, now) {
        hidden if hidden.is_empty() => line,
        hidden => format!("{line}; not visible: {}", hidden.join(", ")),
    }
}

/// What a job on this GPU would suffer from.
fn troubles(facts: &GpuFacts, now: &GpuReading) -> Vec<String> {
    let mut found = now.slowed_by();
    if let Ok(errors) = &now.ecc_uncorrected
        && *errors > 0
    {
        found.push(format!("{errors} uncorrected errors of memory"));
    }
    if let Ok(rows) = &now.remapped_rows {
        let pending = rows
            .is_pending
            .then_some("rows of memory to be replaced at a reset");
        let failed = rows.has_failed.then_some("no spare rows of memory left");
        found.extend(pending.into_iter().chain(failed).map(str::to_owned));
    }
    let down = now.nvlinks.iter().filter(|link| !link.is_up).count();
    if down > 0 {
        found.push(format!("{down} of {} NVLinks down", now.nvlinks.len()));
    }
    if facts.is_mig == Ok(true) {
        found.push("cut into instances (MIG)".to_owned());
    }
    match facts.compute_mode {
        Ok(ComputeMode::Prohibited) => found.push("no process may compute".to_owned()),
        Ok(ComputeMode::ExclusiveProcess) => found.push("one process at a time".to_owned()),
        _ => {}
    }
    if let Ok(processes) = &now.processes
        && !processes.is_empty()
    {
        found.push(format!("used by {} processes", processes.len()));
    }
    found
}

/// What was asked for and not told, with the reason.
fn not_visible(facts: &GpuFacts, now: &GpuReading) -> Vec<String> {
    let mode = facts.compute_mode.as_ref().err();
    let mode = mode.map(|error| format!("compute mode ({})", error.why()));
    now.not_visible().into_iter().chain(mode).collect()
}

fn port_line(port: &InfinibandPort) -> String {
    let rate = port.rate.map(|rate| format!("{:.0} Gb/s", rate.0 * 8e-9));
    let parts = [port.link_layer.clone(), port.state.clone(), rate];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "not visible".to_owned(),
        false => parts.join(", "),
    }
}

/// Thousands, as a whole number.
fn kilo(number: u32) -> String {
    format!("{:.0}", f64::from(number) / 1000.0)
}

fn shown<T: Display>(value: &Result<T, NotVisible>) -> String {
    match value {
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use laggard_cuda::{ClockReason, NvLink, PcieLink, RemappedRows};

    fn facts() -> GpuFacts {
        GpuFacts {
            name: Ok("NVIDIA H200".to_owned()),
            uuid: Ok("GPU-1".to_owned()),
            serial: Err(NotVisible::NoPermission),
            pci: Ok("00000000:1b:00.0".to_owned()),
            is_mig: Ok(false),
            compute_mode: Ok(ComputeMode::Default),
            most_pcie: Err(NotVisible::NotSupported),
            most_sm_clock_mhz: Ok(1980),
        }
    }

    fn reading() -> GpuReading {
        GpuReading {
            sm_clock_mhz: Ok(1380),
            memory_clock_mhz: Ok(3201),
            clock_reasons: Ok(vec![ClockReason::Idle]),
            power_mw: Ok(599_400),
            power_limit_mw: Ok(600_000),
            temperature_c: Ok(71),
            ecc_corrected: Ok(9),
            ecc_uncorrected: Ok(0),
            remapped_rows: Ok(RemappedRows {
                corrected: 1,
                uncorrected: 0,
                is_pending: false,
                has_failed: false,
            }),
            pcie: Ok(PcieLink {
                generation: 5,
                width: 16,
            }),
            pcie_replays: Ok(0),
            nvlinks: Vec::new(),
            processes: Ok(Vec::new()),
            mps_processes: Err(NotVisible::NoFunction),
        }
    }

    #[test]
    fn a_gpu_is_one_line() {
        let line = gpu_line(&facts(), &reading());
        let expect = "NVIDIA H200, GPU-1, 00000000:1b:00.0, 1380 of 1980 MHz, 599 of 600 W, 71 C, \
                      PCIe 5 x16";
        assert_eq!(line, expect);
    }

    #[test]
    fn troubles_are_named_and_what_is_hidden_is_not_taken_for_good() {
        let mut now = reading();
        now.clock_reasons = Ok(vec![ClockReason::PowerCap]);
        now.ecc_uncorrected = Ok(3);
        now.nvlinks = vec![NvLink {
            link: 0,
            is_up: false,
            replays: Ok(0),
            recoveries: Ok(0),
            crc_errors: Ok(0),
        }];
        now.temperature_c = Err(NotVisible::NoPermission);
        now.remapped_rows = Err(NotVisible::NotSupported);
        let line = gpu_line(&facts(), &now);
        let expect = "power-capped at 600 W, 3 uncorrected errors of memory, 1 of 1 NVLinks down; \
                      not visible: temperature (no permission), replaced rows of memory (this GPU \
                      does not have it)";
        assert!(line.ends_with(expect), "{line}");
    }

    #[test]
    fn a_port_is_one_line() {
        let port = InfinibandPort {
            adapter: "mlx5_0".to_owned(),
            port: 1,
            pci: None,
            state: Some("ACTIVE".to_owned()),
            link_layer: None,
            rate: Some(laggard_types::BytesPerSecond(50e9)),
            counters: std::collections::BTreeMap::new(),
        };
        assert_eq!(port_line(&port), "ACTIVE, 400 Gb/s");
    }
}
