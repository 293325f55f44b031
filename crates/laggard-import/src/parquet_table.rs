//! Foreign Parquet files, column by column, with errors that name column and row.

use crate::error::ImportError;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescPtr;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1 << 16;

/// An open Parquet file.
pub(crate) struct ParquetTable {
    path: PathBuf,
    reader: SerializedFileReader<File>,
}

impl ParquetTable {
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let file = File::open(path).map_err(|error| ImportError::io(path, &error))?;
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(|error| {
            ImportError::BrokenParquet {
                path: path.to_owned(),
                why: error.to_string(),
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            reader,
        })
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.find(column).is_some()
    }

    pub(crate) fn column_names(&self) -> Vec<String> {
        self.columns()
            .iter()
            .map(|column| column.path().string())
            .collect()
    }

    /// A column of whole numbers.
    pub(crate) fn integers(&self, column: &str) -> Result<Vec<i64>, ImportError> {
        use parquet::basic::Type;
        match self.physical_type(column)? {
            Type::INT32 => self.read::<Int32Type, _>(column, |value| i64::from(*value)),
            Type::INT64 => self.read::<Int64Type, _>(column, |value| *value),
            other => Err(self.wrong(column, format!("is {other}, not INT32 or INT64"))),
        }
    }

    /// A column of real numbers.
    pub(crate) fn reals(&self, column: &str) -> Result<Vec<f64>, ImportError> {
        use parquet::basic::Type;
        match self.physical_type(column)? {
            Type::FLOAT => self.read::<FloatType, _>(column, |value| f64::from(*value)),
            Type::DOUBLE => self.read::<DoubleType, _>(column, |value| *value),
            other => Err(self.wrong(column, format!("is {other}, not FLOAT or DOUBLE"))),
        }
    }

    /// A column of texts.
    pub(crate) fn texts(&self, column: &str) -> Result<Vec<ByteArray>, ImportError> {
        use parquet::basic::Type;
        match self.physical_type(column)? {
            Type::BYTE_ARRAY => self.read::<ByteArrayType, _>(column, ByteArray::clone),
            other => Err(self.wrong(column, format!("is {other}, not a text"))),
        }
    }

    fn columns(&self) -> &[ColumnDescPtr] {
        self.reader
            .metadata()
            .file_metadata()
            .schema_descr()
            .columns()
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.columns()
            .iter()
            .position(|column| column.path().parts() == [name])
    }

    fn physical_type(&self, column: &str) -> Result<parquet::basic::Type, ImportError> {
        let missing = || self.wrong(column, "is missing".to_owned());
        let place = self.find(column).ok_or_else(missing)?;
        let description = &self.columns()[place];
        if description.max_rep_level() > 0 {
            return Err(self.wrong(column, "is a list".to_owned()));
        }
        Ok(description.physical_type())
    }

    fn read<T: DataType, V>(
        &self,
        column: &str,
        convert: impl Fn(&T::T) -> V,
    ) -> Result<Vec<V>, ImportError> {
        let place = self.find(column).expect("the caller looked for it");
        let mut values = Vec::new();
        let mut null = None;
        let read = guarded(|| {
            for group in 0..self.reader.num_row_groups() {
                let group = self.reader.get_row_group(group)?;
                let mut reader = get_typed_column_reader::<T>(group.get_column_reader(place)?);
                loop {
                    let (mut batch, mut levels) = (Vec::new(), Vec::new());
                    let (rows, count, _) =
                        reader.read_records(BATCH_ROWS, Some(&mut levels), None, &mut batch)?;
                    if rows == 0 {
                        break;
                    }
                    if count < rows {
                        let first = levels.iter().position(|level| *level == 0).unwrap_or(0);
                        null.get_or_insert(values.len() + first);
                    }
                    values.extend(batch.iter().map(&convert));
                }
            }
            Ok(())
        });
        if let Err(error) = read {
            return Err(self.wrong(column, format!("cannot be read: {error}")));
        }
        if let Some(row) = null {
            let why = format!("`{column}` has no value");
            return Err(ImportError::BadRow {
                path: self.path.clone(),
                row,
                why,
            });
        }
        Ok(values)
    }

    fn wrong(&self, column: &str, why: String) -> ImportError {
        ImportError::WrongColumn {
            path: self.path.clone(),
            column: column.to_owned(),
            why,
        }
    }
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
