use super::*;
use crate::money::Prices;
use crate::problem::{Known, Terms, Training};
use laggard_simulate::{Constants, Frameworks, Precision, Surroundings};
use laggard_specs::{Cluster, Model, Tables};
use laggard_types::Seconds;

/// What problems are made of.
pub(crate) struct Fixture {
    tables: Tables,
    prices: Prices,
    constants: Constants,
    frameworks: Frameworks,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            tables: Tables::builtin().expect("tables"),
            prices: Prices::builtin().expect("prices"),
            constants: Constants::builtin().expect("constants"),
            frameworks: Frameworks::builtin().expect("frameworks"),
        }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn cluster(&self, text: &str) -> Cluster {
        Cluster::from_toml_str(text, &self.tables).expect("a cluster")
    }

    pub(crate) fn preset(&self, name: &str) -> Cluster {
        Cluster::preset(name, &self.tables).expect("a preset")
    }

    pub(crate) fn training(&self, model: &str, batch_tokens: u64) -> Training<'_> {
        let model: &Model = self.tables.model(model).expect("a model");
        let framework = self.frameworks.named("megatron-lm").expect("a framework");
        Training {
            model,
            tokens: 1e12,
            batch_tokens,
            sequence_length: 4096,
            precision: Precision::Half,
            software: framework.software,
            around: Surroundings::new(Seconds(30.0), Seconds(600.0)).expect("times"),
        }
    }

    pub(crate) fn problem<'a>(
        &self,
        cluster: &Cluster,
        training: Training<'a>,
        terms: &Terms,
    ) -> Result<Problem<'a>, PlanError> {
        let known = Known {
            tables: &self.tables,
            prices: &self.prices,
            constants: &self.constants,
        };
        Problem::new(cluster, training, terms, &known)
    }
}

pub(crate) const MIXED: &str = r#"
id = "mixed"
[[site]]
id = "here"
power_limit_watts = 1.0e9
power_usage_effectiveness = 1.2
[[pool]]
id = "slow"
site = "here"
accelerator = "a100-sxm4-80gb"
count = 64
devices_per_node = 8
power_watts_per_device = 800.0
failures_per_device_year = 0.1
[[pool]]
id = "fast"
site = "here"
accelerator = "h100-sxm5-80gb"
count = 64
devices_per_node = 8
power_watts_per_device = 1275.0
failures_per_device_year = 0.1
"#;

fn of_kind(options: &Options, kind: Kind) -> &PlanOption {
    let mut list = options.list.iter();
    list.find(|option| option.kind == kind)
        .expect("an option of the kind")
}

#[test]
fn shares_by_speed_beat_equal_ones_and_reach_nearly_what_the_classes_do_apart() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(MIXED);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let found = options(&problem.expect("a problem")).expect("options");
    let rate = |kind| of_kind(&found, kind).figures.tokens_per_s;
    let waiting = of_kind(&found, Kind::UnevenShares).figures.peak_use.waiting;
    // What whole micro-batches cost vanishes with a larger batch.
    let large = fixture.training("llama3-8b", 64 << 20);
    let large = fixture.problem(&cluster, large, &Terms::default());
    let large = options(&large.expect("a problem")).expect("options");
    let with_large = of_kind(&large, Kind::UnevenShares).figures.peak_use.waiting;
    assert!(
        with_large < 0.01 && with_large < waiting,
        "{with_large} {waiting}"
    );
    let (equal, uneven, pools) = (
        rate(Kind::EqualShares),
        rate(Kind::UnevenShares),
        rate(Kind::Pools),
    );
    // H100 train more than twice as fast: waiting for A100 costs more than a quarter.
    assert!(uneven > 1.25 * equal, "{uneven} {equal}");
    assert!(
        uneven > 0.85 * pools && uneven < 1.02 * pools,
        "{uneven} {pools}"
    );
    assert!(of_kind(&found, Kind::EqualShares).figures.peak_use.waiting > 0.15);
}

/// Classes that are alike have nothing to share out unevenly: one job on both is one job on a
/// single class of as many devices.
#[test]
fn two_halves_of_one_class_are_one_class() {
    let fixture = Fixture::new();
    let halves = MIXED.replace("a100-sxm4-80gb", "h100-sxm5-80gb");
    let (start, _) = MIXED.split_once("[[pool]]").expect("pools");
    let (_, last) = MIXED.rsplit_once("[[pool]]").expect("pools");
    let whole = format!(
        "{start}[[pool]]{}",
        last.replace("count = 64", "count = 128")
    );
    let rate = |text: &str| {
        let cluster = fixture.cluster(text);
        let training = fixture.training("llama3-8b", 4 << 20);
        let problem = fixture.problem(&cluster, training, &Terms::default());
        let found = options(&problem.expect("a problem")).expect("options");
        of_kind(&found, Kind::EqualShares).figures.tokens_per_s
    };
    let (halves, whole) = (rate(&halves), rate(&whole));
    assert!((halves / whole - 1.0).abs() < 1e-9, "{halves} {whole}");
}

