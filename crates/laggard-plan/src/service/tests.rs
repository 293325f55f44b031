use proptest::prelude::*;

use super::*;
use crate::options::Use;
use crate::options::tests::Fixture;
use crate::problem::{Reserve, Terms};

const SITE: &str = r#"
id = "mixed"
[[site]]
id = "here"
power_limit_watts = LIMIT
power_usage_effectiveness = 1.2
[[site]]
id = "there"
power_limit_watts = THERE
power_usage_effectiveness = 1.2
"#;

fn pool(id: &str, accelerator: &str, hosts: u64) -> String {
    format!(
        "[[pool]]\nid = \"{id}\"\nsite = \"here\"\naccelerator = \"{accelerator}\"\ncount = {}\n\
         devices_per_node = 8\npower_watts_per_device = 1000.0\n\
         price_dollars_per_device_hour = {{ low = 1.0, typical = 2.0, high = 3.0 }}\n",
        hosts * 8
    )
}

fn service<'a>(fixture: &'a Fixture, rate: Option<f64>) -> Service<'a> {
    Service {
        model: fixture.tables().model("llama3-70b").expect("a model"),
        requests: Requests {
            input_tokens: 1000.0,
            output_tokens: 1000.0,
            most_seconds_per_token: None,
            most_seconds_to_first_token: None,
        },
        peak_factor: 1.5,
        tokens_per_s: rate,
        sessions: None,
        session_tokens_per_s: Some(20.0),
        dollars_per_million_tokens: Some(0.5),
    }
}

fn cluster(fixture: &Fixture, hosts: [u64; 3], limit: f64) -> laggard_specs::Cluster {
    let kinds = ["h100-sxm5-80gb", "h200-sxm-141gb", "b200-sxm"];
    let pools = kinds.iter().zip(hosts).enumerate();
    let pools: String = pools
        .filter(|(_, (_, hosts))| *hosts > 0)
        .map(|(at, (kind, hosts))| pool(&format!("p{at}"), kind, hosts))
        .collect();
    let (here, _) = SITE.split_once("[[site]]\nid = \"there\"").expect("a site");
    fixture.cluster(&(here.replace("LIMIT", &format!("{limit:.1}")) + &pools))
}

