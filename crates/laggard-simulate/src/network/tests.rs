//! The model against published measurements, and laws that must hold.

mod measured;

use laggard_specs::Tables;
use laggard_types::{BytesPerSecond, Seconds};
use proptest::prelude::*;

use super::nccl::estimate::NcclEstimate;
use super::tuning::{Algorithm, Generation};
use super::*;
use measured::{Sweep, measured};

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;
const GIB: f64 = MIB * KIB;

fn fabric(accelerator: &str, options: &FabricOptions) -> Fabric {
    let tables = Tables::from_toml_strs(None, Some(""), None).unwrap();
    Fabric::new(tables.accelerator(accelerator).unwrap(), options).unwrap()
}

fn bus(collective: Collective, ranks: u32, bytes: f64, seconds: f64) -> f64 {
    collective.bus_factor(ranks) * bytes / seconds / 1e9
}

/// NCCL's own estimate of a collective within a site, without what measurements add: `None` on
/// machines without NCCL and for collectives that its model does not have.
fn nccl_estimate(
    collective: Collective,
    bytes: f64,
    group: &Group,
    fabric: &Fabric,
) -> Option<NcclEstimate> {
    let Engine::Nccl(nccl) = &fabric.engine else {
        return None;
    };
    if group.ranks <= 1 {
        return None;
    }
    nccl.estimate(collective, bytes, shape(group, fabric))
}

/// A machine, ranks, and bytes with GB/s of bus bandwidth.
type Expected<'a> = (&'a Fabric, u32, &'a [(f64, f64)]);

/// The comparison that the re-implementation was made from: NCCL's estimate in GB/s of bus
/// bandwidth at plateaus and below, computed independently from NCCL 2.30.7.
#[test]
fn reproduces_estimates_of_nccl() {
    let a100 = fabric("a100-sxm4-80gb", &FabricOptions::default());
    let h200 = fabric("h200-sxm-141gb", &FabricOptions::default());
    let b200 = fabric("b200-sxm", &FabricOptions::default());
    let few_cards = FabricOptions {
        scale_out_bandwidth: Some(BytesPerSecond(6.25e9)),
        network_cards_per_rank: Some(0.5),
        ..FabricOptions::default()
    };
    let p4de = fabric("a100-sxm4-80gb", &few_cards);
    let cases: [Expected<'_>; 7] = [
        (
            &a100,
            8,
            &[
                (16.0 * GIB, 239.9),
                (GIB, 238.3),
                (16.0 * MIB, 169.0),
                (MIB, 51.0),
            ],
        ),
        (
            &h200,
            8,
            &[
                (16.0 * GIB, 475.8),
                (GIB, 473.0),
                (128.0 * MIB, 453.0),
                (16.0 * MIB, 339.0),
            ],
        ),
        (
            &h200,
            16,
            &[(16.0 * GIB, 461.0), (GIB, 455.0), (128.0 * MIB, 411.0)],
        ),
        (&h200, 96, &[(8.0 * GIB, 373.5), (512.0 * MIB, 346.0)]),
        (
            &b200,
            8,
            &[(16.0 * GIB, 932.0), (GIB, 921.0), (16.0 * MIB, 520.0)],
        ),
        (&b200, 32, &[(16.0 * GIB, 383.5), (GIB, 376.0), (MIB, 23.0)]),
        (&p4de, 16, &[(2.0 * GIB, 82.6), (128.0 * MIB, 73.9)]),
    ];
    for (fabric, ranks, points) in cases {
        let group = Group::new(ranks, 8);
        for &(bytes, expect) in points {
            let estimate = nccl_estimate(Collective::AllReduce, bytes, &group, fabric).unwrap();
            let got = bus(Collective::AllReduce, ranks, bytes, estimate.seconds);
            // The rounding of the comparison's figures.
            let slack = 0.0015 * expect + 0.51;
            assert!(
                (got - expect).abs() < slack,
                "{ranks} ranks, {bytes} B: {got}, not {expect}"
            );
        }
    }
    // Without multicast in the switch: rings.
    let mut rings = h200;
    if let Engine::Nccl(nccl) = &mut rings.engine {
        nccl.wires = nccl::Wires::NvLink;
    }
    let estimate =
        nccl_estimate(Collective::AllReduce, 16.0 * GIB, &Group::new(8, 8), &rings).unwrap();
    assert_eq!(estimate.algorithm, Algorithm::Ring);
    let got = bus(Collective::AllReduce, 8, 16.0 * GIB, estimate.seconds);
    assert!((got - 359.8).abs() < 0.1, "{got}");
}

