//! A dictionary: named parameters and buffers, and the architecture that computes with them.
//!
//! `N` tokens (any leading dimensions), `D` width of the activation that is read, `E` of the one that is written (the same
//! for an SAE), `F` dictionary elements (features).

use std::path::Path;

use sae_config::Architecture;
use tch::{Device, Kind, TchError, Tensor, no_grad};

use crate::architecture::{self, Algorithm, Buffers, Exported, Mode};
use crate::init::Initialiser;
use crate::{SaeError, Tape};

/// A sparse autoencoder or transcoder with a dictionary of unit-norm elements: a code `c` of the input, and the
/// reconstruction `x̂ = c · dict + b_dec` with `dict` the rows of `w_dec` normalised in the forward pass (Braun et al. 2024,
/// section 2; the input is not centred by `b_dec`). A skip connection adds `x · w_skipᵀ`.
///
/// The parameters are `w_enc [F, D]`, `b_enc [F]`, `w_dec [F, E]`, `b_dec [E]`, with a skip connection `w_skip [E, D]`, and
/// those of the architecture, one number a feature each. Buffers are what an architecture remembers beside them, a running
/// mean for example.
#[derive(Debug)]
pub struct Dictionary {
    options: Architecture,
    algorithm: Box<dyn Algorithm>,
    parameters: Vec<(&'static str, Tensor)>,
    buffers: Buffers,
}

/// The sizes of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Width of the activation that is read, D.
    pub input: usize,
    /// Width of the activation that is written, E.
    pub output: usize,
    /// Dictionary elements, F.
    pub features: usize,
    /// Whether there is a linear skip connection from the input to the output.
    pub skip: bool,
}

impl Sizes {
    /// Those of an SAE, which reads and writes one activation.
    pub fn sae(d_model: usize, features: usize) -> Self {
        Self { input: d_model, output: d_model, features, skip: false }
    }
}

/// What a dictionary makes of activations.
#[derive(Debug)]
pub struct DictionaryOutput {
    /// Feature activations c, `[..., F]`, none below 0.
    pub features: Tensor,
    /// The reconstruction x̂, `[..., E]`.
    pub reconstruction: Tensor,
}

/// Rows shorter than this are divided by it instead of by their norm, as `torch.nn.functional.normalize` does.
pub(crate) const MIN_NORM: f64 = sae_kernels::MIN_NORM as f64;

/// The parameters of every dictionary, in order.
const PARAMETERS: [&str; 4] = ["w_enc", "b_enc", "w_dec", "b_dec"];
/// The parameter of a skip connection.
const SKIP: &str = "w_skip";

