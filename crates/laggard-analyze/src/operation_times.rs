//! What each operation takes on each rank: what a cost model is calibrated on.

use crate::AnalyzeError;
use crate::analysis::read_steps;
use laggard_record::{Record, TimeBasis};
use laggard_schedule::{Durations, OperationKind, Replay, Times};
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

/// What each operation took on each rank in each step.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationSeries {
    /// Rank of each column, and id of its operation in the record's schedule.
    pub columns: Vec<(Rank, u32)>,
    /// Seconds from its being ready to its end, `[step][column]`; of a meeting point without the
    /// waiting.
    pub seconds: Vec<f32>,
    /// Length of each step in seconds, on the record's basis.
    pub step_s: Vec<f64>,
}

/// Reads out of a record what every operation took on every rank in each step after warm-up.
///
/// # Errors
/// If the record is a sketch, cannot be read, contradicts itself, or has too few complete steps.
pub fn operation_series(record: &Record) -> Result<OperationSeries, AnalyzeError> {
    if record.sketch().is_some() {
        return Err(AnalyzeError::Sketch);
    }
    let replay = Replay::new(&record.manifest.schedule)?;
    let (measured, _) = read_steps(record, &replay, &mut Vec::new())?;
    let step_s = match record.manifest.clock.basis {
        TimeBasis::Wall => measured.step_time,
        TimeBasis::Virtual => {
            let mut times = Times::default();
            let of_step = |own: &[f32]| {
                let own: Vec<f64> = own.iter().copied().map(f64::from).collect();
                let durations = Durations {
                    lanes: 1,
                    own: &own,
                    delay: None,
                };
                replay.evaluate(durations, &mut times);
                times.finish[0]
            };
            measured.own.chunks(measured.nodes).map(of_step).collect()
        }
    };
    let mut seconds = measured.own;
    let delays = seconds.iter_mut().zip(&measured.delay);
    delays.for_each(|(own, delay)| *own += delay);
    let nodes = replay.nodes().iter();
    Ok(OperationSeries {
        columns: nodes.map(|node| (node.rank, node.operation)).collect(),
        seconds,
        step_s,
    })
}

/// Reads out of a record what every operation usually takes on every rank, after warm-up.
///
/// # Errors
/// As [`operation_series`].
pub fn operation_times(record: &Record) -> Result<Vec<OperationTime>, AnalyzeError> {
    let series = operation_series(record)?;
    let count = series.columns.len();
    let of_column = |(column, &(rank, operation)): (usize, &(Rank, u32))| {
        let taken = series.seconds.iter().skip(column).step_by(count);
        let mut taken: Vec<f64> = taken.copied().map(f64::from).collect();
        taken.sort_by(f64::total_cmp);
        let at = |quantile| laggard_stats::sorted_quantile(&taken, quantile).unwrap_or(0.0);
        let seconds = at(0.5);
        let ratio = |index: usize| match seconds > 0.0 {
            true => at((index as f64 + 0.5) / RATIOS as f64) / seconds,
            false => 1.0,
        };
        OperationTime {
            rank,
            operation,
            seconds,
            ratios: std::array::from_fn(ratio),
        }
    };
    Ok(series.columns.iter().enumerate().map(of_column).collect())
}

/// Seconds of a step in which each rank's kernels usually run, in order of rank.
///
/// # Errors
/// As [`operation_series`].
pub fn kernel_seconds(record: &Record) -> Result<Vec<f64>, AnalyzeError> {
    let mut seconds = vec![0.0; record.manifest.ranks.len()];
    for time in operation_times(record)? {
        let operation = &record.manifest.schedule.operations[time.operation as usize];
        if operation.kind == OperationKind::Compute {
            seconds[time.rank as usize] += time.seconds;
        }
    }
    Ok(seconds)
}
