use super::*;
use proptest::prelude::*;

/// Layers of given cost on classes of given speed.
#[derive(Debug)]
struct Case {
    costs: Vec<f64>,
    speeds: Vec<f64>,
    devices: Vec<u64>,
    batch: u64,
    room: usize,
    /// Seconds of an exchange, and of reducing a layer.
    links: (f64, f64),
}

impl PipelineCosts for Case {
    fn layers(&self) -> usize {
        self.costs.len()
    }

    fn devices(&self) -> &[u64] {
        &self.devices
    }

    fn global_batch(&self) -> u64 {
        self.batch
    }

    fn micro_batches(&self) -> &[u32] {
        &[1, 2]
    }

    fn widths(&self, class: usize, _micro_batch: u32) -> Vec<u32> {
        match class {
            0 => vec![1, 2],
            _ => vec![1],
        }
    }

    fn compute_seconds(&self, slot: Slot, micro_batch: u32, layers: Range<usize>) -> f64 {
        let work: f64 = self.costs[layers].iter().sum();
        // Two devices are less than twice as fast, and two sequences less than twice as long.
        let wide = f64::from(slot.width).powf(0.8);
        work * f64::from(micro_batch).powf(0.9) / self.speeds[slot.class] / wide
    }

    fn exchange_seconds(&self, stage: &StagePlace<'_>, micro_batch: u32, _: Range<usize>) -> f64 {
        let neighbours = [stage.before, stage.after].into_iter().flatten();
        // Classes that differ are further apart.
        let away = |other: &[Slot]| match other == stage.slots {
            true => 1.0,
            false => 2.0,
        };
        neighbours.map(away).sum::<f64>() * f64::from(micro_batch) * self.links.0
    }

    fn least_exchange_seconds(&self, _: Slot, micro_batch: u32, _: usize) -> f64 {
        f64::from(micro_batch) * self.links.0
    }

    fn finish_seconds(&self, slots: &[Slot], replicas: u64, layers: Range<usize>) -> f64 {
        let apart = slots.len() as f64;
        self.links.1 * apart * layers.len() as f64 * (1.0 - 1.0 / replicas as f64)
    }

    fn fits(&self, slot: Slot, micro_batch: u32, layers: Range<usize>, after: usize) -> bool {
        let room = self.room * slot.width as usize;
        layers.len() * micro_batch as usize + after <= room
    }
}

/// A way to go on trying.
#[derive(Clone)]
struct Trying {
    micro_batch: u32,
    replicas: u64,
    stages: Vec<(Vec<Slot>, Range<usize>)>,
}

impl Case {
    fn step(&self, trying: &Trying) -> f64 {
        let sequences = u64::from(trying.micro_batch) * trying.replicas;
        let batches = self.batch.div_ceil(sequences);
        let count = trying.stages.len();
        let slots = |at: usize| trying.stages.get(at).map(|it| it.0.as_slice());
        let (mut sum, mut slowest, mut finish) = (0.0, 0.0_f64, 0.0_f64);
        for (at, (own, layers)) in trying.stages.iter().enumerate() {
            let fits = |&slot| self.fits(slot, trying.micro_batch, layers.clone(), count - at - 1);
            if !own.iter().all(fits) {
                return f64::INFINITY;
            }
            let place = StagePlace {
                slots: own,
                before: at.checked_sub(1).and_then(slots),
                after: slots(at + 1),
                stages: count,
            };
            let compute = own
                .iter()
                .map(|&slot| self.compute_seconds(slot, trying.micro_batch, layers.clone()));
            let seconds = compute.fold(0.0, f64::max)
                + self.exchange_seconds(&place, trying.micro_batch, layers.clone());
            sum += seconds;
            slowest = slowest.max(seconds);
            finish = finish.max(self.finish_seconds(own, trying.replicas, layers.clone()));
        }
        sum + (batches - 1) as f64 * slowest + finish
    }

    /// The least step of all cuts of all pipelines of stages of one class each, with one width for
    /// each class: in any order, and with the stages of a class together.
    fn by_trying(&self, trying: &mut Trying, left: &mut [u64]) -> [f64; 2] {
        let done = trying.stages.last().map_or(0, |it| it.1.end);
        if done == self.costs.len() {
            let mut classes: Vec<usize> = trying.stages.iter().map(|it| it.0[0].class).collect();
            classes.dedup();
            let runs = classes.len();
            classes.sort_unstable();
            classes.dedup();
            let step = self.step(trying);
            return match classes.len() == runs {
                true => [step, step],
                false => [step, f64::INFINITY],
            };
        }
        let mut best = [f64::INFINITY; 2];
        for class in 0..left.len() {
            for width in self.widths(class, trying.micro_batch) {
                let need = u64::from(width) * trying.replicas;
                let differs = |(slots, _): &(Vec<Slot>, Range<usize>)| {
                    slots[0].class == class && slots[0].width != width
                };
                if left[class] < need || trying.stages.iter().any(differs) {
                    continue;
                }
                left[class] -= need;
                for end in done + 1..=self.costs.len() {
                    let slots = vec![Slot { class, width }];
                    trying.stages.push((slots, done..end));
                    best = least(best, self.by_trying(trying, left));
                    trying.stages.pop();
                }
                left[class] += need;
            }
        }
        best
    }

