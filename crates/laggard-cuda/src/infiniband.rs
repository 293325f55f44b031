//! InfiniBand and RoCE ports, as Linux shows them to everybody: state, rate and counters, and which
//! of them is nearest to a GPU. A file that cannot be read leaves its value out; what is left out
//! says nothing.

use laggard_types::{AdapterPath, BytesPerSecond};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One port.
#[derive(Debug, Clone, PartialEq)]
pub struct InfinibandPort {
    /// The adapter, such as `mlx5_0`.
    pub adapter: String,
    /// The port's number.
    pub port: u32,
    /// The adapter's PCI address.
    pub pci: Option<String>,
    /// Its state, such as `ACTIVE` or `DOWN`.
    pub state: Option<String>,
    /// `InfiniBand` or `Ethernet`.
    pub link_layer: Option<String>,
    /// The link's rate in one direction.
    pub rate: Option<BytesPerSecond>,
    /// Every counter that is there, by the kernel's name (Documentation/ABI/stable/
    /// sysfs-class-infiniband), those of the driver's own among them.
    pub counters: BTreeMap<String, u64>,
}

/// Bytes of a unit of `port_xmit_data` and `port_rcv_data`.
/// Source: Linux, Documentation/ABI/stable/sysfs-class-infiniband.
const DATA_UNIT_BYTES: u64 = 4;

/// Counters of what went wrong on a link, among those of Linux, Documentation/ABI/stable/
/// sysfs-class-infiniband. Packets that were meant for others, or discarded for want of room, are
/// not among them.
const ERRORS: [&str; 7] = [
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
];

/// Bits of a byte, and bits per second of a Gb/s.
const BITS: f64 = 8.0;
const GIGA: f64 = 1e9;

impl InfinibandPort {
    /// Bytes sent since the counter began.
    pub fn sent_bytes(&self) -> Option<u64> {
        self.data("port_xmit_data")
    }

    /// Bytes received since the counter began.
    pub fn received_bytes(&self) -> Option<u64> {
        self.data("port_rcv_data")
    }

    fn data(&self, counter: &str) -> Option<u64> {
        self.counters.get(counter)?.checked_mul(DATA_UNIT_BYTES)
    }

    /// What went wrong on its link since the counters began; `None` if none of them is visible.
    pub fn errors(&self) -> Option<u64> {
        let counters = self.error_counters().into_iter().flatten();
        counters.reduce(u64::saturating_add)
    }

    /// The counters of what went wrong on its link.
    pub(crate) fn error_counters(&self) -> [Option<u64>; ERRORS.len()] {
        ERRORS.map(|name| self.counters.get(name).copied())
    }

    /// Whether it carries data; `None` if that is not visible.
    pub fn is_active(&self) -> Option<bool> {
        self.state.as_ref().map(|state| state == "ACTIVE")
    }
}

/// The files that Linux describes devices by.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at(Path::new("/sys"))
    }
}

impl Sysfs {
    /// Files below another folder.
    pub fn at(root: &Path) -> Self {
        let root = root.to_owned();
        Self { root }
    }

    /// Every port, in order of adapters and numbers; none where there are none or they are not
    /// visible.
    pub fn infiniband_ports(&self) -> Vec<InfinibandPort> {
        self.ports_of(&names(&self.root.join("class/infiniband")))
    }

    /// The ports of some adapters, likewise.
    pub fn ports_of(&self, adapters: &[String]) -> Vec<InfinibandPort> {
        let class = self.root.join("class/infiniband");
        let mut found = Vec::new();
        for adapter in adapters {
            let device = class.join(adapter);
            let pci = fs::canonicalize(device.join("device")).ok();
            let pci = pci.as_deref().and_then(Path::file_name);
            let pci = pci.map(|name| name.to_string_lossy().into_owned());
            let mut ports: Vec<u32> = names(&device.join("ports"))
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect();
            ports.sort_unstable();
            for port in ports {
                let folder = device.join("ports").join(port.to_string());
                found.push(read(&folder, adapter.clone(), port, pci.clone()));
            }
        }
        found
    }

    /// The adapters that are nearest to the device of a PCI address: to which the way is shortest,
    /// and of these the ones with which it shares most bridges on the way to a processor. Empty if
    /// nothing is known of either.
    pub fn nearest_adapters(&self, pci: &str) -> Vec<String> {
        let Some(own) = self.device(pci) else {
            return Vec::new();
        };
        let class = self.root.join("class/infiniband");
        let distances: Vec<_> = names(&class)
            .into_iter()
            .filter_map(|adapter| {
                let other = fs::canonicalize(class.join(&adapter).join("device")).ok()?;
                let distance = (path_between(&own, &other), Reverse(shared(&own, &other)));
                Some((distance, adapter))
            })
            .collect();
        let least = distances.iter().map(|(distance, _)| *distance).min();
        let nearest = distances
            .into_iter()
            .filter(|(distance, _)| Some(*distance) == least);
        nearest.map(|(_, adapter)| adapter).collect()
    }

