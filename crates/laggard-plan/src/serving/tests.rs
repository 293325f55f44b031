//! The roofline against what is published, and its laws.

use laggard_specs::Tables;

use super::*;

fn tables() -> Tables {
    Tables::builtin().expect("the tables that are shipped")
}

fn constants() -> ServingConstants {
    ServingConstants::builtin().expect("the constants that are shipped")
}

/// Prediction over measurement.
fn ratio(table: &MeasuredTable, row: &MeasuredRow, tables: &Tables) -> f64 {
    let replica = Replica {
        model: tables.model(&table.model).expect("a known model"),
        accelerator: tables.accelerator(&table.accelerator).expect("known"),
        devices: table.devices,
        numbers: table.numbers,
        corrections: Corrections::default(),
    };
    let requests = table.requests(row);
    let rate = match table.up_to {
        true => best_replica(&replica, &requests, &constants()),
        false => tokens_per_second(&replica, &requests, &constants()),
    };
    rate.expect("it was measured").output_tokens_per_second / row.2
}

/// Predicted seconds per token over those measured.
fn latency_ratio(table: &LatencyTable, row: &LatencyRow, tables: &Tables) -> f64 {
    let replica = Replica {
        model: tables.model(&table.model).expect("a known model"),
        accelerator: tables.accelerator(&table.accelerator).expect("known"),
        devices: table.devices,
        numbers: table.numbers,
        corrections: Corrections::default(),
    };
    let requests = Requests {
        input_tokens: row.0,
        output_tokens: row.1,
        ..CHAT
    };
    let held = ServingConstants {
        most_sequences: row.2,
        ..constants()
    };
    let rate = tokens_per_second(&replica, &requests, &held).expect("it was measured");
    assert_eq!(rate.sequences, row.2);
    rate.seconds_per_token / row.3
}

