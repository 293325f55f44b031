//! The writer's thread: collects rows and writes them in segments.

use crate::closing::{Closing, PartClosing};
use crate::columns::Row;
use crate::error::RecordError;
use crate::files::write_json;
use crate::histogram::HistogramLog;
use crate::manifest::Manifest;
use crate::part::{accept_file, compact, histogram_name, part_files, remove_part, segment_path};
use crate::reader::CLOSING_FILE;
use crate::recorder::RankLanes;
use crate::segment::write_rows;
use crate::table::{DeviceReading, Telemetry};
use crate::wire::Batch;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How often the thread looks after the ranks.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How often it writes what it has: what a kill can cost. A young run writes sooner, so that also
/// one that dies early leaves something.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
const FIRST_FLUSH: Duration = Duration::from_secs(1);
/// Samples after which it writes sooner.
const FLUSH_SAMPLES: usize = 1 << 20;

/// Where a part is written.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory that it grows in.
    pub(crate) dir: PathBuf,
    pub(crate) part: u32,
    pub(crate) fate: Fate,
}

/// What becomes of a part when it is closed.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is in the record already.
    Stays,
    /// Its segments are merged, for whoever gathers them.
    Gathered,
    /// Its segments are merged and taken to the record in this directory.
    MovesTo(PathBuf),
}

/// What a writer asks of its thread.
pub(crate) enum Command {
    Add(RankLanes),
    Telemetry(Vec<Telemetry>),
    Devices(Vec<DeviceReading>),
    Rows(Batch),
    Flush(SyncSender<()>),
    /// Adds the part's counts, and writes that.
    Close(Box<Closing>, SyncSender<Closing>),
    ClosePart(SyncSender<PartClosing>),
}

/// What writer and thread both see.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// The first failure to write.
    pub(crate) fault: OnceLock<RecordError>,
    /// How often ranks had to allocate, also those that forward.
    pub(crate) lags: Arc<AtomicU64>,
}

/// What the writer's thread works on.
pub(crate) struct Collector {
    place: Place,
    lanes: Vec<RankLanes>,
    /// What is not written yet.
    rows: Batch,
    /// Next segment of each table.
    segments: [u32; 4],
    /// Rows written of each table.
    written: [u64; 4],
    histograms: HistogramLog,
    health: Arc<Health>,
}

impl Collector {
    pub(crate) fn new(place: Place, manifest: &Manifest, health: Arc<Health>) -> Self {
        let histograms = place.dir.join(histogram_name(place.part));
        Self {
            place,
            lanes: Vec::new(),
            rows: Batch::default(),
            segments: [0; 4],
            written: [0; 4],
            histograms: HistogramLog::new(histograms, &manifest.schedule),
            health,
        }
    }

    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        let mut flushed = Instant::now();
        let mut every = FIRST_FLUSH;
        loop {
            match inbox.recv_timeout(DRAIN_EVERY) {
                Ok(Command::Add(lanes)) => self.lanes.push(lanes),
                Ok(Command::Telemetry(rows)) => self.rows.telemetry.extend(rows),
                Ok(Command::Devices(rows)) => self.rows.devices.extend(rows),
                Ok(Command::Rows(rows)) => self.take(rows),
                Ok(Command::Flush(reply)) => {
                    self.flush();
                    flushed = Instant::now();
                    // Whoever asked may have given up waiting.
                    let _ = reply.send(());
                }
                Ok(Command::Close(closing, reply)) => {
                    let _ = reply.send(self.close(*closing));
                    return;
                }
                Ok(Command::ClosePart(reply)) => {
                    let _ = reply.send(self.close_part());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
            self.drain();
            if flushed.elapsed() >= every || self.rows.samples.len() >= FLUSH_SAMPLES {
                self.flush();
                flushed = Instant::now();
                every = FLUSH_EVERY.min(every * 2);
            }
        }
    }

    fn take(&mut self, rows: Batch) {
        self.rows.samples.extend(rows.samples);
        self.rows.steps.extend(rows.steps);
        self.rows.telemetry.extend(rows.telemetry);
        self.rows.devices.extend(rows.devices);
        self.health.lags.fetch_add(rows.lags, Ordering::Relaxed);
    }

    fn drain(&mut self) {
        for lanes in &mut self.lanes {
            lanes.drain(&mut self.rows.samples, &mut self.rows.steps);
        }
        if self.health.fault.get().is_some() {
            // Nothing can be written any more: memory must not fill up.
            self.rows.clear();
        }
    }

    fn flush(&mut self) {
        self.drain();
        let written = self.write_tables();
        self.note(written);
    }

    /// Only the first failure is kept: those after it follow from it.
    fn note(&self, done: Result<(), RecordError>) {
        if let Err(error) = done {
            let _ = self.health.fault.set(error);
        }
    }

    fn write_tables(&mut self) -> Result<(), RecordError> {
        let [samples, steps, telemetry, devices] = &mut self.segments;
        self.written[0] += write_segment(&self.place, samples, &self.rows.samples)?;
        self.written[1] += write_segment(&self.place, steps, &self.rows.steps)?;
        self.written[2] += write_segment(&self.place, telemetry, &self.rows.telemetry)?;
        self.written[3] += write_segment(&self.place, devices, &self.rows.devices)?;
        if !self.rows.samples.is_empty() {
            self.histograms.append(&self.rows.samples)?;
        }
        self.rows.clear();
        Ok(())
    }

    fn close(&mut self, closing: Closing) -> Closing {
        self.end();
        let [samples, steps, telemetry, devices] = self.written;
        let closing = Closing {
            samples: closing.samples + samples,
            steps: closing.steps + steps,
            telemetry: closing.telemetry + telemetry + devices,
            writer_lags: closing.writer_lags + self.health.lags.load(Ordering::Relaxed),
            ..closing
        };
        if self.health.fault.get().is_none() {
            let record = match &self.place.fate {
                Fate::MovesTo(record) => record,
                Fate::Stays | Fate::Gathered => &self.place.dir,
            };
            self.note(write_json(&record.join(CLOSING_FILE), &closing));
        }
        closing
    }

    fn close_part(&mut self) -> PartClosing {
        self.end();
        let [samples, steps, telemetry, devices] = self.written;
        PartClosing {
            part: self.place.part,
            samples,
            steps,
            telemetry: telemetry + devices,
            writer_lags: self.health.lags.load(Ordering::Relaxed),
            fault: self.health.fault.get().map(ToString::to_string),
        }
    }

    /// Writes what is left, and brings the part to where it ends.
    fn end(&mut self) {
        self.flush();
        let Place { dir, part, fate } = &self.place;
        let brought = match fate {
            Fate::Stays => Ok(()),
            Fate::Gathered => compact(dir, *part),
            Fate::MovesTo(record) => move_part(dir, record, *part),
        };
        self.note(brought);
    }
}

/// Takes a part from a scratch directory to the record.
fn move_part(dir: &Path, record: &Path, part: u32) -> Result<(), RecordError> {
    compact(dir, part)?;
    for (name, path, _) in part_files(dir, part)? {
        let file = File::open(&path).map_err(|error| RecordError::io("open", &path, &error))?;
        accept_file(record, part, &name, file)?;
    }
    remove_part(dir, part)
}

/// Writes `rows` as the next segment; no file where there are none.
fn write_segment<R: Row>(place: &Place, next: &mut u32, rows: &[R]) -> Result<u64, RecordError> {
    let path = segment_path(&place.dir, &R::TABLE, place.part, *next);
    let written = write_rows(&path, &mut rows.iter().copied(), u64::MAX)?;
    if written > 0 {
        *next += 1;
    }
    Ok(written)
}
