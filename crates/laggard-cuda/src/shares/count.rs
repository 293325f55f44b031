//! How many multiprocessors each part of a GPU gets. Knows no driver.

/// In which steps multiprocessors can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granularity {
    /// The fewest of a part.
    pub least: u32,
    /// Parts have a multiple of so many.
    pub multiple: u32,
}

impl Granularity {
    /// What the driver says, which it does since CUDA 13; else what was so when it came (CUDA 12.4,
    /// driver API, "Green Contexts"), by major compute capability.
    pub(super) fn of(said: Option<Self>, major: i32) -> Self {
        let (least, multiple) = match major {
            ..=6 => (1, 1),
            7 => (2, 2),
            8 => (4, 2),
            9.. => (8, 8),
        };
        said.unwrap_or(Self { least, multiple })
    }
}

/// Multiprocessors of each part, so that they are to each other as nearly as the weights as the
/// granularity allows, and of all such ways the one that leaves the fewest over.
pub(super) fn counts(
    total: u32,
    granularity: Granularity,
    weights: &[f64],
) -> Result<Vec<u32>, String> {
    let most = weights.iter().copied().fold(0.0, f64::max);
    let is_weight = |weight: &f64| *weight > 0.0 && weight.is_finite();
    if weights.is_empty() || !weights.iter().all(is_weight) {
        return Err(format!("parts cannot be as {weights:?}"));
    }
    let multiple = granularity.multiple.max(1);
    let least = granularity.least.div_ceil(multiple).max(1);
    let units = total / multiple;
    let parts_of = |largest: u32| -> Vec<u32> {
        let part = |weight: &f64| (f64::from(largest) * weight / most).round() as u32;
        weights.iter().map(|it| part(it).max(least)).collect()
    };
    let fits =
        |parts: &Vec<u32>| parts.iter().map(|it| u64::from(*it)).sum::<u64>() <= units.into();
    let mut best: Option<(f64, Vec<u32>)> = None;
    for parts in (least..=units).map(parts_of).filter(fits) {
        let error = distance(&parts, weights);
        // Later ones are larger.
        if best
            .as_ref()
            .is_none_or(|(least, _)| error <= *least + 1e-9)
        {
            best = Some((error, parts));
        }
    }
    let (_, parts) = best.ok_or_else(|| {
        format!(
            "it has {total} multiprocessors, which make no {} parts of {} or more",
            weights.len(),
            least * multiple
        )
    })?;
    Ok(parts.into_iter().map(|units| units * multiple).collect())
}

/// How far parts are from being as the weights: the largest ratio of two parts over that of their
/// weights, less 1.
fn distance(parts: &[u32], weights: &[f64]) -> f64 {
    let per_weight = || {
        parts
            .iter()
            .zip(weights)
            .map(|(part, weight)| f64::from(*part) / weight)
    };
    let (low, high) = per_weight().fold((f64::MAX, 0.0f64), |(low, high), it| {
        (low.min(it), high.max(it))
    });
    high / low - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Granularity = Granularity {
        least: 8,
        multiple: 8,
    };

    #[test]
    fn parts_are_as_their_weights_and_use_what_they_can() {
        let check = |total, granularity, weights: &[f64], expect: &[u32]| {
            assert_eq!(counts(total, granularity, weights).unwrap(), expect);
        };
        check(132, HOPPER, &[1.0], &[128]);
        check(132, HOPPER, &[1.0, 1.0], &[64, 64]);
        check(132, HOPPER, &[1.0, 0.5], &[80, 40]);
        check(132, HOPPER, &[0.5, 1.0, 0.5], &[32, 64, 32]);
        // 7 to 3 is nearer to 1 to 0.45 than anything that uses more.
        check(132, HOPPER, &[1.0, 0.45, 0.45], &[56, 24, 24]);
        // No part is smaller than the least.
        check(132, HOPPER, &[1.0, 0.01], &[120, 8]);
        let old = Granularity {
            least: 4,
            multiple: 2,
        };
        check(108, old, &[3.0, 1.0], &[78, 26]);
        let single = Granularity {
            least: 1,
            multiple: 1,
        };
        check(3, single, &[2.0, 1.0], &[2, 1]);
    }

    #[test]
    fn what_cannot_be_divided_says_why() {
        let check = |total, weights: &[f64], expect: &str| {
            let why = counts(total, HOPPER, weights).unwrap_err();
            assert!(why.contains(expect), "{why}");
        };
        check(
            12,
            &[1.0, 1.0],
            "12 multiprocessors, which make no 2 parts of 8 or more",
        );
        check(4, &[1.0], "no 1 parts of 8");
        check(132, &[1.0, 0.0], "[1.0, 0.0]");
        check(132, &[f64::NAN], "NaN");
        check(132, &[], "[]");
    }

    #[test]
    fn what_the_driver_says_comes_first() {
        let said = Granularity {
            least: 6,
            multiple: 3,
        };
        assert_eq!(Granularity::of(Some(said), 9), said);
        assert_eq!(Granularity::of(None, 9), HOPPER);
        assert_eq!(Granularity::of(None, 12), HOPPER);
        let of = |major| Granularity::of(None, major);
        assert_eq!((of(8).least, of(8).multiple), (4, 2));
        assert_eq!((of(7).least, of(7).multiple), (2, 2));
    }
}
