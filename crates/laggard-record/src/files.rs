//! Files that appear whole or not at all: written under a temporary name, then renamed.

use crate::error::RecordError;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Prefix of files that are not finished; readers pass over them.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

/// Lets `fill` write a file, flushes it to the disk and gives it its name. A file that failed is
/// removed.
pub(crate) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&File) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let temporary = temporary_of(path);
    let written = File::create(&temporary)
        .map_err(|error| RecordError::io("create", &temporary, &error))
        .and_then(|file| {
            fill(&file)?;
            file.sync_all()
                .map_err(|error| RecordError::io("write", path, &error))
        })
        .and_then(|()| {
            fs::rename(&temporary, path).map_err(|error| RecordError::io("name", path, &error))
        });
    if written.is_err() {
        // Nothing better can be done about a file that cannot even be removed.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes `value` as indented JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    write_with(path, |out| serde_json::to_writer_pretty(out, value))
}

/// Writes `value` as JSON in one line, which for long lists takes a fraction of the room.
pub(crate) fn write_dense_json(path: &Path, value: &impl Serialize) -> Result<(), RecordError> {
    write_with(path, |out| serde_json::to_writer(out, value))
}

fn write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> serde_json::Result<()>,
) -> Result<(), RecordError> {
    write_whole(path, |file| {
        let mut out = BufWriter::new(file);
        write(&mut out)
            .map_err(std::io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .map_err(|error| RecordError::io("write", path, &error))
    })
}

fn temporary_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{TEMPORARY_PREFIX}{name}"))
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
mod tests {
    use super::*;

    #[test]
    fn a_failed_file_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a.json");
        let failure = RecordError::segment(&path, "on purpose");
        let result = write_whole(&path, |_| Err(failure.clone()));
        assert_eq!(result, Err(failure));
        assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 0);
    }

    #[test]
    fn a_full_disk_is_named() {
        // Linux refuses every write to this device for want of space.
        let Ok(full) = File::create("/dev/full") else {
            eprintln!("skipped: this system has no /dev/full");
            return;
        };
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("a.json");
        let result = write_whole(&path, |_| {
            (&full)
                .write_all(b"x")
                .map_err(|error| RecordError::io("write", &path, &error))
        });
        let message = result.expect_err("a full disk").to_string();
        assert!(message.contains("hint: free some space"), "{message}");
        assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 0);
    }
}
