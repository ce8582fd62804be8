//! Element-wise functions of the network, written so that the compiler vectorizes them. The `expf`
//! of libm alone would take a third of the total time.

use std::f32::consts::FRAC_1_SQRT_2;
use std::f32::consts::LOG2_E;

/// e^x for `x` ≤ 0, to six digits. Below -87 the result is e^-87, which is negligible.
#[inline]
fn exp(x: f32) -> f32 {
    // 1.5 × 2^23: adding it rounds a small number to an integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the product of the first part with a small integer is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    let x = if x < -87.0 { -87.0 } else { x };
    let rounded = x * LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = x - power * LN_2_HIGH - power * LN_2_LOW;
    // Taylor series; |rest| is at most ln 2 / 2.
    let series = 1.0 / 720.0;
    let series = series * rest + 1.0 / 120.0;
    let series = series * rest + 1.0 / 24.0;
    let series = series * rest + 1.0 / 6.0;
    let series = series * rest + 0.5;
    let series = series * rest + 1.0;
    let series = series * rest + 1.0;
    let two_to_power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    series * two_to_power
}

/// The error function to six digits (Abramowitz and Stegun, 7.1.26).
#[inline]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let series = 1.061_405_4;
    let series = series * t - 1.453_152;
    let series = series * t + 1.421_413_7;
    let series = series * t - 0.284_496_74;
    let series = series * t + 0.254_829_6;
    (1.0 - series * t * exp(-size * size)).copysign(x)
}

/// Replaces each value by its GELU, in the exact form that BERT uses.
pub(crate) fn gelu(values: &mut [f32]) {
    for value in values {
        *value *= 0.5 * (1.0 + erf(*value * FRAC_1_SQRT_2));
    }
}

pub(crate) fn softmax(values: &mut [f32]) {
    let highest = in_lanes(values, f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    for value in values.iter_mut() {
        *value = exp(*value - highest);
    }
    let scale = 1.0 / in_lanes(values, 0.0, |a, b| a + b);
    for value in values {
        *value *= scale;
    }
}

pub(crate) fn layer_norm(values: &mut [f32], scale: &[f32], shift: &[f32], epsilon: f32) {
    let count = values.len() as f32;
    let mean = in_lanes(values, 0.0, |a, b| a + b) / count;
    for value in values.iter_mut() {
        *value -= mean;
    }
    let squares = values.iter().map(|value| value * value).sum::<f32>();
    let factor = 1.0 / (squares / count + epsilon).sqrt();
    for ((value, scale), shift) in values.iter_mut().zip(scale).zip(shift) {
        *value = *value * factor * scale + shift;
    }
}

/// Folds in eight independent lanes, which the compiler keeps in a vector register.
#[inline]
fn in_lanes(values: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = fold(*lane, *value);
        }
    }
    rest.iter().chain(&lanes).copied().fold(start, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_six_digits() {
        for step in 0..=87_000 {
            let x = -(step as f32) / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 1e-6, "e^{x}");
        }
        assert!(exp(-1e30) < 1e-37);
    }

    #[test]
    fn gelu_is_right_to_six_digits() {
        // Values of x · Φ(x).
        let mut values = [-6.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 6.0];
        gelu(&mut values);
        let exact = [
            0.0,
            -0.158_655_25,
            -0.154_268_77,
            0.0,
            0.345_731_23,
            0.841_344_8,
            1.954_499_7,
            6.0,
        ];
        for (value, exact) in values.into_iter().zip(exact) {
            assert!((value - exact).abs() < 1e-6, "{value} is not {exact}");
        }
    }

    #[test]
    fn softmax_sums_to_one_and_keeps_ratios() {
        let mut values: Vec<f32> = (0..11).map(|it| it as f32 + 500.0).collect();
        softmax(&mut values);
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        for pair in values.windows(2) {
            assert!((pair[1] / pair[0] - std::f32::consts::E).abs() < 1e-5);
        }
    }

    #[test]
    fn normalised_values_have_the_wanted_mean_and_spread() {
        let mut values: Vec<f32> = (0..20).map(|it| (it * it) as f32).collect();
        layer_norm(&mut values, &[2.0; 20], &[5.0; 20], 0.0);
        let mean = values.iter().sum::<f32>() / 20.0;
        let spread = values.iter().map(|it| (it - mean).powi(2)).sum::<f32>() / 20.0;
        assert!((mean - 5.0).abs() < 1e-5 && (spread - 4.0).abs() < 1e-4);
    }
}
