//! Which ranks a table shows when it cannot show all.

use crate::figure;
use laggard_analyze::{Analysis, BlameEntry, Charged, RankFigures};
use std::collections::BTreeMap;

/// The most rows of a table, and how many of them are for typical ranks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) rows: usize,
    pub(crate) typical: usize,
}

/// The rows of a table of ranks.
pub(crate) struct Selection<'a> {
    /// The worst first, then the typical ones; all in order of rank where all fit.
    pub(crate) rows: Vec<&'a RankFigures>,
    pub(crate) worst: usize,
    pub(crate) typical: usize,
    pub(crate) left_out: usize,
}

/// What each rank is charged with.
pub(crate) fn blame_by_rank(analysis: &Analysis) -> BTreeMap<u32, &BlameEntry> {
    let by_rank = |entry: &'_ BlameEntry| match entry.charged {
        Charged::Rank(rank) => Some(rank),
        _ => None,
    };
    analysis
        .blame
        .iter()
        .filter_map(|entry| by_rank(entry).map(|rank| (rank, entry)))
        .collect()
}

/// All ranks if they fit; otherwise those charged with most, and those whose excess is nearest to
/// the median.
pub(crate) fn select(analysis: &Analysis, limit: Limit) -> Selection<'_> {
    let mut rows: Vec<&RankFigures> = analysis.ranks.iter().collect();
    let unlisted = (analysis.subject.ranks as usize).saturating_sub(rows.len());
    if rows.is_empty() || (rows.len() <= limit.rows && unlisted == 0) {
        rows.sort_by_key(|rank| rank.rank);
        return Selection {
            worst: rows.len(),
            typical: 0,
            left_out: 0,
            rows,
        };
    }
    let blame = blame_by_rank(analysis);
    let charged = |rank: &RankFigures| blame.get(&rank.rank).map_or(0.0, |entry| entry.share);
    rows.sort_by(|a, b| {
        let by_blame = charged(b).total_cmp(&charged(a));
        by_blame
            .then(b.excess.total_cmp(&a.excess))
            .then(a.rank.cmp(&b.rank))
    });
    let worst = rows.len().min(limit.rows - limit.typical);
    let mut rest = rows.split_off(worst);
    let median = median_excess(&analysis.ranks);
    let distance = |rank: &RankFigures| (rank.excess - median).abs();
    rest.sort_by(|a, b| {
        distance(a)
            .total_cmp(&distance(b))
            .then(a.rank.cmp(&b.rank))
    });
    rest.truncate(limit.typical);
    rest.sort_by_key(|rank| rank.rank);
    let typical = rest.len();
    rows.extend(rest);
    Selection {
        worst,
        typical,
        left_out: analysis.ranks.len() + unlisted - rows.len(),
        rows,
    }
}

/// The upper median; `ranks` is not empty.
fn median_excess(ranks: &[RankFigures]) -> f64 {
    let mut all: Vec<f64> = ranks.iter().map(|rank| rank.excess).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

impl Selection<'_> {
    /// What is not shown, in words; `None` if all is shown.
    pub(crate) fn note(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            let typical = match self.typical {
                0 => String::new(),
                count => format!(", then {count} typical ones"),
            };
            let (worst, left_out) = (figure::count(self.worst as u64), self.left_out as u64);
            let left_out = figure::count(left_out);
            format!("the {worst} charged with most{typical}; {left_out} left out")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn the_worst_come_first_and_nobody_twice() {
        let analysis = examples::large();
        let selection = select(
            &analysis,
            Limit {
                rows: 16,
                typical: 4,
            },
        );
        assert_eq!((selection.rows.len(), selection.left_out), (16, 48));
        let mut ranks: Vec<u32> = selection.rows.iter().map(|r| r.rank).collect();
        assert!(
            ranks[..8].iter().all(|rank| (24..32).contains(rank)),
            "{ranks:?}"
        );
        ranks.sort_unstable();
        ranks.dedup();
        assert_eq!(ranks.len(), 16);
        assert!(selection.note().unwrap().contains("48 left out"));
    }

    #[test]
    fn ranks_that_are_not_listed_are_left_out() {
        let analysis = examples::sketch();
        let selection = select(
            &analysis,
            Limit {
                rows: 200,
                typical: 20,
            },
        );
        assert_eq!((selection.rows.len(), selection.rows[0].rank), (40, 5));
        let note = selection.note().unwrap();
        assert_eq!(note, "the 40 charged with most; 219,864 left out");
    }

    #[test]
    fn few_ranks_are_all_shown_in_order() {
        let analysis = examples::mixed();
        let selection = select(
            &analysis,
            Limit {
                rows: 16,
                typical: 4,
            },
        );
        let ranks: Vec<u32> = selection.rows.iter().map(|r| r.rank).collect();
        assert_eq!(ranks, (0..8).collect::<Vec<_>>());
        assert_eq!(selection.note(), None);
    }
}
