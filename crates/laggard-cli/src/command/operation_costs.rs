//! Records of the user's own machines as costs of operations.

use anyhow::{Context, Result};
use laggard_analyze::operation_times;
use laggard_record::{Manifest, Record};
use laggard_simulate::{Calibration, observations};
use std::path::PathBuf;

/// Bytes of an element of a synthetic job.
pub(super) const ELEMENT_BYTES: u64 = 4;

/// What records tell.
pub(super) struct OperationCosts {
    /// What each of them says of its run, in order.
    pub(super) manifests: Vec<Manifest>,
    /// What operations cost by all of them.
    pub(super) calibration: Calibration,
    /// What was doubted of them when they were made, each with its folder.
    pub(super) caveats: Vec<String>,
}

/// Reads records.
pub(super) fn read(dirs: &[PathBuf]) -> Result<OperationCosts> {
    let (mut records, mut caveats) = (Vec::new(), Vec::new());
    for dir in dirs {
        let record = Record::open(dir)?;
        let times = operation_times(&record)
            .with_context(|| format!("cannot calibrate on {}", dir.display()))?;
        let doubts = record.manifest.caveats.iter();
        caveats.extend(doubts.map(|doubt| format!("{}: {}", dir.display(), doubt.message)));
        records.push((record.manifest, times));
    }
    let mut seen = Vec::new();
    for (manifest, times) in &records {
        let times = times.iter();
        let taken = times.map(|it| (it.rank, it.operation, it.seconds, &it.ratios[..]));
        seen.extend(observations(manifest, taken));
    }
    Ok(OperationCosts {
        calibration: Calibration::fit(&seen),
        caveats,
        manifests: records.into_iter().map(|(manifest, _)| manifest).collect(),
    })
}
