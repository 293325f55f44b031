use std::collections::BTreeMap;

use laggard_schedule::Zero;
use laggard_simulate::{Degrees, Precision};
use laggard_specs::{Recompute, Tables};

use super::*;
use crate::compare::Objective;
use crate::file::{
    Expected, ExpectedStep, PLAN_VERSION, PlannedClass, PlannedParts, PlannedReplicas, PlannedStage,
};
use crate::options::{Kind, Use};

/// Degrees `dp, tp, pp`.
pub(super) fn degrees(data: u32, tensor: u32, pipeline: u32) -> Degrees {
    Degrees {
        tensor,
        context: 1,
        pipeline,
        data,
        expert: 1,
        virtual_stages: 1,
        micro_batch: 1,
        micro_batches: 8,
        sequence_parallel: tensor > 1,
        zero: Zero::Optimizer,
        shard_ranks: None,
        recompute: Recompute::None,
        recompute_layers: None,
    }
}

/// Replicas of classes: class, replicas, micro-batches.
pub(super) fn replicas(groups: &[(&str, u64, u32)]) -> PlannedParts {
    let all: u64 = groups.iter().map(|it| it.1 * u64::from(it.2)).sum();
    let group = |&(class, replicas, micro_batches): &(&str, u64, u32)| PlannedReplicas {
        class: class.to_owned(),
        replicas,
        micro_batches,
        gradient_weight: f64::from(micro_batches) / all as f64,
    };
    PlannedParts::Replicas(groups.iter().map(group).collect())
}

/// Stages: class and layers.
pub(super) fn stages(stages: &[(&str, u32)]) -> PlannedParts {
    let stage = |&(class, layers): &(&str, u32)| PlannedStage {
        class: class.to_owned(),
        layers,
    };
    PlannedParts::Stages(stages.iter().map(stage).collect())
}

pub(super) fn job(name: &str, degrees: Degrees, parts: PlannedParts) -> PlannedJob {
    let expected = Expected::within_factor(1.0, 1.0);
    let mut job = PlannedJob {
        name: name.to_owned(),
        model: "llama3-8b".to_owned(),
        sequence_length: 8192,
        precision: Some(Precision::Half),
        degrees,
        piece_layers: Vec::new(),
        parts,
        global_batch_sequences: 0,
        bucket_bytes: 25 << 20,
        overlap: true,
        expected: ExpectedStep {
            step_s: expected,
            tokens_per_s: expected,
            mfu: None,
            classes: BTreeMap::new(),
        },
    };
    let micro_batches: u64 = job.micro_batches().iter().map(|it| u64::from(*it)).sum();
    job.global_batch_sequences = micro_batches * u64::from(degrees.micro_batch);
    job
}

/// A plan of one option; classes are name, devices, devices of a host, of a domain.
pub(super) fn plan(classes: &[(&str, u64, u64, u32)], jobs: Vec<PlannedJob>) -> PlanFile {
    let expected = Expected::within_factor(1.0, 1.0);
    let class = |&(name, count, node_devices, domain): &(&str, u64, u64, u32)| PlannedClass {
        name: name.to_owned(),
        accelerator: format!("{name}-sxm5-80gb"),
        site: None,
        count,
        node_devices,
        domain_devices: Some(domain),
        emulated_rate: None,
    };
    PlanFile {
        schema_version: PLAN_VERSION,
        cluster: "a cluster".to_owned(),
        objective: Objective::Tokens,
        classes: classes.iter().map(class).collect(),
        chosen: 0,
        options: vec![PlannedOption {
            number: Some(1),
            kind: Kind::UnevenShares,
            name: "one job".to_owned(),
            can_win: true,
            uses: BTreeMap::new(),
            tokens_per_s: expected,
            model_tokens_per_s: expected,
            mfu: None,
            power_mw: None,
            net_dollars_per_hour: None,
            jobs,
        }],
        caveats: Vec::new(),
    }
}

/// The files of a plan's chosen option, by path.
pub(super) fn files(plan: &PlanFile, hosts: Option<&str>) -> BTreeMap<String, String> {
    let classes = device_classes(plan);
    let hosts = match hosts {
        Some(text) => Hosts::parse(text, &classes).unwrap(),
        None => Hosts::placeholders(&classes),
    };
    let tables = Tables::builtin().unwrap();
    let files = launch_files(plan, &plan.options[0], &hosts, &tables).unwrap();
    files
        .into_iter()
        .map(|file| (file.path, file.text))
        .collect()
}

#[test]
fn hosts_without_a_job_are_told_what_they_do() {
    let parts = replicas(&[("h100", 2, 5)]);
    let mut plan = plan(
        &[("h100", 40, 8, 8), ("gb200", 8, 4, 72)],
        vec![job("job-1", degrees(2, 8, 1), parts)],
    );
    assert!(!files(&plan, None).contains_key("others.tsv"));
    let uses = |serve, lease, off| Use {
        serve,
        lease,
        off,
        ..Use::default()
    };
    plan.options[0].uses = [
        ("h100".to_owned(), uses(8, 0, 8)),
        ("gb200".to_owned(), uses(0, 8, 0)),
    ]
    .into();
    let list = "a[1-5] h100 8\nb[1-2] gb200 4\n";
    let files = files(&plan, Some(list));
    let others = files["others.tsv"]
        .lines()
        .filter(|line| !line.starts_with('#'));
    let told = [
        "a3\th100\t8\tserves",
        "a4\th100\t8\tis off",
        "a5\th100\t8\tis idle",
        "b1\tgb200\t4\tis leased",
        "b2\tgb200\t4\tis leased",
    ];
    assert_eq!(others.collect::<Vec<_>>(), told);
}

