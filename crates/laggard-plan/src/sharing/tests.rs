use proptest::prelude::*;

use super::*;
use crate::options::on;
use crate::options::tests::Fixture;
use crate::problem::Terms;

const SITE: &str = r#"
id = "mixed"
[[site]]
id = "here"
power_limit_watts = LIMIT
power_usage_effectiveness = 1.0
"#;

/// A cluster of hosts of eight, each device drawing 1 kW.
pub(super) fn cluster(
    fixture: &Fixture,
    hosts: &[u64],
    limit_hosts: f64,
) -> laggard_specs::Cluster {
    failing_cluster(fixture, (hosts, 0.1), limit_hosts)
}

/// The same, of which each device fails so often in a year.
fn failing_cluster(
    fixture: &Fixture,
    failing: (&[u64], f64),
    limit_hosts: f64,
) -> laggard_specs::Cluster {
    fixture.cluster(&cluster_text(failing, limit_hosts))
}

/// The same, with its second class at another site that no link joins.
fn cluster_apart(
    fixture: &Fixture,
    failing: (&[u64], f64),
    limit_hosts: f64,
) -> laggard_specs::Cluster {
    let text = cluster_text(failing, limit_hosts);
    let site = text[..text.find("[[pool]]").expect("pools")].to_owned();
    let other = site[site.find("[[site]]").expect("a site")..].replace("here", "there");
    let moved = text[site.len()..].replace("\"p1\"\nsite = \"here\"", "\"p1\"\nsite = \"there\"");
    fixture.cluster(&(site + &other + &moved))
}

fn cluster_text((hosts, failures): (&[u64], f64), limit_hosts: f64) -> String {
    let kinds = ["h100-sxm5-80gb", "b200-sxm", "a100-sxm4-80gb"];
    let mut text = SITE.replace("LIMIT", &format!("{:.1}", limit_hosts * 8e3));
    for (at, (kind, hosts)) in kinds.iter().zip(hosts).enumerate() {
        text += &format!(
            "[[pool]]\nid = \"p{at}\"\nsite = \"here\"\naccelerator = \"{kind}\"\ncount = {}\n\
             devices_per_node = 8\npower_watts_per_device = 1000.0\n\
             failures_per_device_year = {failures:.1}\n\
             price_dollars_per_device_hour = {{ low = 1.0, typical = {}.0, high = 9.0 }}\n",
            hosts * 8,
            at + 2
        );
    }
    text
}

/// What a sharing of hosts is worth: with every job in the best layout for it, and hosts that one
/// has nothing for given to the other.
fn worth(wanted: &[Wanted<'_, '_>], hosts: &Hosts) -> Option<f64> {
    let mut sharer = Sharer::without_rates(wanted, Goal::Trained);
    let mut jobs = sharer.jobs(hosts);
    let in_time = wanted.iter().zip(&jobs).all(|(wanted, job)| {
        wanted
            .needed()
            .is_none_or(|needed| job.tokens_per_s >= needed)
    });
    sharer.give_idle_hosts(&mut hosts.clone(), &mut jobs);
    let of = |(wanted, job): (&Wanted<'_, '_>, &Shared)| {
        wanted.weight * wanted.problem.flop_per_token() * job.tokens_per_s
    };
    in_time.then(|| wanted.iter().zip(&jobs).map(of).sum())
}