/// Published plateaus: 7 % of NCCL's own estimate, 11 % where Blackwell's switch multicasts, 15 %
/// for one all-gather over RoCE; and 9 % (16 %) of the time to expect.
#[test]
fn plateaus_agree_with_measurements() {
    for sweep in measured() {
        // Far below what NCCL's model and the network cards allow; nothing known says why.
        if sweep.id == "gb200-20-racks" {
            continue;
        }
        let (fabric, group) = sweep.setting();
        for (bytes, seconds) in sweep.times().filter(|&(bytes, _)| bytes >= 2.0 * GIB) {
            let at = format!("{} at {bytes} B", sweep.id);
            let blackwell = sweep.id.starts_with("b200-node") || sweep.id.starts_with("gb200");
            let roce = sweep.id == "h200-2-nodes-all-gather";
            if let Some(estimate) = nccl_estimate(sweep.collective, bytes, &group, &fabric) {
                let error = estimate.seconds / seconds - 1.0;
                let bound = if roce {
                    0.15
                } else if blackwell {
                    0.11
                } else {
                    0.07
                };
                assert!(
                    error.abs() < bound,
                    "{at}: NCCL's estimate is off by {error:.3}"
                );
            }
            let expected = collective_seconds(sweep.collective, bytes, &group, &fabric);
            let error = expected / seconds - 1.0;
            let bound = if roce { 0.16 } else { 0.09 };
            assert!(error.abs() < bound, "{at}: {error:.3}");
        }
    }
}

/// Below the plateau: the time to expect within 36 % of every point of a fitted sweep, where NCCL's
/// own estimate is off by up to six times.
#[test]
fn below_the_plateau() {
    let fits = calibration::fits();
    let fitted = |sweep: &Sweep| fits.iter().any(|fit| fit.sweeps.contains(&sweep.id));
    for sweep in measured() {
        let (fabric, group) = sweep.setting();
        for (bytes, seconds) in sweep.times().filter(|&(bytes, _)| bytes < 2.0 * GIB) {
            let expected = collective_seconds(sweep.collective, bytes, &group, &fabric);
            let estimate = nccl_estimate(sweep.collective, bytes, &group, &fabric).unwrap();
            let error = expected / seconds - 1.0;
            let of_nccl = estimate.seconds / seconds - 1.0;
            assert!(
                !fitted(&sweep) || error.abs() < 0.36,
                "{} at {bytes} B: {error:.3}, NCCL's own estimate {of_nccl:.3}",
                sweep.id
            );
        }
    }
}

/// Below the plateau: every fit's mean absolute error of the logarithm of the time, and that no
/// neighbour on the grid of the fit has a smaller one.
#[test]
fn fits_are_the_best_of_their_grid() {
    let sweeps = measured();
    for entry in calibration::fits()
        .iter()
        .filter(|entry| !entry.sweeps.is_empty())
    {
        let chosen: Vec<&Sweep> = sweeps
            .iter()
            .filter(|sweep| entry.sweeps.contains(&sweep.id))
            .collect();
        assert_eq!(chosen.len(), entry.sweeps.len(), "{:?}", entry.sweeps);
        let error = |change: &dyn Fn(&mut calibration::Fit)| -> f64 {
            let errors = chosen.iter().map(|sweep| sweep.error(change));
            errors.sum::<f64>() / chosen.len() as f64
        };
        let shipped = error(&|_| {});
        let name = format!("{:?} {:?}", entry.generation, entry.span);
        assert!(shipped < 0.07, "{name}: {shipped}");
        let neighbours: [&dyn Fn(&mut calibration::Fit); 6] = [
            &|fit| fit.latency_scale += 0.25,
            &|fit| fit.latency_scale -= 0.25,
            &|fit| fit.ramp_us += 2.0,
            &|fit| fit.ramp_us = (fit.ramp_us - 2.0).max(0.0),
            &|fit| fit.multicast_share = (fit.multicast_share + 0.01).min(1.0),
            &|fit| fit.multicast_share -= 0.01,
        ];
        let fixed =
            entry.generation != Generation::Blackwell || entry.span != calibration::Span::Domain;
        for (i, neighbour) in neighbours.iter().enumerate() {
            if i >= 4 && fixed {
                continue;
            }
            let other = error(neighbour);
            assert!(
                shipped <= other + 1e-12,
                "{name}: neighbour {i} has {other}, not {shipped}"
            );
        }
    }
}

