//! Writing a whole record at once, for whoever has all rows at hand: simulations and imports.

use crate::check::check_manifest;
use crate::closing::Closing;
use crate::columns::Row;
use crate::error::RecordError;
use crate::files::{write_dense_json, write_json};
use crate::manifest::Manifest;
use crate::part::{TABLES, segment_path};
use crate::reader::{CLOSING_FILE, MANIFEST_FILE};
use crate::segment::write_rows;
use crate::table::{DeviceReading, Sample, StepWork, Telemetry};
use std::fs;
use std::path::Path;

/// Rows of one segment of a bulk-written record: enough segments to read side by side, few enough
/// files.
const SEGMENT_ROWS: u64 = 1 << 20;
/// Ranks above which nobody reads a manifest line by line.
const DENSE_ABOVE: usize = 1 << 12;

/// The rows of a record's tables.
#[derive(Debug, Clone)]
pub struct TableRows<S, W, T> {
    /// Table `samples`.
    pub samples: S,
    /// Table `steps`.
    pub steps: W,
    /// Table `telemetry`.
    pub telemetry: T,
}

/// Writes a whole record, closing included. The counts of `closing` are filled in. Histograms are
/// left to [`crate::RecordWriter`].
///
/// # Errors
/// If the manifest is not consistent, `dir` holds something already, or a file cannot be written.
pub fn write_record<S, W, T>(
    dir: &Path,
    manifest: &Manifest,
    rows: TableRows<S, W, T>,
    closing: Closing,
) -> Result<Closing, RecordError>
where
    S: IntoIterator<Item = Sample>,
    W: IntoIterator<Item = StepWork>,
    T: IntoIterator<Item = Telemetry>,
{
    create_record(dir, manifest)?;
    let closing = Closing {
        samples: write_table(dir, rows.samples.into_iter())?,
        steps: write_table(dir, rows.steps.into_iter())?,
        telemetry: write_table(dir, rows.telemetry.into_iter())?,
        ..closing
    };
    write_json(&dir.join(CLOSING_FILE), &closing)?;
    Ok(closing)
}

/// Adds what accelerators told of themselves to a record that [`write_record`] wrote, once. The
/// counts of its closing do not include it.
///
/// # Errors
/// If a file cannot be written.
pub fn write_devices(
    dir: &Path,
    rows: impl IntoIterator<Item = DeviceReading>,
) -> Result<(), RecordError> {
    write_table(dir, rows.into_iter()).map(|_| ())
}

/// Makes a record directory with its manifest and no rows.
pub(crate) fn create_record(dir: &Path, manifest: &Manifest) -> Result<(), RecordError> {
    let path = dir.join(MANIFEST_FILE);
    check_manifest(manifest, &path)?;
    fs::create_dir_all(dir).map_err(|error| RecordError::io("create", dir, &error))?;
    if path.exists() {
        return Err(RecordError::AlreadyARecord {
            path: dir.to_owned(),
        });
    }
    let mut entries = fs::read_dir(dir).map_err(|error| RecordError::io("list", dir, &error))?;
    if let Some(entry) = entries.next() {
        let entry = entry.map_err(|error| RecordError::io("list", dir, &error))?;
        let holds = entry.file_name().to_string_lossy().into_owned();
        return Err(RecordError::ForeignDirectory {
            path: dir.to_owned(),
            holds,
        });
    }
    for table in &TABLES {
        let dir = dir.join(table.name);
        fs::create_dir(&dir).map_err(|error| RecordError::io("create", &dir, &error))?;
    }
    match manifest.ranks.len() > DENSE_ABOVE {
        true => write_dense_json(&path, manifest),
        false => write_json(&path, manifest),
    }
}

pub(crate) fn write_table<R: Row>(
    dir: &Path,
    mut rows: impl Iterator<Item = R>,
) -> Result<u64, RecordError> {
    let mut total = 0;
    for index in 0.. {
        let written = write_rows(
            &segment_path(dir, &R::TABLE, 0, index),
            &mut rows,
            SEGMENT_ROWS,
        )?;
        total += written;
        if written < SEGMENT_ROWS {
            break;
        }
    }
    Ok(total)
}
