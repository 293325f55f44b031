//! Fleets whose devices' speeds are known.

use super::*;
use laggard_stats::Rng;

/// Many small runs on parts of a fleet, over weeks.
#[derive(Debug, Clone)]
struct World {
    hosts: usize,
    per_host: usize,
    runs: usize,
    /// Hosts of each run, drawn anew.
    seen: usize,
    /// Lasting excess of some devices.
    slow: Vec<(usize, f64)>,
    /// Excess of some devices from a run on.
    turned: Vec<(usize, usize, f64)>,
    spread: f64,
    run_to_run: f64,
    between_runs: f64,
    error: f64,
}

impl World {
    fn clean() -> Self {
        Self {
            hosts: 16,
            per_host: 4,
            runs: 12,
            seen: 5,
            slow: Vec::new(),
            turned: Vec::new(),
            spread: 0.01,
            run_to_run: 0.003,
            between_runs: 0.005,
            error: 0.002,
        }
    }

    /// The runs, and the logarithm of each device's time beside its class at the end.
    fn draw(&self, seed: u64) -> (Vec<FleetRun>, Vec<f64>) {
        let mut rng = Rng::new(seed);
        let devices = self.hosts * self.per_host;
        let mut own: Vec<f64> = (0..devices).map(|_| self.spread * rng.normal()).collect();
        for &(device, excess) in &self.slow {
            own[device] = excess.ln_1p();
        }
        let mut order: Vec<usize> = (0..self.hosts).collect();
        let mut runs = Vec::new();
        for run in 0..self.runs {
            for &(device, from, excess) in &self.turned {
                if from == run {
                    own[device] += excess.ln_1p();
                }
            }
            rng.shuffle(&mut order);
            let of_run = self.between_runs * rng.normal();
            let device = |index: usize, rng: &mut Rng| DeviceRun {
                host: format!("node{:02}", index / self.per_host),
                device: format!("gpu {}", index % self.per_host),
                class: "h100".to_owned(),
                work: "job".to_owned(),
                steps: 100,
                log_seconds: own[index]
                    + of_run
                    + self.run_to_run * rng.normal()
                    + self.error * rng.normal(),
                variance: self.error * self.error,
            };
            let of_host = |&host: &usize| host * self.per_host..(host + 1) * self.per_host;
            let seen: Vec<usize> = order[..self.seen].iter().flat_map(of_host).collect();
            runs.push(FleetRun {
                name: format!("run {run}"),
                created_unix_ns: run as i64,
                devices: seen.into_iter().map(|it| device(it, &mut rng)).collect(),
                caveats: Vec::new(),
            });
        }
        (runs, own)
    }

    fn table(&self, seed: u64) -> (Fleet, Vec<f64>) {
        let (runs, own) = self.draw(seed);
        let table = fleet(&runs, &FleetOptions::default()).expect("a table");
        (table, own)
    }

    /// The position of a device of a table in the world.
    fn index(&self, device: &FleetDevice) -> usize {
        let number = |text: &str| text[4..].parse::<usize>().expect("a number");
        number(&device.host) * self.per_host + number(&device.device)
    }
}

/// Every interval of 95 %, of all devices that were seen, over many fleets.
#[test]
fn speeds_are_recovered_within_their_intervals() {
    let apart = World {
        seen: 1,
        runs: 30,
        ..World::clean()
    };
    for world in [World::clean(), apart] {
        let (mut held, mut all, mut squares) = (0, 0, 0.0);
        for seed in 0..40 {
            let (table, own) = world.table(seed);
            for device in &table.devices {
                let known = (-own[world.index(device)]).exp();
                all += 1;
                held += u32::from(device.speed.low <= known && known <= device.speed.high);
                squares += (device.speed.value / known - 1.0).powi(2);
            }
        }
        let covered = f64::from(held) / f64::from(all);
        assert!((0.93..=0.98).contains(&covered), "{world:?}: {covered}");
        // Better than what a device's spread alone would say.
        let error = (squares / f64::from(all)).sqrt();
        assert!(error < 0.6 * world.spread, "{world:?}: {error}");
    }
}

#[test]
fn one_slow_device_of_few_dates_is_named() {
    let world = World {
        slow: vec![(7, 0.08)],
        ..World::clean()
    };
    for seed in 0..20 {
        let (table, _) = world.table(seed);
        let named: Vec<(usize, Named)> = table
            .named()
            .map(|(device, why)| (world.index(device), why))
            .collect();
        // Who was in no run cannot be named.
        let seen = table.devices.iter().any(|it| world.index(it) == 7);
        let expect = if seen { vec![(7, Named::Slow)] } else { vec![] };
        assert_eq!(named, expect, "seed {seed}");
    }
}

/// Several that hide each other in the spread, and the speed that is found for each.
#[test]
fn several_slow_devices_do_not_hide_each_other() {
    let slow = vec![(3, 0.1), (20, 0.1), (41, 0.1), (60, 0.1)];
    let world = World {
        seen: 16,
        slow: slow.clone(),
        ..World::clean()
    };
    for seed in 0..10 {
        let (table, own) = world.table(seed);
        let named = table.named().map(|(device, _)| world.index(device));
        assert_eq!(named.collect::<Vec<_>>(), [3, 20, 41, 60], "seed {seed}");
        for (device, _) in table.named() {
            let known = (-own[world.index(device)]).exp();
            assert!((device.speed.value - known).abs() < 0.01, "{device:?}");
        }
        assert_eq!(table.classes[0].unusual.len(), 4);
        assert!((table.classes[0].spread / world.spread - 1.0).abs() < 0.4);
    }
}