/// Stages of alike classes are an even pipeline, whose step the cost model predicts as a whole.
#[test]
fn stages_of_alike_classes_take_as_long_as_an_even_pipeline() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(&MIXED.replace("a100-sxm4-80gb", "h100-sxm5-80gb"));
    let training = fixture.training("llama3-70b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let problem = problem.expect("a problem");
    let costs = Costs::new(&problem, &Factors::none(2));
    let job = spans::best(&costs, &[64, 64], 0.0).job.expect("a pipeline");
    let cut = costs.outcome(&job).expect("an outcome").step_s;
    let whole = costs
        .step(&job.degrees, 0, job.degrees.micro_batches)
        .total_s;
    assert!((cut / whole - 1.0).abs() < 0.05, "{cut} {whole} {job:?}");
}

#[test]
fn a_power_limit_turns_off_whole_hosts_of_the_least_peak_per_watt() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(MIXED);
    // All of it draws 1.2 * (64 * 800 + 64 * 1275) = 159,360 W.
    let check = |limit: f64, expect: [u64; 2]| {
        let terms = Terms {
            power_limit_watts: Some(limit),
            ..Terms::default()
        };
        let training = fixture.training("llama3-8b", 4 << 20);
        let problem = fixture.problem(&cluster, training, &terms);
        assert_eq!(
            on_within_power(&problem.expect("a problem"), |_| true),
            expect,
            "{limit}"
        );
    };
    check(159_360.0, [64, 64]);
    // A100: 0.39 TFLOP/s per watt, H100: 0.78. One watt too many is one host.
    check(159_359.0, [56, 64]);
    check(159_360.0 - 8.0 * 800.0 * 1.2, [56, 64]);
    check(100_000.0, [0, 64]);
    check(90_000.0, [0, 56]);
    check(1.0, [0, 0]);
}

#[test]
fn what_is_missing_is_left_out_and_said() {
    let fixture = Fixture::new();
    let text = MIXED.replace("power_watts_per_device = 800.0\n", "");
    let cluster = fixture.cluster(&text);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let problem = problem.expect("a problem");
    let said = |part: &str| problem.caveats.iter().any(|it| it.contains(part));
    assert!(said("no power is known of slow"), "{:?}", problem.caveats);
    let found = options(&problem).expect("options");
    assert_eq!(of_kind(&found, Kind::Pools).figures.power_mw, None);
    let alone = found.list.iter().filter(|it| it.kind == Kind::Alone);
    let power: Vec<_> = alone.map(|it| it.figures.power_mw.is_some()).collect();
    assert_eq!(power, [false, true]);
}

#[test]
fn contradictions_are_named() {
    let fixture = Fixture::new();
    let refused = |cluster: &Cluster, change: &dyn Fn(&mut Training<'_>, &mut Terms)| {
        let mut training = fixture.training("llama3-8b", 4 << 20);
        let mut terms = Terms::default();
        change(&mut training, &mut terms);
        let problem = fixture.problem(cluster, training, &terms);
        problem.expect_err("a contradiction").to_string()
    };
    let mixed = fixture.cluster(MIXED);
    let check = |text: String, part: &str| assert!(text.contains(part), "{text}");
    check(
        refused(&mixed, &|it, _| it.batch_tokens = 4095),
        "no sequence of 4096",
    );
    check(
        refused(&mixed, &|it, _| it.tokens = f64::INFINITY),
        "tokens is inf",
    );
    let lease = |terms: &mut Terms, name: &str| {
        terms.lease_dollars_per_hour.insert(name.to_owned(), 2.0);
    };
    check(
        refused(&mixed, &|_, terms| lease(terms, "b200")),
        "it has slow, fast",
    );
    let limited = |_: &mut Training<'_>, terms: &mut Terms| terms.power_limit_watts = Some(1e6);
    check(refused(&fixture.preset("orbital"), &limited), "2 sites");
}

/// 100 devices and no fewer: what is said to be enough is, and what is not on is named.
#[test]
fn the_smallest_change_names_what_is_in_the_way() {
    let fixture = Fixture::new();
    let (start, last) = MIXED.rsplit_once("[[pool]]").expect("pools");
    let (start, _) = start.split_once("[[pool]]").expect("pools");
    let text = format!(
        "{start}[[pool]]{}",
        last.replace("count = 64", "count = 1024")
    );
    let cluster = fixture.cluster(&text);
    let training = || fixture.training("llama3-405b", 4 << 20);
    let refused = |terms: &Terms| {
        let problem = fixture
            .problem(&cluster, training(), terms)
            .expect("a problem");
        options(&problem).expect_err("too few").to_string()
    };
    let kept = |devices: u64| Terms {
        reserve: [("fast".to_owned(), crate::problem::Reserve::Devices(devices))].into(),
        ..Terms::default()
    };
    let limited = Terms {
        power_limit_watts: Some(8.0 * 1275.0 * 1.2),
        ..Terms::default()
    };
    let count = |text: &str| -> u64 {
        let (before, _) = text.split_once(" fast would do").expect("a number");
        let (_, number) = before.rsplit_once(' ').expect("words");
        number.parse().expect("a number")
    };
    let (by_reserve, by_power) = (refused(&kept(1016)), refused(&limited));
    assert!(by_reserve.contains("smaller --reserve"), "{by_reserve}");
    assert!(by_power.contains("higher power limit"), "{by_power}");
    let enough = count(&by_reserve);
    assert_eq!(count(&by_power), enough);
    for (given, fits) in [
        (enough.next_multiple_of(8), true),
        (enough / 8 * 8 - 8, false),
    ] {
        let problem = fixture.problem(&cluster, training(), &kept(1024 - given));
        assert_eq!(
            options(&problem.expect("a problem")).is_ok(),
            fits,
            "{given}"
        );
    }
}

