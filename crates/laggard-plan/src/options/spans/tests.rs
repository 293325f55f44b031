use super::*;
use crate::options::tests::Fixture;
use crate::problem::{Factors, Terms};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// No cut of a way to divide the devices does more than its bound, and the best of all ways is
    /// found.
    #[test]
    fn the_bound_of_stages_holds_and_loses_nothing(
        counts in proptest::collection::vec(1_u64..12, 2..4),
        batch_tokens in (1_u64 << 16)..(1 << 20),
        at_two_sites in any::<bool>(),
    ) {
        let kinds = ["a100-sxm4-80gb", "h100-sxm5-80gb", "b200-sxm"];
        let mut text = "id = \"some\"\n".to_owned();
        for site in ["here", "there"] {
            text += &format!("[[site]]\nid = \"{site}\"\n");
        }
        text += "[[link]]\nfrom = \"here\"\nto = \"there\"\nbandwidth_bytes_per_s = 1e10\n\
                 latency_s = 0.01\n";
        for (at, (kind, count)) in kinds.iter().zip(&counts).enumerate() {
            let site = if at > 0 && at_two_sites { "there" } else { "here" };
            text += &format!(
                "[[pool]]\nid = \"{kind}\"\nsite = \"{site}\"\naccelerator = \"{kind}\"\n\
                 count = {}\ndevices_per_node = 4\nfailures_per_device_year = 0.3\n",
                4 * count
            );
        }
        let fixture = Fixture::new();
        let cluster = fixture.cluster(&text);
        let training = fixture.training("qwen3-0.6b", batch_tokens);
        let problem = fixture.problem(&cluster, training, &Terms::default()).expect("a problem");
        let costs = Costs::new(&problem, &Factors::none(counts.len()));
        let devices: Vec<u64> = counts.iter().map(|count| 4 * count).collect();
        let rate = |job: &JobPlan| costs.outcome(job).map_or(0.0, |it| it.tokens_per_s());
        let found = best(&costs, &devices).map_or(0.0, |job| rate(&job));
        let mut all = 0.0_f64;
        for (most, degrees, stages) in ways(&costs, &devices) {
            for recompute in [Recompute::None, Recompute::Layers] {
                let degrees = Degrees { recompute, ..degrees };
                for job in cuts(&costs, &degrees, &stages, (&devices, 0.0)) {
                    prop_assert!(rate(&job) <= most, "{} {most}", rate(&job));
                    all = all.max(rate(&job));
                }
            }
        }
        // Several cuts may be best by their pipelines alone.
        prop_assert!(found >= all * (1.0 - 1e-9) && found <= all, "{found} {all}");
    }
}
