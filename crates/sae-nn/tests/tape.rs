//! The written-out gradients of a dictionary against autograd's of the plain forward pass: every architecture, dense, few
//! active, in every precision, with prefixes and a skip connection.

#![allow(clippy::unwrap_used)] // In a test, a panic is the report.

use sae_config::Architecture;
use sae_nn::{Dictionary, Penalty, Sizes, loss};
use tch::{Device, Kind, Tensor, no_grad};

const N: i64 = 45;
const D: i64 = 24;
const F: i64 = 160;

fn parameters(dictionary: &Dictionary) -> Vec<&Tensor> {
    dictionary.parameters().map(|(_, tensor)| tensor).collect()
}

/// An autoencoder of whose features about `active` of F are active, and inputs.
fn case(active: f64, kind: Kind) -> (Dictionary, Tensor) {
    let (relu, sizes) = (Architecture::default(), Sizes::sae(D as usize, F as usize));
    let sae = Dictionary::random(&relu, sizes, 1, 0, Device::Cpu, kind).unwrap();
    tch::manual_seed(4);
    let x = Tensor::randn([3, N / 3, D], (Kind::Double, Device::Cpu)).to_kind(kind);
    no_grad(|| {
        let [w_enc, b_enc, w_dec] =
            ["w_enc", "b_enc", "w_dec"].map(|name| sae.parameter(name).unwrap());
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
    let double = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double);
    let plain = parameters(&sae).into_iter().map(double).collect();
    let plain = Dictionary::from_tensors(&Architecture::default(), plain).unwrap();
    let input = x.to_kind(Kind::Double).set_requires_grad(true);
    let out = plain.forward(&input).unwrap();
    let sparsity = loss::sparsity(&out.features, p, D as usize).unwrap();
    let g = Tensor::randn(x.size(), (Kind::Double, Device::Cpu)).to_kind(kind);
    let weight = 7.0;
    let total = &sparsity * (weight * D as f64)
        + (&out.reconstruction * g.to_kind(Kind::Double)).sum(None::<Kind>);
    let mut inputs = parameters(&plain);
    inputs.push(&input);
    let expected = Tensor::run_backward(&[total], &inputs, false, false);

    let pass = sae.pass(&x).unwrap();
    assert_eq!(pass.reconstruction().size(), x.size());
    close(pass.reconstruction(), &out.reconstruction, bound);
    close(&pass.sparsity(p).unwrap(), &sparsity, bound);
    let l0 = out.features.gt(0.0).sum(Kind::Double) / N as f64;
    close(&pass.l0().unwrap(), &l0, 0.0);
    let found = l0.double_value(&[]);
    assert!((found - active).abs() < 4.0, "{found} active where {active} were to be");
    let penalty = Penalty { p, weight };
    let found = pass.backward(&sae, &[Some(g.shallow_clone())], penalty, true).unwrap();
    for (found, expected) in found.parameters.iter().flatten().zip(&expected) {
        close(found, expected, bound);
        assert_eq!(found.kind(), if kind == Kind::Double { kind } else { Kind::Float });
    }
    let input = found.input.unwrap();
    close(&input, &expected[4].reshape([-1, D]), bound);

    sae.freeze();
    let frozen = pass.backward(&sae, &[Some(g.shallow_clone())], penalty, true).unwrap();
    assert!(frozen.parameters.is_none() && frozen.input.unwrap().equal(&input));
    assert!(
        pass.backward(&sae, &[Some(g.shallow_clone())], penalty, false).unwrap().input.is_none()
    );
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
        let _ = no_grad(|| parameters(&sae)[1].shallow_clone().fill_(-1e6));
        let pass = sae.pass(&x).unwrap();
        close(pass.reconstruction(), &parameters(&sae)[3].expand_as(&x), 0.0);
        let gradient = x.ones_like();
        for p in [0.5, 1.0, 2.0] {
            let penalty = Penalty { p, weight: 1.0 };
            let found =
                pass.backward(&sae, &[Some(gradient.shallow_clone())], penalty, true).unwrap();
            let found_parameters = found.parameters.unwrap();
            let [w_enc, b_enc, w_dec, b_dec] = [0, 1, 2, 3].map(|index| &found_parameters[index]);
            for zero in [w_enc, b_enc, w_dec, &found.input.unwrap()] {
                assert_eq!(zero.abs().max().double_value(&[]).to_bits(), 0.0_f64.to_bits());
            }
            close(b_dec, &(b_dec.ones_like() * N), 1e-6);
        }
    }
}

/// NaN is not hidden: it counts as active, and reaches the reconstruction.
#[test]
fn nan_shows() {
    for active in [4.0, 80.0] {
        let (sae, x) = case(active, Kind::Float);
        let _ = x.narrow(0, 1, 1).narrow(1, 2, 1).fill_(f64::NAN);
        let pass = sae.pass(&x).unwrap();
        assert!(pass.reconstruction().sum(None::<Kind>).double_value(&[]).is_nan());
        assert!(pass.sparsity(1.0).unwrap().double_value(&[]).is_nan());
    }
}

