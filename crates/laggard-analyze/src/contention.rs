//! Work from outside: what the processors did beside this job.

use laggard_record::{Manifest, Telemetry};

/// Use of the processors by others while the job ran.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Contention {
    /// For each rank bound to processors of its own: share of their time that others used.
    pub(crate) of_rank: Vec<Option<f64>>,
    /// Share of all processors' time that others used.
    pub(crate) overall: f64,
    /// Share of all processors' time that a hypervisor gave away.
    pub(crate) steal: f64,
}

/// Time of one processor, summed over intervals.
#[derive(Default, Clone, Copy)]
struct Use {
    length: f64,
    foreign: f64,
    steal: f64,
}

impl Use {
    fn add(&mut self, row: &Telemetry) {
        self.length += (row.end_ns - row.start_ns).max(0) as f64;
        self.foreign += (row.busy_ns - row.own_ns) as f64;
        self.steal += row.steal_ns as f64;
    }

    /// Ticks of the system's counters make single intervals uncertain in both directions; only
    /// their sum is cut at zero.
    fn foreign_share(&self) -> Option<f64> {
        (self.length > 0.0).then(|| (self.foreign / self.length).clamp(0.0, 1.0))
    }
}

impl Contention {
    /// Sums telemetry; `None` where there is none.
    pub(crate) fn new(manifest: &Manifest, rows: &[Telemetry]) -> Option<Self> {
        if rows.is_empty() {
            return None;
        }
        let mut all = Use::default();
        rows.iter().for_each(|row| all.add(row));
        let of_rank = manifest
            .ranks
            .iter()
            .map(|place| {
                let mut used = Use::default();
                let mine =
                    |row: &&Telemetry| row.host == place.host && place.cpus.contains(&row.cpu);
                rows.iter().filter(mine).for_each(|row| used.add(row));
                used.foreign_share()
            })
            .collect();
        Some(Self {
            of_rank,
            overall: all.foreign_share().unwrap_or(0.0),
            steal: if all.length > 0.0 {
                all.steal / all.length
            } else {
                0.0
            },
        })
    }
}