    fn least(&self) -> [f64; 2] {
        let mut best = [f64::INFINITY; 2];
        for micro_batch in [1, 2] {
            for replicas in 1..=self.batch.div_ceil(micro_batch.into()) {
                let mut trying = Trying {
                    micro_batch,
                    replicas,
                    stages: Vec::new(),
                };
                best = least(best, self.by_trying(&mut trying, &mut self.devices.clone()));
            }
        }
        best
    }
}

fn least(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0].min(b[0]), a[1].min(b[1])]
}

fn check(case: &Case, found: &FoundPipeline) {
    let best = &found.best;
    let trying = Trying {
        micro_batch: best.micro_batch,
        replicas: best.replicas,
        stages: best
            .stages
            .iter()
            .map(|it| (it.slots.iter().map(|it| it.0).collect(), it.layers.clone()))
            .collect(),
    };
    assert!((case.step(&trying) - best.seconds).abs() < 1e-9, "{best:?}");
    assert!(found.bound_seconds <= best.seconds);
    let mut next = 0;
    for stage in &best.stages {
        assert_eq!(stage.layers.start, next);
        next = stage.layers.end;
        let replicas: u64 = stage.slots.iter().map(|it| it.1).sum();
        assert_eq!(replicas, best.replicas, "{best:?}");
    }
    assert_eq!(next, case.costs.len());
    for (class, &devices) in case.devices.iter().enumerate() {
        assert!(best.devices(class) <= devices, "{best:?}");
    }
}

fn example() -> Case {
    Case {
        costs: vec![1.0; 12],
        speeds: vec![2.0, 1.0],
        devices: vec![4, 4],
        batch: 64,
        room: 100,
        links: (0.0, 0.0),
    }
}

#[test]
fn a_class_of_half_the_speed_gets_half_the_layers() {
    let case = Case {
        links: (0.001, 0.1),
        ..example()
    };
    let found = fastest_pipeline(&case).expect("a pipeline");
    check(&case, &found);
    let layers = |class: usize| -> usize {
        let stages = found.best.stages.iter();
        let own = stages.filter(|it| it.slots[0].0.class == class);
        own.map(|it| it.layers.len()).sum()
    };
    assert_eq!((layers(0), layers(1)), (8, 4), "{:?}", found.best);
}

#[test]
fn what_is_left_of_classes_makes_a_stage() {
    // One device of a class and three of another are two stages of two replicas only together, and
    // a stage has no room for all layers.
    let case = Case {
        speeds: vec![1.0, 1.0],
        devices: vec![1, 3],
        batch: 4,
        room: 7,
        ..example()
    };
    let found = fastest_pipeline(&case).expect("a pipeline");
    check(&case, &found);
    let kinds: Vec<usize> = found.best.stages.iter().map(|it| it.slots.len()).collect();
    assert_eq!(found.best.replicas, 2, "{:?}", found.best);
    assert_eq!(kinds.iter().sum::<usize>(), 3, "{:?}", found.best);
}

#[test]
fn what_cannot_be_is_refused() {
    let none = Case {
        devices: vec![0, 0],
        ..example()
    };
    let refused = fastest_pipeline(&none);
    assert_eq!(refused, Err(NoPipeline::Nothing { what: "devices" }));
    let small = Case {
        room: 0,
        ..example()
    };
    let refused = fastest_pipeline(&small);
    assert!(matches!(refused, Err(NoPipeline::NoMemory { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_beats_the_bound_and_the_best_is_an_optimum(
        costs in prop::collection::vec(1_u8..5, 1..6),
        classes in prop::collection::vec((1_u8..4, 0_u64..4), 1..3),
        batch in 1_u64..12,
        room in 1_usize..8,
        links in (0_u8..4, 0_u8..8),
    ) {
        let case = Case {
            costs: costs.into_iter().map(f64::from).collect(),
            speeds: classes.iter().map(|it| f64::from(it.0)).collect(),
            devices: classes.iter().map(|it| it.1).collect(),
            batch,
            room,
            links: (f64::from(links.0) / 8.0, f64::from(links.1) / 4.0),
        };
        let [in_any_order, together] = case.least();
        match fastest_pipeline(&case) {
            Ok(found) => {
                check(&case, &found);
                prop_assert!(found.bound_seconds <= in_any_order + 1e-9, "{found:?}");
                prop_assert!(found.best.seconds <= together + 1e-9, "{found:?}, {together}");
            }
            Err(_) => prop_assert!(together.is_infinite()),
        }
    }
}
