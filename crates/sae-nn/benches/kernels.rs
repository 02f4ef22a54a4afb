//! The kernels by themselves, at the sizes of TinyStories-1M: a regression is seen in seconds.
#![allow(missing_docs, clippy::unwrap_used)] // Criterion's macros make items without docs; a panic is the report.

use criterion::{Criterion, criterion_group, criterion_main};
use sae_nn::Sae;
use sae_nn::kernels::{AdamStep, Distribution, adam};
use sae_nn::loss::kl_without_logits;
use tch::{Device, Kind, Tensor};

const N: i64 = 512;
const D: i64 = 64;
const V: i64 = 50_257;

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn kl(c: &mut Criterion) {
    let (original, spliced, w_u) = (randn(&[N, D]), randn(&[N, D]), randn(&[V, D]) * 0.1);
    let chunk = (1 << 20) / V as usize;
    c.bench_function("kl_without_logits", |b| {
        b.iter(|| kl_without_logits(&original, &[&spliced], &w_u, None, chunk).unwrap());
    });
    if std::env::var_os("CHUNKS").is_some() {
        for (n, d) in [(2048, 64), (128, 768)] {
            let (original, spliced, w_u) = (randn(&[n, d]), randn(&[n, d]), randn(&[V, d]) * 0.1);
            for chunk in [8, 16, 32, 64, 128, 256, 512] {
                c.bench_function(&format!("kl n {n} d {d} chunk {chunk}"), |b| {
                    b.iter(|| {
                        kl_without_logits(&original, &[&spliced], &w_u, None, chunk).unwrap()
                    });
                });
            }
        }
    }
    let rows = chunk as i64;
    let (a, b_) = (original.narrow(0, 0, rows), spliced.narrow(0, 0, rows));
    let logits = Tensor::empty([rows, V], (Kind::Float, Device::Cpu));
    c.bench_function("kl: logits of a chunk", |b| b.iter(|| a.mm_out(&logits, &w_u.tr())));
    let mut p = Distribution::buffers(rows, V).unwrap();
    c.bench_function("kl: softmax of a chunk", |b| b.iter(|| p.set(rows, |_| Ok(())).unwrap()));
    p.set(rows, |buffer| {
        let _ = a.mm_out(buffer, &w_u.tr());
        Ok(())
    })
    .unwrap();
    let mut q = b_.linear(&w_u, None::<&Tensor>);
    c.bench_function("kl: value and gradient of a chunk", |b| {
        b.iter(|| p.kl_and_gradient(&mut q).unwrap());
    });
    c.bench_function("kl: gradient of the hidden state of a chunk", |b| b.iter(|| q.matmul(&w_u)));
}

fn sae(c: &mut Criterion) {
    let sae = Sae::random(D as usize, 50 * D as usize, 0, 0, Device::Cpu, Kind::Float).unwrap();
    let x = randn(&[2048, D]);
    c.bench_function("sae: forward and backward", |b| {
        b.iter(|| {
            let out = sae.forward(&x).unwrap();
            let loss =
                out.reconstruction.mse_loss(&x, tch::Reduction::Mean) + out.features.mean(None);
            Tensor::run_backward(&[loss], &sae.parameters(), false, false)
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
