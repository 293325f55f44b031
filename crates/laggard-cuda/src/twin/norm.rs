//! Layer normalisation; `kernels/norm.cu`, which makes its sums in f32: results agree to about a
//! hundred roundings of f32 and one of the element type.

use laggard_backend::Element;

/// Normalises each row to mean 0 and variance 1, then times `gain` plus `bias` (Ba, Kiros and
/// Hinton 2016), whose length is that of a row.
pub fn layer_norm<T: Element>(to: &mut [T], from: &[T], (gain, bias): (&[T], &[T]), epsilon: f32) {
    let columns = gain.len();
    for (to, from) in to.chunks_mut(columns).zip(from.chunks(columns)) {
        let count = columns as f64;
        let mean = from.iter().map(|x| x.to_f64()).sum::<f64>() / count;
        let squares = from.iter().map(|x| (x.to_f64() - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count + f64::from(epsilon)).sqrt();
        let factors = gain.iter().zip(bias);
        for ((to, x), (gain, bias)) in to.iter_mut().zip(from).zip(factors) {
            let normal = (x.to_f64() - mean) / deviation;
            *to = T::from_f64(normal * gain.to_f64() + bias.to_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_mean_zero_and_variance_one_by_themselves() {
        let from = [1.0f32, 3.0, 5.0, 7.0, -2.0, -2.0, 2.0, 2.0];
        let mut to = [0.0f32; 8];
        layer_norm(&mut to, &from, (&[1.0; 4], &[0.0; 4]), 0.0);
        let root = 5.0f32.sqrt();
        let expect = [-3.0, -1.0, 1.0, 3.0].map(|x| x / root);
        for (found, expect) in to.iter().zip(expect.iter().chain(&[-1.0, -1.0, 1.0, 1.0])) {
            assert!((found - expect).abs() < 1e-6, "{to:?}");
        }
        layer_norm(&mut to, &from, (&[2.0; 4], &[10.0, 20.0, 30.0, 40.0]), 0.0);
        for (found, expect) in to[4..].iter().zip([8.0, 18.0, 32.0, 42.0]) {
            assert!((found - expect).abs() < 1e-5, "{to:?}");
        }
    }

    #[test]
    fn equal_elements_become_the_bias() {
        let mut to = [9.0f32; 4];
        layer_norm(&mut to, &[5.0; 4], (&[3.0; 4], &[1.5; 4]), 1e-5);
        assert_eq!(to.map(f32::to_bits), [1.5f32; 4].map(f32::to_bits));
    }
}
