//! Forward and backward pass of a dictionary in training: by written-out gradients, so that nothing is kept or computed that
//! they do not need, or by autograd.
//!
//! `N` tokens (any leading dimensions), `D` width of the input, `E` of the reconstruction, `F` dictionary elements.

use std::ops::Range;

use tch::{TchError, Tensor, no_grad, with_grad};

use crate::architecture::Mode;
use crate::code::{Base, Code, PartInputs, UnitRows, sum_of_rows};
use crate::{Dictionary, SaeError, kernels, loss};

/// What a training pass gives, and what its backward pass needs.
///
/// Where gradients are written out, with `g` the loss's gradient with respect to x̂, and ρ that of the sparsity term with
/// respect to c (the chain rule on the formulas of [`Dictionary`]):
///
/// - `∂pre = g · dictᵀ + ρ` where the feature is active, 0 elsewhere
/// - `∂w_enc = ∂preᵀ · x`, `∂b_enc = Σ_n ∂pre`, `∂x = ∂pre · w_enc (+ g · w_skip)`
/// - `∂dict = cᵀ · g`, `∂w_dec = (∂dict − dict (dict · ∂dict)) / ‖w_dec‖` row by row, `∂b_dec = Σ_n g`, `∂w_skip = gᵀ · x`
///
/// Where prefixes of the dictionary have reconstructions of their own, `g` of an element is the sum over the prefixes that
/// it is in.
///
/// ```
/// use sae_config::Architecture;
/// use sae_nn::{Dictionary, Penalty, Sizes};
/// use tch::{Device, Kind, Tensor};
///
/// let sizes = Sizes::sae(8, 32); // D = 8, F = 32
/// let sae = Dictionary::random(&Architecture::default(), sizes, 0, 0, Device::Cpu, Kind::Float)?;
/// let x = Tensor::ones([5, 8], (Kind::Float, Device::Cpu));
/// let tape = sae.pass(&x)?;
/// let gradient = (tape.reconstruction() - &x) * (2.0 / 40.0); // of the mean of (x̂ − x)²
/// let found = tape.backward(&sae, &[Some(gradient)], Penalty { p: 1.0, weight: 0.1 / 8.0 }, false)?;
/// assert_eq!(found.parameters.map(|all| all[0].size()), Some(vec![32, 8]));
/// # Ok::<(), sae_nn::SaeError>(())
/// ```
#[derive(Debug)]
pub struct Tape {
    /// The reconstruction of every prefix of the dictionary, `[..., E]` in the precision of the input; the last is that of the
    /// whole, and most architectures have no other.
    pub reconstructions: Vec<Tensor>,
    /// What [`Dictionary::observe`] takes in.
    pub observed: Vec<Tensor>,
    /// Tokens, and the width of the reconstruction.
    sizes: (i64, i64),
    graph: Graph,
}

/// What the backward pass of a tape works on.
#[derive(Debug)]
enum Graph {
    Written { input: Tensor, code: Code, parts: Vec<Part> },
    Autograd { input: Tensor, pass: Differentiable },
}

/// A part of the dictionary: the elements that a prefix has and the one before it has not.
#[derive(Debug)]
struct Part {
    features: Range<i64>,
    rows: UnitRows,
}

/// What an architecture makes of an input by differentiable operations.
#[derive(Debug)]
pub(crate) struct Differentiable {
    /// `[N, F]`.
    pub features: Tensor,
    /// 1 where a feature is active, 0 elsewhere, `[N, F]`, where that has a gradient: the number of active features can be
    /// trained on.
    pub active: Option<Tensor>,
    /// `[N, E]`, one a prefix.
    pub reconstructions: Vec<Tensor>,
    pub observed: Vec<Tensor>,
}

