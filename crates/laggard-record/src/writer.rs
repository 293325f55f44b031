//! Writing a record while a job runs: one thread collects what the ranks record and writes it in
//! segments, so that what was flushed survives a kill.

use crate::bulk::{create_record, segment_path};
use crate::closing::{Closing, ClosingStatus};
use crate::columns::Row;
use crate::error::RecordError;
use crate::files::write_json;
use crate::histogram::HistogramLog;
use crate::lane::{Capacity, lane};
use crate::manifest::Manifest;
use crate::reader::CLOSING_FILE;
use crate::recorder::{RankLanes, RankRecorder};
use crate::segment::write_rows;
use crate::table::{Sample, StepWork, Telemetry};
use laggard_types::Rank;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How often the writer looks after the ranks.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How often it writes what it has: what a kill can cost.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Samples after which it writes sooner.
const FLUSH_SAMPLES: usize = 1 << 20;
/// How long a flush may take.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);
/// How long the end of a record may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(60);
/// Samples that a rank can record between two looks of the writer without allocating: 8,192.
const SAMPLES_AHEAD: Capacity = Capacity {
    chunks: 8,
    rows_per_chunk: 1024,
};
/// Rows of table `steps`, likewise: 512.
const STEPS_AHEAD: Capacity = Capacity {
    chunks: 8,
    rows_per_chunk: 64,
};

/// Writes the record of a running job, from one thread of its own.
///
/// A failure to write, such as a full disk, does not disturb the ranks: it shows at the next
/// [`RecordWriter::check`], [`RecordWriter::flush`] or [`RecordWriter::close`]. From the first
/// failure on nothing more is written; what was written before stays readable. Dropping the writer
/// without closing it writes what is left, and leaves the record unclosed.
#[derive(Debug)]
pub struct RecordWriter {
    dir: PathBuf,
    world: usize,
    /// `None` only while the writer is dropped.
    commands: Option<Sender<Command>>,
    fault: Arc<OnceLock<RecordError>>,
    lags: Arc<AtomicU64>,
    /// Disconnects when the thread ends.
    ended: Receiver<()>,
}

enum Command {
    Add(RankLanes),
    Telemetry(Vec<Telemetry>),
    Flush(SyncSender<()>),
    Close(Closing, SyncSender<Closing>),
}

impl RecordWriter {
    /// Makes the record directory `dir`, writes its manifest and starts the writer's thread.
    ///
    /// # Errors
    /// If the manifest is not consistent, `dir` holds anything already, or it cannot be written.
    pub fn create(dir: &Path, manifest: &Manifest) -> Result<Self, RecordError> {
        create_record(dir, manifest)?;
        let (commands, inbox) = channel();
        let (end, ended) = sync_channel(0);
        let fault = Arc::new(OnceLock::new());
        let lags = Arc::new(AtomicU64::new(0));
        let collector = Collector {
            lanes: Vec::new(),
            samples: Vec::new(),
            steps: Vec::new(),
            telemetry: Vec::new(),
            segments: [0; 3],
            written: [0; 3],
            histograms: HistogramLog::new(dir, &manifest.schedule),
            fault: Arc::clone(&fault),
            dir: dir.to_owned(),
        };
        thread::Builder::new()
            .name("laggard-record".to_owned())
            .spawn(move || {
                collector.run(&inbox);
                drop(end);
            })
            .map_err(|error| RecordError::io("start the writer of", dir, &error))?;
        let world = manifest.ranks.len();
        Ok(Self {
            dir: dir.to_owned(),
            world,
            commands: Some(commands),
            fault,
            lags,
            ended,
        })
    }

    /// A recorder for one rank, to be moved to its thread.
    ///
    /// # Errors
    /// If the manifest has no such rank, or the writer has stopped.
    pub fn recorder(&self, rank: Rank) -> Result<RankRecorder, RecordError> {
        if rank as usize >= self.world {
            return Err(RecordError::NoSuchRank {
                rank,
                ranks: self.world,
            });
        }
        let (samples, sample_rows) = lane(SAMPLES_AHEAD, Arc::clone(&self.lags));
        let (steps, step_rows) = lane(STEPS_AHEAD, Arc::clone(&self.lags));
        self.send(Command::Add(RankLanes {
            rank,
            samples: sample_rows,
            steps: step_rows,
        }))?;
        Ok(RankRecorder {
            rank,
            samples,
            steps,
        })
    }

    /// Records what processors did.
    ///
    /// # Errors
    /// If the writer has stopped.
    pub fn push_telemetry(&self, rows: Vec<Telemetry>) -> Result<(), RecordError> {
        self.send(Command::Telemetry(rows))
    }

    /// Whether everything so far could be written.
    ///
    /// # Errors
    /// The first failure to write.
    pub fn check(&self) -> Result<(), RecordError> {
        self.fault.get().cloned().map_or(Ok(()), Err)
    }