/// The same with the pools from some position on at a second site, each with its limit.
fn at_two_sites(
    fixture: &Fixture,
    hosts: [u64; 3],
    (second_from, limits): (usize, [f64; 2]),
) -> laggard_specs::Cluster {
    let kinds = ["h100-sxm5-80gb", "h200-sxm-141gb", "b200-sxm"];
    let mut text = SITE.to_owned();
    for (name, limit) in ["LIMIT", "THERE"].iter().zip(limits) {
        text = text.replace(name, &format!("{:.1}", limit * 8.0 * 1200.0));
    }
    for (at, (kind, hosts)) in kinds.iter().zip(hosts).enumerate() {
        if hosts > 0 {
            let pool = pool(&format!("p{at}"), kind, hosts);
            text += &match at < second_from {
                true => pool,
                false => pool.replace("\"here\"", "\"there\""),
            };
        }
    }
    fixture.cluster(&text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against every way to let whole hosts serve: none that meets the demand leaves more.
    #[test]
    fn no_other_choice_of_hosts_leaves_more_to_the_rest(
        hosts in [1_u64..5, 0_u64..5, 0_u64..4],
        share in 0.05_f64..0.9,
        limits in [4.0_f64..14.0, 1.0_f64..8.0],
        second_from in 1_usize..4,
    ) {
        let fixture = Fixture::new();
        let cluster = at_two_sites(&fixture, hosts, (second_from, limits));
        let training = fixture.training("qwen3-0.6b", 1 << 20);
        let problem = fixture.problem(&cluster, training, &Terms::default()).expect("a problem");
        let constants = ServingConstants::builtin().expect("constants");
        let plain = service(&fixture, None);
        let offers = offers(&problem, &plain, fixture.tables(), &constants).expect("offers");
        prop_assert_eq!(offers.offers.len(), problem.classes.len());
        let most: f64 = problem.classes.iter().zip(&offers.offers)
            .map(|(class, offer)| class.of.count as f64 * offer.tokens_per_s).sum();
        let service = Service { tokens_per_s: Some(share * most / 1.5), ..plain };
        let peak = share * most;
        let worth = worth_of_others(&problem, Objective::Tokens);
        let counts: Vec<u64> = problem.classes.iter().map(|class| class.of.count / 8).collect();
        let sites: Vec<usize> = problem.classes.iter().map(|class| class.site).collect();
        let places = (&sites[..], limits);
        let best = by_enumeration(&counts, places, &|serving: &[u64]| {
            let served = serving.iter().zip(&offers.offers)
                .map(|(hosts, offer)| (hosts * 8) as f64 * offer.tokens_per_s).sum::<f64>();
            let mixed = serving.iter().filter(|hosts| **hosts > 0).count() > 1;
            let loss = if mixed { 1.0 - constants.dispatch_loss.high } else { 1.0 };
            served * loss >= peak * (1.0 - 1e-9)
        }, &worth);
        let mut problem = problem;
        let found = serve(&mut problem, &service, &offers, Objective::Tokens, &constants);
        match (found, best) {
            (Ok(found), Some(best)) => {
                let found = found.expect("a demand");
                prop_assert!(found.tokens_per_s >= peak * (1.0 - 1e-9));
                let serving: Vec<u64> = problem.classes.iter().map(|it| it.serve / 8).collect();
                let left = left_of((&counts, &serving), places, &worth);
                let left = left.expect("the power suffices");
                prop_assert!(left >= best * (1.0 - 1e-5), "{left} {best}");
                prop_assert!(left <= best * (1.0 + 1e-9), "{left} {best}");
            }
            (Err(_), best) => prop_assert!(best.is_none(), "{best:?}"),
            (Ok(found), None) => prop_assert!(false, "{found:?}"),
        }
    }
}

/// The most that hosts which do not serve are worth, over every choice of those that do.
fn by_enumeration(
    counts: &[u64],
    places: (&[usize], [f64; 2]),
    meets: &dyn Fn(&[u64]) -> bool,
    worth: &[f64],
) -> Option<f64> {
    let mut best: Option<f64> = None;
    let mut serving = vec![0; counts.len()];
    loop {
        if meets(&serving)
            && let Some(left) = left_of((counts, &serving), places, worth)
        {
            best = Some(best.map_or(left, |best| best.max(left)));
        }
        let Some(at) = (0..counts.len()).find(|&at| serving[at] < counts[at]) else {
            return best;
        };
        serving[at] += 1;
        serving[..at].fill(0);
    }
}

/// The most that hosts are worth that do not serve, site by site; `None` where the power of a site
/// does not suffice for those that do.
fn left_of(
    (counts, serving): (&[u64], &[u64]),
    (sites, limits): (&[usize], [f64; 2]),
    worth: &[f64],
) -> Option<f64> {
    let mut left = 0.0;
    for (site, limit) in limits.iter().enumerate() {
        let here = |counts: &[u64]| -> Vec<u64> {
            let of = counts.iter().zip(sites);
            of.map(|(&count, &at)| if at == site { count } else { 0 })
                .collect()
        };
        let (all, serving) = (here(counts), here(serving));
        let power = limit - serving.iter().sum::<u64>() as f64;
        if power < 0.0 {
            return None;
        }
        let free: Vec<u64> = all.iter().zip(&serving).map(|(all, it)| all - it).collect();
        left += most_of(&free, power, worth);
    }
    Some(left)
}

/// The most that so many hosts of each class are worth of which the power lets only some run, all
/// drawing the same.
fn most_of(free: &[u64], limit_hosts: f64, worth: &[f64]) -> f64 {
    let mut hosts: Vec<f64> = free
        .iter()
        .zip(worth)
        .flat_map(|(&count, &worth)| std::iter::repeat_n(worth * 8.0, count as usize))
        .collect();
    hosts.sort_by(|a, b| b.total_cmp(a));
    hosts.iter().take(limit_hosts.max(0.0) as usize).sum()
}

#[test]
fn offers_are_what_the_roofline_and_the_prices_say() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, [4, 0, 2], 1e9);
    let training = fixture.training("llama3-8b", 1 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let constants = ServingConstants::builtin().expect("constants");
    let offers = offers(
        &problem,
        &service(&fixture, None),
        fixture.tables(),
        &constants,
    );
    let offers = offers.expect("offers");
    let [h100, b200] = &offers.offers[..] else {
        panic!("{offers:?}")
    };
    assert_eq!((h100.numbers, b200.numbers), (Numbers::Fp8, Numbers::Fp4));
    // Of 1.5 tokens that are held ready one is sold, for half a dollar a million.
    let earned = h100.tokens_per_s / 1.5 * 3600.0 * 0.5 / 1e6;
    assert!((h100.dollars_per_hour.expect("a price") - earned).abs() < 1e-9);
    let sessions = h100.tokens_per_s / 1.5 / 20.0;
    assert!((h100.sessions.expect("sessions") - sessions).abs() < 1e-9);
    assert!(h100.seconds_per_token <= 1.0 / 20.0, "{h100:?}");
    let even = h100.lease_dollars_per_million_tokens.expect("a rent");
    assert!((even * h100.tokens_per_s / 1.5 * 3600.0 / 1e6 - 2.0).abs() < 1e-9);
    let sum = 32.0 * h100.tokens_per_s + 16.0 * b200.tokens_per_s;
    assert!((offers.together.high / sum - 1.0).abs() < 1e-12);
    assert!(offers.together.low > 0.93 * sum && offers.together.low < sum);
}

