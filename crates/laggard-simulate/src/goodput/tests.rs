//! Known answers, laws, and agreement with direct simulation.

use laggard_stats::Rng;
use proptest::prelude::*;

use super::*;

fn job(mtbf: f64, checkpoint: f64, restart: f64) -> Interruptions {
    Interruptions {
        mtbf: Seconds(mtbf),
        checkpoint: Seconds(checkpoint),
        restart: Seconds(restart),
    }
}

/// Seconds by cause (useful, checkpoint, lost, restart) of one segment, failure by failure.
fn simulate(job: &Interruptions, work: f64, rng: &mut Rng) -> [f64; 4] {
    let segment = work + job.checkpoint.0;
    let mut spent = [work, job.checkpoint.0, 0.0, 0.0];
    loop {
        let failure = job.mtbf.0 * rng.exponential();
        if failure >= segment {
            return spent;
        }
        spent[2] += failure;
        loop {
            let failure = job.mtbf.0 * rng.exponential();
            if failure >= job.restart.0 {
                spent[3] += job.restart.0;
                break;
            }
            spent[3] += failure;
        }
    }
}

#[test]
fn agrees_with_direct_simulation() {
    let segments = 200_000_u32;
    for (mtbf, checkpoint, restart, work) in [
        (10_800.0, 60.0, 600.0, 1200.0),
        (800.0, 120.0, 600.0, 300.0),
        (3600.0, 5.0, 30.0, 5000.0),
    ] {
        let job = job(mtbf, checkpoint, restart);
        let mut rng = Rng::new(11);
        let mut sums = [0.0; 4];
        let mut totals = Vec::new();
        for _ in 0..segments {
            let spent = simulate(&job, work, &mut rng);
            totals.push(spent.iter().sum::<f64>());
            for (sum, time) in sums.iter_mut().zip(spent) {
                *sum += time;
            }
        }
        let n = f64::from(segments);
        let mean = totals.iter().sum::<f64>() / n;
        let variance = totals.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
        let expect = job.expected_time(Seconds(work)).unwrap().0;
        let error = (variance / n).sqrt();
        assert!(
            (mean - expect).abs() < 4.0 * error,
            "{mean} +- {error}, not {expect}"
        );
        let goodput = job.goodput(Seconds(work)).unwrap();
        let shares = [
            goodput.useful,
            goodput.checkpoint,
            goodput.lost_work,
            goodput.restart,
        ];
        let whole: f64 = sums.iter().sum();
        for (share, sum) in shares.into_iter().zip(sums) {
            let slack = 5.0 * error / mean;
            assert!(
                (share - sum / whole).abs() < slack,
                "{share}, not {}",
                sum / whole
            );
        }
    }
}

/// 419 interruptions in 54 days on 16,384 accelerators: one in 3.1 hours, and one in 14 minutes on
/// 220,000, where a checkpoint of a minute and a restart of five are too much for first order.
#[test]
fn published_rates() {
    let rates = rates::failure_rates().unwrap();
    let h100 = rates.iter().find(|rate| rate.id == "llama3-h100").unwrap();
    let mtbf = |rate: &FailureRate, devices| {
        let each = Some(rate.per_device_year());
        time_between_failures([(each, devices)].into_iter()).unwrap()
    };
    let hours = mtbf(h100, 16_384).0 / 3600.0;
    assert!((hours - 54.0 * 24.0 / 419.0).abs() < 1e-12, "{hours}");
    let of_site = mtbf(h100, 220_000);
    assert!((of_site.0 / 60.0 - 13.82).abs() < 0.01, "{of_site:?}");
    let whole_site = job(of_site.0, 60.0, 300.0);
    assert_eq!(
        whole_site.first_order_interval().unwrap_err().to_string(),
        "checkpoint and restart are 0.43 of the time between failures, above the 0.2 up to which \
         first-order formulas hold: they neglect failures during either\n\
         hint: use the exact optimum"
    );
    // Llama 3 reports more than 90 % effective training time.
    let llama = job(mtbf(h100, 16_384).0, 15.0, 480.0);
    let best = llama.goodput(llama.best_interval().unwrap()).unwrap();
    assert!(best.useful > 0.9 && best.useful < 0.97, "{best:?}");
    // The projections of the second source.
    let rsc1 = rates.iter().find(|rate| rate.id == "rsc1-a100").unwrap();
    for (accelerators, hours) in [(16_384, 1.8), (131_072, 0.23)] {
        let got = mtbf(rsc1, accelerators).0 / 3600.0;
        assert!((got / hours - 1.0).abs() < 0.03, "{got}, not {hours}");
    }
    // Every rate is usable.
    assert!(rates.iter().all(|rate| rate.mtbf_per_accelerator().0 > 0.0));
}

