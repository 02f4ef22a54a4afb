//! The fast paths of a device beside libtorch's plain operations in double precision: what `sae bench agreement` prints. On a
//! CPU these are the kernels of `sae-kernels`, on a GPU those of `sae-cuda`, which no machine without one can test.
//!
//! `N` tokens, `D` width, `F` dictionary elements, `V` vocabulary.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_config::Architecture;
use sae_nn::kernels::gpu;
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
    /// What the difference may be, products of single precision not being taken in TF32.
    pub bound: f64,
}

/// What differences of values may be in single precision.
const ROUNDING: f64 = 1e-4;
/// The same of gradients: a pre-activation that rounds to the other side of 0 counts for √(1 / active features).
const FLIPS: f64 = 5e-3;
/// The same in bfloat16, of values and of gradients.
const LOWERED: [f64; 2] = [3e-2, 0.3];

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

/// Random numbers of variance 1, the same on every device.
struct Random {
    rng: ChaCha8Rng,
    device: Device,
}

impl Random {
    fn tensor(&mut self, size: &[i64]) -> Result<Tensor, TrainError> {
        let bound = 3.0_f32.sqrt();
        let numbers: Vec<f32> = (0..size.iter().product::<i64>())
            .map(|_| self.rng.random_range(-bound..bound))
            .collect();
        Ok(Tensor::f_from_slice(&numbers)?.f_view(size)?.f_to_device(self.device)?)
    }
}

/// Compares dictionaries in training, KL divergence and Adam.
pub fn measure(device: Device) -> Result<Vec<Agreement>, TrainError> {
    let mut random = Random { rng: ChaCha8Rng::seed_from_u64(0), device };
    let mut all = Vec::new();
    if device.is_cuda() {
        let loaded = gpu::applies(&[&random.tensor(&[1])?]);
        all.push(Agreement::holds("the kernels for GPUs are loaded", loaded));
    }
    // Widths that kernels read 16 bytes at a time, one number at a time, and in blocks of the most threads.
    for (d, f, n) in [(256, 1024, 200), (30, 500, 64), (1024, 600, 20), (2048, 600, 10)] {
        for kind in [Kind::Float, Kind::BFloat16] {
            for (active, p) in [(3, 1.0), (3, 0.5), (300, 1.0)] {
                all.extend(dictionary(&Case { d, f, n, kind, active, p }, &mut random)?);
            }
        }
    }
    all.push(not_a_number(&mut random)?);
    for bias in [false, true] {
        all.extend(kl(bias, &mut random)?);
    }
    all.push(adam(&mut random)?);
    Ok(all)
}

/// A dictionary with about so many of a thousand features active on tokens of variance 1, and one on every token.
fn with_active(d: i64, f: i64, active: i64, device: Device) -> Result<Dictionary, TrainError> {
    let sizes = Sizes::sae(d as usize, f as usize);
    let options = Architecture::default();
    let dictionary = Dictionary::random(&options, sizes, 0, 0, device, Kind::Float)?;
    no_grad(|| {
        // Pre-activations have the standard deviation 1 / √3.
        let deviations = if active < 10 { 2.75 } else { 0.52 };
        let mut bias = dictionary.parameter("b_enc")?.shallow_clone();
        let _ = bias.f_fill_(-deviations / 3.0_f64.sqrt())?;
        let _ = bias.f_narrow(0, 1, 1)?.f_fill_(8.0)?;
        Ok::<(), TrainError>(())
    })?;
    Ok(dictionary)
}

