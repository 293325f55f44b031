use super::*;
use crate::options::tests::Fixture;
use crate::options::{Kind, options};
use crate::problem::Terms;
use proptest::prelude::*;

const KINDS: [&str; 2] = ["a100-sxm4-80gb", "h100-sxm5-80gb"];

/// A site of so many pools of two accelerators, with networks and rents of these numbers in turn.
fn text(pools: usize, networks: &[f64], rents: &[f64]) -> String {
    let mut text = "id = \"many\"\n[[site]]\nid = \"here\"\n".to_owned();
    for at in 0..pools {
        text += &format!(
            "[[pool]]\nid = \"p{at}\"\nsite = \"here\"\naccelerator = \"{}\"\ncount = {}\n\
             devices_per_node = 8\nnetwork_bytes_per_s_per_device = {:e}\n\
             price_dollars_per_device_hour = {{ low = 1.0, typical = {:.3}, high = 9.0 }}\n",
            KINDS[at % 2],
            64 + 8 * (at % 5),
            networks[at % networks.len()],
            rents[at % rents.len()],
        );
    }
    text
}

#[test]
fn few_pools_stay_as_they_are() {
    let fixture = Fixture::new();
    for cluster in [
        fixture.preset("portfolio"),
        fixture.cluster(&text(MOST_APART, &[5e10], &[2.0])),
    ] {
        let alike = Alike::of(&cluster, &|_| false);
        assert_eq!(alike.together(&cluster), cluster);
        assert_eq!((alike.members.len(), alike.caveat()), (0, None));
    }
}

#[test]
fn equal_pools_become_one_and_lose_nothing() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(&text(40, &[5e10], &[2.0]));
    let alike = Alike::of(&cluster, &|_| false);
    let together = alike.together(&cluster);
    assert_eq!(together.pools.len(), 2);
    assert_eq!(together.devices(), cluster.devices());
    assert_eq!(alike.spread, Spread::default());
    assert_eq!(together.pools[0].id, "p0+19");
    assert_eq!(alike.members["p0+19"][..2], ["p0", "p2"]);
}

#[test]
fn what_is_named_stays_alone_and_losses_change_no_group() {
    let fixture = Fixture::new();
    let cluster = fixture.cluster(&text(40, &[5e10, 4e10, 3e10], &[2.0, 2.5, 3.0, 2.2, 2.4]));
    let alike = Alike::of(&cluster, &|pool| pool.id == "p7");
    let names = |cluster: &Cluster| {
        let pools = alike.together(cluster).pools.into_iter();
        pools.map(|pool| pool.id).collect::<Vec<_>>()
    };
    assert!(names(&cluster).contains(&"p7".to_owned()));
    assert_eq!(names(&cluster).len(), MOST_APART);
    let mut smaller = cluster.clone();
    smaller.pools[3].count = 0;
    smaller.pools[8].count -= 8;
    assert_eq!(Alike::of(&smaller, &|pool| pool.id == "p7"), alike);
    assert_eq!(names(&smaller), names(&cluster));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A group has the slowest network and the mean rent of its members, its spread is what they
    /// differ by, and no member would do more by a larger share than it says.
    #[test]
    fn no_member_does_more_than_the_spread_says(
        networks in proptest::collection::vec(1e9..1e11_f64, 1..12),
        rents in proptest::collection::vec(1.0..8.0_f64, 1..6),
        pools in 9_usize..60,
    ) {
        let fixture = Fixture::new();
        let cluster = fixture.cluster(&text(pools, &networks, &rents));
        let alike = Alike::of(&cluster, &|_| false);
        let together = alike.together(&cluster);
        prop_assert!(together.pools.len() <= MOST_APART);
        prop_assert_eq!(together.devices(), cluster.devices());
        let network = |pool: &Pool| pool.network_bytes_per_s_per_device.unwrap_or(0.0);
        let rate = |pool: &Pool| {
            let mut one = cluster.clone();
            one.pools = vec![Pool { count: 512, ..pool.clone() }];
            let training = fixture.training("llama3-8b", 4 << 20);
            let problem = fixture.problem(&one, training, &Terms::default()).expect("a problem");
            let found = options(&problem).expect("options");
            let equal = found.list.iter().find(|it| it.kind == Kind::EqualShares);
            equal.expect("a job").figures.tokens_per_s
        };
        let merged = together.pools.iter().filter(|pool| alike.members.contains_key(&pool.id));
        for pool in merged.take(2) {
            let members = &alike.members[&pool.id];
            let members: Vec<&Pool> =
                cluster.pools.iter().filter(|it| members.contains(&it.id)).collect();
            let least = members.iter().map(|it| network(it)).fold(f64::MAX, f64::min);
            prop_assert_eq!(network(pool).to_bits(), least.to_bits());
            let fastest = members.iter().max_by(|a, b| network(a).total_cmp(&network(b)));
            let fastest = fastest.expect("a member");
            prop_assert!(network(fastest) <= least * (1.0 + alike.spread.network) * 1.000_001);
            let (one, all) = (rate(fastest), rate(pool));
            prop_assert!(one <= all * (1.0 + alike.spread.network) * 1.000_001, "{one} {all}");
        }
    }
}
