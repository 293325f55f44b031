//! Recording on a rank that is not its host's writer: a thread collects what the rank records and
//! passes it on as bytes. Knows nothing of how they travel.

use crate::error::RecordError;
use crate::lane::Capacity;
use crate::recorder::{RankLanes, RankRecorder, lanes_of};
use crate::table::{DeviceReading, Telemetry};
use crate::wire::Batch;
use laggard_types::Rank;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How often rows are passed on. The thread shares the rank's processor, so it wakes seldom.
const SEND_EVERY: Duration = Duration::from_millis(500);
/// How long a flush may take.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);
/// How long the end may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(60);
/// Rows of each table in one batch: some hundred kilobytes.
const BATCH_ROWS: usize = 1 << 14;
/// Samples that a rank can record between two looks of the thread without allocating: 65,536.
const SAMPLES_AHEAD: Capacity = Capacity {
    chunks: 64,
    rows_per_chunk: 1024,
};
/// Rows of table `steps`, likewise: 4,096.
const STEPS_AHEAD: Capacity = Capacity {
    chunks: 64,
    rows_per_chunk: 64,
};

/// Takes a batch of rows to the host's writer, which hands it to [`crate::RecordWriter::receive`].
/// Says why where it cannot.
pub type SendRows = Box<dyn FnMut(Vec<u8>) -> Result<(), String> + Send>;

/// Records for a rank whose host's writer lives in another process.
///
/// A failure to send does not disturb the rank: it shows at the next [`RowForwarder::check`],
/// [`RowForwarder::flush`] or [`RowForwarder::close`]. From the first failure on nothing more is
/// sent. Dropping the forwarder without closing it sends what is left.
#[derive(Debug)]
pub struct RowForwarder {
    ranks: usize,
    /// `None` only while the forwarder is dropped.
    commands: Option<Sender<Command>>,
    fault: Arc<OnceLock<RecordError>>,
    lags: Arc<AtomicU64>,
    /// Disconnects when the thread ends.
    ended: Receiver<()>,
}

/// What a forwarder has sent, once it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// Rows of table `samples`.
    pub samples: u64,
    /// Rows of table `steps`.
    pub steps: u64,
    /// Rows of tables `telemetry` and `device_telemetry`.
    pub telemetry: u64,
    /// How often a rank had to allocate because the forwarder lagged behind it. The writer that
    /// receives the rows counts these too.
    pub writer_lags: u64,
}

enum Command {
    Add(RankLanes),
    Telemetry(Vec<Telemetry>),
    Devices(Vec<DeviceReading>),
    Flush(SyncSender<()>),
    Close(SyncSender<Forwarded>),
}

