//! Spare nodes: how often too few are healthy.

use laggard_types::Seconds;

use crate::error::{SimulateError, in_range, positive};

/// Nodes for a job, some of them spare, each failing and being repaired by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SparePool {
    /// Nodes that the job needs.
    pub(crate) needed: u32,
    /// Nodes beyond those.
    pub(crate) spares: u32,
    /// Mean time between failures of one node, spare or not.
    pub(crate) node_mtbf: Seconds,
    /// Mean time until a failed node is back.
    pub(crate) repair: Seconds,
}

impl SparePool {
    /// Share of time with fewer healthy nodes than needed: the upper tail of a binomial
    /// distribution over the nodes in repair. Exact for exponential times between failures and
    /// any distribution of repair times, with a repair for every node at once.
    ///
    /// # Errors
    /// No nodes, a time between failures that is not above zero, a negative repair time, or one
    /// that is not finite.
    pub(crate) fn share_short(&self) -> Result<f64, SimulateError> {
        positive("nodes needed", f64::from(self.needed))?;
        let mtbf = positive(
            "time between failures of a node in seconds",
            self.node_mtbf.0,
        )?;
        let repair = self.repair.0;
        let fits = repair >= 0.0 && repair.is_finite();
        in_range("repair in seconds", repair, fits, "at least 0 and finite")?;
        if repair <= 0.0 {
            return Ok(0.0);
        }
        let down = repair / (mtbf + repair);
        Ok(binomial_tail(self.needed + self.spares, down, self.spares))
    }
}

/// The fewest spares with which nodes are short for at most `share` of the time.
///
/// # Errors
/// As [`SparePool::share_short`], or a share outside (0, 1).
pub(crate) fn spares_for(pool: SparePool, share: f64) -> Result<u32, SimulateError> {
    let fits = share > 0.0 && share < 1.0;
    in_range(
        "share of time without enough nodes",
        share,
        fits,
        "above 0 and below 1",
    )?;
    let short = |spares: u32| SparePool { spares, ..pool }.share_short();
    let mut high = 1;
    while short(high)? > share {
        high *= 2;
        in_range(
            "spares needed",
            f64::from(high),
            high <= pool.needed.saturating_mul(1024).max(1024),
            "fewer than 1024 for each node: repairs take too long for any number of spares",
        )?;
    }
    let (mut enough, mut below) = (high, 0);
    if short(0)? <= share {
        return Ok(0);
    }
    while enough - below > 1 {
        let middle = below + (enough - below) / 2;
        if short(middle)? <= share {
            enough = middle;
        } else {
            below = middle;
        }
    }
    Ok(enough)
}

/// Probability of more than `most` of `count`, each with probability `p` in (0, 1), summed over
/// the smaller side from the largest term outwards.
fn binomial_tail(count: u32, p: f64, most: u32) -> f64 {
    if most >= count {
        return 0.0;
    }
    let n = f64::from(count);
    let odds = (p / (1.0 - p)).ln();
    // Logarithms of the terms relative to that of zero, by their ratios.
    let mut log_term = n * (-p).ln_1p();
    let mut below = 0.0;
    let mut above = 0.0;
    for k in 0..=count {
        let term = log_term.exp();
        if k <= most {
            below += term;
        } else {
            above += term;
        }
        let k = f64::from(k);
        log_term += ((n - k) / (k + 1.0)).ln() + odds;
    }
    if above < below { above } else { 1.0 - below }
}
