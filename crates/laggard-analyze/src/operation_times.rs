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
    /// Median over steps of the seconds from its being ready to its end; of a meeting point without
    /// the waiting.
    pub seconds: f64,
    /// What it took over that median, at evenly spaced quantiles of the steps: the i-th of n at
    /// `(i + 1/2) / n`.
    pub ratios: [f64; RATIOS],
}

/// Quantiles that tell how the time of an operation varies.
pub const RATIOS: usize = 16;

/// Reads out of a record what every operation usually takes on every rank, after warm-up.
///
/// # Errors
/// If the record is a sketch, cannot be read, contradicts itself, or has too few complete steps.
pub fn operation_times(record: &Record) -> Result<Vec<OperationTime>, AnalyzeError> {
    if record.sketch().is_some() {
        return Err(AnalyzeError::Sketch);
    }
    let replay = Replay::new(&record.manifest.schedule)?;
    let (measured, _) = read_steps(record, &replay, &mut Vec::new())?;
    let of_node = |(index, node): (usize, &laggard_schedule::Node)| {
        let column = |table: &'_ [f32]| -> Vec<f64> {
            let column = table.iter().skip(index).step_by(measured.nodes);
            column.copied().map(f64::from).collect()
        };
        let (own, delay) = (column(&measured.own), column(&measured.delay));
        let mut taken: Vec<f64> = own
            .iter()
            .zip(delay)
            .map(|(own, delay)| own + delay)
            .collect();
        taken.sort_by(f64::total_cmp);
        let at = |quantile| laggard_stats::sorted_quantile(&taken, quantile).unwrap_or(0.0);
        let seconds = at(0.5);
        let ratio = |index: usize| match seconds > 0.0 {
            true => at((index as f64 + 0.5) / RATIOS as f64) / seconds,
            false => 1.0,
        };
        OperationTime {
            rank: node.rank,
            operation: node.operation,
            seconds,
            ratios: std::array::from_fn(ratio),
        }
    };
    Ok(replay.nodes().iter().enumerate().map(of_node).collect())
}
