//! Samples as analyses get them: batches of columns without impossible rows, and a tally of what
//! was left out.

use crate::alignment::Alignments;
use crate::columns::Columns;
use laggard_types::{Caveat, CaveatCode};

/// Some samples, column by column; all slices have the same length. Ranks and operations are in
/// the manifest's range, steps are not negative, no row ends before it begins, and the clock
/// alignment is applied.
#[derive(Debug, Clone, Copy)]
pub struct SampleBatch<'a> {
    /// Rank.
    pub rank: &'a [i32],
    /// Step, from 0.
    pub step: &'a [i32],
    /// Operation, by position in the schedule's table.
    pub operation: &'a [i32],
    /// Begin, nanoseconds.
    pub start_ns: &'a [i64],
    /// End, nanoseconds.
    pub end_ns: &'a [i64],
    /// CPU time of the executing thread at the begin, nanoseconds.
    pub cpu_start_ns: &'a [i64],
    /// CPU time of the executing thread at the end, nanoseconds.
    pub cpu_end_ns: &'a [i64],
}

impl SampleBatch<'_> {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.rank.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rank.is_empty()
    }
}

/// What reading has come across so far. One tally serves any number of segments; tallies of
/// segments that were read side by side are merged.
#[derive(Debug, Clone)]
pub struct Tally {
    pub(crate) rows: u64,
    pub(crate) dropped: Dropped,
    pub(crate) unreadable: Vec<String>,
    ranks: Vec<RankState>,
    operations: usize,
}

/// Rows that cannot be, and the first of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dropped {
    pub(crate) rows: u64,
    pub(crate) first: Option<String>,
}

impl Dropped {
    pub(crate) fn add(&mut self, describe: impl FnOnce() -> String) {
        self.rows += 1;
        self.first.get_or_insert_with(describe);
    }

    pub(crate) fn caveat(&self, table: &str) -> Option<Caveat> {
        let first = self.first.as_ref()?;
        let message = format!(
            "{} rows of table {table} are impossible and were left out; the first: {first}",
            self.rows
        );
        Some(Caveat::new(CaveatCode::DroppedSamples, message))
    }
}

/// The step that a rank was in last, and the earliest begin seen in it.
#[derive(Debug, Clone, Copy)]
struct RankState {
    step: i32,
    begin_ns: i64,
}

impl RankState {
    const UNSEEN: Self = Self {
        step: -1,
        begin_ns: i64::MIN,
    };
}

impl Tally {
    pub(crate) fn new(world: usize, operations: usize) -> Self {
        Self {
            rows: 0,
            dropped: Dropped::default(),
            unreadable: Vec::new(),
            ranks: vec![RankState::UNSEEN; world],
            operations,
        }
    }

    /// Adds what another tally of the same record saw.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.dropped.rows += other.dropped.rows;
        self.dropped.first = self.dropped.first.take().or(other.dropped.first);
        self.unreadable.extend(other.unreadable);
        for (mine, theirs) in self.ranks.iter_mut().zip(other.ranks) {
            if theirs.step > mine.step {
                *mine = theirs;
            }
        }
    }

    pub(crate) fn missing_ranks(&self) -> impl Iterator<Item = usize> + '_ {
        (self.ranks.iter().enumerate())
            .filter(|(_, state)| state.step < 0)
            .map(|(rank, _)| rank)
    }

    /// Drops impossible rows, aligns the others and hands them on.
    pub(crate) fn admit(
        &mut self,
        columns: &mut Columns,
        alignments: &Alignments,
        visit: &mut dyn FnMut(&SampleBatch<'_>),
    ) {
        let mut kept = 0;
        for row in 0..columns.rows() {
            if let Some(why) = self.fault(columns, row) {
                let (rank, step) = (columns.ints[0][row], columns.ints[1][row]);
                self.dropped
                    .add(|| format!("rank {rank}, step {step}: {why}"));
                continue;
            }
            if kept != row {
                columns.move_row(row, kept);
            }
            kept += 1;
        }
        columns.truncate(kept);
        if kept == 0 {
            return;
        }
        self.rows += kept as u64;
        align(columns, alignments);
        let [rank, step, operation] = [0, 1, 2].map(|at| columns.ints[at].as_slice());
        let [start_ns, end_ns, cpu_start_ns, cpu_end_ns] =
            [0, 1, 2, 3].map(|at| columns.longs[at].as_slice());
        visit(&SampleBatch {
            rank,
            step,
            operation,
            start_ns,
            end_ns,
            cpu_start_ns,
            cpu_end_ns,
        });
    }

    /// What is impossible about a row, if anything.
    fn fault(&mut self, columns: &Columns, row: usize) -> Option<&'static str> {
        let [rank, step, operation] = [0, 1, 2].map(|at| columns.ints[at][row]);
        let [start, end, cpu_start, cpu_end] = [0, 1, 2, 3].map(|at| columns.longs[at][row]);
        // Negative numbers become large ones and fail the comparison too.
        let Some(state) = self.ranks.get_mut(rank as u32 as usize) else {
            return Some("there is no such rank");
        };
        if operation as u32 as usize >= self.operations {
            return Some("there is no such operation");
        }
        if step < 0 {
            return Some("the step is negative");
        }
        if end < start {
            return Some("it ends before it begins");
        }
        if cpu_end < cpu_start {
            return Some("its cpu time goes backwards");
        }
        if step > state.step {
            if start < state.begin_ns {
                return Some("it begins before the rank's step before it began");
            }
            *state = RankState {
                step,
                begin_ns: start,
            };
        } else if step == state.step {
            state.begin_ns = state.begin_ns.min(start);
        }
        None
    }
}

fn align(columns: &mut Columns, alignments: &Alignments) {
    if alignments.is_empty() {
        return;
    }
    let (ranks, longs) = (&columns.ints[0], &mut columns.longs);
    for times in &mut longs[..2] {
        for (time, rank) in times.iter_mut().zip(ranks) {
            *time = alignments.aligned(*rank as usize, *time);
        }
    }
}