    /// What lies between the device of a PCI address and an adapter; `None` if nothing is known of
    /// either.
    pub fn path_to(&self, pci: &str, adapter: &str) -> Option<AdapterPath> {
        let own = self.device(pci)?;
        let class = self.root.join("class/infiniband");
        let other = fs::canonicalize(class.join(adapter).join("device")).ok()?;
        Some(path_between(&own, &other))
    }

    /// The memory node that the device of a PCI address hangs from.
    pub fn numa_node(&self, pci: &str) -> Option<u32> {
        numa_node(&self.device(pci)?)
    }

    /// The folder of the device of a PCI address.
    fn device(&self, pci: &str) -> Option<PathBuf> {
        let devices = self.root.join("bus/pci/devices");
        fs::canonicalize(devices.join(short_address(pci))).ok()
    }
}

/// What lies between two devices.
fn path_between(own: &Path, other: &Path) -> AdapterPath {
    let both = own.iter().zip(other);
    let shared: Vec<_> = both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    // A host bridge is called `pci0000:17`, what hangs from it `0000:17:00.0`.
    let is_host_bridge = |name: &&std::ffi::OsStr| name.to_string_lossy().starts_with("pci");
    match shared.iter().rev().position(is_host_bridge) {
        Some(0) => AdapterPath::HostBridge,
        Some(_) => AdapterPath::PcieSwitch,
        None if same(numa_node(own), numa_node(other)) => AdapterPath::NumaNode,
        None => AdapterPath::System,
    }
}

/// -1 is a machine without nodes.
fn numa_node(device: &Path) -> Option<u32> {
    text(&device.join("numa_node"))?.parse().ok()
}

/// Whether both are known and one.
fn same(a: Option<u32>, b: Option<u32>) -> bool {
    a.is_some() && a == b
}

fn read(folder: &Path, adapter: String, port: u32, pci: Option<String>) -> InfinibandPort {
    let counters = ["counters", "hw_counters"].map(|name| folder.join(name));
    let counters = counters.iter().flat_map(|counters| {
        names(counters).into_iter().filter_map(|name| {
            let value = text(&counters.join(&name))?.parse().ok()?;
            Some((name, value))
        })
    });
    InfinibandPort {
        adapter,
        port,
        pci,
        state: text(&folder.join("state")).map(|state| after_colon(&state)),
        link_layer: text(&folder.join("link_layer")),
        rate: text(&folder.join("rate")).and_then(|rate| parse_rate(&rate)),
        counters: counters.collect(),
    }
}

/// Names in a folder, in order; none where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// `4: ACTIVE` is `ACTIVE`.
fn after_colon(state: &str) -> String {
    let name = state.split_once(':').map_or(state, |(_, name)| name);
    name.trim().to_owned()
}

/// `400 Gb/sec (4X NDR)`, in one direction.
fn parse_rate(rate: &str) -> Option<BytesPerSecond> {
    let (number, _) = rate.split_once(" Gb/sec")?;
    let gigabits: f64 = number.trim().parse().ok()?;
    (gigabits.is_finite() && gigabits > 0.0).then(|| BytesPerSecond(gigabits * GIGA / BITS))
}

/// The address as Linux writes it: NVML has eight digits of the domain, Linux four.
fn short_address(pci: &str) -> String {
    let lower = pci.to_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            format!("{:0>4}:{rest}", domain.trim_start_matches('0'))
        }
        _ => lower,
    }
}

