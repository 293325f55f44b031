use super::*;
use crate::job::{Degrees, Frameworks, Precision, Shape};
use laggard_schedule::Layout;
use laggard_specs::{Attention, training_flop_per_token};
use laggard_types::Seconds;

fn job(tables: &Tables, text: &str, micro_batches: u32) -> (Job, f64) {
    let model = tables.model("llama3.1-405b").expect("a model");
    let mut layout = Layout::parse(text).expect("a layout");
    layout.micro_batches = vec![micro_batches; layout.data_parallel as usize];
    let frameworks = Frameworks::builtin().expect("frameworks");
    let job = Job {
        shape: Shape::of(model),
        degrees: Degrees::of_layout(&layout, 1),
        sequence_length: 8192,
        precision: Precision::Half,
        software: frameworks.entries[0].software,
    };
    let flop = training_flop_per_token(model, 8192, Attention::Causal).0;
    (job, flop)
}

fn around() -> Surroundings {
    Surroundings::new(Seconds(30.0), Seconds(600.0)).expect("times")
}

fn of(cluster: &str, layout: &str) -> Forecast {
    let tables = Tables::builtin().expect("tables");
    let cluster = Cluster::preset(cluster, &tables).expect("a cluster");
    let classes = ForecastClass::of_cluster(&cluster, &tables).expect("classes");
    let (job, flop) = job(&tables, layout, 32);
    let constants = Constants::builtin().expect("constants");
    forecast(&job, flop, &classes, around(), &constants).expect("a forecast")
}

#[test]
fn the_terms_of_a_mixed_cluster_multiply_to_the_fleets_mfu() {
    // 8 x 14 x 1,964 = 219,968 of 220,000.
    let it = of("colossus-1", "tp8,pp14,dp1964");
    assert_eq!((it.ranks, it.devices), (219_968, 220_000));
    let fall = &it.waterfall;
    let product: f64 = fall.terms.iter().map(|term| term.factor).product();
    assert!((fall.start * product - fall.fleet_mfu).abs() < 1e-12);
    assert_eq!(fall.terms.len(), 6);
    assert!(fall.terms.iter().all(|term| term.factor < 1.0), "{fall:?}");
    // The MFU while it steps is that of the whole step, over the peaks of all its ranks.
    let peaks: f64 = it
        .classes
        .iter()
        .map(|it| it.ranks as f64 * it.peak_flop_per_s)
        .sum();
    let flop = training_flop_per_token(
        Tables::builtin()
            .expect("tables")
            .model("llama3.1-405b")
            .expect("a model"),
        8192,
        Attention::Causal,
    );
    let mfu = flop.0 * it.tokens_per_s / peaks;
    assert!(
        (mfu / fall.job_mfu - 1.0).abs() < 1e-9,
        "{mfu} {}",
        fall.job_mfu
    );
    assert_eq!(it.lockstep.slowest, "h100");
}

#[test]
fn a_uniform_cluster_waits_for_no_class() {
    let it = of("h100-16k", "tp8,pp16,dp128");
    let wait = it
        .waterfall
        .terms
        .iter()
        .find(|term| term.cause == Cause::FastClassesWait);
    assert!((wait.expect("a term").factor - 1.0).abs() < 1e-12);
    assert!((it.classes[0].mfu_alone - it.waterfall.job_mfu).abs() < 1e-12);
    // Llama 3's 16,384 H100 were interrupted every 3.1 hours (table 5 of arXiv 2407.21783).
    let mtbf_hours = it.mtbf_s.expect("a rate") / 3600.0;
    assert!((mtbf_hours - 3.1).abs() < 0.1, "{mtbf_hours}");
}

#[test]
fn a_job_with_more_ranks_than_devices_is_refused() {
    let tables = Tables::builtin().expect("tables");
    let cluster = Cluster::preset("small-lab", &tables).expect("a cluster");
    let classes = ForecastClass::of_cluster(&cluster, &tables).expect("classes");
    let (job, flop) = job(&tables, "tp8,pp16,dp128", 1);
    let constants = Constants::builtin().expect("constants");
    let refused = forecast(&job, flop, &classes, around(), &constants);
    assert!(matches!(
        refused,
        Err(SimulateError::TooFewDevices { ranks: 16_384, .. })
    ));
}

#[test]
fn the_mix_alone_takes_forty_per_cent_to_thirty_five() {
    let tables = Tables::builtin().expect("tables");
    for (cluster, expected) in [("colossus-1", 0.351), ("colossus-1-30k", 0.334)] {
        let cluster = Cluster::preset(cluster, &tables).expect("a cluster");
        let classes = ForecastClass::of_cluster(&cluster, &tables).expect("classes");
        let by_peak = mix_alone(&classes, 0.40, None).expect("an identity");
        assert!((by_peak.mfu - expected).abs() < 0.0005, "{}", by_peak.mfu);
        // Equal shares lose less by the measured ratios of 1, 1.10 and 2.22 than by the peaks'.
        let measured = mix_alone(&classes, 0.40, Some(&[1.0, 1.10, 2.22])).expect("an identity");
        assert!((measured.mfu - by_peak.mfu).abs() < 1e-12);
        assert!(measured.loss < by_peak.loss);
    }
}

/// Nodes that a job leaves over stand in for those in repair, and are too few where there are none.
#[test]
fn what_is_left_over_is_spare() {
    let days = |days: f64| Seconds(86_400.0 * days);
    let all = of("h100-16k", "tp8,pp16,dp128");
    let without = all.spares(8, days(1.0)).expect("times").expect("a rate");
    assert_eq!((without.needed, without.there), (2048, 0));
    assert!(without.share_short > 0.99 && without.goodput.useful < 0.01);
    // 16,384 accelerators have a failure each 3.1 hours: 7.8 nodes are in repair as a rule.
    assert!((10..30).contains(&without.enough), "{without:?}");
    let fewer = of("h100-16k", "tp8,pp16,dp127");
    let with = fewer.spares(8, days(1.0)).expect("times").expect("a rate");
    assert_eq!((with.needed, with.there), (2032, 16));
    assert!(
        with.share_short < 0.05 && with.enough <= without.enough,
        "{with:?}"
    );
    assert!((with.goodput.total() - 1.0).abs() < 1e-9);
    assert!(fewer.spares(8, days(-1.0)).is_err() && fewer.spares(0, days(1.0)).is_err());
}
