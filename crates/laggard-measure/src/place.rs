//! What one rank can tell about the place it runs at, and the reports of all ranks.

use crate::{MeasureError, Settings};
use crate::{cpu_quota, processors, telemetry};
use laggard_backend::{DeviceDescription, DeviceKind, Messenger, messenger};
use laggard_types::{DataType, DeviceIdentity, Rank};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long other work on the processors is watched before a run.
const WATCH_LOAD: Duration = Duration::from_millis(100);

/// What a rank says of its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Name of the host.
    pub host: String,
    /// What hosts of one machine, with one kernel and one clock, have in common.
    pub machine: String,
    /// Processor architecture.
    pub architecture: String,
    /// Processor model.
    pub processor: String,
    /// Processors that the rank may use.
    pub allowed_cpus: Vec<u32>,
    /// Processors' worth of time that a control group allows, where one limits it.
    pub cpu_quota: Option<f64>,
    /// Memory node of each processor that the rank may use, where the system tells.
    pub numa_nodes: Vec<Option<u32>>,
    /// Share of their time that was in use just before the run, while this run waited.
    pub other_load: Option<f64>,
    /// What the rank computes on, where that is no processor of the host.
    pub accelerator: Option<Accelerator>,
    /// Which one that is, where it tells.
    pub identity: Option<DeviceIdentity>,
    /// The rank's process.
    pub process: u32,
}

/// An accelerator, as its rank reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Accelerator {
    /// Product name, as its driver gives it.
    pub name: String,
    /// Bytes of its memory.
    pub memory_bytes: Option<u64>,
    /// Names of the types that it computes in.
    pub computes_in: Vec<String>,
}

impl Accelerator {
    fn of(device: &DeviceDescription) -> Option<Self> {
        (device.kind == DeviceKind::Gpu).then(|| Self {
            name: device.name.clone(),
            memory_bytes: device.memory_bytes,
            computes_in: names(&device.computes_in),
        })
    }
}

/// What a rank without an accelerator computes in.
const PROCESSORS_COMPUTE_IN: [DataType; 1] = [DataType::F32];

fn names(types: &[DataType]) -> Vec<String> {
    types.iter().map(|it| it.name().to_owned()).collect()
}

impl Report {
    /// What the calling process can tell of its place.
    fn of(allowed_cpus: Vec<u32>, other_load: Option<f64>) -> Self {
        let nodes = allowed_cpus.iter().map(|cpu| processors::numa_node(*cpu));
        Self {
            host: processors::host_name(),
            machine: processors::machine(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: laggard_backend::processor_name(),
            cpu_quota: cpu_quota::cpu_quota(),
            numa_nodes: nodes.collect(),
            other_load,
            allowed_cpus,
            accelerator: None,
            identity: None,
            process: std::process::id(),
        }
    }

    /// A place of this name, of which nothing else is known.
    #[cfg(test)]
    pub(crate) fn named(machine: &str) -> Self {
        Self {
            host: machine.to_owned(),
            machine: machine.to_owned(),
            architecture: "x86_64".to_owned(),
            processor: "p".to_owned(),
            allowed_cpus: Vec::new(),
            cpu_quota: None,
            numa_nodes: Vec::new(),
            other_load: None,
            accelerator: None,
            identity: None,
            process: 1,
        }
    }

    /// Memory node of the processor that the rank is bound to, or of all that it may use; `None`
    /// where they lie on several.
    pub(crate) fn numa_node(&self, bound: Option<u32>) -> Option<u32> {
        let is_its = |cpu: &u32| bound.is_none_or(|bound| bound == *cpu);
        let nodes = self.allowed_cpus.iter().zip(&self.numa_nodes);
        let mut nodes = nodes.filter(|(cpu, _)| is_its(cpu)).map(|(_, node)| *node);
        let first = nodes.next()??;
        nodes.all(|node| node == Some(first)).then_some(first)
    }

    /// The processors that the rank may use, those near its accelerator first.
    fn seats(&self) -> Vec<Seat<'_>> {
        let of_device = self.identity.as_ref().and_then(|it| it.numa_node);
        let is_far = |cpu: &u32| of_device.is_some() && self.numa_node(Some(*cpu)) != of_device;
        let cpus = self.allowed_cpus.iter().copied();
        let (far, near): (Vec<u32>, Vec<u32>) = cpus.partition(is_far);
        let all = near.into_iter().chain(far);
        all.map(|cpu| (self.machine.as_str(), cpu)).collect()
    }

