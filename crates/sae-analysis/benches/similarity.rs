//! The largest cosines within a dictionary and across two, at a ninth of the paper's size: 5120 rows of 768 numbers.
//!
//! `cargo bench -p sae-analysis`; the rate is in multiplications of two numbers, elements of the products times 768.

#![allow(clippy::expect_used)] // In a benchmark, a panic is the report.
#![allow(missing_docs)] // `criterion_group!` makes a public function without docs.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_analysis::geometry::similarity::{across, within};
use sae_analysis::matrix::Matrix;

const ROWS: usize = 5120;
const COLUMNS: usize = 768;

fn dictionary(seed: u64) -> Matrix {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = (0..ROWS * COLUMNS).map(|_| rng.random_range(-1.0..1.0)).collect();
    Matrix::new(COLUMNS, values).expect("finite numbers in whole rows")
}

fn similarities(criterion: &mut Criterion) {
    let (a, b) = (dictionary(1), dictionary(2));
    let products = (ROWS * ROWS * COLUMNS) as u64;
    let mut group = criterion.benchmark_group("similarity");
    group.sample_size(10);
    group.throughput(Throughput::Elements(products / 2));
    group.bench_function("within", |bencher| bencher.iter(|| within(&a)));
    group.throughput(Throughput::Elements(products));
    group.bench_function("across", |bencher| bencher.iter(|| across(&a, &b)));
    group.finish();
}

criterion_group!(benches, similarities);
criterion_main!(benches);
