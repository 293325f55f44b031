use proptest::prelude::*;

use super::*;
use crate::file::tests::plan;
use crate::options::Kind;

/// The most that rows and columns in pairs have, by looking at all of them.
fn by_enumeration(shared: &[Vec<u64>], taken: u32) -> u64 {
    let Some((row, rest)) = shared.split_first() else {
        return 0;
    };
    let alone = by_enumeration(rest, taken);
    let free = (0..row.len()).filter(|column| taken & (1 << column) == 0);
    let paired = free.map(|column| row[column] + by_enumeration(rest, taken | 1 << column));
    paired.max().unwrap_or(0).max(alone)
}

fn places(jobs: &[&[(&str, u64)]], others: &[(&str, [u64; 5])]) -> Places {
    let job = |job: &&[(&str, u64)]| {
        let counts = job.iter().map(|&(class, count)| (class.to_owned(), count));
        counts.collect()
    };
    let other = |&(class, counts): &(&str, [u64; 5])| (class.to_owned(), counts);
    Places {
        jobs: jobs.iter().map(job).collect(),
        others: others.iter().map(other).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_pairs_of_jobs_share_more(
        (rows, columns) in (0_usize..5, 1_usize..5),
        counts in prop::collection::vec(0_u64..20, 25),
    ) {
        let mut counts = counts.into_iter();
        let shared: Vec<Vec<u64>> = (0..rows)
            .map(|_| counts.by_ref().take(columns).collect())
            .collect();
        let most = by_enumeration(&shared, 0);
        prop_assert_eq!(most_in_pairs(&shared), most);
        prop_assert!(largest_first(&shared) <= most);
    }

    /// Devices of one class in any places: what moves is what the places gain, and to move back is
    /// as much.
    #[test]
    fn moves_are_gains_and_go_both_ways(
        before in prop::collection::vec(0_u64..50, 5),
        after in prop::collection::vec(0_u64..50, 5),
    ) {
        let all = |counts: &[u64]| counts.iter().sum::<u64>();
        let fixed = |counts: &[u64]| <[u64; 5]>::try_from(counts).expect("five places");
        let (mut a, mut b) = (fixed(&before), fixed(&after));
        let larger = all(&a).max(all(&b));
        (a[4], b[4]) = (a[4] + larger - all(&a), b[4] + larger - all(&b));
        let gain: u64 = a.iter().zip(b).map(|(a, b)| b.saturating_sub(*a)).sum();
        let (a, b) = (places(&[], &[("x", a)]), places(&[], &[("x", b)]));
        prop_assert_eq!(a.moved_to(&b), gain);
        prop_assert_eq!(b.moved_to(&a), gain);
        prop_assert_eq!(a.moved_to(&a), 0);
    }
}

#[test]
fn jobs_go_on_under_any_name_and_losses_are_spread() {
    let none = [0; 5];
    let two = places(
        &[&[("a", 100)], &[("b", 40)]],
        &[("a", [0, 10, 0, 0, 0]), ("b", none)],
    );
    let swapped = places(
        &[&[("b", 40)], &[("a", 90)]],
        &[("a", [0, 20, 0, 0, 0]), ("b", none)],
    );
    assert_eq!(two.moved_to(&swapped), 10);
    // Together: one of the jobs ends, its devices come to the other.
    let one = places(
        &[&[("a", 100), ("b", 40)]],
        &[("a", [0, 10, 0, 0, 0]), ("b", none)],
    );
    assert_eq!(two.moved_to(&one), 40);
    let less = two.clone().without("a", 11);
    assert_eq!((less.devices("a"), less.devices("b")), (99, 40));
    assert_eq!(less.jobs[0]["a"], 90);
    // What came new is moved by nobody.
    assert_eq!(less.moved_to(&two), 0);
}

#[test]
fn the_option_that_moves_least_is_chosen_within_the_tolerance() {
    let (file, _) = plan();
    let at = |kind: Kind| {
        let found = file.options.iter().position(|it| it.kind == kind);
        found.expect("an option")
    };
    let worth = |at: usize| (at, file.options[at].tokens_per_s.value);
    let mut order: Vec<(usize, f64)> = (0..file.options.len()).map(worth).collect();
    order.retain(|&(at, worth)| file.options[at].can_win && worth > 0.0);
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    for kind in [Kind::EqualShares, Kind::UnevenShares, Kind::Pools] {
        let before = &file.options[at(kind)];
        let now = Places::of(before);
        for tolerance in [0.0, 0.02, 0.3, 1.0] {
            let found = plan_again((before, &now), &file.options, &order, tolerance);
            let found = found.expect("a share").expect("options");
            assert_eq!(found.best, order[0].0);
            let least = order[0].1 * (1.0 - tolerance);
            let near = order.iter().filter(|it| it.1 >= least);
            let fewest = near
                .map(|it| now.moved_to(&Places::of(&file.options[it.0])))
                .min();
            assert_eq!(Some(found.moved), fewest, "{kind:?} {tolerance}");
            assert!(found.of_best >= 1.0 - tolerance);
            let staying = found.staying.expect("the same option");
            assert_eq!((staying.option, staying.moved), (at(kind), 0));
            if tolerance >= 1.0 {
                assert_eq!(found.moved, 0);
            }
        }
        assert!(plan_again((before, &now), &file.options, &order, f64::NAN).is_err());
    }
}

/// Names have numbers in them: to go on as before is possible where another number of the same
/// devices does the same.
#[test]
fn an_option_is_the_same_by_what_it_does() {
    let (file, _) = plan();
    let order: Vec<(usize, f64)> = (0..file.options.len()).map(|at| (at, 1.0)).collect();
    for (at, option) in file.options.iter().enumerate() {
        let now = Places::of(option);
        let mut renamed = option.clone();
        renamed.name = "train on just 7 fast, lease the rest".to_owned();
        let found = plan_again((&renamed, &now), &file.options, &order, 0.0);
        let found = found.expect("a share").expect("options");
        let staying = found.staying.expect("it is there").option;
        let same = &file.options[staying];
        assert_eq!(same.kind, option.kind);
        if option.kind == Kind::Alone {
            assert_eq!(staying, at, "another class");
        }
    }
}
