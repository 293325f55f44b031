//! How what several processes record becomes one record: each rank hands its rows to its host's
//! writer, and each host's writer its part to rank 0, which opens and closes the record.

use crate::MeasureError;
use crate::job::Job;
use crate::rows::{Rows, sole};
use crate::team::{PART_DONE, PART_FILE, ROWS, ROWS_DONE, Team};
use laggard_backend::control::Envelope;
use laggard_backend::{Messenger, messenger};
use laggard_record::{
    Closing, ClosingStatus, Manifest, PartClosing, RecordError, RecordWriter, RowForwarder,
    accept_file, is_shared, part_files, remove_part,
};
use laggard_types::Rank;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a host's writer looks whether its ranks are done.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long others are waited for after a failure: what they send at once is kept, and nobody is
/// held up by those who are gone.
const AFTER_FAILURE: Duration = Duration::from_millis(500);
/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 1 << 20;

/// What rank 0 tells all others about the record that it has opened.
#[derive(Serialize, Deserialize)]
enum Word {
    Opened {
        record: PathBuf,
        nonce: String,
        manifest: Box<Manifest>,
    },
    Failed {
        why: String,
    },
}

/// A record that rank 0 has opened.
pub(crate) struct Opening {
    pub record: PathBuf,
    manifest: Box<Manifest>,
    nonce: String,
    /// On rank 0.
    writer: Option<RecordWriter>,
}

impl Opening {
    /// Opens the record, on rank 0. Collective, with [`Opening::hear`] on all others.
    pub(crate) fn create(
        job: &Job,
        manifest: Manifest,
        messenger: &dyn Messenger,
        deadline: Instant,
    ) -> Result<Self, MeasureError> {
        let opened = Self::open(job, manifest);
        let word = match &opened {
            Ok(opening) => Word::Opened {
                record: opening.record.clone(),
                nonce: opening.nonce.clone(),
                manifest: opening.manifest.clone(),
            },
            Err(error) => Word::Failed {
                why: error.to_string(),
            },
        };
        let bytes = serde_json::to_vec(&word).map_err(|error| unreadable(&error))?;
        messenger::broadcast(messenger, &bytes, deadline)
            .map_err(|source| MeasureError::Start { rank: 0, source })?;
        Ok(opened?)
    }

    fn open(job: &Job, manifest: Manifest) -> Result<Self, RecordError> {
        // Other processes may have another working directory.
        let record = std::path::absolute(&job.settings.record)
            .unwrap_or_else(|_| job.settings.record.clone());
        let writer = match &job.settings.scratch {
            None => RecordWriter::create(&record, &manifest)?,
            Some(scratch) => {
                let staging = staging(scratch, &record, 0);
                RecordWriter::create_staged(&record, &staging, &manifest)?
            }
        };
        let nonce = writer.nonce()?.to_owned();
        Ok(Self {
            record,
            manifest: Box::new(manifest),
            nonce,
            writer: Some(writer),
        })
    }

    /// Hears of the record, on all other ranks.
    pub(crate) fn hear(messenger: &dyn Messenger, deadline: Instant) -> Result<Self, MeasureError> {
        let rank = messenger.rank();
        let bytes = messenger::broadcast(messenger, &[], deadline)
            .map_err(|source| MeasureError::Start { rank, source })?;
        match serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))? {
            Word::Opened {
                record,
                nonce,
                manifest,
            } => Ok(Self {
                record,
                manifest,
                nonce,
                writer: None,
            }),
            Word::Failed { why } => Err(MeasureError::Elsewhere { rank: 0, why }),
        }
    }
}

fn unreadable(error: &serde_json::Error) -> MeasureError {
    MeasureError::System {
        what: "telling all ranks of the record".to_owned(),
        why: error.to_string(),
    }
}

/// A folder for one part below a scratch folder, which records may share.
fn staging(scratch: &Path, record: &Path, part: u32) -> PathBuf {
    let name = record.file_name().unwrap_or_default().to_string_lossy();
    scratch.join(format!("{name}-part-{part}-{}", std::process::id()))
}

/// What this process does for the record.
pub(crate) struct Part {
    line: Line,
    rows: Rows,
    /// On a host's writer.
    collector: Option<Collector>,
    /// The part's number and folder, where it has to be sent to rank 0.
    staged: Option<(u32, PathBuf)>,
    patience: Duration,
}

/// Takes the rows of the other ranks of a host.
struct Collector {
    thread: JoinHandle<()>,
    /// Milliseconds for which who has not sent everything is still waited for, once the run is
    /// over.
    patience_ms: Arc<AtomicU64>,
}

