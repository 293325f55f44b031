//! A small deterministic random generator: the same seed gives the same numbers on every machine.
//!
//! xoshiro256++ 1.0 seeded by splitmix64: Blackman and Vigna, "Scrambled linear pseudorandom
//! number generators", ACM TOMS 47(4), 2021; reference code at <https://prng.di.unimi.it>.

/// A xoshiro256++ generator. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator from a seed; any seed is good, 0 too.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut counter = seed;
        Self {
            state: std::array::from_fn(|_| splitmix64(&mut counter)),
        }
    }

    /// A generator for one of many independent streams under one seed, such as one replicate of a
    /// bootstrap, so that streams can be drawn in any order or in parallel.
    #[must_use]
    pub fn for_stream(seed: u64, stream: u64) -> Self {
        let mut counter = stream;
        let mixed = splitmix64(&mut counter);
        Self::new(seed ^ mixed)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1), with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform among 0, 1, ..., n - 1, without bias (Lemire, "Fast random integer generation in an
    /// interval", ACM TOMACS 29(1), 2019). `n` must be at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "there is no number below zero");
        let n = n as u64;
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// Standard normal: mean 0, deviation 1 (Marsaglia's polar method; SIAM Review 6(3), 1964).
    pub fn normal(&mut self) -> f64 {
        loop {
            let u = 2.0 * self.uniform() - 1.0;
            let v = 2.0 * self.uniform() - 1.0;
            let square = u * u + v * v;
            if square > 0.0 && square < 1.0 {
                return u * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }

    /// Exponential with mean 1, by inversion.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// Puts the items into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

/// Number `index` (from 0) of the sequence that splitmix64 gives from `key`, without the numbers
/// before it: for draws that must not depend on the order in which they are made.
#[inline]
#[must_use]
pub fn splitmix64_at(key: u64, index: u64) -> u64 {
    splitmix64(&mut key.wrapping_add(index.wrapping_mul(SPLITMIX64_GAMMA)))
}

/// What splitmix64's counter grows by.
const SPLITMIX64_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
#[inline]
fn splitmix64(counter: &mut u64) -> u64 {
    *counter = counter.wrapping_add(SPLITMIX64_GAMMA);
    let mut z = *counter;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published vector: splitmix64 from 0 (also in the JDK's SplittableRandom tests), and
    /// xoshiro256++ from the state 1, 2, 3, 4 (the vector of the Rust crate rand_xoshiro).
    #[test]
    fn published_vectors() {
        let mut counter = 0;
        assert_eq!(splitmix64(&mut counter), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(&mut counter), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(splitmix64_at(0, 1), 0x6e78_9e6a_a1b9_65f4);
        let mut rng = Rng {
            state: [1, 2, 3, 4],
        };
        let expected = [41943041, 58720359, 3588806011781223, 3591011842654386];
        assert_eq!(expected, std::array::from_fn(|_| rng.next_u64()));
    }

    #[test]
    fn moments() {
        let mut rng = Rng::new(7);
        let n = 200_000;
        let draw = |f: &mut dyn FnMut() -> f64| {
            let values: Vec<f64> = (0..n).map(|_| f()).collect();
            let mean = values.iter().sum::<f64>() / f64::from(n);
            let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
            (mean, var)
        };
        // Five standard errors of the mean and of the variance each.
        let cases = [
            (
                draw(&mut || rng.uniform()),
                (0.5, 0.0033),
                (1.0 / 12.0, 0.0009),
            ),
            (
                draw(&mut Rng::new(8).normals()),
                (0.0, 0.0112),
                (1.0, 0.016),
            ),
            (
                draw(&mut Rng::new(9).exponentials()),
                (1.0, 0.0112),
                (1.0, 0.032),
            ),
        ];
        for ((mean, var), (want_mean, mean_slack), (want_var, var_slack)) in cases {
            assert!(
                (mean - want_mean).abs() < mean_slack,
                "mean {mean}, expected {want_mean}"
            );
            assert!(
                (var - want_var).abs() < var_slack,
                "variance {var}, expected {want_var}"
            );
        }
    }

    impl Rng {
        fn normals(mut self) -> impl FnMut() -> f64 {
            move || self.normal()
        }

        fn exponentials(mut self) -> impl FnMut() -> f64 {
            move || self.exponential()
        }
    }

    #[test]
    fn below_is_even_and_in_range() {
        let mut rng = Rng::new(3);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        // Five standard deviations of a binomial count with mean 10,000.
        assert!(
            counts.iter().all(|&count| count.abs_diff(10_000) < 465),
            "{counts:?}"
        );
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |stream| Rng::for_stream(1, stream).next_u64();
        assert_eq!(first(5), first(5));
        assert_ne!(first(5), first(6));
    }
}
