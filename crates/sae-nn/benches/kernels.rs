//! The kernels by themselves, at the sizes of TinyStories-1M: a regression is seen in seconds.
#![allow(missing_docs, clippy::unwrap_used)] // Criterion's macros make items without docs; a panic is the report.

use criterion::{Criterion, criterion_group, criterion_main};
use sae_nn::kernels::{AdamStep, adam, compare, exponentials};
use sae_nn::loss::kl_without_logits;
use sae_nn::{Penalty, Sae};
use tch::{Device, Kind, Tensor};

const N: i64 = 512;
const D: i64 = 64;
const V: i64 = 50_257;

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn kl(c: &mut Criterion) {
    let (original, spliced, w_u) = (randn(&[N, D]), randn(&[N, D]), randn(&[V, D]) * 0.1);
    c.bench_function("kl_without_logits", |b| {
        b.iter(|| kl_without_logits(&original, &[&spliced], &w_u, None, 128).unwrap());
    });
    if std::env::var_os("CHUNKS").is_some() {
        for (n, d) in [(2048, 64), (128, 768)] {
            let (original, spliced, w_u) = (randn(&[n, d]), randn(&[n, d]), randn(&[V, d]) * 0.1);
            for chunk in [32, 64, 128, 256] {
                c.bench_function(&format!("kl n {n} d {d} chunk {chunk}"), |b| {
                    b.iter(|| {
                        kl_without_logits(&original, &[&spliced], &w_u, None, chunk).unwrap()
                    });
                });
            }
        }
    }
    let (n, w) = (64, 2048);
    let (a, b_, words) = (randn(&[n, D]), randn(&[n, D]), randn(&[w, D]) * 0.1);
    let logits = Tensor::empty([n, w], (Kind::Float, Device::Cpu));
    c.bench_function("kl: logits of a tile", |b| b.iter(|| a.mm_out(&logits, &words.tr())));
    let mut exps = logits.empty_like();
    c.bench_function("kl: exponentials of a tile", |b| {
        b.iter(|| exponentials(&logits, &mut exps).unwrap());
    });
    let other = b_.matmul(&words.tr());
    let mut own = other.copy();
    c.bench_function("kl: value of a tile, and a copy", |b| {
        b.iter(|| {
            own.copy_(&other);
            compare(&mut own, &logits, &exps).unwrap()
        });
    });
    let mut gradient = a.zeros_like();
    c.bench_function("kl: gradient of a tile", |b| b.iter(|| gradient.addmm_(&own, &words)));
}

fn sae(c: &mut Criterion) {
    let sae = Sae::random(D as usize, 50 * D as usize, 0, 0, Device::Cpu, Kind::Float).unwrap();
    let x = randn(&[2048, D]);
    c.bench_function("sae: forward and backward", |b| {
        b.iter(|| {
            let pass = sae.pass(&x).unwrap();
            let gradient = &pass.reconstruction - &x;
            pass.backward(&sae, &gradient, Penalty { p: 1.0, weight: 1.0 }, false).unwrap()
        });
    });
}

fn optimiser(c: &mut Criterion) {
    let [mut p, g, mut m, mut s] = [(); 4].map(|()| randn(&[6144, 768]).abs());
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
    targets = kl, sae, optimiser
);
criterion_main!(benches);
