//! The run record: a directory with `manifest.json` and columnar samples. Knows nothing of where
//! events came from.
//!
//! Reading, in bounded memory:
//!
//! ```no_run
//! use laggard_record::Record;
//! # fn main() -> Result<(), laggard_record::RecordError> {
//! let record = Record::open("run-1".as_ref())?;
//! let mut busy_ns = 0;
//! let reading = record.samples(|batch| {
//!     for (start, end) in batch.start_ns.iter().zip(batch.end_ns) {
//!         busy_ns += end - start;
//!     }
//! })?;
//! let work = record.steps()?.rows;
//! let doubts = record.caveats.iter().chain(&reading.caveats);
//! # drop((work, doubts));
//! # Ok(())
//! # }
//! ```
//!
//! - Read: [`Record::open`], [`Record::samples`], [`Record::steps`], [`Record::telemetry`],
//!   [`Record::devices`].
//! - Read segments side by side: [`Record::sample_segments`], [`Record::tally`],
//!   [`Record::read_sample_segment`], [`Tally::merge`], [`Record::conclude`].
//! - Write while a job runs: [`RecordWriter::create`], [`RecordWriter::recorder`],
//!   [`RankRecorder::push`], [`RecordWriter::flush`], [`RecordWriter::close`].
//! - Write from several processes: the ranks of a host forward their rows to the host's writer
//!   ([`RowForwarder`], [`RecordWriter::receive`]), the writers of hosts beside the root's add a
//!   part each ([`RecordWriter::join`], [`RecordWriter::close_part`],
//!   [`RecordWriter::close_with_parts`]).
//! - Where hosts do not share the directory ([`RecordWriter::nonce`], [`is_shared`]), or should not
//!   trouble it, parts grow in scratch directories and are gathered: [`part_files`],
//!   [`accept_file`], [`remove_part`], [`RecordWriter::create_staged`].
//! - Write a whole record at once: [`write_record`], [`write_devices`].
//! - Worlds too large to keep every sample: [`write_sketch`], [`Record::sketch_steps`],
//!   [`Record::sketch_ranks`].
//! - Align the clocks of a record: [`append_alignment`].
//! - Every sample of a benchmark of single calls: [`BenchSamples`].

mod alignment;
mod batch;
mod bench;
mod bulk;
mod check;
mod closing;
mod collector;
mod columns;
mod error;
mod failure;
mod files;
mod forwarder;
mod histogram;
mod lane;
mod manifest;
mod part;
mod reader;
mod recorder;
mod segment;
mod sketch;
mod table;
mod version;
mod wire;
mod writer;

pub use alignment::{Alignment, append_alignment};
pub use batch::{SampleBatch, Tally};
pub use bench::{
    BenchRank, BenchSamples, CollectiveSamples, ComputeSamples, ComputeWork, PairSamples, Placement,
};
pub use bulk::{TableRows, write_devices, write_record};
pub use closing::{Closing, ClosingStatus, PartClosing};
pub use error::RecordError;
pub use failure::{Failure, append_failure};
pub use forwarder::{Forwarded, RowForwarder, SendRows};
pub use manifest::{
    Class, Clock, Communication, Emulation, Host, InjectedFault, Link, Manifest, Origin, Peak,
    PeakKind, RankPlace, TimeBasis, Workload,
};
pub use part::{accept_file, is_shared, part_files, remove_part};
pub use reader::{MANIFEST_FILE, Record, Rows, SampleReading};
pub use recorder::RankRecorder;
pub use sketch::{SketchBaseline, SketchRank, SketchRows, SketchStep, write_sketch};
pub use table::{DeviceReading, Sample, StepWork, Telemetry};
pub use version::SchemaVersion;
pub use writer::RecordWriter;
