use super::*;
use crate::options::options;
use crate::options::tests::Fixture;
use crate::power::loads;
use crate::problem::Terms;

/// Published rates of the three classes of Colossus 1: paid by the token GB200 is let first, at one
/// price an hour last.
#[test]
fn how_a_lease_is_paid_turns_what_gb200_does() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("colossus-1");
    let training = fixture.training("llama3-8b", 64 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let measured = measured(&problem, fixture.tables())
        .expect("rates")
        .expect("of all");
    assert_eq!(measured.by_token, ["gb200", "h200", "h100"]);
    assert_eq!(measured.by_hour, ["h100", "h200", "gb200"]);
    assert!(measured.depends_on_payment());
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.005, "{a} {b}");
    // MLPerf Training v5.0 (405B, 512 devices) and Inference v5.1 (Llama 2 70B offline).
    close(measured.trains[2], 2.22);
    close(measured.serves[1], 4415.0 / 3902.0);
    close(measured.serves[2], 13_015.0 / 3902.0);
    assert_eq!(measured.sources.len(), 4);
    let mi300x = ServingConstants::measured_together(&["mi300x", "tpu"]).expect("the table");
    assert_eq!(mi300x, None);
}

#[test]
fn classes_are_compared_in_jobs_of_one_size_and_break_even_at_the_cheapest() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("colossus-1");
    let training = fixture.training("llama3-8b", 64 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let found = options(&problem).expect("options");
    let all = by_class(&problem, &found.list, None, fixture.tables()).expect("worth");
    assert_eq!(all.devices, 20_000);
    assert_eq!(all.flat_lease_dollars_per_hour, Some(2.6));
    assert_eq!(all.predicted, None, "nothing is served");
    let cheapest = all.cheapest.clone().expect("prices are known");
    let worth = |name: &str| {
        all.classes
            .iter()
            .find(|it| it.class == name)
            .expect("a class")
    };
    let per_dollar = |it: &ClassWorth| {
        it.training_tokens_per_s.expect("it fits") / it.lease_dollars_per_hour.expect("a price")
    };
    let best = worth(&cheapest);
    for class in &all.classes {
        assert!(per_dollar(class) <= per_dollar(best));
        let even = class.break_even_lease.expect("prices are known");
        // The lease at that price buys as many tokens of the cheapest class.
        let bought = even * per_dollar(best);
        let trained = class.training_tokens_per_s.expect("it fits");
        assert!((bought / trained - 1.0).abs() < 1e-9, "{class:?}");
    }
    let lost = all.lost_in_lockstep.expect("both are options");
    assert!(lost > 0.05 && lost < 1.0, "{lost}");
}

#[test]
fn the_limit_binds_at_nameplate_and_not_at_the_measured_share_of_it() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("colossus-1");
    let training = fixture.training("llama3-8b", 64 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let [site] = &loads(&problem)[..] else {
        panic!("one site")
    };
    // 200,000 at 1275 W and 20,000 at 1670 W, a fifth more for cooling.
    let stated = 1.2 * (200_000.0 * 1275.0 + 20_000.0 * 1670.0) / 1e6;
    let mw = |it: Option<f64>| it.expect("power is known");
    assert!((mw(site.stated_mw) - stated).abs() < 1e-9);
    assert!((mw(site.measured_mw) - stated * 10.4 / 14.3).abs() < 1e-9);
    assert_eq!(site.binds(site.stated_mw), Some(true));
    assert_eq!(site.binds(site.measured_mw), Some(false));
}
