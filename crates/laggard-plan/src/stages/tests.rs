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
    /// The cost of a layer that is told to the search: the least, or nothing.
    least_layer: f64,
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
            layer: &|class| self.least_layer / self.speeds[class],
            joints: None,
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
        least_layer: 1.0,
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
        least_layer: 0.0,
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
        tells_least in any::<bool>(),
    ) {
        let least = costs.iter().copied().min().unwrap_or(0);
        let case = Case {
            least_layer: f64::from(u8::from(tells_least) * least),
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

/// Classes at sites, and what lies between these.
struct Sites {
    of_class: Vec<usize>,
    /// From the first to the second, the second to the third, and the first to the third.
    joints: [Option<Joint>; 3],
}

impl Sites {
    fn between(&self, [a, b]: [usize; 2]) -> Option<Joint> {
        match a.abs_diff(b) {
            1 => self.joints[a.min(b)],
            _ => self.joints[2],
        }
    }

    /// What a pipeline takes.
    fn step(&self, case: &Case, stages: &[(usize, Range<usize>)]) -> f64 {
        let seconds = |at: usize| case.seconds(stages[at].0, stages[at].1.clone());
        let site = |at: usize| self.of_class[stages[at].0];
        let count = stages.len();
        let (mut step, mut each, mut after) = (0.0, 0.0_f64, 0.0_f64);
        for (at, (class, layers)) in stages.iter().enumerate() {
            step += seconds(at);
            each = each.max(seconds(at));
            after = after.max(case.after(*class, layers.clone()));
            if at + 1 < count && site(at) != site(at + 1) {
                let way = self.between([site(at), site(at + 1)]).expect("joined");
                let neighbours = [seconds(at), seconds(at + 1)];
                step += way.both_ways;
                each = each.max(way.each);
                each = each.max(way.holds_up(neighbours, count - at, case.micro_batches));
            }
        }
        step + (case.micro_batches - 1) as f64 * each + after
    }

    fn least(&self, case: &Case, left: &mut Vec<usize>, so_far: &[(usize, Range<usize>)]) -> f64 {
        let done = so_far.last().map_or(0, |it| it.1.end);
        if left.iter().all(|count| *count == 0) {
            return match done == case.costs.len() {
                true => self.step(case, so_far),
                false => f64::INFINITY,
            };
        }
        let mut best = f64::INFINITY;
        for class in 0..left.len() {
            let here = self.of_class[class];
            let last = so_far.last().map(|it| self.of_class[it.0]);
            let has_left =
                |site: usize| (0..left.len()).any(|it| left[it] > 0 && self.of_class[it] == site);
            let goes_on = last.is_none_or(|last| {
                last == here || (!has_left(last) && self.between([last, here]).is_some())
            });
            if left[class] == 0 || !goes_on {
                continue;
            }
            left[class] -= 1;
            let most = case.costs.len().min(done + case.room[class] + so_far.len());
            for end in done + 1..=most {
                let longer = [so_far, &[(class, done..end)]].concat();
                best = best.min(self.least(case, left, &longer));
            }
            left[class] += 1;
        }
        best
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn no_order_and_no_cut_over_sites_is_better(
        costs in prop::collection::vec(1_u8..5, 2..7),
        classes in prop::collection::vec((0_usize..3, 1_u8..5, 1_usize..6, 0_usize..3), 2..4),
        micro_batches in 1_u64..9,
        after in prop::collection::vec(0_u8..9, 8),
        joints in prop::collection::vec(prop::option::weighted(0.8, (0_u8..40, 0_u8..9)), 3),
        tells_least in any::<bool>(),
    ) {
        let least = costs.iter().copied().min().unwrap_or(0);
        let case = Case {
            least_layer: f64::from(u8::from(tells_least) * least),
            costs: costs.into_iter().map(f64::from).collect(),
            speeds: classes.iter().map(|it| f64::from(it.1)).collect(),
            room: classes.iter().map(|it| it.2).collect(),
            micro_batches,
            after: after.into_iter().map(f64::from).collect(),
        };
        let joint = |at: usize| joints[at].map(|(both_ways, each)| Joint {
            both_ways: f64::from(both_ways) / 4.0,
            each: f64::from(each) / 4.0,
        });
        let sites = Sites {
            of_class: classes.iter().map(|it| it.3).collect(),
            joints: [0, 1, 2].map(joint),
        };
        let mut counts: Vec<usize> = classes.iter().map(|it| it.0).collect();
        let expected = sites.least(&case, &mut counts, &[]);
        let (site, between) = (
            |class: usize| sites.of_class[class],
            |ends: [usize; 2]| sites.between(ends),
        );
        let found = case.with(|chain| {
            let joints = Some(Joints { site: &site, between: &between });
            order_stages(&Chain { joints, ..*chain }, &counts)
        });
        match found {
            Ok(cut) => {
                prop_assert!((cut.seconds - expected).abs() < 1e-9, "{cut:?}, not {expected}");
                let step = sites.step(&case, &cut.stages);
                prop_assert!((step - expected).abs() < 1e-9, "{cut:?} takes {step}");
                let order: Vec<usize> = cut.stages.iter().map(|it| it.0).collect();
                let again = case.with(|chain| {
                    let joints = Some(Joints { site: &site, between: &between });
                    cut_chain(&Chain { joints, ..*chain }, &order)
                });
                prop_assert!((again.expect("the same").seconds - expected).abs() < 1e-9);
            }
            Err(_) => prop_assert!(expected.is_infinite() || counts.iter().sum::<usize>() == 0),
        }
    }
}

/// Seconds until all micro-batches are through by the order of 1F1B: each stage begins as many as
/// come after it, then goes forward and backward in turn. Forward takes a third of a stage's time.
fn replayed(seconds: &[f64], ways: &[f64], micro_batches: usize) -> f64 {
    let count = seconds.len();
    let order = |at: usize| {
        let ahead = (count - at - 1).min(micro_batches);
        let first = (0..ahead).map(|it| (true, it));
        let turns = (ahead..micro_batches).flat_map(move |it| [(true, it), (false, it - ahead)]);
        let last = (micro_batches - ahead..micro_batches).map(|it| (false, it));
        first.chain(turns).chain(last).collect::<Vec<_>>()
    };
    let orders: Vec<Vec<(bool, usize)>> = (0..count).map(order).collect();
    let mut ends = vec![[vec![None; micro_batches], vec![None; micro_batches]]; count];
    let (mut done, mut free) = (vec![0; count], vec![0.0_f64; count]);
    while done[0] < 2 * micro_batches {
        for at in 0..count {
            while let Some(&(is_forward, batch)) = orders[at].get(done[at]) {
                let from = match is_forward {
                    true => at.checked_sub(1).map(|from| (from, ways[from])),
                    false => (at + 1 < count).then(|| (at + 1, ways[at])),
                };
                let ready = match from {
                    None => Some(0.0),
                    Some((from, way)) => {
                        let end: Option<f64> = ends[from][usize::from(is_forward)][batch];
                        end.map(|end| end + way)
                    }
                };
                let Some(ready) = ready else {
                    break;
                };
                let share = if is_forward { 1.0 } else { 2.0 } / 3.0;
                free[at] = free[at].max(ready) + share * seconds[at];
                ends[at][usize::from(is_forward)][batch] = Some(free[at]);
                done[at] += 1;
            }
        }
    }
    free.into_iter().fold(0.0, f64::max)
}

/// The step of stages of given seconds with one way between two of them.
fn predicted(seconds: &[f64], (at, way): (usize, f64), micro_batches: usize) -> f64 {
    let joint = Joint {
        both_ways: 2.0 * way,
        each: 0.0,
    };
    let (from_on, count) = (seconds.len() - at, micro_batches as u64);
    let held = joint.holds_up([seconds[at], seconds[at + 1]], from_on, count);
    let slowest = seconds.iter().copied().fold(held, f64::max);
    seconds.iter().sum::<f64>() + joint.both_ways + (micro_batches - 1) as f64 * slowest
}

#[test]
fn few_micro_batches_are_not_held_up() {
    for (micro_batches, expected) in [(1, 22.0), (2, 23.0), (3, 44.0), (4, 45.0)] {
        let replay = replayed(&[1.0, 1.0], &[10.0], micro_batches);
        assert!(
            (replay - expected).abs() < 1e-9,
            "{micro_batches}: {replay}"
        );
        let step = predicted(&[1.0, 1.0], (0, 10.0), micro_batches);
        assert!((step - expected).abs() < 1e-9, "{micro_batches}: {step}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// Stages of equal seconds, as a cut makes them, and one way: what is said is what 1F1B does.
    #[test]
    fn a_way_holds_up_as_the_order_of_1f1b_does(
        count in 2_usize..8,
        at in 0_usize..7,
        way in 0.0_f64..30.0,
        micro_batches in 1_usize..60,
    ) {
        let at = at % (count - 1);
        let seconds = vec![1.0; count];
        let mut ways = vec![0.0; count - 1];
        ways[at] = way;
        let replay = replayed(&seconds, &ways, micro_batches);
        let step = predicted(&seconds, (at, way), micro_batches);
        prop_assert!((step / replay - 1.0).abs() < 1e-9, "{step} {replay}");
    }
}
