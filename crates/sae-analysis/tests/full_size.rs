//! The analyses at the paper's size, which takes too long for every test run:
//!
//! `cargo test --release -p sae-analysis --test full_size -- --ignored --nocapture`

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_analysis::bootstrap::{BootstrapOptions, difference_of_means};
use sae_analysis::embedding::{EmbeddingOptions, embed};
use sae_analysis::matrix::Matrix;
use sae_analysis::similarity::{across, within};

fn dictionary(rows: usize, columns: usize, seed: u64) -> Matrix {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
    Matrix::new(columns, values).unwrap()
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    eprintln!("{what}: {:.2} s", start.elapsed().as_secs_f64());
    result
}

/// Two dictionaries of GPT-2 small at 60 times its width, all features alive, and the interval of the difference.
#[test]
#[ignore = "half a minute of all cores in a release build"]
fn similarities_of_two_dictionaries_of_46080() {
    let [a, b] = [1, 2].map(|seed| dictionary(46_080, 768, seed));
    let own = timed("within a", || within(&a)).unwrap();
    let other = timed("within b", || within(&b)).unwrap();
    let both = timed("across", || across(&a, &b)).unwrap();
    let lengths = [own.len(), other.len(), both.a_to_b.len(), both.b_to_a.len()];
    assert_eq!(lengths, [46_080; 4]);
    // The largest of 46 080 cosines of random directions in 768 dimensions: near 4.2 standard deviations of 768^−½.
    for cosine in own.iter().chain(&other).chain(&both.a_to_b).chain(&both.b_to_a) {
        assert!((0.1..0.3).contains(cosine), "{cosine}");
    }
    let numbers = |cosines: &[f32]| cosines.iter().copied().map(f64::from).collect::<Vec<_>>();
    let options = BootstrapOptions { n_resamples: 10_000, ..BootstrapOptions::default() };
    let (own, other) = (numbers(&own), numbers(&other));
    let found = timed("bootstrap", || difference_of_means(&own, &other, options)).unwrap();
    let interval = found.interval.unwrap();
    assert!(interval.low < found.value && found.value < interval.high);
}

#[test]
#[ignore = "half a minute of all cores in a release build"]
fn embeddings_of_4096_and_10000_rows() {
    for (rows, columns) in [(4096, 128), (10_000, 768)] {
        let [a, b] = [1, 2].map(|seed| dictionary(rows / 2, columns, seed));
        let found = timed(&format!("embed {rows} × {columns}"), || {
            embed(&[&a, &b], EmbeddingOptions::default())
        });
        assert_eq!(found.unwrap().points.len(), rows);
    }
}
