//! Places that cannot be written to, and disks that fill up.

use crate::signals::{Job, turn};
use crate::{refused, sound_record, text, works};
use laggard_record::Record;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn an_unwritable_place_is_named() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let file = folder.path().join("file");
    fs::write(&file, "a file").expect("file");
    // Nobody can write below a file, and nobody, not even root, can create something in /proc.
    let check = |place: &Path| {
        let args = [
            "run",
            "-q",
            "--model",
            "tiny",
            "--steps",
            "3",
            "-o",
            text(place),
        ];
        refused(&args, 7, &[text(place)]);
    };
    check(&file.join("record"));
    if Path::new("/proc/self").exists() {
        check(Path::new("/proc/laggard-record"));
    }
    let record = sound_record(folder.path(), "record");
    let out = file.join("report");
    refused(
        &["analyze", text(&record), "-o", text(&out)],
        7,
        &[text(&out)],
    );
    let entries = fs::read_dir(folder.path()).expect("folder").count();
    assert_eq!(entries, 2, "something was left behind");
}

/// A small file system in memory; gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user cannot mount.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).expect("folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "laggard-test", text(at)])
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A failure would show as a temporary directory that cannot be removed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that skips says so")]
fn a_full_disk_keeps_what_was_written() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("temporary directory");
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk")) else {
        eprintln!("skipped: only root can mount the small disk that this test fills");
        return;
    };
    let record = disk.0.join("record");
    let mut job = Job::start(&record);
    job.until("manifest", |_| record.join("manifest.json").exists());
    // Many small segments, so that some are whole before the disk is full.
    let done = job.end(|job| job.send("USR1"));
    assert_eq!(done.code, Some(7), "{}", done.stderr);
    assert!(done.stderr.contains(text(&record)), "{}", done.stderr);
    assert!(
        done.stderr.contains("hint: free some space"),
        "{}",
        done.stderr
    );

    let opened = Record::open(&record).expect("the record opens");
    let reading = opened.samples(|_| ()).expect("samples are read");
    assert!(reading.rows > 0, "nothing was kept");
    let told = works(&["analyze", text(&record)]);
    assert!(told.contains("was not closed"), "{told}");
}
