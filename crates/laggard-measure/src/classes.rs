//! Emulated classes of accelerators: which ranks are how fast.

use crate::MeasureError;
use laggard_record::Emulation;
use laggard_specs::{RateBasis, Tables};

/// Some consecutive ranks of one class. A class may have several such blocks of ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassShare {
    /// Name as given, such as `h100`.
    pub name: String,
    /// How many ranks are of it.
    pub ranks: u32,
    /// Training rate relative to the fastest class of the run, above 0, at most 1.
    pub relative_rate: f64,
    /// Where the rate came from.
    pub source: String,
    /// How its ranks come to have it.
    pub emulation: Emulation,
}

impl ClassShare {
    /// Reads `h100:2,h200:1,gb200:1`, with the rates of the accelerators' table.
    ///
    /// # Errors
    /// [`MeasureError::Classes`] for text that is no such list, [`MeasureError::Specs`] for
    /// accelerators that the tables do not compare.
    pub fn parse_list(
        text: &str,
        tables: &Tables,
        basis: RateBasis,
    ) -> Result<Vec<Self>, MeasureError> {
        let refused = |why: String| MeasureError::Classes {
            text: text.to_owned(),
            why,
            hint: "give CLASS:RANKS pairs such as h100:2,h200:1,gb200:1".to_owned(),
        };
        let mut shares: Vec<(&str, u32)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, ranks) = part
                .rsplit_once(':')
                .ok_or_else(|| refused(format!("`{part}` has no number of ranks")))?;
            let ranks = match ranks.parse() {
                Ok(ranks) if ranks > 0 => ranks,
                _ => {
                    return Err(refused(format!(
                        "`{ranks}` is not a positive number of ranks"
                    )));
                }
            };
            if shares.iter().any(|(other, _)| *other == name) {
                return Err(refused(format!("`{name}` comes twice")));
            }
            shares.push((name, ranks));
        }
        let names: Vec<&str> = shares.iter().map(|(name, _)| *name).collect();
        let rates = tables.class_rates(&names, basis)?;
        let share = |((name, ranks), rate): ((&str, u32), laggard_specs::ClassRate)| Self {
            name: name.to_owned(),
            ranks,
            relative_rate: rate.relative,
            source: rate.source,
            emulation: Emulation::ExtraArithmetic,
        };
        Ok(shares.into_iter().zip(rates).map(share).collect())
    }

    /// How much arithmetic a rank does for what the fastest class does once. Ranks that are
    /// confined to a part of their device do no more than their own.
    pub(crate) fn work_scale(&self) -> f64 {
        match self.emulation {
            Emulation::ExtraArithmetic => 1.0 / self.relative_rate,
            Emulation::GreenContext { .. } => 1.0,
        }
    }

    /// Blocks of consecutive ranks, by the class of each rank. `rate` gives the relative rate of a
    /// class and where it came from; ranks of which it gives none are in no block.
    pub fn of_ranks(classes: &[&str], rate: impl Fn(&str) -> Option<(f64, String)>) -> Vec<Self> {
        let block = |ranks: &[&str]| {
            let (relative_rate, source) = rate(ranks[0])?;
            Some(Self {
                name: ranks[0].to_owned(),
                ranks: ranks.len() as u32,
                relative_rate,
                source,
                emulation: Emulation::ExtraArithmetic,
            })
        };
        classes.chunk_by(|a, b| a == b).filter_map(block).collect()
    }
}