/// How many parts two paths have in common from the root on.
fn shared(a: &Path, b: &Path) -> usize {
    let pairs = a.components().zip(b.components());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine with two adapters, each below a bridge of its own, and a GPU beside the second.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let devices = [
            ("mlx5_0", "devices/pci0000:00/0000:00:01.0/0000:17:00.0"),
            ("mlx5_1", "devices/pci0000:80/0000:80:01.0/0000:81:00.0"),
        ];
        for (adapter, device) in devices {
            fs::create_dir_all(at(device)).unwrap();
            let class = at("class/infiniband").join(adapter);
            let port = class.join("ports/1");
            fs::create_dir_all(port.join("counters")).unwrap();
            fs::create_dir_all(port.join("hw_counters")).unwrap();
            symlink(at(device), class.join("device")).unwrap();
            for (name, value) in [
                ("state", "4: ACTIVE\n"),
                ("link_layer", "InfiniBand\n"),
                ("rate", "400 Gb/sec (4X NDR)\n"),
                ("counters/port_xmit_data", "1000\n"),
                ("counters/port_rcv_data", "18446744073709551615\n"),
                ("counters/symbol_error", "3\n"),
                ("counters/port_xmit_wait", "N/A (no PMA)\n"),
                ("hw_counters/packet_seq_err", "7\n"),
            ] {
                fs::write(port.join(name), value).unwrap();
            }
        }
        fs::write(at("class/infiniband/mlx5_1/ports/1/state"), "1: DOWN\n").unwrap();
        fs::remove_file(at("class/infiniband/mlx5_1/ports/1/rate")).unwrap();
        fs::create_dir_all(at("bus/pci/devices")).unwrap();
        for (gpu, node) in [
            ("pci0000:80/0000:80:01.0/0000:82:00.0", "1\n"),
            ("pci0000:80/0000:80:03.0/0000:91:00.0", "1\n"),
            ("pci0000:c0/0000:c0:01.0/0000:c1:00.0", "1\n"),
            ("pci0000:e0/0000:e0:01.0/0000:e1:00.0", "-1\n"),
        ] {
            let folder = at("devices").join(gpu);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("numa_node"), node).unwrap();
            let name = folder.file_name().unwrap();
            symlink(&folder, at("bus/pci/devices").join(name)).unwrap();
        }
        for (_, device) in devices {
            fs::write(at(device).join("numa_node"), "1\n").unwrap();
        }
        root
    }

    #[test]
    fn ports_are_read_and_what_is_not_there_is_left_out() {
        let root = machine();
        let ports = Sysfs::at(root.path()).infiniband_ports();
        let [first, second] = &ports[..] else {
            panic!("{ports:?}");
        };
        assert_eq!((first.adapter.as_str(), first.port), ("mlx5_0", 1));
        assert_eq!(first.pci.as_deref(), Some("0000:17:00.0"));
        assert_eq!(first.link_layer.as_deref(), Some("InfiniBand"));
        assert_eq!(first.is_active(), Some(true));
        assert_eq!(first.rate, Some(BytesPerSecond(50e9)));
        assert_eq!(first.sent_bytes(), Some(4000));
        // A counter that no port can have come to is not turned into bytes.
        assert_eq!(first.received_bytes(), None);
        assert_eq!(first.counters.get("symbol_error"), Some(&3));
        assert_eq!(first.errors(), Some(3));
        assert_eq!(first.counters.get("packet_seq_err"), Some(&7));
        assert_eq!(first.counters.get("port_xmit_wait"), None);
        assert_eq!((second.is_active(), second.rate), (Some(false), None));
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(Sysfs::at(nothing.path()).infiniband_ports(), []);
    }

    #[test]
    fn the_nearest_adapter_shares_most_bridges() {
        let root = machine();
        let sysfs = Sysfs::at(root.path());
        // As NVML, the driver and Linux write it.
        for pci in ["00000000:82:00.0", "0000:82:00.0"] {
            assert_eq!(sysfs.nearest_adapters(pci), ["mlx5_1"], "{pci}");
        }
        // Below no bridge of either: the one of its memory node.
        let far = root
            .path()
            .join("devices/pci0000:00/0000:00:01.0/0000:17:00.0");
        fs::write(far.join("numa_node"), "0\n").unwrap();
        assert_eq!(sysfs.nearest_adapters("0000:c1:00.0"), ["mlx5_1"]);
        assert!(sysfs.nearest_adapters("0000:99:00.0").is_empty());
        assert_eq!(short_address("00010000:0B:00.0"), "10000:0b:00.0");
    }

    #[test]
    fn the_way_to_an_adapter_is_known_by_what_both_hang_from() {
        let root = machine();
        let sysfs = Sysfs::at(root.path());
        let path = |pci| sysfs.path_to(pci, "mlx5_1");
        assert_eq!(path("0000:82:00.0"), Some(AdapterPath::PcieSwitch));
        assert_eq!(path("0000:91:00.0"), Some(AdapterPath::HostBridge));
        assert_eq!(path("0000:c1:00.0"), Some(AdapterPath::NumaNode));
        assert_eq!(path("0000:e1:00.0"), Some(AdapterPath::System));
        assert_eq!(path("0000:99:00.0"), None);
        assert_eq!(sysfs.path_to("0000:82:00.0", "mlx5_7"), None);
        assert_eq!(sysfs.numa_node("0000:82:00.0"), Some(1));
        assert_eq!(sysfs.numa_node("0000:e1:00.0"), None);
    }
}
