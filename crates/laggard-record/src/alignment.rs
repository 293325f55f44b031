//! `alignment.jsonl`: how the clocks of ranks relate, appended after the samples and applied when
//! they are read, so that a killed run and a better alignment later both fit.

use crate::error::RecordError;
use laggard_types::{Caveat, CaveatCode, Rank};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Name of the file in a record.
pub(crate) const ALIGNMENT_FILE: &str = "alignment.jsonl";

/// From a time of a rank's clock on,
/// `common = raw + offset_ns + drift_ppm * 1e-6 * (raw - from_ns)`.
/// Before a rank's first segment, the first one holds too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alignment {
    /// The rank.
    pub rank: Rank,
    /// Raw time from which on it holds, nanoseconds.
    pub from_ns: i64,
    /// Common time minus raw time at `from_ns`, nanoseconds.
    pub offset_ns: i64,
    /// How much faster the common clock runs, in millionths.
    pub drift_ppm: f64,
    /// The aligned time is wrong by at most this, nanoseconds.
    pub bound_ns: i64,
    /// How it was found. The method that was appended last for a rank replaces earlier ones.
    pub method: String,
}

/// Appends alignment segments to the record in `dir`.
///
/// # Errors
/// If a drift is not finite, or the file cannot be written.
pub fn append_alignment(dir: &Path, segments: &[Alignment]) -> Result<(), RecordError> {
    let path = dir.join(ALIGNMENT_FILE);
    let mut lines = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        if !segment.drift_ppm.is_finite() {
            return Err(RecordError::InvalidField {
                path,
                field: format!("[{index}].drift_ppm"),
                why: format!("is {}, not a finite number", segment.drift_ppm),
            });
        }
        serde_json::to_writer(&mut lines, segment)
            .map_err(|error| RecordError::json(&path, &error))?;
        lines.push(b'\n');
    }
    let file = OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(&lines))
        .map_err(|error| RecordError::io("append to", &path, &error))
}

/// The alignment of a whole world.
#[derive(Debug, Default)]
pub(crate) struct Alignments {
    /// By rank, in order of time; no entry where the record has no alignment at all.
    by_rank: Vec<Vec<Alignment>>,
}

impl Alignments {
    /// Reads the record's alignment. A last line that was cut off is passed over with a caveat.
    pub(crate) fn read(
        dir: &Path,
        world: usize,
        caveats: &mut Vec<Caveat>,
    ) -> Result<Self, RecordError> {
        let path = dir.join(ALIGNMENT_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(RecordError::io("read", &path, &error)),
        };
        let mut by_rank: Vec<Vec<Alignment>> = vec![Vec::new(); world];
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let segment: Alignment = match serde_json::from_str(line) {
                Ok(segment) => segment,
                Err(_) if !line.ends_with('\n') => {
                    let message = format!("the last line of {ALIGNMENT_FILE} is cut off; not used");
                    caveats.push(Caveat::new(CaveatCode::IncompleteTrace, message));
                    break;
                }
                Err(error) => {
                    let column = error.column();
                    let why = error.to_string();
                    return Err(RecordError::BrokenJson {
                        path,
                        line: index + 1,
                        column,
                        why,
                    });
                }
            };
            let Some(segments) = by_rank.get_mut(segment.rank as usize) else {
                return Err(RecordError::InvalidField {
                    path,
                    field: format!("line {}: rank", index + 1),
                    why: format!("is {}, but there are {world} ranks", segment.rank),
                });
            };
            if segments
                .last()
                .is_some_and(|last| last.method != segment.method)
            {
                segments.clear();
            }
            segments.push(segment);
        }
        // The sort is stable: of two segments from the same time on, the later line stays last and
        // is the one that `aligned` finds.
        by_rank
            .iter_mut()
            .for_each(|segments| segments.sort_by_key(|segment| segment.from_ns));
        Ok(Self { by_rank })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_rank.iter().all(Vec::is_empty)
    }

    pub(crate) fn covers_all_ranks(&self) -> bool {
        !self.by_rank.is_empty() && self.by_rank.iter().all(|segments| !segments.is_empty())
    }

    /// The largest bound of a rank's segments.
    pub(crate) fn bound_ns(&self, rank: Rank) -> Option<i64> {
        self.by_rank
            .get(rank as usize)?
            .iter()
            .map(|segment| segment.bound_ns)
            .max()
    }

    /// The common time of a rank's raw time; the raw time where there is no alignment.
    pub(crate) fn aligned(&self, rank: usize, raw_ns: i64) -> i64 {
        let Some(segments) = self.by_rank.get(rank) else {
            return raw_ns;
        };
        let after = segments.partition_point(|segment| segment.from_ns <= raw_ns);
        let Some(segment) = segments.get(after.saturating_sub(1)) else {
            return raw_ns;
        };
        let elapsed = raw_ns.saturating_sub(segment.from_ns);
        let drift = (elapsed as f64 * segment.drift_ppm * 1e-6).round() as i64;
        raw_ns
            .saturating_add(segment.offset_ns)
            .saturating_add(drift)
    }
}