impl RowForwarder {
    /// Starts a forwarder for ranks of a world of `ranks` ranks. `send` is called from the
    /// forwarder's thread; each wait in it should have a deadline.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(ranks: usize, send: SendRows) -> Result<Self, RecordError> {
        let (commands, inbox) = channel();
        let (end, ended) = sync_channel(0);
        let fault = Arc::new(OnceLock::new());
        let lags = Arc::new(AtomicU64::new(0));
        let outbox = Outbox {
            lanes: Vec::new(),
            batch: Batch::default(),
            sent: Forwarded::default(),
            send,
            fault: Arc::clone(&fault),
            lags: Arc::clone(&lags),
        };
        thread::Builder::new()
            .name("laggard-forward".to_owned())
            .spawn(move || {
                outbox.run(&inbox);
                drop(end);
            })
            .map_err(|error| not_forwarded(format!("its thread cannot be started: {error}")))?;
        Ok(Self {
            ranks,
            commands: Some(commands),
            fault,
            lags,
            ended,
        })
    }

    /// A recorder for one rank, to be moved to its thread.
    ///
    /// # Errors
    /// If there is no such rank, or the forwarder has stopped.
    pub fn recorder(&self, rank: Rank) -> Result<RankRecorder, RecordError> {
        if rank as usize >= self.ranks {
            return Err(RecordError::NoSuchRank {
                rank,
                ranks: self.ranks,
            });
        }
        let (recorder, lanes) = lanes_of(rank, SAMPLES_AHEAD, STEPS_AHEAD, &self.lags);
        self.send(Command::Add(lanes))?;
        Ok(recorder)
    }

    /// Passes on what processors did.
    ///
    /// # Errors
    /// If the forwarder has stopped.
    pub fn push_telemetry(&self, rows: Vec<Telemetry>) -> Result<(), RecordError> {
        self.send(Command::Telemetry(rows))
    }

    /// Records what accelerators told of themselves.
    ///
    /// # Errors
    /// If the forwarder has stopped.
    pub fn push_devices(&self, rows: Vec<DeviceReading>) -> Result<(), RecordError> {
        self.send(Command::Devices(rows))
    }

    /// Whether everything so far could be sent.
    ///
    /// # Errors
    /// The first failure to send.
    pub fn check(&self) -> Result<(), RecordError> {
        self.fault.get().cloned().map_or(Ok(()), Err)
    }

    /// Sends everything that was recorded before the call, also by ranks that hang now.
    ///
    /// # Errors
    /// If something cannot be sent, or that takes longer than ten seconds.
    pub fn flush(&self) -> Result<(), RecordError> {
        let (reply, done) = sync_channel(1);
        self.send(Command::Flush(reply))?;
        self.wait(&done, FLUSH_DEADLINE)?;
        self.check()
    }

    /// Sends everything that was recorded, and ends.
    ///
    /// # Errors
    /// If something could not be sent, or that takes longer than a minute.
    pub fn close(self) -> Result<Forwarded, RecordError> {
        let (reply, done) = sync_channel(1);
        self.send(Command::Close(reply))?;
        let sent = self.wait(&done, CLOSE_DEADLINE);
        self.check()?;
        sent
    }

    fn send(&self, command: Command) -> Result<(), RecordError> {
        let commands = self
            .commands
            .as_ref()
            .expect("there until the forwarder is dropped");
        commands.send(command).map_err(|_| self.gone())
    }

    fn wait<T>(&self, reply: &Receiver<T>, deadline: Duration) -> Result<T, RecordError> {
        reply.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                not_forwarded(format!("that takes longer than {} s", deadline.as_secs()))
            }
            RecvTimeoutError::Disconnected => self.gone(),
        })
    }

    fn gone(&self) -> RecordError {
        let unknown = || not_forwarded("the forwarder has stopped".to_owned());
        self.fault.get().cloned().unwrap_or_else(unknown)
    }
}

impl Drop for RowForwarder {
    fn drop(&mut self) {
        // Without commands to come, the thread sends what is left and ends.
        self.commands = None;
        let _ = self.ended.recv_timeout(FLUSH_DEADLINE);
    }
}

fn not_forwarded(why: String) -> RecordError {
    RecordError::NotForwarded { why }
}

/// What the forwarder's thread works on.
struct Outbox {
    lanes: Vec<RankLanes>,
    batch: Batch,
    sent: Forwarded,
    send: SendRows,
    fault: Arc<OnceLock<RecordError>>,
    lags: Arc<AtomicU64>,
}

impl Outbox {
    fn run(mut self, inbox: &Receiver<Command>) {
        let mut next = Instant::now() + SEND_EVERY;
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Command::Add(lanes)) => self.lanes.push(lanes),
                Ok(Command::Telemetry(rows)) => self.batch.telemetry.extend(rows),
                Ok(Command::Devices(rows)) => self.batch.devices.extend(rows),
                Ok(Command::Flush(reply)) => {
                    self.send_all();
                    // Whoever asked may have given up waiting.
                    let _ = reply.send(());
                }
                Ok(Command::Close(reply)) => {
                    self.send_all();
                    let _ = reply.send(self.sent);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.send_all();
                    next = Instant::now() + SEND_EVERY;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.send_all();
                    return;
                }
            }
        }
    }

    fn send_all(&mut self) {
        for lanes in &mut self.lanes {
            lanes.drain(&mut self.batch.samples, &mut self.batch.steps);
        }
        let lags = self.lags.load(Ordering::Relaxed);
        self.batch.lags = lags - self.sent.writer_lags;
        if self.fault.get().is_none()
            && !self.batch.is_empty()
            && let Err(why) = self.send_batches()
        {
            let _ = self.fault.set(not_forwarded(why));
        }
        // After a failure nothing can be sent any more: memory must not fill up.
        self.batch.clear();
    }

    fn send_batches(&mut self) -> Result<(), String> {
        let mut from = 0;
        loop {
            (self.send)(self.batch.encode(from, BATCH_ROWS))?;
            from += BATCH_ROWS;
            if from >= self.batch.longest() {
                break;
            }
        }
        self.sent.samples += self.batch.samples.len() as u64;
        self.sent.steps += self.batch.steps.len() as u64;
        self.sent.telemetry += (self.batch.telemetry.len() + self.batch.devices.len()) as u64;
        self.sent.writer_lags += self.batch.lags;
        Ok(())
    }
}