impl Differentiable {
    /// What features of an input give where the dictionary has one reconstruction.
    pub fn of(
        dictionary: &Dictionary,
        input: &Tensor,
        features: Tensor,
        active: Option<Tensor>,
    ) -> Result<Self, SaeError> {
        let reconstruction = dictionary.with_skip(input, dictionary.decode(&features)?)?;
        let (reconstructions, observed) = (vec![reconstruction], Vec::new());
        Ok(Self { features, active, reconstructions, observed })
    }
}

/// The sparsity term that a loss has: `weight · mean_n ‖c_n‖_p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalty {
    /// The norm's p; 0 stands for the number of active features, which has a gradient for some architectures alone.
    pub p: f64,
    /// What the mean is multiplied by.
    pub weight: f64,
}

/// The gradients of a loss.
#[derive(Debug)]
pub struct Gradients {
    /// In the order of [`Dictionary::parameters`]; none of a dictionary that is not trained.
    pub parameters: Option<Vec<Tensor>>,
    /// With respect to the input, `[N, D]`, where it was asked for.
    pub input: Option<Tensor>,
}

impl Tape {
    /// A pass through the linear encoder, whose gradients are written out.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    pub(crate) fn written(dictionary: &Dictionary, x: &Tensor) -> Result<Self, SaeError> {
        no_grad(|| {
            let (input, shape) = flattened(dictionary, x)?;
            let (w_enc, b_enc) = (dictionary.w_enc(), dictionary.b_enc());
            let (w_dec, b_dec) = (dictionary.w_dec(), dictionary.b_dec());
            let kind = input.kind();
            let lower = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(kind);
            let mut features = lower(b_enc)?.f_addmm(&input, &lower(w_enc)?.f_tr()?)?;
            let (algorithm, buffers) = (dictionary.algorithm(), dictionary.buffer_values());
            // A frozen dictionary computes what it computes in use.
            let mode = if dictionary.is_trained() { Mode::Training } else { Mode::Inference };
            let counted = mode == Mode::Training || algorithm.buffers().is_empty();
            let all = dictionary.n_features();
            let prefixes = dictionary.options().prefixes(all);
            let fast = counted && kernels::applies(&[&features, w_enc, w_dec, b_dec]);
            let few_on_gpu = |features: &Tensor| {
                Code::of_few_on_gpu(features, [w_enc, w_dec], prefixes.len() > 1)
            };
            let (code, observed) = if fast {
                let sums = kernels::relu(&mut features)?;
                let kept = algorithm.keep_counted(&mut features, sums, buffers)?;
                (Code::counted(features, kept.features)?, kept.observed)
            } else if algorithm.keeps_all() {
                let code = few_on_gpu(&features)?;
                (code.map_or_else(|| features.f_relu_().map(Code::Dense), Ok)?, Vec::new())
            } else {
                let kept = algorithm.keep(features.f_relu_()?, buffers, mode)?;
                let code = few_on_gpu(&kept.features)?;
                (code.unwrap_or(Code::Dense(kept.features)), kept.observed)
            };
            let (mut reconstructions, mut parts) = (Vec::<Tensor>::new(), Vec::new());
            let mut start = 0;
            for end in prefixes {
                let features = start..end as i64;
                start = features.end;
                let w_dec = narrow(w_dec, &features)?;
                let part = code.part(&features, all as i64)?;
                let (reconstruction, rows) = if let Some(before) = reconstructions.last() {
                    part.decode(&w_dec, Base::Before(before), kind)?
                } else {
                    let (first, rows) = part.decode(&w_dec, Base::Bias(b_dec), kind)?;
                    (dictionary.with_skip(&input, first)?, rows)
                };
                reconstructions.push(reconstruction);
                parts.push(Part { features, rows });
            }
            let sizes = (input.size2()?.0, b_dec.size()[0]);
            let graph = Graph::Written { input, code, parts };
            Ok(Self { reconstructions: shaped(&reconstructions, &shape)?, observed, sizes, graph })
        })
    }

    /// A pass through differentiable operations, `[N, D]` → features and reconstructions; autograd goes back through them.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    pub(crate) fn by_autograd(
        dictionary: &Dictionary,
        x: &Tensor,
        forward: impl FnOnce(&Tensor) -> Result<Differentiable, SaeError>,
    ) -> Result<Self, SaeError> {
        with_grad(|| {
            let (input, shape) = flattened(dictionary, x)?;
            let input = input.f_detach()?.set_requires_grad(true);
            let mut pass = forward(&input)?;
            let detached =
                pass.reconstructions.iter().map(Tensor::f_detach).collect::<Result<Vec<_>, _>>()?;
            let observed = std::mem::take(&mut pass.observed);
            let sizes = (input.size2()?.0, dictionary.b_dec().size()[0]);
            let graph = Graph::Autograd { input, pass };
            Ok(Self { reconstructions: shaped(&detached, &shape)?, observed, sizes, graph })
        })
    }

    /// The reconstruction of the whole dictionary, `[..., E]`.
    #[allow(clippy::missing_panics_doc)] // A tape has at least one.
    pub fn reconstruction(&self) -> &Tensor {
        &self.reconstructions[self.reconstructions.len() - 1]
    }

    /// Active features per token, a scalar in f64.
    pub fn l0(&self) -> Result<Tensor, SaeError> {
        match &self.graph {
            Graph::Written { code, .. } => code.l0(self.sizes.0),
            Graph::Autograd { pass, .. } => Code::Dense(pass.features.f_detach()?).l0(self.sizes.0),
        }
    }

    /// `mean_n ‖c_n‖_p / E`, as [`loss::sparsity`] has it; a scalar.
    pub fn sparsity(&self, p: f64) -> Result<Tensor, SaeError> {
        if p == 0.0 {
            return Ok(self.l0()?.f_div_scalar(self.sizes.1 as f64)?);
        }
        match &self.graph {
            Graph::Written { code, .. } => code.sparsity(p, self.sizes),
            Graph::Autograd { pass, .. } => {
                loss::sparsity(&pass.features.f_detach()?, p, self.sizes.1 as usize)
            }
        }
    }

    /// The gradients of a loss with these gradients with respect to the reconstructions (none where the loss does not depend
    /// on one), and this sparsity term.
    ///
    /// # Shapes
    /// `gradients`: one a reconstruction, `[..., E]`.
    pub fn backward(
        &self,
        dictionary: &Dictionary,
        gradients: &[Option<Tensor>],
        penalty: Penalty,
        wants_input: bool,
    ) -> Result<Gradients, SaeError> {
        let (found, expected) = (gradients.len(), self.reconstructions.len());
        if found != expected {
            let message = format!("{found} gradients of {expected} reconstructions");
            return Err(TchError::Shape(message).into());
        }
        let found = match &self.graph {
            Graph::Written { input, code, parts } => no_grad(|| {
                let gradients = self.summed(gradients, input)?;
                written_back(dictionary, (input, code, parts), &gradients, penalty, wants_input)
            }),
            Graph::Autograd { input, pass } => {
                autograd_back(dictionary, (input, pass), gradients, penalty, wants_input)
            }
        }?;
        let (given, all) =
            (found.parameters.as_ref().map(Vec::len), dictionary.parameters().count());
        match given {
            // An architecture with parameters of its own, and the linear encoder's gradients.
            Some(given) if given != all => {
                let message = format!("{given} gradients of {all} parameters");
                Err(TchError::Shape(message).into())
            }
            _ => Ok(found),
        }
    }

    /// The gradient with respect to what each part adds: the sum over the prefixes that it is in, `[N, E]`.
    fn summed(
        &self,
        gradients: &[Option<Tensor>],
        input: &Tensor,
    ) -> Result<Vec<Tensor>, SaeError> {
        let (n, e) = self.sizes;
        let mut summed: Vec<Tensor> = Vec::with_capacity(gradients.len());
        for gradient in gradients.iter().rev() {
            let own = match gradient {
                Some(own) => Some(own.f_reshape([n, e])?.f_contiguous()?),
                None => None,
            };
            summed.push(match (own, summed.last()) {
                (Some(own), None) => own,
                (Some(own), Some(later)) => own.f_add(later)?,
                (None, Some(later)) => later.shallow_clone(),
                (None, None) => Tensor::f_zeros([n, e], (input.kind(), input.device()))?,
            });
        }
        summed.reverse();
        Ok(summed)
    }
}

