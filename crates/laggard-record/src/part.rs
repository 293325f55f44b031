//! Parts of a record: the files that one host's writer makes. Part 0 is the root's; the files of
//! the others carry the part in their names, so that all parts fit in one directory. Where the
//! hosts do not share a directory, or should not trouble it, a part grows in a scratch directory
//! and its files are taken to the record at the end. Knows nothing of how bytes travel.

use crate::columns::{Row, Table};
use crate::error::RecordError;
use crate::files::write_whole;
use crate::manifest::Manifest;
use crate::reader::MANIFEST_FILE;
use crate::segment::merge_segments;
use crate::table::{DeviceReading, Sample, StepWork, Telemetry};
use serde::Deserialize;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The tables of a record.
pub(crate) const TABLES: [Table; 4] = [
    Sample::TABLE,
    StepWork::TABLE,
    Telemetry::TABLE,
    DeviceReading::TABLE,
];
/// What the name of the root's marker begins with.
const MARKER_PREFIX: &str = ".shared-";

/// The name of a table's segment within its directory.
fn segment_name(part: u32, index: u32) -> String {
    match part {
        0 => format!("{index:06}.parquet"),
        _ => format!("part-{part:05}-{index:06}.parquet"),
    }
}

/// The path of a table's segment.
pub(crate) fn segment_path(dir: &Path, table: &Table, part: u32, index: u32) -> PathBuf {
    dir.join(table.name).join(segment_name(part, index))
}

/// The name of a part's histograms.
pub(crate) fn histogram_name(part: u32) -> String {
    match part {
        0 => "histograms.hlog".to_owned(),
        _ => format!("histograms-part-{part:05}.hlog"),
    }
}

/// Whether a file within a table's directory is a segment of the part.
fn is_segment_of(part: u32, name: &str) -> bool {
    let index = match part {
        0 => Some(name),
        _ => name.strip_prefix(&format!("part-{part:05}-")),
    };
    let index = index.and_then(|rest| rest.strip_suffix(".parquet"));
    // Only the name that the index gives: no other spelling of the number, nothing before it.
    index
        .and_then(|digits| digits.parse().ok())
        .is_some_and(|index| segment_name(part, index) == name)
}

/// Whether a name relative to the record is one that the part's writer gives.
fn is_file_of(part: u32, name: &str) -> bool {
    match name.split_once('/') {
        None => name == histogram_name(part),
        Some((table, segment)) => {
            TABLES.iter().any(|known| known.name == table) && is_segment_of(part, segment)
        }
    }
}

/// The files of a part in `dir`: name relative to `dir`, path and size in bytes. A part that was
/// closed in a scratch directory has at most one file per table, and its histograms.
///
/// # Errors
/// If `dir` cannot be listed.
pub fn part_files(dir: &Path, part: u32) -> Result<Vec<(String, PathBuf, u64)>, RecordError> {
    let mut files = Vec::new();
    for table in &TABLES {
        for path in segments_of_part(dir, table, part)? {
            let segment = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{}/{segment}", table.name);
            files.push((name, path));
        }
    }
    let histograms = dir.join(histogram_name(part));
    if histograms.exists() {
        files.push((histogram_name(part), histograms));
    }
    let with_size = |(name, path): (String, PathBuf)| {
        let size = fs::metadata(&path).map_err(|error| RecordError::io("open", &path, &error))?;
        Ok((name, path, size.len()))
    };
    files.into_iter().map(with_size).collect()
}

/// Takes a file of a part into the record in `dir`. `name` is the one that [`part_files`] gave on
/// the part's host. The file appears whole or not at all; one of the same name is replaced, so that
/// a transfer may be repeated. Returns its size in bytes.
///
/// # Errors
/// If the part's writer gives no such name, `bytes` cannot be read or the file not be written.
pub fn accept_file(
    dir: &Path,
    part: u32,
    name: &str,
    mut bytes: impl Read,
) -> Result<u64, RecordError> {
    if !is_file_of(part, name) {
        return Err(RecordError::NotOfPart {
            part,
            name: name.to_owned(),
        });
    }
    let path = dir.join(name);
    let mut size = 0;
    write_whole(&path, |mut file| {
        size = io::copy(&mut bytes, &mut file)
            .map_err(|error| RecordError::io("write", &path, &error))?;
        Ok(())
    })?;
    Ok(size)
}

/// Removes a part from a scratch directory, and what directories that leaves empty.
///
/// # Errors
/// If a file cannot be removed.
pub fn remove_part(dir: &Path, part: u32) -> Result<(), RecordError> {
    for (_, path, _) in part_files(dir, part)? {
        fs::remove_file(&path).map_err(|error| RecordError::io("remove", &path, &error))?;
    }
    // What other parts still use stays: a directory that is not empty cannot be removed.
    let tables = TABLES.iter().map(|table| dir.join(table.name));
    tables.chain([dir.to_owned()]).for_each(|dir| {
        let _ = fs::remove_dir(dir);
    });
    Ok(())
}

/// Whether `dir` is, also on this host, the directory in which the root's writer gave `nonce`
/// ([`crate::RecordWriter::nonce`]). A directory that cannot be listed is not.
pub fn is_shared(dir: &Path, nonce: &str) -> bool {
    let marker = marker_name(nonce);
    // The directory is listed, not asked for the name: network file systems refresh what they know
    // of a directory when it is opened, but may remember for a while that a name was not there.
    fs::read_dir(dir).is_ok_and(|entries| {
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy() == marker)
    })
}

