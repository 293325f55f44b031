//! Kernels that go through memory once; `kernels/stream.cu` and `kernels/adam.cu`. Bit by bit the
//! same.

use laggard_backend::Element;

/// `to = a + scale * b`, each operation rounded to f32 and the result to the element type.
pub fn triad<T: Element>(to: &mut [T], a: &[T], b: &[T], scale: f32) {
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = rounded(number(*a) + scale * number(*b));
    }
}

/// `to += from`.
pub fn add<T: Element>(to: &mut [T], from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = rounded(number(*to) + number(*from));
    }
}

/// What an Adam update changes.
#[derive(Debug)]
pub struct AdamState<'a> {
    /// Parameters.
    pub parameters: &'a mut [f32],
    /// First moments.
    pub first_moments: &'a mut [f32],
    /// Second moments.
    pub second_moments: &'a mut [f32],
}

/// One Adam update (Kingma and Ba 2015, section 2, with that paper's decay rates); the bias
/// correction is in `learning_rate`.
pub fn adam(state: &mut AdamState<'_>, gradients: &[f32], learning_rate: f32) {
    let moments = state
        .first_moments
        .iter_mut()
        .zip(&mut *state.second_moments);
    let all = state.parameters.iter_mut().zip(gradients).zip(moments);
    for ((p, g), (m, v)) in all {
        *m = 0.9 * *m + 0.1 * *g;
        *v = 0.999 * *v + 0.001 * *g * *g;
        *p -= learning_rate * *m / (v.sqrt() + 1e-8);
    }
}

/// Every element of at most 32 bits is an f32.
pub(super) fn number<T: Element>(element: T) -> f32 {
    element.to_f64() as f32
}

pub(super) fn rounded<T: Element>(number: f32) -> T {
    T::from_f64(f64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    #[expect(clippy::float_cmp, reason = "small integers are exact")]
    fn triads_and_sums_of_small_integers_are_exact() {
        fn check<T: Element>() {
            let numbers = |step: f64| -> Vec<T> {
                let values = (0..9).map(|i| f64::from(i) * step - 4.0);
                values.map(T::from_f64).collect()
            };
            let (a, b) = (numbers(1.0), numbers(2.0));
            let mut to = numbers(0.0);
            triad(&mut to, &a, &b, 3.0);
            add(&mut to, &a);
            for (i, to) in to.iter().enumerate() {
                let i = i as f64;
                assert_eq!(
                    to.to_f64(),
                    (i - 4.0) + 3.0 * (2.0 * i - 4.0) + (i - 4.0),
                    "{i}"
                );
            }
        }
        check::<f32>();
        check::<f16>();
        check::<bf16>();
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "so are these")]
    fn halves_are_rounded_to_nearest_even() {
        let mut sum = [bf16::from_f32(256.0), bf16::from_f32(258.0)];
        add(&mut sum, &[bf16::ONE, bf16::ONE]);
        assert_eq!(sum.map(f32::from), [256.0, 260.0]);
    }

    #[test]
    fn adam_follows_the_paper() {
        let gradients: Vec<f32> = (0..37).map(|i| i as f32 - 18.0).collect();
        let (mut p, mut m, mut v) = (vec![1.0f32; 37], vec![0.5f32; 37], vec![0.25f32; 37]);
        let mut state = AdamState {
            parameters: &mut p,
            first_moments: &mut m,
            second_moments: &mut v,
        };
        adam(&mut state, &gradients, 0.01);
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