/// Devices with the memory that is said to be enough are.
#[test]
fn the_memory_that_would_do_does() {
    let fixture = Fixture::new();
    let (start, last) = MIXED.rsplit_once("[[pool]]").expect("pools");
    let (start, _) = start.split_once("[[pool]]").expect("pools");
    let cluster = fixture.cluster(&format!("{start}[[pool]]{last}"));
    let training = fixture.training("llama3-405b", 4 << 20);
    let mut problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let refused = options(&problem).expect_err("too large").to_string();
    let (before, _) = refused.split_once(" of memory on each").expect("a size");
    let (_, size) = before.rsplit_once(", or ").expect("words");
    let gibi: f64 = size.trim_end_matches(" GiB").parse().expect("a number");
    // Sizes are printed to a tenth.
    for (gibi, fits) in [(gibi + 0.1, true), (gibi * 0.95, false)] {
        problem.classes[0].of.machine.memory_bytes = gibi * f64::from(1 << 30);
        assert_eq!(options(&problem).is_ok(), fits, "{size}");
    }
}

#[test]
fn a_reserve_of_an_accelerator_is_shared_out_to_its_pools() {
    let fixture = Fixture::new();
    let text = MIXED.replace("a100-sxm4-80gb", "h100-sxm5-80gb");
    let cluster = fixture.cluster(&text.replacen("count = 64", "count = 192", 1));
    let kept = |reserves: &[(&str, u64)]| {
        let each = reserves.iter();
        let each = each.map(|&(name, it)| (name.to_owned(), crate::problem::Reserve::Devices(it)));
        let terms = Terms {
            reserve: each.collect(),
            ..Terms::default()
        };
        let training = fixture.training("llama3-8b", 4 << 20);
        let problem = fixture.problem(&cluster, training, &terms);
        problem.map(|it| {
            it.classes
                .iter()
                .map(|class| class.reserve)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(kept(&[("h100-sxm5-80gb", 64)]).expect("it can"), [48, 16]);
    assert_eq!(kept(&[("h100-sxm5-80gb", 256)]).expect("it can"), [192, 64]);
    assert!(kept(&[("h100-sxm5-80gb", 257)]).is_err());
    // What is said of a pool goes first.
    let both = [("h100-sxm5-80gb", 64), ("fast", 8)];
    assert_eq!(kept(&both).expect("it can"), [64, 8]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// On any cluster every option accounts for every device and for the whole peak, keeps the
    /// power limit and the batch, and planning twice gives the same.
    #[test]
    fn options_of_random_clusters_account_for_everything(
        pools in proptest::collection::vec((0_usize..5, 1_u64..200), 1..4),
        limit_kw in 30.0_f64..600.0,
        batch_tokens in 4096_u64..(32 << 20),
    ) {
        let kinds = ["a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb", "b200-sxm", "gb200"];
        let (start, _) = MIXED.split_once("[[pool]]").expect("pools");
        let mut text = start.replace("1.0e9", &format!("{:.1}", limit_kw * 1e3));
        for (at, (kind, count)) in pools.iter().enumerate() {
            text += &format!(
                "[[pool]]\nid = \"p{at}\"\nsite = \"here\"\naccelerator = \"{}\"\n\
                 count = {count}\npower_watts_per_device = 1000.0\n\
                 failures_per_device_year = 0.2\n",
                kinds[*kind]
            );
        }
        let fixture = Fixture::new();
        let cluster = fixture.cluster(&text);
        let training = fixture.training("qwen3-0.6b", batch_tokens);
        let problem = fixture.problem(&cluster, training, &Terms::default()).expect("a problem");
        let found = options(&problem).expect("a small model fits everywhere");
        for option in &found.list {
            for (class, it) in problem.classes.iter().zip(&option.uses) {
                assert_eq!(it.train + it.idle + it.lease + it.off, class.of.count, "{option:?}");
            }
            let figures = &option.figures;
            let sum: f64 = figures.peak_use.terms().iter().map(|(_, share)| share).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{option:?}");
            assert!(figures.power_mw <= Some(limit_kw * 1e-3 + 1e-9), "{option:?}");
            for outcome in &figures.outcomes {
                assert!(outcome.step_tokens <= 1.05 * batch_tokens as f64, "{option:?}");
                assert!(outcome.classes.iter().all(|it| it.waiting_s > -1e-9), "{option:?}");
            }
        }
        assert_eq!(options(&problem).expect("the same"), found);
    }
}