#[test]
fn first_order_is_near_where_it_is_allowed() {
    let easy = job(86_400.0, 10.0, 60.0);
    let exact = easy.best_interval().unwrap().0;
    let first = easy.first_order_interval().unwrap().0;
    assert!(
        (first / exact - 1.0).abs() < 0.01,
        "{first} against {exact}"
    );
}

/// Two nodes of which one is needed, down for a third of the time each: both down in one ninth.
#[test]
fn spares_by_hand() {
    let pool = SparePool {
        needed: 1,
        spares: 1,
        node_mtbf: Seconds(2.0),
        repair: Seconds(1.0),
    };
    assert!((pool.share_short().unwrap() - 1.0 / 9.0).abs() < 1e-15);
    let none = SparePool { spares: 0, ..pool };
    assert!((none.share_short().unwrap() - 1.0 / 3.0).abs() < 1e-15);
    assert_eq!(spares_for(pool, 0.5).unwrap(), 0);
    assert_eq!(spares_for(pool, 0.1).unwrap(), 2);
    // 2048 nodes of Llama 3's rate, repaired within a day.
    let site = SparePool {
        needed: 2048,
        spares: 0,
        node_mtbf: Seconds(50_677.0 * 3600.0 / 8.0),
        repair: Seconds(86_400.0),
    };
    let spares = spares_for(site, 1e-3).unwrap();
    let short = |spares| SparePool { spares, ..site }.share_short().unwrap();
    assert!(
        short(spares) <= 1e-3 && short(spares - 1) > 1e-3,
        "{spares}"
    );
    let hopeless = SparePool {
        repair: Seconds(1e12),
        ..pool
    };
    assert!(spares_for(hopeless, 1e-6).is_err());
}

#[test]
fn ends_and_refusals() {
    let calm = job(f64::INFINITY, 10.0, 60.0);
    let goodput = calm.goodput(Seconds(90.0)).unwrap();
    assert!((goodput.useful - 0.9).abs() < 1e-15 && goodput.restart.abs() < 1e-300);
    assert!(calm.best_interval().is_err());
    // Never finishes: no useful time, and no NaN.
    let hopeless = job(1.0, 10.0, 60.0).goodput(Seconds(5000.0)).unwrap();
    assert!(hopeless.useful.abs() < 1e-300, "{hopeless:?}");
    assert!((hopeless.total() - 1.0).abs() < 1e-9, "{hopeless:?}");
    assert!(job(0.0, 1.0, 1.0).goodput(Seconds(1.0)).is_err());
    assert!(job(1.0, f64::NAN, 1.0).goodput(Seconds(1.0)).is_err());
    assert!(job(1.0, 1.0, -1.0).goodput(Seconds(1.0)).is_err());
    assert!(job(1.0, 1.0, 1.0).goodput(Seconds(0.0)).is_err());
    assert!(job(1.0, 0.0, 1.0).best_interval().is_err());
    assert!(goodput.waiting(1.5).is_err());
}

proptest! {
    #[test]
    fn shares_sum_to_one_and_worse_is_worse(
        log_mtbf in 4.0..16.0_f64,
        checkpoint in 0.5..900.0_f64,
        restart in 0.0..900.0_f64,
        share in 0.0..1.0_f64,
        worse in 1.0..2.0_f64,
    ) {
        let mtbf = log_mtbf.exp();
        let base = job(mtbf, checkpoint, restart);
        let interval = base.best_interval().unwrap();
        let goodput = base.goodput(interval).unwrap();
        prop_assert!((goodput.total() - 1.0).abs() < 1e-9, "{goodput:?}");
        prop_assert!(goodput.lost_work >= -1e-12);
        prop_assert!((goodput.waiting(share).unwrap().total() - 1.0).abs() < 1e-9);
        // The interval is the best one: neighbours leave no more.
        for factor in [0.5, 0.9, 0.99, 1.01, 1.1, 2.0] {
            let other = base.goodput(Seconds(interval.0 * factor)).unwrap();
            prop_assert!(other.useful <= goodput.useful * (1.0 + 1e-12));
        }
        for worse in [
            job(mtbf / worse, checkpoint, restart),
            job(mtbf, checkpoint * worse, restart),
            job(mtbf, checkpoint, restart * worse + 1.0),
        ] {
            let best = worse.goodput(worse.best_interval().unwrap()).unwrap();
            prop_assert!(best.useful <= goodput.useful * (1.0 + 1e-12));
        }
    }
}