const COLLECTIVES: [Collective; 9] = [
    Collective::AllReduce,
    Collective::ReduceScatter,
    Collective::AllGather,
    Collective::Broadcast,
    Collective::Reduce,
    Collective::AllToAll,
    Collective::Gather,
    Collective::Scatter,
    Collective::SendRecv,
];
const MACHINES: [&str; 9] = [
    "v100-sxm2-32gb",
    "a100-sxm4-80gb",
    "h100-sxm5-80gb",
    "h100-pcie-80gb",
    "b200-sxm",
    "gb200",
    "mi300x",
    "tpu-v5p",
    "gaudi3",
];

proptest! {
    /// More bytes, more domains, less bandwidth and more oversubscription never make a collective
    /// faster, and every time is finite and above zero.
    #[test]
    fn worse_is_never_faster(
        machine in 0..MACHINES.len(),
        collective in 0..COLLECTIVES.len(),
        log_bytes in 0.0..36.0_f64,
        more_bytes in 1.0..4.0_f64,
        per_domain in 0..4_u32,
        domains in 1..300_u32,
        less in 0.2..1.0_f64,
        oversubscription in 1.0..8.0_f64,
    ) {
        let collective = COLLECTIVES[collective];
        let usual = fabric(MACHINES[machine], &FabricOptions::default());
        let per_domain = (1 << per_domain).min(usual.domain_ranks);
        prop_assume!(per_domain * domains > 1);
        let bytes = log_bytes.exp2();
        let seconds = |fabric: &Fabric, domains: u32, bytes: f64| {
            let mut group = Group::new(per_domain * domains, per_domain);
            group.ranks_per_pod = (4 * per_domain).min(group.ranks);
            collective_seconds(collective, bytes, &group, fabric)
        };
        let base = seconds(&usual, domains, bytes);
        prop_assert!(base > 0.0 && base.is_finite());
        let slack = 1.0 + 1e-12;
        prop_assert!(base <= seconds(&usual, domains, bytes * more_bytes) * slack);
        prop_assert!(base <= seconds(&usual, domains + 1, bytes) * slack);
        let tables = Tables::from_toml_strs(None, Some(""), None).unwrap();
        let mut slower = tables.accelerator(MACHINES[machine]).unwrap().clone();
        for rate in [
            &mut slower.scale_up_bandwidth_bytes_per_s,
            &mut slower.scale_out_bandwidth_bytes_per_s,
        ]
        .into_iter()
        .flatten()
        {
            rate.0 *= less;
        }
        let slower = Fabric::new(&slower, &FabricOptions::default()).unwrap();
        prop_assert!(base <= seconds(&slower, domains, bytes) * slack);
        let options = FabricOptions {
            oversubscription: Some(oversubscription),
            ..FabricOptions::default()
        };
        let narrow = fabric(MACHINES[machine], &options);
        prop_assert!(base <= seconds(&narrow, domains, bytes) * slack);
    }
}

/// Two sites with a link of 100 GB/s and 20 ms for the group.
#[test]
fn sites_exchange_over_their_link() {
    let options = FabricOptions {
        site_ranks: Some(64),
        site_link: Some(Link {
            bandwidth: BytesPerSecond(1e11),
            latency: Seconds(0.02),
        }),
        ..FabricOptions::default()
    };
    let fabric = fabric("h100-sxm5-80gb", &options);
    let seconds = |collective, ranks| {
        collective_seconds(collective, GIB, &Group::strided(ranks, 1, &fabric), &fabric)
    };
    let local = seconds(Collective::ReduceScatter, 64) + seconds(Collective::AllGather, 64);
    let across = seconds(Collective::AllReduce, 128);
    // Each direction of the link carries half of the vector twice, with a latency each.
    let link = 2.0 * (GIB / 2.0 / 1e11 + 0.02);
    assert!(
        (across - local - link).abs() < 1e-12,
        "{across} {local} {link}"
    );
}

