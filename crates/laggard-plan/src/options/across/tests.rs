use super::*;
use crate::explain::binding;
use crate::options::tests::Fixture;
use crate::options::{Options, PlanOption, options};
use crate::problem::Terms;
use proptest::prelude::*;

fn link(sites: [usize; 2], bytes_per_s: f64, latency_s: f64) -> Link {
    Link {
        sites,
        bytes_per_s,
        latency_s,
    }
}

#[test]
fn sums_go_over_the_widest_links_from_the_middle() {
    let links = [
        link([0, 1], 4e9, 0.010),
        link([1, 2], 3e9, 0.030),
        link([0, 2], 1e9, 0.001),
    ];
    let check = |sites: &[usize], expect: Option<(f64, f64)>| {
        let sites: BTreeSet<usize> = sites.iter().copied().collect();
        let found = Crossing::of(&links, &sites);
        assert_eq!(
            found.map(|it| (it.bytes_per_s, it.latency_s)),
            expect,
            "{sites:?}"
        );
    };
    check(&[0, 1], Some((4e9, 0.010)));
    // The tree is 0 - 1 - 2, whose middle is 1.
    check(&[0, 1, 2], Some((3e9, 0.030)));
    check(&[0, 2], Some((1e9, 0.001)));
    check(&[0, 3], None);
    let sites = [0, 1].into();
    let crossing = Crossing::of(&links, &sites).expect("a link");
    assert!((crossing.sum_seconds(8e9) - 2.02).abs() < 1e-12);
}

/// Two sites with the same devices at each.
fn two_sites(bytes_per_s: f64, latency_s: f64) -> String {
    let mut text = "id = \"two\"\n".to_owned();
    for site in ["east", "west"] {
        text += &format!("[[site]]\nid = \"{site}\"\npower_usage_effectiveness = 1.2\n");
    }
    for (site, kind) in [("east", "a100-sxm4-80gb"), ("west", "h100-sxm5-80gb")] {
        text += &pool(site, kind);
    }
    text + &format!(
        "[[link]]\nfrom = \"east\"\nto = \"west\"\nbandwidth_bytes_per_s = {bytes_per_s:e}\n\
         latency_s = {latency_s:e}\n"
    )
}

fn pool(site: &str, kind: &str) -> String {
    format!(
        "[[pool]]\nid = \"{kind}\"\nsite = \"{site}\"\naccelerator = \"{kind}\"\ncount = 64\n\
         devices_per_node = 8\npower_watts_per_device = 1000.0\nfailures_per_device_year = 0.1\n"
    )
}

fn planned(fixture: &Fixture, text: &str) -> Options {
    let cluster = fixture.cluster(text);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    options(&problem.expect("a problem")).expect("options")
}

fn across(found: &Options) -> Vec<&PlanOption> {
    let list = found.list.iter();
    list.filter(|it| it.kind == Kind::AcrossSites).collect()
}

/// Over a link that takes no time, a job at two sites is a job at one.
#[test]
fn a_link_that_costs_nothing_makes_one_site_of_two() {
    let fixture = Fixture::new();
    let apart = planned(&fixture, &two_sites(1e30, 1e-30));
    let mut one =
        "id = \"one\"\n[[site]]\nid = \"east\"\npower_usage_effectiveness = 1.2\n".to_owned();
    for kind in ["a100-sxm4-80gb", "h100-sxm5-80gb"] {
        one += &pool("east", kind);
    }
    let together = planned(&fixture, &one);
    let rate = |kinds: &[Kind]| {
        let list = together.list.iter().filter(|it| kinds.contains(&it.kind));
        list.map(|it| it.figures.tokens_per_s).fold(0.0, f64::max)
    };
    let [gradients, activations] = across(&apart)[..] else {
        panic!("two ways to span sites: {:?}", apart.left_out);
    };
    let by_shares = rate(&[Kind::EqualShares, Kind::UnevenShares]);
    assert!((gradients.figures.tokens_per_s / by_shares - 1.0).abs() < 1e-9);
    // Stages stand site by site, which at one site they need not.
    let by_stages = rate(&[Kind::UnevenStages]);
    assert!(activations.figures.tokens_per_s <= by_stages * (1.0 + 1e-9));
    assert!(activations.figures.tokens_per_s > 0.95 * by_stages);
    assert_eq!(gradients.name, "one job at east + west, gradients cross");
}

