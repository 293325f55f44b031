//! Seven clusters that other planners were run on, judged by one simulator.
//!
//! OPT-350M, 1,024 sequences of 2,048 tokens a step, hosts of four. Steps and search times of
//! others: Sailor's own repository at cf2c8e3c (<https://github.com/eth-easl/sailor>) with its
//! ports of Metis, AMP and FlashFlex, run on 2 shared cores of an x86-64 server under Debian 12;
//! all steps are those of Sailor's simulator.

use anyhow::Result;
use std::path::Path;

use super::links::Links;
use super::profiles::Profile;
use super::sailor::{PeerClass, SailorCosts};

/// Sequences of a step.
const GLOBAL_BATCH: u64 = 1024;
/// Classes and the memory of their devices, GiB, as Sailor's simulator has them.
const CLASSES: [(&str, f64); 3] = [("A100-40", 40.0), ("V100-16", 16.0), ("GH-96", 96.0)];

/// A cluster, and what others made of it.
#[derive(Debug, Clone, Copy)]
pub struct PeerProblem {
    /// Devices of A100-40, V100-16 and GH-96.
    pub devices: [u64; 3],
    /// The planner whose plan has the shortest step.
    pub best_peer: &'static str,
    /// That step, seconds.
    pub best_peer_s: f64,
    /// Seconds of Sailor's search.
    pub sailor_search_s: f64,
}

const fn problem(
    devices: [u64; 3],
    best_peer: &'static str,
    (best_peer_s, sailor_search_s): (f64, f64),
) -> PeerProblem {
    PeerProblem {
        devices,
        best_peer,
        best_peer_s,
        sailor_search_s,
    }
}

/// All of them.
pub const PROBLEMS: [PeerProblem; 7] = [
    problem([16, 16, 0], "Metis", (12.06, 0.24)),
    problem([32, 96, 0], "Sailor", (5.88, 2.0)),
    problem([128, 384, 0], "Sailor", (1.91, 8.7)),
    problem([512, 512, 0], "Sailor", (1.175, 11.0)),
    problem([1024, 3072, 0], "Sailor", (0.71, 86.1)),
    problem([16, 16, 16], "Sailor", (7.38, 2.2)),
    problem([32, 32, 32], "Sailor", (3.71, 180.0)),
];

impl PeerProblem {
    /// Its classes with their profiles.
    ///
    /// # Errors
    /// A profile that cannot be read.
    pub fn classes(&self, directory: &Path) -> Result<Vec<PeerClass>> {
        let there = CLASSES.iter().zip(self.devices).filter(|it| it.1 > 0);
        there
            .map(|(&(name, memory_gib), devices)| {
                Ok(PeerClass {
                    name,
                    devices,
                    memory_gib,
                    profile: Profile::read(directory, name)?,
                })
            })
            .collect()
    }

    /// Its costs.
    ///
    /// # Errors
    /// Links or sizes that are missing.
    pub fn costs(&self, classes: Vec<PeerClass>) -> Result<SailorCosts> {
        SailorCosts::new(classes, &Links::of("cloud")?, GLOBAL_BATCH)
    }
}