/// Every way to give so many hosts of each class to two jobs or to none, within the limit of one
/// site, or of one for each class.
fn ways(hosts: &[u64], limit_hosts: f64, are_apart: bool) -> Vec<Hosts> {
    let mut ways: Vec<Hosts> = vec![vec![Vec::new(), Vec::new()]];
    for &all in hosts {
        let mut longer = Vec::new();
        for way in &ways {
            for first in 0..=all {
                for second in 0..=all - first {
                    let mut way = way.clone();
                    way[0].push(first);
                    way[1].push(second);
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    let taken = |way: &Hosts, class: usize| way.iter().map(|job| job[class]).sum::<u64>();
    ways.retain(|way| {
        let mut each = (0..hosts.len()).map(|class| taken(way, class) as f64);
        match are_apart {
            true => each.all(|taken| taken <= limit_hosts),
            false => each.sum::<f64>() <= limit_hosts,
        }
    });
    ways
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against every sharing of whole hosts: none is worth more than the bound, and none by more
    /// than the stated gap more than the one that is found.
    #[test]
    fn no_sharing_is_worth_more_than_the_bound(
        hosts in prop::collection::vec(1_u64..4, 1..3),
        limit_hosts in 3.0_f64..8.0,
        batches in (15_u32..21, 15_u32..21),
        weight in 0.5_f64..2.0,
        due in prop::option::of(0.1_f64..0.8),
        failures in prop::sample::select(vec![0.1, 50.0, 500.0]),
        // Of which a host of most classes alone has not the memory.
        is_larger in any::<bool>(),
        are_apart in any::<bool>(),
    ) {
        let fixture = Fixture::new();
        let cluster = match are_apart {
            true => cluster_apart(&fixture, (&hosts, failures), limit_hosts),
            false => failing_cluster(&fixture, (&hosts, failures), limit_hosts),
        };
        let problem = |model: &'static str, batch: u32| {
            let training = fixture.training(model, 1 << batch);
            fixture.problem(&cluster, training, &Terms::default()).expect("a problem")
        };
        let problems = [problem("qwen3-0.6b", batches.0), problem(
            if is_larger { "llama3-70b" } else { "llama3-8b" },
            batches.1,
        )];
        let mut wanted = [("small", 1.0), ("large", weight)].map(|(name, weight)| Wanted {
            name,
            problem: &problems[0],
            weight,
            deadline_days: None,
            fewest_devices: 0,
        });
        wanted[1].problem = &problems[1];
        // A share of what everything would do for the large one alone.
        let alone = in_turn(&wanted[1..]).done_days[0];
        wanted[1].deadline_days = alone.zip(due).map(|(alone, due)| alone / due);
        let all = ways(&hosts, limit_hosts, are_apart);
        let worths = all.iter().filter_map(|way| worth(&wanted, way));
        let best = worths.reduce(f64::max);
        match (share(&wanted, Objective::Tokens), best) {
            (Ok(found), Some(best)) => {
                prop_assert!(best <= found.bound * (1.0 + 1e-9), "{best} {}", found.bound);
                prop_assert!(found.value <= best * (1.0 + 1e-9), "{} {best}", found.value);
                prop_assert!(found.value >= best * (1.0 - found.gap() - 1e-9));
                for (class, all) in problems[0].classes.iter().zip(&found.uses) {
                    let sum = all.train + all.idle + all.lease + all.off;
                    prop_assert_eq!(sum, class.of.count);
                }
                let on: u64 = found.uses.iter().map(|it| it.train + it.idle + it.lease).sum();
                prop_assert!(are_apart || on as f64 <= limit_hosts * 8.0);
                for (wanted, job) in wanted.iter().zip(&found.jobs) {
                    let needed = wanted.needed().unwrap_or(0.0);
                    prop_assert!(job.tokens_per_s >= needed);
                }
            }
            (Err(error), best) => prop_assert!(best.is_none(), "{error} {best:?}"),
            (Ok(found), None) => prop_assert!(false, "{found:?}"),
        }
    }
}

/// Against every set of classes: with those that have less to give, a job would be slower.
#[test]
fn a_job_gets_the_classes_that_train_most_together() {
    let fixture = Fixture::new();
    let cluster = fixture.preset("colossus-1");
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let wanted = Wanted {
        name: "small",
        problem: &problem,
        weight: 1.0,
        deadline_days: None,
        fewest_devices: 0,
    };
    let sharing = share(&[wanted], Objective::Tokens).expect("a sharing");
    let mut search = Search::of(&problem);
    let all = on(&problem);
    let mut rate = |set: u32| {
        let of = |(class, count): (usize, &u64)| count * u64::from(set >> class & 1);
        let devices: Vec<u64> = all.iter().enumerate().map(of).collect();
        let job = search.either(&devices);
        job.map_or(0.0, |job| search.rate(&job))
    };
    let most = (1..1 << all.len()).map(&mut rate).fold(0.0, f64::max);
    let with_all = rate((1 << all.len()) - 1);
    assert!(
        with_all < 0.95 * most,
        "nothing is tested: {with_all} {most}"
    );
    let found = sharing.jobs[0].tokens_per_s;
    assert!(found >= most * (1.0 - 1e-9), "{found} {most}");
}

/// No link joins the sites: a job that has hosts of two of them trains nothing.
#[test]
fn jobs_stay_at_sites_that_links_join() {
    let fixture = Fixture::new();
    for count in [2_usize, 24] {
        let mut text = "id = \"apart\"\n".to_owned();
        for at in 0..count {
            text += &format!("[[site]]\nid = \"s{at}\"\n");
        }
        for at in 0..count {
            for kind in ["h100-sxm5-80gb", "a100-sxm4-80gb"] {
                let devices = 8 * (4 + at);
                text += &format!(
                    "[[pool]]\nid = \"{kind}-{at}\"\nsite = \"s{at}\"\naccelerator = \"{kind}\"\n\
                     count = {devices}\ndevices_per_node = 8\n"
                );
            }
        }
        let cluster = fixture.cluster(&text);
        let problem = |model| {
            let training = fixture.training(model, 4 << 20);
            let problem = fixture.problem(&cluster, training, &Terms::default());
            problem.expect("a problem")
        };
        let problems = [problem("llama3-8b"), problem("qwen3-0.6b")];
        let wanted = [("large", 0), ("small", 1)].map(|(name, at)| Wanted {
            name,
            problem: &problems[at],
            weight: 1.0,
            deadline_days: None,
            fewest_devices: 8,
        });
        let found = share(&wanted, Objective::Tokens).expect("a sharing");
        let classes = &problems[0].classes;
        let mut at = found.jobs.iter().map(|job| {
            assert!(job.tokens_per_s > 0.0, "{job:?}");
            let has = classes.iter().zip(&job.devices).filter(|(_, it)| **it > 0);
            has.map(|(class, _)| class.site)
                .collect::<BTreeSet<usize>>()
        });
        assert!(at.all(|sites| sites.len() == 1));
        assert!(found.gap() < 0.3, "{}", found.gap());
        let all = |wanted: &Wanted<'_, '_>| in_turn(&[*wanted]).done_days[0];
        assert!(wanted.iter().all(|wanted| all(wanted).is_some()));
    }
}

/// Jobs lose much of their time to failures, and the classes of each share one batch.
#[test]
fn prices_know_that_devices_of_one_job_step_and_fail_together() {
    let fixture = Fixture::new();
    let cluster = failing_cluster(&fixture, (&[64, 64, 64], 50.0), 1e6);
    let training = fixture.training("llama3-8b", 1 << 24);
    let problem = fixture.problem(&cluster, training, &Terms::default());
    let problem = problem.expect("a problem");
    let wanted = ["one", "other"].map(|name| Wanted {
        name,
        problem: &problem,
        weight: 1.0,
        deadline_days: None,
        fewest_devices: 0,
    });
    let mut sharer = Sharer::new(&wanted, Goal::Trained);
    let apart = sharer.bound(&sharer.mixed());
    let apart = apart.expect("a bound");
    let found = share(&wanted, Objective::Tokens).expect("a sharing");
    assert!(found.bound < 0.9 * apart, "{} {apart}", found.bound);
    assert!(found.gap() < 0.1, "{}", found.gap());
}

#[test]
fn a_cluster_is_shared_out_to_somebody() {
    let refused = share(&[], Objective::Tokens).expect_err("no job");
    assert!(matches!(refused, PlanError::NoJob), "{refused}");
    assert!(in_turn(&[]).done_days.is_empty());
}

#[test]
fn a_sharing_is_a_file_of_one_option_whose_jobs_have_their_own_models() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[4, 2], 1e6);
    let problem = |model: &'static str| {
        let training = fixture.training(model, 1 << 20);
        let problem = fixture.problem(&cluster, training, &Terms::default());
        problem.expect("a problem")
    };
    let problems = [problem("qwen3-0.6b"), problem("llama3-8b")];
    let wanted =
        [("small", &problems[0]), ("large.one", &problems[1])].map(|(name, problem)| Wanted {
            name,
            problem,
            weight: 1.0,
            deadline_days: None,
            fewest_devices: 8,
        });
    let sharing = share(&wanted, Objective::Tokens).expect("a sharing");
    let file = crate::PlanFile::of_sharing(
        ("mixed", &problems[0]),
        (&wanted, &sharing),
        Objective::Tokens,
        &["one".to_owned()],
    );
    let text = file.to_json().expect("text");
    assert_eq!(crate::PlanFile::parse(&text), Ok(file.clone()));
    let option = file.option(None).expect("the answer");
    let of_jobs: f64 = sharing.jobs.iter().map(|job| job.tokens_per_s).sum();
    assert!((option.tokens_per_s.value / of_jobs - 1.0).abs() < 1e-12);
    assert!(option.mfu.is_some_and(|mfu| mfu > 0.0 && mfu < 1.0));
    assert!(option.power_mw.is_some_and(|mw| mw > 0.0));
    let working = sharing.jobs.iter().filter(|job| job.plan.is_some());
    assert_eq!(option.jobs.len(), working.clone().count());
    for (job, shared) in option.jobs.iter().zip(working) {
        assert_eq!(job.name, shared.name);
        let model = if job.name == "small" {
            "qwen3-0.6b"
        } else {
            "llama3-8b"
        };
        assert_eq!(job.model, model);
        job.layout().check(job.ranks() as u32).expect("a layout");
    }
}

