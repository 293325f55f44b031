//! Small jobs for this crate's tests.

use crate::Settings;
use laggard_backend::{DeviceDescription, DeviceKind};
use laggard_specs::{Experts, Model, Tables};
use laggard_types::{ClockDomain, DataType};
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

/// The same with a mixture of four experts, of which each token uses two.
pub(crate) fn tiny_mixture() -> Model {
    Model {
        experts: Some(Experts {
            count: 4,
            active: 2,
            shared: 0,
            ffn_hidden: 8,
            dense_layers: 0,
            every: 1,
            bias: false,
        }),
        ..tiny_model()
    }
}

/// A GPU of this name that computes in `bf16` and `f16`.
pub(crate) fn gpu(name: &str) -> DeviceDescription {
    DeviceDescription {
        name: name.to_owned(),
        kind: DeviceKind::Gpu,
        computes_in: vec![DataType::Bf16, DataType::F16],
        memory_bytes: Some(1 << 36),
        clock: ClockDomain::HostMonotonic,
        measured_peak: None,
        bound_cpu: None,
    }
}