#[test]
fn groups_lie_on_domains_by_their_stride() {
    let options = FabricOptions {
        pod_ranks: Some(256),
        ..FabricOptions::default()
    };
    let fabric = fabric("h100-sxm5-80gb", &options);
    for (ranks, stride, domain, pod) in [
        (8, 1, 8, 8),
        (16, 1, 8, 16),
        (4, 2, 4, 4),
        (64, 8, 1, 32),
        (64, 64, 1, 4),
        (64, 512, 1, 1),
        (1, 1, 1, 1),
    ] {
        let group = Group::strided(ranks, stride, &fabric);
        assert_eq!(
            (group.ranks_per_domain, group.ranks_per_pod),
            (domain, pod),
            "{ranks}/{stride}"
        );
    }
    assert!(
        collective_seconds(Collective::AllReduce, 1e9, &Group::new(1, 1), &fabric).abs() < 1e-300
    );
}

/// Two pods of 32 nodes at 4 : 1. A ring over all ranks leaves each pod once and loses nothing; an
/// exchange of each with each sends half of its blocks through the narrow links.
#[test]
fn oversubscription_hits_exchanges_not_rings() {
    let with = |oversubscription| {
        let options = FabricOptions {
            pod_ranks: Some(256),
            oversubscription: Some(oversubscription),
            ..FabricOptions::default()
        };
        fabric("h100-sxm5-80gb", &options)
    };
    let (full, narrow) = (with(1.0), with(4.0));
    let ratio = |collective, stride| {
        let group = Group::strided(512 / stride, stride, &full);
        let at = |fabric| collective_seconds(collective, 64.0 * GIB, &group, fabric);
        at(&narrow) / at(&full)
    };
    assert!((ratio(Collective::AllReduce, 1) - 1.0).abs() < 1e-9);
    // One rank in every 16 nodes: two of each pod, so half of the hops cross.
    assert!((ratio(Collective::AllReduce, 128) - 2.0).abs() < 0.01);
    // 256 of 504 far blocks cross.
    let expect = 4.0 * 256.0 / 504.0;
    assert!((ratio(Collective::AllToAll, 1) - expect).abs() < 0.01);
}

#[test]
fn refuses() {
    let tables = Tables::from_toml_strs(None, Some(""), None).unwrap();
    let refused = |accelerator: &str, options: &FabricOptions| {
        let accelerator = tables.accelerator(accelerator).unwrap();
        Fabric::new(accelerator, options).unwrap_err().to_string()
    };
    let usual = FabricOptions::default();
    assert_eq!(
        refused("rtx-4090", &usual),
        "the scale-out bandwidth of rtx-4090 is unknown\n\
         hint: state scale_out_bandwidth_bytes_per_s of the accelerator or of the cluster"
    );
    for (options, expect) in [
        (
            FabricOptions {
                oversubscription: Some(0.5),
                ..usual.clone()
            },
            "oversubscription is 0.5, but must be at least 1",
        ),
        (
            FabricOptions {
                scale_out_bandwidth: Some(BytesPerSecond(f64::NAN)),
                ..usual.clone()
            },
            "scale-out bandwidth in bytes/s is NaN, but must be above zero and finite",
        ),
        (
            FabricOptions {
                domain_ranks: Some(0),
                ..usual.clone()
            },
            "accelerators of a domain is 0, but must be above zero and finite",
        ),
        (
            FabricOptions {
                nccl_release: Some("1.0".to_owned()),
                ..usual.clone()
            },
            "the network_nccl table has no entry '1.0'",
        ),
    ] {
        assert_eq!(refused("h100-sxm5-80gb", &options), expect);
    }
    // A release with another cap on trees over multicast.
    let seconds = |release: &str| {
        let options = FabricOptions {
            nccl_release: Some(release.to_owned()),
            ..usual.clone()
        };
        let fabric = fabric("b300-sxm", &options);
        collective_seconds(
            Collective::AllReduce,
            8.0 * GIB,
            &Group::new(4096, 8),
            &fabric,
        )
    };
    assert!(seconds("2.29") > seconds("2.30"));
}