impl Part {
    pub(crate) fn open(
        job: &Job,
        team: &Arc<Team>,
        opening: Opening,
    ) -> Result<Self, MeasureError> {
        let mut staged = None;
        let rows = if !team.control.is_leader() {
            Rows::Forwarder(forwarder(team)?)
        } else if let Some(writer) = opening.writer {
            Rows::Writer(Arc::new(writer))
        } else {
            let part = job.host_of_rank[team.rank as usize];
            let scratch = job.settings.scratch.as_deref();
            let dir = match scratch {
                None if is_shared(&opening.record, &opening.nonce) => opening.record.clone(),
                scratch => {
                    let scratch = scratch.map_or_else(std::env::temp_dir, Path::to_path_buf);
                    let dir = staging(&scratch, &opening.record, part);
                    staged = Some((part, dir.clone()));
                    dir
                }
            };
            Rows::Writer(Arc::new(RecordWriter::join(&dir, &opening.manifest, part)?))
        };
        let collector = match &rows {
            Rows::Writer(writer) => Some(Collector::start(team, writer)?),
            Rows::Forwarder(_) => None,
        };
        Ok(Self {
            line: Line {
                team: Arc::clone(team),
                record: opening.record,
            },
            rows,
            collector,
            staged,
            patience: job.settings.timeout,
        })
    }

    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Hands over what is left, and closes the record on rank 0, where that is returned.
    pub(crate) fn close(
        mut self,
        status: &ClosingStatus,
        steps_completed: u32,
    ) -> Result<Option<Closing>, MeasureError> {
        let failed = matches!(status, ClosingStatus::Failed { .. });
        if failed {
            self.patience = AFTER_FAILURE;
        }
        if let Some(collector) = self.collector.take() {
            let patience_ms = (self.patience.as_millis() as u64).max(1);
            collector.patience_ms.store(patience_ms, Ordering::Release);
            _ = collector.thread.join();
        }
        match self.rows {
            Rows::Forwarder(forwarder) => {
                let sent = forwarder.close();
                self.line.send_up(ROWS_DONE, Vec::new(), failed)?;
                sent?;
                Ok(None)
            }
            Rows::Writer(writer) if self.line.team.rank == 0 => {
                let parts = self.line.parts(self.patience);
                let writer = sole(writer, &self.line.record)?;
                let closing = writer.close_with_parts(status.clone(), steps_completed, parts)?;
                Ok(Some(closing))
            }
            Rows::Writer(writer) => {
                let closing = sole(writer, &self.line.record)?.close_part();
                self.line.ship(&closing, self.staged.as_ref(), failed)?;
                Ok(None)
            }
        }
    }
}

/// The way from and to other processes.
struct Line {
    team: Arc<Team>,
    record: PathBuf,
}

impl Line {
    /// Sends this host's part to rank 0, with its files where they are not in the record already.
    fn ship(
        &self,
        closing: &PartClosing,
        staged: Option<&(u32, PathBuf)>,
        failed: bool,
    ) -> Result<(), MeasureError> {
        if let Some((part, dir)) = staged {
            for (name, path, _) in part_files(dir, *part)? {
                let bytes = fs::read(&path).map_err(|error| MeasureError::System {
                    what: format!("reading {}", path.display()),
                    why: error.to_string(),
                })?;
                for message in Piece::cut(*part, &name, &bytes) {
                    self.send_up(PART_FILE, message, failed)?;
                }
            }
        }
        let word = serde_json::to_vec(closing).map_err(|error| unreadable(&error))?;
        self.send_up(PART_DONE, word, failed)?;
        match staged {
            // Of a run that failed it is not known whether rank 0 has it all.
            Some((part, dir)) if !failed => Ok(remove_part(dir, *part)?),
            _ => Ok(()),
        }
    }

    /// To the host's writer, or from there to rank 0. After a failure nobody may be there any more.
    fn send_up(&self, kind: u8, payload: Vec<u8>, failed: bool) -> Result<(), MeasureError> {
        match self.team.control.send_up(kind, payload) {
            Err(source) if !failed => Err(self.team.failed(source)),
            _ => Ok(()),
        }
    }

    /// The other hosts' parts, on rank 0: those that come in time.
    fn parts(&self, patience: Duration) -> Vec<PartClosing> {
        let leaders = self.team.control.hosts().iter().map(|host| host.leader());
        let mut missing: BTreeSet<Rank> = leaders.filter(|leader| *leader != 0).collect();
        let mut files = Files::default();
        let mut parts = Vec::new();
        let deadline = Instant::now() + patience;
        let (pieces, closings) = (&self.team.part_files, &self.team.parts_done);
        while !missing.is_empty() && Instant::now() < deadline {
            while let Ok(piece) = locked(pieces).recv_timeout(LOOK_EVERY) {
                self.accept(&mut files, &piece);
            }
            while let Ok(envelope) = locked(closings).try_recv() {
                // Its files came before it.
                while let Ok(piece) = locked(pieces).try_recv() {
                    self.accept(&mut files, &piece);
                }
                missing.remove(&envelope.from);
                match serde_json::from_slice(&envelope.payload) {
                    Ok(closing) => parts.push(closing),
                    Err(error) => tracing::warn!(rank = envelope.from, %error, "unreadable part"),
                }
            }
        }
        parts
    }

