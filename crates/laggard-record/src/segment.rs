//! One segment of a table: a Parquet file of row groups.
//!
//! Integers are stored as DELTA_BINARY_PACKED without further compression: times of one rank grow
//! by little, ranks and steps hardly change, so deltas take few bits and decode fast. pandas,
//! polars and DuckDB read it.

use crate::columns::{Columns, Row, Table};
use crate::error::RecordError;
use crate::files::write_whole;
use parquet::basic::{Encoding, Repetition, Type as PhysicalType};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{SchemaDescriptor, Type};
use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of one row group: what a writer holds in memory.
const GROUP_ROWS: usize = 1 << 18;
/// Rows that a reader decodes at a time.
const BATCH_ROWS: usize = 1 << 16;

/// Writes up to `limit` rows of `rows` as one segment. Returns how many there were; where there
/// are none, no file is written.
pub(crate) fn write_rows<R: Row>(
    path: &Path,
    rows: &mut impl Iterator<Item = R>,
    limit: u64,
) -> Result<u64, RecordError> {
    let Some(first) = rows.next() else {
        return Ok(0);
    };
    let mut rows = std::iter::once(first).chain(rows.take((limit - 1) as usize));
    let mut total = 0;
    write_whole(path, |file| {
        total = write_groups(file, &mut rows).map_err(|error| failure(path, &error))?;
        Ok(())
    })?;
    Ok(total)
}

fn write_groups<R: Row>(
    sink: impl Write + Send,
    rows: &mut impl Iterator<Item = R>,
) -> Result<u64, ParquetError> {
    let mut writer = open_writer(&R::TABLE, sink)?;
    let mut columns = Columns::new(&R::TABLE);
    let mut total = 0;
    loop {
        columns.clear();
        rows.take(GROUP_ROWS).for_each(|row| row.put(&mut columns));
        if columns.rows() == 0 {
            break;
        }
        write_group(&mut writer, &columns)?;
        total += columns.rows() as u64;
    }
    // Not `into_inner`, which keeps only the words of what the operating system refuses.
    writer.close()?;
    Ok(total)
}

/// Writes the rows of `segments`, in that order, as the one segment `path`, which may be one of
/// them.
pub(crate) fn merge_segments(
    segments: &[PathBuf],
    path: &Path,
    table: &Table,
) -> Result<(), RecordError> {
    write_whole(path, |file| {
        let failed = |error: ParquetError| failure(path, &error);
        let mut writer = open_writer(table, file).map_err(failed)?;
        let mut group = Columns::new(table);
        let mut written = Ok(());
        for segment in segments {
            read_batches(segment, table, &mut |rows| {
                group.append(rows);
                if group.rows() >= GROUP_ROWS && written.is_ok() {
                    written = write_group(&mut writer, &group);
                    group.clear();
                }
            })?;
        }
        if group.rows() > 0 && written.is_ok() {
            written = write_group(&mut writer, &group);
        }
        written.and_then(|()| writer.close()).map_err(failed)?;
        Ok(())
    })
}

/// Decodes a segment batch by batch. Rows come as they were written, unchecked.
pub(crate) fn read_batches(
    path: &Path,
    table: &Table,
    visit: &mut dyn FnMut(&mut Columns),
) -> Result<(), RecordError> {
    let failed = |error: ParquetError| failure(path, &error);
    let file = File::open(path).map_err(|error| RecordError::io("open", path, &error))?;
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(failed)?;
    let places = places_of(
        path,
        table,
        reader.metadata().file_metadata().schema_descr(),
    )?;
    let mut columns = Columns::new(table);
    for group in 0..reader.num_row_groups() {
        let mut open = guarded(|| {
            let group = reader.get_row_group(group)?;
            OpenGroup::new(group.as_ref(), &places)
        })
        .map_err(failed)?;
        loop {
            columns.clear();
            guarded(|| open.next(&mut columns)).map_err(failed)?;
            if columns.rows() == 0 {
                break;
            }
            visit(&mut columns);
        }
    }
    Ok(())
}

fn open_writer<W: Write + Send>(
    table: &Table,
    sink: W,
) -> Result<SerializedFileWriter<W>, ParquetError> {
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BINARY_PACKED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("laggard ", env!("CARGO_PKG_VERSION")).to_owned());
    SerializedFileWriter::new(
        sink,
        Arc::new(schema_of(table)?),
        Arc::new(properties.build()),
    )
}