fn written_back(
    dictionary: &Dictionary,
    (input, code, parts): (&Tensor, &Code, &[Part]),
    gradients: &[Tensor],
    penalty: Penalty,
    wants_input: bool,
) -> Result<Gradients, SaeError> {
    let (n, kind) = (input.size2()?.0, dictionary.w_enc().kind());
    let all = dictionary.n_features() as i64;
    let wants_parameters = dictionary.is_trained();
    let penalties = code.penalties(penalty, n)?;
    let mut by_input: Option<Tensor> = None;
    let mut of_parts = Vec::with_capacity(parts.len());
    for (part, gradient) in parts.iter().zip(gradients) {
        let (w_enc, w_dec) = (
            narrow(dictionary.w_enc(), &part.features)?,
            narrow(dictionary.w_dec(), &part.features)?,
        );
        let found = code.part(&part.features, all)?.backward(&PartInputs {
            w_enc: &w_enc,
            w_dec: &w_dec,
            rows: &part.rows,
            input,
            gradient,
            penalties: &penalties,
            wants_input,
            wants_parameters,
        })?;
        by_input = match (by_input, found.input) {
            (Some(sum), Some(own)) => Some(sum.f_add(&own)?),
            (sum, own) => sum.or(own),
        };
        of_parts.extend(found.parameters);
    }
    // The bias and the skip connection are in every reconstruction.
    let whole = &gradients[0];
    if let (Some(sum), Some(skip)) = (&by_input, dictionary.skip()) {
        by_input = Some(sum.f_add(&whole.f_mm(&skip.f_to_kind(whole.kind())?)?)?);
    }
    if !wants_parameters {
        return Ok(Gradients { parameters: None, input: by_input });
    }
    let mut parameters = joined(of_parts)?;
    parameters.push(sum_of_rows(whole)?.f_to_kind(kind)?);
    if dictionary.skip().is_some() {
        parameters.push(whole.f_tr()?.f_mm(input)?.f_to_kind(kind)?);
    }
    Ok(Gradients { parameters: Some(parameters), input: by_input })
}

