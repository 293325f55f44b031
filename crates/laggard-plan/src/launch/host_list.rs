//! Lists of hosts in the short form that Slurm, pdsh and ClusterShell read: `gpu[001-128,130]`.

/// Longest list that a range can stand for.
const MOST_HOSTS: u64 = 1 << 20;

/// The names that a word stands for; of several ranges in it the last changes first.
pub(super) fn expand(word: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('[') {
        let unreadable = || format!("cannot read the range in `{word}`");
        let (inside, after) = after.split_once(']').ok_or_else(unreadable)?;
        let mut numbers = Vec::new();
        for part in inside.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if !(is_number(first) && is_number(last)) {
                return Err(unreadable());
            }
            let read = |text: &str| text.parse::<u64>().map_err(|_| unreadable());
            let (from, to) = (read(first)?, read(last)?);
            let more = to.checked_sub(from).ok_or_else(unreadable)?;
            let count = more.saturating_add(numbers.len() as u64 + 1);
            if count.saturating_mul(names.len() as u64) > MOST_HOSTS {
                return Err(format!("`{word}` stands for more than {MOST_HOSTS} hosts"));
            }
            let digits = first.len();
            numbers.extend((from..=to).map(|number| format!("{number:0digits$}")));
        }
        let with = |name: &String| {
            let start = format!("{name}{before}");
            let all = numbers.iter().map(move |number| format!("{start}{number}"));
            all.collect::<Vec<_>>()
        };
        names = names.iter().flat_map(with).collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    match word.contains(']') && !word.contains('[') {
        true => Err(format!("cannot read the range in `{word}`")),
        false => Ok(names),
    }
}

/// The short form of names in their order: what differs in a last number alone is a range.
pub(super) fn compress<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut groups: Vec<Group<'n>> = Vec::new();
    for name in names {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (stem, number) = name.split_at(name.len() - digits);
        let parsed = number.parse::<u64>().ok();
        match (groups.last_mut(), parsed) {
            (Some(last), Some(number)) if last.takes(stem, digits, number) => last.add(number),
            _ => groups.push(Group {
                stem,
                digits,
                ranges: parsed.into_iter().map(|it| (it, it)).collect(),
            }),
        }
    }
    let groups: Vec<String> = groups.iter().map(Group::text).collect();
    groups.join(",")
}

/// Names that share all but a last number of so many digits.
struct Group<'n> {
    stem: &'n str,
    digits: usize,
    ranges: Vec<(u64, u64)>,
}

impl Group<'_> {
    fn takes(&self, stem: &str, digits: usize, number: u64) -> bool {
        // Lists are read as sets in some places: only what goes upwards is one.
        let goes_up = self.ranges.last().is_some_and(|last| last.1 < number);
        self.stem == stem && self.digits == digits && goes_up
    }

    fn add(&mut self, number: u64) {
        match self.ranges.last_mut() {
            Some(last) if last.1 + 1 == number => last.1 = number,
            _ => self.ranges.push((number, number)),
        }
    }

    fn text(&self) -> String {
        let digits = self.digits;
        let range = |&(first, last): &(u64, u64)| match first == last {
            true => format!("{first:0digits$}"),
            false => format!("{first:0digits$}-{last:0digits$}"),
        };
        match self.ranges[..] {
            [] => self.stem.to_owned(),
            [(first, last)] if first == last => format!("{}{first:0digits$}", self.stem),
            _ => {
                let ranges: Vec<String> = self.ranges.iter().map(range).collect();
                format!("{}[{}]", self.stem, ranges.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_forms() {
        let check = |word: &str, names: &[&str]| {
            assert_eq!(expand(word).unwrap_or_default(), names, "{word}");
            assert_eq!(compress(names.iter().copied()), word);
        };
        check("login", &["login"]);
        check("gpu7", &["gpu7"]);
        check("gpu[08-10]", &["gpu08", "gpu09", "gpu10"]);
        check("gpu[1-2,4]", &["gpu1", "gpu2", "gpu4"]);
        assert_eq!(compress(["a1", "a2", "b1"].into_iter()), "a[1-2],b1");
        assert_eq!(compress(["gpu2", "gpu1"].into_iter()), "gpu2,gpu1");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for word in [
            "gpu[1-",
            "gpu1]",
            "gpu[a-b]",
            "gpu[3-1]",
            "gpu[]",
            "gpu[0-99999999]",
            "gpu[0-18446744073709551615]",
        ] {
            assert!(expand(word).is_err(), "{word}");
        }
        assert_eq!(
            expand("r[1-2]n[1-2]").map(|it| it.join(" ")),
            Ok("r1n1 r1n2 r2n1 r2n2".into())
        );
    }

    proptest! {
        #[test]
        fn a_short_form_stands_for_what_it_was_made_of(
            numbers in prop::collection::btree_set(0..1_000_u64, 1..40),
            digits in 1..5_usize,
        ) {
            let names: Vec<String> =
                numbers.iter().map(|number| format!("h100-{number:0digits$}")).collect();
            let short = compress(names.iter().map(String::as_str));
            let back: Vec<String> = split_groups(&short)
                .iter()
                .flat_map(|word| expand(word).unwrap_or_default())
                .collect();
            prop_assert_eq!(back, names);
        }
    }

    /// Splits at the commas outside of brackets.
    fn split_groups(list: &str) -> Vec<String> {
        let mut groups = vec![String::new()];
        let mut depth = 0;
        for c in list.chars() {
            match c {
                ',' if depth == 0 => groups.push(String::new()),
                c => {
                    depth += i32::from(c == '[') - i32::from(c == ']');
                    if let Some(last) = groups.last_mut() {
                        last.push(c);
                    }
                }
            }
        }
        groups
    }
}
