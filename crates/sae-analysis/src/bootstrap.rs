//! Confidence intervals of means and of differences of means, by the bias-corrected and accelerated (BCa) bootstrap.
//!
//! The same as `scipy.stats.bootstrap` computes by default (two-sided, unpaired, `method="BCa"`), from other random
//! numbers. Its source is Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), sections 14.3 and 15.4. With
//! `θ̂` the statistic of the samples and `θ*` those of the resamples:
//!
//! - bias `z0 = Φ⁻¹((#{θ* < θ̂} + #{θ* ≤ θ̂}) / 2n)`, n being the number of resamples
//! - acceleration, over the samples j of n_j values, each left out in turn: with
//!   `U_ji = (n_j − 1)(mean_i θ̂_j(i) − θ̂_j(i))`, `a = Σ_j (Σ_i U_ji³ / n_j³) / (6 (Σ_j Σ_i U_ji² / n_j²)^(3/2))`. Where
//!   the statistic is a mean, leaving values out comes to `U_i = x_i − x̄`, and in the sample that is subtracted to its
//!   negative
//! - the ends are the quantiles of θ* (linear between order statistics) at `Φ(z0 + (z0 + z) / (1 − a (z0 + z)))` for
//!   `z = ±Φ⁻¹(α)`, with `α = (1 − confidence) / 2`

use std::f64::consts::SQRT_2;

use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use statrs::function::erf::{erfc, erfc_inv};

use crate::AnalysisError;
use crate::table::fixed;

/// How an interval is computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BootstrapOptions {
    /// The probability with which intervals so computed hold the true value; strictly between 0 and 1.
    pub confidence: f64,
    /// Resamples; scipy's default is 9999.
    pub n_resamples: usize,
    /// The seed. Every resample has a generator of its own, so that threads make no difference.
    pub seed: u64,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self { confidence: 0.95, n_resamples: 9999, seed: 0 }
    }
}

/// A mean, or a difference of means, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The statistic of the samples themselves.
    pub value: f64,
    /// The interval. None where the samples cannot tell: a sample has a single value, all values of each sample are
    /// equal, or all resamples lie on one side of `value`.
    pub interval: Option<Interval>,
    /// How the interval was computed.
    pub options: BootstrapOptions,
}

impl Estimate {
    /// The interval for a table, with its confidence: `0.1200 to 0.1400 (95 %)`.
    pub(crate) fn interval_text(&self) -> String {
        let percent = self.options.confidence * 100.0;
        self.interval.map_or_else(
            || "–".to_owned(),
            |found| format!("{} to {} ({percent} %)", fixed(found.low, 4), fixed(found.high, 4)),
        )
    }

    /// The interval's ends for a finding, and what they are.
    pub(crate) fn range(&self) -> Option<([f64; 2], String)> {
        let percent = self.options.confidence * 100.0;
        self.interval.map(|found| ([found.low, found.high], format!("{percent} % interval")))
    }
}

/// A confidence interval and what it was corrected by. All numbers are finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The standard deviation of the resampled statistics (with n − 1).
    pub standard_error: f64,
    /// z0, the median bias of the resamples in standard normal units.
    pub bias: f64,
    /// a, how fast the standard error changes with the true value, in standard normal units.
    pub acceleration: f64,
}

/// The mean of a sample. Refused are an empty sample, values that are not finite, and options out of range.
pub fn mean(sample: &[f64], options: BootstrapOptions) -> Result<Estimate, AnalysisError> {
    estimate(&[(1.0, sample)], options)
}

/// `mean(a) − mean(b)` of independent samples, each resampled by itself. Refused are the same as for [`mean`].
pub fn difference_of_means(
    a: &[f64],
    b: &[f64],
    options: BootstrapOptions,
) -> Result<Estimate, AnalysisError> {
    estimate(&[(1.0, a), (-1.0, b)], options)
}

/// A statistic of a sample of items, and of resamples of them. Two of the same number of items, with the same options, are of the
/// same resamples.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resampled {
    value: f64,
    resamples: Vec<f64>,
    /// With each item left out in turn.
    left_out: Vec<f64>,
}

/// A statistic of `n` items, given as a function of how many times each counts. Refused are no items and options out of range.
pub(crate) fn resample_items(
    n: usize,
    options: BootstrapOptions,
    statistic: impl Fn(&[f64]) -> f64 + Sync,
) -> Result<Resampled, AnalysisError> {
    let ones = vec![1.0; n];
    check(&[(1.0, &ones)], options)?;
    let start = ChaCha8Rng::seed_from_u64(options.seed);
    let resample = |number: u64| {
        let mut rng = start.clone();
        rng.set_stream(number);
        let mut weights = vec![0.0; n];
        if let Ok(places) = Uniform::new(0, n) {
            (0..n).for_each(|_| weights[places.sample(&mut rng)] += 1.0);
        }
        statistic(&weights)
    };
    let left_out = |item: usize| {
        let mut weights = ones.clone();
        weights[item] = 0.0;
        statistic(&weights)
    };
    Ok(Resampled {
        value: statistic(&ones),
        resamples: (0..options.n_resamples as u64).into_par_iter().map(resample).collect(),
        left_out: (0..n).into_par_iter().map(left_out).collect(),
    })
}

impl Resampled {
    /// The statistic less another of the same items.
    pub fn minus(&self, other: &Self) -> Self {
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        Self {
            value: self.value - other.value,
            resamples: minus(&self.resamples, &other.resamples),
            left_out: minus(&self.left_out, &other.left_out),
        }
    }

