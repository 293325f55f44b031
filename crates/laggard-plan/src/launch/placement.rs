//! Which host starts which ranks. Ranks that share each matrix stand in one host, or where they
//! are more than a host has, in one scale-up domain; a class's ranks follow each other on its
//! hosts in the order of ranks, so that replicas of a class stand together.

use laggard_schedule::Layout;
use laggard_types::Rank;

use super::{DeviceClass, Hosts, Job, LaunchError};
use crate::file::{PlannedJob, label};

/// Consecutive ranks on consecutive devices of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The host, by position in the list.
    pub host: usize,
    /// The first of the devices.
    pub first_device: u32,
    /// The first of the ranks.
    pub first_rank: Rank,
    /// How many.
    pub ranks: u32,
}

/// Where all ranks of a job stand, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The places.
    pub places: Vec<Place>,
}

/// Places in a row on whole hosts of one class with equally many ranks each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) class: usize,
    /// The first of the places.
    pub(super) first: usize,
    pub(super) hosts: usize,
    /// Ranks on each.
    pub(super) ranks: u32,
}

/// Hosts that no job has yet.
pub(super) struct Free<'h> {
    hosts: &'h Hosts,
    classes: &'h [DeviceClass],
    /// Of each class, its next host and the one behind its last.
    of_class: Vec<std::ops::Range<usize>>,
}

impl Placement {
    /// Whether every host starts consecutive ranks: then a list of hosts says all.
    pub(super) fn is_a_list_of_hosts(&self) -> bool {
        let mut hosts: Vec<usize> = self.places.iter().map(|place| place.host).collect();
        hosts.sort_unstable();
        hosts.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// The places as segments, where every host has consecutive ranks, as many as it has devices;
    /// `None` where some host has not.
    pub(super) fn segments(&self, hosts: &Hosts) -> Option<Vec<Segment>> {
        let is_whole = |place: &Place| place.ranks == hosts.list[place.host].devices;
        if !(self.is_a_list_of_hosts() && self.places.iter().all(is_whole)) {
            return None;
        }
        Some(self.alike(hosts))
    }

    /// Places in a row of one class with equally many ranks, whatever else its hosts do.
    pub(super) fn alike(&self, hosts: &Hosts) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for (first, place) in self.places.iter().enumerate() {
            let class = hosts.list[place.host].class;
            match segments.last_mut() {
                Some(last) if (last.class, last.ranks) == (class, place.ranks) => last.hosts += 1,
                _ => segments.push(Segment {
                    class,
                    first,
                    hosts: 1,
                    ranks: place.ranks,
                }),
            }
        }
        segments
    }

    /// Hosts of each class that the job uses, in the order of their first ranks.
    pub(super) fn hosts_of_classes(&self, hosts: &Hosts, classes: usize) -> Vec<Vec<usize>> {
        let mut seen = vec![false; hosts.list.len()];
        let mut used = vec![Vec::new(); classes];
        for place in &self.places {
            if !std::mem::replace(&mut seen[place.host], true) {
                used[hosts.list[place.host].class].push(place.host);
            }
        }
        used
    }
}

impl<'h> Free<'h> {
    pub(super) fn new(hosts: &'h Hosts, classes: &'h [DeviceClass]) -> Self {
        let start = |class| hosts.list.partition_point(|host| host.class < class);
        let of_class = (0..classes.len()).map(|class| start(class)..start(class + 1));
        Self {
            hosts,
            classes,
            of_class: of_class.collect(),
        }
    }

    /// Places the ranks of a job on hosts that no job has.
    pub(super) fn place(
        &mut self,
        job: &PlannedJob,
        layout: &Layout,
    ) -> Result<Placement, LaunchError> {
        let group = layout.tensor_parallel;
        let mut used = vec![0; self.classes.len()];
        let mut places: Vec<Place> = Vec::new();
        let of_rank = job.class_of_rank();
        for (at, name) in of_rank.iter().enumerate().step_by(group as usize) {
            let class = self.class(name)?;
            let Some(start) = self.fit(class, &mut used[class], group) else {
                return Err(self.too_few(job, class, at, &of_rank));
            };
            let mut rank = at as Rank;
            let (mut host, mut device) = start;
            let end = rank + group;
            while rank < end {
                let ranks = (end - rank).min(self.hosts.list[host].devices - device);
                put(
                    &mut places,
                    Place {
                        host,
                        first_device: device,
                        first_rank: rank,
                        ranks,
                    },
                );
                rank += ranks;
                (host, device) = (host + 1, 0);
            }
        }
        // A job has its hosts to itself.
        for (class, used) in used.iter().enumerate() {
            self.of_class[class].start += usize::from(*used > 0);
        }
        Ok(Placement { places })
    }