/// A dictionary of an architecture with few or many active features, and inputs.
fn dictionary(options: &str, sizes: Sizes, kind: Kind) -> (Dictionary, Tensor) {
    let options: Architecture = serde_json::from_str(options).unwrap();
    let dictionary = Dictionary::random(&options, sizes, 1, 0, Device::Cpu, kind).unwrap();
    tch::manual_seed(4);
    let x = Tensor::randn([3, N / 3, D], (Kind::Double, Device::Cpu)).to_kind(kind);
    no_grad(|| {
        // Rows of other lengths than 1, and a skip connection that does something.
        let rows = Tensor::rand([F, 1], (kind, Device::Cpu));
        let _ = dictionary.parameter("w_dec").unwrap().shallow_clone().g_mul_(&rows);
        if let Ok(skip) = dictionary.parameter("w_skip") {
            skip.shallow_clone().copy_(&Tensor::randn(skip.size(), (kind, Device::Cpu)));
        }
    });
    (dictionary, x)
}

/// The loss that the backward passes below are of: the reconstructions weighted by random numbers, and a sparsity term.
fn weighted(tape: &sae_nn::Tape, weights: &[Tensor], penalty: Penalty, width: i64) -> f64 {
    let sum = |(output, weights): (&Tensor, &Tensor)| {
        (output.to_kind(Kind::Double) * weights.to_kind(Kind::Double))
            .sum(None::<Kind>)
            .double_value(&[])
    };
    let outputs: f64 = tape.reconstructions.iter().zip(weights).map(sum).sum();
    let sparsity = tape.sparsity(penalty.p).unwrap().double_value(&[]);
    outputs + penalty.weight * width as f64 * sparsity
}

