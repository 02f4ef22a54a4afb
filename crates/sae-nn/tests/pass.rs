//! The written-out gradients of the SAE against autograd's of the plain forward pass: dense, few active, in every
//! precision.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use sae_nn::{Penalty, Sae, loss};
use tch::{Device, Kind, Tensor, no_grad};

const N: i64 = 45;
const D: i64 = 24;
const F: i64 = 160;

/// An SAE of whose features about `active` of F are active, and inputs.
fn case(active: f64, kind: Kind) -> (Sae, Tensor) {
    let sae = Sae::random(D as usize, F as usize, 1, 0, Device::Cpu, kind).unwrap();
    tch::manual_seed(4);
    let x = Tensor::randn([3, N / 3, D], (Kind::Double, Device::Cpu)).to_kind(kind);
    no_grad(|| {
        let [w_enc, b_enc, w_dec, _] = sae.parameters();
        let pre = x.reshape([-1, D]).matmul(&w_enc.tr()).to_kind(Kind::Float);
        let threshold = pre.quantile_scalar(1.0 - active / F as f64, 0, false, "linear");
        b_enc.shallow_clone().copy_(&-threshold);
        // Rows of other lengths than 1, one of 0.
        let _ = w_dec.shallow_clone().g_mul_(&Tensor::rand([F, 1], (kind, Device::Cpu)));
        let _ = w_dec.narrow(0, 7, 1).fill_(0.0);
        // A feature that is never active.
        let _ = b_enc.narrow(0, 3, 1).fill_(-100.0);
    });
    (sae, x)
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor, bound: f64) {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double).detach());
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    let difference = (found - expected).abs().max().double_value(&[]);
    assert!(difference <= bound * scale, "differs by {difference} of {scale}");
}

/// Everything that a pass gives, against the plain forward pass of an SAE with the same parameters in f64.
fn agrees(active: f64, kind: Kind, p: f64, bound: f64) {
    let (sae, x) = case(active, kind);
    let plain = {
        let [a, b, c, d] = sae.parameters().map(|tensor| tensor.detach().to_kind(Kind::Double));
        Sae::from_tensors(a, b, c, d).unwrap()
    };
    let input = x.to_kind(Kind::Double).set_requires_grad(true);
    let out = plain.forward(&input).unwrap();
    let sparsity = loss::sparsity(&out.features, p, D as usize).unwrap();
    let g = Tensor::randn(x.size(), (Kind::Double, Device::Cpu)).to_kind(kind);
    let weight = 7.0;
    let total = &sparsity * (weight * D as f64)
        + (&out.reconstruction * g.to_kind(Kind::Double)).sum(None::<Kind>);
    let mut inputs = plain.parameters().to_vec();
    inputs.push(&input);
    let expected = Tensor::run_backward(&[total], &inputs, false, false);

    let pass = sae.pass(&x).unwrap();
    assert_eq!(pass.reconstruction.size(), x.size());
    close(&pass.reconstruction, &out.reconstruction, bound);
    close(&pass.sparsity(p).unwrap(), &sparsity, bound);
    let l0 = out.features.gt(0.0).sum(Kind::Double) / N as f64;
    close(&pass.l0().unwrap(), &l0, 0.0);
    let found = l0.double_value(&[]);
    assert!((found - active).abs() < 4.0, "{found} active where {active} were to be");
    let penalty = Penalty { p, weight };
    let found = pass.backward(&sae, &g, penalty, true).unwrap();
    for (found, expected) in found.parameters.iter().flatten().zip(&expected) {
        close(found, expected, bound);
        assert_eq!(found.kind(), if kind == Kind::Double { kind } else { Kind::Float });
    }
    let input = found.input.unwrap();
    close(&input, &expected[4].reshape([-1, D]), bound);

    sae.freeze();
    let frozen = pass.backward(&sae, &g, penalty, true).unwrap();
    assert!(frozen.parameters.is_none() && frozen.input.unwrap().equal(&input));
    assert!(pass.backward(&sae, &g, penalty, false).unwrap().input.is_none());
}

#[test]
fn gradients_are_those_of_autograd() {
    // Few active features, one by one, and many, by products; p below 1 makes large numbers of small activations.
    for active in [0.5, 8.0, 15.0, 83.0] {
        for (p, bound) in [(1.0, 1e-12), (2.0, 1e-12), (0.5, 1e-9)] {
            agrees(active, Kind::Double, p, bound);
        }
        // An activation is the small difference of two numbers of order 1, each rounded.
        for (p, bound) in [(1.0, 1e-5), (2.0, 1e-5)] {
            agrees(active, Kind::Float, p, bound);
        }
    }
}

#[test]
fn nothing_active_is_no_special_case() {
    for kind in [Kind::Float, Kind::Double] {
        let (sae, x) = case(8.0, kind);
        let _ = no_grad(|| sae.parameters()[1].shallow_clone().fill_(-1e6));
        let pass = sae.pass(&x).unwrap();
        close(&pass.reconstruction, &sae.parameters()[3].expand_as(&x), 0.0);
        let gradient = x.ones_like();
        for p in [0.5, 1.0, 2.0] {
            let penalty = Penalty { p, weight: 1.0 };
            let found = pass.backward(&sae, &gradient, penalty, true).unwrap();
            let [w_enc, b_enc, w_dec, b_dec] = found.parameters.unwrap();
            for zero in [&w_enc, &b_enc, &w_dec, &found.input.unwrap()] {
                assert_eq!(zero.abs().max().double_value(&[]).to_bits(), 0.0_f64.to_bits());
            }
            close(&b_dec, &(b_dec.ones_like() * N), 1e-6);
        }
    }
}

/// What is no number is not hidden: it counts as active, and reaches the reconstruction.
#[test]
fn what_is_no_number_shows() {
    for active in [4.0, 80.0] {
        let (sae, x) = case(active, Kind::Float);
        let _ = x.narrow(0, 1, 1).narrow(1, 2, 1).fill_(f64::NAN);
        let pass = sae.pass(&x).unwrap();
        assert!(pass.reconstruction.sum(None::<Kind>).double_value(&[]).is_nan());
        assert!(pass.sparsity(1.0).unwrap().double_value(&[]).is_nan());
    }
}