/// Uneven shares over two classes, whole hosts of each.
fn uneven_shares() -> PlanFile {
    let parts = replicas(&[("h100", 8, 5), ("gb200", 2, 9)]);
    let of = job("job-1", degrees(10, 4, 1), parts);
    plan(&[("h100", 32, 8, 8), ("gb200", 8, 4, 72)], vec![of])
}

/// Stages over two classes.
fn uneven_stages() -> PlanFile {
    let parts = stages(&[("gb200", 14), ("h100", 9), ("h100", 9)]);
    let of = job("job-1", degrees(2, 8, 3), parts);
    plan(&[("h100", 32, 8, 8), ("gb200", 16, 4, 72)], vec![of])
}

/// Two stages with twelve ranks each of a class: a host has the end of one and the start of the
/// other.
fn shared_host() -> PlanFile {
    let parts = replicas(&[("h100", 3, 8), ("gb200", 1, 8)]);
    let of = job("job-1", degrees(4, 4, 2), parts);
    plan(&[("h100", 24, 8, 8), ("gb200", 8, 4, 4)], vec![of])
}

#[test]
fn known_plans_give_known_files() {
    let check = |plan: &PlanFile, hosts: Option<&str>, expect: &[(&str, &str)]| {
        let files = files(plan, hosts);
        for (name, text) in expect {
            assert_eq!(files.get(&format!("job-1/{name}")).unwrap(), text, "{name}");
        }
    };
    check(
        &uneven_shares(),
        None,
        &[
            (
                "README.txt",
                include_str!("golden/uneven_shares/README.txt"),
            ),
            ("slurm.sh", include_str!("golden/uneven_shares/slurm.sh")),
            (
                "torchrun.sh",
                include_str!("golden/uneven_shares/torchrun.sh"),
            ),
            (
                "kubernetes.yaml",
                include_str!("golden/uneven_shares/kubernetes.yaml"),
            ),
        ],
    );
    check(
        &uneven_stages(),
        None,
        &[
            (
                "megatron.sh",
                include_str!("golden/uneven_stages/megatron.sh"),
            ),
            ("nodes.tsv", include_str!("golden/uneven_stages/nodes.tsv")),
        ],
    );
    check(
        &shared_host(),
        Some("a[1-3] h100 8 cores=64\nb[1-2] gb200 4 cores=64"),
        &[
            (
                "openmpi.hostfile",
                include_str!("golden/shared_host/openmpi.hostfile"),
            ),
            (
                "openmpi.rankfile",
                include_str!("golden/shared_host/openmpi.rankfile"),
            ),
            (
                "mpich.hostfile",
                include_str!("golden/shared_host/mpich.hostfile"),
            ),
            ("mpirun.sh", include_str!("golden/shared_host/mpirun.sh")),
            ("slurm.sh", include_str!("golden/shared_host/slurm.sh")),
        ],
    );
}

#[test]
fn what_megatron_cannot_run_has_no_arguments_and_the_reason() {
    let files = files(&uneven_shares(), None);
    assert!(!files.contains_key("job-1/megatron.sh"));
    assert!(files["job-1/README.txt"].contains("equally many micro-batches"));
}

#[test]
fn jobs_have_hosts_of_their_own() {
    let one = |name| job(name, degrees(1, 4, 1), replicas(&[("h100", 1, 8)]));
    let two = plan(&[("h100", 16, 8, 8)], vec![one("a"), one("b")]);
    let files = files(&two, None);
    assert!(files["a/mpich.hostfile"].ends_with("\nh100-0001:4\n"));
    assert!(files["b/mpich.hostfile"].ends_with("\nh100-0002:4\n"));
}

#[test]
fn too_few_hosts_are_named() {
    let plan = uneven_shares();
    let classes = device_classes(&plan);
    let hosts = Hosts::parse("a[1-3] h100\nb[1-9] gb200", &classes).unwrap();
    let tables = Tables::builtin().unwrap();
    let error = launch_files(&plan, &plan.options[0], &hosts, &tables).unwrap_err();
    let (job, class) = ("job-1".to_owned(), "h100".to_owned());
    let (ranks, placed, group) = (32, 24, 4);
    let expect = LaunchError::TooFewDevices {
        job,
        class,
        ranks,
        placed,
        group,
    };
    assert_eq!(error, expect);
}

/// 220,000 devices: the files stay of a size that tools and people take.
#[test]
fn files_of_a_whole_site_stay_small() {
    let parts = replicas(&[
        ("h100", 18_750, 5),
        ("h200", 6_250, 6),
        ("gb200", 2_500, 10),
    ]);
    let of = job("job-1", degrees(27_500, 8, 1), parts);
    let classes = [
        ("h100", 150_000, 8, 8),
        ("h200", 50_000, 8, 8),
        ("gb200", 20_000, 4, 72),
    ];
    let files = files(&plan(&classes, vec![of]), None);
    let size = |name: &str| files[&format!("job-1/{name}")].len();
    for name in [
        "README.txt",
        "mpirun.sh",
        "slurm.sh",
        "torchrun.sh",
        "kubernetes.yaml",
    ] {
        assert!(size(name) < 8 << 10, "{name}: {}", size(name));
    }
    for name in ["nodes.tsv", "openmpi.hostfile", "mpich.hostfile"] {
        assert!(size(name) < 2 << 20, "{name}: {}", size(name));
    }
    assert!(!files.contains_key("job-1/openmpi.rankfile"));
}