#[test]
fn a_device_that_turned_slow_is_named_with_its_date() {
    let world = World {
        seen: 10,
        turned: vec![(10, 6, 0.06)],
        ..World::clean()
    };
    let mut held = 0;
    for seed in 0..20 {
        let (table, own) = world.table(seed);
        let named: Vec<(usize, Named)> = table
            .named()
            .map(|(device, why)| (world.index(device), why))
            .collect();
        assert_eq!(named, [(10, Named::TurnedSlow)], "seed {seed}");
        let device = table.devices.iter().find(|it| world.index(it) == 10);
        let device = device.expect("the device");
        let [change] = &device.changes[..] else {
            panic!("{:?}", device.changes);
        };
        assert!(
            change.last_before < 6 && 6 <= change.first_after,
            "{change:?}"
        );
        let ratio = 1.0 / 1.06;
        held += u32::from(change.ratio.low <= ratio && ratio <= change.ratio.high);
        let known = (-own[10]).exp();
        assert!((device.speed.value - known).abs() < 0.012, "{device:?}");
    }
    // 20 intervals of 95 % hold 17 times or more with a probability of 0.98.
    assert!(held >= 17, "{held}");
}

/// At most 5 % of clean fleets have anybody named, as stated: of 400, at most 3.3 binomial
/// deviations more. Thresholds of size are taken away: only chance is left.
#[test]
fn nobody_is_named_in_clean_fleets() {
    let small = World {
        hosts: 3,
        per_host: 2,
        seen: 2,
        runs: 5,
        ..World::clean()
    };
    for (world, fleets) in [(World::clean(), 200), (small, 200)] {
        let mut named = 0;
        for seed in 0..fleets {
            let (runs, _) = world.draw(9000 + seed);
            let options = FleetOptions {
                smallest: 1e-9,
                ..FleetOptions::default()
            };
            let table = fleet(&runs, &options).expect("a table");
            let changed = |it: &FleetDevice| !it.changes.is_empty();
            let found = table.named().next().is_some() || table.devices.iter().any(changed);
            named += u64::from(found);
        }
        let share = laggard_stats::wilson_interval(named, fleets, 3.3).expect("trials");
        assert!(share.low <= 0.05, "{world:?}: {named} of {fleets}");
    }
}

/// Small differences can be sure without being worth a word.
#[test]
fn what_is_smaller_than_asked_for_is_not_named() {
    let world = World {
        seen: 16,
        spread: 0.0005,
        run_to_run: 0.0005,
        error: 0.0005,
        slow: vec![(5, 0.01)],
        ..World::clean()
    };
    let (table, _) = world.table(1);
    assert_eq!(table.named().count(), 0);
    let device = table.devices.iter().find(|it| world.index(it) == 5);
    assert!(device.expect("the device").speed.high < 0.993);
}

#[test]
fn two_classes_are_told_apart_and_stock_is_stated() {
    let (mut runs, _) = World::clean().draw(1);
    for run in &mut runs {
        let mut faster = run.devices.clone();
        for device in &mut faster {
            device.class = "gb200".to_owned();
            device.host += "b";
            device.log_seconds -= 0.8;
        }
        run.devices.extend(faster);
    }
    let options = FleetOptions {
        stock: vec![FleetStock {
            class: "gb200".to_owned(),
            devices: 72,
            hosts: Some(18),
        }],
        ..FleetOptions::default()
    };
    let table = fleet(&runs, &options).expect("a table");
    let names: Vec<&str> = table.classes.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["gb200", "h100"]);
    assert_eq!(table.classes[0].all_hosts, Some(18));
    assert_eq!(table.classes[1].all_devices, None);
    assert_eq!(table.named().count(), 0);
    assert!(
        table
            .devices
            .iter()
            .all(|it| (it.speed.value - 1.0).abs() < 0.05)
    );
    // Both classes have the same differences.
    assert!((table.classes[0].spread - table.classes[1].spread).abs() < 1e-9);
    let text = serde_json::to_string(&table).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Fleet>(&text).expect("a table"),
        table
    );
}

#[test]
fn bad_input_is_refused_and_little_is_doubted() {
    let world = World {
        hosts: 2,
        per_host: 1,
        seen: 2,
        runs: 3,
        ..World::clean()
    };
    let (runs, _) = world.draw(1);
    let check = |runs: &[FleetRun], options: &FleetOptions, expect: &str| {
        let error = fleet(runs, options).expect_err(expect).to_string();
        assert!(error.contains(expect), "{error}");
    };
    let usual = FleetOptions::default();
    check(&[], &usual, "no device");
    let mut again = runs.clone();
    again.push(FleetRun {
        name: "copy".to_owned(),
        ..runs[2].clone()
    });
    check(&again, &usual, "are the same run");
    let none = FleetOptions {
        smallest: f64::NAN,
        ..usual.clone()
    };
    check(&runs, &none, "must be above 0 and below 1");
    let table = fleet(&runs, &usual).expect("a table");
    assert!(
        table
            .caveats
            .iter()
            .any(|it| it.message.contains("fewer than 4"))
    );
    let once = World {
        runs: 1,
        seen: 16,
        ..World::clean()
    };
    let (table, _) = once.table(1);
    assert!(
        table
            .caveats
            .iter()
            .any(|it| it.message.contains("half of it"))
    );
}