fn schema_of(table: &Table) -> Result<Type, ParquetError> {
    let (required, optional) = (Repetition::REQUIRED, Repetition::OPTIONAL);
    let columns = |names: &'static [&'static str], physical, repetition| {
        names.iter().map(move |name| (*name, physical, repetition))
    };
    let all = columns(table.ints, PhysicalType::INT32, required)
        .chain(columns(table.longs, PhysicalType::INT64, required))
        .chain(columns(table.optional, PhysicalType::INT64, optional));
    let fields = all.map(|(name, physical, repetition)| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(repetition)
            .build()
            .map(Arc::new)
    });
    Type::group_type_builder(table.name)
        .with_fields(fields.collect::<Result<_, _>>()?)
        .build()
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    columns: &Columns,
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for column in &columns.ints {
        let mut out = group
            .next_column()?
            .expect("the schema has every column of the table");
        out.typed::<Int32Type>().write_batch(column, None, None)?;
        out.close()?;
    }
    for column in &columns.longs {
        let mut out = group
            .next_column()?
            .expect("the schema has every column of the table");
        out.typed::<Int64Type>().write_batch(column, None, None)?;
        out.close()?;
    }
    for column in &columns.optional {
        let mut out = group
            .next_column()?
            .expect("the schema has every column of the table");
        let values: Vec<i64> = column.iter().flatten().copied().collect();
        let is_there: Vec<i16> = column.iter().map(|it| i16::from(it.is_some())).collect();
        out.typed::<Int64Type>()
            .write_batch(&values, Some(&is_there), None)?;
        out.close()?;
    }
    group.close()?;
    Ok(())
}

/// Where the table's columns stand in a file.
struct Places {
    ints: Vec<usize>,
    longs: Vec<usize>,
    /// `None` of a column that the file does not have.
    optional: Vec<Option<usize>>,
}

/// Finds the table's columns. Others are passed over, so that a later laggard may add some.
fn places_of(path: &Path, table: &Table, schema: &SchemaDescriptor) -> Result<Places, RecordError> {
    let find = |name: &'static str, physical, nullable: bool| {
        let wrong = |why: String| RecordError::WrongColumn {
            path: path.to_owned(),
            column: name.to_owned(),
            why,
        };
        let found = (schema.columns().iter().enumerate())
            .find(|(_, column)| column.path().parts() == [name]);
        let Some((place, column)) = found else {
            return match nullable {
                true => Ok(None),
                false => Err(wrong("is missing".to_owned())),
            };
        };
        if column.physical_type() != physical {
            let found = column.physical_type();
            return Err(wrong(format!("is {found}, not {physical}")));
        }
        if column.max_def_level() != i16::from(nullable) || column.max_rep_level() != 0 {
            return Err(wrong(match nullable {
                true => "is not of single values that may be null".to_owned(),
                false => "may be null or repeated".to_owned(),
            }));
        }
        Ok(Some(place))
    };
    let all = |names: &'static [&'static str], physical, nullable| {
        let places = names.iter().map(|name| find(name, physical, nullable));
        places.collect::<Result<Vec<_>, _>>()
    };
    // What must be there and is not has been an error.
    let there = |places: Vec<Option<usize>>| places.into_iter().flatten().collect();
    Ok(Places {
        ints: there(all(table.ints, PhysicalType::INT32, false)?),
        longs: there(all(table.longs, PhysicalType::INT64, false)?),
        optional: all(table.optional, PhysicalType::INT64, true)?,
    })
}

/// The columns of one row group, being decoded side by side.
struct OpenGroup {
    ints: Vec<ColumnReaderImpl<Int32Type>>,
    longs: Vec<ColumnReaderImpl<Int64Type>>,
    /// `None` of a column that the file does not have.
    optional: Vec<Option<ColumnReaderImpl<Int64Type>>>,
    rows_left: usize,
}

impl OpenGroup {
    fn new(group: &dyn RowGroupReader, places: &Places) -> Result<Self, ParquetError> {
        let optional = places.optional.iter();
        let open = |place: &Option<usize>| place.map(|it| one(group, it)).transpose();
        Ok(Self {
            ints: typed(group, &places.ints)?,
            longs: typed(group, &places.longs)?,
            optional: optional.map(open).collect::<Result<_, _>>()?,
            rows_left: usize::try_from(group.metadata().num_rows())
                .map_err(|_| ParquetError::General("negative number of rows".to_owned()))?,
        })
    }

    /// Appends the next batch; nothing at the end of the group.
    fn next(&mut self, columns: &mut Columns) -> Result<(), ParquetError> {
        let rows = self.rows_left.min(BATCH_ROWS);
        fill(&mut self.ints, &mut columns.ints, rows)?;
        fill(&mut self.longs, &mut columns.longs, rows)?;
        for (reader, column) in self.optional.iter_mut().zip(&mut columns.optional) {
            match reader {
                Some(reader) => fill_optional(reader, column, rows)?,
                None => column.resize(column.len() + rows, None),
            }
        }
        self.rows_left -= rows;
        Ok(())
    }
}

