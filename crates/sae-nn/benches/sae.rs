//! An SAE's pass and the KL divergence by themselves, at the sizes of TinyStories-1M: a regression is seen in seconds.
#![allow(missing_docs, clippy::unwrap_used)] // Criterion's macros make items without docs; a panic is the report.

use criterion::{Criterion, criterion_group, criterion_main};
use sae_config::Architecture;
use sae_nn::loss::kl_without_logits;
use sae_nn::{Dictionary, Penalty, Sizes};
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
        b.iter(|| kl_without_logits(&original, &[&spliced], &w_u, None, 128, Kind::Float).unwrap());
    });
    if std::env::var_os("CHUNKS").is_some() {
        for (n, d) in [(2048, 64), (128, 768)] {
            let (original, spliced, w_u) = (randn(&[n, d]), randn(&[n, d]), randn(&[V, d]) * 0.1);
            for chunk in [32, 64, 128, 256] {
                c.bench_function(&format!("kl n {n} d {d} chunk {chunk}"), |b| {
                    b.iter(|| {
                        kl_without_logits(&original, &[&spliced], &w_u, None, chunk, Kind::Float)
                            .unwrap()
                    });
                });
            }
        }
    }
}

fn sae(c: &mut Criterion) {
    let (relu, sizes) = (Architecture::default(), Sizes::sae(D as usize, 50 * D as usize));
    let sae = Dictionary::random(&relu, sizes, 0, 0, Device::Cpu, Kind::Float).unwrap();
    let x = randn(&[2048, D]);
    c.bench_function("sae: forward and backward", |b| {
        b.iter(|| {
            let pass = sae.pass(&x).unwrap();
            let gradient = pass.reconstruction() - &x;
            pass.backward(&sae, &[Some(gradient)], Penalty { p: 1.0, weight: 1.0 }, false).unwrap()
        });
    });
}

criterion_group!(
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(500));
    targets = kl, sae
);
criterion_main!(benches);