impl Dictionary {
    /// An initialised dictionary: decoder orthogonal, encoder weights and bias uniform in ±1/√D, decoder bias uniform in
    /// ±1/√F, a skip connection 0. `stream` tells the dictionaries of a run apart; nothing else than `seed`, `stream` and the
    /// sizes matters.
    pub fn random(
        options: &Architecture,
        sizes: Sizes,
        seed: u64,
        stream: u64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, SaeError> {
        let Sizes { input, output, features, skip } = sizes;
        let fits = |width: usize| {
            let numbers = width.checked_mul(features);
            numbers.is_some_and(|numbers| (1..=1 << 40).contains(&numbers))
        };
        let expected = if !fits(input) || !fits(output) {
            Some("from 1 to 2⁴⁰ numbers")
        } else if i32::try_from(features).is_err() {
            Some("fewer than 2³¹ elements")
        } else {
            None
        };
        if let Some(expected) = expected {
            return Err(SaeError::Size { d_model: input.max(output), features, expected });
        }
        let [d, e, f] = [input, output, features].map(|n| n as i64);
        let mut init = Initialiser::new(seed, stream);
        let encoder_bound = (input as f64).sqrt().recip();
        let w_enc = init.uniform(&[f, d], encoder_bound)?;
        let b_enc = init.uniform(&[f], encoder_bound)?;
        let w_dec = init.orthogonal(f, e)?;
        let b_dec = init.uniform(&[e], (features as f64).sqrt().recip())?;
        let mut tensors = vec![w_enc, b_enc, w_dec, b_dec];
        if skip {
            tensors.push(Tensor::f_zeros([e, d], (Kind::Double, Device::Cpu))?);
        }
        for (_, value) in architecture::of(options).parameters() {
            tensors.push(Tensor::f_full([f], value, (Kind::Double, Device::Cpu))?);
        }
        let place = |tensor: Tensor| tensor.f_to_kind(kind)?.f_to_device(device);
        let tensors = tensors.into_iter().map(place).collect::<Result<Vec<_>, TchError>>()?;
        Self::from_tensors(options, tensors)
    }

    /// A dictionary of these parameters, which will carry gradients.
    ///
    /// # Shapes
    /// `w_enc: [F, D]`, `b_enc: [F]`, `w_dec: [F, E]`, `b_dec: [E]`, perhaps `w_skip: [E, D]`, and the parameters of the
    /// architecture, `[F]` each, in this order.
    pub fn from_tensors(options: &Architecture, tensors: Vec<Tensor>) -> Result<Self, SaeError> {
        let algorithm = architecture::of(options);
        let (own, given) = (algorithm.parameters(), tensors.len());
        let has_skip = given > PARAMETERS.len() + own.len();
        let names = PARAMETERS.into_iter().chain(has_skip.then_some(SKIP));
        let names = names.chain(own.iter().map(|(name, _)| *name));
        let named: Vec<(&str, Tensor)> = names.zip(tensors).collect();
        let sizes: Vec<Vec<i64>> = named.iter().map(|(_, tensor)| tensor.size()).collect();
        let fits = match sizes.as_slice() {
            [w_enc, b_enc, w_dec, b_dec, others @ ..]
                if given == PARAMETERS.len() + usize::from(has_skip) + own.len() =>
            {
                let (skip, own) = others.split_at(usize::from(has_skip));
                matches!((&w_enc[..], &w_dec[..]), (&[f, d], &[g, e])
                    if f == g && b_enc[..] == [f] && b_dec[..] == [e]
                        && skip.iter().all(|skip| skip[..] == [e, d])
                        && own.iter().all(|own| own[..] == [f]))
            }
            _ => false,
        };
        if !fits {
            let shapes: Vec<String> =
                named.iter().map(|(name, tensor)| format!("{name} {:?}", tensor.size())).collect();
            let message = format!("{} do not belong to one dictionary", shapes.join(", "));
            return Err(TchError::Shape(message).into());
        }
        let (kind, device) = (named[0].1.kind(), named[0].1.device());
        let parameters = named
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.f_detach()?.set_requires_grad(true))))
            .collect::<Result<_, TchError>>()?;
        let buffers = algorithm
            .buffers()
            .iter()
            .map(|(name, value)| Ok((*name, Tensor::f_full([], *value, (kind, device))?)))
            .collect::<Result<_, TchError>>()?;
        Ok(Self { options: options.clone(), algorithm, parameters, buffers: Buffers(buffers) })
    }

    /// The architecture, with its options.
    pub fn options(&self) -> &Architecture {
        &self.options
    }

    pub(crate) fn algorithm(&self) -> &dyn Algorithm {
        self.algorithm.as_ref()
    }

    /// Refuses parameters and buffers read from `path` that are NaN or infinite: every number computed with them would be,
    /// too.
    pub(crate) fn check_finite(&self, path: &Path) -> Result<(), SaeError> {
        for (parameter, tensor) in self.parameters().chain(self.buffers()) {
            let finite = tensor.f_isfinite()?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
            let count = tensor.numel() as i64 - finite;
            if count > 0 {
                return Err(SaeError::NonFinite { path: path.to_owned(), parameter, count });
            }
        }
        Ok(())
    }

    /// Takes the parameters out of training: they carry no gradients from here on. What the dictionary reads still does.
    pub fn freeze(&self) {
        for (_, parameter) in self.parameters() {
            let _ = parameter.set_requires_grad(false);
        }
    }

    /// Whether the parameters are trained.
    pub fn is_trained(&self) -> bool {
        self.w_enc().requires_grad()
    }

    /// The sizes.
    pub fn sizes(&self) -> Sizes {
        let (features, input) = (self.b_enc().size()[0], self.w_enc().size()[1]);
        Sizes {
            input: input as usize,
            output: self.b_dec().size()[0] as usize,
            features: features as usize,
            skip: self.skip().is_some(),
        }
    }

    /// The device that the parameters are on.
    pub fn device(&self) -> Device {
        self.w_enc().device()
    }

    /// Dictionary elements, F.
    pub fn n_features(&self) -> usize {
        self.sizes().features
    }

    /// The stored parameters with their names; `w_dec` is not normalised.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.parameters.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// The parameter of a name; every dictionary has `w_enc`, `b_enc`, `w_dec` and `b_dec`.
    pub fn parameter(&self, name: &str) -> Result<&Tensor, SaeError> {
        let found = self.parameters().find(|(own, _)| *own == name).map(|(_, tensor)| tensor);
        Ok(found.ok_or_else(|| TchError::Shape(format!("no parameter is named {name}")))?)
    }

    /// What the architecture remembers beside the parameters, with names; scalars.
    pub fn buffers(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.buffers.0.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// Takes in what a training pass has observed ([`Tape::observed`]): to be called once a micro-batch, in order.
    pub fn observe(&self, observed: &[Tensor]) -> Result<(), SaeError> {
        no_grad(|| self.algorithm.observe(&self.buffers, observed))
    }

    /// The same weights with other options, where these compute the same ([`Architecture::computes_as`]); none elsewhere.
    pub fn with_options(self, options: &Architecture) -> Option<Self> {
        options.computes_as(&self.options).then(|| Self {
            options: options.clone(),
            algorithm: architecture::of(options),
            ..self
        })
    }

    /// What SAELens computes the same with.
    pub(crate) fn exported(&self) -> Result<Exported, SaeError> {
        self.algorithm.exported(self)
    }

    /// Takes over a tensor beside those that every architecture has, as [`Dictionary::exported`] gives it; `path` names its
    /// file in errors.
    pub(crate) fn import(&self, threshold: &Tensor, path: &Path) -> Result<(), SaeError> {
        no_grad(|| self.algorithm.import(self, threshold, path))
    }

    pub(crate) fn w_enc(&self) -> &Tensor {
        &self.parameters[0].1
    }

    pub(crate) fn b_enc(&self) -> &Tensor {
        &self.parameters[1].1
    }

    pub(crate) fn w_dec(&self) -> &Tensor {
        &self.parameters[2].1
    }

    pub(crate) fn b_dec(&self) -> &Tensor {
        &self.parameters[3].1
    }

    /// The skip connection's weights, `[E, D]`.
    pub(crate) fn skip(&self) -> Option<&Tensor> {
        self.parameters().find(|(name, _)| *name == SKIP).map(|(_, tensor)| tensor)
    }

    pub(crate) fn buffer_values(&self) -> &Buffers {
        &self.buffers
    }

    /// Feature activations, as evaluation has them. The product is taken in the precision of `x`, here and in
    /// [`Dictionary::decode`].
    ///
    /// # Shapes
    /// `x: [..., D]` → `[..., F]`.
    pub fn encode(&self, x: &Tensor) -> Result<Tensor, SaeError> {
        Ok(self.algorithm.encode(self, x, Mode::Inference)?.features)
    }

    /// The dictionary elements: decoder rows scaled to unit length.
    ///
    /// # Shapes
    /// → `[F, E]`.
    pub fn elements(&self) -> Result<Tensor, SaeError> {
        Ok(self.w_dec().f_div(&norms(self.w_dec())?)?)
    }

    /// The sum of dictionary elements that feature activations stand for, with the decoder's bias, and without a skip
    /// connection.
    ///
    /// # Shapes
    /// `features: [..., F]` → `[..., E]`.
    pub fn decode(&self, features: &Tensor) -> Result<Tensor, SaeError> {
        let kind = features.kind();
        let (weight, bias) = (self.elements()?.f_to_kind(kind)?, self.b_dec().f_to_kind(kind)?);
        Ok(features.f_linear(&weight.f_tr()?, Some(&bias))?)
    }

    /// Encodes and decodes, as evaluation does.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    pub fn forward(&self, x: &Tensor) -> Result<DictionaryOutput, SaeError> {
        self.forward_with(x, Ok)
    }

    /// The same with other feature activations than those that were encoded: `edit` makes them.
    ///
    /// # Shapes
    /// `x: [..., D]`; `edit: [..., F]` → the same.
    pub fn forward_with(
        &self,
        x: &Tensor,
        edit: impl FnOnce(Tensor) -> Result<Tensor, SaeError>,
    ) -> Result<DictionaryOutput, SaeError> {
        let features = edit(self.encode(x)?)?;
        let reconstruction = self.with_skip(x, self.decode(&features)?)?;
        Ok(DictionaryOutput { features, reconstruction })
    }

    /// Encodes and decodes in training, outside of autograd: the tape goes back by written-out gradients where the
    /// architecture has them. Products are taken in the precision of `x`.
    ///
    /// # Shapes
    /// `x: [..., D]`.
    pub fn pass(&self, x: &Tensor) -> Result<Tape, SaeError> {
        self.algorithm.pass(self, x)
    }

    /// Adds what the skip connection makes of the input.
    pub(crate) fn with_skip(&self, x: &Tensor, reconstruction: Tensor) -> Result<Tensor, SaeError> {
        match self.skip() {
            None => Ok(reconstruction),
            Some(skip) => {
                let skipped = x.f_linear(&skip.f_to_kind(x.kind())?, None::<&Tensor>)?;
                Ok(reconstruction.f_add(&skipped)?)
            }
        }
    }
}

/// What decoder rows are divided by to have unit length, `[F, 1]`.
pub(crate) fn norms(w_dec: &Tensor) -> Result<Tensor, SaeError> {
    Ok(w_dec.f_norm_scalaropt_dim(2.0, [1], true)?.f_clamp_min(MIN_NORM)?)
}
