//! Small jobs for this crate's tests.

use crate::Settings;
use crate::job::Job;
use crate::shape::Shape;
use laggard_schedule::{Layout, Schedule};
use laggard_specs::{Model, Tables};
use std::path::PathBuf;

/// A model of the tables.
pub(crate) fn model(name: &str) -> Model {
    Tables::builtin().unwrap().model(name).unwrap().clone()
}

/// A model that computes a step in well under a millisecond, with grouped heads and a gate.
pub(crate) fn tiny_model() -> Model {
    Model {
        layers: 2,
        hidden: 16,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        ffn_hidden: 24,
        ffn_matrices: 3,
        vocab: 20,
        ..model("tiny")
    }
}

/// A run of it, with several buckets.
pub(crate) fn settings(ranks: u32, steps: u32) -> Settings {
    let mut settings = Settings::new(tiny_model(), ranks, PathBuf::new());
    settings.layout.bucket_bytes = 3000;
    settings.sequence_length = 12;
    settings.micro_batch_sequences = 2;
    settings.steps = steps;
    settings
}

/// Shape and schedule of such a run.
pub(crate) fn tiny_job(layout: &Layout) -> (Shape, Schedule) {
    let mut settings = settings(layout.data_parallel, 1);
    settings.layout = layout.clone();
    let job = Job::new(&settings).unwrap();
    (job.shape, job.schedule)
}