    /// Name of what the rank computes on.
    pub(crate) fn device(&self) -> &str {
        self.accelerator
            .as_ref()
            .map_or(&self.processor, |accelerator| &accelerator.name)
    }

    /// Names of the types that the rank computes in.
    pub(crate) fn computes_in(&self) -> Vec<String> {
        match &self.accelerator {
            Some(accelerator) => accelerator.computes_in.clone(),
            None => names(&PROCESSORS_COMPUTE_IN),
        }
    }

    /// The same, after a look at the load for about a tenth of a second.
    fn with_load() -> Result<Self, MeasureError> {
        let allowed_cpus = processors::allowed()?;
        let load = telemetry::load(&allowed_cpus, WATCH_LOAD);
        Ok(Self::of(allowed_cpus, load))
    }
}

/// Ranks of other jobs of this process. Jobs that know of each other take different processors, and
/// all of them have the same time basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Neighbours {
    /// Those of jobs that come before.
    pub before: u32,
    /// Those of jobs that come after.
    pub after: u32,
}

/// Where the ranks of a run are: what the processes of a run exchange first.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    pub(crate) reports: Vec<Report>,
    /// The processor that each rank is bound to, where each has one of its own.
    pub(crate) cpu_of_rank: Option<Vec<u32>>,
    /// Whether ranks of other jobs have taken their processors beside these.
    is_part: bool,
}

impl Places {
    /// Exchanges reports with all other ranks. Collective.
    ///
    /// # Errors
    /// [`MeasureError::Start`] if a rank does not come before the deadline;
    /// [`MeasureError::System`] if the system does not tell what must be known.
    pub fn exchange(messenger: &dyn Messenger, deadline: Instant) -> Result<Self, MeasureError> {
        let rank = messenger.rank();
        let start = |source| MeasureError::Start { rank, source };
        // Nobody computes while all look at the load.
        messenger::all_gather(messenger, &[], deadline).map_err(start)?;
        let report =
            serde_json::to_vec(&Report::with_load()?).map_err(|error| unreadable(&error))?;
        let all = messenger::all_gather(messenger, &report, deadline).map_err(start)?;
        let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(|e| unreadable(&e));
        let reports = all.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self::new(reports))
    }

    fn new(reports: Vec<Report>) -> Self {
        Self {
            cpu_of_rank: assign(&reports),
            reports,
            is_part: false,
        }
    }

    /// The same ranks, on processors near the devices that they have told of.
    fn near_devices(self) -> Self {
        match self.is_part {
            true => self,
            false => Self::new(self.reports),
        }
    }

    /// The same ranks on the devices that they have by now. Collective.
    ///
    /// # Errors
    /// As [`Places::exchange`].
    pub(crate) fn exchange_devices(
        mut self,
        own: &DeviceDescription,
        messenger: &dyn Messenger,
        deadline: Instant,
    ) -> Result<Self, MeasureError> {
        let rank = messenger.rank();
        let own = serde_json::to_vec(&Accelerator::of(own)).map_err(|error| unreadable(&error))?;
        let all = messenger::all_gather(messenger, &own, deadline)
            .map_err(|source| MeasureError::Start { rank, source })?;
        for (report, bytes) in self.reports.iter_mut().zip(&all) {
            report.accelerator =
                serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        }
        Ok(self)
    }

    /// The same ranks, knowing which devices they have. Collective.
    ///
    /// # Errors
    /// As [`Places::exchange`].
    pub(crate) fn exchange_identities(
        mut self,
        own: Option<&DeviceIdentity>,
        messenger: &dyn Messenger,
        deadline: Instant,
    ) -> Result<Self, MeasureError> {
        let rank = messenger.rank();
        let own = serde_json::to_vec(&own).map_err(|error| unreadable(&error))?;
        let all = messenger::all_gather(messenger, &own, deadline)
            .map_err(|source| MeasureError::Start { rank, source })?;
        for (report, bytes) in self.reports.iter_mut().zip(&all) {
            report.identity = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        }
        Ok(self.near_devices())
    }

    /// The ranks of this process, knowing which devices they have.
    pub(crate) fn identified(mut self, identities: &[Option<DeviceIdentity>]) -> Self {
        for (report, identity) in self.reports.iter_mut().zip(identities) {
            report.identity.clone_from(identity);
        }
        self.near_devices()
    }

    /// The ranks of this process on devices that they have.
    pub(crate) fn on<'a>(mut self, devices: impl Iterator<Item = &'a DeviceDescription>) -> Self {
        for (report, device) in self.reports.iter_mut().zip(devices) {
            report.accelerator = Accelerator::of(device);
        }
        self
    }

    /// Those of some consecutive ranks, which are then numbered from 0. They keep the processors
    /// that they have beside all the others.
    pub fn part(&self, ranks: Range<Rank>) -> Self {
        let ranks = ranks.start as usize..ranks.end as usize;
        let cpus = self.cpu_of_rank.as_ref();
        Self {
            is_part: self.is_part || ranks.len() < self.reports.len(),
            reports: self.reports[ranks.clone()].to_vec(),
            cpu_of_rank: cpus.map(|cpus| cpus[ranks].to_vec()),
        }
    }

    /// What tells the machine of each rank from others.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &str> {
        self.reports.iter().map(|report| report.machine.as_str())
    }

    /// Name of a rank's host.
    pub fn host(&self, rank: Rank) -> &str {
        self.reports
            .get(rank as usize)
            .map_or("unknown host", |report| &report.host)
    }

    /// The processor that a rank binds itself to: each rank has one of its own, or none is bound.
    pub fn processor_of(&self, rank: Rank) -> Option<u32> {
        self.cpu_of_rank.as_ref()?.get(rank as usize).copied()
    }
}