/// Dollars per hour of what is asked for, and of all that devices could serve beside it.
fn sold(problem: &Problem<'_>, ask: &Service<'_>, uses: &[Use]) -> f64 {
    let price = ask.dollars_per_million_tokens.expect("a price");
    let asked = ask.tokens_per_s.expect("a rate") * 3600.0 * price / 1e6;
    let beyond = problem.classes.iter().zip(uses).map(|(class, all)| {
        let each = class.serving_dollars_per_hour.expect("a price");
        (all.serve - class.serve) as f64 * each
    });
    asked + beyond.sum::<f64>()
}

#[test]
fn what_serves_or_is_kept_is_in_no_option() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, [4, 3, 2], 1e9);
    let training = fixture.training("llama3-8b", 1 << 20);
    let kept = [("p1".to_owned(), Reserve::Devices(3))].into();
    let terms = Terms {
        reserve: kept,
        ..Terms::default()
    };
    let mut problem = fixture
        .problem(&cluster, training, &terms)
        .expect("a problem");
    assert_eq!(problem.classes[1].reserve, 8, "whole hosts");
    let constants = ServingConstants::builtin().expect("constants");
    let plain = service(&fixture, None);
    let offers = offers(&problem, &plain, fixture.tables(), &constants).expect("offers");
    let ask = Service {
        tokens_per_s: Some(offers.offers[0].tokens_per_s),
        ..plain
    };
    let served = serve(&mut problem, &ask, &offers, Objective::Tokens, &constants);
    let served = served.expect("it can").expect("a demand");
    let serving: u64 = served.devices.iter().map(|it| it.1).sum();
    assert!(serving > 0 && serving.is_multiple_of(8));
    let little = Service {
        tokens_per_s: Some(1e-300),
        ..plain
    };
    let mut other = problem.clone();
    let served = serve(&mut other, &little, &offers, Objective::Tokens, &constants);
    let served = served.expect("it can").expect("a demand");
    assert_eq!(
        served.devices.iter().map(|it| it.1).sum::<u64>(),
        8,
        "one host"
    );
    let found = crate::options::options(&problem).expect("options");
    for option in &found.list {
        for (class, all) in problem.classes.iter().zip(&option.uses) {
            let sum = all.train + all.idle + all.lease + all.serve + all.reserve + all.off;
            assert_eq!(sum, class.of.count, "{option:?}");
            assert!(
                all.serve >= class.serve && all.reserve == class.reserve,
                "{option:?}"
            );
        }
        let sold = sold(&problem, &ask, &option.uses);
        assert!((option.figures.serving_dollars_per_hour / sold - 1.0).abs() < 1e-9);
        let terms = option.figures.peak_use.terms();
        let sum: f64 = terms.iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{option:?}");
        assert!(option.figures.peak_use.reserved > 0.0);
    }
    let too_much = Service {
        tokens_per_s: Some(1e9),
        ..plain
    };
    let refused = serve(
        &mut problem,
        &too_much,
        &offers,
        Objective::Tokens,
        &constants,
    );
    let refused = refused.expect_err("too much").to_string();
    assert!(refused.contains("at most"), "{refused}");
}
