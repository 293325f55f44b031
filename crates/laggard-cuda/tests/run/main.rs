//! A whole run on GPUs, with stand-ins for NCCL and the driver: the synthetic job, its kernels and
//! its collectives, up to a record that says when what happened on the host's clock. How long
//! anything takes on a GPU cannot be seen here.

#[path = "../fakes/cc.rs"]
mod cc;
#[path = "../device/child.rs"]
mod child;
#[path = "../nccl/fakes.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with tests that use more of it"
)]
mod fakes;
mod local;

use laggard_cuda::{CudaOptions, Nccl, NcclOptions, PeakOptions};
use laggard_measure::{Hooks, Settings, Summary, run_on};
use laggard_record::{ClosingStatus, Communication, Record};
use laggard_specs::{Model, Tables};
use laggard_types::DataType;
use local::{LocalOptions, LocalRanks};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(120);
const STEPS: u32 = 4;

const QUIET: Hooks<'static> = Hooks {
    stop: &|| None,
    flush: &|| false,
    progress: &|_| {},
};

/// A job whose matrices are for tensor cores in part, and in part for none.
fn settings(ranks: u32, data_type: DataType, record: &Path) -> Settings {
    let tables = Tables::builtin().expect("the tables");
    let model = Model {
        layers: 2,
        hidden: 16,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ffn_hidden: 24,
        ffn_matrices: 3,
        vocab: 20,
        ..tables.model("tiny").expect("a model").clone()
    };
    let mut settings = Settings::new(model, ranks, record.to_owned());
    settings.layout.bucket_bytes = 3000;
    settings.sequence_length = 8;
    settings.micro_batch_sequences = 1;
    settings.steps = STEPS;
    settings.data_type = data_type;
    settings
}

fn options() -> LocalOptions {
    LocalOptions {
        device: CudaOptions {
            self_check: false,
            ..CudaOptions::default()
        },
        nccl: NcclOptions {
            timeout: LONG,
            ..NcclOptions::default()
        },
        peak: PeakOptions {
            edge: 16,
            products: 2,
            timeout: LONG,
        },
        surroundings: fakes::surroundings(false),
    }
}

/// Runs a job on as many GPUs as ranks.
fn ran(ranks: u32, data_type: DataType, record: &Path) -> Summary {
    let nccl = Nccl::load(&fakes::surroundings(false)).unwrap_or_else(|error| panic!("{error}"));
    let local = LocalRanks::join(ranks, &nccl, &options());
    let mut local = local.unwrap_or_else(|error| panic!("{error}"));
    let communication = Communication {
        backend: format!("NCCL {}", nccl.version()),
        progress: "by the devices".to_owned(),
    };
    let settings = settings(ranks, data_type, record);
    let summary = run_on(&settings, local.take_worlds(), communication, &QUIET);
    let summary = summary.unwrap_or_else(|error| panic!("{error}"));
    local.leave(LONG).expect("an end in order");
    summary
}

/// Every operation of every rank is in the record, once in each step, and work on one queue does
/// not overlap.
fn check_record(path: &Path, ranks: usize, (before_ns, after_ns): (i64, i64)) {
    let record = Record::open(path).expect("a record");
    let schedule = &record.manifest.schedule;
    let mut count: BTreeMap<(i32, i32), usize> = BTreeMap::new();
    record
        .samples(|batch| {
            for at in 0..batch.rank.len() {
                *count.entry((batch.rank[at], batch.step[at])).or_default() += 1;
                let (start, end) = (batch.start_ns[at], batch.end_ns[at]);
                let operation = &schedule.operations[batch.operation[at] as usize];
                assert!(start <= end, "{operation:?}");
                // On the host's clock; how closely is for `tests/device/clocks.rs` to say.
                let slack = 1_000_000_000;
                assert!(
                    start > before_ns - slack && end < after_ns + slack,
                    "{operation:?}"
                );
            }
        })
        .expect("samples");
    assert_eq!(count.len(), ranks * STEPS as usize);
    let mut each: Vec<usize> = count.into_values().collect();
    each.dedup();
    assert_eq!(each.len(), 1, "steps of unequal length: {each:?}");
    let devices = &record.manifest.ranks;
    assert_eq!(devices.len(), ranks);
}

fn check(ranks: u32, data_type: DataType) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("record");
    let now = || laggard_backend::monotonic_ns().expect("a clock");
    let before = now();
    let summary = ran(ranks, data_type, &path);
    assert_eq!(summary.closing.status, ClosingStatus::Finished);
    assert_eq!(summary.closing.steps_completed, STEPS);
    check_record(&path, ranks as usize, (before, now()));
}

#[test]
fn one_rank_in_f32() {
    fakes::in_child("one_rank_in_f32", &[], || check(1, DataType::F32));
}

#[test]
fn two_ranks_in_bf16() {
    fakes::in_child("two_ranks_in_bf16", &[], || check(2, DataType::Bf16));
}

#[test]
fn more_ranks_than_gpus() {
    fakes::in_child("more_ranks_than_gpus", &[], || {
        let nccl = Nccl::load(&fakes::surroundings(false));
        let nccl = nccl.unwrap_or_else(|error| panic!("{error}"));
        let refused = LocalRanks::join(5, &nccl, &options());
        let text = refused.map(|_| ()).expect_err("four GPUs").to_string();
        assert!(text.contains("no GPU 4 of 4 that are visible"), "{text}");
        assert!(text.contains("rank 4"), "{text}");
    });
}
