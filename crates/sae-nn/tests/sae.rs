//! The SAE and the terms of its loss against PyTorch's values, hand-computed numbers and finite differences.

#![allow(clippy::unwrap_used, clippy::expect_used)] // In a test, a panic is the report.

use std::collections::HashMap;

use sae_config::Architecture;
use sae_nn::{Dictionary, Sizes, loss, weights};
use tch::{Device, Kind, Tensor};

const PARAMETERS: [&str; 4] = ["w_enc", "b_enc", "w_dec", "b_dec"];

/// The paper's autoencoder, initialised.
fn random(d_model: usize, features: usize, seed: u64, stream: u64, kind: Kind) -> Dictionary {
    let (relu, sizes) = (Architecture::default(), Sizes::sae(d_model, features));
    Dictionary::random(&relu, sizes, seed, stream, Device::Cpu, kind).unwrap()
}

/// The paper's autoencoder with these parameters.
fn relu(tensors: [Tensor; 4]) -> Dictionary {
    Dictionary::from_tensors(&Architecture::default(), tensors.into()).unwrap()
}

fn parameters(dictionary: &Dictionary) -> Vec<&Tensor> {
    dictionary.parameters().map(|(_, tensor)| tensor).collect()
}

fn fixture() -> HashMap<String, Tensor> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sae.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn sae(fixture: &HashMap<String, Tensor>) -> Dictionary {
    relu(PARAMETERS.map(|name| fixture[name].copy()))
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, bound: f64) {
    let difference = (a.detach() - b.detach()).abs().max().double_value(&[]);
    assert!(difference <= bound, "differs by {difference}");
}

#[test]
fn forward_and_terms_agree_with_pytorch() {
    let fixture = fixture();
    let (sae, x) = (sae(&fixture), &fixture["x"]);
    let out = sae.forward(x).unwrap();
    close(&out.features, &fixture["c"], 1e-12);
    close(&out.reconstruction, &fixture["x_hat"], 1e-12);
    let sparsity = |p| loss::sparsity(&out.features, p, 6).unwrap();
    close(&sparsity(1.0), &fixture["loss_sparsity_p1"], 1e-12);
    close(&sparsity(0.5), &fixture["loss_sparsity_p05"], 1e-10);
    let local = loss::mse(&out.reconstruction, x).unwrap();
    let output = loss::mse(&out.reconstruction, &fixture["x_orig"]).unwrap();
    close(&local, &fixture["loss_local"], 1e-12);
    close(&output, &fixture["loss_output"], 1e-12);
}

#[test]
fn gradients_agree_with_pytorch() {
    let fixture = fixture();
    let sae = sae(&fixture);
    let x = fixture["x"].copy().set_requires_grad(true);
    let out = sae.forward(&x).unwrap();
    let total = loss::sparsity(&out.features, 1.0, 6).unwrap() * 0.7
        + loss::mse(&out.reconstruction, &x).unwrap() * 1.3
        + loss::mse(&out.reconstruction, &fixture["x_orig"]).unwrap() * 0.4;
    let mut inputs = parameters(&sae);
    inputs.push(&x);
    let gradients = Tensor::run_backward(&[total], &inputs, false, false);
    for (name, gradient) in PARAMETERS.iter().chain(&["x"]).zip(&gradients) {
        close(gradient, &fixture[&format!("grad_{name}")], 1e-11);
    }
}

#[test]
fn hand_computed() {
    // D = 2, F = 2: features (3, 0) and (0, 1); dictionary rows (0.6, 0.8) and (1, 0) from (3, 4) and (2, 0).
    let tensor = |data: &[f64], shape: &[i64]| Tensor::from_slice(data).view(shape);
    let sae = relu([
        tensor(&[1.0, 0.0, 0.0, 1.0], &[2, 2]),
        tensor(&[1.0, -1.0], &[2]),
        tensor(&[3.0, 4.0, 2.0, 0.0], &[2, 2]),
        tensor(&[0.5, -0.5], &[2]),
    ]);
    let x = tensor(&[2.0, 1.0, -1.0, 2.0], &[2, 2]);
    let out = sae.forward(&x).unwrap();
    close(&out.features, &tensor(&[3.0, 0.0, 0.0, 1.0], &[2, 2]), 1e-12);
    close(&out.reconstruction, &tensor(&[2.3, 1.9, 1.5, -0.5], &[2, 2]), 1e-12);
    // (3 + 1) / 2 tokens / D = 1; (0.3² + 0.9² + 2.5² + 2.5²) / 4 = 3.35.
    close(&loss::sparsity(&out.features, 1.0, 2).unwrap(), &Tensor::from(1.0), 1e-12);
    close(&loss::mse(&out.reconstruction, &x).unwrap(), &Tensor::from(3.35), 1e-12);
}

