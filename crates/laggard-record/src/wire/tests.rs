use super::*;
use laggard_types::{DeviceState, Gauge, Stamp};
use proptest::prelude::*;

const EXTENT: Extent = Extent { ranks: 4, hosts: 2 };

fn any_batch() -> impl Strategy<Value = Batch> {
    let stamp = any::<[i64; 4]>().prop_map(|[start_ns, end_ns, cpu_start_ns, cpu_end_ns]| Stamp {
        start_ns,
        end_ns,
        cpu_start_ns,
        cpu_end_ns,
    });
    let sample =
        (0u32..4, any::<[u32; 2]>(), stamp).prop_map(|(rank, [step, operation], stamp)| Sample {
            rank,
            step,
            operation,
            stamp,
        });
    let step =
        (0u32..4, any::<u32>(), any::<[i64; 2]>()).prop_map(|(rank, step, counts)| StepWork {
            rank,
            step,
            tokens: counts[0],
            tokens_squared: counts[1],
        });
    let telemetry =
        (0u32..2, any::<u32>(), any::<[i64; 5]>()).prop_map(|(host, cpu, times)| Telemetry {
            host,
            cpu,
            start_ns: times[0],
            end_ns: times[1],
            busy_ns: times[2],
            own_ns: times[3],
            steal_ns: times[4],
        });
    let values = prop::collection::vec(any::<Option<i64>>(), Gauge::COUNT);
    let device = (0u32..4, any::<i64>(), values).prop_map(|(rank, at_ns, values)| {
        let values: [Option<i64>; Gauge::COUNT] = values.try_into().expect("one for each gauge");
        DeviceReading {
            rank,
            at_ns,
            state: DeviceState::from(values),
        }
    });
    let rows = (
        prop::collection::vec(sample, 0..20),
        prop::collection::vec(step, 0..20),
        prop::collection::vec(telemetry, 0..20),
        prop::collection::vec(device, 0..20),
        any::<u64>(),
    );
    rows.prop_map(|(samples, steps, telemetry, devices, lags)| Batch {
        samples,
        steps,
        telemetry,
        devices,
        lags,
    })
}

proptest! {
    #[test]
    fn any_batch_comes_back(batch in any_batch()) {
        prop_assert_eq!(Batch::decode(&batch.encode(0, 20), EXTENT), Ok(batch));
    }

    #[test]
    fn pieces_add_up(batch in any_batch(), rows in 1usize..20) {
        let mut whole = Batch::default();
        for from in (0..batch.longest()).step_by(rows) {
            let piece = Batch::decode(&batch.encode(from, rows), EXTENT);
            let piece = piece.expect("a piece");
            whole.samples.extend(piece.samples);
            whole.steps.extend(piece.steps);
            whole.telemetry.extend(piece.telemetry);
            whole.devices.extend(piece.devices);
            whole.lags += piece.lags;
        }
        if batch.longest() > 0 {
            prop_assert_eq!(whole, batch);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        tagged in any::<bool>(),
    ) {
        if let Some(tag) = bytes.first_mut().filter(|_| tagged) {
            *tag = TAG;
        }
        let _ = Batch::decode(&bytes, EXTENT);
    }

    #[test]
    fn no_damage_goes_beyond_the_extent(
        batch in any_batch(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let mut bytes = batch.encode(0, 20);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(read) = Batch::decode(&bytes, EXTENT) {
            prop_assert!(read.samples.iter().all(|row| row.rank < 4));
            prop_assert!(read.steps.iter().all(|row| row.rank < 4));
            prop_assert!(read.telemetry.iter().all(|row| row.host < 2));
            prop_assert!(read.devices.iter().all(|row| row.rank < 4));
        }
    }

    #[test]
    fn every_cut_is_refused(batch in any_batch(), at in any::<prop::sample::Index>()) {
        let bytes = batch.encode(0, 20);
        let cut = &bytes[..at.index(bytes.len())];
        prop_assert!(Batch::decode(cut, EXTENT).is_err());
    }
}

fn sample(rank: u32, step: u32) -> Sample {
    let start_ns = 1_000_000_000_000 + i64::from(step) * 1_500_000;
    Sample {
        rank,
        step,
        operation: 7,
        stamp: Stamp {
            start_ns,
            end_ns: start_ns + 1_200_000,
            cpu_start_ns: start_ns / 3,
            cpu_end_ns: start_ns / 3 + 1_100_000,
        },
    }
}

fn batch(samples: Vec<Sample>) -> Batch {
    Batch {
        samples,
        ..Batch::default()
    }
}

#[test]
fn refusals_say_what_is_wrong_and_of_which_rank() {
    let good = batch(vec![sample(2, 0), sample(2, 1)]).encode(0, 9);
    let check = |bytes: &[u8], expect: &str| {
        let message = Batch::decode(bytes, EXTENT)
            .expect_err("refused")
            .to_string();
        assert!(message.contains(expect), "{message}");
    };
    check(&[], "rows cannot be understood at byte 0: they are cut off");
    check(&[9], "they have form 9, not 2");
    check(&good[..11], "at byte 9: they are cut off");
    check(&good[..25], "rows of table samples do not fit");
    // Three tables without rows follow.
    let end = good.len() - 12;
    check(&good[..end - 1], "rows of rank 2 cannot be understood");
    check(&[&good[..], &[0]].concat(), "1 bytes follow the last row");
    let stranger = batch(vec![sample(1, 0), sample(4, 0)]).encode(0, 9);
    check(&stranger, "rows of rank 4 cannot be understood");
    check(&stranger, "there are 4 ranks");
    let mut many = good.clone();
    many[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    check(&many, "4294967295 rows of table samples do not fit");
    let mut endless = good[..9].to_vec();
    endless.extend(1u32.to_le_bytes());
    endless.extend([0xff; 20]);
    check(&endless, "a number has more than 64 bits");
    let device = DeviceReading {
        rank: 3,
        at_ns: 0,
        state: DeviceState::default(),
    };
    let mut twice = Batch {
        devices: vec![device],
        ..Batch::default()
    };
    let mut bytes = twice.encode(0, 9);
    twice = Batch::decode(&bytes, EXTENT).expect("whole");
    assert_eq!(twice.devices, [device]);
    // Behind four counts of rows, the rank and the time: whether the first gauge is there.
    bytes[9 + 4 * 4 + 2] = 4;
    check(&bytes, "a value is 2 times there");
}

#[test]
fn rows_of_a_run_take_few_bytes() {
    let rows = 1000;
    let bytes = batch((0..rows).map(|step| sample(1, step)).collect()).encode(0, 1000);
    let plain = std::mem::size_of::<Sample>() * rows as usize;
    assert!(bytes.len() * 2 < plain, "{} of {plain}", bytes.len());
}