    /// Writes everything that was recorded before the call, also by ranks that hang now.
    ///
    /// # Errors
    /// If something cannot be written, or that takes longer than ten seconds.
    pub fn flush(&self) -> Result<(), RecordError> {
        let (reply, done) = sync_channel(1);
        self.send(Command::Flush(reply))?;
        self.wait("flush", &done, FLUSH_DEADLINE)?;
        self.check()
    }

    /// Writes everything that was recorded, and then the closing.
    ///
    /// # Errors
    /// If something could not be written, or that takes longer than a minute.
    pub fn close(
        self,
        status: ClosingStatus,
        steps_completed: u32,
    ) -> Result<Closing, RecordError> {
        let (reply, done) = sync_channel(1);
        let writer_lags = self.lags.load(Ordering::Relaxed);
        let closing = Closing {
            status,
            steps_completed,
            samples: 0,
            steps: 0,
            telemetry: 0,
            writer_lags,
        };
        self.send(Command::Close(closing, reply))?;
        let closing = self.wait("close", &done, CLOSE_DEADLINE);
        self.check()?;
        closing
    }

    fn send(&self, command: Command) -> Result<(), RecordError> {
        let commands = self
            .commands
            .as_ref()
            .expect("there until the writer is dropped");
        commands.send(command).map_err(|_| self.gone())
    }

    fn wait<T>(
        &self,
        action: &'static str,
        reply: &Receiver<T>,
        deadline: Duration,
    ) -> Result<T, RecordError> {
        reply.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => RecordError::Deadline {
                action,
                path: self.dir.clone(),
                seconds: deadline.as_secs(),
            },
            RecvTimeoutError::Disconnected => self.gone(),
        })
    }

    fn gone(&self) -> RecordError {
        let unknown = || RecordError::WriterGone {
            path: self.dir.clone(),
        };
        self.fault.get().cloned().unwrap_or_else(unknown)
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        // Without commands to come, the thread writes what is left and ends.
        self.commands = None;
        let _ = self.ended.recv_timeout(FLUSH_DEADLINE);
    }
}

/// What the writer's thread works on.
struct Collector {
    dir: PathBuf,
    lanes: Vec<RankLanes>,
    samples: Vec<Sample>,
    steps: Vec<StepWork>,
    telemetry: Vec<Telemetry>,
    /// Next segment of each table.
    segments: [u32; 3],
    /// Rows written of each table.
    written: [u64; 3],
    histograms: HistogramLog,
    fault: Arc<OnceLock<RecordError>>,
}

impl Collector {
    fn run(mut self, inbox: &Receiver<Command>) {
        let mut flushed = Instant::now();
        loop {
            match inbox.recv_timeout(DRAIN_EVERY) {
                Ok(Command::Add(lanes)) => self.lanes.push(lanes),
                Ok(Command::Telemetry(rows)) => self.telemetry.extend(rows),
                Ok(Command::Flush(reply)) => {
                    self.flush();
                    flushed = Instant::now();
                    // Whoever asked may have given up waiting.
                    let _ = reply.send(());
                }
                Ok(Command::Close(closing, reply)) => {
                    let _ = reply.send(self.close(closing));
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
            self.drain();
            if flushed.elapsed() >= FLUSH_EVERY || self.samples.len() >= FLUSH_SAMPLES {
                self.flush();
                flushed = Instant::now();
            }
        }
    }

    fn drain(&mut self) {
        for lanes in &mut self.lanes {
            lanes.drain(&mut self.samples, &mut self.steps);
        }
        if self.fault.get().is_some() {
            // Nothing can be written any more: memory must not fill up.
            self.samples.clear();
            self.steps.clear();
            self.telemetry.clear();
        }
    }

    fn flush(&mut self) {
        self.drain();
        if let Err(error) = self.write_tables() {
            // Only the first failure is kept: those after it follow from it.
            let _ = self.fault.set(error);
        }
    }

    fn write_tables(&mut self) -> Result<(), RecordError> {
        let [samples, steps, telemetry] = &mut self.segments;
        self.written[0] += write_segment(&self.dir, samples, &self.samples)?;
        self.written[1] += write_segment(&self.dir, steps, &self.steps)?;
        self.written[2] += write_segment(&self.dir, telemetry, &self.telemetry)?;
        if !self.samples.is_empty() {
            self.histograms.append(&self.samples)?;
        }
        self.samples.clear();
        self.steps.clear();
        self.telemetry.clear();
        Ok(())
    }

    fn close(&mut self, closing: Closing) -> Closing {
        self.flush();
        let [samples, steps, telemetry] = self.written;
        let closing = Closing {
            samples,
            steps,
            telemetry,
            ..closing
        };
        if self.fault.get().is_none()
            && let Err(error) = write_json(&self.dir.join(CLOSING_FILE), &closing)
        {
            let _ = self.fault.set(error);
        }
        closing
    }
}

/// Writes `rows` as the next segment; no file where there are none.
fn write_segment<R: Row>(dir: &Path, next: &mut u32, rows: &[R]) -> Result<u64, RecordError> {
    let path = segment_path::<R>(dir, *next);
    let written = write_rows(&path, &mut rows.iter().copied(), u64::MAX)?;
    if written > 0 {
        *next += 1;
    }
    Ok(written)
}