const ARCHITECTURES: [(&str, usize); 7] = [
    (r#"{"relu": {}}"#, 1),
    (r#"{"topk": {"k": 4}}"#, 1),
    (r#"{"topk": {"k": 60}}"#, 1),
    (r#"{"batch_topk": {"k": 5}}"#, 1),
    (r#"{"matryoshka": {"k": 6, "prefixes": [0.25, 0.5]}}"#, 3),
    (r#"{"matryoshka": {"k": 50, "prefixes": [0.1, 0.3, 0.7]}}"#, 4),
    (r#"{"jumprelu": {"initial_threshold": 0.3, "bandwidth": 0.5}}"#, 1),
];

/// Central differences in f64: a step so small that the choice of features stays what it is.
#[test]
fn gradients_of_every_architecture_agree_with_finite_differences() {
    for (options, prefixes) in ARCHITECTURES {
        for sizes in [
            Sizes::sae(D as usize, F as usize),
            Sizes { input: D as usize, output: 10, features: F as usize, skip: true },
        ] {
            let (dictionary, x) = dictionary(options, sizes, Kind::Double);
            let width = sizes.output as i64;
            let weights: Vec<Tensor> = (0..prefixes)
                .map(|_| Tensor::randn([3, N / 3, width], (Kind::Double, Device::Cpu)))
                .collect();
            let penalty = Penalty { p: 1.0, weight: 3.0 };
            let value =
                |x: &Tensor| weighted(&dictionary.pass(x).unwrap(), &weights, penalty, width);
            let tape = dictionary.pass(&x).unwrap();
            assert_eq!(tape.reconstructions.len(), prefixes);
            let gradients: Vec<Option<Tensor>> =
                weights.iter().map(|own| Some(own.shallow_clone())).collect();
            let found = tape.backward(&dictionary, &gradients, penalty, true).unwrap();
            let step = 1e-6;
            // The gradient of a threshold is estimated; PyTorch's is in `architectures.rs`.
            let mut checked: Vec<(&Tensor, &Tensor)> = dictionary
                .parameters()
                .zip(found.parameters.iter().flatten())
                .filter(|((name, _), _)| *name != "log_threshold")
                .map(|((_, at), gradient)| (at, gradient))
                .collect();
            let input = found.input.unwrap().view_as(&x);
            checked.push((&x, &input));
            for (index, (at, gradient)) in checked.into_iter().enumerate() {
                assert_eq!(at.size(), gradient.size(), "{options}: {index}");
                // Where the gradient is largest, and at a fixed place.
                let flat = gradient.reshape([-1]);
                let largest = flat.abs().argmax(0, false).int64_value(&[]);
                for element in [largest, 0, flat.size()[0] / 2] {
                    let place = at.view([-1]).get(element);
                    let before = place.double_value(&[]);
                    let moved = |by: f64| {
                        let _ = no_grad(|| place.shallow_clone().fill_(before + by));
                        value(&x)
                    };
                    let difference = (moved(step) - moved(-step)) / (2.0 * step);
                    moved(0.0);
                    let exact = flat.double_value(&[element]);
                    let bound = 1e-5 * exact.abs().max(1.0);
                    assert!(
                        (difference - exact).abs() < bound,
                        "{options}, skip {}, {index}, {element}: {difference} {exact}",
                        sizes.skip
                    );
                }
            }
        }
    }
}

/// The kernels, in f32, compute what libtorch's operations do in f64: codes, reconstructions, observations, gradients.
#[test]
fn kernels_compute_every_architecture_as_libtorch_does() {
    let widths = [(D as usize, false), (10, true)];
    let cases = ARCHITECTURES.into_iter().flat_map(|case| widths.map(|width| (case, width)));
    for ((options, prefixes), (output, skip)) in cases {
        let sizes = Sizes { input: D as usize, output, features: F as usize, skip };
        let (double, x) = dictionary(options, sizes, Kind::Double);
        let lowered = parameters(&double).into_iter().map(|own| own.detach().to_kind(Kind::Float));
        let single = Dictionary::from_tensors(double.options(), lowered.collect()).unwrap();
        // With the same numbers on both sides, both choose the same features.
        let raised = parameters(&single).into_iter().map(|own| own.detach().to_kind(Kind::Double));
        let double = Dictionary::from_tensors(single.options(), raised.collect()).unwrap();
        let x = x.to_kind(Kind::Float);
        let [plain, fast] =
            [double.pass(&x.to_kind(Kind::Double)).unwrap(), single.pass(&x).unwrap()];
        close(&fast.l0().unwrap(), &plain.l0().unwrap(), 0.0);
        for (fast, plain) in fast.reconstructions.iter().zip(&plain.reconstructions) {
            close(fast, plain, 1e-5);
        }
        for (fast, plain) in fast.observed.iter().zip(&plain.observed) {
            close(fast, plain, 1e-5);
        }
        for p in [1.0, 2.0] {
            close(&fast.sparsity(p).unwrap(), &plain.sparsity(p).unwrap(), 1e-5);
            // Of one prefix the loss knows nothing.
            let weights: Vec<Option<Tensor>> = (0..prefixes)
                .map(|prefix| {
                    let size = fast.reconstruction().size();
                    let weights = Tensor::randn(size, (Kind::Float, Device::Cpu));
                    (prefix != 1).then_some(weights)
                })
                .collect();
            let raise = |own: &Option<Tensor>| own.as_ref().map(|own| own.to_kind(Kind::Double));
            let raised: Vec<Option<Tensor>> = weights.iter().map(raise).collect();
            let penalty = Penalty { p, weight: 2.0 };
            let fast = fast.backward(&single, &weights, penalty, true).unwrap();
            let plain = plain.backward(&double, &raised, penalty, true).unwrap();
            close(&fast.input.unwrap(), &plain.input.unwrap(), 1e-4);
            for (fast, plain) in fast.parameters.unwrap().iter().zip(&plain.parameters.unwrap()) {
                close(fast, plain, 1e-4);
            }
        }
    }
}

#[test]
fn a_token_keeps_k_features_and_a_batch_k_a_token() {
    let sizes = Sizes::sae(D as usize, F as usize);
    for kind in [Kind::Float, Kind::Double] {
        let (topk, x) = dictionary(r#"{"topk": {"k": 7}}"#, sizes, kind);
        let features = topk.encode(&x).unwrap().reshape([-1, F]);
        let counts: Vec<i64> = Vec::try_from(features.gt(0.0).sum_dim_intlist(
            [-1_i64].as_slice(),
            false,
            Kind::Int64,
        ))
        .unwrap();
        assert!(counts.iter().all(|count| *count == 7), "{counts:?}");
        close(&topk.pass(&x).unwrap().l0().unwrap(), &Tensor::from(7.0), 0.0);
        // More than there are above 0 are as many as there are.
        let (all, x) = dictionary(&format!(r#"{{"topk": {{"k": {F}}}}}"#), sizes, kind);
        let (relu, _) = dictionary(r#"{"relu": {}}"#, sizes, kind);
        assert!(all.encode(&x).unwrap().equal(&relu.encode(&x).unwrap()));

        let (batch, x) = dictionary(r#"{"batch_topk": {"k": 7}}"#, sizes, kind);
        let tape = batch.pass(&x).unwrap();
        close(&tape.l0().unwrap(), &Tensor::from(7.0), 0.0);
        // The threshold is the smallest that was kept, then a running mean.
        let threshold = || batch.buffers().next().unwrap().1.double_value(&[]);
        assert_eq!(threshold().to_bits(), 0.0_f64.to_bits());
        let smallest = tape.observed[0].double_value(&[]);
        batch.observe(&tape.observed).unwrap();
        assert!((threshold() - smallest).abs() < 1e-6 && smallest > 0.0);
        batch.observe(&[Tensor::from(2.0 * smallest)]).unwrap();
        assert!((threshold() - 1.01 * smallest).abs() < 1e-5);
        // A batch in which nothing is active changes nothing.
        batch.observe(&[Tensor::from(f64::INFINITY)]).unwrap();
        assert!((threshold() - 1.01 * smallest).abs() < 1e-5);
        let above = relu.encode(&x).unwrap().gt(threshold());
        assert!(batch.encode(&x).unwrap().gt(0.0).equal(&above));
    }
}
