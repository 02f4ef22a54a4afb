//! The fast paths of a device beside libtorch's plain operations in double precision: what `sae bench agreement` prints. On a
//! CPU these are the kernels of `sae-kernels`, on a GPU those of `sae-cuda`, which no machine without one can test.
//!
//! `N` tokens, `D` width, `F` dictionary elements, `V` vocabulary.

use sae_config::Architecture;
use sae_nn::loss::kl_without_logits;
use sae_nn::{Dictionary, Penalty, Sizes, Tape};
use serde::Serialize;
use tch::{Device, Kind, TchError, Tensor, no_grad};

use crate::TrainError;
use crate::optim::{Adam, AdamOptions};

/// A number or tensor in both ways.
#[derive(Debug, Clone, Serialize)]
pub struct Agreement {
    /// What was computed, of what.
    pub what: String,
    /// `‖fast − plain‖ / ‖plain‖`.
    pub difference: f64,
}

/// A dictionary to compare with.
struct Case {
    d: i64,
    f: i64,
    n: i64,
    kind: Kind,
    /// About so many of a thousand features are active.
    active: i64,
    p: f64,
}

/// Compares dictionaries in training, KL divergence and Adam.
pub fn measure(device: Device) -> Result<Vec<Agreement>, TrainError> {
    tch::manual_seed(0);
    let mut all = Vec::new();
    // Widths that kernels read 16 bytes at a time, and one number at a time.
    for (d, f, n) in [(768, 4096, 700), (30, 1000, 100)] {
        for kind in [Kind::Float, Kind::BFloat16] {
            for (active, p) in [(3, 1.0), (3, 0.5), (300, 1.0)] {
                all.extend(dictionary(&Case { d, f, n, kind, active, p }, device)?);
            }
        }
    }
    for bias in [false, true] {
        all.extend(kl(bias, device)?);
    }
    all.push(adam(device)?);
    Ok(all)
}

/// The forward and backward pass of a dictionary, one of whose features is active on every token.
fn dictionary(case: &Case, device: Device) -> Result<Vec<Agreement>, TrainError> {
    let &Case { d, f, n, kind, active, p } = case;
    let sizes = Sizes::sae(d as usize, f as usize);
    let options = Architecture::default();
    let fast = Dictionary::random(&options, sizes, 0, 0, device, Kind::Float)?;
    let random = |size: [i64; 2]| Tensor::f_randn(size, (Kind::Float, device))?.f_to_kind(kind);
    let x = random([n, d])?;
    no_grad(|| {
        // Of 1 000 features, `active` are above this threshold, the standard deviation being 1 / √3.
        let deviations = if active < 10 { 2.75 } else { 0.52 };
        let mut bias = fast.parameter("b_enc")?.shallow_clone();
        let _ = bias.f_fill_(-deviations / 3.0_f64.sqrt())?;
        bias.f_narrow(0, 1, 1)?.f_copy_(&Tensor::from(8.0))?;
        Ok::<(), TrainError>(())
    })?;
    let precise = fast
        .parameters()
        .map(|(_, tensor)| tensor.f_detach()?.f_to_kind(Kind::Double))
        .collect::<Result<Vec<_>, TchError>>()?;
    let precise = Dictionary::from_tensors(&options, precise)?;
    let gradient = random([n, d])?;
    let penalty = Penalty { p, weight: 0.3 };
    let pass = |dictionary: &Dictionary, kind: Kind| -> Result<_, TrainError> {
        let tape: Tape = dictionary.pass(&x.f_to_kind(kind)?)?;
        let gradients = [Some(gradient.f_to_kind(kind)?)];
        let found = tape.backward(dictionary, &gradients, penalty, true)?;
        let mut tensors = vec![
            ("reconstruction", tape.reconstruction().shallow_clone()),
            ("l0", tape.l0()?),
            ("sparsity", tape.sparsity(p)?),
        ];
        tensors.extend(found.input.map(|tensor| ("input gradient", tensor)));
        let parameters = dictionary.parameters().map(|(name, _)| name);
        tensors.extend(parameters.zip(found.parameters.into_iter().flatten()));
        Ok(tensors)
    };
    let name = format!("D = {d}, F = {f}, {kind:?}, {active} of 1000 active, p = {p}");
    let both = pass(&fast, kind)?.into_iter().zip(pass(&precise, Kind::Double)?);
    both.map(|((what, fast), (_, plain))| Agreement::of(format!("{what}: {name}"), &fast, &plain))
        .collect()
}

/// KL of two spliced models against one original, in chunks.
fn kl(has_bias: bool, device: Device) -> Result<Vec<Agreement>, TrainError> {
    let (n, d, v, chunk) = (100, 64, 5003, 32);
    let random = |size: &[i64]| Tensor::f_randn(size, (Kind::Float, device));
    let hidden = [random(&[n, d])?, random(&[n, d])?, random(&[n, d])?.f_mul_scalar(3.0)?];
    let (weight, bias) = (random(&[v, d])?, has_bias.then(|| random(&[v])).transpose()?);
    let terms = |kind: Kind, gradient: Kind| -> Result<_, TrainError> {
        let wide = |tensor: &Tensor| tensor.f_to_kind(kind);
        let hidden = hidden.iter().map(wide).collect::<Result<Vec<_>, _>>()?;
        let bias = bias.as_ref().map(wide).transpose()?;
        let spliced = [&hidden[1], &hidden[2]];
        Ok(kl_without_logits(
            &hidden[0],
            &spliced,
            &wide(&weight)?,
            bias.as_ref(),
            chunk,
            gradient,
        )?)
    };
    let mut all = Vec::new();
    let plain = terms(Kind::Double, Kind::Double)?;
    for gradient in [Kind::Float, Kind::BFloat16] {
        for (index, (fast, plain)) in terms(Kind::Float, gradient)?.iter().zip(&plain).enumerate() {
            let name = format!("V = {v}, {gradient:?}, bias {has_bias}, model {index}");
            all.push(Agreement::of(format!("KL: {name}"), &fast.value, &plain.value)?);
            let what = format!("gradient of KL: {name}");
            all.push(Agreement::of(what, &fast.gradient, &plain.gradient)?);
        }
    }
    Ok(all)
}

/// Some steps of Adam.
fn adam(device: Device) -> Result<Agreement, TrainError> {
    let random = || Tensor::f_randn([1000, 7], (Kind::Float, device));
    let (start, gradients) = (random()?, [random()?, random()?, random()?]);
    let steps = |kind: Kind| -> Result<Tensor, TrainError> {
        let parameter = start.f_to_kind(kind)?.f_detach_copy()?;
        let own = [(parameter.shallow_clone(), 0.1)];
        let mut adam = Adam::new(own, AdamOptions::default())?;
        for gradient in &gradients {
            adam.step(&[gradient.f_to_kind(kind)?], 0.7, 1e-2)?;
        }
        Ok(parameter)
    };
    Agreement::of("Adam".to_owned(), &steps(Kind::Float)?, &steps(Kind::Double)?)
}

impl Agreement {
    fn of(what: String, fast: &Tensor, plain: &Tensor) -> Result<Self, TrainError> {
        let wide = |tensor: &Tensor| tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double);
        let (fast, plain) = (wide(fast)?, wide(plain)?);
        let norm = |tensor: &Tensor| tensor.f_norm()?.f_double_value(&[]);
        let difference = norm(&fast.f_sub(&plain)?)? / norm(&plain)?.max(1e-30);
        Ok(Self { what, difference })
    }
}