    fn class(&self, name: &str) -> Result<usize, LaunchError> {
        let found = self.classes.iter().position(|class| class.name == name);
        found.ok_or_else(|| LaunchError::UnknownClass {
            class: name.to_owned(),
        })
    }

    /// Takes devices for ranks that share each matrix: host and device of the first. `used` are
    /// devices of the class's next host that the job has already.
    fn fit(&mut self, class: usize, used: &mut u32, group: u32) -> Option<(usize, u32)> {
        let list = &self.hosts.list;
        let free = &mut self.of_class[class];
        while free.start < free.end {
            let first = &list[free.start];
            let left = first.devices - *used;
            if left >= group {
                let place = (free.start, *used);
                *used += group;
                return Some(place);
            }
            // More than a host has: the hosts behind it in its domain have to have the rest.
            let same = |host: &&super::Host| host.domain == first.domain;
            let behind = list[free.start + 1..free.end].iter().take_while(same);
            let in_domain: u32 = behind.map(|host| host.devices).sum();
            if group > first.devices && left > 0 && left + in_domain >= group {
                let place = (free.start, *used);
                let mut rest = group - left;
                free.start += 1;
                while rest > list[free.start].devices {
                    rest -= list[free.start].devices;
                    free.start += 1;
                }
                *used = rest;
                return Some(place);
            }
            free.start += 1;
            *used = 0;
        }
        None
    }

    fn too_few(
        &self,
        job: &PlannedJob,
        class: usize,
        placed: usize,
        of_rank: &[&str],
    ) -> LaunchError {
        let name = &self.classes[class].name;
        let count = |ranks: &[&str]| ranks.iter().filter(|it| *it == name).count() as u64;
        LaunchError::TooFewDevices {
            job: job.name.clone(),
            class: name.clone(),
            ranks: count(of_rank),
            placed: count(&of_rank[..placed]),
            group: job.degrees.tensor,
        }
    }
}

/// Adds a place, to the last one where it goes on from there.
fn put(places: &mut Vec<Place>, next: Place) {
    match places.last_mut() {
        Some(last)
            if last.host == next.host
                && last.first_device + last.ranks == next.first_device
                && last.first_rank + last.ranks == next.first_rank =>
        {
            last.ranks += next.ranks;
        }
        _ => places.push(next),
    }
}

impl Job<'_> {
    /// The host of a place.
    pub(super) fn host(&self, place: &Place) -> &super::Host {
        &self.hosts.list[place.host]
    }

    /// The table that the scripts read: who starts which ranks.
    pub(super) fn placement_table(&self) -> String {
        let mut text =
            self.heading_of_names("Which host starts which ranks, one line for each agent.");
        text.push_str("# agent\thost\tclass\tnth\tfirst_rank\tranks\tfirst_device\n");
        let used = self
            .placement
            .hosts_of_classes(self.hosts, self.classes.len());
        let mut nth = vec![0; self.hosts.list.len()];
        for hosts in &used {
            hosts
                .iter()
                .enumerate()
                .for_each(|(at, &host)| nth[host] = at);
        }
        for (agent, place) in self.placement.places.iter().enumerate() {
            let host = self.host(place);
            let class = label(&self.classes[host.class].name);
            let Place {
                first_rank,
                ranks,
                first_device,
                ..
            } = place;
            let (name, nth) = (&host.name, nth[place.host]);
            text.push_str(&format!(
                "{agent}\t{name}\t{class}\t{nth}\t{first_rank}\t{ranks}\t{first_device}\n"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests;
