//! Rows on their way between processes: bytes of a version of their own. Knows nothing of how they
//! travel.
//!
//! A batch is the tag, the lags of its sender since the batch before (8 bytes), and then each table
//! of the record: its number of rows (4 bytes), and column by column each value's difference from
//! the row before, the sign in the lowest bit, in groups of 7 bits, the lowest first (LEB128). A
//! column that may be null is two: whether each value is there (1 or 0), and the values that are.
//! Numbers are little endian.

use crate::columns::{Columns, Row};
use crate::error::RecordError;
use crate::table::{DeviceReading, Sample, StepWork, Telemetry};

/// Version of the form.
const TAG: u8 = 2;
/// Bits of a byte that carry a number.
const GROUP_BITS: u32 = 7;
/// Says that another byte follows.
const MORE: u8 = 1 << GROUP_BITS;

/// Rows of all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) samples: Vec<Sample>,
    pub(crate) steps: Vec<StepWork>,
    pub(crate) telemetry: Vec<Telemetry>,
    pub(crate) devices: Vec<DeviceReading>,
    /// How often ranks had to allocate since the batch before.
    pub(crate) lags: u64,
}

/// How many ranks and hosts there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) ranks: usize,
    pub(crate) hosts: usize,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
        self.steps.clear();
        self.telemetry.clear();
        self.devices.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.longest() == 0 && self.lags == 0
    }

    /// Rows of the table that has most.
    pub(crate) fn longest(&self) -> usize {
        let small = self.telemetry.len().max(self.devices.len());
        self.samples.len().max(self.steps.len()).max(small)
    }

    /// The bytes of rows `from` to `from + rows` of each table, as far as it has them.
    pub(crate) fn encode(&self, from: usize, rows: usize) -> Vec<u8> {
        let mut bytes = vec![TAG];
        let lags = if from == 0 { self.lags } else { 0 };
        bytes.extend(lags.to_le_bytes());
        put_table(&mut bytes, slice(&self.samples, from, rows));
        put_table(&mut bytes, slice(&self.steps, from, rows));
        put_table(&mut bytes, slice(&self.telemetry, from, rows));
        put_table(&mut bytes, slice(&self.devices, from, rows));
        bytes
    }

    /// Reads what [`Batch::encode`] made. Ranks and hosts are within the extent.
    pub(crate) fn decode(bytes: &[u8], extent: Extent) -> Result<Self, RecordError> {
        let mut input = Input {
            bytes,
            rank: None,
            read: 0,
        };
        input.batch(extent).map_err(|why| RecordError::BrokenRows {
            rank: input.rank,
            byte: input.read,
            why,
        })
    }
}

fn slice<R>(rows: &[R], from: usize, count: usize) -> &[R] {
    let from = from.min(rows.len());
    &rows[from..rows.len().min(from + count)]
}

fn put_table<R: Row>(bytes: &mut Vec<u8>, rows: &[R]) {
    let count = u32::try_from(rows.len()).expect("batches are cut far below that");
    bytes.extend(count.to_le_bytes());
    let mut columns = Columns::new(&R::TABLE);
    rows.iter().for_each(|row| row.put(&mut columns));
    for column in &columns.ints {
        put_column(bytes, column.iter().map(|value| i64::from(*value)));
    }
    for column in &columns.longs {
        put_column(bytes, column.iter().copied());
    }
    for column in &columns.optional {
        put_column(bytes, column.iter().map(|it| i64::from(it.is_some())));
        put_column(bytes, column.iter().flatten().copied());
    }
}

fn put_column(bytes: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let mut last = 0i64;
    for value in values {
        let difference = value.wrapping_sub(last);
        last = value;
        let mut rest = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
        while rest >= u64::from(MORE) {
            bytes.push(rest as u8 | MORE);
            rest >>= GROUP_BITS;
        }
        bytes.push(rest as u8);
    }
}

/// What is still to be read.
struct Input<'a> {
    bytes: &'a [u8],
    /// The rank that the rows are of, once that is known.
    rank: Option<u32>,
    /// Bytes that were read.
    read: usize,
}

