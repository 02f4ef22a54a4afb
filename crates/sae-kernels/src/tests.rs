//! The portable loops compute what those for AVX2 and AVX-512 do, bit for bit: what other processors run is tested here.
//! And what all of them compute is compared with plain formulas in f64.

use std::sync::atomic::{AtomicBool, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::instructions::Instructions;
use crate::*;

/// Whether the portable loops run in place of the best ones. The results are the same, so other tests may run beside.
pub(crate) static PORTABLE: AtomicBool = AtomicBool::new(false);

/// Sizes that fill no register, with a rest at every end.
const N: usize = 37;
const D: usize = 53;
const F: usize = 131;

/// Numbers in ±`bound`.
fn random(count: usize, bound: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-bound..bound)).collect()
}

fn rows(numbers: &[f32], width: usize) -> Rows<'_> {
    Rows::new(numbers, width).unwrap()
}

fn rows_mut(numbers: &mut [f32], width: usize) -> RowsMut<'_> {
    RowsMut::new(numbers, width).unwrap()
}

/// `a · b`, `[n, k]` and `[k, m]`, in f64.
fn product(
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    [n, k, m]: [usize; 3],
) -> Vec<f64> {
    let sum = |i: usize, j: usize| (0..k).map(|l| f64::from(a(i, l)) * f64::from(b(l, j))).sum();
    (0..n).flat_map(|i| (0..m).map(move |j| (i, j))).map(|(i, j)| sum(i, j)).collect()
}

fn close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3_f64, |most, x| most.max(x.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 3e-6 * largest, "{index}: {found} {expected}");
    }
}

/// An SAE with few active features, and all that its passes give.
struct Pass {
    x: Vec<f32>,
    gradient: Vec<f32>,
    w_enc: Vec<f32>,
    w_dec: Vec<f32>,
    b_dec: Vec<f32>,
    features: Vec<f32>,
    sums: Vec<RowSums>,
    scales: Vec<f32>,
    reconstruction: Vec<f32>,
    penalties: Vec<f32>,
    pre: Vec<f32>,
    by_input: Vec<f32>,
    by_encoder: Vec<f32>,
    by_bias: Vec<f32>,
    by_decoder: Vec<f32>,
}

fn pass() -> Pass {
    let (x, gradient) = (random(N * D, 1.5, 1), random(N * D, 1.0, 2));
    let (w_enc, w_dec) = (random(F * D, 1.0, 3), random(F * D, 1.0, 4));
    let b_dec = random(D, 1.0, 5);
    let dense = product(|n, d| x[n * D + d], |d, f| w_enc[f * D + d], [N, D, F]);
    let mut features: Vec<f32> = dense.iter().map(|pre| *pre as f32 - 4.0).collect();
    let sums = relu(rows_mut(&mut features, F));
    let scales = row_scales(rows(&w_dec, D));
    let code = SparseCode::collect(rows(&features, F), &sums).unwrap();
    assert!(!code.is_empty() && code.len() < N * F / 4);
    let mut reconstruction = vec![f32::NAN; N * D];
    code.decode(rows(&w_dec, D), &scales, &b_dec, rows_mut(&mut reconstruction, D)).unwrap();
    let penalties = code.penalties(1.0, 0.5);
    let pre = code
        .feature_gradients(rows(&gradient, D), rows(&w_dec, D), &scales, penalties.clone())
        .unwrap();
    let mut by_input = vec![f32::NAN; N * D];
    code.input_gradient(&pre, rows(&w_enc, D), rows_mut(&mut by_input, D)).unwrap();
    let [mut by_encoder, mut by_decoder] = [(); 2].map(|()| vec![f32::NAN; F * D]);
    let mut by_bias = vec![f32::NAN; F];
    let inputs = SparseInputs {
        pre: &pre,
        x: rows(&x, D),
        gradient: rows(&gradient, D),
        w_dec: rows(&w_dec, D),
        scales: &scales,
    };
    let out = ParameterGradients {
        w_enc: rows_mut(&mut by_encoder, D),
        b_enc: &mut by_bias,
        w_dec: rows_mut(&mut by_decoder, D),
    };
    code.parameter_gradients(inputs, out).unwrap();
    Pass {
        x,
        gradient,
        w_enc,
        w_dec,
        b_dec,
        features,
        sums,
        scales,
        reconstruction,
        penalties,
        pre,
        by_input,
        by_encoder,
        by_bias,
        by_decoder,
    }
}

