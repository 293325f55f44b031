//! Rows as columns: which columns each table has, in which order. `docs/schema/record-tables.md`
//! says what they mean.

use crate::table::{DeviceReading, Sample, StepWork, Telemetry};
use laggard_types::{DeviceState, Gauge, Stamp};

/// The columns of one table: 32-bit ones, then 64-bit ones, then 64-bit ones that may be null.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its name, which is also its directory.
    pub(crate) name: &'static str,
    pub(crate) ints: &'static [&'static str],
    pub(crate) longs: &'static [&'static str],
    /// These may also be missing in a segment, and are null then: later versions add some.
    pub(crate) optional: &'static [&'static str],
}

/// Some rows of a table, column by column, in the order of the table's column names.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) ints: Vec<Vec<i32>>,
    pub(crate) longs: Vec<Vec<i64>>,
    pub(crate) optional: Vec<Vec<Option<i64>>>,
}

impl Columns {
    pub(crate) fn new(table: &Table) -> Self {
        Self {
            ints: vec![Vec::new(); table.ints.len()],
            longs: vec![Vec::new(); table.longs.len()],
            optional: vec![Vec::new(); table.optional.len()],
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.ints[0].len()
    }

    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.ints
            .iter_mut()
            .for_each(|column| column.truncate(rows));
        self.longs
            .iter_mut()
            .for_each(|column| column.truncate(rows));
        self.optional
            .iter_mut()
            .for_each(|column| column.truncate(rows));
    }

    pub(crate) fn move_row(&mut self, from: usize, to: usize) {
        self.ints
            .iter_mut()
            .for_each(|column| column[to] = column[from]);
        self.longs
            .iter_mut()
            .for_each(|column| column[to] = column[from]);
        self.optional
            .iter_mut()
            .for_each(|column| column[to] = column[from]);
    }

    pub(crate) fn append(&mut self, rows: &Self) {
        for (column, more) in self.ints.iter_mut().zip(&rows.ints) {
            column.extend_from_slice(more);
        }
        for (column, more) in self.longs.iter_mut().zip(&rows.longs) {
            column.extend_from_slice(more);
        }
        for (column, more) in self.optional.iter_mut().zip(&rows.optional) {
            column.extend_from_slice(more);
        }
    }

    pub(crate) fn put(&mut self, ints: &[i32], longs: &[i64]) {
        for (column, value) in self.ints.iter_mut().zip(ints) {
            column.push(*value);
        }
        for (column, value) in self.longs.iter_mut().zip(longs) {
            column.push(*value);
        }
    }
}

/// A row of one of the tables. Numbers beyond 31 bits wrap to negative ones, which readers drop.
pub(crate) trait Row: Copy {
    const TABLE: Table;

    fn put(&self, columns: &mut Columns);

    fn get(columns: &Columns, row: usize) -> Self;
}

impl Row for Sample {
    const TABLE: Table = Table {
        name: "samples",
        ints: &["rank", "step", "operation"],
        longs: &["start_ns", "end_ns", "cpu_start_ns", "cpu_end_ns"],
        optional: &[],
    };

    fn put(&self, columns: &mut Columns) {
        let Stamp {
            start_ns,
            end_ns,
            cpu_start_ns,
            cpu_end_ns,
        } = self.stamp;
        columns.put(
            &[self.rank as i32, self.step as i32, self.operation as i32],
            &[start_ns, end_ns, cpu_start_ns, cpu_end_ns],
        );
    }

    fn get(columns: &Columns, row: usize) -> Self {
        let [rank, step, operation] = [0, 1, 2].map(|at| columns.ints[at][row] as u32);
        let [start_ns, end_ns, cpu_start_ns, cpu_end_ns] =
            [0, 1, 2, 3].map(|at| columns.longs[at][row]);
        Self {
            rank,
            step,
            operation,
            stamp: Stamp {
                start_ns,
                end_ns,
                cpu_start_ns,
                cpu_end_ns,
            },
        }
    }
}

impl Row for StepWork {
    const TABLE: Table = Table {
        name: "steps",
        ints: &["rank", "step"],
        longs: &["tokens", "tokens_squared"],
        optional: &[],
    };

    fn put(&self, columns: &mut Columns) {
        columns.put(
            &[self.rank as i32, self.step as i32],
            &[self.tokens, self.tokens_squared],
        );
    }

    fn get(columns: &Columns, row: usize) -> Self {
        let [rank, step] = [0, 1].map(|at| columns.ints[at][row] as u32);
        let [tokens, tokens_squared] = [0, 1].map(|at| columns.longs[at][row]);
        Self {
            rank,
            step,
            tokens,
            tokens_squared,
        }
    }
}

impl Row for Telemetry {
    const TABLE: Table = Table {
        name: "telemetry",
        ints: &["host", "cpu"],
        longs: &["start_ns", "end_ns", "busy_ns", "own_ns", "steal_ns"],
        optional: &[],
    };

    fn put(&self, columns: &mut Columns) {
        columns.put(
            &[self.host as i32, self.cpu as i32],
            &[
                self.start_ns,
                self.end_ns,
                self.busy_ns,
                self.own_ns,
                self.steal_ns,
            ],
        );
    }

    fn get(columns: &Columns, row: usize) -> Self {
        let [host, cpu] = [0, 1].map(|at| columns.ints[at][row] as u32);
        let [start_ns, end_ns, busy_ns, own_ns, steal_ns] =
            [0, 1, 2, 3, 4].map(|at| columns.longs[at][row]);
        Self {
            host,
            cpu,
            start_ns,
            end_ns,
            busy_ns,
            own_ns,
            steal_ns,
        }
    }
}

impl Row for DeviceReading {
    const TABLE: Table = Table {
        name: "device_telemetry",
        ints: &["rank"],
        longs: &["at_ns"],
        optional: &Gauge::NAMES,
    };

    fn put(&self, columns: &mut Columns) {
        columns.put(&[self.rank as i32], &[self.at_ns]);
        for (column, value) in columns.optional.iter_mut().zip(self.state.values()) {
            column.push(*value);
        }
    }

    fn get(columns: &Columns, row: usize) -> Self {
        let state: [Option<i64>; Gauge::COUNT] =
            std::array::from_fn(|gauge| columns.optional[gauge][row]);
        Self {
            rank: columns.ints[0][row] as u32,
            at_ns: columns.longs[0][row],
            state: DeviceState::from(state),
        }
    }
}