impl Input<'_> {
    fn batch(&mut self, extent: Extent) -> Result<Batch, String> {
        let [tag] = self.take()?;
        if tag != TAG {
            return Err(format!("they have form {tag}, not {TAG}"));
        }
        let lags = u64::from_le_bytes(self.take()?);
        let samples = self.table::<Sample>()?;
        let steps = self.table::<StepWork>()?;
        let telemetry = self.table::<Telemetry>()?;
        let devices = self.table::<DeviceReading>()?;
        if !self.bytes.is_empty() {
            return Err(format!("{} bytes follow the last row", self.bytes.len()));
        }
        let ranks = samples.iter().map(|row| row.rank);
        let ranks = ranks.chain(steps.iter().map(|row| row.rank));
        for rank in ranks.chain(devices.iter().map(|row: &DeviceReading| row.rank)) {
            if rank as usize >= extent.ranks {
                self.rank = Some(rank);
                return Err(format!("there are {} ranks", extent.ranks));
            }
        }
        let mut hosts = telemetry.iter().map(|row: &Telemetry| row.host);
        if let Some(host) = hosts.find(|host| *host as usize >= extent.hosts) {
            return Err(format!("they name host {host} of {}", extent.hosts));
        }
        Ok(Batch {
            samples,
            steps,
            telemetry,
            devices,
            lags,
        })
    }

    fn table<R: Row>(&mut self) -> Result<Vec<R>, String> {
        let rows = u32::from_le_bytes(self.take()?) as usize;
        let table = R::TABLE;
        let width = table.ints.len() + table.longs.len() + table.optional.len();
        // Each value takes a byte at least: no more is set aside than bytes can fill.
        if rows > self.bytes.len() / width {
            return Err(format!(
                "{rows} rows of table {} do not fit in {} bytes",
                R::TABLE.name,
                self.bytes.len()
            ));
        }
        let mut columns = Columns::new(&R::TABLE);
        for (at, column) in columns.ints.iter_mut().enumerate() {
            self.column(rows, |value| {
                column.push(i32::try_from(value).map_err(|_| {
                    format!("column {} has {value}, over 32 bits", R::TABLE.ints[at])
                })?);
                Ok(())
            })?;
            if R::TABLE.ints[at] == "rank" {
                self.rank = column.first().map(|rank| *rank as u32).or(self.rank);
            }
        }
        for column in &mut columns.longs {
            self.column(rows, |value| {
                column.push(value);
                Ok(())
            })?;
        }
        for column in &mut columns.optional {
            self.optional_column(rows, column)?;
        }
        Ok((0..rows).map(|row| R::get(&columns, row)).collect())
    }

    fn optional_column(
        &mut self,
        rows: usize,
        column: &mut Vec<Option<i64>>,
    ) -> Result<(), String> {
        let mut is_there = Vec::new();
        self.column(rows, |value| match value {
            0 | 1 => {
                is_there.push(value == 1);
                Ok(())
            }
            other => Err(format!("a value is {other} times there")),
        })?;
        let count = is_there.iter().filter(|it| **it).count();
        let mut values = Vec::new();
        self.column(count, |value| {
            values.push(value);
            Ok(())
        })?;
        let mut values = values.into_iter();
        let value = |is_there: bool| is_there.then(|| values.next()).flatten();
        column.extend(is_there.into_iter().map(value));
        Ok(())
    }

    fn column(
        &mut self,
        rows: usize,
        mut put: impl FnMut(i64) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut last = 0i64;
        for _ in 0..rows {
            let coded = self.number()?;
            let difference = (coded >> 1).cast_signed() ^ -((coded & 1).cast_signed());
            last = last.wrapping_add(difference);
            put(last)?;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(GROUP_BITS as usize) {
            let [byte] = self.take()?;
            let bits = u64::from(byte & !MORE);
            if bits << shift >> shift != bits {
                return Err("a number has more than 64 bits".to_owned());
            }
            number |= bits << shift;
            if byte & MORE == 0 {
                return Ok(number);
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or_else(|| "they are cut off".to_owned())?;
        self.bytes = rest;
        self.read += N;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests;
