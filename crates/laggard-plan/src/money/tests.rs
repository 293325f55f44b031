use laggard_specs::Tables;

use super::*;

fn tables() -> Tables {
    Tables::builtin().expect("the tables that are shipped")
}

fn cluster(text: &str) -> laggard_specs::Cluster {
    laggard_specs::Cluster::from_toml_str(text, &tables()).expect("a cluster file")
}

const TWO_POOLS: &str = r#"
id = "two"
[[site]]
id = "here"
power_limit_watts = 20000.0
power_usage_effectiveness = 1.25
[[pool]]
id = "own"
site = "here"
accelerator = "h100-sxm5-80gb"
count = 8
power_watts_per_device = 1000.0
price_dollars_per_device_hour = { low = 1.0, typical = 2.0, high = 4.0 }
[[pool]]
id = "plain"
site = "here"
accelerator = "b200-sxm"
count = 4
"#;

fn line(pool: &str, activity: Activity, devices: u64) -> Line {
    Line {
        pool: pool.to_owned(),
        activity,
        devices,
        income_dollars_per_device_hour: None,
    }
}

#[test]
fn every_entry_of_the_table_is_of_a_known_accelerator() {
    let prices = Prices::builtin().expect("the table that is shipped");
    let tables = tables();
    let draws = prices.draws.iter().map(|draw| &draw.accelerator);
    for accelerator in prices
        .rents
        .iter()
        .map(|rent| &rent.accelerator)
        .chain(draws)
    {
        let known = tables
            .accelerator(accelerator)
            .expect("a known accelerator");
        assert_eq!(known.id, *accelerator, "by its id");
    }
    for rent in &prices.rents {
        assert!(rent.price.date.is_some() && rent.price.source.is_some());
    }
    assert!(prices.draws.iter().all(|draw| !draw.source.is_empty()));
}

#[test]
fn a_clusters_own_numbers_go_first() {
    let prices = Prices::builtin().expect("the table that is shipped");
    let cluster = cluster(TWO_POOLS);
    let (own, plain) = (&cluster.pools[0], &cluster.pools[1]);
    let rent = |pool| prices.rent(pool).map(|price| price.typical);
    assert_eq!((rent(own), rent(plain)), (Some(2.0), Some(5.3)));
    let draw = |pool| prices.draw(pool).map(|it| (it.watts_per_device, it.basis));
    assert_eq!(draw(own), Some((1000.0, DrawBasis::Given)));
    assert_eq!(draw(plain), Some((1300.0, DrawBasis::Measured)));
    let share = prices.measured_share_of_nameplate().expect("of B200");
    assert!((share - 10.4 / 14.3).abs() < 1e-12);
}

/// A dollar an hour for the device, a quarter to maintain it.
const PAID: Purchase = Purchase {
    dollars_per_device: 35_064.0,
    network_dollars_per_device: 0.0,
    years: 4.0,
    maintenance_share_per_year: 0.0625,
};

#[test]
fn a_bill_adds_up() {
    let prices = Prices::builtin().expect("the table that is shipped");
    let cluster = cluster(TWO_POOLS);
    let mut serving = line("plain", Activity::Serve, 2);
    serving.income_dollars_per_device_hour = Some(Span::exactly(3.0));
    let lines = [
        line("own", Activity::Lease, 5),
        line("own", Activity::Train, 2),
        serving,
    ];
    let costs = Costs {
        electricity_dollars_per_kwh: Some(0.1),
        bought: ["own", "b200-sxm"].map(|it| (it.to_owned(), PAID)).into(),
        staff_dollars_per_year: Some(8766.0 * 3.0),
        utilization: None,
        is_tenant: false,
    };
    let bill = bill(&cluster, &lines, &prices, &costs).expect("a bill");
    assert!(bill.left_out.is_empty(), "{:?}", bill.left_out);
    // 5 leased at 1, 2 or 4; 2 serve at 3.
    let income = bill.income_dollars_per_hour;
    assert_eq!(
        (income.low, income.typical, income.high),
        (11.0, 16.0, 26.0)
    );
    // 7 of 1000 W and 2 of 1300 W with a quarter for cooling; each of 12 devices loses a dollar and
    // costs a quarter to maintain and a quarter of staff.
    let site = &bill.sites[0];
    assert!((site.computers_watts - 9600.0).abs() < 1e-9);
    assert_eq!(site.meter_watts, Some(12_000.0));
    let cost = bill.cost_dollars_per_hour.typical;
    assert!((cost - (1.2 + 12.0 * 1.5)).abs() < 1e-9, "{cost}");
    let net = bill.net_dollars_per_hour();
    assert!((net.low - (11.0 - cost)).abs() < 1e-9);
    let rent = bill.rent_dollars_per_hour.expect("all rents are known");
    assert!((rent.typical - (8.0 * 2.0 + 4.0 * 5.3)).abs() < 1e-9);
}