#[test]
fn every_measured_row_has_the_error_that_the_table_states() {
    let tables = tables();
    let mut wrong = String::new();
    for table in ServingConstants::measured().expect("the measurements") {
        for row in &table.rows {
            let ratio = ratio(&table, row, &tables);
            if (ratio - row.3).abs() > 0.0051 {
                let of = (&table.accelerator, &table.model, table.devices);
                wrong += &format!("{of:?} {row:?} is {ratio:.2}\n");
            }
        }
    }
    for table in ServingConstants::latencies().expect("the measurements") {
        for row in &table.rows {
            let ratio = latency_ratio(&table, row, &tables);
            if (ratio - row.4).abs() > 0.0051 {
                wrong += &format!("{row:?} is {ratio:.2}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_stated_errors_are_those_of_the_rows() {
    let measured = ServingConstants::measured().expect("the measurements");
    let mean = |wanted: &dyn Fn(&MeasuredTable) -> bool| {
        let tables = measured.iter().filter(|table| wanted(table));
        let errors: Vec<f64> = tables
            .flat_map(|table| table.rows.iter().map(|row| row.3.ln().abs()))
            .collect();
        errors.iter().sum::<f64>() / errors.len() as f64
    };
    let has_experts = |table: &MeasuredTable| {
        let tables = tables();
        let model = tables.model(&table.model).expect("a known model");
        model.experts.is_some()
    };
    let stated = constants().error_on_mlperf;
    let others = mean(&|table| !table.fitted);
    assert!((others - stated).abs() < 0.005, "{others}");
    // The comment at the head of the table.
    let dense = mean(&|table| table.fitted && !has_experts(table));
    assert!((dense - 0.10).abs() < 0.005, "{dense}");
    let experts = mean(&|table| table.fitted && has_experts(table));
    assert!((experts - 0.16).abs() < 0.005, "{experts}");
}

const CHAT: Requests = Requests {
    input_tokens: 1000.0,
    output_tokens: 500.0,
    most_seconds_per_token: None,
    most_seconds_to_first_token: None,
};

#[test]
fn one_sequence_on_one_device_is_read_off_the_datasheet() {
    let tables = tables();
    let constants = ServingConstants {
        product_share: 1.0,
        memory_share: 1.0,
        layer_seconds: 1e-12,
        sequence_seconds: 1e-12,
        most_sequences: 1,
        ..constants()
    };
    let model = tables.model("llama3-8b").expect("a known model");
    let replica = Replica {
        model,
        accelerator: tables.accelerator("h100-sxm5-80gb").expect("known"),
        devices: 1,
        numbers: Numbers::Fp8,
        corrections: Corrections::default(),
    };
    let rate = tokens_per_second(&replica, &CHAT, &constants).expect("it fits");
    // 8.03 GB of weights, and 1250 tokens of 2 x 32 x 8 x 128 bytes, at 3.35 TB/s.
    let seconds = (8.03e9 + 1250.0 * 65_536.0) / 3.35e12;
    assert!((1.0 / rate.decode_tokens_per_second / seconds - 1.0).abs() < 1e-3);
    // 2 x 7.5e9 FLOP for a token of a prompt and its attention, at 1979 TFLOP/s.
    let per_token = 2.0 * 7.505e9 + 2.0 * 32.0 * 4096.0 * 1000.0;
    let prefill = 1.9789e15 / per_token;
    assert!((rate.prefill_tokens_per_second / prefill - 1.0).abs() < 1e-3);
    assert_eq!((rate.sequences, rate.limit), (1, BatchLimit::Software));
    // A device that was seen to read half as fast, and to multiply a fourth slower.
    let slower = Replica {
        corrections: Corrections {
            products: 1.25,
            memory_bound: 2.0,
            links: 3.0,
        },
        ..replica
    };
    let seen = tokens_per_second(&slower, &CHAT, &constants).expect("it fits");
    let over = |of: fn(&ServingRate) -> f64| of(&rate) / of(&seen);
    assert!((over(|it| it.decode_tokens_per_second) / 2.0 - 1.0).abs() < 1e-6);
    assert!((over(|it| it.prefill_tokens_per_second) / 1.25 - 1.0).abs() < 1e-6);
}

/// Tensor parallelism divides keys and values by their heads: of 8 heads, 32 devices hold each four
/// times, and have memory for a fourth of the sequences that they otherwise had.
#[test]
fn devices_beyond_the_heads_hold_copies_of_keys_and_values() {
    let tables = tables();
    let constants = ServingConstants {
        most_sequences: u64::MAX,
        ..constants()
    };
    let sequences = |model: &laggard_specs::Model, devices| {
        let replica = Replica {
            model,
            accelerator: tables.accelerator("gb200").expect("known"),
            devices,
            numbers: Numbers::Fp8,
            corrections: Corrections::default(),
        };
        let rate = tokens_per_second(&replica, &CHAT, &constants).expect("it fits");
        assert_eq!(rate.limit, BatchLimit::Memory);
        rate.sequences as f64
    };
    let llama = tables.model("llama3-8b").expect("a known model");
    assert_eq!(llama.kv_heads, 8);
    // The weights of 8 GB are little beside the memory of eight devices.
    let (eight, wide) = (sequences(llama, 8), sequences(llama, 32));
    assert!((wide / eight - 1.0).abs() < 0.02, "{eight} {wide}");
    let mut more = llama.clone();
    more.kv_heads = 32;
    let (eight, wide) = (sequences(&more, 8), sequences(&more, 32));
    assert!((wide / eight - 4.0).abs() < 0.05, "{eight} {wide}");
}

#[test]
fn tighter_latency_costs_tokens_until_it_cannot_be_kept() {
    let tables = tables();
    let constants = constants();
    let replica = Replica {
        model: tables.model("llama3-70b").expect("a known model"),
        accelerator: tables.accelerator("gb200").expect("known"),
        devices: 4,
        numbers: Numbers::Fp4,
        corrections: Corrections::default(),
    };
    let mut before = tokens_per_second(&replica, &CHAT, &constants).expect("no limit");
    assert_eq!(before.limit, BatchLimit::Memory);
    for most in [0.2, 0.1, 0.05, 0.03] {
        let requests = Requests {
            most_seconds_per_token: Some(most),
            ..CHAT
        };
        let rate = tokens_per_second(&replica, &requests, &constants).expect("feasible");
        assert!(rate.seconds_per_token <= most);
        assert!(rate.output_tokens_per_second <= before.output_tokens_per_second);
        before = rate;
    }
    assert_eq!(before.limit, BatchLimit::SecondsPerToken);
    let requests = Requests {
        most_seconds_per_token: Some(1e-4),
        ..CHAT
    };
    let refused = tokens_per_second(&replica, &requests, &constants).expect_err("too tight");
    assert!(matches!(refused, ServingError::Latency { .. }), "{refused}");
    let requests = Requests {
        most_seconds_to_first_token: Some(0.06),
        ..CHAT
    };
    let rate = tokens_per_second(&replica, &requests, &constants).expect("feasible");
    assert_eq!(rate.limit, BatchLimit::SecondsToFirstToken);
    assert!(rate.seconds_to_first_token <= 0.06);
}

#[test]
fn a_model_too_large_for_one_device_gets_more() {
    let tables = tables();
    let replica = |devices| Replica {
        model: tables.model("llama3-405b").expect("a known model"),
        accelerator: tables.accelerator("h100-sxm5-80gb").expect("known"),
        devices,
        numbers: Numbers::Fp8,
        corrections: Corrections::default(),
    };
    let refused = tokens_per_second(&replica(4), &CHAT, &constants()).expect_err("405 GB");
    assert!(
        matches!(refused, ServingError::Memory { devices: 4, .. }),
        "{refused}"
    );
    let best = best_replica(&replica(8), &CHAT, &constants()).expect("8 have 640 GB");
    assert_eq!(best.devices, 8);
    let refused = best_replica(&replica(4), &CHAT, &constants()).expect_err("405 GB");
    assert!(
        matches!(refused, ServingError::Memory { devices: 4, .. }),
        "{refused}"
    );
}

#[test]
fn impossible_requests_and_unknown_peaks_are_refused() {
    let tables = tables();
    let replica = Replica {
        model: tables.model("llama3-8b").expect("a known model"),
        accelerator: tables.accelerator("a100-sxm4-80gb").expect("known"),
        devices: 1,
        numbers: Numbers::Fp8,
        corrections: Corrections::default(),
    };
    let refused = tokens_per_second(&replica, &CHAT, &constants()).expect_err("no fp8");
    let message = refused.to_string();
    assert!(
        message.starts_with("dense_fp8_flop_per_s of a100-sxm4-80gb is unknown"),
        "{message}"
    );
    assert_eq!(Numbers::smallest_of(replica.accelerator), Numbers::Half);
    for output_tokens in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let requests = Requests {
            output_tokens,
            ..CHAT
        };
        assert!(tokens_per_second(&replica, &requests, &constants()).is_err());
    }
}

#[test]
fn sessions_and_capacity_are_each_others_inverse() {
    let sessions = Sessions {
        limit_tokens_per_second: 50.0,
        share_used: 0.1,
        peak_factor: 2.0,
    };
    let needed = sessions.needed_for(3000.0).expect("a capacity");
    assert!((needed - 30_000.0).abs() < 1e-9);
    assert!((sessions.carried_by(needed).expect("sessions") - 3000.0).abs() < 1e-9);
    for wrong in [
        Sessions {
            share_used: 1.5,
            ..sessions
        },
        Sessions {
            peak_factor: 0.5,
            ..sessions
        },
        Sessions {
            limit_tokens_per_second: 0.0,
            ..sessions
        },
    ] {
        assert!(wrong.carried_by(1.0).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_day_has_a_peak() {
    let mut hours = vec![10.0; 24];
    hours[18] = 30.0;
    hours[19] = 20.0;
    let day = DailyDemand::new(&hours).expect("a day");
    assert!((day.peak_factor() - 30.0 / (270.0 / 24.0)).abs() < 1e-12);
    assert!(DailyDemand::new(&hours[1..]).is_err(), "23 hours");
    assert!(DailyDemand::new(&[0.0; 24]).is_err(), "no demand");
    hours[0] = f64::NAN;
    assert!(DailyDemand::new(&hours).is_err());
}

#[test]
fn classes_add_up_less_what_was_measured() {
    let constants = constants();
    let mixes = ServingConstants::measured_mixes().expect("the table");
    assert_eq!(mixes.len(), 2);
    for mix in &mixes {
        let lost = 1.0 - mix.tokens_per_second / mix.apart_tokens_per_second;
        let range = constants.dispatch_loss.low..=constants.dispatch_loss.high;
        assert!(lost > 0.05 && range.contains(&lost), "{lost} of {}", mix.id);
    }
    let two = mixed_tokens_per_second(&[4.0 * 27_854.4, 2.0 * 34_454.4], &constants.dispatch_loss);
    assert!((two.high / mixes[0].apart_tokens_per_second - 1.0).abs() < 1e-12);
    assert!(two.low <= mixes[0].tokens_per_second);
    let one = mixed_tokens_per_second(&[5.0, 0.0], &constants.dispatch_loss);
    assert_eq!((one.low, one.high), (5.0, 5.0));
}
