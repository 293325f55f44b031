//! Sketches: records of worlds too large to keep every sample, summed up by step and by rank.

use crate::bulk::{create_record, write_table};
use crate::closing::Closing;
use crate::columns::{Columns, Row, Table};
use crate::error::RecordError;
use crate::files::write_json;
use crate::manifest::{Manifest, Origin};
use crate::reader::{CLOSING_FILE, MANIFEST_FILE, Record, Rows};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Lengths of a sketch's step without anything random, each with one cause more than the one
/// before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SketchBaseline {
    /// If classes shared the work in proportion to their speeds, nanoseconds.
    pub even_step_ns: i64,
    /// With classes as they are.
    pub class_step_ns: i64,
    /// With ranks that are slow for good, too.
    pub lasting_step_ns: i64,
}

/// One step of a sketch: the rows of table `sketch_steps`. A unit is a replica, or the replicas
/// that share experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SketchStep {
    /// Step, from 0.
    pub step: u32,
    /// The rank that took longest in the unit that came last.
    pub last_rank: u32,
    /// Length of the step.
    pub wall_ns: i64,
    /// Its length had nobody stopped.
    pub unpaused_ns: i64,
    /// When the first unit had reduced its gradients, from the step's begin.
    pub first_ns: i64,
    /// The mean over units.
    pub mean_ns: i64,
    /// When the last unit but one had.
    pub second_ns: i64,
    /// When the last unit had.
    pub arrival_ns: i64,
}

/// One rank of a sketch over all steps: the rows of table `sketch_ranks`. Own time is without
/// waiting and transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SketchRank {
    /// Rank.
    pub rank: u32,
    /// Steps in which it took longest in the unit that came last.
    pub last_steps: u32,
    /// Mean of its own time in a step.
    pub mean_ns: i64,
    /// Its shortest own time.
    pub shortest_ns: i64,
    /// Median of its own time.
    pub p50_ns: i64,
    /// 95th percentile.
    pub p95_ns: i64,
    /// 99th percentile.
    pub p99_ns: i64,
    /// Its longest own time.
    pub longest_ns: i64,
    /// What it is blamed for of the time between the first arrival and the last, sum of all steps.
    pub blamed_ns: i64,
}

/// The rows of a sketch's tables.
#[derive(Debug, Clone)]
pub struct SketchRows<S, R> {
    /// Table `sketch_steps`.
    pub steps: S,
    /// Table `sketch_ranks`.
    pub ranks: R,
}

/// Writes a whole sketch, closing included. Its tables of samples are empty.
///
/// # Errors
/// If the manifest is not consistent or not that of a sketch, `dir` holds something already, or a
/// file cannot be written.
pub fn write_sketch<S, R>(
    dir: &Path,
    manifest: &Manifest,
    rows: SketchRows<S, R>,
    closing: &Closing,
) -> Result<(), RecordError>
where
    S: IntoIterator<Item = SketchStep>,
    R: IntoIterator<Item = SketchRank>,
{
    if !matches!(manifest.origin, Origin::Sketch(_)) {
        return Err(RecordError::InvalidField {
            path: dir.join(MANIFEST_FILE),
            field: "origin".to_owned(),
            why: "is not that of a sketch".to_owned(),
        });
    }
    create_record(dir, manifest)?;
    for table in [SketchStep::TABLE, SketchRank::TABLE] {
        let dir = dir.join(table.name);
        fs::create_dir(&dir).map_err(|error| RecordError::io("create", &dir, &error))?;
    }
    write_table(dir, rows.steps.into_iter())?;
    write_table(dir, rows.ranks.into_iter())?;
    write_json(&dir.join(CLOSING_FILE), closing)
}

impl Record {
    /// What a sketch's step would be without anything random; `None` of a record that is none.
    pub fn sketch(&self) -> Option<&SketchBaseline> {
        match &self.manifest.origin {
            Origin::Sketch(baseline) => Some(baseline),
            _ => None,
        }
    }

