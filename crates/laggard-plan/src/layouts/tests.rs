use super::*;
use laggard_simulate::{FabricOptions, Frameworks};
use laggard_specs::Tables;

struct Fixture {
    tables: Tables,
    constants: Constants,
    software: Software,
}

impl Fixture {
    fn new() -> Self {
        let frameworks = Frameworks::builtin().expect("frameworks");
        Self {
            tables: Tables::builtin().expect("tables"),
            constants: Constants::builtin().expect("constants"),
            software: frameworks
                .named("megatron-lm")
                .unwrap_or(&frameworks.entries[0])
                .software,
        }
    }

    fn found(&self, model: &str, ranks: u64, batch: u64) -> Result<Found, NoLayout> {
        let accelerator = self
            .tables
            .accelerator("h100-sxm5-80gb")
            .expect("an accelerator");
        let machine = Machine::new(accelerator, &FabricOptions::default()).expect("a machine");
        let demand = Demand {
            model: self.tables.model(model).expect("a model"),
            sequence_length: 8192,
            global_batch: batch,
            batch_excess: 0.0,
            batch_shortfall: 0.0,
            precision: Precision::Half,
            software: self.software,
        };
        let space = Space {
            ranks,
            most_tensor: 8,
        };
        fastest_layouts(&demand, space, &machine, &self.constants, 5)
    }
}

#[test]
fn a_large_model_gets_a_layout_that_fits_and_uses_all_devices() {
    let found = Fixture::new()
        .found("llama3.1-405b", 1024, 512)
        .expect("a layout");
    let best = found.best[0];
    assert_eq!(best.idle, 0);
    assert_eq!(best.degrees.global_batch(), 512);
    assert!(
        best.degrees.tensor * best.degrees.pipeline >= 16,
        "{best:?}"
    );
    assert!(best.memory_bytes <= 80_000_000_000);
    assert!(
        found
            .best
            .is_sorted_by(|a, b| a.step.total_s <= b.step.total_s)
    );
    assert!(found.evaluated > 100 && found.too_large > 100, "{found:?}");
}

#[test]
fn what_does_not_fit_is_refused_with_what_it_needs() {
    let refused = Fixture::new().found("llama3.1-405b", 8, 512);
    assert!(
        matches!(refused, Err(NoLayout::Memory { needed, available, .. }) if needed > available)
    );
}

#[test]
fn replicas_divide_the_batch_or_miss_it_by_little() {
    let fixture = Fixture::new();
    let batches = |most, batches, expert, batch_excess| {
        let demand = Demand {
            model: fixture.tables.model("gpt2").expect("a model"),
            sequence_length: 1024,
            global_batch: batches,
            batch_excess,
            batch_shortfall: batch_excess,
            precision: Precision::Half,
            software: fixture.software,
        };
        batches_of(most, batches, (expert, 1), &demand)
    };
    assert_eq!(batches(100, 64, 1, 0.0), Some((64, 1)));
    assert_eq!(batches(63, 64, 1, 0.0), Some((32, 2)));
    assert_eq!(batches(63, 64, 1, 0.05), Some((63, 1)));
    assert_eq!(batches(63, 64, 16, 0.05), Some((32, 2)));
    assert_eq!(batches(6, 7, 1, 0.0), Some((1, 7)));
    assert_eq!(batches(6, 7, 1, 0.15), Some((6, 1)));
    assert_eq!(batches(0, 7, 1, 0.5), None);
}

#[test]
fn interleaved_pipelines_get_whole_rounds_and_may_miss_a_limit() {
    let fixture = Fixture::new();
    let batches = |most, batches, shortfall| {
        let demand = Demand {
            model: fixture.tables.model("gpt2").expect("a model"),
            sequence_length: 1024,
            global_batch: batches,
            batch_excess: 0.05,
            batch_shortfall: shortfall,
            precision: Precision::Half,
            software: fixture.software,
        };
        batches_of(most, batches, (1, 8), &demand)
    };
    // 1,483 replicas for 27,500: 18.5 each are two rounds of eight.
    assert_eq!(batches(1483, 27_500, 1.0), Some((1483, 16)));
    // As many as are asked for, to within 5 %: 625 replicas divide them.
    assert_eq!(batches(1483, 25_000, 0.05), Some((625, 40)));
}

/// The shortcut and the full count agree on every layout of a space.
#[test]
fn the_stage_that_needs_most_is_the_first_or_the_last() {
    let fixture = Fixture::new();
    for name in ["llama3-70b", "gpt2", "grok-1", "deepseek-v3"] {
        let model = fixture.tables.model(name).expect("a model");
        let demand = Demand {
            model,
            sequence_length: 4096,
            global_batch: 512,
            batch_excess: 0.0,
            batch_shortfall: 0.0,
            precision: Precision::Half,
            software: fixture.software,
        };
        let space = Space {
            ranks: 512,
            most_tensor: 8,
        };
        let mut count = 0;
        for_each(&demand, space, &mut |degrees| {
            let layout = degrees.memory_layout(4096);
            let padded = padded(model, &degrees);
            let Ok(need) = memory_per_rank(&padded, &layout) else {
                return;
            };
            let most = most_memory(&padded, &layout).expect("a layout that fits the model");
            assert_eq!(most, need.total().0, "{name} {degrees:?}");
            count += 1;
        });
        assert!(count > 500, "{name}: {count}");
    }
}
