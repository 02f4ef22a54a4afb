//! The portable loops compute what those for AVX2 and AVX-512 do, bit for bit: what other processors run is tested here.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};

use super::*;

/// Whether the portable loops run in place of the best ones. The results are the same, so other tests may run beside.
pub(super) static PORTABLE: AtomicBool = AtomicBool::new(false);

/// Sizes that fill no register, with a rest at every end.
const N: i64 = 37;
const D: i64 = 53;
const F: i64 = 131;

fn randn(shape: &[i64], seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    numbers(tensor).iter().map(|x| x.to_bits()).collect()
}

/// Every kernel on the same numbers: the bits of all that they give.
fn all() -> Vec<(&'static str, Vec<u32>)> {
    let mut found = Vec::new();
    let (x, gradient) = (randn(&[N, D], 1), randn(&[N, D], 2));
    let (w_enc, w_dec, b_dec) = (randn(&[F, D], 3), randn(&[F, D], 4), randn(&[D], 5));

    let mut features = x.matmul(&w_enc.tr()) - 6.0;
    let rows = relu(&mut features).unwrap();
    found.push(("relu", bits(&features)));
    found.push(("relu: sums", rows.iter().map(|row| row.sum.to_bits()).collect()));
    let mut masked = randn(&[N, F], 6);
    mask(&mut masked, &features, 0.25).unwrap();
    found.push(("mask", bits(&masked)));
    let scales = row_scales(&w_dec).unwrap();
    found.push(("row_scales", scales.iter().map(|x| x.to_bits()).collect()));
    let mut projected = randn(&[F, D], 7);
    project(&mut projected, &w_dec, &scales).unwrap();
    found.push(("project", bits(&projected)));

    let active = Active::collect(&features, &rows).unwrap();
    assert!(!active.is_empty() && active.len() < (N * F) as usize / 4);
    found.push(("decode", bits(&active.decode(&w_dec, &scales, &b_dec).unwrap())));
    let penalties = active.penalties(1.0, 0.5);
    let pre = active.backward(&gradient, &w_dec, &scales, penalties).unwrap();
    found.push(("backward", pre.iter().map(|x| x.to_bits()).collect()));
    found.push(("input_gradient", bits(&active.input_gradient(&pre, &w_enc).unwrap())));
    let gradients = active.parameter_gradients(&pre, &x, &gradient, &w_dec, &scales).unwrap();
    found.push(("w_enc", bits(&gradients.w_enc)));
    found.push(("b_enc", bits(&gradients.b_enc)));
    found.push(("w_dec", bits(&gradients.w_dec)));

    let (logits, mut other) = (randn(&[N, F], 8) * 4.0, randn(&[N, F], 9) * 4.0);
    let mut exps = logits.empty_like();
    let share = |shares: Vec<Share>| -> Vec<u32> {
        let parts =
            |share: &Share| [f64::from(share.largest), share.sum, share.weighted].map(f64::to_bits);
        shares.iter().flat_map(parts).flat_map(|x| [x as u32, (x >> 32) as u32]).collect()
    };
    found.push(("exponentials: shares", share(exponentials(&logits, &mut exps).unwrap())));
    found.push(("exponentials", bits(&exps)));
    found.push(("compare: shares", share(compare(&mut other, &logits, &exps).unwrap())));
    found.push(("compare", bits(&other)));
    let pairs: Vec<(f32, f32)> = (1..=N).map(|n| (1.0 / n as f32, 0.5 / n as f32)).collect();
    subtract(&mut other, &exps, &pairs).unwrap();
    found.push(("subtract", bits(&other)));

    let [mut parameter, mut mean] = [10, 11].map(|seed| randn(&[F, D], seed));
    let mut square = randn(&[F, D], 12).abs();
    let step = AdamStep {
        mean_weight: 0.1,
        square_weight: 0.001,
        square_decay: 0.999,
        eps: 1e-8,
        rate: 1e-3,
        root_scale: 1.5,
        gradient_scale: 0.7,
        decay: 0.99,
    };
    adam(&mut parameter, &randn(&[F, D], 13), &mut mean, &mut square, step).unwrap();
    found.extend([
        ("adam: parameter", bits(&parameter)),
        ("adam: mean", bits(&mean)),
        ("adam: square", bits(&square)),
    ]);
    found
}

#[test]
fn portable_loops_give_the_same_bits() {
    if Instructions::detected().is_none() {
        // Nothing to compare with: the plain path is taken on this processor.
        return;
    }
    let best = all();
    PORTABLE.store(true, Ordering::SeqCst);
    assert_eq!(Instructions::chosen(), Instructions::Portable);
    let portable = all();
    PORTABLE.store(false, Ordering::SeqCst);
    for ((name, best), (_, portable)) in best.into_iter().zip(portable) {
        assert!(best == portable, "{name} differs");
    }
}