#[test]
fn kl_by_hand() {
    // Hidden states whose logits are the logarithms of (1/2, 1/4, 1/4) and (1/4, 1/4, 1/2): KL = ¼ ln 2.
    let logs = |p: [f64; 3]| Tensor::from_slice(&p.map(f64::ln)).view([1, 3]);
    let (original, spliced) = (logs([0.5, 0.25, 0.25]), logs([0.25, 0.25, 0.5]));
    let identity = Tensor::eye(3, (Kind::Double, Device::Cpu));
    let terms =
        loss::kl_without_logits(&original, &[&spliced], &identity, None, 8, Kind::Double).unwrap();
    close(&terms[0].value, &Tensor::from(0.25 * 2_f64.ln()), 1e-12);
    close(&terms[0].gradient, &Tensor::from_slice(&[-0.25, 0.0, 0.25]).view([1, 3]), 1e-12);
}

#[test]
fn kl_without_logits_is_the_plain_formula() {
    let fixture = fixture();
    let (original, w_u) = (&fixture["h_orig"], &fixture["w_u"]);
    let spliced = fixture["h_spliced"].copy().set_requires_grad(true);
    let plain = {
        let log_p = original.matmul(&w_u.tr()).log_softmax(-1, None);
        let log_q = spliced.matmul(&w_u.tr()).log_softmax(-1, None);
        (log_p.exp() * (&log_p - log_q)).sum(None::<Kind>) / original.size()[0] as f64
    };
    close(&plain, &fixture["kl"], 1e-12);
    let gradient = Tensor::run_backward(&[&plain], &[&spliced], false, false).remove(0);
    close(&(&gradient * 0.5), &fixture["grad_h_spliced"], 1e-12);
    for chunk in [1, 3, 10, 100] {
        let terms = loss::kl_without_logits(
            original,
            &[original, &spliced],
            w_u,
            None,
            chunk,
            Kind::Double,
        )
        .unwrap();
        assert!(terms[0].value.double_value(&[]).abs() < 1e-12);
        close(&terms[1].value, &plain, 1e-12);
        close(&terms[1].gradient, &gradient, 1e-12);
    }
}

fn randn(shape: &[i64], seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Double, Device::Cpu))
}

#[test]
fn the_fused_kl_is_the_plain_one() {
    // In f64 the plain path is taken; 300 and 1 000 are no multiples of what the kernels work on at a time.
    for (n, d, v, spread) in [(37, 8, 1000, 1.0), (5, 4, 300, 30.0), (3, 4, 7, 1.0)] {
        let (original, w_u) = (randn(&[n, d], 0), randn(&[v, d], 1) * spread);
        let (spliced, bias) = (&original + randn(&[n, d], 2) * 0.3, randn(&[v], 3));
        let single = |tensor: &Tensor| tensor.to_kind(Kind::Float);
        assert!(sae_nn::kernels::applies(&[&single(&original)]), "a CPU without AVX2");
        for bias in [None, Some(&bias)] {
            let plain =
                loss::kl_without_logits(&original, &[&spliced], &w_u, bias, 16, Kind::Double)
                    .unwrap();
            let bias = bias.map(single);
            let fused = loss::kl_without_logits(
                &single(&original),
                &[&single(&spliced), &single(&original)],
                &single(&w_u),
                bias.as_ref(),
                16,
                Kind::Float,
            )
            .unwrap();
            let (a, b) = (plain[0].value.double_value(&[]), fused[0].value.double_value(&[]));
            assert!((a - b).abs() < 1e-5 * a, "{a} {b}");
            let largest = plain[0].gradient.abs().max().double_value(&[]);
            close(&fused[0].gradient.to_kind(Kind::Double), &plain[0].gradient, 1e-5 * largest);
            // Of a distribution to itself there is none.
            assert!(fused[1].value.double_value(&[]).abs() < 1e-6);
        }
    }
}