    fn accept(&self, files: &mut Files, envelope: &Envelope) {
        let Some(piece) = Piece::read(&envelope.payload) else {
            tracing::warn!(rank = envelope.from, "unreadable piece of a file");
            return;
        };
        let bytes = files
            .entry((piece.part, piece.name.to_owned()))
            .or_default();
        bytes.extend_from_slice(piece.bytes);
        if piece.is_last
            && let Err(error) = accept_file(&self.record, piece.part, piece.name, bytes.as_slice())
        {
            tracing::warn!(rank = envelope.from, %error, "a file was not taken");
        }
        if piece.is_last {
            files.remove(&(piece.part, piece.name.to_owned()));
        }
    }
}

/// Files under way, by part and name.
type Files = BTreeMap<(u32, String), Vec<u8>>;

/// A piece of a file: part, whether it is the last, length of the name, name, bytes.
struct Piece<'a> {
    part: u32,
    is_last: bool,
    name: &'a str,
    bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    fn cut(part: u32, name: &str, bytes: &[u8]) -> Vec<Vec<u8>> {
        let count = bytes.len().div_ceil(CHUNK_BYTES).max(1);
        let piece = |index: usize| {
            let begin = index * CHUNK_BYTES;
            let end = bytes.len().min(begin + CHUNK_BYTES);
            let mut message = part.to_le_bytes().to_vec();
            message.push(u8::from(index + 1 == count));
            message.push(name.len() as u8);
            message.extend_from_slice(name.as_bytes());
            message.extend_from_slice(&bytes[begin..end]);
            message
        };
        (0..count).map(piece).collect()
    }

    fn read(message: &'a [u8]) -> Option<Self> {
        let (part, rest) = message.split_first_chunk()?;
        let (is_last, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first()?;
        let (name, bytes) = rest.split_at_checked(usize::from(*length))?;
        Some(Self {
            part: u32::from_le_bytes(*part),
            is_last: *is_last != 0,
            name: std::str::from_utf8(name).ok()?,
            bytes,
        })
    }
}

fn forwarder(team: &Arc<Team>) -> Result<RowForwarder, RecordError> {
    let control = Arc::clone(&team.control);
    let send = move |rows| {
        control
            .send_up(ROWS, rows)
            .map_err(|error| error.to_string())
    };
    RowForwarder::start(team.size() as usize, Box::new(send))
}

fn locked(inbox: &Mutex<Receiver<Envelope>>) -> std::sync::MutexGuard<'_, Receiver<Envelope>> {
    inbox
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Collector {
    fn start(team: &Arc<Team>, writer: &Arc<RecordWriter>) -> Result<Self, MeasureError> {
        let (rows, done) = (team.control.inbox(ROWS), team.control.inbox(ROWS_DONE));
        let writer = Arc::clone(writer);
        let host = team.control.host_ranks();
        let missing = host
            .iter()
            .copied()
            .filter(|rank| *rank != team.rank)
            .collect();
        let patience_ms = Arc::new(AtomicU64::new(0));
        let patience = Arc::clone(&patience_ms);
        let thread = std::thread::Builder::new()
            .name("laggard-collect".to_owned())
            .spawn(move || collect(&rows, &done, &writer, missing, &patience))
            .map_err(|error| MeasureError::System {
                what: "starting the thread that collects rows".to_owned(),
                why: error.to_string(),
            })?;
        Ok(Self {
            thread,
            patience_ms,
        })
    }
}

fn collect(
    rows: &Receiver<Envelope>,
    done: &Receiver<Envelope>,
    writer: &RecordWriter,
    mut missing: BTreeSet<Rank>,
    patience_ms: &AtomicU64,
) {
    let take = |envelope: Envelope| {
        if let Err(error) = writer.receive(&envelope.payload) {
            tracing::warn!(rank = envelope.from, %error, "rows were not taken");
        }
    };
    let mut over = None;
    while !missing.is_empty() {
        match rows.recv_timeout(LOOK_EVERY) {
            Ok(envelope) => take(envelope),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(envelope) = done.try_recv() {
            missing.remove(&envelope.from);
        }
        let patience = Duration::from_millis(patience_ms.load(Ordering::Acquire));
        if !patience.is_zero() && over.get_or_insert_with(Instant::now).elapsed() > patience {
            tracing::warn!(?missing, "rows of ranks did not come to their end");
            break;
        }
    }
    while let Ok(envelope) = rows.try_recv() {
        take(envelope);
    }
}
