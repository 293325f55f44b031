//! Which of CUDA's libraries this machine has: what `laggard doctor` says of them.

use crate::{CudaError, CudaLibrary, Surroundings, library};
use std::path::PathBuf;

/// What was found of one library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The library.
    pub library: CudaLibrary,
    /// What of it there is.
    pub outcome: Outcome,
}

/// What there is of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was loaded and answered.
    Usable {
        /// Its file.
        path: PathBuf,
        /// Its version, in its own words; of the driver the newest CUDA that it knows, of NVML the
        /// driver's.
        version: String,
    },
    /// It is here and cannot be used.
    Unusable {
        /// Its file.
        path: PathBuf,
        /// What it or the system says.
        why: String,
        /// What to do about it.
        fix: String,
    },
    /// It is nowhere.
    Missing {
        /// What to do about it.
        fix: String,
    },
}

/// Looks for every library, in the order of [`CudaLibrary::ALL`]. Loads what it finds, asks for
/// versions, and initialises driver and NVML, which touches no device.
pub fn probe(surroundings: &Surroundings) -> Vec<Finding> {
    CudaLibrary::ALL
        .into_iter()
        .map(|library| Finding {
            library,
            outcome: outcome(library, surroundings),
        })
        .collect()
}

fn outcome(library: CudaLibrary, surroundings: &Surroundings) -> Outcome {
    let fix = library.fix().to_owned();
    let loaded = match library::open_all(library, surroundings) {
        Ok(loaded) => loaded,
        Err(CudaError::NotLoaded { path, why, .. }) => {
            return Outcome::Unusable { path, why, fix };
        }
        Err(_) => return Outcome::Missing { fix },
    };
    let mut failure = None;
    for loaded in loaded {
        let path = loaded.path().to_owned();
        match loaded.version() {
            Ok(version) => return Outcome::Usable { path, version },
            Err(error) => {
                let why = match error {
                    CudaError::NotLoaded { why, .. } => why,
                    CudaError::Call { call, name, .. } => format!("{call} says {name}"),
                    error => error.to_string(),
                };
                let fix = fix.clone();
                failure.get_or_insert(Outcome::Unusable { path, why, fix });
            }
        }
    }
    failure.unwrap_or(Outcome::Missing { fix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_gets_one_finding_and_every_gap_a_fix() {
        let findings = probe(&Surroundings::default());
        let order: Vec<CudaLibrary> = findings.iter().map(|finding| finding.library).collect();
        assert_eq!(order, CudaLibrary::ALL);
        for finding in findings {
            match finding.outcome {
                Outcome::Usable { path, version } => {
                    assert!(
                        path.is_absolute() && !version.is_empty(),
                        "{path:?} {version}"
                    );
                }
                Outcome::Unusable { why, fix, .. } => {
                    assert!(!why.is_empty() && !fix.is_empty());
                }
                Outcome::Missing { fix } => assert_eq!(fix, finding.library.fix()),
            }
        }
    }

    #[test]
    fn a_damaged_file_is_unusable_and_not_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libcublasLt.so.13");
        std::fs::write(&path, "damaged").unwrap();
        let surroundings = Surroundings::only(&[folder.path().to_owned()]);
        let found = outcome(CudaLibrary::CublasLt, &surroundings);
        // A machine with a working one as well would rightly report that.
        match found {
            Outcome::Unusable { path: found, .. } => assert_eq!(found, path),
            Outcome::Usable { path: found, .. } => assert_ne!(found, path),
            Outcome::Missing { .. } => panic!("a damaged file is not missing"),
        }
    }
}