#[test]
fn a_kl_that_is_not_finite_says_so() {
    let hidden = Tensor::from_slice(&[1.0_f32, f32::NAN]).view([2, 1]);
    let w_u = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).view([3, 1]);
    let ones = Tensor::ones([2, 1], (Kind::Float, Device::Cpu));
    let terms = loss::kl_without_logits(&ones, &[&hidden], &w_u, None, 8, Kind::Double).unwrap();
    assert!(!terms[0].value.double_value(&[]).is_finite());
}

/// Central differences of the whole SAE loss in every parameter, in f64.
#[test]
fn gradients_agree_with_finite_differences() {
    let fixture = fixture();
    let value = |sae: &Dictionary| {
        let out = sae.forward(&fixture["x"]).unwrap();
        loss::sparsity(&out.features, 1.0, 6).unwrap() * 0.3
            + loss::mse(&out.reconstruction, &fixture["x"]).unwrap()
    };
    let exact = sae(&fixture);
    let gradients = Tensor::run_backward(&[value(&exact)], &parameters(&exact), false, false);
    let step = 1e-6;
    for (index, gradient) in gradients.iter().enumerate() {
        let flat = gradient.reshape([-1]);
        for element in [0, flat.size()[0] / 2, flat.size()[0] - 1] {
            let shifted = |by: f64| {
                let moved: Vec<Tensor> =
                    parameters(&exact).into_iter().map(|p| p.detach().copy()).collect();
                let _ = moved[index].view([-1]).get(element).g_add_scalar_(by);
                let moved = Dictionary::from_tensors(&Architecture::default(), moved).unwrap();
                value(&moved).double_value(&[])
            };
            let difference = (shifted(step) - shifted(-step)) / (2.0 * step);
            let exact = flat.double_value(&[element]);
            assert!((difference - exact).abs() < 1e-7, "{index} {element}: {difference} {exact}");
        }
    }
}

#[test]
fn initialisation_is_orthogonal_bounded_and_seeded() {
    let drawn = |seed, stream| random(8, 24, seed, stream, Kind::Double);
    let sae = drawn(1, 0);
    let [w_enc, b_enc, w_dec, b_dec] = PARAMETERS.map(|name| sae.parameter(name).unwrap().detach());
    close(&w_dec.tr().matmul(&w_dec), &Tensor::eye(8, (Kind::Double, Device::Cpu)), 1e-12);
    for (tensor, bound) in [(&w_enc, 8.0_f64), (&b_enc, 8.0), (&b_dec, 24.0)] {
        let largest = tensor.abs().max().double_value(&[]) * bound.sqrt();
        assert!((0.5..=1.0).contains(&largest), "{largest}");
    }
    close(&w_enc, parameters(&drawn(1, 0))[0], 0.0);
    for other in [drawn(2, 0), drawn(1, 1)] {
        assert!((parameters(&other)[0].detach() - &w_enc).abs().max().double_value(&[]) > 0.1);
    }
    // Wider than high: orthonormal rows.
    let wide = random(8, 4, 0, 0, Kind::Double);
    let w_dec = parameters(&wide)[2].detach();
    close(&w_dec.matmul(&w_dec.tr()), &Tensor::eye(4, (Kind::Double, Device::Cpu)), 1e-12);
}

#[test]
fn weights_round_trip_and_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("blocks.1.hook_resid_pre");
    let sae = random(8, 24, 3, 0, Kind::Float);
    let provenance = weights::Provenance {
        model: "tiny",
        hook_name: "blocks.1.hook_resid_pre",
        hook_name_out: None,
        context_length: 16,
        processed: false,
    };
    weights::save(&sae, provenance, &folder).unwrap();
    weights::save(&sae, provenance, &folder).unwrap();
    let again = weights::load(&folder, Device::Cpu, Kind::Float).unwrap();
    let x = Tensor::ones([3, 8], (Kind::Float, Device::Cpu));
    close(
        &sae.forward(&x).unwrap().reconstruction,
        &again.forward(&x).unwrap().reconstruction,
        1e-6,
    );

    let file = folder.join("sae_weights.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let error = weights::load(&folder, Device::Cpu, Kind::Float).unwrap_err().to_string();
    assert!(error.contains("sae_weights.safetensors") && error.contains("truncated"), "{error}");
}
