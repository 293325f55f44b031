//! Kernels that go through memory once. Plain loops, compiled for every vector instruction set and
//! chosen at run time.

use crate::squares;
use pulp::Arch;

/// Decay of the first moment; default of Kingma and Ba 2015, section 2.
const BETA_1: f32 = 0.9;
/// Decay of the second moment; same source.
const BETA_2: f32 = 0.999;
/// `1 - BETA_1` and `1 - BETA_2`, written out because the differences of the rounded numbers are
/// off by far more than a rounding.
const REST_1: f32 = 0.1;
const REST_2: f32 = 0.001;
/// Keeps the quotient finite; same source.
const EPSILON: f32 = 1e-8;

pub(super) fn add(from: &[f32], to: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to += *from;
            }
        },
    );
}

pub(super) fn triad(a: &[f32], b: &[f32], scale: f32, to: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
                *to = *a + scale * *b;
            }
        },
    );
}

pub(super) fn squared_norm(of: &[f32]) -> f64 {
    Arch::new().dispatch(
        #[inline(always)]
        || squares::squared_norm(of),
    )
}

/// What an Adam update changes.
pub(super) struct Moments<'a> {
    pub parameters: &'a mut [f32],
    pub first: &'a mut [f32],
    pub second: &'a mut [f32],
}

pub(super) fn adam(gradients: &[f32], state: Moments<'_>, learning_rate: f32) {
    let Moments {
        parameters,
        first,
        second,
    } = state;
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let moments = first.iter_mut().zip(second.iter_mut());
            for ((p, g), (m, v)) in parameters.iter_mut().zip(gradients).zip(moments) {
                *m = BETA_1 * *m + REST_1 * *g;
                *v = BETA_2 * *v + REST_2 * *g * *g;
                *p -= learning_rate * *m / (v.sqrt() + EPSILON);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_follows_the_paper() {
        let gradients: Vec<f32> = (0..37).map(|i| i as f32 - 18.0).collect();
        let mut p = vec![1.0f32; 37];
        let mut m = vec![0.5f32; 37];
        let mut v = vec![0.25f32; 37];
        let state = Moments {
            parameters: &mut p,
            first: &mut m,
            second: &mut v,
        };
        adam(&gradients, state, 0.01);
        for (i, g) in gradients.iter().enumerate() {
            let g = f64::from(*g);
            let first = 0.9 * 0.5 + 0.1 * g;
            let second = 0.999 * 0.25 + 0.001 * g * g;
            let want = 1.0 - 0.01 * first / (second.sqrt() + 1e-8);
            assert!((f64::from(m[i]) - first).abs() < 1e-6);
            assert!((f64::from(v[i]) - second).abs() < 1e-6);
            assert!((f64::from(p[i]) - want).abs() < 1e-6, "{i}");
        }
    }
}