    /// Reads table `sketch_steps`; empty where the record is no sketch.
    ///
    /// # Errors
    /// As [`Record::samples`].
    pub fn sketch_steps(&self) -> Result<Rows<SketchStep>, RecordError> {
        let world = self.manifest.ranks.len();
        self.rows(|row: &mut SketchStep| {
            let times = [
                row.first_ns,
                row.mean_ns,
                row.second_ns,
                row.arrival_ns,
                row.wall_ns,
            ];
            let fits = (row.last_rank as usize) < world
                && i32::try_from(row.step).is_ok()
                && times[0] >= 0
                && times[0] <= times[1]
                && times[1] <= times[3]
                && times[2] <= times[3]
                && times[3] <= times[4]
                && (0..=row.wall_ns).contains(&row.unpaused_ns);
            if fits {
                Ok(())
            } else {
                Err(format!("step {}", row.step))
            }
        })
    }

    /// Reads table `sketch_ranks`; empty where the record is no sketch.
    ///
    /// # Errors
    /// As [`Record::samples`].
    pub fn sketch_ranks(&self) -> Result<Rows<SketchRank>, RecordError> {
        let world = self.manifest.ranks.len();
        self.rows(|row: &mut SketchRank| {
            let ascending = [
                row.shortest_ns,
                row.p50_ns,
                row.p95_ns,
                row.p99_ns,
                row.longest_ns,
            ];
            let fits = (row.rank as usize) < world
                && row.shortest_ns >= 0
                && ascending.is_sorted()
                && (row.shortest_ns..=row.longest_ns).contains(&row.mean_ns)
                && row.blamed_ns >= 0
                && i32::try_from(row.last_steps).is_ok();
            if fits {
                Ok(())
            } else {
                Err(format!("rank {}", row.rank))
            }
        })
    }
}

impl Row for SketchStep {
    const TABLE: Table = Table {
        name: "sketch_steps",
        ints: &["step", "last_rank"],
        longs: &[
            "wall_ns",
            "unpaused_ns",
            "first_ns",
            "mean_ns",
            "second_ns",
            "arrival_ns",
        ],
        optional: &[],
    };

    fn put(&self, columns: &mut Columns) {
        let longs = [
            self.wall_ns,
            self.unpaused_ns,
            self.first_ns,
            self.mean_ns,
            self.second_ns,
            self.arrival_ns,
        ];
        columns.put(&[self.step as i32, self.last_rank as i32], &longs);
    }

    fn get(columns: &Columns, row: usize) -> Self {
        let [step, last_rank] = [0, 1].map(|at| columns.ints[at][row] as u32);
        let [
            wall_ns,
            unpaused_ns,
            first_ns,
            mean_ns,
            second_ns,
            arrival_ns,
        ] = [0, 1, 2, 3, 4, 5].map(|at| columns.longs[at][row]);
        Self {
            step,
            last_rank,
            wall_ns,
            unpaused_ns,
            first_ns,
            mean_ns,
            second_ns,
            arrival_ns,
        }
    }
}

impl Row for SketchRank {
    const TABLE: Table = Table {
        name: "sketch_ranks",
        ints: &["rank", "last_steps"],
        longs: &[
            "mean_ns",
            "shortest_ns",
            "p50_ns",
            "p95_ns",
            "p99_ns",
            "longest_ns",
            "blamed_ns",
        ],
        optional: &[],
    };

    fn put(&self, columns: &mut Columns) {
        let longs = [
            self.mean_ns,
            self.shortest_ns,
            self.p50_ns,
            self.p95_ns,
            self.p99_ns,
            self.longest_ns,
            self.blamed_ns,
        ];
        columns.put(&[self.rank as i32, self.last_steps as i32], &longs);
    }

    fn get(columns: &Columns, row: usize) -> Self {
        let [rank, last_steps] = [0, 1].map(|at| columns.ints[at][row] as u32);
        let [
            mean_ns,
            shortest_ns,
            p50_ns,
            p95_ns,
            p99_ns,
            longest_ns,
            blamed_ns,
        ] = [0, 1, 2, 3, 4, 5, 6].map(|at| columns.longs[at][row]);
        Self {
            rank,
            last_steps,
            mean_ns,
            shortest_ns,
            p50_ns,
            p95_ns,
            p99_ns,
            longest_ns,
            blamed_ns,
        }
    }
}