/// Puts a marker with a fresh nonce into `dir`.
pub(crate) fn mark(dir: &Path) -> Result<String, RecordError> {
    // The standard library seeds its hash maps from the system's randomness.
    let random = || RandomState::new().build_hasher().finish();
    let nonce = format!("{:016x}{:016x}", random(), random());
    let path = dir.join(marker_name(&nonce));
    fs::File::create_new(&path).map_err(|error| RecordError::io("create", &path, &error))?;
    Ok(nonce)
}

/// Takes the marker away.
pub(crate) fn unmark(dir: &Path, nonce: &str) {
    // One that stays disturbs nobody: names that begin with a dot are passed over.
    let _ = fs::remove_file(dir.join(marker_name(nonce)));
}

fn marker_name(nonce: &str) -> String {
    format!("{MARKER_PREFIX}{nonce}")
}

/// Merges the segments of each table into one. A kill between a merged segment's appearance and the
/// removal of the others leaves rows twice, in a scratch directory that then nobody gathers.
pub(crate) fn compact(dir: &Path, part: u32) -> Result<(), RecordError> {
    for table in &TABLES {
        let segments = segments_of_part(dir, table, part)?;
        if segments.len() < 2 {
            continue;
        }
        merge_segments(&segments, &segments[0], table)?;
        for path in &segments[1..] {
            fs::remove_file(path).map_err(|error| RecordError::io("remove", path, &error))?;
        }
    }
    Ok(())
}

/// Makes ready for a part's files: in the directory of this run's record, or in a scratch
/// directory, which is created. Says whether it is a scratch directory.
pub(crate) fn enter(dir: &Path, manifest: &Manifest, part: u32) -> Result<bool, RecordError> {
    let is_record = has_manifest_of(dir, manifest)?;
    if !is_record {
        refuse_foreign(dir)?;
        for table in &TABLES {
            let dir = dir.join(table.name);
            fs::create_dir_all(&dir).map_err(|error| RecordError::io("create", &dir, &error))?;
        }
    }
    let first = |table: &Table| segment_path(dir, table, part, 0);
    if TABLES.iter().any(|table| first(table).exists()) {
        return Err(RecordError::AlreadyARecord {
            path: dir.to_owned(),
        });
    }
    Ok(!is_record)
}

/// What tells the record of one run from that of another.
#[derive(Deserialize)]
struct Identity {
    created_unix_ns: i64,
}

fn has_manifest_of(dir: &Path, manifest: &Manifest) -> Result<bool, RecordError> {
    let path = dir.join(MANIFEST_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(RecordError::io("read", &path, &error)),
    };
    let found: Identity =
        serde_json::from_slice(&text).map_err(|error| RecordError::json(&path, &error))?;
    if found.created_unix_ns != manifest.created_unix_ns {
        return Err(RecordError::OtherRun {
            path: dir.to_owned(),
        });
    }
    Ok(true)
}

/// Refuses a directory without a manifest that holds anything but parts.
fn refuse_foreign(dir: &Path) -> Result<(), RecordError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RecordError::io("list", dir, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| RecordError::io("list", dir, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_histograms = name.starts_with("histograms") && name.ends_with(".hlog");
        if !is_histograms && !TABLES.iter().any(|table| table.name == name) {
            return Err(RecordError::ForeignDirectory {
                path: dir.to_owned(),
                holds: name,
            });
        }
    }
    Ok(())
}

/// The segments of a table that belong to a part, in order.
fn segments_of_part(dir: &Path, table: &Table, part: u32) -> Result<Vec<PathBuf>, RecordError> {
    let mut paths = segments_of(dir, table.name)?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        is_segment_of(part, &name)
    });
    Ok(paths)
}

/// The finished segments of a table, of all parts, in order of name; none where the table was never
/// written.
pub(crate) fn segments_of(dir: &Path, table: &str) -> Result<Vec<PathBuf>, RecordError> {
    let dir = dir.join(table);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RecordError::io("list", &dir, &error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| RecordError::io("list", &dir, &error))?
            .path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".parquet") && !name.starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_part_are_its_files() {
        let check = |part, name: &str, expect| {
            assert_eq!(is_file_of(part, name), expect, "{part}: {name}");
        };
        check(3, "samples/part-00003-000000.parquet", true);
        check(3, "telemetry/part-00003-1000000.parquet", true);
        check(3, "histograms-part-00003.hlog", true);
        check(100_000, "steps/part-100000-000012.parquet", true);
        check(0, "steps/000012.parquet", true);
        check(0, "histograms.hlog", true);
        for name in [
            "",
            "/",
            "samples/",
            "manifest.json",
            "closing.json",
            "histograms.hlog",
            "samples/000000.parquet",
            "samples/part-00004-000000.parquet",
            "samples/part-00003-0.parquet",
            "samples/part-00003-+00001.parquet",
            "samples/part-00003-.parquet",
            "samples/part-00003-99999999999.parquet",
            "samples/.tmp-part-00003-000000.parquet",
            "samples/../samples/part-00003-000000.parquet",
            "../samples/part-00003-000000.parquet",
            "/samples/part-00003-000000.parquet",
            "./samples/part-00003-000000.parquet",
            "samples//part-00003-000000.parquet",
            "samples/part-00003-000000.parquet\0",
            "other/part-00003-000000.parquet",
        ] {
            check(3, name, false);
        }
    }
}