fn unreadable(error: &serde_json::Error) -> MeasureError {
    MeasureError::System {
        what: "exchanging where ranks run".to_owned(),
        why: error.to_string(),
    }
}

/// A processor of its own for each rank, among those that its report allows, near its accelerator
/// where one is free there; `None` if there are too few on some machine.
fn assign(reports: &[Report]) -> Option<Vec<u32>> {
    let seats: Vec<Vec<Seat<'_>>> = reports.iter().map(Report::seats).collect();
    // Rank that holds a processor of a machine.
    let mut holder = BTreeMap::new();
    for rank in 0..reports.len() {
        if !seat(&seats, rank, &mut holder, &mut BTreeSet::new()) {
            return None;
        }
    }
    let mut processor_of = vec![0; reports.len()];
    for ((_, cpu), rank) in holder {
        processor_of[rank] = cpu;
    }
    Some(processor_of)
}

/// A processor of a machine.
type Seat<'a> = (&'a str, u32);

/// Seats a rank, moving others where they have another choice (an augmenting path of bipartite
/// matching; Kuhn 1955).
fn seat<'a>(
    seats: &[Vec<Seat<'a>>],
    rank: usize,
    holder: &mut BTreeMap<Seat<'a>, usize>,
    tried: &mut BTreeSet<Seat<'a>>,
) -> bool {
    let own = &seats[rank];
    if let Some(free) = own.iter().find(|seat| !holder.contains_key(seat)) {
        holder.insert(*free, rank);
        return true;
    }
    for taken in own {
        let other = holder[taken];
        if tried.insert(*taken) && seat(seats, other, holder, tried) {
            holder.insert(*taken, rank);
            return true;
        }
    }
    false
}

