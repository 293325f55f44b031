//! Records as their users see them: written, read, damaged, killed.

mod creates;
mod damaged;
mod example;
mod parts;
mod recording;
mod round_trip;
mod schema;
mod several_hosts;
mod sketch;

use laggard_record::{Record, Sample, SampleBatch};
use laggard_types::Stamp;

/// The rows of a batch.
fn rows_of(batch: &SampleBatch<'_>) -> Vec<Sample> {
    let row = |i: usize| Sample {
        rank: batch.rank[i] as u32,
        step: batch.step[i] as u32,
        operation: batch.operation[i] as u32,
        stamp: Stamp {
            start_ns: batch.start_ns[i],
            end_ns: batch.end_ns[i],
            cpu_start_ns: batch.cpu_start_ns[i],
            cpu_end_ns: batch.cpu_end_ns[i],
        },
    };
    (0..batch.len()).map(row).collect()
}

fn all_samples(record: &Record) -> Vec<Sample> {
    let mut all = Vec::new();
    record
        .samples(|batch| all.extend(rows_of(batch)))
        .expect("readable samples");
    all
}
