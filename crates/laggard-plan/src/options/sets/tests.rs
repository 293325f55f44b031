use super::*;
use crate::options::options;
use crate::options::tests::Fixture;
use crate::problem::Terms;
use proptest::prelude::*;

/// A site of seven classes, which have more sets than are all laid out.
fn cluster(counts: &[u64], watts: &[f64]) -> String {
    let kinds = [
        "a100-sxm4-80gb",
        "h100-sxm5-80gb",
        "h200-sxm-141gb",
        "b200-sxm",
        "gb200",
        "a100-sxm4-40gb",
        "h800-sxm5-80gb",
    ];
    let mut text =
        "id = \"seven\"\n[[site]]\nid = \"here\"\npower_usage_effectiveness = 1.2\n".to_owned();
    for ((kind, count), watts) in kinds.iter().zip(counts).zip(watts) {
        text += &format!(
            "[[pool]]\nid = \"{kind}\"\nsite = \"here\"\naccelerator = \"{kind}\"\ncount = {}\n\
             devices_per_node = 4\npower_watts_per_device = {watts:.1}\n\
             failures_per_device_year = 0.2\n\
             price_dollars_per_device_hour = {{ low = 0.1, typical = {:.3}, high = 9.0 }}\n",
            4 * count,
            watts / 400.0,
        );
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Of all sets of seven classes, the best by each objective is among those that are laid out.
    #[test]
    fn no_set_that_is_left_out_is_best(
        counts in proptest::collection::vec(1_u64..40, 7),
        watts in proptest::collection::vec(300.0..1500.0_f64, 7),
        batch_tokens in (1_u64 << 18)..(8 << 20),
    ) {
        let fixture = Fixture::new();
        let cluster = fixture.cluster(&cluster(&counts, &watts));
        let training = fixture.training("qwen3-0.6b", batch_tokens);
        let problem = fixture.problem(&cluster, training, &Terms::default()).expect("a problem");
        let found = options(&problem).expect("options");
        let mut maker = Maker::new(&problem);
        let kind = Kind::TrainAndLease;
        let mut all = Sets { sets: maker.all_sets(), jobs: BTreeMap::new() };
        prop_assert_eq!(all.sets.len(), 126);
        let mut figures = Vec::new();
        for at in 0..all.sets.len() {
            if let Some(job) = maker.lay_out(&mut all, at).cloned() {
                figures.push(maker.option(kind, "", vec![job]).expect("an option").figures);
            }
        }
        let laid_out: Vec<&Figures> =
            found.list.iter().filter(|it| it.kind == kind).map(|it| &it.figures).collect();
        prop_assert!(laid_out.len() < figures.len());
        for objective in Objective::ALL {
            let best = |list: &mut dyn Iterator<Item = &Figures>| {
                list.filter_map(|it| objective.score(it)).fold(f64::MIN, f64::max)
            };
            let (known, most) = (best(&mut laid_out.iter().copied()), best(&mut figures.iter()));
            prop_assert!(known >= most, "{objective:?}: {known} of {most}");
        }
    }
}
