//! Intervals against scipy, and by hand.

use serde::Deserialize;

use super::{
    BootstrapOptions, Interval, acceleration, bca, difference_of_means, mean, normal_cdf,
    quantile_of_normal, resample, resample_items,
};

/// Written by `scripts/fixtures_analysis.py`.
#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    normal: Vec<NormalPoint>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    a: Vec<f64>,
    b: Option<Vec<f64>>,
    confidence: f64,
    value: f64,
    acceleration: f64,
    /// Of few resamples, whose statistics are stored.
    resampled: Vec<f64>,
    bias: f64,
    interval: [f64; 2],
    standard_error: f64,
    /// Of very many resamples.
    limit: [f64; 2],
    limit_standard_error: f64,
}

#[derive(Deserialize)]
struct NormalPoint {
    z: f64,
    p: f64,
}

impl Case {
    fn terms(&self) -> Vec<(f64, &[f64])> {
        let first = (1.0, self.a.as_slice());
        std::iter::once(first).chain(self.b.iter().map(|b| (-1.0, b.as_slice()))).collect()
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../tests/fixtures/bootstrap.json")).unwrap()
}

fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

#[test]
fn a_mean_as_a_statistic_of_items_is_the_mean() {
    // Eighths, and eight of them, so that no sum is rounded.
    let values = [0.5, 2.0, 3.5, 1.0, 7.0, 0.25, 1.75, 4.0];
    let others = [1.25, 0.75, 3.25, 2.125, 5.5, 0.5, 2.5, 1.0];
    let options = BootstrapOptions { n_resamples: 500, ..BootstrapOptions::default() };
    let of = |values: [f64; 8]| {
        let weighted = move |weights: &[f64]| {
            let sum: f64 = weights.iter().zip(values).map(|(weight, value)| weight * value).sum();
            sum / weights.iter().sum::<f64>()
        };
        resample_items(values.len(), options, weighted).unwrap()
    };
    let expected = mean(&values, options).unwrap();
    let found = of(values).estimate(options);
    close(found.value, expected.value, 1e-12, "value");
    let (found, expected) = (found.interval.unwrap(), expected.interval.unwrap());
    for (found, expected, what) in [
        (found.low, expected.low, "low"),
        (found.high, expected.high, "high"),
        (found.bias, expected.bias, "bias"),
        (found.acceleration, expected.acceleration, "acceleration"),
    ] {
        close(found, expected, 1e-9, what);
    }
    // Paired: the difference of the values item by item.
    let difference: Vec<f64> = values.iter().zip(others).map(|(a, b)| a - b).collect();
    let expected = mean(&difference, options).unwrap().interval.unwrap();
    let found = of(values).minus(&of(others)).estimate(options).interval.unwrap();
    close(found.low, expected.low, 1e-9, "low of the difference");
    close(found.high, expected.high, 1e-9, "high of the difference");
    let nothing = of(values).minus(&of(values)).estimate(options);
    assert_eq!((nothing.value, nothing.interval), (0.0, None));
    assert!(resample_items(0, options, |_| 0.0).is_err());
}

#[test]
fn the_normal_distribution_is_scipys() {
    for NormalPoint { z, p } in fixture().normal {
        close(normal_cdf(z) / p, 1.0, 1e-10, &format!("Φ({z}), relative"));
        close(quantile_of_normal(p), z, 1e-9 * z.abs().max(1.0), &format!("Φ⁻¹({p})"));
    }
    assert!(quantile_of_normal(0.0) < f64::MIN && quantile_of_normal(1.0) > f64::MAX);
}

/// From scipy's own resamples the interval is scipy's.
#[test]
fn from_the_same_resamples_the_interval_is_scipys() {
    for case in fixture().cases {
        let name = &case.name;
        let found = acceleration(&case.terms());
        close(found, case.acceleration, 1e-10, &format!("{name}: acceleration"));
        let mut sorted = case.resampled.clone();
        sorted.sort_by(f64::total_cmp);
        let interval = bca(case.value, &sorted, found, case.confidence).unwrap();
        close(interval.bias, case.bias, 1e-10, &format!("{name}: bias"));
        close(interval.low, case.interval[0], 1e-10, &format!("{name}: low"));
        close(interval.high, case.interval[1], 1e-10, &format!("{name}: high"));
        close(interval.standard_error, case.standard_error, 1e-10, &format!("{name}: error"));
    }
}

/// From resamples of our own it is scipy's but for chance, which at 200 000 resamples moves an end of a 95 % interval by
/// about 0.6 % of a standard error.
#[test]
fn from_many_resamples_the_interval_is_scipys() {
    for case in fixture().cases {
        let name = &case.name;
        let options =
            BootstrapOptions { confidence: case.confidence, n_resamples: 200_000, seed: 3 };
        let found = match &case.b {
            Some(b) => difference_of_means(&case.a, b, options),
            None => mean(&case.a, options),
        }
        .unwrap();
        close(found.value, case.value, 1e-12, &format!("{name}: value"));
        let interval = found.interval.unwrap();
        let tolerance = 0.03 * case.limit_standard_error;
        close(interval.low, case.limit[0], tolerance, &format!("{name}: low"));
        close(interval.high, case.limit[1], tolerance, &format!("{name}: high"));
        close(
            interval.standard_error / case.limit_standard_error,
            1.0,
            0.01,
            &format!("{name}: standard error"),
        );
        assert_eq!(found.options, options);
    }
}

/// Two values: resamples have the mean 0, ½ or 1 with probabilities ¼, ½, ¼.
#[test]
fn two_values_by_hand() {
    let options = BootstrapOptions { n_resamples: 20_000, ..BootstrapOptions::default() };
    let resampled = resample(&[(1.0, &[0.0, 1.0])], options);
    let share = |of: f64| {
        resampled.iter().filter(|&&x| x.to_bits() == of.to_bits()).count() as f64 / 20_000.0
    };
    for (of, expected) in [(0.0, 0.25), (0.5, 0.5), (1.0, 0.25)] {
        close(share(of), expected, 0.02, "share");
    }
    let interval = mean(&[0.0, 1.0], options).unwrap().interval.unwrap();
    assert_eq!((interval.low.to_bits(), interval.high.to_bits()), (0, 1.0_f64.to_bits()));
    close(interval.acceleration, 0.0, 0.0, "symmetric: acceleration");
}

/// Deviations −1, −1, 2: `a = (6 / 27) / (6 (6 / 9)^1.5)`; the sign turns in the sample that is subtracted.
#[test]
fn acceleration_by_hand() {
    let expected = (6.0 / 27.0) / (6.0 * (6.0_f64 / 9.0).powf(1.5));
    let sample: &[f64] = &[4.0, 4.0, 7.0];
    close(acceleration(&[(1.0, sample)]), expected, 1e-15, "mean");
    close(acceleration(&[(-1.0, sample)]), -expected, 1e-15, "subtracted");
    close(acceleration(&[(1.0, sample), (-1.0, sample)]), 0.0, 1e-15, "against itself");
}

#[test]
fn without_bias_or_acceleration_the_interval_is_of_percentiles() {
    let sorted: Vec<f64> = (0..=100).map(f64::from).collect();
    let interval = bca(50.0, &sorted, 0.0, 0.9).unwrap();
    close(interval.low, 5.0, 1e-9, "low");
    close(interval.high, 95.0, 1e-9, "high");
    close(interval.bias, 0.0, 1e-15, "bias");
}

#[test]
fn samples_that_cannot_tell_have_no_interval() {
    let options = BootstrapOptions { n_resamples: 50, ..BootstrapOptions::default() };
    let single = mean(&[2.5], options).unwrap();
    assert_eq!((single.value.to_bits(), single.interval), (2.5_f64.to_bits(), None));
    assert_eq!(mean(&[0.1; 7], options).unwrap().interval, None);
    let both_constant = difference_of_means(&[0.1; 7], &[0.3; 4], options).unwrap();
    assert_eq!(both_constant.interval, None);
    close(both_constant.value, -0.2, 1e-15, "difference");
    assert_eq!(difference_of_means(&[1.0], &[1.0, 2.0], options).unwrap().interval, None);
    // One sample that varies is enough.
    assert!(
        difference_of_means(&[1.0, 1.0], &[1.0, 2.0, 3.0], options).unwrap().interval.is_some()
    );
    // All resamples on one side: z0 is infinite.
    assert_eq!(bca(2.0, &[0.0, 0.5, 1.0], 0.0, 0.95), None);
    assert_eq!(bca(-2.0, &[0.0, 0.5, 1.0], 0.0, 0.95), None);
}

#[test]
fn what_is_no_sample_is_refused() {
    let options = BootstrapOptions::default();
    let message = |sample: &[f64], options| mean(sample, options).unwrap_err().to_string();
    assert!(message(&[], options).contains("a sample is empty"));
    assert!(message(&[1.0, f64::NAN], options).contains("value 1 of a sample is NaN"));
    for confidence in [0.0, 1.0, -0.5, f64::NAN] {
        let found = message(&[1.0, 2.0], BootstrapOptions { confidence, ..options });
        assert!(found.contains(&format!("found {confidence}")), "{found}");
    }
    let none = BootstrapOptions { n_resamples: 0, ..options };
    assert!(message(&[1.0, 2.0], none).contains("at least one resample"));
}

#[test]
fn threads_make_no_difference_and_seeds_do() {
    let a: Vec<f64> = (0..300).map(|i| f64::from(i).sin()).collect();
    let b: Vec<f64> = (0..200).map(|i| f64::from(i).cos()).collect();
    let interval = |threads: usize, seed: u64| -> Interval {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = BootstrapOptions { n_resamples: 500, seed, ..BootstrapOptions::default() };
        pool.install(|| difference_of_means(&a, &b, options)).unwrap().interval.unwrap()
    };
    assert_eq!(interval(1, 7), interval(3, 7));
    assert_ne!(interval(1, 7), interval(1, 8));
}
