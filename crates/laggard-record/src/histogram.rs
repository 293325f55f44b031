//! `histograms.hlog`: durations by rank and phase, one histogram per flush, for HdrHistogram's own
//! tools. The samples stay the truth; this is for a quick look at a running job.

use crate::error::RecordError;
use crate::table::Sample;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use laggard_schedule::{Phase, Schedule};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest duration that is told apart: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Relative precision of the histograms, in decimal digits.
const DIGITS: u8 = 3;

/// Appends histograms to the log of a record.
pub(crate) struct HistogramLog {
    path: PathBuf,
    phases: Vec<Phase>,
    histogram: Histogram<u64>,
    serializer: V2DeflateSerializer,
    /// When the interval began.
    since: SystemTime,
    has_header: bool,
}

impl HistogramLog {
    pub(crate) fn new(path: PathBuf, schedule: &Schedule) -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Self {
            path,
            phases: schedule
                .operations
                .iter()
                .map(|operation| operation.phase)
                .collect(),
            histogram: histogram.expect("constant bounds that hdrhistogram accepts"),
            serializer: V2DeflateSerializer::new(),
            since: SystemTime::now(),
            has_header: false,
        }
    }

    /// Appends one histogram for each rank and phase that `samples` have.
    pub(crate) fn append(&mut self, samples: &[Sample]) -> Result<(), RecordError> {
        let mut durations: Vec<(u32, Phase, u64)> = samples
            .iter()
            .filter_map(|sample| {
                let phase = *self.phases.get(sample.operation as usize)?;
                let duration = sample.stamp.end_ns.checked_sub(sample.stamp.start_ns)?;
                Some((sample.rank, phase, u64::try_from(duration).ok()?))
            })
            .collect();
        durations.sort_unstable();
        let text = self.encode(&durations)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path);
        file.and_then(|mut file: File| file.write_all(&text))
            .map_err(|error| RecordError::io("append to", &self.path, &error))
    }

    fn encode(&mut self, durations: &[(u32, Phase, u64)]) -> Result<Vec<u8>, RecordError> {
        let failed = |why: String| RecordError::segment(&self.path, why);
        let interval = self.since.elapsed().unwrap_or(Duration::ZERO);
        let begin = self
            .since
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let mut text = Vec::new();
        let mut builder = IntervalLogWriterBuilder::new();
        if !self.has_header {
            builder.add_comment("durations in nanoseconds, tagged with rank and phase");
            builder.with_start_time(self.since);
        }
        let mut log = builder
            .begin_log_with(&mut text, &mut self.serializer)
            .map_err(|error| failed(error.to_string()))?;
        for group in durations.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            self.histogram.reset();
            for (_, _, duration) in group {
                self.histogram.saturating_record(*duration);
            }
            let (rank, phase, _) = group[0];
            let tag = format!("rank={rank};phase={}", phase.name().replace(' ', "_"));
            log.write_histogram(&self.histogram, begin, interval, Tag::new(&tag))
                .map_err(|error| failed(error.to_string()))?;
        }
        self.since = SystemTime::now();
        self.has_header = true;
        Ok(text)
    }
}