#[test]
fn a_site_without_its_own_power_usage_gets_the_usual_range() {
    let prices = Prices::builtin().expect("the table that is shipped");
    let text = TWO_POOLS.replace("power_usage_effectiveness = 1.25\n", "");
    let lines = [line("own", Activity::Train, 8)];
    let bill = bill(&cluster(&text), &lines, &prices, &Costs::default()).expect("a bill");
    assert_eq!(bill.sites[0].meter_watts, None);
    let (low, high) = bill.sites[0].meter_range_watts.expect("as usual");
    assert!((low - 8800.0).abs() < 1e-6 && (high - 12_800.0).abs() < 1e-6);
    let what: Vec<&str> = bill.left_out.iter().map(|it| it.what.as_str()).collect();
    assert!(
        what.contains(&"the power for cooling at its site"),
        "{what:?}"
    );
    // The computers' own electricity is paid for all the same.
    let costs = Costs {
        electricity_dollars_per_kwh: Some(0.1),
        ..Costs::default()
    };
    let bill = super::bill(&cluster(&text), &lines, &prices, &costs).expect("a bill");
    let cost = bill.cost_dollars_per_hour.typical;
    assert!((cost - 0.8).abs() < 1e-9, "{cost}");
}

#[test]
fn what_an_hour_of_use_lacks_is_named() {
    let mut costs = Costs::default();
    assert_eq!(
        costs.lacks(None, None),
        ["the price of electricity", "its power", "staff"]
    );
    costs.electricity_dollars_per_kwh = Some(0.1);
    costs.staff_dollars_per_year = Some(0.0);
    assert_eq!(
        costs.lacks(Some(700.0), None),
        ["the power for cooling at its site"]
    );
    assert!(costs.lacks(Some(700.0), Some(900.0)).is_empty());
}

#[test]
fn a_tenant_pays_rent_for_all_and_no_power() {
    let prices = Prices::builtin().expect("the table that is shipped");
    let cluster = cluster(TWO_POOLS);
    let costs = Costs {
        is_tenant: true,
        ..Costs::default()
    };
    let bill = bill(&cluster, &[], &prices, &costs).expect("a bill");
    let cost = bill.cost_dollars_per_hour.typical;
    assert!((cost - (8.0 * 2.0 + 4.0 * 5.3)).abs() < 1e-9, "{cost}");
    assert!(bill.left_out.is_empty());
}

#[test]
fn what_is_unknown_is_named_and_not_zero() {
    let prices = Prices::from_toml_str("").expect("an empty table");
    let cluster = cluster(TWO_POOLS);
    let lines = [
        line("plain", Activity::Lease, 4),
        line("own", Activity::Serve, 1),
    ];
    let bill = bill(&cluster, &lines, &prices, &Costs::default()).expect("a bill");
    assert_eq!(bill.rent_dollars_per_hour, None);
    let of = |pool: &str| {
        let of_pool = bill
            .left_out
            .iter()
            .filter(move |it| it.pool.as_deref() == Some(pool));
        of_pool.map(|it| it.what.as_str()).collect::<Vec<_>>()
    };
    let paid = "what its devices cost";
    assert_eq!(of("plain"), ["what its devices earn", "its power", paid]);
    assert_eq!(of("own"), ["what its devices earn", paid]);
    assert_eq!(
        bill.left_out.iter().filter(|it| it.pool.is_none()).count(),
        2
    );
    assert_eq!(bill.pools[1].watts, None);
}

#[test]
fn wrong_numbers_are_refused() {
    let prices = Prices::builtin().expect("the table that is shipped");
    let cluster = cluster(TWO_POOLS);
    let refused = |lines: &[Line], costs: &Costs| {
        bill(&cluster, lines, &prices, costs)
            .expect_err("must be refused")
            .to_string()
    };
    let free = Costs::default();
    let message = refused(&[line("own", Activity::Train, 9)], &free);
    assert_eq!(
        message,
        "pool own has 8 devices, but 9 are given something to do"
    );
    let message = refused(&[line("other", Activity::Train, 1)], &free);
    assert_eq!(message, "the cluster has no pool other");
    let costs = Costs {
        electricity_dollars_per_kwh: Some(-0.1),
        ..free
    };
    assert!(refused(&[], &costs).starts_with("the price of electricity is -0.1"));
    let table = "[[rent]]\naccelerator = \"x\"\nprice = { low = 2.0, typical = 1.0, high = 3.0 }";
    let error = Prices::from_toml_str(table).expect_err("out of order");
    assert!(
        error.to_string().contains("rent of x: must go up"),
        "{error}"
    );
}

