use super::*;
use proptest::prelude::*;

/// Layers of given cost on classes of given speed, each stage with room for so many layers.
struct Case {
    costs: Vec<f64>,
    speeds: Vec<f64>,
    room: Vec<usize>,
    micro_batches: u64,
    /// Seconds after the last micro-batch, of each layer.
    after: Vec<f64>,
}

impl Case {
    fn seconds(&self, class: usize, layers: Range<usize>) -> f64 {
        self.costs[layers].iter().sum::<f64>() / self.speeds[class]
    }

    /// Weaker classes take longer for what comes after.
    fn after(&self, class: usize, layers: Range<usize>) -> f64 {
        self.after[layers].iter().sum::<f64>() / self.speeds[class]
    }

    fn with<T>(&self, of: impl FnOnce(&Chain<'_>) -> T) -> T {
        self.with_less_than(f64::INFINITY, of)
    }

    fn with_less_than<T>(&self, below: f64, of: impl FnOnce(&Chain<'_>) -> T) -> T {
        of(&Chain {
            layers: self.costs.len(),
            micro_batches: self.micro_batches,
            seconds: &|stage, layers| self.seconds(stage.class, layers),
            after: &|stage, layers| self.after(stage.class, layers),
            below,
            fits: &|stage, layers| layers.len() <= self.room[stage.class] + stage.before,
        })
    }

    /// The least time over all orders and cuts, by trying each of them.
    fn by_trying(&self, left: &mut Vec<usize>, done: usize, at: (usize, [f64; 3])) -> f64 {
        let (before, [sum, slowest, after]) = at;
        if left.iter().all(|&count| count == 0) {
            let time = sum + (self.micro_batches - 1) as f64 * slowest + after;
            return if done == self.costs.len() {
                time
            } else {
                f64::INFINITY
            };
        }
        let mut best = f64::INFINITY;
        for class in 0..left.len() {
            if left[class] == 0 {
                continue;
            }
            left[class] -= 1;
            let most = self.costs.len().min(done + self.room[class] + before);
            for end in done + 1..=most {
                let seconds = self.seconds(class, done..end);
                let then = after.max(self.after(class, done..end));
                let terms = [sum + seconds, slowest.max(seconds), then];
                best = best.min(self.by_trying(left, end, (before + 1, terms)));
            }
            left[class] += 1;
        }
        best
    }
}

#[test]
fn a_stage_of_half_the_speed_gets_half_the_layers() {
    let case = Case {
        costs: vec![1.0; 12],
        speeds: vec![1.0, 0.5],
        room: vec![12, 12],
        micro_batches: 100,
        after: vec![0.0; 12],
    };
    let cut = case.with(|chain| cut_chain(chain, &[0, 1])).expect("a cut");
    assert_eq!(cut.stages, [(0, 0..8), (1, 8..12)]);
    assert!((cut.seconds - (16.0 + 99.0 * 8.0)).abs() < 1e-9);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let mut case = Case {
        costs: vec![1.0; 3],
        speeds: vec![1.0],
        room: vec![0],
        micro_batches: 4,
        after: vec![0.0; 3],
    };
    let refused = case.with(|chain| cut_chain(chain, &[0, 0, 0, 0]));
    assert!(matches!(refused, Err(ChainError::TooManyStages { .. })));
    case.room = vec![0];
    let refused = case.with(|chain| order_stages(chain, &[2]));
    assert!(matches!(refused, Err(ChainError::NoMemory { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn no_order_and_no_cut_is_better(
        costs in prop::collection::vec(1_u8..5, 1..8),
        classes in prop::collection::vec((0_usize..3, 1_u8..5, 1_usize..6), 1..4),
        micro_batches in 1_u64..9,
        after in prop::collection::vec(0_u8..9, 8),
    ) {
        let case = Case {
            costs: costs.into_iter().map(f64::from).collect(),
            speeds: classes.iter().map(|it| f64::from(it.1)).collect(),
            room: classes.iter().map(|it| it.2).collect(),
            micro_batches,
            after: after.into_iter().map(f64::from).collect(),
        };
        let counts: Vec<usize> = classes.iter().map(|it| it.0).collect();
        let expected = case.by_trying(&mut counts.clone(), 0, (0, [0.0; 3]));
        match case.with(|chain| order_stages(chain, &counts)) {
            Ok(cut) => {
                prop_assert!((cut.seconds - expected).abs() < 1e-9, "{cut:?}, not {expected}");
                let order: Vec<usize> = cut.stages.iter().map(|it| it.0).collect();
                let again = case.with(|chain| cut_chain(chain, &order)).expect("the same cut");
                prop_assert!((again.seconds - cut.seconds).abs() < 1e-9);
                let more = case.with_less_than(cut.seconds + 1e-6, |it| order_stages(it, &counts));
                prop_assert!((more.expect("the same cut").seconds - cut.seconds).abs() < 1e-9);
                let no_more = case.with_less_than(cut.seconds, |it| order_stages(it, &counts));
                prop_assert!(no_more.is_err(), "{no_more:?} is below {}", cut.seconds);
            }
            Err(_) => prop_assert!(expected.is_infinite() || counts.iter().sum::<usize>() == 0),
        }
    }
}
