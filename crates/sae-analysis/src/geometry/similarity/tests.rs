//! Cosines against scikit-learn, against the plain computation, and by hand.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{BLOCK, across, summarise, within};
use crate::histogram::even_edges;
use crate::matrix::Matrix;

/// Written by `scripts/fixtures_analysis.py`.
#[derive(Deserialize)]
struct Fixture {
    columns: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    within_a: Vec<f64>,
    a_to_b: Vec<f64>,
    b_to_a: Vec<f64>,
    mean_within_a: f64,
    edges: Vec<f64>,
    counts: Vec<u64>,
}

fn random(rows: usize, columns: usize, seed: u64) -> Matrix {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
    Matrix::new(columns, values).unwrap()
}

fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() < 1e-6,
            "{what}, row {row}: {found}, {expected}"
        );
    }
}

/// Every cosine in f64, one after the other.
fn plainly(a: &Matrix, b: &Matrix, same: bool) -> Vec<f64> {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    a.iter()
        .enumerate()
        .map(|(i, x)| {
            let others = b.iter().enumerate().filter(|&(j, _)| !same || i != j);
            let cosines = others.map(|(_, y)| dot(x, y) / (dot(x, x) * dot(y, y)).sqrt());
            cosines.fold(f64::NEG_INFINITY, f64::max)
        })
        .collect()
}

#[test]
fn cosines_are_those_of_scikit_learn() {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../../../tests/fixtures/similarity.json")).unwrap();
    let a = Matrix::new(fixture.columns, fixture.a).unwrap();
    let b = Matrix::new(fixture.columns, fixture.b).unwrap();
    let own = within(&a).unwrap();
    close(&own, &fixture.within_a, "within");
    let found = across(&a, &b).unwrap();
    close(&found.a_to_b, &fixture.a_to_b, "a to b");
    close(&found.b_to_a, &fixture.b_to_a, "b to a");
    let summary = summarise(&own, fixture.edges).unwrap();
    assert_eq!(summary.n, a.rows());
    assert!((summary.mean.unwrap() - fixture.mean_within_a).abs() < 1e-6);
    assert_eq!(summary.histogram.counts, fixture.counts);
}

/// Sizes on both sides of a block's, and a last block of a single row.
#[test]
fn blocks_make_no_difference() {
    for (rows_a, rows_b) in [(BLOCK + 1, 3), (2 * BLOCK + 70, BLOCK), (2, BLOCK + 1), (40, 40)] {
        let (a, b) = (random(rows_a, 5, 1), random(rows_b, 5, 2));
        close(&within(&a).unwrap(), &plainly(&a, &a, true), "within");
        let found = across(&a, &b).unwrap();
        close(&found.a_to_b, &plainly(&a, &b, false), "a to b");
        close(&found.b_to_a, &plainly(&b, &a, false), "b to a");
    }
}

#[test]
fn directions_by_hand() {
    let half = 0.5_f32.sqrt();
    let a = Matrix::new(2, vec![2.0, 0.0, 0.0, 3.0, -1.0, 0.0, 0.0, 0.0]).unwrap();
    // To the right; up; to the left; nowhere. The nearest to left and right is up, at a right angle.
    assert_eq!(within(&a).unwrap(), [0.0; 4]);
    let b = Matrix::new(2, vec![1.0, 1.0, -5.0, -1e-20]).unwrap();
    let found = across(&a, &b).unwrap();
    close(&found.a_to_b, &[f64::from(half), f64::from(half), 1.0, 0.0], "a to b");
    close(&found.b_to_a, &[f64::from(half), 1.0], "b to a");
    let opposite = Matrix::new(2, vec![1.0, 0.0, -2.0, 0.0]).unwrap();
    assert_eq!(within(&opposite).unwrap(), [-1.0, -1.0]);
    // Not a hair above 1.
    let same = random(300, 37, 3);
    let found = across(&same, &same).unwrap();
    assert!(found.a_to_b.iter().all(|&cosine| cosine <= 1.0 && cosine > 1.0 - 1e-6));
}

#[test]
fn threads_make_no_difference() {
    let (a, b) = (random(3 * BLOCK + 11, 24, 4), random(2 * BLOCK + 5, 24, 5));
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (own, both) = pool.install(|| (within(&a).unwrap(), across(&a, &b).unwrap()));
        [bits(own), bits(both.a_to_b), bits(both.b_to_a)]
    };
    let once = with(1);
    assert_eq!(once, with(2));
    assert_eq!(once, with(5));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let (wide, narrow, none) = (random(3, 4, 1), random(3, 2, 1), random(0, 4, 1));
    let message = across(&wide, &narrow).unwrap_err().to_string();
    assert!(message.contains("4 and 2 numbers"), "{message}");
    for (a, b, expected) in [(&wide, &none, "3 and 0"), (&none, &wide, "0 and 3")] {
        let message = across(a, b).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(within(&none).unwrap_err().to_string().contains("found 0"));
    assert!(within(&random(1, 4, 1)).unwrap_err().to_string().contains("found 1"));
}

#[test]
fn a_summary_of_nothing_has_no_mean() {
    let summary = summarise(&[], even_edges(0.0, 1.0, 4)).unwrap();
    assert_eq!((summary.n, summary.mean, summary.histogram.total()), (0, None, 0));
    assert!(summarise(&[0.5], vec![1.0, 0.0]).is_err());
}
