//! Adam, AdamW and clipping against PyTorch's values.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::HashMap;

use sae_train::optim::{Adam, AdamOptions, clip_factor, global_norm, read};
use tch::{Kind, Tensor};

fn fixture() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optim.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn follows(name: &str, options: AdamOptions, decay: f64) {
    let fixture = fixture();
    let parameter = fixture["p0"].copy();
    let mut adam = Adam::new([(parameter.shallow_clone(), decay)], options).unwrap();
    for (step, expected) in fixture[name].unbind(0).iter().enumerate() {
        adam.step(&[fixture["grads"].get(step as i64)], 1.0, 1e-2).unwrap();
        assert!(difference(&parameter, expected) < 1e-13, "{name}, step {step}");
    }
}

#[test]
fn adam_is_pytorchs() {
    follows("adam", AdamOptions::default(), 0.0);
}

#[test]
fn adamw_is_pytorchs() {
    follows("adamw", AdamOptions { beta_2: 0.95, ..AdamOptions::default() }, 0.1);
}

#[test]
fn clipping_is_pytorchs() {
    let fixture = fixture();
    for (step, expected) in fixture["clipped"].unbind(0).iter().enumerate() {
        let gradient = fixture["grads"].get(step as i64);
        let norm = read(&[global_norm(std::slice::from_ref(&gradient)).unwrap()]).unwrap()[0];
        assert!((norm - fixture["clipped_norms"].double_value(&[step as i64])).abs() < 1e-12);
        let clipped = gradient * clip_factor(norm, Some(1.0));
        assert!(difference(&clipped, expected) < 1e-12, "step {step}");
    }
}

#[test]
fn the_norm_is_of_all_gradients_together() {
    let gradients = [Tensor::from_slice(&[3.0, 0.0]), Tensor::from_slice(&[4.0])];
    let norm = read(&[global_norm(&gradients).unwrap()]).unwrap()[0];
    assert!((norm - 5.0).abs() < 1e-12);
    assert!((clip_factor(norm, Some(2.5)) - 0.5).abs() < 1e-6);
    assert!((clip_factor(norm, Some(6.0)) - 1.0).abs() < 1e-12);
    assert!((clip_factor(norm, None) - 1.0).abs() < 1e-12);
}

#[test]
fn a_restored_optimiser_goes_on_to_the_same_bits() {
    let start = Tensor::from_slice(&[1.0, -2.0, 0.5]);
    let gradient = |step: i64| Tensor::from_slice(&[0.3, -0.1, 0.7]) * (step + 1);
    let optimiser = |parameter: &Tensor| {
        Adam::new([(parameter.shallow_clone(), 0.0)], AdamOptions::default()).unwrap()
    };
    let whole = start.copy();
    let mut adam = optimiser(&whole);
    let mut halves = None;
    for step in 0..6 {
        if step == 3 {
            let moments: Vec<_> = adam.moments().map(|(a, b)| (a.copy(), b.copy())).collect();
            halves = Some((whole.copy(), moments));
        }
        adam.step(&[gradient(step)], 1.0, 0.1).unwrap();
    }
    let (parameter, moments) = halves.unwrap();
    let mut again = optimiser(&parameter);
    again.restore(3, moments).unwrap();
    for step in 3..6 {
        again.step(&[gradient(step)], 1.0, 0.1).unwrap();
    }
    assert!(parameter.equal(&whole) && parameter.kind() == Kind::Double);
}

#[test]
fn the_fused_step_is_the_plain_one() {
    tch::manual_seed(0);
    let randn = || Tensor::randn([123, 457], (Kind::Double, tch::Device::Cpu));
    let start = randn();
    let (double, single) = (start.copy(), start.to_kind(Kind::Float));
    let adam = |parameter: &Tensor| {
        let options = AdamOptions::default();
        Adam::new([(parameter.shallow_clone(), 0.1)], options).unwrap()
    };
    let (mut plain, mut fused) = (adam(&double), adam(&single));
    for _ in 0..50 {
        let gradient = randn();
        plain.step(&[gradient.shallow_clone()], 0.3, 1e-2).unwrap();
        fused.step(&[gradient.to_kind(Kind::Float)], 0.3, 1e-2).unwrap();
    }
    // Fifty steps of a hundredth moved the parameters by about a tenth.
    assert!(difference(&double, &start) > 0.1);
    let apart = difference(&double, &single.to_kind(Kind::Double));
    // PyTorch's own AdamW differs by 5e-6 between f32 and f64 here.
    assert!(apart < 1e-5, "{apart}");
}