/// A narrower link never helps; where it is narrow it is what binds, and pools that meet rarely do
/// best over it.
#[test]
fn a_narrow_link_binds() {
    let fixture = Fixture::new();
    let rates = |bytes_per_s: f64, latency_s: f64| {
        let found = planned(&fixture, &two_sites(bytes_per_s, latency_s));
        let rates: Vec<f64> = across(&found)
            .iter()
            .map(|it| it.figures.tokens_per_s)
            .collect();
        (rates, found)
    };
    let mut before = vec![f64::MAX; 2];
    for bytes_per_s in [1e12, 1e11, 1e10, 1e9] {
        let (rates, _) = rates(bytes_per_s, 0.004);
        let worse = rates.iter().zip(&before).all(|(now, before)| now <= before);
        assert!(
            rates.len() == 2 && worse,
            "{bytes_per_s:e}: {rates:?} {before:?}"
        );
        before = rates;
    }
    let (_, narrow) = rates(1e9, 0.004);
    let ways = across(&narrow);
    for (option, others) in ways.iter().zip([false, true]) {
        // What the link does not let through can be had with fewer devices, which then idle.
        let most = binding(&option.figures).expect("something is lost");
        let is_link = most.term == "links between sites";
        assert!(is_link || (others && most.term == "no work"), "{option:?}");
        let sum: f64 = option
            .figures
            .peak_use
            .terms()
            .iter()
            .map(|(_, share)| share)
            .sum();
        assert!((sum - 1.0).abs() < 1e-9, "{option:?}");
    }
    // Activations of half precision, each way.
    let carried = 1e9 / (2.0 * 4096.0);
    let rate = ways[1].figures.tokens_per_s;
    assert!(rate > 0.95 * carried && rate < carried, "{rate} {carried}");
    let loosely = narrow
        .list
        .iter()
        .find(|it| it.kind == Kind::LooselyCoupled);
    let loosely = loosely.expect("pools that meet");
    assert!(
        across(&narrow)
            .iter()
            .all(|it| it.figures.tokens_per_s < loosely.figures.tokens_per_s)
    );
    assert!(loosely.figures.peak_use.links > 0.0 && !loosely.can_win);
}

#[test]
fn without_links_nothing_spans_sites_and_that_is_said() {
    let fixture = Fixture::new();
    let text = two_sites(1e9, 0.1);
    let (without, _) = text.split_once("[[link]]").expect("a link");
    let found = planned(&fixture, without);
    assert!(across(&found).is_empty());
    let mut reasons = found.left_out.iter();
    assert!(reasons.any(|(kind, why)| *kind == Kind::AcrossSites && why.contains("no links")));
}

/// Of two stages the first begins two micro-batches unasked; each two more wait for a way there and
/// back.
#[test]
fn the_way_there_and_back_holds_up_stages_that_hold_few() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(&two_sites(1e30, 0.3));
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let costs = Costs::new(&problem, &crate::problem::Factors::none(2));
    let hops = costs.hops(&[(0, 1.0), (1, 1.0)], (101, 1.0));
    assert!((hops.once_s - 0.6).abs() < 1e-9, "{hops:?}");
    // 1 + 0.6 + 1 seconds for two of the last 99, and 1 for each that is begun unasked.
    assert!(
        (hops.each_s - (50.0 * 2.6) / 100.0).abs() < 1e-9,
        "{hops:?}"
    );
    let hops = costs.hops(&[(0, 1.0), (1, 1.0)], (2, 1.0));
    assert!((hops.each_s - 1.0).abs() < 1e-9, "{hops:?}");
    // Of four, three are begun before the way.
    let stages = [(0, 1.0), (0, 1.0), (1, 1.0), (1, 1.0)];
    let hops = costs.hops(&stages, (101, 1.0));
    assert!(
        (hops.each_s - (49.0 * 2.6 + 2.0) / 100.0).abs() < 1e-9,
        "{hops:?}"
    );
    let hops = costs.hops(&stages[..2], (101, 1.0));
    assert_eq!(hops, Hops::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Of all sets of sites that links join, the best by what they could train at most is among
    /// those that are looked at, where links take no time of their own.
    #[test]
    fn the_best_sites_to_span_are_looked_at(
        rates in proptest::collection::vec(1.0..100.0_f64, 5..8),
        ends in proptest::collection::vec((0_usize..8, 0_usize..8, 0.1..100.0_f64), 1..14),
        bytes in 0.1..100.0_f64,
    ) {
        let count = rates.len();
        let links: Vec<Link> = ends
            .iter()
            .filter(|(a, b, _)| a != b && *a < count && *b < count)
            .map(|&(a, b, wide)| link([a, b], wide, 0.0))
            .collect();
        let value = |set: &BTreeSet<usize>| {
            let crossing = Crossing::of(&links, set)?;
            let apart: f64 = set.iter().map(|&site| rates[site]).sum();
            Some(1.0 / (1.0 / apart + crossing.sum_seconds(bytes)))
        };
        let best = |sets: Vec<BTreeSet<usize>>| {
            sets.iter().filter_map(value).fold(0.0, f64::max)
        };
        let sites: Vec<usize> = (0..count).collect();
        let all = (1..1_u32 << count).map(|set| {
            (0..count).filter(|bit| set & (1 << bit) != 0).collect::<BTreeSet<usize>>()
        });
        let all = all.filter(|set| set.len() > 1).collect();
        let (looked_at, most) = (best(joined(&links, &sites)), best(all));
        prop_assert!(looked_at >= most * (1.0 - 1e-12), "{looked_at} of {most}");
    }
}