/// The gradients of the parts one below the other.
fn joined(mut parts: Vec<[Tensor; 3]>) -> Result<Vec<Tensor>, SaeError> {
    if parts.len() == 1 {
        return Ok(parts.remove(0).into());
    }
    (0..3)
        .map(|index| {
            let rows: Vec<&Tensor> = parts.iter().map(|part| &part[index]).collect();
            Ok(Tensor::f_cat(&rows, 0)?)
        })
        .collect()
}

fn autograd_back(
    dictionary: &Dictionary,
    (input, pass): (&Tensor, &Differentiable),
    gradients: &[Option<Tensor>],
    penalty: Penalty,
    wants_input: bool,
) -> Result<Gradients, SaeError> {
    with_grad(|| {
        // `weight · mean ‖c‖_p`: the width that the term is divided by is 1.
        let penalised = match &pass.active {
            Some(active) if penalty.p == 0.0 => loss::sparsity(active, 1.0, 1)?,
            _ => loss::sparsity(&pass.features, penalty.p, 1)?,
        };
        let mut root = penalised.f_mul_scalar(penalty.weight)?;
        for (reconstruction, gradient) in pass.reconstructions.iter().zip(gradients) {
            let Some(gradient) = gradient else { continue };
            let gradient = gradient.f_detach()?.f_reshape(reconstruction.size())?;
            root =
                root.f_add(&reconstruction.f_mul(&gradient)?.f_sum(loss::wide(reconstruction))?)?;
        }
        let is_trained = dictionary.is_trained();
        let parameters = dictionary.parameters().map(|(_, tensor)| tensor);
        let leaves: Vec<&Tensor> =
            parameters.filter(|_| is_trained).chain(std::iter::once(input)).collect();
        let found = if root.requires_grad() {
            Tensor::f_run_backward(&[&root], &leaves, true, false)?
        } else {
            // The loss depends on none of them, and autograd takes no root without a graph.
            leaves.iter().map(|leaf| leaf.f_zeros_like()).collect::<Result<Vec<_>, _>>()?
        };
        // One that the loss does not depend on comes back undefined.
        let mut found = found
            .into_iter()
            .zip(&leaves)
            .map(|(found, leaf)| if found.defined() { Ok(found) } else { leaf.f_zeros_like() })
            .collect::<Result<Vec<_>, _>>()?;
        let by_input = found.pop().filter(|_| wants_input);
        Ok(Gradients { parameters: is_trained.then_some(found), input: by_input })
    })
}