    /// The statistic with its interval.
    pub fn estimate(&self, options: BootstrapOptions) -> Estimate {
        let centre = mean_of(&self.left_out);
        let n = self.left_out.len() as f64;
        let deviations = || self.left_out.iter().map(|value| (n - 1.0) * (centre - value));
        let cubes = deviations().map(|u| u.powi(3)).sum::<f64>() / n.powi(3);
        let squares = deviations().map(|u| u.powi(2)).sum::<f64>() / n.powi(2);
        let tells = squares > 0.0;
        let interval = tells.then(|| {
            let mut sorted = self.resamples.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            bca(self.value, &sorted, cubes / (6.0 * squares.powf(1.5)), options.confidence)
        });
        Estimate { value: self.value, interval: interval.flatten(), options }
    }
}

/// A sample and the factor of its mean in the statistic.
type Term<'a> = (f64, &'a [f64]);

fn estimate(terms: &[Term<'_>], options: BootstrapOptions) -> Result<Estimate, AnalysisError> {
    check(terms, options)?;
    let value: f64 = terms.iter().map(|(factor, sample)| factor * mean_of(sample)).sum();
    let tells = terms.iter().all(|(_, sample)| sample.len() > 1)
        && terms.iter().any(|(_, sample)| sample.iter().any(|x| (x - sample[0]).abs() > 0.0));
    let interval = tells.then(|| {
        let mut resampled = resample(terms, options);
        resampled.par_sort_unstable_by(f64::total_cmp);
        bca(value, &resampled, acceleration(terms), options.confidence)
    });
    Ok(Estimate { value, interval: interval.flatten(), options })
}

fn check(terms: &[Term<'_>], options: BootstrapOptions) -> Result<(), AnalysisError> {
    let refused =
        |message| Err(AnalysisError::Input { action: "compute a bootstrap interval", message });
    if !(options.confidence > 0.0 && options.confidence < 1.0) {
        return refused(format!(
            "expected a confidence strictly between 0 and 1, found {}",
            options.confidence
        ));
    }
    if options.n_resamples == 0 {
        return refused("expected at least one resample, found 0".to_owned());
    }
    for (_, sample) in terms {
        if sample.is_empty() {
            return refused("a sample is empty".to_owned());
        }
        if let Some(place) = sample.iter().position(|value| !value.is_finite()) {
            return refused(format!(
                "value {place} of a sample is {}, expected a finite number",
                sample[place]
            ));
        }
    }
    Ok(())
}

fn mean_of(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len() as f64
}

/// The statistic of every resample, in their order: `[n_resamples]`.
fn resample(terms: &[Term<'_>], options: BootstrapOptions) -> Vec<f64> {
    let indices: Vec<Option<Uniform<usize>>> =
        terms.iter().map(|(_, sample)| Uniform::new(0, sample.len()).ok()).collect();
    let start = ChaCha8Rng::seed_from_u64(options.seed);
    (0..options.n_resamples as u64)
        .into_par_iter()
        .map(|number| {
            let mut rng = start.clone();
            rng.set_stream(number);
            let mut value = 0.0;
            for ((factor, sample), indices) in terms.iter().zip(&indices) {
                let Some(indices) = indices else { continue };
                let sum: f64 = (0..sample.len()).map(|_| sample[indices.sample(&mut rng)]).sum();
                value += factor * (sum / sample.len() as f64);
            }
            value
        })
        .collect()
}

/// a, by the jackknife.
fn acceleration(terms: &[Term<'_>]) -> f64 {
    let (mut cubes, mut squares) = (0.0, 0.0);
    for (factor, sample) in terms {
        let (n, centre) = (sample.len() as f64, mean_of(sample));
        let deviations = || sample.iter().map(|x| factor * (x - centre));
        cubes += deviations().map(|u| u.powi(3)).sum::<f64>() / n.powi(3);
        squares += deviations().map(|u| u.powi(2)).sum::<f64>() / n.powi(2);
    }
    cubes / (6.0 * squares.powf(1.5))
}

/// The interval from the resampled statistics, sorted; none where one of its numbers is not finite.
fn bca(value: f64, sorted: &[f64], acceleration: f64, confidence: f64) -> Option<Interval> {
    let below = sorted.partition_point(|&resampled| resampled < value);
    let not_above = sorted.partition_point(|&resampled| resampled <= value);
    let bias = quantile_of_normal((below + not_above) as f64 / (2 * sorted.len()) as f64);
    let end = |z: f64| {
        let moved = bias + z;
        quantile(sorted, normal_cdf(bias + moved / (1.0 - acceleration * moved)))
    };
    let z = quantile_of_normal((1.0 - confidence) / 2.0);
    let interval = Interval {
        low: end(z)?,
        high: end(-z)?,
        standard_error: standard_deviation(sorted),
        bias,
        acceleration,
    };
    let Interval { low, high, standard_error, .. } = interval;
    [low, high, standard_error, bias, acceleration]
        .iter()
        .all(|number| number.is_finite())
        .then_some(interval)
}

/// Φ.
fn normal_cdf(z: f64) -> f64 {
    erfc(-z / SQRT_2) / 2.0
}

/// Φ⁻¹, infinite at 0 and 1.
fn quantile_of_normal(p: f64) -> f64 {
    -SQRT_2 * erfc_inv(2.0 * p)
}

/// A quantile, linear between order statistics (numpy's and R's default, type 7); none where `p` is no number.
fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    if p.is_nan() {
        return None;
    }
    let place = p.clamp(0.0, 1.0) * last as f64;
    let (below, share) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(last);
    Some((1.0 - share) * sorted[below] + share * sorted[above])
}

fn standard_deviation(values: &[f64]) -> f64 {
    let centre = mean_of(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

#[cfg(test)]
mod tests;
