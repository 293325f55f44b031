//! 8-bit floating-point numbers with 4 bits of exponent: E4M3 of the "OCP 8-bit Floating Point
//! Specification (OFP8)", revision 1.0. A bias of 7, no infinities, and one NaN of either sign.

use bytemuck::{Pod, Zeroable};

/// One such number, as its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct E4m3(pub u8);

impl E4m3 {
    /// The largest number.
    pub const MAX: f64 = 448.0;

    const NAN: u8 = 0x7f;

    /// The nearest, ties to even; what is larger than the largest becomes that, as GPUs convert
    /// (PTX ISA, `cvt` with `.satfinite`).
    pub fn from_f64(value: f64) -> Self {
        if value.is_nan() {
            return Self(Self::NAN);
        }
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        let size = value.abs().min(Self::MAX);
        // Steps are 2^-9 below 2^-6, and an eighth of the power of two below the number above.
        let exponent = size.max(2f64.powi(-6)).log2().floor() as i32;
        let steps = (size / 2f64.powi(exponent - 3)).round_ties_even() as i32;
        // Where rounding reaches the next power of two, the sum carries into the exponent.
        let bits = (exponent + 6) * 8 + steps;
        Self(sign | u8::try_from(bits).unwrap_or(Self::NAN - 1))
    }

    /// The number.
    pub fn to_f64(self) -> f64 {
        let exponent = i32::from(self.0 >> 3 & 15);
        let mantissa = f64::from(self.0 & 7);
        let size = match (self.0 & 0x7f, exponent) {
            (Self::NAN, _) => f64::NAN,
            (_, 0) => mantissa * 2f64.powi(-9),
            _ => (8.0 + mantissa) * 2f64.powi(exponent - 10),
        };
        if self.0 & 0x80 == 0 { size } else { -size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "every number is exact")]
    fn numbers_of_the_specification() {
        // Table 1 of the specification, "OFP8 format encoding details".
        let check = |bits: u8, expect: f64| assert_eq!(E4m3(bits).to_f64(), expect, "{bits:#x}");
        check(0x7e, 448.0);
        check(0x08, 2f64.powi(-6));
        check(0x07, 0.875 * 2f64.powi(-6));
        check(0x01, 2f64.powi(-9));
        check(0xbc, -1.5);
        assert!(E4m3(0xff).to_f64().is_nan());
    }

    #[test]
    fn every_number_is_the_nearest_to_itself() {
        for bits in 0..=u8::MAX {
            let number = E4m3(bits).to_f64();
            if !number.is_nan() {
                assert_eq!(E4m3::from_f64(number), E4m3(bits), "{number}");
            }
        }
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest_even() {
        for bits in 0..0x7e {
            let (low, high) = (E4m3(bits), E4m3(bits + 1));
            let (from, to) = (low.to_f64(), high.to_f64());
            let even = if bits % 2 == 0 { low } else { high };
            let check = |part: f64, expect| {
                assert_eq!(
                    E4m3::from_f64(from + (to - from) * part),
                    expect,
                    "{bits:#x}"
                );
            };
            check(0.25, low);
            check(0.5, even);
            check(0.75, high);
        }
        assert_eq!(E4m3::from_f64(1e9), E4m3(0x7e));
        assert_eq!(E4m3::from_f64(f64::NAN), E4m3(0x7f));
    }
}
