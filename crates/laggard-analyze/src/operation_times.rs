//! What each operation usually takes on each rank: what a cost model is calibrated on.

use crate::AnalyzeError;
use crate::analysis::read_steps;
use laggard_record::Record;
use laggard_schedule::Replay;
use laggard_types::Rank;

/// What an operation usually takes on a rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperationTime {
    /// The rank.
    pub rank: Rank,
    /// Id of the operation in the record's schedule.
    pub operation: u32,
    /// Median over steps of its own time, in seconds; of a meeting point without the waiting.
    pub own_seconds: f64,
    /// Median over steps of the time between its being ready and its start, in seconds.
    pub delay_seconds: f64,
}

/// Reads out of a record what every operation usually takes on every rank, after warm-up.
///
/// # Errors
/// If the record cannot be read, contradicts itself, or has too few complete steps.
pub fn operation_times(record: &Record) -> Result<Vec<OperationTime>, AnalyzeError> {
    let replay = Replay::new(&record.manifest.schedule)?;
    let (measured, _) = read_steps(record, &replay, &mut Vec::new())?;
    let median = |table: &[f32], node: usize| {
        let column = table.iter().skip(node).step_by(measured.nodes);
        let mut column: Vec<f64> = column.copied().map(f64::from).collect();
        laggard_stats::median_in_place(&mut column).unwrap_or(0.0)
    };
    let of_node = |(index, node): (usize, &laggard_schedule::Node)| OperationTime {
        rank: node.rank,
        operation: node.operation,
        own_seconds: median(&measured.own, index),
        delay_seconds: median(&measured.delay, index),
    };
    Ok(replay.nodes().iter().enumerate().map(of_node).collect())
}
