//! Training measurements that others published: the rows of a CSV file, the model that a row
//! trains, and the arithmetic between its own columns.
//!
//! Reads text; knows nothing of files, and of what a measurement is compared with.

mod arithmetic;
mod cells;
mod shape;

use std::collections::BTreeSet;

use crate::accelerator::Confidence;
use crate::convention::Convention;
use crate::error::SpecsError;
pub use arithmetic::{
    ArithmeticException, Figure, FigureCheck, NotRecomputed, arithmetic_exceptions,
};
use cells::{Cells, Columns};

const PUBLISHED_TRAINING: &str = include_str!("../data/published_training.csv");

/// The text of the rows that laggard ships; every row carries its source.
#[must_use]
pub fn published_training() -> &'static str {
    PUBLISHED_TRAINING
}

/// What a row states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    /// A training run on one kind of accelerator.
    Train,
    /// A training run on several kinds at once.
    Hetero,
    /// A memory need.
    Memory,
    /// A rate or a cost of failures.
    Reliability,
    /// A statement that is no measurement.
    Claim,
}

/// One published measurement. Fields are named as the columns; an empty cell is `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedRow {
    /// Unique name of the row.
    pub row_id: String,
    /// What it states.
    pub kind: RowKind,
    /// Short name of the source.
    pub source_id: Option<String>,
    /// Where the source is.
    pub source_url: Option<String>,
    /// Which table or section of the source.
    pub table: Option<String>,
    /// The model as the source calls it.
    pub model: String,
    /// Total parameters, in 1e9.
    pub params_total_b: Option<f64>,
    /// Parameters that one token uses, in 1e9.
    pub params_active_b: Option<f64>,
    /// Transformer layers.
    pub layers: Option<u64>,
    /// Width of the residual stream.
    pub hidden: Option<u64>,
    /// Query heads.
    pub heads: Option<u64>,
    /// Key and value heads.
    pub kv_heads: Option<u64>,
    /// Channels per head.
    pub head_dim: Option<u64>,
    /// Width of the feed-forward; of a mixture of experts, that of one expert.
    pub ffn_hidden: Option<u64>,
    /// Vocabulary.
    pub vocab: Option<u64>,
    /// Tokens of a sequence.
    pub seq_len: Option<u64>,
    /// Sequences of a step.
    pub global_batch_seqs: Option<u64>,
    /// Tokens of a step.
    pub global_batch_tokens: Option<u64>,
    /// Sequences of a micro-batch.
    pub micro_batch: Option<u64>,
    /// Accelerators, counted as the source counts them.
    pub gpus: Option<u64>,
    /// Id of the accelerator in the table of accelerators; `mixed` and the like if several.
    pub accelerator_id: Option<String>,
    /// The network, in words.
    pub interconnect: Option<String>,
    /// Tensor parallel size.
    pub tp: Option<u64>,
    /// Pipeline stages.
    pub pp: Option<u64>,
    /// Replicas.
    pub dp: Option<u64>,
    /// Context parallel size.
    pub cp: Option<u64>,
    /// Expert parallel size.
    pub ep: Option<u64>,
    /// How weights or optimizer states are sharded, in the source's own words.
    pub fsdp: Option<String>,
    /// Pieces of each pipeline stage.
    pub virtual_stages: Option<u64>,
    /// Formats of the arithmetic.
    pub precision: Option<String>,
    /// What is recomputed in backward.
    pub recompute: Option<String>,
    /// Whether norms and dropout are split along the sequence.
    pub sequence_parallel: Option<bool>,
    /// TFLOP/s per accelerator as printed.
    pub tflops_per_gpu: Option<f64>,
    /// Whether they are of the model or of the hardware.
    pub tflops_kind: Option<String>,
    /// MFU as printed, per cent.
    pub mfu_pct: Option<f64>,
    /// HFU as printed, per cent.
    pub hfu_pct: Option<f64>,
    /// Tokens per second and accelerator.
    pub tokens_per_s_per_gpu: Option<f64>,
    /// Seconds of a step.
    pub step_time_s: Option<f64>,
    /// The peak that the source divides by, in TFLOP/s.
    pub peak_tflops_used: Option<f64>,
    /// How the source counts FLOP, in words.
    pub flops_convention: Option<String>,
    /// What else was measured.
    pub metric: Option<String>,
    /// Its value.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: Option<String>,
    /// Layers and accelerators of each pipeline stage, in words.
    pub stage_layout: Option<String>,
    /// Seconds of the reduction of gradients.
    pub grad_reduce_s: Option<f64>,
    /// Peak memory of an accelerator, in GiB.
    pub peak_mem_gib: Option<f64>,
    /// The software, where a file has such a column.
    pub framework: Option<String>,
    /// Columns that were computed from others.
    pub derived_fields: Vec<String>,
    /// Columns that the row's source does not print.
    pub recalled_fields: Vec<String>,
    /// How far the row is to be trusted.
    pub confidence: Option<Confidence>,
    /// What a user of the row must know.
    pub notes: Option<String>,
}

