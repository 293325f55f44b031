//! Emulated classes of accelerators: which ranks are how fast.

use crate::MeasureError;
use laggard_specs::{RateBasis, Tables};

/// Some consecutive ranks of one class.
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
        };
        Ok(shares.into_iter().zip(rates).map(share).collect())
    }
}

/// The class of each rank; all 0 where none are emulated.
///
/// # Errors
/// [`MeasureError::Classes`] if the classes do not take exactly all ranks, or a rate is impossible.
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
    let total: u64 = classes.iter().map(|class| u64::from(class.ranks)).sum();
    if total != u64::from(ranks) {
        let why = format!("the classes have {total} ranks, the run has {ranks}");
        return Err(refused(
            why,
            format!("give --ranks {total}, or other numbers"),
        ));
    }
    let blocks = (0u32..).zip(classes);
    Ok(blocks
        .flat_map(|(index, class)| vec![index; class.ranks as usize])
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
