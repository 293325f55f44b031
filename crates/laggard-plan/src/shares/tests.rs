use super::*;
use proptest::prelude::*;

fn worker(replicas: u64, fixed: f64, each: f64) -> Worker {
    Worker {
        replicas,
        fixed_seconds: fixed,
        micro_batch_seconds: each,
        most: None,
    }
}

/// The least time of all ways to share out, by trying each of them.
fn by_trying(replicas: &[Worker], batch: u64) -> f64 {
    let Some((first, rest)) = replicas.split_first() else {
        return if batch == 0 { 0.0 } else { f64::INFINITY };
    };
    (1..=first.limit(batch))
        .map(|count| first.end(count).max(by_trying(rest, batch - count)))
        .fold(f64::INFINITY, f64::min)
}

fn alone(workers: &[Worker]) -> Vec<Worker> {
    let one = |worker: &Worker| {
        let one = Worker {
            replicas: 1,
            ..*worker
        };
        vec![one; worker.replicas as usize]
    };
    workers.iter().flat_map(one).collect()
}

#[test]
fn twice_as_fast_takes_twice_as_much() {
    let shares = share_out(&[worker(2, 0.0, 1.0), worker(1, 0.0, 2.0)], 10).expect("shares");
    assert_eq!(shares.of_worker, [vec![(2, 4)], vec![(1, 2)]]);
    assert!((shares.seconds - 4.0).abs() < 1e-12);
    assert!((shares.bound_seconds - 4.0).abs() < 1e-9);
}

#[test]
fn two_hundred_thousand_replicas_cost_no_more_than_classes() {
    let workers = [
        worker(18_750, 0.3, 1.0),
        worker(6_250, 0.3, 1.0 / 1.1),
        worker(2_500, 0.3, 1.0 / 2.22),
    ];
    let shares = share_out(&workers, 1_000_000).expect("shares");
    let groups = shares.of_worker.iter().flatten();
    let all: u64 = groups.map(|(replicas, count)| replicas * count).sum();
    assert_eq!(all, 1_000_000);
    assert!(shares.seconds < shares.bound_seconds * 1.03, "{shares:?}");
}

#[test]
fn what_cannot_be_shared_out_is_refused() {
    let one = worker(4, 0.0, 1.0);
    let full = Worker {
        most: Some(2),
        ..one
    };
    assert!(matches!(
        share_out(&[one], 3),
        Err(SharesError::TooFew { .. })
    ));
    assert!(matches!(
        share_out(&[full], 9),
        Err(SharesError::NoRoom { most: 8, .. })
    ));
    let not_a_number = worker(1, 0.0, f64::NAN);
    assert!(matches!(
        share_out(&[not_a_number], 3),
        Err(SharesError::NoTime { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_way_of_sharing_out_is_better(
        kinds in prop::collection::vec((0_u64..3, 0_u8..4, 1_u8..7, 1_u64..9), 1..3),
        batch in 1_u64..9,
    ) {
        let workers: Vec<Worker> = kinds
            .iter()
            .map(|&(replicas, fixed, each, most)| Worker {
                most: Some(most),
                // Quarters and tenths, so that ends coincide, exactly and nearly.
                ..worker(replicas, f64::from(fixed) * 0.1, f64::from(each) * 0.25)
            })
            .collect();
        let expected = by_trying(&alone(&workers), batch);
        match share_out(&workers, batch) {
            Ok(shares) => {
                let off = (shares.seconds - expected).abs();
                prop_assert!(off < 1e-12, "{shares:?}, not {expected}");
                prop_assert!(shares.bound_seconds <= shares.seconds + 1e-9);
                let mut all = 0;
                for (worker, groups) in workers.iter().zip(&shares.of_worker) {
                    prop_assert_eq!(groups.iter().map(|it| it.0).sum::<u64>(), worker.replicas);
                    for &(replicas, count) in groups {
                        prop_assert!(count >= 1 && count <= worker.most.unwrap_or(count));
                        prop_assert!(worker.end(count) <= shares.seconds);
                        all += replicas * count;
                    }
                }
                prop_assert_eq!(all, batch);
            }
            Err(_) => prop_assert!(expected.is_infinite()),
        }
    }
}
