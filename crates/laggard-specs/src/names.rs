//! Exact look-up by id, name or alias, without regard to ASCII case; and close names as a hint.

use std::collections::BTreeMap;

use crate::error::SpecsError;

/// Close names that a hint lists at most.
const MOST_HINTS: usize = 5;

/// An index from every name of a table's entries to the entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    kind: &'static str,
    by_name: BTreeMap<String, usize>,
    /// Ids as written, by entry.
    ids: Vec<String>,
}

impl Names {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// Adds the next entry under its id and its other names.
    pub(crate) fn add<'a>(
        &mut self,
        id: &'a str,
        others: impl Iterator<Item = &'a str>,
    ) -> Result<(), SpecsError> {
        let entry = self.ids.len();
        self.ids.push(id.to_owned());
        for name in std::iter::once(id).chain(others) {
            match self.by_name.insert(name.to_ascii_lowercase(), entry) {
                Some(other) if other != entry => {
                    return Err(SpecsError::DuplicateName {
                        table: self.kind,
                        name: name.to_owned(),
                        first: self.ids[other].clone(),
                        second: id.to_owned(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The position of the entry with exactly this name.
    pub(crate) fn find(&self, name: &str) -> Result<usize, SpecsError> {
        let wanted = name.trim().to_ascii_lowercase();
        self.by_name
            .get(&wanted)
            .copied()
            .ok_or_else(|| SpecsError::UnknownName {
                kind: self.kind,
                name: name.to_owned(),
                hint: self.hint(&wanted),
            })
    }

    fn hint(&self, wanted: &str) -> String {
        let mut close: Vec<(usize, &str)> = self
            .by_name
            .keys()
            .map(|name| (distance(wanted, name), name.as_str()))
            .filter(|&(distance, name)| {
                distance <= 2.max(wanted.len() / 3) || (wanted.len() > 2 && name.contains(wanted))
            })
            .collect();
        close.sort_unstable();
        close.truncate(MOST_HINTS);
        if close.is_empty() {
            return format!("hint: `laggard specs list` lists every {}", self.kind);
        }
        let names: Vec<&str> = close.into_iter().map(|(_, name)| name).collect();
        format!("hint: close names: {}", names.join(", "))
    }
}

/// Levenshtein's edit distance, in characters.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        for (from, to, expect) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("h100", "h200", 1),
        ] {
            assert_eq!(distance(from, to), expect, "{from} to {to}");
            assert_eq!(distance(to, from), expect, "{to} to {from}");
        }
    }

    #[test]
    fn names_are_exact_and_unique() {
        let mut names = Names::new("accelerator");
        names.add("h100-sxm", ["H100", "h100"].into_iter()).unwrap();
        assert_eq!(names.find(" H100 ").unwrap(), 0);
        assert!(names.find("h10").is_err());
        let error = names
            .add("other", ["h100"].into_iter())
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "accelerator table: 'h100-sxm' and 'other' are both called 'h100'"
        );
        assert!(names.add("h100-sxm", std::iter::empty()).is_err());
    }
}
