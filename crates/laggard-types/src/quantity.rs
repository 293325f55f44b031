//! Quantities are plain newtypes; only the products that laggard uses are defined, so a FLOP count
//! cannot be divided by a byte count by mistake.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign, Div, Mul, Sub};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
        #[derive(Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }
        impl std::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
                items.fold(Self::default(), Add::add)
            }
        }
    };
}

macro_rules! rate {
    ($amount:ident / Seconds = $rate:ident) => {
        impl Div<Seconds> for $amount {
            type Output = $rate;
            fn div(self, time: Seconds) -> $rate {
                $rate(self.0 as f64 / time.0)
            }
        }
        impl Div<$rate> for $amount {
            type Output = Seconds;
            fn div(self, rate: $rate) -> Seconds {
                Seconds(self.0 as f64 / rate.0)
            }
        }
    };
}

quantity!(
    /// A duration or a point on a clock, in seconds.
    Seconds(f64)
);
quantity!(
    /// A count of bytes.
    Bytes(u64)
);
quantity!(
    /// A count of floating-point operations; a multiply-add counts two. `f64`, because a training
    /// run exceeds `u64`.
    Flop(f64)
);
quantity!(
    /// A data rate in bytes per second (1 GB/s is 1e9 bytes per second).
    BytesPerSecond(f64)
);
quantity!(
    /// A rate of arithmetic in floating-point operations per second.
    FlopPerSecond(f64)
);

rate!(Bytes / Seconds = BytesPerSecond);
rate!(Flop / Seconds = FlopPerSecond);

impl Mul<f64> for Flop {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * factor)
    }
}
impl Mul<f64> for FlopPerSecond {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * factor)
    }
}
impl Mul<f64> for Seconds {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * factor)
    }
}
impl Seconds {
    /// Seconds of an integer count of nanoseconds, as records store them.
    pub fn from_nanos(nanos: i64) -> Self {
        Self(nanos as f64 * 1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_have_the_right_kind() {
        let rate: FlopPerSecond = Flop(6.0) / Seconds(2.0);
        assert_eq!(rate, FlopPerSecond(3.0));
        let time: Seconds = Bytes(4) / BytesPerSecond(8.0);
        assert_eq!(time, Seconds(0.5));
        let total: Flop = [Flop(1.0), Flop(2.5)].into_iter().sum();
        assert_eq!(total, Flop(3.5));
    }
}
