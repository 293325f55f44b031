use std::collections::{BTreeMap, BTreeSet};

use laggard_schedule::Coordinates;
use proptest::prelude::*;

use super::super::tests::{degrees, files, job, plan, replicas, stages};
use super::super::{Hosts, device_classes};
use crate::file::{PlanFile, PlannedParts};
use laggard_types::Rank;

/// The host of each rank, read from each of the lists that say it.
fn hosts_of_ranks(files: &BTreeMap<String, String>) -> Vec<(String, Vec<(String, u32)>)> {
    let mut lists = Vec::new();
    let lines = |name: &str| {
        let text = files.get(&format!("job/{name}")).map_or("", String::as_str);
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    // Of each place, the host, the first device and the number of ranks.
    let mut of_nodes = Vec::new();
    for line in lines("nodes.tsv") {
        let cells: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| cells[at].parse::<u32>().unwrap();
        assert_eq!(number(4) as usize, of_nodes.len(), "{line}");
        of_nodes.extend((0..number(5)).map(|at| (cells[1].to_owned(), number(6) + at)));
    }
    lists.push(("nodes.tsv".to_owned(), of_nodes));
    // MPICH deals ranks from the top; the nth rank on a host is on its nth device.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut next = |host: &str| {
        let device = seen.entry(host.to_owned()).or_default();
        *device += 1;
        (host.to_owned(), *device - 1)
    };
    let mut of_mpich = Vec::new();
    for line in lines("mpich.hostfile") {
        let (host, count) = line.split_once(':').unwrap();
        (0..count.parse::<u32>().unwrap()).for_each(|_| of_mpich.push(next(host)));
    }
    lists.push(("mpich.hostfile".to_owned(), of_mpich));
    let ranks = lines("openmpi.rankfile");
    let mut of_open_mpi = Vec::new();
    match ranks.is_empty() {
        true => {
            let mut seen: BTreeMap<String, u32> = BTreeMap::new();
            for line in lines("openmpi.hostfile") {
                let (host, rest) = line.split_once(" slots=").unwrap_or((&line, "1"));
                let count: u32 = rest.split(' ').next().unwrap().parse().unwrap();
                let device = seen.entry(host.to_owned()).or_default();
                of_open_mpi.extend((*device..*device + count).map(|at| (host.to_owned(), at)));
                *device += count;
            }
        }
        false => {
            for (rank, line) in ranks.iter().enumerate() {
                let rest = line.strip_prefix(&format!("rank {rank}=")).unwrap();
                let (host, slot) = rest.split_once(" slot=").unwrap();
                let first: u32 = slot.split('-').next().unwrap().parse().unwrap();
                of_open_mpi.push((host.to_owned(), first));
            }
        }
    }
    lists.push(("Open MPI's".to_owned(), of_open_mpi));
    lists
}

/// A plan of one job, on hosts of the given sizes.
fn any_plan() -> impl Strategy<Value = PlanFile> {
    let sizes = (0..4_u32, 0..3_u32, 1..5_u32, 1..4_u32);
    let shares = prop::collection::vec((0..3_usize, 1..9_u64, 1..5_u32), 1..5);
    let classes = prop::collection::vec((prop::sample::select(vec![2, 4, 8]), 1..4_u32), 3);
    (sizes, shares, classes, any::<bool>()).prop_map(|(sizes, shares, classes, by_stages)| {
        let (tensor, context, pipeline, data) = sizes;
        let names = ["a", "b", "c"];
        let (tensor, context) = (1 << tensor, 1 << context);
        let parts = match by_stages {
            true => stages(
                &(0..pipeline as usize)
                    .map(|at| (names[shares[at % shares.len()].0], 1 + at as u32))
                    .collect::<Vec<_>>(),
            ),
            false => replicas(
                &shares
                    .iter()
                    .map(|it| (names[it.0], it.1, it.2))
                    .collect::<Vec<_>>(),
            ),
        };
        let data = match &parts {
            PlannedParts::Replicas(groups) => groups.iter().map(|it| it.replicas).sum::<u64>(),
            PlannedParts::Stages(_) => data.into(),
        };
        let mut degrees = degrees(data as u32, tensor, pipeline);
        degrees.context = context;
        let of = job("job", degrees, parts);
        let class = |(at, &(host, hosts)): (usize, &(u64, u32))| {
            // Domains hold the ranks of a matrix, and there are enough hosts for any waste.
            let domain = (host as u32 * hosts)
                .next_multiple_of(tensor)
                .max(host as u32);
            let domain = domain.next_multiple_of(host as u32);
            (
                names[at],
                4 * of.ranks() + 16 * u64::from(domain),
                host,
                domain,
            )
        };
        let classes: Vec<_> = classes.iter().enumerate().map(class).collect();
        plan(&classes, vec![of])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every list puts every rank on the same device, of its class, no two on one; those that
    /// share each matrix are in one host, or in one domain where they are more than it has.
    #[test]
    fn lists_agree_with_the_layout(plan in any_plan()) {
        let job = &plan.options[0].jobs[0];
        let layout = job.layout();
        let files = files(&plan, None);
        let lists = hosts_of_ranks(&files);
        let devices = &lists[0].1;
        for (name, list) in &lists[1..] {
            prop_assert_eq!(list, devices, "{}", name);
        }
        prop_assert_eq!(devices.len() as u64, job.ranks());
        prop_assert_eq!(devices.iter().collect::<BTreeSet<_>>().len(), devices.len());
        let hosts = Hosts::placeholders(&device_classes(&plan));
        let by_name: BTreeMap<&str, &super::super::Host> =
            hosts.list.iter().map(|host| (host.name.as_str(), host)).collect();
        let place = |at: Coordinates| &devices[layout.rank(at) as usize];
        let of_rank = job.class_of_rank();
        for rank in 0..job.ranks() as Rank {
            let at = layout.coordinates(rank);
            let (host, device) = place(at);
            let host = by_name[host.as_str()];
            prop_assert!(*device < host.devices);
            prop_assert_eq!(&plan.classes[host.class].name, of_rank[rank as usize]);
            let first = by_name[place(Coordinates { tensor: 0, ..at }).0.as_str()];
            prop_assert_eq!(first.domain, host.domain);
            if layout.tensor_parallel <= host.devices {
                prop_assert_eq!(&first.name, &host.name);
            }
        }
    }
}