fn softmax_bits(sums: &[SoftmaxSums]) -> Vec<u32> {
    let parts = |sums: &SoftmaxSums| [f64::from(sums.largest), sums.sum, sums.weighted];
    let bits = |x: f64| [x.to_bits() as u32, (x.to_bits() >> 32) as u32];
    sums.iter().flat_map(parts).flat_map(bits).collect()
}

/// Every kernel on the same numbers: the bits of all that they give.
fn all() -> Vec<(&'static str, Vec<u32>)> {
    let bits = |numbers: &[f32]| -> Vec<u32> { numbers.iter().map(|x| x.to_bits()).collect() };
    let pass = pass();
    let sums: Vec<f32> = pass.sums.iter().map(|row| row.sum).collect();
    let mut masked = random(N * F, 1.0, 6);
    mask(rows_mut(&mut masked, F), rows(&pass.features, F), 0.25).unwrap();
    let mut projected = random(F * D, 1.0, 7);
    project(rows_mut(&mut projected, D), rows(&pass.w_dec, D), &pass.scales).unwrap();

    let (logits, mut other) = (random(N * F, 8.0, 8), random(N * F, 8.0, 9));
    let mut exps = vec![0.0; N * F];
    let own = exponentials(rows(&logits, F), rows_mut(&mut exps, F)).unwrap();
    let compared = compare(rows_mut(&mut other, F), rows(&logits, F), rows(&exps, F)).unwrap();
    let mut differences = other.clone();
    let pairs: Vec<(f32, f32)> = (1..=N).map(|n| (1.0 / n as f32, 0.5 / n as f32)).collect();
    subtract(rows_mut(&mut differences, F), rows(&exps, F), &pairs).unwrap();

    let [mut parameter, mut mean] = [10, 11].map(|seed| random(F * D, 1.0, seed));
    let mut square: Vec<f32> = random(F * D, 1.0, 12).into_iter().map(f32::abs).collect();
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
    adam(&mut parameter, &random(F * D, 1.0, 13), &mut mean, &mut square, step).unwrap();
    vec![
        ("relu", bits(&pass.features)),
        ("relu: sums", bits(&sums)),
        ("mask", bits(&masked)),
        ("row_scales", bits(&pass.scales)),
        ("project", bits(&projected)),
        ("decode", bits(&pass.reconstruction)),
        ("feature_gradients", bits(&pass.pre)),
        ("input_gradient", bits(&pass.by_input)),
        ("w_enc", bits(&pass.by_encoder)),
        ("b_enc", bits(&pass.by_bias)),
        ("w_dec", bits(&pass.by_decoder)),
        ("exponentials: sums", softmax_bits(&own)),
        ("exponentials", bits(&exps)),
        ("compare: sums", softmax_bits(&compared)),
        ("compare", bits(&other)),
        ("subtract", bits(&differences)),
        ("adam: parameter", bits(&parameter)),
        ("adam: mean", bits(&mean)),
        ("adam: square", bits(&square)),
    ]
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

/// The formulas of a pass and its gradients, as `sae-nn::pass` states them.
#[test]
fn sparse_codes_compute_what_the_dense_formulas_do() {
    let pass = pass();
    let c = |n: usize, f: usize| pass.features[n * F + f];
    let dictionary = |f: usize, d: usize| pass.w_dec[f * D + d] * pass.scales[f];
    for f in 0..F {
        let norm: f64 = (0..D).map(|d| f64::from(dictionary(f, d)).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    let mut expected = product(c, dictionary, [N, F, D]);
    expected.iter_mut().enumerate().for_each(|(at, x)| *x += f64::from(pass.b_dec[at % D]));
    close(&pass.reconstruction, &expected);

    let gradient = |n: usize, d: usize| pass.gradient[n * D + d];
    let scores = product(gradient, |d, f| dictionary(f, d), [N, D, F]);
    let penalty = 0.5 / N as f64;
    assert!(pass.penalties.iter().all(|p| (f64::from(*p) - penalty).abs() < 1e-8));
    let active: Vec<usize> = (0..N * F).filter(|&at| pass.features[at] > 0.0).collect();
    let sums: usize = pass.sums.iter().map(|row| row.active as usize).sum();
    assert_eq!(sums, active.len());
    let expected: Vec<f64> = active.iter().map(|&at| scores[at] + penalty).collect();
    close(&pass.pre, &expected);

    let mut dense = vec![0.0_f32; N * F];
    active.iter().zip(&pass.pre).for_each(|(&at, pre)| dense[at] = *pre);
    let pre = |n: usize, f: usize| dense[n * F + f];
    close(&pass.by_input, &product(pre, |f, d| pass.w_enc[f * D + d], [N, F, D]));
    close(&pass.by_encoder, &product(|f, n| pre(n, f), |n, d| pass.x[n * D + d], [F, N, D]));
    let biases: Vec<f64> = (0..F).map(|f| (0..N).map(|n| f64::from(pre(n, f))).sum()).collect();
    close(&pass.by_bias, &biases);
    let by_row = product(|f, n| c(n, f), gradient, [F, N, D]);
    let mut expected = Vec::new();
    for f in 0..F {
        let along: f64 = (0..D).map(|d| f64::from(dictionary(f, d)) * by_row[f * D + d]).sum();
        let own = |d: usize| by_row[f * D + d] - f64::from(dictionary(f, d)) * along;
        expected.extend((0..D).map(|d| own(d) * f64::from(pass.scales[f])));
    }
    close(&pass.by_decoder, &expected);
}

#[test]
fn norms_of_codes_and_their_derivatives() {
    // Two tokens: 3 and 4; then nothing.
    let mut features = [3.0, -1.0, 4.0, -1.0, -2.0, 0.0];
    let sums = relu(rows_mut(&mut features, 3));
    let code = SparseCode::collect(rows(&features, 3), &sums).unwrap();
    assert_eq!((code.n(), code.len()), (2, 2));
    assert!((code.mean_norm(1.0) - 3.5).abs() < 1e-12);
    assert!((code.mean_norm(2.0) - 2.5).abs() < 1e-12);
    close(&code.penalties(2.0, 1.0), &[0.3, 0.4]); // c / ‖c‖ / N
    close(&code.penalties(1.0, 4.0), &[2.0, 2.0]);
}

#[test]
fn nan_is_active_and_is_not_lost() {
    let mut features = [f32::NAN, -1.0, 1.0];
    let sums = relu(rows_mut(&mut features, 3));
    assert_eq!(sums[0].active, 2);
    assert!(features[0].is_nan() && sums[0].sum.is_nan());
    let code = SparseCode::collect(rows(&features, 3), &sums).unwrap();
    let mut out = [0.0];
    code.decode(rows(&[1.0; 3], 1), &[1.0; 3], &[0.0], rows_mut(&mut out, 1)).unwrap();
    assert!(out[0].is_nan());
}

#[test]
fn sizes_that_do_not_belong_together_are_refused() {
    assert!(Rows::new(&[0.0; 5], 2).is_err() && Rows::new(&[], 0).is_err());
    let numbers = [1.0; 6];
    let (mut gradient, two, three) = ([1.0; 6], rows(&numbers, 2), rows(&numbers, 3));
    let error = mask(rows_mut(&mut gradient, 2), three, 0.0).unwrap_err().to_string();
    assert_eq!(
        error,
        "gradients of features: expected 2 rows of 3 numbers, found 3 rows of 2 numbers"
    );
    let error = project(rows_mut(&mut gradient, 2), two, &[1.0]).unwrap_err().to_string();
    assert_eq!(error, "scales of rows: expected 3 numbers, found 1 numbers");
    let sums = relu(rows_mut(&mut gradient, 3));
    let code = SparseCode::collect(rows(&gradient, 3), &sums).unwrap();
    assert!(SparseCode::collect(three, &sums[..1]).is_err());
    let mut out = [0.0; 4];
    assert!(code.decode(two, &[1.0; 3], &[0.0; 2], rows_mut(&mut out, 2)).is_ok());
    assert!(code.decode(three, &[1.0; 3], &[0.0; 2], rows_mut(&mut out, 2)).is_err());
    assert!(code.decode(two, &[1.0; 3], &[0.0; 3], rows_mut(&mut out, 2)).is_err());
    assert!(code.input_gradient(&[1.0; 5], two, rows_mut(&mut out, 2)).is_err());
}