#[test]
fn deadlines_that_cannot_be_kept_are_told_with_some_that_can() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[6, 3], 1e6);
    let training = fixture.training("llama3-8b", 4 << 20);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let wanted = |factor: f64| {
        let alone = |name| Wanted {
            name,
            problem: &problem,
            weight: 1.0,
            deadline_days: None,
            fewest_devices: 0,
        };
        let days = in_turn(&[alone("a")]).done_days[0].expect("it fits");
        ["a", "b"].map(|name| Wanted {
            deadline_days: Some(days * factor),
            ..alone(name)
        })
    };
    // Each alone could be done by then.
    let refused = share(&wanted(1.1), Objective::Tokens);
    let Err(PlanError::Infeasible { relaxation, .. }) = refused else {
        panic!("{refused:?}")
    };
    let days = relaxation.split("deadline_days = ").nth(1).expect("days");
    let days: f64 = days
        .split(' ')
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a number");
    let with = |days: f64| {
        let jobs = wanted(1.0).map(|job| Wanted {
            deadline_days: Some(days),
            ..job
        });
        share(&jobs, Objective::Tokens)
    };
    assert!(with(days).is_ok(), "{relaxation}");
    assert!(with(days * 0.98).is_err(), "{relaxation}");
    let many = wanted(1e3).map(|job| Wanted {
        fewest_devices: 73,
        ..job
    });
    let refused = share(&many, Objective::Tokens).expect_err("more than there are");
    assert!(
        refused.to_string().contains("fewest_devices = 72"),
        "{refused}"
    );
}