impl ClassShare {
    /// The same blocks with ranks that were confined to parts of a device: `ranks` has the rate
    /// that was measured of each rank and its part, in order. Of the ranks of a class the median
    /// counts.
    ///
    /// # Errors
    /// [`MeasureError::Classes`] if there are other ranks, or a rate is none.
    pub fn confined(
        blocks: &[Self],
        ranks: &[(f64, Emulation)],
        source: &str,
    ) -> Result<Vec<Self>, MeasureError> {
        let total = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let class_of_rank = class_of_rank(blocks, total)?;
        let rate_of = |class: u32| -> Result<f64, MeasureError> {
            let own = ranks
                .iter()
                .zip(&class_of_rank)
                .filter(|(_, its)| **its == class);
            let own: Vec<f64> = own.map(|((rate, _), _)| *rate).collect();
            let rate = laggard_stats::median(&own).ok().filter(|rate| *rate > 0.0);
            rate.ok_or_else(|| MeasureError::Classes {
                text: blocks[0].name.clone(),
                why: format!("no rates were measured: {own:?}"),
                hint: "run again without other work on the device".to_owned(),
            })
        };
        let classes = distinct(blocks);
        let measured: Vec<f64> = (0..)
            .zip(&classes)
            .map(|(at, _)| rate_of(at))
            .collect::<Result<_, _>>()?;
        let fastest = measured.iter().copied().fold(0.0, f64::max);
        let mut first = 0;
        let block = |block: &Self| {
            let class = class_of_rank[first] as usize;
            let emulation = ranks[first].1;
            first += block.ranks as usize;
            Self {
                relative_rate: measured[class] / fastest,
                source: source.to_owned(),
                emulation,
                ..block.clone()
            }
        };
        Ok(blocks.iter().map(block).collect())
    }
}

/// The classes, each by the first of its blocks.
pub(crate) fn distinct(blocks: &[ClassShare]) -> Vec<&ClassShare> {
    let mut classes: Vec<&ClassShare> = Vec::new();
    for block in blocks {
        if !classes.iter().any(|class| class.name == block.name) {
            classes.push(block);
        }
    }
    classes
}

