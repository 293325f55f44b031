//! Reading a record: what is whole is read, what is not is named.

use crate::alignment::Alignments;
use crate::batch::{Dropped, SampleBatch, Tally};
use crate::check::check_manifest;
use crate::closing::{Closing, PartClosing};
use crate::columns::Row;
use crate::error::RecordError;
use crate::failure::failures;
use crate::manifest::{InjectedFault, Manifest};
use crate::part::segments_of;
use crate::segment::read_batches;
use crate::table::{DeviceReading, Sample, StepWork, Telemetry};
use crate::version::SchemaVersion;
use laggard_types::{Caveat, CaveatCode, Rank};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

/// Name of the manifest in a record.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Name of the closing in a record.
pub(crate) const CLOSING_FILE: &str = "closing.json";

/// Hosts that a caveat names at most.
const NAMED_HOSTS: usize = 8;

/// An open record. Its tables stay on disk until they are asked for.
#[derive(Debug)]
pub struct Record {
    /// What ran. `truth` is empty here, because an analysis must not see it: whoever checks an
    /// analysis asks [`Record::injected_faults`]. `clock.common_to_all_ranks` is true also where
    /// every rank has an alignment.
    pub manifest: Manifest,
    /// How the run ended; `None` where it was killed or goes on.
    pub closing: Option<Closing>,
    /// The manifest's caveats and those of opening.
    pub caveats: Vec<Caveat>,
    injected_faults: Vec<InjectedFault>,
    alignments: Alignments,
    sample_segments: Vec<PathBuf>,
    dir: PathBuf,
}

/// What reading all samples found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleReading {
    /// Samples that were handed out.
    pub rows: u64,
    /// What was left out or is missing.
    pub caveats: Vec<Caveat>,
}

/// A small table, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows<R> {
    /// The rows, in the order in which they were written.
    pub rows: Vec<R>,
    /// What was left out.
    pub caveats: Vec<Caveat>,
}

