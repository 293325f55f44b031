//! The real binary on bad input, full disks and signals: exit codes, messages with the place and a
//! hint, and nothing lost of what was recorded.

mod disk;
mod import;
mod records;
mod results;
mod signals;
mod usage;

use laggard_benches::known_job::KnownJob;
use laggard_record::{Record, Sample, StepWork, TableRows, Telemetry, write_record};
use laggard_types::Stamp;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A command that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(180);

/// What a command did.
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        let done = Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        done
    }
}

/// The binary with `args`, its output caught.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_laggard"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("LAGGARD_LOG");
    command
}

/// Runs the binary to its end.
fn laggard(args: &[&str]) -> Done {
    let child = command(args).spawn().expect("the binary starts");
    let pid = child.id();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    match end.recv_timeout(DEADLINE) {
        Ok(output) => Done::of(output.expect("the binary was waited for")),
        Err(_) => {
            signals::send("KILL", pid);
            panic!("laggard {args:?} hangs");
        }
    }
}

/// Runs the binary, which has to refuse with `code`, a message that has each of `says`, and a hint.
fn refused(args: &[&str], code: i32, says: &[&str]) {
    let done = laggard(args);
    let told = format!("laggard {args:?}\n{}{}", done.stdout, done.stderr);
    assert_eq!(done.code, Some(code), "{told}");
    assert!(done.stdout.is_empty(), "{told}");
    let begins = |start: &str| done.stderr.lines().any(|line| line.starts_with(start));
    assert!(begins("error: "), "{told}");
    assert!(begins("hint: "), "{told}");
    for part in says {
        assert!(done.stderr.contains(part), "`{part}` is not in: {told}");
    }
}

/// Runs the binary, which has to succeed. Returns stdout with its lines joined.
fn works(args: &[&str]) -> String {
    let done = laggard(args);
    assert_eq!(done.code, Some(0), "laggard {args:?}\n{}", done.stderr);
    joined(&done.stdout)
}

/// Text without its line breaks: they depend on the lengths of paths.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A sound record of four ranks in `folder`.
fn sound_record(folder: &Path, name: &str) -> PathBuf {
    let dir = folder.join(name);
    let job = KnownJob::clean(4, 2, 60, 7);
    job.write(&dir).expect("the record is written");
    dir
}

/// Every sample of a record.
fn samples_of(record: &Record) -> Vec<Sample> {
    let mut samples = Vec::new();
    record
        .samples(|batch| {
            samples.extend((0..batch.len()).map(|row| Sample {
                rank: batch.rank[row] as u32,
                step: batch.step[row] as u32,
                operation: batch.operation[row] as u32,
                stamp: Stamp {
                    start_ns: batch.start_ns[row],
                    end_ns: batch.end_ns[row],
                    cpu_start_ns: batch.cpu_start_ns[row],
                    cpu_end_ns: batch.cpu_end_ns[row],
                },
            }));
        })
        .expect("samples are read");
    samples
}

/// Writes the sound record with its samples changed by `change`.
fn changed_record(folder: &Path, name: &str, change: impl Fn(&mut Vec<Sample>)) -> PathBuf {
    let source = tempfile::tempdir().expect("temporary directory");
    let record = Record::open(&sound_record(source.path(), "sound")).expect("the record opens");
    let mut samples = samples_of(&record);
    change(&mut samples);
    let closing = record.closing.clone().expect("the record is closed");
    let rows = TableRows {
        samples,
        steps: Vec::<StepWork>::new(),
        telemetry: Vec::<Telemetry>::new(),
    };
    let dir = folder.join(name);
    write_record(&dir, &record.manifest, rows, closing).expect("the record is written");
    dir
}