impl Settings {
    /// Where in-process ranks are: all at this place, on as many hosts as are emulated, beside the
    /// ranks of the other jobs of this process.
    pub(crate) fn own_places(
        &self,
        host_of_rank: &[u32],
        neighbours: Neighbours,
    ) -> Result<Places, MeasureError> {
        let report = Report::of(processors::available()?, None);
        let named = |host: &u32| Report {
            host: match self.emulate_hosts {
                1 => report.host.clone(),
                _ => format!("{}/{host}", report.host),
            },
            ..report.clone()
        };
        let Neighbours { before, after } = neighbours;
        let others = |count: u32| std::iter::repeat_n(report.clone(), count as usize);
        let own = host_of_rank.iter().map(named);
        let all = others(before).chain(own).chain(others(after));
        let all = Places::new(all.collect());
        Ok(all.part(before..before + host_of_rank.len() as Rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(machine: &str, allowed: &[u32]) -> Report {
        Report {
            allowed_cpus: allowed.to_vec(),
            ..Report::named(machine)
        }
    }

    #[test]
    fn every_rank_has_a_processor_of_its_own_or_none_has() {
        let check = |reports: &[(&str, &[u32])], expect: Option<&[u32]>| {
            let reports: Vec<Report> = reports.iter().map(|(m, cpus)| report(m, cpus)).collect();
            assert_eq!(assign(&reports).as_deref(), expect);
        };
        check(&[], Some(&[]));
        check(&[("a", &[0, 1]), ("a", &[0, 1])], Some(&[0, 1]));
        // The first gives way to the second, who has no choice.
        check(&[("a", &[0, 1]), ("a", &[0])], Some(&[1, 0]));
        check(&[("a", &[3]), ("b", &[3])], Some(&[3, 3]));
        check(&[("a", &[3]), ("a", &[3])], None);
        check(&[("a", &[0, 1]), ("a", &[0, 1]), ("a", &[0, 1])], None);
        check(&[("a", &[])], None);
    }

    /// Ranks that may use all processors of two nodes of 8, each with a GPU of the node.
    fn on_two_nodes(gpus: &[Option<u32>]) -> Places {
        let cpus: Vec<u32> = (0..16).collect();
        let report = Report {
            numa_nodes: cpus.iter().map(|cpu| Some(cpu / 8)).collect(),
            ..report("a", &cpus)
        };
        let places = Places::new(vec![report; gpus.len()]);
        let identity = |numa_node: &Option<u32>| {
            numa_node.map(|node| DeviceIdentity {
                numa_node: Some(node),
                ..DeviceIdentity::default()
            })
        };
        places.identified(&gpus.iter().map(identity).collect::<Vec<_>>())
    }

    #[test]
    fn ranks_sit_near_their_devices() {
        let check = |gpus: &[Option<u32>], expect: &[u32]| {
            let places = on_two_nodes(gpus);
            let cpus = (0..).zip(gpus).map(|(rank, _)| places.processor_of(rank));
            assert_eq!(cpus.flatten().collect::<Vec<_>>(), expect, "{gpus:?}");
        };
        let [near, far] = [Some(0), Some(1)];
        check(&[near, far, near, far], &[0, 8, 1, 9]);
        check(&[None, far, None], &[0, 8, 1]);
        // The ninth finds no processor there.
        let crowded = [far; 9];
        check(&crowded, &[8, 9, 10, 11, 12, 13, 14, 15, 0]);
        // Other jobs of the process have theirs.
        let places = on_two_nodes(&[near, near, near]);
        let part = places.part(1..3).identified(&[None, None]);
        assert_eq!(part.cpu_of_rank, Some(vec![1, 2]));
        assert_eq!(places.part(0..3), places);
    }

    #[test]
    fn the_memory_node_is_that_of_the_processors_used() {
        let cpus = [0, 1, 8];
        let of = |nodes: [Option<u32>; 3], bound| {
            let report = Report {
                numa_nodes: nodes.to_vec(),
                ..report("a", &cpus)
            };
            report.numa_node(bound)
        };
        let two = [Some(0), Some(0), Some(1)];
        assert_eq!(of(two, Some(8)), Some(1));
        assert_eq!(of(two, Some(1)), Some(0));
        assert_eq!(of(two, None), None);
        assert_eq!(of([Some(1); 3], None), Some(1));
        assert_eq!(of([None, Some(0), Some(0)], None), None);
        assert_eq!(of([None; 3], Some(8)), None);
        assert_eq!(report("a", &[]).numa_node(None), None);
    }

    #[test]
    fn reports_of_all_ranks_are_the_same_everywhere() {
        let worlds = laggard_backend::threads::worlds(3, &Default::default()).unwrap();
        let places: Vec<Places> = std::thread::scope(|scope| {
            let exchange = |world: &laggard_backend::World| {
                let messenger = world.messenger.clone();
                scope.spawn(move || {
                    let deadline = Instant::now() + Duration::from_secs(60);
                    Places::exchange(&*messenger, deadline).unwrap()
                })
            };
            let threads: Vec<_> = worlds.iter().map(exchange).collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert_eq!(places[0].reports.len(), 3);
        assert!(places.iter().all(|other| *other == places[0]));
        assert!(!places[0].host(1).is_empty());
        assert_eq!(places[0].host(7), "unknown host");
        let part = places[0].part(1..3);
        assert_eq!(part.reports, places[0].reports[1..]);
        assert_eq!(part.processor_of(1), places[0].processor_of(2));
    }
}