/// An input as `[N, D]`, and the shape of its reconstructions.
fn flattened(dictionary: &Dictionary, x: &Tensor) -> Result<(Tensor, Vec<i64>), SaeError> {
    let sizes = dictionary.sizes();
    let mut shape = x.size();
    let input = x.f_detach()?.f_reshape([-1, sizes.input as i64])?.f_contiguous()?;
    if let Some(last) = shape.last_mut() {
        *last = sizes.output as i64;
    }
    Ok((input, shape))
}

fn shaped(reconstructions: &[Tensor], shape: &[i64]) -> Result<Vec<Tensor>, SaeError> {
    reconstructions.iter().map(|reconstruction| Ok(reconstruction.f_view(shape)?)).collect()
}

/// Some rows of a parameter.
fn narrow(parameter: &Tensor, rows: &Range<i64>) -> Result<Tensor, SaeError> {
    Ok(parameter.f_detach()?.f_narrow(0, rows.start, rows.end - rows.start)?)
}

#[cfg(test)]
mod tests {
    use sae_config::Architecture;
    use tch::{Device, Kind};

    use super::*;
    use crate::Sizes;

    /// An architecture that writes no gradients out has the same ones.
    #[test]
    fn autograd_goes_back_as_the_written_gradients_do() {
        let sizes = Sizes { input: 6, output: 5, features: 40, skip: true };
        let (relu, cpu) = (Architecture::default(), Device::Cpu);
        let dictionary = Dictionary::random(&relu, sizes, 0, 0, cpu, Kind::Double).unwrap();
        tch::manual_seed(1);
        let x = Tensor::randn([3, 4, 6], (Kind::Double, cpu));
        let written = Tape::written(&dictionary, &x).unwrap();
        let by_autograd = Tape::by_autograd(&dictionary, &x, |input| {
            Differentiable::of(&dictionary, input, dictionary.encode(input)?, None)
        });
        let by_autograd = by_autograd.unwrap();
        let close = |a: &Tensor, b: &Tensor| {
            assert!((a - b).abs().max().double_value(&[]) < 1e-12, "{a} {b}");
        };
        close(written.reconstruction(), by_autograd.reconstruction());
        close(&written.l0().unwrap(), &by_autograd.l0().unwrap());
        let gradient = || vec![Some(Tensor::ones([3, 4, 5], (Kind::Double, cpu)))];
        for p in [1.0, 2.0] {
            close(&written.sparsity(p).unwrap(), &by_autograd.sparsity(p).unwrap());
            let penalty = Penalty { p, weight: 0.7 };
            let back =
                |tape: &Tape| tape.backward(&dictionary, &gradient(), penalty, true).unwrap();
            let (a, b) = (back(&written), back(&by_autograd));
            close(&a.input.unwrap(), &b.input.unwrap());
            for (a, b) in a.parameters.unwrap().iter().zip(&b.parameters.unwrap()) {
                close(a, b);
            }
        }
    }
}
