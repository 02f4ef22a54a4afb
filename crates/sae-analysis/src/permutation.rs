//! The probability that two samples of one distribution differ in their means by as much: a permutation test.
//!
//! The same as `scipy.stats.permutation_test` computes (`permutation_type="independent"`, two-sided) with random permutations:
//! `p = (1 + #{|d*| ≥ |d|}) / (1 + n)`, `d` being the difference of the means and `d*` that of samples of the same sizes, drawn from both
//! together without replacement.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::bootstrap::BootstrapOptions;

/// Differences that are equal but for rounding count as equal.
const EQUAL: f64 = 1e-12;

/// p of a difference of means, with as many permutations as there are resamples; none where a sample is empty.
pub(crate) fn p_value(a: &[f64], b: &[f64], options: BootstrapOptions) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let total: f64 = all.iter().sum();
    let difference = |first: f64| (first / a.len() as f64 - (total - first) / b.len() as f64).abs();
    let found = difference(a.iter().sum());
    let start = ChaCha8Rng::seed_from_u64(options.seed);
    let as_large = |number: u64| {
        let mut rng = start.clone();
        rng.set_stream(number);
        let mut drawn = all.clone();
        let (first, _) = drawn.partial_shuffle(&mut rng, a.len());
        difference(first.iter().sum()) >= found - EQUAL
    };
    let n = options.n_resamples as u64;
    let count = (0..n).into_par_iter().filter(|&number| as_large(number)).count();
    Some((1.0 + count as f64) / (1.0 + n as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(a: &[f64], b: &[f64]) -> f64 {
        p_value(a, b, BootstrapOptions::default()).unwrap()
    }

    #[test]
    fn p_is_that_of_all_permutations() {
        // Of the 70 ways to deal eight numbers 2 are as extreme as this one.
        let (high, low) = ([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]);
        let expected = 2.0 / 70.0;
        let deviation = (expected * (1.0 - expected) / 9999.0_f64).sqrt();
        assert!((p(&high, &low) - expected).abs() < 4.0 * deviation, "{}", p(&high, &low));
        // As far apart as any.
        assert!(p(&[1.0, 2.0], &[1.0, 2.0]) > 0.999);
        assert!(p(&[0.5; 10], &[0.5; 7]) > 0.999);
        assert!(p_value(&[], &low, BootstrapOptions::default()).is_none());
    }
}