#[test]
fn hosts_that_a_job_has_nothing_for_go_to_another() {
    let fixture = Fixture::new();
    let cluster = cluster(&fixture, &[16], 1e6);
    let problem = |batch: u64| {
        let training = fixture.training("qwen3-0.6b", batch);
        let problem = fixture.problem(&cluster, training, &Terms::default());
        problem.expect("a problem")
    };
    let problems = [problem(1 << 15), problem(1 << 22)];
    let wanted = [("few", &problems[0]), ("many", &problems[1])].map(|(name, problem)| Wanted {
        name,
        problem,
        weight: 1.0,
        deadline_days: None,
        fewest_devices: 0,
    });
    let mut sharer = Sharer::new(&wanted, Goal::Trained);
    // No layout of so few sequences fits every number of hosts.
    let some = (5..14).find_map(|all| {
        let before = sharer.jobs(&vec![vec![all], vec![2]]);
        let idle = before[0].plan.as_ref().map_or(0, |plan| plan.idle[0]) / 8;
        (idle > 0).then_some((all, idle, before))
    });
    let (all, idle, before) = some.expect("hosts without work");
    let mut hosts = vec![vec![all], vec![2]];
    let mut jobs = before.clone();
    sharer.give_idle_hosts(&mut hosts, &mut jobs);
    assert_eq!(hosts, [[all - idle], [2 + idle]]);
    assert_eq!(
        jobs[0].tokens_per_s.to_bits(),
        before[0].tokens_per_s.to_bits()
    );
    assert!(jobs[1].tokens_per_s > before[1].tokens_per_s);
    for (job, hosts) in jobs.iter().zip(&hosts) {
        let plan = job.plan.as_ref().expect("a job");
        assert_eq!(job.devices[0], 8 * hosts[0]);
        assert_eq!(plan.devices(0) + plan.idle[0], job.devices[0]);
    }
    // Not below what it must have.
    sharer.wanted[0].fewest_devices = 8 * all - 7;
    let (mut hosts, mut jobs) = (vec![vec![all], vec![2]], before);
    sharer.give_idle_hosts(&mut hosts, &mut jobs);
    assert_eq!(hosts, [[all], [2]]);
}
