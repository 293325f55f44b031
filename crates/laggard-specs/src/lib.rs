//! What laggard knows of hardware and models before it measures anything: accelerator tables,
//! measured ratios between generations, model shapes, and the FLOP and parameters that follow.
//!
//! Every number of a table has a source; an unknown number is absent. Knows nothing of measured
//! events, and reads no files: tables come as text.

mod accelerator;
mod cluster;
mod convention;
mod error;
mod flop_count;
mod layer;
mod memory;
mod model;
mod model_work;
mod names;
mod published;
mod tables;
mod training_rate;
mod utilization;

pub use accelerator::{Accelerator, Confidence};
pub use cluster::{Cluster, Pool, Price, RampStep, Site, SiteLink};
pub use convention::{Convention, CountedFlop};
pub use error::SpecsError;
pub use flop_count::{
    Attention, Pass, Recompute, flop_per_token, recompute_flop_per_token, training_flop,
    training_flop_per_token,
};
pub use layer::{LayerFlop, LayerPart, LayerParts, PartFlop, layer_flop, layer_parts};
pub use memory::{MemoryLayout, MemoryNeed, StateBytes, memory_of_stage, memory_per_rank};
pub use model::{Experts, LatentAttention, Model, Norm, SlidingWindow};
pub use model_work::model_work;
pub use published::{
    ArithmeticException, Figure, FigureCheck, NotRecomputed, PublishedRow, RowKind,
    arithmetic_exceptions, published_training, rows,
};
pub use tables::Tables;
pub use training_rate::{ClassRate, RateBasis, RateSet, TrainingRate};
pub use utilization::{ConventionFigures, ObservedStep, Share, Utilization, utilization};
