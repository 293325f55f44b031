//! Writing a record while a job runs: one thread collects what the ranks record and writes it in
//! segments, so that what was flushed survives a kill.

use crate::bulk::create_record;
use crate::check::check_manifest;
use crate::closing::{Closing, ClosingStatus, PartClosing};
use crate::collector::{Collector, Command, Fate, Health, Place};
use crate::error::RecordError;
use crate::lane::Capacity;
use crate::manifest::Manifest;
use crate::part::{enter, mark, unmark};
use crate::reader::MANIFEST_FILE;
use crate::recorder::{RankRecorder, lanes_of};
use crate::table::{DeviceReading, Telemetry};
use crate::wire::{Batch, Extent};
use laggard_types::Rank;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

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

/// Writes the record of a running job, or one host's part of it, from one thread of its own.
///
/// A failure to write, such as a full disk, does not disturb the ranks: it shows at the next
/// [`RecordWriter::check`], [`RecordWriter::flush`] or [`RecordWriter::close`]. From the first
/// failure on nothing more is written; what was written before stays readable. Dropping the writer
/// without closing it writes what is left, and leaves the record unclosed.
///
/// In a run of several hosts the root's writer makes the record ([`RecordWriter::create`]), and the
/// writers of the other hosts join it ([`RecordWriter::join`]). At the end those are closed first
/// ([`RecordWriter::close_part`]); where a part is not in the record's directory its files are
/// taken there ([`crate::part_files`], [`crate::accept_file`]); last the root closes the record
/// ([`RecordWriter::close_with_parts`]).
#[derive(Debug)]
pub struct RecordWriter {
    /// The record, or the scratch directory of a part.
    dir: PathBuf,
    part: u32,
    extent: Extent,
    /// `None` only while the writer is dropped.
    commands: Option<Sender<Command>>,
    health: Arc<Health>,
    /// Of the marker in the directory.
    nonce: OnceLock<String>,
    /// Disconnects when the thread ends.
    ended: Mutex<Receiver<()>>,
}

impl RecordWriter {
    /// Makes the record directory `dir`, writes its manifest and starts the writer's thread.
    ///
    /// # Errors
    /// If the manifest is not consistent, `dir` holds anything already, or it cannot be written.
    pub fn create(dir: &Path, manifest: &Manifest) -> Result<Self, RecordError> {
        create_record(dir, manifest)?;
        let place = Place {
            dir: dir.to_owned(),
            part: 0,
            fate: Fate::Stays,
        };
        Self::start(dir, place, manifest)
    }

    /// As [`RecordWriter::create`], but what the ranks of this host record grows in the directory
    /// `scratch` until the record is closed, and is then taken to `dir` as one file per table. For
    /// file systems that are slow at making files; a killed run leaves its rows in `scratch`.
    ///
    /// # Errors
    /// As [`RecordWriter::create`], and if `scratch` holds something that is no part of a record.
    pub fn create_staged(
        dir: &Path,
        scratch: &Path,
        manifest: &Manifest,
    ) -> Result<Self, RecordError> {
        create_record(dir, manifest)?;
        if !enter(scratch, manifest, 0)? {
            return Err(RecordError::AlreadyARecord {
                path: scratch.to_owned(),
            });
        }
        let place = Place {
            dir: scratch.to_owned(),
            part: 0,
            fate: Fate::MovesTo(dir.to_owned()),
        };
        Self::start(dir, place, manifest)
    }

    /// Starts the writer of another host than the root's. `part` is that host's position in the
    /// manifest, which is the root's. `dir` is the record that the root has made, where this host
    /// shares it, or else a scratch directory, which is created, and whose segments
    /// [`RecordWriter::close_part`] merges into one per table.
    ///
    /// # Errors
    /// If the manifest is not consistent or has no such host, or `dir` holds another run's record,
    /// this part already, or something that is no part of a record.
    pub fn join(dir: &Path, manifest: &Manifest, part: u32) -> Result<Self, RecordError> {
        check_manifest(manifest, &dir.join(MANIFEST_FILE))?;
        let hosts = manifest.hosts.len();
        if part == 0 || part as usize >= hosts {
            return Err(RecordError::NoSuchPart { part, hosts });
        }
        let is_scratch = enter(dir, manifest, part)?;
        let place = Place {
            dir: dir.to_owned(),
            part,
            fate: if is_scratch {
                Fate::Gathered
            } else {
                Fate::Stays
            },
        };
        Self::start(dir, place, manifest)
    }

    fn start(dir: &Path, place: Place, manifest: &Manifest) -> Result<Self, RecordError> {
        let (commands, inbox) = channel();
        let (end, ended) = sync_channel(0);
        let health = Arc::new(Health::default());
        let part = place.part;
        let collector = Collector::new(place, manifest, Arc::clone(&health));
        thread::Builder::new()
            .name("laggard-record".to_owned())
            .spawn(move || {
                collector.run(&inbox);
                drop(end);
            })
            .map_err(|error| RecordError::io("start the writer of", dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            part,
            extent: Extent {
                ranks: manifest.ranks.len(),
                hosts: manifest.hosts.len(),
            },
            commands: Some(commands),
            health,
            nonce: OnceLock::new(),
            ended: Mutex::new(ended),
        })
    }

