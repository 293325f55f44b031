//! A simulated job as the rows of a sketch.

use super::{Baseline, ScaleRun};
use laggard_record::{SketchBaseline, SketchRank, SketchRows, SketchStep};

impl Baseline {
    /// What the manifest of a sketch says of the step.
    pub fn sketch(&self) -> SketchBaseline {
        SketchBaseline {
            even_step_ns: nanos(self.even_s),
            class_step_ns: nanos(self.classes_s),
            lasting_step_ns: nanos(self.lasting_s),
        }
    }
}

impl ScaleRun {
    /// The rows of its sketch.
    pub fn sketch_rows(
        &self,
    ) -> SketchRows<impl Iterator<Item = SketchStep>, impl Iterator<Item = SketchRank>> {
        let steps = (0..).zip(&self.steps).map(|(step, outcome)| SketchStep {
            step,
            last_rank: outcome.last_rank,
            wall_ns: nanos(outcome.wall_s),
            unpaused_ns: nanos(outcome.unpaused_s),
            first_ns: nanos(outcome.first_s),
            mean_ns: nanos(outcome.mean_s),
            second_ns: nanos(outcome.second_s),
            arrival_ns: nanos(outcome.arrival_s),
        });
        let ranks = (0..).zip(&self.ranks).map(|(rank, outcome)| SketchRank {
            rank,
            last_steps: outcome.last_steps,
            mean_ns: nanos(outcome.mean_s),
            shortest_ns: nanos(outcome.shortest_s),
            p50_ns: nanos(outcome.p50_s),
            p95_ns: nanos(outcome.p95_s),
            p99_ns: nanos(outcome.p99_s),
            longest_ns: nanos(outcome.longest_s),
            blamed_ns: nanos(outcome.blamed_s),
        });
        SketchRows { steps, ranks }
    }
}

fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}