#[test]
fn break_even_is_the_rent_of_the_same_tokens() {
    let elsewhere = Elsewhere {
        dollars_per_device_hour: Span {
            low: 3.0,
            typical: 4.5,
            high: 6.0,
        },
        tokens_per_second: 900.0,
    };
    let lease = break_even_lease(400.0, &elsewhere, 0.1).expect("a price");
    assert!((lease.typical - 2.1).abs() < 1e-12);
    // What the lease at that price pays for elsewhere trains as much as the device here.
    let bought = (lease.typical - 0.1) / 4.5 * 900.0;
    assert!((bought - 400.0).abs() < 1e-9);
    assert!(break_even_lease(f64::NAN, &elsewhere, 0.0).is_err());
    assert!(break_even_lease(1.0, &elsewhere, f64::INFINITY).is_err());
}

#[test]
fn who_is_let_first_depends_on_how_a_lease_is_paid() {
    // Training: MLPerf Training v5.0, Llama 3.1 405B. Serving: MLPerf Inference v5.1, Llama 2 70B
    // offline, per device. One price for all: what is said of a lease of a whole site, 2.60.
    let ids = ["h100-sxm5-80gb", "h200-sxm-141gb", "gb200"];
    let tables = tables();
    let trained = tables.class_rates(&ids, laggard_specs::RateBasis::Measured);
    let trained = trained.expect("one set has all three");
    let served = [3902.0, 4415.0, 13_015.0];
    let classes: Vec<ClassRates> = trained
        .iter()
        .zip(served)
        .map(|(trained, served)| ClassRates {
            training_tokens_per_second: trained.relative,
            serving_tokens_per_second: served,
            lease_dollars_per_device_hour: 2.60,
        })
        .collect();
    let order = lease_order(&classes).expect("rates");
    assert_eq!(
        order.paid_per_token,
        [2, 1, 0],
        "GB200 serves, Hopper trains"
    );
    assert_eq!(
        order.paid_per_hour,
        [0, 1, 2],
        "Hopper is let, GB200 trains"
    );
    assert!(order.depends_on_payment());
    let alike = lease_order(&[classes[0], classes[0]]).expect("rates");
    assert_eq!(
        (alike.paid_per_token, alike.paid_per_hour),
        (vec![0, 1], vec![0, 1])
    );
    let idle = ClassRates {
        training_tokens_per_second: 0.0,
        ..classes[0]
    };
    assert!(lease_order(&[idle]).is_err());
}

#[test]
fn the_token_price_of_a_lease_earns_the_lease() {
    let price = break_even_token_price(Span::exactly(2.60), 4000.0, 0.5).expect("a price");
    // 4000 tokens a second, of which half is sold, make 7.2 million in an hour.
    assert!((price.typical * 7.2 - 2.60).abs() < 1e-12);
    assert!(break_even_token_price(Span::exactly(2.60), 4000.0, 1.5).is_err());
    assert!(break_even_token_price(Span::exactly(2.60), 0.0, 0.5).is_err());
}

#[test]
fn an_owner_pays_by_the_hour_whether_devices_are_used_or_not() {
    let text = r#"
electricity_dollars_per_kwh = 0.1
staff_dollars_per_year = 105192.0
utilization = 0.5
[bought.own]
dollars_per_device = 35064.0
network_dollars_per_device = 35064.0
years = 4
maintenance_share_per_year = 0.0625
"#;
    let costs = Costs::from_toml_str(text).expect("costs");
    let cluster = cluster(TWO_POOLS);
    let hour = |at: usize| costs.dollars_per_used_hour(&cluster, &cluster.pools[at], Some(1250.0));
    // Two dollars lost, half a dollar of maintenance, one of staff, and an eighth of power; of two
    // hours one is of use.
    assert!((hour(0).expect("its price is known") - 2.0 * 3.625).abs() < 1e-12);
    assert_eq!(hour(1), None);
    let refused = |from: &str, to: &str| {
        let error = Costs::from_toml_str(&text.replace(from, to)).expect_err("must be refused");
        error.to_string()
    };
    for (from, to, part) in [
        ("= 35064.0", "= -1.0", "at least zero"),
        ("years = 4", "years = 0", "above zero"),
        ("utilization = 0.5", "utilization = 1.5", "at most 1"),
        ("staff", "stuff", "unknown field"),
    ] {
        let message = refused(from, to);
        assert!(
            message.contains("line ") && message.contains(part),
            "{message}"
        );
    }
}
