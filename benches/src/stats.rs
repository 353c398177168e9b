//! Figures of many samples.

use std::time::Duration;

/// The value in the middle of the samples; of an even number, the mean of the two.
///
/// # Panics
/// Without samples.
pub fn median(samples: &[f64]) -> f64 {
    assert!(!samples.is_empty(), "a median needs samples");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// The median of durations, in milliseconds.
///
/// # Panics
/// Without samples.
pub fn median_ms(samples: &[Duration]) -> f64 {
    let ms: Vec<f64> = samples
        .iter()
        .map(|time| time.as_secs_f64() * 1e3)
        .collect();
    median(&ms)
}

/// The number with three digits after the point: more would be noise.
pub fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median_ms(&[Duration::from_micros(1_500)]), 1.5);
        assert_eq!(rounded(1.234_56), 1.235);
    }
}
