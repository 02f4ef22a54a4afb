//! The kernels by themselves, at the sizes of TinyStories-1M: a regression is seen in seconds.
#![allow(missing_docs, clippy::unwrap_used)] // Criterion's macros make items without docs; a panic is the report.

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_kernels::{
    AdamStep, Rows, RowsMut, SparseCode, adam, compare, exponentials, relu, row_scales,
};

fn random(count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A tile of the vocabulary, 64 tokens × 2 048 words.
fn distribution(c: &mut Criterion) {
    let (n, w) = (64, 2048);
    let logits = random(n * w);
    let mut exps = vec![0.0; n * w];
    c.bench_function("kl: exponentials of a tile", |b| {
        b.iter(|| {
            let out = RowsMut::new(&mut exps, w).unwrap();
            exponentials(Rows::new(&logits, w).unwrap(), out).unwrap()
        });
    });
    let mut own = logits.clone();
    c.bench_function("kl: value of a tile, and a copy", |b| {
        b.iter(|| {
            own.copy_from_slice(&logits);
            let original = Rows::new(&logits, w).unwrap();
            let exps = Rows::new(&exps, w).unwrap();
            compare(RowsMut::new(&mut own, w).unwrap(), original, exps).unwrap()
        });
    });
}

/// 2 048 tokens, F = 3 200, D = 64, one feature in 32 active.
fn sparse(c: &mut Criterion) {
    let (n, f, d) = (2048, 3200, 64);
    let mut features: Vec<f32> = random(n * f).into_iter().map(|x| x - 0.9375).collect();
    let sums = relu(RowsMut::new(&mut features, f).unwrap());
    let features = Rows::new(&features, f).unwrap();
    c.bench_function("sparse code: collect", |b| {
        b.iter(|| SparseCode::collect(features, &sums).unwrap());
    });
    let code = SparseCode::collect(features, &sums).unwrap();
    let (w_dec, bias, mut out) = (random(f * d), random(d), vec![0.0; n * d]);
    let w_dec = Rows::new(&w_dec, d).unwrap();
    let scales = row_scales(w_dec);
    c.bench_function("sparse code: decode", |b| {
        b.iter(|| {
            code.decode(w_dec, &scales, &bias, RowsMut::new(&mut out, d).unwrap()).unwrap();
        });
    });
}

fn optimiser(c: &mut Criterion) {
    let [mut p, g, mut m, mut s] = [(); 4].map(|()| random(6144 * 768));
    for x in &mut s {
        *x = x.abs();
    }
    let step = AdamStep {
        mean_weight: 0.1,
        square_weight: 0.001,
        square_decay: 0.999,
        eps: 1e-8,
        rate: 1e-3,
        root_scale: 1.0,
        gradient_scale: 1.0,
        decay: 1.0,
    };
    c.bench_function("adam: 4.7 M parameters", |b| {
        b.iter(|| adam(&mut p, &g, &mut m, &mut s, step).unwrap());
    });
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(500));
    targets = distribution, sparse, optimiser
);
criterion_main!(benches);