/// The class of each rank, by position among [`distinct`] ones; all 0 where none are emulated.
///
/// # Errors
/// [`MeasureError::Classes`] if the classes do not take exactly all ranks, or a rate is impossible
/// or not the same in all blocks of a class.
pub(crate) fn class_of_rank(classes: &[ClassShare], ranks: u32) -> Result<Vec<u32>, MeasureError> {
    let refused = |why: String, hint: String| {
        let pairs = classes
            .iter()
            .map(|class| format!("{}:{}", class.name, class.ranks));
        MeasureError::Classes {
            text: pairs.collect::<Vec<_>>().join(","),
            why,
            hint,
        }
    };
    for class in classes {
        if !(class.relative_rate > 0.0 && class.relative_rate <= 1.0) {
            let why = format!(
                "the relative rate of {} is {}",
                class.name, class.relative_rate
            );
            return Err(refused(why, "give a rate above 0, at most 1".to_owned()));
        }
    }
    let distinct = distinct(classes);
    let other_rate = |block: &&ClassShare| {
        let differs = |first: &&&ClassShare| {
            first.name == block.name && first.relative_rate.total_cmp(&block.relative_rate).is_ne()
        };
        distinct.iter().any(|first| differs(&first))
    };
    if let Some(block) = classes.iter().find(other_rate) {
        let why = format!("`{}` has two relative rates", block.name);
        return Err(refused(why, "give each class one rate".to_owned()));
    }
    let total: u64 = classes.iter().map(|class| u64::from(class.ranks)).sum();
    if total != u64::from(ranks) {
        let why = format!("the classes have {total} ranks, the run has {ranks}");
        return Err(refused(
            why,
            format!("give --ranks {total}, or other numbers"),
        ));
    }
    let number = |block: &ClassShare| {
        let place = distinct.iter().position(|class| class.name == block.name);
        place.unwrap_or(0) as u32
    };
    Ok(classes
        .iter()
        .flat_map(|block| vec![number(block); block.ranks as usize])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_take_ranks_in_order_at_the_rates_of_the_tables() {
        let tables = Tables::builtin().unwrap();
        let read = |text, basis| ClassShare::parse_list(text, &tables, basis);
        let classes = read("h100:2, gb200:1", RateBasis::Measured).unwrap();
        assert_eq!(class_of_rank(&classes, 3).unwrap(), [0, 0, 1]);
        // MLPerf Training 5.0, Llama 3.1 405B on 512 of each: 20.868 over 46.342 samples/s.
        assert!((classes[0].relative_rate - 20.868 / 46.342).abs() < 1e-9);
        assert!((classes[1].relative_rate - 1.0).abs() < 1e-12);
        assert!(read("h100:1,gb200:1", RateBasis::Peak).is_ok());
    }

    #[test]
    fn a_class_may_have_several_blocks_of_ranks() {
        let block = |name: &str, ranks, relative_rate| ClassShare {
            name: name.to_owned(),
            ranks,
            relative_rate,
            source: "a test".to_owned(),
            emulation: Emulation::ExtraArithmetic,
        };
        let blocks = [block("a", 1, 1.0), block("b", 2, 0.5), block("a", 1, 1.0)];
        let rate = |name: &str| {
            let rate = if name == "a" { 1.0 } else { 0.5 };
            Some((rate, "a test".to_owned()))
        };
        assert_eq!(ClassShare::of_ranks(&["a", "b", "b", "a"], rate), blocks);
        assert_eq!(ClassShare::of_ranks(&["a"], |_| None), []);
        assert_eq!(class_of_rank(&blocks, 4).unwrap(), [0, 1, 1, 0]);
        assert_eq!(distinct(&blocks), [&blocks[0], &blocks[1]]);
        let contradicting = [block("a", 1, 1.0), block("a", 1, 0.5)];
        let error = class_of_rank(&contradicting, 2).unwrap_err().to_string();
        assert!(error.contains("`a` has two relative rates"), "{error}");
    }

    #[test]
    fn confined_classes_are_as_fast_as_they_were_measured() {
        let block = |name: &str, ranks, relative_rate| ClassShare {
            name: name.to_owned(),
            ranks,
            relative_rate,
            source: "tables".to_owned(),
            emulation: Emulation::ExtraArithmetic,
        };
        let part = |multiprocessors| Emulation::GreenContext {
            multiprocessors,
            of: 132,
        };
        let blocks = [block("a", 1, 0.5), block("b", 2, 1.0), block("a", 2, 0.5)];
        let ranks = [
            (30.0, part(16)),
            (50.0, part(32)),
            (54.0, part(32)),
            (31.0, part(16)),
            (90.0, part(16)),
        ];
        let found = ClassShare::confined(&blocks, &ranks, "measured").unwrap();
        let rates: Vec<f64> = found.iter().map(|it| it.relative_rate).collect();
        assert_eq!(rates, [31.0 / 52.0, 1.0, 31.0 / 52.0]);
        assert_eq!(found[1].emulation, part(32));
        assert!(
            found
                .iter()
                .all(|it| it.source == "measured" && it.work_scale() < 1.0 + 1e-9)
        );
        assert!(class_of_rank(&found, 5).is_ok());
        // Their rates are of the ranks that there are.
        assert!(ClassShare::confined(&blocks, &ranks[..4], "measured").is_err());
        let none = [(0.0, part(16)); 5];
        let error = ClassShare::confined(&blocks, &none, "measured")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no rates were measured: [0.0, 0.0, 0.0]"),
            "{error}"
        );
    }

    #[test]
    fn wrong_classes_say_why() {
        let tables = Tables::builtin().unwrap();
        let check = |text: &str, ranks, expect: &str| {
            let error = ClassShare::parse_list(text, &tables, RateBasis::Measured)
                .and_then(|classes| class_of_rank(&classes, ranks))
                .expect_err(text)
                .to_string();
            assert!(
                error.contains(expect) && error.contains("\nhint: "),
                "{text}: {error}"
            );
        };
        check("h100", 1, "`h100` has no number of ranks");
        check("h100:0", 1, "`0` is not a positive number");
        check("h100:1,h100:1", 2, "`h100` comes twice");
        check(
            "h100:2,h200:1",
            4,
            "the classes have 3 ranks, the run has 4",
        );
        check("h1000:2", 2, "unknown accelerator 'h1000'");
        check("", 2, "`` has no number of ranks");
    }
}