fn typed<T: DataType>(
    group: &dyn RowGroupReader,
    places: &[usize],
) -> Result<Vec<ColumnReaderImpl<T>>, ParquetError> {
    places.iter().map(|place| one(group, *place)).collect()
}

fn one<T: DataType>(
    group: &dyn RowGroupReader,
    place: usize,
) -> Result<ColumnReaderImpl<T>, ParquetError> {
    Ok(get_typed_column_reader(group.get_column_reader(place)?))
}

fn fill<T: DataType>(
    readers: &mut [ColumnReaderImpl<T>],
    columns: &mut [Vec<T::T>],
    rows: usize,
) -> Result<(), ParquetError> {
    for (reader, column) in readers.iter_mut().zip(columns) {
        let (read, _, _) = reader.read_records(rows, None, None, column)?;
        is_whole(read, rows)?;
    }
    Ok(())
}

fn fill_optional(
    reader: &mut ColumnReaderImpl<Int64Type>,
    column: &mut Vec<Option<i64>>,
    rows: usize,
) -> Result<(), ParquetError> {
    let (mut is_there, mut values) = (Vec::new(), Vec::new());
    let (read, _, _) = reader.read_records(rows, Some(&mut is_there), None, &mut values)?;
    is_whole(read, rows)?;
    let mut values = values.into_iter();
    let value = |is_there: i16| (is_there != 0).then(|| values.next()).flatten();
    column.extend(is_there.into_iter().map(value));
    Ok(())
}

fn is_whole(read: usize, rows: usize) -> Result<(), ParquetError> {
    if read == rows {
        return Ok(());
    }
    let short = format!("a column ends {} rows early", rows - read);
    Err(ParquetError::General(short))
}

/// Runs a part of the decoder. On some damaged files it panics instead of failing; for us that is
/// a file that cannot be read.
fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General(
            "the file is damaged: its decoder gave up".to_owned(),
        ))
    })
}

/// Parquet wraps failures of the operating system; users need to see those as such.
fn failure(path: &Path, error: &ParquetError) -> RecordError {
    if let ParquetError::External(inner) = error
        && let Some(system) = inner.downcast_ref::<io::Error>()
        && system.raw_os_error().is_some()
    {
        return RecordError::io("write", path, system);
    }
    RecordError::segment(path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{DeviceReading, StepWork};
    use laggard_types::Gauge;

    /// A disk with room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            match count {
                0 => Err(io::Error::from_raw_os_error(28)),
                _ => Ok(count),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fills_up_is_named_wherever_it_does() {
        let rows = || {
            (0..1000_u32).map(|step| StepWork {
                step,
                rank: step.wrapping_mul(2_654_435_761) >> 1,
                tokens: 0,
                tokens_squared: 0,
            })
        };
        let mut whole = Vec::new();
        write_groups(&mut whole, &mut rows()).expect("a segment");
        for room in 0..whole.len() {
            let refused = write_groups(Disk(room), &mut rows()).expect_err("a full disk");
            let message = failure(Path::new("a.parquet"), &refused).to_string();
            assert!(
                message.contains("hint: free some space"),
                "{room}: {message}"
            );
        }
    }

    /// Rows of an earlier version of table `device_telemetry`, which had one gauge.
    #[derive(Clone, Copy)]
    struct Earlier(Option<i64>);

    impl Row for Earlier {
        const TABLE: Table = Table {
            optional: &["power_mw"],
            ..DeviceReading::TABLE
        };

        fn put(&self, columns: &mut Columns) {
            columns.put(&[1], &[2]);
            columns.optional[0].push(self.0);
        }

        fn get(columns: &Columns, row: usize) -> Self {
            Self(columns.optional[0][row])
        }
    }

    #[test]
    fn columns_that_were_added_later_are_null() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.parquet");
        let powers = [Some(5), None, Some(7)];
        let written = write_rows(&path, &mut powers.into_iter().map(Earlier), u64::MAX);
        assert_eq!(written, Ok(3));
        let mut read = Vec::new();
        let visited = read_batches(&path, &DeviceReading::TABLE, &mut |rows| {
            read.extend((0..rows.rows()).map(|row| DeviceReading::get(rows, row)));
        });
        assert_eq!(visited, Ok(()));
        let shown = read.iter().map(|row| row.state.get(Gauge::Power));
        assert_eq!(shown.collect::<Vec<_>>(), powers);
        let others = read
            .iter()
            .filter(|row| row.state.get(Gauge::SmClock).is_some());
        assert_eq!(others.count(), 0);
    }
}
