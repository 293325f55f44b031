//! Signals to a running job, and what is on disk afterwards.

use crate::{DEADLINE, Done, command, text, works};
use laggard_record::Record;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Complete steps after which a record can be analysed.
const ENOUGH_STEPS: u32 = 60;

/// How often a writer flushes of its own accord, but for its first three times, which are sooner.
const OWN_FLUSH_SECONDS: u64 = 5;

/// Jobs take turns: two at once would only share the processors.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn turn() -> MutexGuard<'static, ()> {
    // A test that failed has left nothing that another could stumble over.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a signal by name. The process may have ended already.
pub(crate) fn send(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .output();
    sent.expect("`kill` can be run");
}

/// A job that goes on until it is stopped; killed where a test gives up.
pub(crate) struct Job(Option<Child>);

impl Job {
    pub(crate) fn start(record: &Path) -> Self {
        let steps = i32::MAX.to_string();
        let args = [
            "run", "-q", "--model", "tiny", "--ranks", "2", "--steps", &steps, "-o",
        ];
        let child = command(&[&args[..], &[text(record)]].concat()).spawn();
        Self(Some(child.expect("the binary starts")))
    }

    pub(crate) fn send(&self, signal: &str) {
        send(
            signal,
            self.0.as_ref().expect("the job was not awaited").id(),
        );
    }

    /// Looks again and again until `ready`; the job has to go on meanwhile.
    pub(crate) fn until(&mut self, what: &str, mut ready: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !ready(self) {
            let child = self.0.as_mut().expect("the job was not awaited");
            assert!(
                child.try_wait().expect("status").is_none(),
                "the job ended before {what}"
            );
            assert!(begin.elapsed() < DEADLINE, "no {what} in time");
            pause();
        }
    }

    /// Waits for the end, doing `meanwhile` again and again.
    pub(crate) fn end(&mut self, mut meanwhile: impl FnMut(&Self)) -> Done {
        let begin = Instant::now();
        loop {
            let child = self.0.as_mut().expect("the job was not awaited");
            if child.try_wait().expect("status").is_some() {
                break;
            }
            assert!(begin.elapsed() < DEADLINE, "the job does not end");
            meanwhile(self);
            pause();
        }
        let child = self.0.take().expect("the job was not awaited");
        Done::of(child.wait_with_output().expect("output"))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended in between.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Leaves the processors to the job between two looks at it.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(50));
}

/// The last complete step that is on disk.
fn steps_on_disk(record: &Path) -> u32 {
    let Ok(record) = Record::open(record) else {
        return 0;
    };
    let mut last = 0;
    let reading = record.samples(|batch| {
        last = batch.step.iter().copied().fold(last, i32::max);
    });
    reading.map_or(0, |_| last as u32)
}

/// How many segments of samples are on disk.
fn segments(record: &Path) -> usize {
    std::fs::read_dir(record.join("samples")).map_or(0, |entries| {
        let names = entries.map(|entry| entry.expect("entry").file_name());
        names
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .count()
    })
}

/// Asks for flushes until a record can be analysed.
fn fill(job: &mut Job, record: &Path) {
    // Before that the binary does not listen to signals yet.
    job.until("manifest", |_| record.join("manifest.json").exists());
    job.until("segments", |job| {
        job.send("USR1");
        steps_on_disk(record) >= ENOUGH_STEPS
    });
}

#[test]
fn a_signal_ends_a_run_with_a_complete_record() {
    let _turn = turn();
    let check = |signal: &str, code: i32| {
        let folder = tempfile::tempdir().expect("temporary directory");
        let record = folder.path().join("record");
        let mut job = Job::start(&record);
        fill(&mut job, &record);
        let before = steps_on_disk(&record);
        job.send(signal);
        let done = job.end(|_| ());
        assert_eq!(done.code, Some(code), "{signal}: {}", done.stderr);
        let said = format!("ended early by SIG{signal}");
        assert!(done.stderr.contains(&said), "{}", done.stderr);
        let closed = Record::open(&record).expect("the record opens");
        let closing = closed.closing.as_ref().expect("the record is closed");
        assert!(closing.steps_completed > before, "steps were lost");
        let told = works(&["analyze", text(&record)]);
        assert!(told.contains("straggler penalty"), "{told}");
        assert!(!told.contains("was not closed"), "{told}");
    };
    check("INT", 130);
    check("TERM", 143);
}

#[test]
fn a_flush_lets_the_run_go_on_and_survives_a_kill() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("temporary directory");
    let record = folder.path().join("record");
    let mut job = Job::start(&record);
    fill(&mut job, &record);
    let before = steps_on_disk(&record);
    // The writer flushes by itself so often at most; only asked can it be quicker than that.
    let begin = Instant::now();
    let at_first = segments(&record);
    job.until("further segments", |job| {
        job.send("USR1");
        let unasked = (begin.elapsed().as_secs() / OWN_FLUSH_SECONDS) as usize + 3;
        segments(&record) > at_first + unasked && steps_on_disk(&record) > before
    });
    job.send("KILL");
    let done = job.end(|_| ());
    assert_eq!(done.code, None, "killed by a signal");
    assert!(steps_on_disk(&record) > before, "what was flushed is lost");
    let told = works(&["analyze", text(&record)]);
    assert!(told.contains("was not closed"), "{told}");
    assert!(told.contains("straggler penalty"), "{told}");
}
