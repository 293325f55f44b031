//! From connections that ended to losses that are named: suspects are collected for a moment, since
//! a host that goes takes all its ranks with it, but not all at the same instant.

use super::ControlOptions;
use super::engine::{Engine, Seen};
use super::loss::{How, LastSeen, Loss};
use super::shared::Shared;
use super::tree::HostRanks;
use super::wire::Frame;
use laggard_types::Rank;
use std::time::{Duration, Instant};

/// How long suspects are collected at least.
pub(super) const WINDOW: Duration = Duration::from_millis(300);
/// How many heartbeats they are collected for at least, because ranks that wait for the same sign
/// of life may have heard the last one so far apart.
const WINDOW_BEATS: f64 = 1.5;

/// A rank whose connection ended without a word.
pub(super) struct Suspect {
    pub rank: Rank,
    pub how: How,
    pub at: Instant,
}

/// Suspects in the order of their ends.
pub(super) struct Suspects {
    window: Duration,
    found: Vec<Suspect>,
}

impl Suspects {
    pub(super) fn new(options: &ControlOptions) -> Self {
        let window = WINDOW.max(options.heartbeat.mul_f64(WINDOW_BEATS));
        let found = Vec::new();
        Self { window, found }
    }

    pub(super) fn add(&mut self, suspect: Suspect) {
        self.found.push(suspect);
    }

    /// When they are to be named.
    pub(super) fn name_at(&self) -> Option<Instant> {
        self.found.first().map(|first| first.at + self.window)
    }
}

impl Engine {
    /// Names the suspects when it is time, tells everybody and aborts the world.
    pub(super) fn name_the_lost(&mut self, now: Instant) {
        if self.suspects.name_at().is_none_or(|at| now < at) {
            return;
        }
        let mut words = Vec::new();
        for suspect in std::mem::take(&mut self.suspects.found) {
            for loss in self.losses_of(&suspect) {
                if self.shared.record(&loss) {
                    words.push(loss.to_string());
                    self.shared.push_all(&Frame::Loss(loss), None);
                }
            }
        }
        if !words.is_empty() {
            self.shared.abort.abort(&words.join("; "));
        }
    }

    /// What the end of one connection means.
    fn losses_of(&self, suspect: &Suspect) -> Vec<Loss> {
        let host = self.shared.tree.host_of(suspect.rank);
        let leads_others = host.leader() == suspect.rank && host.ranks.len() > 1;
        if !self.shared.is_root() || !leads_others {
            return vec![self.loss(host, vec![suspect.rank], suspect.how, suspect.at)];
        }
        // The ranks of a host whose leader is gone report to this one, if they are still there.
        let is_unheard = |rank: &Rank| !self.links.contains_key(rank) && !self.is_known(*rank);
        let unheard: Vec<_> = host.ranks.iter().copied().filter(is_unheard).collect();
        let is_whole = host.ranks.iter().all(|rank| !self.links.contains_key(rank));
        if is_whole {
            return vec![self.loss(host, unheard, suspect.how, suspect.at)];
        }
        let how_of = |rank| match rank == suspect.rank {
            true => suspect.how,
            false => How::Unheard,
        };
        let each = unheard.into_iter();
        each.map(|rank| self.loss(host, vec![rank], how_of(rank), suspect.at))
            .collect()
    }

    /// Whether the rank's loss has already been told.
    fn is_known(&self, rank: Rank) -> bool {
        self.shared.is_lost(rank)
    }

    pub(super) fn loss(&self, host: &HostRanks, ranks: Vec<Rank>, how: How, at: Instant) -> Loss {
        let last = ranks.iter().filter_map(|rank| {
            let seen = self.seen.get(rank)?;
            Some(last_seen(&self.shared, *rank, *seen, at))
        });
        Loss {
            last: last.collect(),
            host: host.name.clone(),
            whole_host: host
                .ranks
                .iter()
                .all(|rank| ranks.contains(rank) || self.is_known(*rank)),
            how,
            ranks,
        }
    }
}

/// What is said of a rank that was seen there then.
pub(super) fn last_seen(shared: &Shared, rank: Rank, seen: Seen, at: Instant) -> LastSeen {
    let describe = shared.describe.get();
    let words = describe
        .zip(seen.position)
        .map(|(describe, at)| describe(rank, at));
    LastSeen {
        rank,
        age: at.saturating_duration_since(seen.at),
        position: seen.position,
        words: words.unwrap_or_default(),
    }
}
