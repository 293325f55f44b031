//! What takes longest, found on all processors before options are made one after the other.

use rayon::prelude::*;

use super::devices::on_within_power;
use super::{Maker, spans};

impl Maker<'_> {
    /// Finds the layouts of what options train on, for later, and stages by speed for each site of
    /// several classes.
    pub(super) fn prepare(&mut self) -> Vec<Option<spans::Found>> {
        let of = |classes: &Vec<usize>| self.of(classes);
        let sites: Vec<Vec<u64>> = self.sites().iter().map(of).collect();
        let classes = || 0..self.on.len();
        let each = classes().map(|class| vec![class]);
        let sets = self.few_sets().unwrap_or_default();
        let together = each.chain(sets).map(|classes| of(&classes));
        let alone = classes().map(|class| on_within_power(self.problem, |at| at == class));
        let wanted = sites.iter().cloned().chain(together).chain(alone);
        let wanted: Vec<Vec<u64>> = wanted.collect();
        self.search.prepare(&wanted, |costs| {
            let sites = sites.par_iter();
            let best = |site: &Vec<u64>| is_mixed(site).then(|| spans::best(costs, site, 0.0));
            sites.map(best).collect()
        })
    }
}

/// Whether there is something to share out unevenly.
fn is_mixed(counts: &[u64]) -> bool {
    counts.iter().filter(|count| **count > 0).count() > 1
}
