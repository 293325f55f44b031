//! Simulated worlds, their sketches, and the analysis of those.

use laggard_analyze::{Analysis, AnalyzeError, Level, Options, analyze};
use laggard_benches::large_manifest;
use laggard_record::{
    Class, Closing, ClosingStatus, Manifest, Origin, Record, SketchRank, SketchRows, SketchStep,
    write_sketch,
};
use laggard_schedule::{LayerWork, Layout, ModelWork, Part, PartWork, generate};
use laggard_simulate::{
    Jitter, JitterDistribution, ScaleRun, ScaleWorkload, SlowRanks, StageTimes, simulate_ranks,
};

/// Equal ranks in a layout, whose kernels' times vary by 2 %.
pub(crate) fn jittery(layout: &str, steps: u32) -> ScaleWorkload {
    let layout = Layout::parse(layout).expect("a layout");
    let layout = Layout {
        micro_batches: vec![4; layout.data_parallel as usize],
        ..layout
    };
    let times = StageTimes {
        forward_s: 0.1,
        backward_s: 0.2,
        forward_exposed_s: 0.01,
        backward_exposed_s: 0.01,
        reduce_exposed_s: 0.05,
        optimizer_s: 0.02,
        gather_exposed_s: 0.0,
    };
    ScaleWorkload {
        stages: vec![times; layout.pipeline_parallel as usize],
        transfer_s: 0.001,
        input_s: 0.001,
        norm_s: 0.001,
        class_factors: vec![1.0],
        class_of_rank: vec![0; layout.world_size() as usize],
        slow: Vec::new(),
        jitter: lognormal(0.02),
        pauses: None,
        delays: Vec::new(),
        steps,
        seed: 7,
        layout,
    }
}

pub(crate) fn lognormal(sigma: f64) -> Jitter {
    Jitter {
        distribution: JitterDistribution::Lognormal { sigma },
        autocorrelation: 0.5,
    }
}

impl World {
    /// Simulates, writes the sketch, and reads and analyses it.
    pub(crate) fn of(workload: &ScaleWorkload) -> Self {
        let run = simulate_ranks(workload).expect("a workload that can be simulated");
        let analysis = analyzed(&manifest(workload, &run), rows(&run)).expect("an analysis");
        Self { run, analysis }
    }
}

/// A simulated world with what the analysis of its sketch says.
pub(crate) struct World {
    pub(crate) run: ScaleRun,
    pub(crate) analysis: Analysis,
}

pub(crate) type OwnedRows = SketchRows<Vec<SketchStep>, Vec<SketchRank>>;

pub(crate) fn rows(run: &ScaleRun) -> OwnedRows {
    let rows = run.sketch_rows();
    SketchRows {
        steps: rows.steps.collect(),
        ranks: rows.ranks.collect(),
    }
}

pub(crate) fn manifest(workload: &ScaleWorkload, run: &ScaleRun) -> Manifest {
    let schedule = generate(&workload.layout, &model(workload.layout.pieces())).expect("a fit");
    let origin = Origin::Sketch(run.baseline.sketch());
    let mut manifest = large_manifest(schedule, workload.seed, origin);
    let class = manifest.classes.remove(0);
    let of_factor = |(index, factor): (usize, &f64)| Class {
        name: format!("class {index}"),
        relative_rate: 1.0 / factor,
        ..class.clone()
    };
    manifest.classes = workload
        .class_factors
        .iter()
        .enumerate()
        .map(of_factor)
        .collect();
    for (place, class) in manifest.ranks.iter_mut().zip(&workload.class_of_rank) {
        place.class = u32::from(*class);
    }
    manifest
}

/// Writes a sketch and analyses it.
pub(crate) fn analyzed(manifest: &Manifest, rows: OwnedRows) -> Result<Analysis, AnalyzeError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let record = written(&dir.path().join("record"), manifest, rows);
    analyze(&record, &Options::default())
}

pub(crate) fn written(dir: &std::path::Path, manifest: &Manifest, rows: OwnedRows) -> Record {
    let closing = Closing {
        status: ClosingStatus::Finished,
        steps_completed: rows.steps.len() as u32,
        samples: 0,
        steps: 0,
        telemetry: 0,
        writer_lags: 0,
        parts: Vec::new(),
    };
    write_sketch(dir, manifest, rows, &closing).expect("a sketch");
    Record::open(dir).expect("a readable record")
}

fn model(pieces: u32) -> ModelWork {
    let layer = |index: u32| LayerWork {
        name: format!("layer {index}"),
        parts: vec![PartWork {
            part: match index == pieces {
                true => Part::Head,
                false => Part::FeedForward,
            },
            forward_flop: 1e13,
            forward_attention_flop: 0.0,
            parameters: 1 << 20,
        }],
    };
    ModelWork {
        layers: (0..=pieces).map(layer).collect(),
        element_bytes: 2,
        stream_elements: 1 << 20,
        key_value_elements: 1 << 20,
        experts_per_token: 1,
    }
}

pub(crate) fn slow(ranks: std::ops::Range<u32>, factor: f64) -> Vec<SlowRanks> {
    vec![SlowRanks { ranks, factor }]
}

/// The share of a level; every level of a sketch is there.
pub(crate) fn share(analysis: &Analysis, level: Level) -> f64 {
    let term = analysis.waterfall.iter().find(|term| term.level == level);
    term.map(|term| term.share.value).expect("the level")
}