impl Record {
    /// Opens the record in `dir`: reads manifest, closing and alignment.
    ///
    /// # Errors
    /// If `dir` is no record, is of a later version, or one of these files is broken.
    pub fn open(dir: &Path) -> Result<Self, RecordError> {
        let mut manifest = read_manifest(dir)?;
        let mut caveats = manifest.caveats.clone();
        let closing: Option<Closing> = match File::open(dir.join(CLOSING_FILE)) {
            Ok(file) => Some(parse_json(&dir.join(CLOSING_FILE), file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(RecordError::io("open", &dir.join(CLOSING_FILE), &error)),
        };
        if closing.is_none() {
            let message = format!(
                "{} was not closed: the run was killed or is still going on; what it wrote by \
                 then is used",
                dir.display()
            );
            caveats.push(Caveat::new(CaveatCode::NotClosed, message));
        }
        caveats.extend(
            closing
                .iter()
                .flat_map(|closing| faults_of(closing, &manifest)),
        );
        caveats.extend(failures(dir));
        let alignments = Alignments::read(dir, manifest.ranks.len(), &mut caveats)?;
        manifest.clock.common_to_all_ranks |= alignments.covers_all_ranks();
        Ok(Self {
            injected_faults: std::mem::take(&mut manifest.truth),
            sample_segments: segments_of(dir, Sample::TABLE.name)?,
            dir: dir.to_owned(),
            manifest,
            closing,
            caveats,
            alignments,
        })
    }

    /// The faults that were put in on purpose: for those who check an analysis, never for one.
    pub fn injected_faults(&self) -> &[InjectedFault] {
        &self.injected_faults
    }

    /// How far the aligned times of a rank may be off, nanoseconds; `None` without alignment.
    pub fn alignment_bound_ns(&self, rank: Rank) -> Option<i64> {
        self.alignments.bound_ns(rank)
    }

    /// Streams all samples, in the order in which they were written, in batches that fit the
    /// processor's cache. Impossible rows and segments that cannot be read are left out with a
    /// caveat.
    ///
    /// # Errors
    /// If a segment lacks a column, or there are segments but none can be read.
    pub fn samples(
        &self,
        mut visit: impl FnMut(&SampleBatch<'_>),
    ) -> Result<SampleReading, RecordError> {
        let mut tally = self.tally();
        for index in 0..self.sample_segments.len() {
            self.read_sample_segment(index, &mut tally, &mut visit)?;
        }
        self.conclude(&tally)
    }

    /// How many segments table `samples` has, for callers that read them side by side with
    /// [`Record::read_sample_segment`].
    pub fn sample_segments(&self) -> usize {
        self.sample_segments.len()
    }

    /// A tally to start reading with.
    pub fn tally(&self) -> Tally {
        Tally::new(
            self.manifest.ranks.len(),
            self.manifest.schedule.operations.len(),
        )
    }

    /// Streams one segment of table `samples`. One that cannot be read is noted in `tally`.
    ///
    /// # Errors
    /// If the segment lacks a column.
    ///
    /// # Panics
    /// If there is no segment `index`.
    pub fn read_sample_segment(
        &self,
        index: usize,
        tally: &mut Tally,
        visit: &mut dyn FnMut(&SampleBatch<'_>),
    ) -> Result<(), RecordError> {
        let path = &self.sample_segments[index];
        let read = read_batches(path, &Sample::TABLE, &mut |columns| {
            tally.admit(columns, &self.alignments, visit);
        });
        pass_over_broken(read, &mut tally.unreadable)
    }

    /// What reading all segments found, once their tallies are merged.
    ///
    /// # Errors
    /// If there are segments but none could be read.
    pub fn conclude(&self, tally: &Tally) -> Result<SampleReading, RecordError> {
        let mut caveats: Vec<Caveat> = tally
            .dropped
            .caveat(Sample::TABLE.name)
            .into_iter()
            .collect();
        let segments = self.sample_segments.len();
        caveats.extend(self.unreadable::<Sample>(&tally.unreadable, segments)?);
        caveats.extend(self.missing(tally));
        Ok(SampleReading {
            rows: tally.rows,
            caveats,
        })
    }

    /// What should be there and is not, without saying it of a segment that is unreadable.
    fn missing(&self, tally: &Tally) -> Vec<Caveat> {
        let world = self.manifest.ranks.len();
        let missing: Vec<usize> = tally.missing_ranks().collect();
        let mut messages = Vec::new();
        if let Some(first) = missing.first() {
            messages.push(format!(
                "samples of {} of {world} ranks; the first without any is rank {first}",
                world - missing.len()
            ));
        }
        messages.extend(silent_hosts(&self.manifest, &missing));
        let read = tally.rows + tally.dropped.rows;
        if let Some(closing) = &self.closing
            && read < closing.samples
            && tally.unreadable.is_empty()
        {
            messages.push(format!(
                "{read} of the {} samples that were recorded are here; segments were lost",
                closing.samples
            ));
        }
        let caveat = |message| Caveat::new(CaveatCode::MissingSamples, message);
        messages.into_iter().map(caveat).collect()
    }

    /// Reads table `steps`.
    ///
    /// # Errors
    /// As [`Record::samples`].
    pub fn steps(&self) -> Result<Rows<StepWork>, RecordError> {
        let world = self.manifest.ranks.len();
        self.rows(|row: &mut StepWork| {
            let counts = [row.tokens, row.tokens_squared];
            let fits = (row.rank as usize) < world
                && i32::try_from(row.step).is_ok()
                && counts.iter().all(|count| *count >= 0);
            if fits {
                Ok(())
            } else {
                Err(format!("rank {}, step {}", row.rank, row.step))
            }
        })
    }

    /// Reads table `telemetry`. Its times are aligned as those of the host's first rank.
    ///
    /// # Errors
    /// As [`Record::samples`].
    pub fn telemetry(&self) -> Result<Rows<Telemetry>, RecordError> {
        let hosts = self.manifest.hosts.len();
        let ranks = &self.manifest.ranks;
        let first_rank: Vec<Option<usize>> = (0..hosts)
            .map(|host| ranks.iter().position(|place| place.host as usize == host))
            .collect();
        self.rows(|row: &mut Telemetry| {
            let counts = [row.busy_ns, row.own_ns, row.steal_ns];
            let fits = (row.host as usize) < hosts
                && i32::try_from(row.cpu).is_ok()
                && row.start_ns <= row.end_ns
                && counts.iter().all(|count| *count >= 0);
            if !fits {
                return Err(format!("host {}, cpu {}", row.host, row.cpu));
            }
            if let Some(rank) = first_rank[row.host as usize] {
                row.start_ns = self.alignments.aligned(rank, row.start_ns);
                row.end_ns = self.alignments.aligned(rank, row.end_ns);
            }
            Ok(())
        })
    }

    /// Reads table `device_telemetry`; empty where accelerators told nothing. Its times are aligned
    /// as those of the rank's samples.
    ///
    /// # Errors
    /// As [`Record::samples`].
    pub fn devices(&self) -> Result<Rows<DeviceReading>, RecordError> {
        let world = self.manifest.ranks.len();
        self.rows(|row: &mut DeviceReading| {
            let is_negative = |value: &i64| *value < 0;
            if row.rank as usize >= world || row.state.values().iter().flatten().any(is_negative) {
                return Err(format!("rank {}, at {} ns", row.rank, row.at_ns));
            }
            row.at_ns = self.alignments.aligned(row.rank as usize, row.at_ns);
            Ok(())
        })
    }

    /// Reads a small table whole; `admit` changes a row or refuses it with its name.
    pub(crate) fn rows<R: Row>(
        &self,
        admit: impl Fn(&mut R) -> Result<(), String>,
    ) -> Result<Rows<R>, RecordError> {
        let segments = segments_of(&self.dir, R::TABLE.name)?;
        let (mut rows, mut unreadable) = (Vec::new(), Vec::new());
        let mut dropped = Dropped::default();
        for path in &segments {
            let read = read_batches(path, &R::TABLE, &mut |columns| {
                for index in 0..columns.rows() {
                    let mut row = R::get(columns, index);
                    match admit(&mut row) {
                        Ok(()) => rows.push(row),
                        Err(name) => dropped.add(|| name),
                    }
                }
            });
            pass_over_broken(read, &mut unreadable)?;
        }
        let mut caveats: Vec<Caveat> = dropped.caveat(R::TABLE.name).into_iter().collect();
        caveats.extend(self.unreadable::<R>(&unreadable, segments.len())?);
        Ok(Rows { rows, caveats })
    }

    fn unreadable<R: Row>(
        &self,
        unreadable: &[String],
        segments: usize,
    ) -> Result<Option<Caveat>, RecordError> {
        let Some(first) = unreadable.first().cloned() else {
            return Ok(None);
        };
        if unreadable.len() == segments {
            let path = self.dir.join(R::TABLE.name);
            return Err(RecordError::NothingReadable {
                path,
                segments,
                first,
            });
        }
        let message = format!(
            "{} of {segments} segments of table {} are left out; the first: {first}",
            unreadable.len(),
            R::TABLE.name
        );
        Ok(Some(Caveat::new(CaveatCode::DroppedSamples, message)))
    }
}

/// Names the hosts of which no rank has samples, where other hosts have some. A part is missing
/// then: its host was lost before the first flush, or had no way to bring it.
fn silent_hosts(manifest: &Manifest, missing: &[usize]) -> Option<String> {
    let mut ranks = vec![0usize; manifest.hosts.len()];
    let mut silent = ranks.clone();
    let host_of = |rank: usize| manifest.ranks[rank].host as usize;
    (0..manifest.ranks.len()).for_each(|rank| ranks[host_of(rank)] += 1);
    missing.iter().for_each(|rank| silent[host_of(*rank)] += 1);
    let used = ranks.iter().filter(|ranks| **ranks > 0).count();
    let names: Vec<String> = (0..ranks.len())
        .filter(|host| ranks[*host] > 0 && silent[*host] == ranks[*host])
        .map(|host| format!("`{}`", manifest.hosts[host].name))
        .collect();
    if names.is_empty() || names.len() == used {
        return None;
    }
    let more = names.len().saturating_sub(NAMED_HOSTS);
    let mut list = names[..names.len() - more].join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    Some(format!(
        "no samples of {} of {used} hosts: {list}; what they recorded was not written or not \
         gathered",
        names.len()
    ))
}

/// What other hosts than the root's could not write.
fn faults_of(closing: &Closing, manifest: &Manifest) -> Vec<Caveat> {
    let caveat = |part: &PartClosing| {
        let fault = part.fault.as_ref()?;
        let host = manifest.hosts.get(part.part as usize)?;
        let message = format!(
            "the part of host `{}` ends early: {fault}; what was written before is used",
            host.name
        );
        Some(Caveat::new(CaveatCode::MissingSamples, message))
    };
    closing.parts.iter().filter_map(caveat).collect()
}

/// Notes a segment that cannot be read; other failures stay failures.
fn pass_over_broken(
    read: Result<(), RecordError>,
    unreadable: &mut Vec<String>,
) -> Result<(), RecordError> {
    match read {
        Err(error @ (RecordError::BrokenSegment { .. } | RecordError::Io { .. })) => {
            unreadable.push(error.to_string());
            Ok(())
        }
        other => other,
    }
}

/// Reads and checks the manifest of the record in `dir`, `truth` included.
fn read_manifest(dir: &Path) -> Result<Manifest, RecordError> {
    let no_record = |why: &str| RecordError::NotARecord {
        path: dir.to_owned(),
        why: why.into(),
    };
    let kind = fs::metadata(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => no_record("there is nothing of that name"),
        _ => RecordError::io("open", dir, &error),
    })?;
    if !kind.is_dir() {
        return Err(no_record("it is a file, not a directory"));
    }
    let path = dir.join(MANIFEST_FILE);
    let text = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => no_record("it has no manifest.json"),
        _ => RecordError::io("read", &path, &error),
    })?;
    // The version comes first: a later one may have fields that this laggard does not know.
    let version: VersionOnly =
        serde_json::from_slice(&text).map_err(|error| RecordError::json(&path, &error))?;
    let (found, supported) = (version.schema_version, SchemaVersion::CURRENT);
    if found > supported {
        return Err(RecordError::FutureVersion {
            path,
            found,
            supported,
        });
    }
    let mut manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| RecordError::json(&path, &error))?;
    if found < SchemaVersion::WITH_MACHINES {
        for (index, host) in (0..).zip(&mut manifest.hosts) {
            host.machine = index;
        }
    }
    check_manifest(&manifest, &path)?;
    Ok(manifest)
}

#[derive(Deserialize)]
struct VersionOnly {
    schema_version: SchemaVersion,
}

fn parse_json<T: DeserializeOwned>(path: &Path, file: File) -> Result<T, RecordError> {
    serde_json::from_reader(BufReader::new(file)).map_err(|error| RecordError::json(path, &error))
}