/// The forward and backward pass of a dictionary.
fn dictionary(case: &Case, random: &mut Random) -> Result<Vec<Agreement>, TrainError> {
    let &Case { d, f, n, kind, active, p } = case;
    let fast = with_active(d, f, active, random.device)?;
    let (x, gradient) = (random.tensor(&[n, d])?, random.tensor(&[n, d])?);
    let (x, gradient) = (x.f_to_kind(kind)?, gradient.f_to_kind(kind)?);
    let precise = fast
        .parameters()
        .map(|(_, tensor)| tensor.f_detach()?.f_to_kind(Kind::Double))
        .collect::<Result<Vec<_>, TchError>>()?;
    let precise = Dictionary::from_tensors(&Architecture::default(), precise)?;
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
    both.map(|((what, fast), (_, plain))| {
        let is_value = ["reconstruction", "l0", "sparsity"].contains(&what);
        let bound = match (kind, is_value) {
            (Kind::BFloat16, true) => LOWERED[0],
            (Kind::BFloat16, false) => LOWERED[1],
            (_, true) => ROUNDING,
            (_, false) => FLIPS,
        };
        Agreement::of(format!("{what}: {name}"), &fast, &plain, bound)
    })
    .collect()
}

/// Whether a parameter that has become NaN is noticed: the reconstruction is, too.
fn not_a_number(random: &mut Random) -> Result<Agreement, TrainError> {
    let dictionary = with_active(64, 1024, 3, random.device)?;
    no_grad(|| {
        let bias = dictionary.parameter("b_enc")?;
        let _ = bias.f_narrow(0, 5, 1)?.f_fill_(f64::NAN)?;
        Ok::<(), TrainError>(())
    })?;
    let tape = dictionary.pass(&random.tensor(&[20, 64])?)?;
    let sum = tape.reconstruction().f_sum(Kind::Double)?.f_double_value(&[])?;
    Ok(Agreement::holds("a NaN of a dictionary is one of its reconstructions", sum.is_nan()))
}

/// KL of two spliced models against one original, in chunks.
fn kl(has_bias: bool, random: &mut Random) -> Result<Vec<Agreement>, TrainError> {
    let (n, d, v, chunk) = (100, 64, 5003, 32);
    let [a, b, c] = [(); 3].map(|()| random.tensor(&[n, d]));
    let (hidden, weight) = ([a?, b?, c?.f_mul_scalar(3.0)?], random.tensor(&[v, d])?);
    let bias = has_bias.then(|| random.tensor(&[v])).transpose()?;
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
            all.push(Agreement::of(format!("KL: {name}"), &fast.value, &plain.value, ROUNDING)?);
            let what = format!("gradient of KL: {name}");
            let bound = if gradient == Kind::Float { ROUNDING } else { LOWERED[0] };
            all.push(Agreement::of(what, &fast.gradient, &plain.gradient, bound)?);
        }
    }
    Ok(all)
}

/// Some steps of Adam.
fn adam(random: &mut Random) -> Result<Agreement, TrainError> {
    let [start, a, b, c] = [(); 4].map(|()| random.tensor(&[1000, 7]));
    let (start, gradients) = (start?, [a?, b?, c?]);
    let steps = |kind: Kind| -> Result<Tensor, TrainError> {
        let parameter = start.f_to_kind(kind)?.f_detach_copy()?;
        let own = [(parameter.shallow_clone(), 0.1)];
        let mut adam = Adam::new(own, AdamOptions::default())?;
        for gradient in &gradients {
            adam.step(&[gradient.f_to_kind(kind)?], 0.7, 1e-2)?;
        }
        Ok(parameter)
    };
    let (fast, plain) = (steps(Kind::Float)?, steps(Kind::Double)?);
    Agreement::of("Adam".to_owned(), &fast, &plain, ROUNDING)
}

impl Agreement {
    fn of(what: String, fast: &Tensor, plain: &Tensor, bound: f64) -> Result<Self, TrainError> {
        let wide = |tensor: &Tensor| tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double);
        let (fast, plain) = (wide(fast)?, wide(plain)?);
        let norm = |tensor: &Tensor| tensor.f_norm()?.f_double_value(&[]);
        let difference = norm(&fast.f_sub(&plain)?)? / norm(&plain)?.max(1e-30);
        Ok(Self { what, difference, bound })
    }

    fn holds(what: &str, holds: bool) -> Self {
        Self { what: what.to_owned(), difference: f64::from(u8::from(!holds)), bound: 0.0 }
    }

    /// Whether the difference is within its bound.
    pub fn is_good(&self) -> bool {
        self.difference <= self.bound
    }
}