    /// A nonce by which other hosts find out whether they share the directory
    /// ([`crate::is_shared`]). The first call puts a hidden file there, which is removed when the
    /// writer is closed or dropped.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn nonce(&self) -> Result<&str, RecordError> {
        if let Some(nonce) = self.nonce.get() {
            return Ok(nonce);
        }
        let fresh = mark(&self.dir)?;
        let nonce = self.nonce.get_or_init(|| fresh.clone());
        if *nonce != fresh {
            // Another thread was faster.
            unmark(&self.dir, &fresh);
        }
        Ok(nonce)
    }

    /// A recorder for one rank, to be moved to its thread.
    ///
    /// # Errors
    /// If the manifest has no such rank, or the writer has stopped.
    pub fn recorder(&self, rank: Rank) -> Result<RankRecorder, RecordError> {
        if rank as usize >= self.extent.ranks {
            return Err(RecordError::NoSuchRank {
                rank,
                ranks: self.extent.ranks,
            });
        }
        let lags = &self.health.lags;
        let (recorder, lanes) = lanes_of(rank, SAMPLES_AHEAD, STEPS_AHEAD, lags);
        self.send(Command::Add(lanes))?;
        Ok(recorder)
    }

    /// Records what processors did.
    ///
    /// # Errors
    /// If the writer has stopped.
    pub fn push_telemetry(&self, rows: Vec<Telemetry>) -> Result<(), RecordError> {
        self.send(Command::Telemetry(rows))
    }

    /// Records what accelerators told of themselves.
    ///
    /// # Errors
    /// If the writer has stopped.
    pub fn push_devices(&self, rows: Vec<DeviceReading>) -> Result<(), RecordError> {
        self.send(Command::Devices(rows))
    }

    /// Records the rows that a [`crate::RowForwarder`] sent, which must come in the order in which
    /// it sent them.
    ///
    /// # Errors
    /// If the bytes are damaged, of another version of laggard, or name a rank or host that the
    /// manifest does not have: then none of their rows is recorded. If the writer has stopped.
    pub fn receive(&self, rows: &[u8]) -> Result<(), RecordError> {
        self.send(Command::Rows(Batch::decode(rows, self.extent)?))
    }

    /// Whether everything so far could be written.
    ///
    /// # Errors
    /// The first failure to write.
    pub fn check(&self) -> Result<(), RecordError> {
        self.health.fault.get().cloned().map_or(Ok(()), Err)
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
        self.close_with_parts(status, steps_completed, Vec::new())
    }

    /// As [`RecordWriter::close`], for the root of several hosts: after the other parts are closed
    /// and in the record. Hosts that were lost have no closing here.
    ///
    /// # Errors
    /// As [`RecordWriter::close`], and if a part is named twice, or is none of the manifest's. The
    /// faults of other parts are no error here: readers get them as doubts.
    pub fn close_with_parts(
        self,
        status: ClosingStatus,
        steps_completed: u32,
        mut parts: Vec<PartClosing>,
    ) -> Result<Closing, RecordError> {
        parts.sort_by_key(|closing| closing.part);
        let hosts = self.extent.hosts;
        let mut above = self.part;
        for &PartClosing { part, .. } in &parts {
            if part <= above || part as usize >= hosts {
                return Err(RecordError::NoSuchPart { part, hosts });
            }
            above = part;
        }
        let total = |count: fn(&PartClosing) -> u64| parts.iter().map(count).sum();
        let closing = Closing {
            status,
            steps_completed,
            samples: total(|part| part.samples),
            steps: total(|part| part.steps),
            telemetry: total(|part| part.telemetry),
            writer_lags: total(|part| part.writer_lags),
            parts,
        };
        let (reply, done) = sync_channel(1);
        self.send(Command::Close(Box::new(closing), reply))?;
        let closing = self.wait("close", &done, CLOSE_DEADLINE);
        self.check()?;
        closing
    }

    /// Writes everything that was recorded and ends this host's part, of which the root gets to
    /// know by what is returned. In a scratch directory the part is one file per table from here
    /// on.
    ///
    /// Failures are told in [`PartClosing::fault`], so that the root gets to know those too.
    pub fn close_part(self) -> PartClosing {
        let (reply, done) = sync_channel(1);
        let closed = self
            .send(Command::ClosePart(reply))
            .and_then(|()| self.wait("close", &done, CLOSE_DEADLINE));
        closed.unwrap_or_else(|error| PartClosing {
            part: self.part,
            samples: 0,
            steps: 0,
            telemetry: 0,
            writer_lags: 0,
            fault: Some(error.to_string()),
        })
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
        self.health.fault.get().cloned().unwrap_or_else(unknown)
    }
}

impl Drop for RecordWriter {
    fn drop(&mut self) {
        // Without commands to come, the thread writes what is left and ends.
        self.commands = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(FLUSH_DEADLINE);
        if let Some(nonce) = self.nonce.get() {
            unmark(&self.dir, nonce);
        }
    }
}