/// The rows of a CSV file with a header. Columns are found by name: their order is free, unknown
/// ones are ignored, and all may be missing but `row_id`, `kind`, `model`, `accelerator_id`, `gpus`
/// and `seq_len`.
///
/// # Errors
/// Text that is no such table, a missing column, a cell that is not what its column holds, or a
/// `row_id` that stands twice; with the line.
pub fn rows(text: &str) -> Result<Vec<PublishedRow>, SpecsError> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let unreadable = |source| SpecsError::Rows {
        source: Box::new(source),
    };
    let columns = Columns::of(reader.headers().map_err(unreadable)?)?;
    let mut ids = BTreeSet::new();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let cells = Cells::new(&columns, &record);
        let row = PublishedRow::read(&cells)?;
        if !ids.insert(row.row_id.clone()) {
            return Err(cells.wrong("row_id", "is the id of an earlier row too"));
        }
        rows.push(row);
    }
    Ok(rows)
}

impl PublishedRow {
    /// Tokens per second and accelerator: as printed, or from step time, batch and accelerators.
    #[must_use]
    pub fn token_rate(&self) -> Option<f64> {
        let from_step = || Some(self.tokens_per_step()? / (self.step_time_s? * self.gpus? as f64));
        self.tokens_per_s_per_gpu.or_else(from_step)
    }

    /// Tokens of one step of all accelerators.
    #[must_use]
    pub fn tokens_per_step(&self) -> Option<f64> {
        let from_sequences = || Some(self.global_batch_seqs? as f64 * self.seq_len? as f64);
        self.global_batch_tokens
            .map(|tokens| tokens as f64)
            .or_else(from_sequences)
    }

    /// How the source counts FLOP, where that is known and can be computed.
    #[must_use]
    pub fn convention(&self) -> Option<Convention> {
        Convention::of_published(self.flops_convention.as_deref()?)
    }

    fn read(cells: &Cells<'_>) -> Result<Self, SpecsError> {
        Ok(Self {
            row_id: cells.required("row_id")?,
            kind: cells.kind()?,
            source_id: cells.text("source_id"),
            source_url: cells.text("source_url"),
            table: cells.text("table"),
            model: cells.text("model").unwrap_or_default(),
            params_total_b: cells.number("params_total_b")?,
            params_active_b: cells.number("params_active_b")?,
            layers: cells.count("layers")?,
            hidden: cells.count("hidden")?,
            heads: cells.count("heads")?,
            kv_heads: cells.count("kv_heads")?,
            head_dim: cells.count("head_dim")?,
            ffn_hidden: cells.count("ffn_hidden")?,
            vocab: cells.count("vocab")?,
            seq_len: cells.count("seq_len")?,
            global_batch_seqs: cells.count("global_batch_seqs")?,
            global_batch_tokens: cells.count("global_batch_tokens")?,
            micro_batch: cells.count("micro_batch")?,
            gpus: cells.count("gpus")?,
            accelerator_id: cells.text("accelerator_id"),
            interconnect: cells.text("interconnect"),
            tp: cells.count("tp")?,
            pp: cells.count("pp")?,
            dp: cells.count("dp")?,
            cp: cells.count("cp")?,
            ep: cells.count("ep")?,
            fsdp: cells.text("fsdp"),
            virtual_stages: cells.stages("virtual_stages")?,
            precision: cells.text("precision"),
            recompute: cells.text("recompute"),
            sequence_parallel: cells.yes_or_no("sequence_parallel")?,
            tflops_per_gpu: cells.number("tflops_per_gpu")?,
            tflops_kind: cells.text("tflops_kind"),
            mfu_pct: cells.number("mfu_pct")?,
            hfu_pct: cells.number("hfu_pct")?,
            tokens_per_s_per_gpu: cells.number("tokens_per_s_per_gpu")?,
            step_time_s: cells.number("step_time_s")?,
            peak_tflops_used: cells.number("peak_tflops_used")?,
            flops_convention: cells.text("flops_convention"),
            metric: cells.text("metric"),
            value: cells.value("value")?,
            unit: cells.text("unit"),
            stage_layout: cells.text("stage_layout"),
            grad_reduce_s: cells.number("grad_reduce_s")?,
            peak_mem_gib: cells.number("peak_mem_gib")?,
            framework: cells.text("framework"),
            derived_fields: cells.words("derived_fields"),
            recalled_fields: cells.words("recalled_fields"),
            confidence: cells.confidence()?,
            notes: cells.text("notes"),
        })
    }
}

#[cfg(test)]
mod tests;
