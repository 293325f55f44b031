//! Reads who is gone from what `laggard run` writes to stderr.

use std::collections::BTreeSet;

/// The ranks that a line calls gone: "rank 3 on host h2 is gone: ...", "host h2 (ranks 4 to 7) is
/// gone: ...", "ranks 1, 3 and 5 on host h2 are gone: ...". None if it calls nobody gone.
pub(crate) fn named(line: &str) -> Option<BTreeSet<usize>> {
    let (who, _) = line
        .split_once(" is gone")
        .or_else(|| line.split_once(" are gone"))?;
    // A host's name may have "rank" in it, but no space.
    let one = who.rsplit_once("rank ");
    let (_, list) = who.rsplit_once("ranks ").or(one)?;
    let list = list.replace(',', " ");
    let mut ranks = BTreeSet::new();
    let (mut last, mut is_range) = (0, false);
    for word in list.split_whitespace() {
        match word.trim_end_matches(')').parse::<usize>() {
            Ok(rank) => {
                ranks.extend(if is_range { last..=rank } else { rank..=rank });
                (last, is_range) = (rank, false);
            }
            Err(_) if word == "to" => is_range = true,
            Err(_) if word == "and" => {}
            Err(_) => break,
        }
    }
    (!ranks.is_empty()).then_some(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_ranks() {
        let check = |line: &str, expect: &[usize]| {
            let found = named(line).unwrap_or_default();
            assert_eq!(found, expect.iter().copied().collect(), "{line}");
        };
        check(
            "error: rank 3 on host h2 is gone: its connection closed",
            &[3],
        );
        check(
            "rank 0: host h2 (ranks 4 to 7) is gone: no sign of life for 5.0 s",
            &[4, 5, 6, 7],
        );
        check(
            "host h2 (ranks 1 and 2) is gone: its connection closed",
            &[1, 2],
        );
        check(
            "ranks 1, 3 and 5 on host h2 are gone: its connection closed",
            &[1, 3, 5],
        );
        check(
            "rank 12 on host rank-7 is gone: its connection closed",
            &[12],
        );
        check(
            "mpirun noticed that process rank 3 on node h3 exited on signal 9",
            &[],
        );
        check("rank 3 waits", &[]);
        check("the budget is gone", &[]);
    }
}
