use super::*;
use crate::options::tests::Fixture;
use crate::problem::Terms;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// No shares of a layout train more than its bound, and the best of all shares is found.
    #[test]
    fn the_bound_of_uneven_shares_holds_and_loses_nothing(
        counts in proptest::collection::vec(1_u64..60, 2..4),
        batch_tokens in (1_u64 << 17)..(16 << 20),
    ) {
        let kinds = ["a100-sxm4-80gb", "h100-sxm5-80gb", "b200-sxm"];
        let mut text = "id = \"some\"\n[[site]]\nid = \"here\"\n".to_owned();
        for (kind, count) in kinds.iter().zip(&counts) {
            text += &format!(
                "[[pool]]\nid = \"{kind}\"\nsite = \"here\"\naccelerator = \"{kind}\"\n\
                 count = {}\ndevices_per_node = 8\nfailures_per_device_year = 0.3\n",
                8 * count
            );
        }
        let fixture = Fixture::new();
        let cluster = fixture.cluster(&text);
        let training = fixture.training("llama3-8b", batch_tokens);
        let problem = fixture.problem(&cluster, training, &Terms::default()).expect("a problem");
        let mut search = Search::of(&problem);
        let devices: Vec<u64> = counts.iter().map(|count| 8 * count).collect();
        let found = search.uneven(&devices).map_or(0.0, |job| search.rate(&job));
        let mut most = 0.0_f64;
        for (_, crew) in search.crews(&devices) {
            let jobs = search.uneven_shares(&crew, &devices).into_iter();
            for job in jobs.filter(|job| search.fits(job)) {
                let rate = search.rate(&job);
                prop_assert!(rate <= crew.most_tokens_per_s, "{rate} {}", crew.most_tokens_per_s);
                most = most.max(rate);
            }
        }
        prop_assert_eq!(found.to_bits(), most.to_bits(), "{} {}", found, most);
    }
}

/// A batch has nothing for some of the replicas that a layout was found for, and those that stay
/// keep more of what is sharded.
#[test]
fn jobs_with_fewer_replicas_than_their_layout_still_fit() {
    let fixture = Fixture::new();
    let pool = |kind: &str, count: u64| {
        format!(
            "[[pool]]\nid = \"{kind}\"\nsite = \"here\"\naccelerator = \"{kind}\"\n\
             count = {count}\ndevices_per_node = 8\n"
        )
    };
    let text = "id = \"some\"\n[[site]]\nid = \"here\"\n".to_owned();
    let text = text + &pool("h100-sxm5-80gb", 24) + &pool("b200-sxm", 8);
    let cluster = fixture.cluster(&text);
    let training = fixture.training("llama3-70b", 1 << 15);
    let problem = fixture
        .problem(&cluster, training, &Terms::default())
        .expect("a problem");
    let mut search = Search::of(&problem);
    let (mut left_out, mut kept) = (0, 0);
    for candidate in search.candidates(&[24, 8]) {
        let Some(job) = search.equal_shares(&candidate.degrees, &[24, 8]) else {
            continue;
        };
        match search.fits(&job) {
            true => kept += 1,
            false => left_out += 1,
        }
    }
    assert!(
        left_out > 0 && kept > 0,
        "nothing is tested: {left_out} {kept}"
    );
    let jobs = [search.equal(&[24, 8]), search.uneven(&[24, 8])];
    assert!(jobs.iter().any(Option::is_some), "nothing is tested");
    for job in jobs.into_iter().flatten() {
        let machine = problem.weakest(&[0, 1]);
        let fits = memory_of_layout(&problem.demand(), &job.degrees, &machine);
        assert!(fits.is_ok(), "{job:?}: {fits:?}");
    }
}
