use super::*;
use crate::rng::Rng;
use crate::wilson::wilson_interval;

/// A population that is measured again and again.
#[derive(Debug, Clone, Copy)]
struct World {
    units: usize,
    sessions: usize,
    /// Units of each session, drawn anew.
    seen: usize,
    unit: f64,
    visit: f64,
    session: f64,
    error: f64,
}

const WORLD: World = World {
    units: 32,
    sessions: 10,
    seen: 12,
    unit: 0.02,
    visit: 0.004,
    session: 0.01,
    error: 0.003,
};

/// What was drawn: measurements of two levels in turn, and each unit's own value.
fn draw(world: &World, seed: u64) -> (Vec<Measurement>, Vec<f64>) {
    let mut rng = Rng::new(seed);
    let own: Vec<f64> = (0..world.units)
        .map(|_| world.unit * rng.normal())
        .collect();
    let mut order: Vec<usize> = (0..world.units).collect();
    let mut all = Vec::new();
    for session in 0..world.sessions {
        let of_session = world.session * rng.normal() + if session % 2 == 0 { 3.0 } else { -5.0 };
        rng.shuffle(&mut order);
        for &unit in &order[..world.seen] {
            let noise = world.visit * rng.normal() + world.error * rng.normal();
            all.push(Measurement {
                unit,
                session,
                value: of_session + own[unit] + noise,
                variance: world.error * world.error,
            });
        }
    }
    (all, own)
}

fn levels(sessions: usize) -> Vec<usize> {
    (0..sessions).map(|session| session % 2).collect()
}

fn fit(world: &World, measurements: &[Measurement]) -> CrossedFit {
    let effects = CrossedEffects {
        measurements,
        level_of_session: &levels(world.sessions),
        stands_alone: &vec![false; world.units],
    };
    effects.fit(None).expect("a fit")
}

/// Shares of the 95 % intervals of units' own values that hold them, over many worlds.
fn coverage(world: &World, trials: u64) -> f64 {
    let (mut held, mut all) = (0, 0);
    for seed in 0..trials {
        let (measurements, own) = draw(world, seed);
        for (effect, own) in fit(world, &measurements).units.iter().zip(&own) {
            all += 1;
            held += u32::from((effect.value - own).abs() <= 1.96 * effect.deviation);
        }
    }
    f64::from(held) / f64::from(all)
}

#[test]
fn intervals_cover_what_is_drawn() {
    let few = World {
        units: 6,
        seen: 4,
        sessions: 4,
        ..WORLD
    };
    let apart = World {
        sessions: 16,
        seen: 4,
        ..WORLD
    };
    let once = World {
        units: 40,
        sessions: 1,
        seen: 40,
        ..WORLD
    };
    let noisy = World {
        error: 0.05,
        ..WORLD
    };
    for world in [WORLD, few, apart, once, noisy] {
        let covered = coverage(&world, 100);
        // Units share sessions, and so errors: far fewer independent trials than intervals.
        assert!((0.92..=0.99).contains(&covered), "{world:?}: {covered}");
    }
}

#[test]
fn variances_are_recovered() {
    let (mut unit, mut visit, mut session) = (0.0, 0.0, 0.0);
    let trials = 40;
    for seed in 0..trials {
        let (measurements, _) = draw(&WORLD, 1000 + seed);
        let found = fit(&WORLD, &measurements).variances;
        unit += found.unit.sqrt() / trials as f64;
        visit += found.visit.sqrt() / trials as f64;
        session += found.session.expect("sessions of two levels").sqrt() / trials as f64;
    }
    assert!((unit / WORLD.unit - 1.0).abs() < 0.1, "{unit}");
    assert!((visit / WORLD.visit - 1.0).abs() < 0.15, "{visit}");
    assert!((session / WORLD.session - 1.0).abs() < 0.3, "{session}");
}

/// What was measured little is pulled to the middle, what was measured often is not.
#[test]
fn little_evidence_is_believed_little() {
    let measurement = |unit, session, value, variance| Measurement {
        unit,
        session,
        value,
        variance,
    };
    let mut rng = Rng::new(5);
    let mut all = Vec::new();
    for session in 0..6 {
        for unit in 0..20 {
            all.push(measurement(unit, session, 0.001 * rng.normal(), 1e-6));
        }
    }
    all.push(measurement(20, 0, 0.1, 1e-2));
    all.push(measurement(21, 0, 0.1, 1e-6));
    let effects = CrossedEffects {
        measurements: &all,
        level_of_session: &[0; 6],
        stands_alone: &[false; 23],
    };
    let found = effects.fit(None).expect("a fit");
    assert!(found.units[20].value < 0.02, "{:?}", found.units[20]);
    assert!(found.units[21].value > 0.08, "{:?}", found.units[21]);
    // Never measured: what units are.
    let unseen = found.units[22];
    assert!(unseen.value.abs() < 1e-12);
    assert!((unseen.deviation - found.variances.unit.sqrt()).abs() < 1e-12);
    // One that stands alone is no part of the others' spread, and is not pulled.
    let mut alone = [false; 23];
    alone[21] = true;
    let without = CrossedEffects {
        stands_alone: &alone,
        ..effects
    };
    let without = without.fit(Some(found.variances)).expect("a fit");
    assert!(without.variances.unit < 0.5 * found.variances.unit);
    assert!((without.units[21].value - 0.1).abs() < 0.003);
}

/// Intervals of 95 % hold 95 % also of units that were seen in no more than one session.
#[test]
fn coverage_does_not_hang_on_how_often_a_unit_was_seen() {
    let (mut held, mut all) = (0, 0);
    for seed in 0..150 {
        let (measurements, own) = draw(&WORLD, 500 + seed);
        let found = fit(&WORLD, &measurements);
        for (unit, effect) in found.units.iter().enumerate() {
            let seen = measurements.iter().filter(|it| it.unit == unit).count();
            if seen <= 1 {
                all += 1;
                held += u64::from((effect.value - own[unit]).abs() <= 1.96 * effect.deviation);
            }
        }
    }
    assert!(all > 100, "{all}");
    let share = wilson_interval(held, all, 3.3).expect("trials");
    assert!(share.contains(0.95), "{held} of {all}");
}

#[test]
fn refuses() {
    let good = Measurement {
        unit: 0,
        session: 0,
        value: 1.0,
        variance: 0.1,
    };
    let check = |measurements: &[Measurement]| {
        let effects = CrossedEffects {
            measurements,
            level_of_session: &[0],
            stands_alone: &[false],
        };
        effects.fit(None).is_err()
    };
    assert!(!check(&[good]));
    assert!(check(&[]));
    for bad in [
        Measurement { unit: 1, ..good },
        Measurement { session: 1, ..good },
        Measurement {
            value: f64::NAN,
            ..good
        },
        Measurement {
            variance: -1.0,
            ..good
        },
    ] {
        assert!(check(&[good, bad]));
    }
}
